//! The frontends known by name: the folders of `templates/`, built into the program.

use include_dir::{Dir, include_dir};

use super::raw::Raw;

static TEMPLATES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates");

/// The file in a preset's folder that holds its defaults.
const DEFAULTS: &str = "preset.toml";

/// The name of the type without a preset.
pub const CUSTOM: &str = "custom";

/// The names of all presets, sorted.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = TEMPLATES.dirs().filter_map(|dir| dir.path().to_str()).collect();
    names.sort_unstable();
    names
}

/// A preset's defaults as its author wrote them. `None`: there is no such preset.
pub fn defaults_text(name: &str) -> Option<&'static str> {
    TEMPLATES.get_file(format!("{name}/{DEFAULTS}"))?.contents_utf8()
}

/// How its frontend is set up, for people, in Markdown. `None`: there is no such preset.
pub fn guide(name: &str) -> Option<&'static str> {
    TEMPLATES.get_file(format!("{name}/README.md"))?.contents_utf8()
}

/// A preset's defaults. `None`: there is no such preset.
pub fn defaults(name: &str) -> Option<Raw> {
    use figment::providers::{Format, Toml};
    let text = defaults_text(name)?;
    Some(figment::Figment::from(Toml::string(text)).extract().expect("a test reads every preset"))
}

/// A built-in template, by its path in `templates/`, such as `nginx/upstreams.conf`.
pub fn template(path: &str) -> Option<&'static str> {
    TEMPLATES.get_file(path)?.contents_utf8()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_a_whole_preset() {
        assert!(names().contains(&"nginx"));
        for name in names() {
            let defaults = defaults(name).unwrap_or_else(|| panic!("{name} has no {DEFAULTS}"));
            assert!(guide(name).is_some(), "{name} has no README.md");
            for output in defaults.outputs.unwrap_or_default() {
                let template_path = output.template.expect("every output of a preset has a template");
                assert!(template(&template_path).is_some(), "{name} names {template_path}, which is not there");
            }
        }
    }
}
