//! The JSON Schema of the configuration, derived from the types that it is read into.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::frontends;
use super::providers::RawSchedule;
use super::service::raw::{RawSelector, RawService};
use super::top::raw::RawTop;
use crate::model::Name;
use crate::provider::{self, Configuration, TypeVisitor};
use crate::{fleet, frontend};

/// The JSON Schema of the whole configuration, which is that of a file without fragments.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut root = object::<RawTop>(&mut generator);
    let sections = [
        ("providers", "Where instances are learnt from.", providers(&mut generator)),
        ("services", "The named pools of backends.", generator.subschema_for::<RawService>().to_value()),
        ("frontends", "The processes that are configured.", frontends(&mut generator)),
    ];
    for (section, description, entry) in sections {
        let tables = json!({
            "type": "object",
            "description": description,
            "propertyNames": { "pattern": Name::PATTERN },
            "additionalProperties": entry,
        });
        property(&mut root, section, tables);
    }
    if let Some(publish) = publish(&mut generator) {
        property(&mut root, "publish", publish);
    }
    let definitions: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    root.insert("definitions".to_owned(), definitions.into());
    root.insert("$schema".to_owned(), "http://json-schema.org/draft-07/schema#".into());
    root.insert("title".to_owned(), "elasticd".into());
    root.insert("description".to_owned(), "The configuration of elasticd, written in TOML.".into());
    root.into()
}

/// The schema of a type that is a table, in place.
fn object<T: JsonSchema>(generator: &mut SchemaGenerator) -> Map<String, Value> {
    match T::json_schema(generator).to_value() {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn property(schema: &mut Map<String, Value>, name: &str, value: Value) {
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        properties.insert(name.to_owned(), value);
    }
}

/// Puts `type` before the other keys of a schema.
fn tagged(mut schema: Map<String, Value>, type_key: Value) -> Value {
    property(&mut schema, "type", type_key);
    let required = schema.entry("required").or_insert_with(|| json!([]));
    if let Value::Array(required) = required {
        required.insert(0, "type".into());
    }
    schema.into()
}

fn merge<T: JsonSchema>(schema: &mut Map<String, Value>, generator: &mut SchemaGenerator) {
    if let Some(Value::Object(properties)) = object::<T>(generator).remove("properties") {
        for (name, value) in properties {
            property(schema, &name, value);
        }
    }
}

fn providers(generator: &mut SchemaGenerator) -> Value {
    let types = provider::TYPES.iter().filter_map(|name| provider::visit_type(name, OfType(generator)));
    json!({ "oneOf": types.collect::<Vec<_>>() })
}

/// Makes the schema of one type of provider.
struct OfType<'g>(&'g mut SchemaGenerator);

impl TypeVisitor for OfType<'_> {
    type Output = Option<Value>;

    fn visit<C: Configuration>(self) -> Self::Output {
        let mut schema = object::<C::Raw>(self.0);
        merge::<RawSchedule>(&mut schema, self.0);
        schema.insert("title".to_owned(), C::TYPE.into());
        Some(tagged(schema, json!({ "const": C::TYPE, "description": "The type of the provider." })))
    }
}

fn frontends(generator: &mut SchemaGenerator) -> Value {
    let schema = object::<frontend::Raw>(generator);
    let description = "The preset whose keys lie under those written here, or `custom` for none.";
    tagged(schema, json!({ "enum": frontends::types(), "description": description }))
}

fn publish(generator: &mut SchemaGenerator) -> Option<Value> {
    let type_name = fleet::TYPE?;
    let mut schema = object::<fleet::Raw>(generator);
    merge::<RawSelector>(&mut schema, generator);
    let description = "How the sets are published.";
    Some(tagged(schema, json!({ "const": type_name, "description": description })))
}

#[cfg(all(test, feature = "ec2", feature = "nats"))]
mod reference;
#[cfg(test)]
mod tests;
