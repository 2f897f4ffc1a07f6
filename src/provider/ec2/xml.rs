//! Whether an answer is whole.
//!
//! The SDK's reader takes what it finds: of a page that ends in the middle, it makes a shorter page that names no next
//! one, and of tags that do not match, something. Either would look like instances that are gone.

use aws_sdk_ec2::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;

/// Makes an error of each answer that is no whole XML document.
#[derive(Debug)]
pub(super) struct Whole;

impl Intercept for Whole {
    fn name(&self) -> &'static str {
        "whole"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // An error is one already, whatever its body.
        if context.output_or_error().is_ok() && !context.response().body().bytes().is_some_and(is_whole) {
            return Err("the XML is truncated, or its tags do not match".into());
        }
        Ok(())
    }
}

/// Whether every element that is opened is closed, in turn, up to one around them all.
///
/// This is what AWS writes: elements and text, a declaration perhaps, no comments, no CDATA, no `>` in an attribute.
fn is_whole(xml: &[u8]) -> bool {
    let mut open: Vec<&[u8]> = Vec::new();
    let mut roots = 0;
    let mut parts = xml.split(|byte| *byte == b'<');
    let before = parts.next().unwrap_or_default();
    for part in parts {
        let Some(end) = part.iter().position(|byte| *byte == b'>') else { return false };
        let (tag, text) = (&part[..end], &part[end + 1..]);
        let name = |tag: &'_ [u8]| tag.iter().position(u8::is_ascii_whitespace).unwrap_or(tag.len());
        match tag {
            [b'?', .., b'?'] => {}
            [b'/', closed @ ..] => {
                if open.pop() != Some(&closed[..name(closed)]) {
                    return false;
                }
            }
            [.., b'/'] => roots += usize::from(open.is_empty()),
            opened => {
                roots += usize::from(open.is_empty());
                open.push(&opened[..name(opened)]);
            }
        }
        if open.is_empty() && !text.trim_ascii().is_empty() {
            return false;
        }
    }
    open.is_empty() && roots == 1 && before.trim_ascii().is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeInstancesResponse \
                        xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\n  <requestId>r</requestId>\n  \
                        <reservationSet><item><a>&lt;x&gt; 'é' > \"</a><b/><c /></item></reservationSet>\n  \
                        <nextToken></nextToken>\n</DescribeInstancesResponse >\n";

    #[test]
    fn what_aws_writes_is_whole() {
        for whole in [PAGE, "<a/>", "<a></a>", "\n<a><a><a/></a></a>"] {
            assert!(is_whole(whole.as_bytes()), "{whole}");
        }
        for broken in [
            "",
            " ",
            "oops",
            "<a>",
            "</a>",
            "<a></b>",
            "<a><b></a></b>",
            "<a/><b/>",
            "<a/>oops",
            "oops<a/>",
            "<a><b",
            "<?xml?>",
        ] {
            assert!(!is_whole(broken.as_bytes()), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn no_part_of_an_answer_is_whole(end in 0..PAGE.trim_end().len()) {
            prop_assert!(!is_whole(&PAGE.as_bytes()[..end]));
        }
    }
}
