//! Maps, which HAProxy reads at its start and then is told of, one whole map in one step.

use super::super::{Error, Wanted};
use super::cli::Session;
use super::file;

/// In which way a map that HAProxy has loaded is not what it should be.
pub(super) async fn differ(session: &mut Session<'_>, wanted: &Wanted<'_>) -> Result<Option<String>, Error> {
    for (path, content) in loaded(session, wanted).await? {
        let answers = session.ask(&[format!("show map {path}")]).await?;
        if entries_of(&answers[0]) != file::map_entries(content) {
            return Ok(Some(format!("the map {path} is another one")));
        }
    }
    Ok(None)
}

/// Replaces the loaded maps that differ, each in one step. Returns why that cannot be, and needs a reload.
pub(super) async fn tell(session: &mut Session<'_>, wanted: &Wanted<'_>) -> Result<Option<String>, Error> {
    for (path, content) in loaded(session, wanted).await? {
        let answers = session.ask(&[format!("show map {path}")]).await?;
        let entries = file::map_entries(content);
        if entries_of(&answers[0]) == entries {
            continue;
        }
        if !entries.iter().all(|(key, value)| file::is_plain(key) && file::is_plain(value)) {
            return Ok(Some(format!("the map {path} holds what cannot be told at run time")));
        }
        let answers = session.ask(&[format!("prepare map {path}")]).await?;
        let Some(version) = answers[0].strip_prefix("New version created: ") else {
            return Ok(Some(format!("HAProxy refuses `prepare map {path}`: {}", answers[0])));
        };
        let mut commands: Vec<_> =
            entries.iter().map(|(key, value)| format!("add map @{version} {path} {key} {value}")).collect();
        commands.push(format!("commit map @{version} {path}"));
        let answers = session.ask(&commands).await?;
        if let Some((command, answer)) = commands.iter().zip(&answers).find(|(_, answer)| !answer.is_empty()) {
            return Ok(Some(format!("HAProxy refuses `{command}`: {answer}")));
        }
    }
    Ok(None)
}

/// The outputs that HAProxy has loaded as maps, under just that path. One that it has not is of no use to it.
async fn loaded<'a>(session: &mut Session<'_>, wanted: &Wanted<'a>) -> Result<Vec<(String, &'a str)>, Error> {
    let maps = wanted.outputs.iter().filter(|(_, content)| !file::is_configuration(content));
    let maps: Vec<_> = maps.map(|(path, content)| (path.to_string_lossy().into_owned(), *content)).collect();
    if maps.is_empty() {
        return Ok(Vec::new());
    }
    let answers = session.ask(&["show map"]).await?;
    Ok(maps.into_iter().filter(|(path, _)| answers[0].contains(&format!(" ({path}) "))).collect())
}

/// `show map FILE`: keys and values, sorted.
fn entries_of(answer: &str) -> Vec<(String, String)> {
    // An address in HAProxy's memory comes first.
    let entry = |line: &str| {
        let (key, value) = line.split_once(' ')?.1.split_once(' ')?;
        Some((key.to_owned(), value.trim().to_owned()))
    };
    let mut entries: Vec<_> = answer.lines().filter_map(entry).collect();
    entries.sort();
    entries
}
