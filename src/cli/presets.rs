//! `elasticd frontends` and `elasticd init`: the frontends known by name, and a configuration to start from.

use super::{Exit, client, complain};
use crate::config;
use crate::frontend::{Raw, preset};
use crate::provider;

/// Which frontend.
#[derive(Debug, Clone, clap::Args)]
pub struct FrontendsArgs {
    /// Say how this one is set up, and what its defaults are, rather than list them all
    frontend: Option<String>,
}

/// For which frontend.
#[derive(Debug, Clone, clap::Args)]
pub struct InitArgs {
    /// One of those that `elasticd frontends` lists
    frontend: String,
}

/// Lists the frontends, or shows the defaults of one.
pub fn frontends(args: &FrontendsArgs) -> Exit {
    match &args.frontend {
        None => {
            let header = ["FRONTEND", "OUTPUT", "TAKES A CHANGE BY", "PROOF", ""].map(str::to_owned).to_vec();
            let rows = preset::names().into_iter().filter_map(|name| Some(row(name, &config::preset(name)?)));
            let table = client::table(&std::iter::once(header).chain(rows).collect::<Vec<_>>());
            super::print(table.as_bytes())
        }
        Some(name) => match (preset::guide(name), preset::defaults_text(name)) {
            (Some(guide), Some(defaults)) => super::print(format!("{guide}\n## Defaults\n\n{defaults}").as_bytes()),
            _ => unknown(name),
        },
    }
}

/// Prints a configuration to start from.
pub fn init(args: &InitArgs) -> Exit {
    match (preset::defaults_text(&args.frontend), config::preset(&args.frontend)) {
        (Some(text), Some(defaults)) => super::print(starter(&args.frontend, &defaults, text).as_bytes()),
        _ => unknown(&args.frontend),
    }
}

fn unknown(name: &str) -> Exit {
    complain(&format!("there is no frontend {name:?}; there are {}", preset::names().join(", ")));
    Exit::FAILURE
}

fn row(name: &str, defaults: &Raw) -> Vec<String> {
    let paths: Vec<_> =
        defaults.outputs.iter().flat_map(|output| &output.path).map(|path| path.display().to_string()).collect();
    let description = defaults.description.clone().unwrap_or_default();
    vec![name.to_owned(), paths.join(" "), defaults.takes_a_change_by(), defaults.proof_in_words(), description]
}

/// The example of the most usual type of provider, and those of others commented out.
fn provider_section() -> String {
    let mut examples = provider::examples();
    let mut section = format!("[providers.prod]\n{}", examples.next().unwrap_or_default());
    for line in examples.flat_map(str::lines) {
        let line = line.strip_prefix("# ").unwrap_or(line);
        section.push_str(&format!("# {line}\n"));
    }
    section
}

const SERVICE: &str = r#"[services.web]
provider = "prod"
select   = { Role = "web" }
port     = { tag = "Port", default = 8080 }
"#;

/// The preset's own text, commented out, is the reference of what can be changed.
fn starter(name: &str, defaults: &Raw, text: &str) -> String {
    let description = defaults.description.as_deref().unwrap_or(name);
    let mut starter = format!(
        "# elasticd for {description}.\n# What the frontend's own configuration needs: `elasticd frontends {name}`.\n"
    );
    starter +=
        &format!("\n{}\n{SERVICE}\n[frontends.{name}]\ntype = \"{name}\"\n# The defaults:\n", provider_section());
    for line in told(text).lines() {
        let line = match line.strip_prefix("[[").or_else(|| line.strip_prefix('[')) {
            Some(table) if line.starts_with("[[") => format!("[[frontends.{name}.{table}"),
            Some(table) => format!("[frontends.{name}.{table}"),
            None => line.to_owned(),
        };
        starter.push_str(format!("# {line}").trim_end());
        starter.push('\n');
    }
    starter
}

/// A preset without what is said of it rather than set by it.
fn told(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("description = ")).collect();
    lines.join("\n").trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starter_holds_every_default_of_its_preset() {
        for name in preset::names() {
            let (text, defaults) = (preset::defaults_text(name).expect("built in"), config::preset(name));
            let starter = starter(name, &defaults.expect("built in"), text);
            // Uncommented, the defaults are what they are without being written.
            let (_, defaults) = starter.split_once("# The defaults:\n").expect("there");
            let uncommented: String =
                defaults.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or_default())).collect();
            let written = figment_of(&format!("[frontends.{name}]\n{uncommented}"), name);
            let preset = config::preset(name).expect("built in");
            assert_eq!(Raw { description: preset.description.clone(), ..written }, preset);
        }
    }

    fn figment_of(text: &str, name: &str) -> Raw {
        use figment::providers::{Format, Toml};
        let figment = figment::Figment::from(Toml::string(text));
        figment.focus(&format!("frontends.{name}")).extract().unwrap_or_else(|error| panic!("{error}:\n{text}"))
    }
}
