use super::*;
use crate::config::keys::SECTIONS;

#[test]
fn the_schema_has_every_section_and_type() {
    let schema = schema();
    for section in SECTIONS.iter().filter(|section| **section != "publish" || fleet::TYPE.is_some()) {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
    let types = schema["properties"]["providers"]["additionalProperties"]["oneOf"].as_array().expect("types");
    let types: Vec<_> = types.iter().map(|of_type| &of_type["properties"]["type"]["const"]).collect();
    assert_eq!(types, provider::TYPES);
    let frontends = &schema["properties"]["frontends"]["additionalProperties"]["properties"]["type"]["enum"];
    assert!(frontends.as_array().expect("types").contains(&"nginx".into()));
}

#[test]
fn every_key_is_described() {
    fn undescribed(at: &str, schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                for (name, field) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
                    // The word that tells the alternatives of a table apart is described with each alternative.
                    let is_known =
                        |field: &Map<String, Value>| field.contains_key("description") || field.contains_key("const");
                    if !field.as_object().is_some_and(is_known) {
                        found.push(format!("{at}.{name}"));
                    }
                }
                fields.iter().for_each(|(name, field)| undescribed(&format!("{at}.{name}"), field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| undescribed(at, item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    undescribed("", &schema(), &mut found);
    assert!(found.is_empty(), "without a description: {found:#?}");
}
