//! Arithmetic and comparisons. A text that is a number, such as the value of a tag, counts as one.

use upon::{Engine, Value};

use super::values::kind;

/// Adds every function to the engine.
pub(super) fn install(engine: &mut Engine<'static>) {
    engine.add_function("add", |a: &Value, b: &Value| calculate("add", a, b, i64::checked_add, |a, b| a + b));
    engine.add_function("sub", |a: &Value, b: &Value| calculate("sub", a, b, i64::checked_sub, |a, b| a - b));
    engine.add_function("mul", |a: &Value, b: &Value| calculate("mul", a, b, i64::checked_mul, |a, b| a * b));
    engine.add_function("div", |a: &Value, b: &Value| calculate("div", a, b, divide, |a, b| a / b));
    engine.add_function("mod", |a: &Value, b: &Value| calculate("mod", a, b, i64::checked_rem, |a, b| a % b));
    engine.add_function("int", int);
    engine.add_function("lt", |a: &Value, b: &Value| compare("lt", a, b).map(|order| order.is_lt()));
    engine.add_function("le", |a: &Value, b: &Value| compare("le", a, b).map(|order| order.is_le()));
    engine.add_function("gt", |a: &Value, b: &Value| compare("gt", a, b).map(|order| order.is_gt()));
    engine.add_function("ge", |a: &Value, b: &Value| compare("ge", a, b).map(|order| order.is_ge()));
    engine.add_function("at_least", |version: &Value, least: &str| at_least(version, least));
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Whole(i64),
    Fraction(f64),
}

impl Number {
    /// The number that a value is. `None`: it is none.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(n) => Some(Self::Whole(*n)),
            Value::Float(n) => Some(Self::Fraction(*n)),
            Value::String(text) => {
                // `parse` would also take "inf", "nan" and "1e9".
                let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
                let whole = text.parse().ok().filter(|_| is_plain).map(Self::Whole);
                whole.or_else(|| text.parse().ok().filter(|_| is_plain).map(Self::Fraction))
            }
            Value::None | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a fraction is as precise as a template needs")]
    pub(super) const fn fraction(self) -> f64 {
        match self {
            Self::Whole(n) => n as f64,
            Self::Fraction(n) => n,
        }
    }
}

fn number(function: &str, value: &Value) -> Result<Number, String> {
    Number::of(value).ok_or_else(|| match value {
        Value::String(text) => format!("`{function}` needs numbers, and {text:?} is none"),
        Value::None => format!("`{function}` needs numbers, and one is absent: write `| default: 0` before it"),
        other => format!("`{function}` needs numbers, not a {}", kind(other)),
    })
}

fn calculate(
    function: &str,
    a: &Value,
    b: &Value,
    whole: fn(i64, i64) -> Option<i64>,
    fraction: fn(f64, f64) -> f64,
) -> Result<Value, String> {
    let (a, b) = (number(function, a)?, number(function, b)?);
    if matches!(function, "div" | "mod") && b.fraction() == 0.0 {
        return Err(format!("`{function}` cannot divide by 0"));
    }
    if let (Number::Whole(a), Number::Whole(b)) = (a, b)
        && let Some(result) = whole(a, b)
    {
        return Ok(Value::Integer(result));
    }
    let result = fraction(a.fraction(), b.fraction());
    // Beyond that a fraction is not exact to one.
    let is_in_range = result.abs() < 9_007_199_254_740_992.0;
    is_in_range.then_some(Value::Float(result)).ok_or_else(|| format!("`{function}`: the result is too large"))
}

/// The quotient if it is whole.
fn divide(a: i64, b: i64) -> Option<i64> {
    (a.checked_rem(b)? == 0).then(|| a.checked_div(b)).flatten()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the whole part is what is asked for, and a large number stays the largest"
)]
fn int(value: &Value) -> Result<i64, String> {
    Ok(match number("int", value)? {
        Number::Whole(n) => n,
        Number::Fraction(n) => n as i64,
    })
}

fn compare(function: &str, a: &Value, b: &Value) -> Result<std::cmp::Ordering, String> {
    let (a, b) = (number(function, a)?, number(function, b)?);
    if let (Number::Whole(a), Number::Whole(b)) = (a, b) {
        return Ok(a.cmp(&b));
    }
    Ok(a.fraction().total_cmp(&b.fraction()))
}

/// Whether a version such as `1.29.6` is that one or a later one. One that is not known is not.
fn at_least(version: &Value, least: &str) -> Result<bool, String> {
    let parts = |text: &str| -> Option<Vec<u64>> { text.split('.').map(|part| part.parse().ok()).collect() };
    let least = parts(least).ok_or_else(|| format!("`at_least` needs a version such as \"1.29.6\", not {least:?}"))?;
    Ok(match version {
        Value::String(version) => parts(version).is_some_and(|version| version >= least),
        _ => false,
    })
}
