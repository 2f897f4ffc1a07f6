//! Values that have broken configurations, and a strategy that generates more of their kind.

use proptest::prelude::*;

/// One value of each kind.
pub const SEEDS: &[&str] = &[
    "",
    "1; } server { listen 1;",
    "\"",
    "'",
    "\" ; x \"",
    "a\nb",
    "\n}\nserver { }",
    "\r\n\t",
    "# no comment",
    "\\",
    "trailing\\",
    "\\n",
    "\\\"",
    "${x}",
    "$x",
    "{x}",
    "{",
    "}",
    "%{",
    "%{d}T",
    "  leading",
    "trailing ",
    "größe ☃ 日本",
    "\u{0}\u{7}\u{7f}\u{85}",
    "\u{FEFF}\u{2028}",
    "*/ //",
    "</script>",
    "null",
    "plain",
];

/// A seed, a mixture of characters that have a meaning in some syntax, or any text.
pub fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(SEEDS).prop_map(str::to_owned),
        "[ \\t\\r\\n;{}\"'#\\\\$%()ntr0aé]{0,12}",
        any::<String>(),
    ]
}
