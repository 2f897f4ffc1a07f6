use std::borrow::Cow;

use super::admin::Action;
use super::choice::By;
use super::query::{Format, Wait};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    Services { format: Format, wait: Option<Wait> },
    Service { name: Cow<'a, str>, format: Format, wait: Option<Wait> },
    Pick { service: Cow<'a, str>, by: By<'a> },
    Watch,
    Explain { instance: Cow<'a, str> },
    Status,
    Description,
    Health,
    Ready,
    Metrics,
    Change(Action),
    Discovery,
}
