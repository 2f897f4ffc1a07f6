//! The JSON Schema of the configuration, as elasticd prints it.

use std::process::Command;
use std::sync::LazyLock;

use boon::{Compiler, SchemaIndex, Schemas};
use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::Value;

use super::BoundedCommand;

/// The schema that the real program prints.
struct Schema(Schemas, SchemaIndex);

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let printed = Command::new(env!("CARGO_BIN_EXE_elasticd")).arg("schema").bounded_output();
    assert!(printed.status.success(), "{printed:?}");
    let schema: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("elasticd.json", schema).expect("a resource");
    let index = compiler.compile("elasticd.json", &mut schemas).expect("a valid schema");
    Schema(schemas, index)
});

/// Why the schema refuses a configuration.
pub fn refusal(toml: &str) -> Option<String> {
    let config: Value = Figment::from(Toml::string(toml)).extract().unwrap_or_else(|error| panic!("{error}:\n{toml}"));
    let Schema(schemas, index) = &*SCHEMA;
    schemas.validate(&config, *index).err().map(|error| format!("{error:#}"))
}
