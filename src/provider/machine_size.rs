//! The size that the name of a kind of machine says, such as `m7g.2xlarge`.

/// By AWS's normalization factors: 1 for `nano`, `micro` and `small`, 2 for `medium`, 4 for `large`, 8 for `xlarge`, and
/// 8 for each `xlarge` of `2xlarge` and larger (Amazon EC2 user guide, "How regional Reserved Instances are applied").
/// `None`: the name says no size.
pub fn of_kind(kind: &str) -> Option<u16> {
    let size = kind.rsplit_once('.')?.1;
    let factor = match size {
        "nano" | "micro" | "small" => 1,
        "medium" => 2,
        "large" => 4,
        "xlarge" => 8,
        _ => {
            let count = size.strip_suffix("xlarge")?;
            // Digits only: `parse` would also take a sign.
            let count: u16 = count.bytes().all(|byte| byte.is_ascii_digit()).then(|| count.parse().ok()).flatten()?;
            count.checked_mul(8)?
        }
    };
    (factor > 0).then_some(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_the_last_part_of_a_name() {
        for (kind, expected) in [
            ("t3.nano", Some(1)),
            ("t3.medium", Some(2)),
            ("m5.large", Some(4)),
            ("m5.xlarge", Some(8)),
            ("m7g.12xlarge", Some(96)),
            ("u-6tb1.112xlarge", Some(896)),
            ("m5.metal", None),
            ("m5.9999999xlarge", None),
            ("m5.+2xlarge", None),
            ("m5.0xlarge", None),
            ("odd", None),
        ] {
            assert_eq!(of_kind(kind), expected, "{kind}");
        }
    }
}
