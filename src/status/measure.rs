//! Which fields of a report are metrics.

use std::sync::Arc;
use std::time::SystemTime;

/// How a metric changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from 0 at the start.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A number that is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A count, a revision, or 0 or 1 for no or yes.
    Whole(u64),
    /// A time in seconds.
    Fraction(f64),
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The field's name, which is also that of the metric after the report's prefix.
    pub name: &'static str,
    /// The field's doc.
    pub help: &'static str,
    /// How it changes.
    pub kind: Kind,
}

/// A report of which some fields are metrics.
pub trait Measured {
    /// Calls `visit` with each metric and its value, in the order of the fields; always with the same metrics. A value
    /// of `None` is one that is not known yet.
    fn measure(&self, visit: &mut dyn FnMut(Metric, Option<Number>));
}

impl<T: Measured> Measured for Arc<T> {
    fn measure(&self, visit: &mut dyn FnMut(Metric, Option<Number>)) {
        T::measure(self, visit);
    }
}

/// The counters of a report, with their values.
pub fn counters(report: &impl Measured) -> Vec<(&'static str, u64)> {
    let mut counters = Vec::new();
    report.measure(&mut |metric, value| {
        if let (Kind::Counter, Some(Number::Whole(value))) = (metric.kind, value) {
            counters.push((metric.name, value));
        }
    });
    counters
}

/// What can be the value of a metric.
pub(super) trait Measure {
    fn number(&self) -> Option<Number>;
}

impl Measure for u64 {
    fn number(&self) -> Option<Number> {
        Some(Number::Whole(*self))
    }
}

impl Measure for usize {
    fn number(&self) -> Option<Number> {
        u64::try_from(*self).ok().map(Number::Whole)
    }
}

impl Measure for bool {
    fn number(&self) -> Option<Number> {
        Some(Number::Whole(u64::from(*self)))
    }
}

impl Measure for f64 {
    fn number(&self) -> Option<Number> {
        Some(Number::Fraction(*self))
    }
}

impl<T: Measure> Measure for Option<T> {
    fn number(&self) -> Option<Number> {
        self.as_ref().and_then(T::number)
    }
}

impl From<SystemTime> for Number {
    /// Seconds since 1970.
    fn from(time: SystemTime) -> Self {
        Self::Fraction(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()))
    }
}

/// Defines a report: a serde type with a JSON Schema, of which the fields marked `=> counter` or `=> gauge` are metrics
/// with the field's name and doc. `=> all` takes the metrics of a flattened report. A field has its docs first, then
/// `#[serde(…)]` or `#[schemars(…)]` if it needs any.
macro_rules! report {
    ($(#[$meta:meta])* pub struct $name:ident { $(
        $(#[doc = $doc:literal])+
        $(#[serde $serde:tt])*
        $(#[schemars $schemars:tt])*
        $field:ident: $type:ty $(=> $kind:ident)?,
    )+ }) => {
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        $(#[$meta])*
        pub struct $name { $(
            $(#[doc = $doc])+
            $(#[serde $serde])*
            $(#[schemars $schemars])*
            pub $field: $type,
        )+ }

        impl $crate::status::Measured for $name {
            fn measure(
                &self,
                visit: &mut dyn FnMut($crate::status::Metric, Option<$crate::status::Number>),
            ) {
                $($crate::status::measure::report!(@[$($kind)?] self visit $field concat!($($doc),+));)+
            }
        }
    };
    (@[] $self:ident $visit:ident $field:ident $help:expr) => {};
    (@[counter] $self:ident $visit:ident $field:ident $help:expr) => {
        $crate::status::measure::report!(@metric Counter $self $visit $field $help)
    };
    (@[gauge] $self:ident $visit:ident $field:ident $help:expr) => {
        $crate::status::measure::report!(@metric Gauge $self $visit $field $help)
    };
    (@[all] $self:ident $visit:ident $field:ident $help:expr) => {
        $self.$field.measure($visit)
    };
    (@metric $kind:ident $self:ident $visit:ident $field:ident $help:expr) => {{
        const HELP: &str = $help.trim_ascii_start();
        let metric =
            $crate::status::Metric { name: stringify!($field), help: HELP, kind: $crate::status::Kind::$kind };
        $visit(metric, $crate::status::measure::Measure::number(&$self.$field))
    }};
}

/// Defines a report of counters alone, which can be added to another of its kind.
macro_rules! counters {
    ($(#[$meta:meta])* pub struct $name:ident { $( $(#[doc = $doc:literal])+ $field:ident, )+ }) => {
        $crate::status::measure::report! {
            $(#[$meta])*
            #[derive(Copy, Eq)]
            pub struct $name { $( $(#[doc = $doc])+ $field: u64 => counter, )+ }
        }

        impl std::ops::AddAssign for $name {
            fn add_assign(&mut self, more: Self) {
                $(self.$field += more.$field;)+
            }
        }
    };
}

pub(super) use {counters as counters_of, report};
