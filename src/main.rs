//! The `elasticd` program.

fn main() {}
