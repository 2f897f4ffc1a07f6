//! Maps, which HAProxy reads at its start. At run time a whole map is replaced in one step.

use super::super::api::{Error, Wanted};
use super::cli::Session;
use super::syntax::{is_configuration, is_plain};

/// How the maps that HAProxy has loaded differ from the outputs. `None`: they do not.
pub(super) async fn difference(session: &mut Session<'_>, wanted: &Wanted<'_>) -> Result<Option<String>, Error> {
    for (path, content) in loaded(session, wanted).await? {
        let answers = session.send(&[format!("show map {path}")]).await?;
        if loaded_entries(&answers[0]) != entries(content) {
            return Ok(Some(format!("the map {path} that HAProxy has loaded differs from the file")));
        }
    }
    Ok(None)
}

/// Replaces the loaded maps that differ. Returns why that needs a reload instead.
pub(super) async fn replace(session: &mut Session<'_>, wanted: &Wanted<'_>) -> Result<Option<String>, Error> {
    for (path, content) in loaded(session, wanted).await? {
        let answers = session.send(&[format!("show map {path}")]).await?;
        let entries = entries(content);
        if loaded_entries(&answers[0]) == entries {
            continue;
        }
        if !entries.iter().all(|(key, value)| is_plain(key) && is_plain(value)) {
            return Ok(Some(format!("the map {path} has an entry with characters that no command can hold")));
        }
        let answers = session.send(&[format!("prepare map {path}")]).await?;
        let Some(version) = answers[0].strip_prefix("New version created: ") else {
            return Ok(Some(format!("HAProxy refuses `prepare map {path}`: {}", answers[0])));
        };
        let mut commands: Vec<_> =
            entries.iter().map(|(key, value)| format!("add map @{version} {path} {key} {value}")).collect();
        commands.push(format!("commit map @{version} {path}"));
        let answers = session.send(&commands).await?;
        if let Some((command, answer)) = commands.iter().zip(&answers).find(|(_, answer)| !answer.is_empty()) {
            return Ok(Some(format!("HAProxy refuses `{command}`: {answer}")));
        }
    }
    Ok(None)
}

/// The outputs that HAProxy has loaded as maps under the same path. It does not use the others.
async fn loaded<'a>(session: &mut Session<'_>, wanted: &Wanted<'a>) -> Result<Vec<(String, &'a str)>, Error> {
    let maps = wanted.outputs.iter().filter(|(_, content)| !is_configuration(content));
    let maps: Vec<_> = maps.map(|(path, content)| (path.to_string_lossy().into_owned(), *content)).collect();
    if maps.is_empty() {
        return Ok(Vec::new());
    }
    let answers = session.send(&["show map"]).await?;
    Ok(maps.into_iter().filter(|(path, _)| answers[0].contains(&format!(" ({path}) "))).collect())
}

/// The keys and values of a map's file, sorted.
fn entries(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |line: &str| {
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        (key.to_owned(), value.trim().to_owned())
    };
    let mut entries: Vec<_> = lines.map(entry).collect();
    entries.sort();
    entries
}

/// The keys and values in the answer to `show map FILE`, sorted.
fn loaded_entries(answer: &str) -> Vec<(String, String)> {
    // Each line begins with an address in HAProxy's memory.
    let entry = |line: &str| {
        let (key, value) = line.split_once(' ')?.1.split_once(' ')?;
        Some((key.to_owned(), value.trim().to_owned()))
    };
    let mut entries: Vec<_> = answer.lines().filter_map(entry).collect();
    entries.sort();
    entries
}
