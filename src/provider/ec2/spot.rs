//! `spot`: the spot instances that EC2 is about to interrupt.
//!
//! It gives two minutes' notice, in the request's status: `marked-for-termination`, `marked-for-stop` and so on (EC2 user
//! guide, "Spot request status"). Only such requests are asked for, so that the cost does not grow with the fleet.

use aws_sdk_ec2::operation::describe_spot_instance_requests::DescribeSpotInstanceRequestsOutput;
use aws_sdk_ec2::types::SpotInstanceRequest;

use super::Error;
use super::availability::{AvailabilityOverrides, leaving};
use super::call::Call;
use super::clients::Regional;
use super::filters::Filter;
use super::instances::filter;
use super::pages::follow;

/// What the status codes of an interruption to come begin with.
const MARKED: &str = "marked-for-";

/// An instance that is about to be taken back leaves.
pub(super) async fn interruptions(at: &Regional, overrides: &mut AvailabilityOverrides) -> Result<(), Error> {
    let filter = filter(&Filter { name: "status-code".to_owned(), values: vec![format!("{MARKED}*")] });
    let page = |token| {
        let call = at.ec2.describe_spot_instance_requests().max_results(at.page_size);
        call.filters(filter.clone()).set_next_token(token).send()
    };
    let take = |page: DescribeSpotInstanceRequestsOutput| {
        for request in page.spot_instance_requests.unwrap_or_default() {
            if let Some((id, code)) = marked(&request) {
                overrides.add(id, leaving(format!("is a spot instance {code}")));
            }
        }
        page.next_token
    };
    follow(at, Call::DescribeSpotInstanceRequests, page, take).await
}

fn marked(request: &SpotInstanceRequest) -> Option<(&str, &str)> {
    let code = request.status()?.code()?;
    // Whatever the filter let through.
    code.starts_with(MARKED).then_some((request.instance_id()?, code))
}
