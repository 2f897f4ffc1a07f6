//! The presets: the folders of `templates/`, which are built into the program.

use include_dir::{Dir, include_dir};

static TEMPLATES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates");

/// The file in a preset's folder that holds its keys.
const DEFAULTS: &str = "preset.toml";

/// The type of a frontend without a preset.
pub const CUSTOM: &str = "custom";

/// The names of all presets, sorted.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = TEMPLATES.dirs().filter_map(|dir| dir.path().to_str()).collect();
    names.sort_unstable();
    names
}

/// The keys of a preset, as TOML with its comments. `None`: there is no such preset.
pub fn defaults_text(name: &str) -> Option<&'static str> {
    TEMPLATES.get_file(format!("{name}/{DEFAULTS}"))?.contents_utf8()
}

/// How the frontend of a preset is set up, in Markdown. `None`: there is no such preset.
pub fn guide(name: &str) -> Option<&'static str> {
    TEMPLATES.get_file(format!("{name}/README.md"))?.contents_utf8()
}

/// A built-in template, by its path in `templates/`, such as `nginx/upstreams.conf`.
pub fn template(path: &str) -> Option<&'static str> {
    TEMPLATES.get_file(path)?.contents_utf8()
}
