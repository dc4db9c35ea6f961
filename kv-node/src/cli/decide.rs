//! Has the voters decide on a change of the topology, through any node that can be reached.

use std::time::Duration;

use kv_client::cluster::ChangeKind;
use kv_client::transport::{SendError, SendFault};
use kv_client::{Client, Epoch, NodeId, Outcome};

use super::failure::Failure;

/// How long the voters may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Asks one node after the other until one can be reached; gives the epoch that the change made. `if_unknown` says what to do
/// where nobody knows whether it comes into force.
pub(super) async fn change(
    client: &Client,
    through: impl IntoIterator<Item = NodeId>,
    change: ChangeKind,
    if_unknown: &str,
) -> Result<Epoch, Failure> {
    let mut last = Failure::other("the cluster has no members");
    // Any node can propose; one that cannot be reached has changed nothing.
    for node in through {
        match client.change_topology(node, change.clone(), DEADLINE).await {
            Ok(epoch) => return Ok(epoch),
            Err(error) => {
                let is_over = error.fault != SendFault::Unreachable;
                last = failed(&error, if_unknown);
                if is_over {
                    break;
                }
            }
        }
    }
    Err(last)
}

fn failed(error: &SendError, if_unknown: &str) -> Failure {
    match error.outcome {
        Outcome::Unknown => Failure::new(7, "unknown", error.to_string()).hint(if_unknown),
        Outcome::NotApplied => Failure::other(error.to_string()),
    }
}
