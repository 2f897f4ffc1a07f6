//! The API calls that are made.

use std::fmt;

/// The calls that this provider makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are AWS's own names")]
pub enum Call {
    DescribeInstances,
    DescribeInstanceStatus,
    DescribeSpotInstanceRequests,
    DescribeAutoScalingGroups,
    ReceiveMessage,
}

impl Call {
    /// The AWS service that answers it.
    pub const fn api(self) -> &'static str {
        match self {
            Self::DescribeAutoScalingGroups => "Auto Scaling",
            Self::ReceiveMessage => "SQS",
            Self::DescribeInstances | Self::DescribeInstanceStatus | Self::DescribeSpotInstanceRequests => "EC2",
        }
    }

    /// The IAM action it takes.
    pub const fn action(self) -> &'static str {
        match self {
            Self::DescribeInstances => "ec2:DescribeInstances",
            Self::DescribeInstanceStatus => "ec2:DescribeInstanceStatus",
            Self::DescribeSpotInstanceRequests => "ec2:DescribeSpotInstanceRequests",
            Self::DescribeAutoScalingGroups => "autoscaling:DescribeAutoScalingGroups",
            Self::ReceiveMessage => "sqs:ReceiveMessage",
        }
    }

    /// The key of the configuration that holds the API's URL.
    pub(super) const fn endpoint_key(self) -> &'static str {
        match self {
            Self::DescribeAutoScalingGroups => "auto_scaling_endpoint_url",
            Self::ReceiveMessage => "events.endpoint_url",
            Self::DescribeInstances | Self::DescribeInstanceStatus | Self::DescribeSpotInstanceRequests => {
                "endpoint_url"
            }
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
