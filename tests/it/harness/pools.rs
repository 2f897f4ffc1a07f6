//! What templates are tried with: services of each kind, in what `elasticd render` makes of them.

use super::elasticd::Elasticd;

/// `web` in two zones, with a weight, an IPv6 service, one that is drained and one that is empty.
const POOLS: &str = "[providers.pools]\ntype = 'fixed'\ninstances = [\n\
    { id = 'i-1', address = '10.0.0.1:8080', zone = 'a', tags = { Role = 'web', Owner = 'x' } },\n\
    { id = 'i-2', address = '10.0.0.2:8080', zone = 'b', weight = 256, tags = { Role = 'web' } },\n\
    { id = 'i-3', address = '10.0.0.3:8080', zone = 'b', weight = 0, tags = { Role = 'web' } },\n\
    { id = 'i-4', address = '10.0.0.4:80', weight = 0, tags = { Role = 'drained' } },\n\
    { id = 'i-6', address = '[2001:db8::6]:8080', tags = { Role = 'six' } },\n]\n\
    [services]\nweb = { provider = 'pools', select = { Role = 'web' } }\n\
    drained = { provider = 'pools', select = { Role = 'drained' } }\n\
    empty = { provider = 'pools', select = { Role = 'none' } }\n\
    six = { provider = 'pools', select = { Role = 'six' }, address = 'ipv6' }\n";

/// What would be written for `[frontends.NAME]` of that type, with these keys, under the paths of its outputs.
pub fn rendered(name: &str, keys: &str) -> String {
    let elasticd = Elasticd::new(&format!("{POOLS}[frontends.{name}]\ntype = '{name}'\n{keys}"));
    let (code, text, complaints) = elasticd.run(&["render"]);
    assert_eq!(code, 0, "{complaints}");
    text
}

/// The same of the only output, without its path.
pub fn rendered_output(name: &str, keys: &str) -> String {
    let text = rendered(name, keys);
    let (_, text) = text.split_once("<==\n").expect("an output");
    assert!(!text.contains("==>"), "one output: {text}");
    // A newline follows each.
    text.strip_suffix('\n').expect("an end").to_owned()
}
