//! Looking at single nodes: their state, their view of each other, their metrics; and changing the topology.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use kv_net::message::{ChangeV1, CompareV1, HintsV1, MetricsV1, StatusV1};
use kv_net::{Request, Response};
use kv_ring::Topology;
use kv_types::{BucketId, Epoch, NodeId, Outcome};

pub use kv_net::message::{
    ChangeKind, CompareReplyV1 as Comparison, HintsReplyV1 as NodeHints, MemberChangesV1,
    MemberState, MemberViewV1 as MemberView, NewMemberV1, StatusReplyV1 as NodeStatus,
};

use crate::client::Client;
use crate::transport::{SendError, SendFault};

impl Client {
    /// Looks for a topology of at least an epoch, one that a node has told of perhaps; gives the newest that this client
    /// knows then, which is an older one if nobody answers within `timeout`, or within 2 s.
    pub async fn topology_since(&self, epoch: Epoch, timeout: Duration) -> Arc<Topology> {
        self.session.refresh(epoch, None, timeout).await;
        self.topology()
    }

    /// Asks one node for its state, its view of the others and its figures. One attempt.
    ///
    /// # Errors
    /// [`SendError`] when the node does not answer within `timeout`, or refuses.
    pub async fn node_status(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<NodeStatus, SendError> {
        match self
            .session
            .ask_node(node, Request::Status(StatusV1 {}), timeout)
            .await?
        {
            Response::Status(status) => Ok(status),
            other => Err(refusal(other)),
        }
    }

    /// Asks one node for all its metrics, as Prometheus text. It needs an admin's certificate.
    ///
    /// # Errors
    /// [`SendError`] when the node does not answer within `timeout`, or refuses.
    pub async fn node_metrics(&self, node: NodeId, timeout: Duration) -> Result<String, SendError> {
        match self
            .session
            .ask_node(node, Request::Metrics(MetricsV1 {}), timeout)
            .await?
        {
            Response::Metrics(_, text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            other => Err(refusal(other)),
        }
    }

    /// Asks one node what it keeps for others that are away.
    ///
    /// # Errors
    /// [`SendError`] when the node does not answer within `timeout`, or refuses.
    pub async fn node_hints(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<NodeHints, SendError> {
        let request = Request::Hints(HintsV1 {});
        match self.session.ask_node(node, request, timeout).await? {
            Response::Hints(kept) => Ok(kept),
            other => Err(refusal(other)),
        }
    }

    /// Has one node compare what it holds of some partitions, of one bucket or of all, with all other owners, and fetch and
    /// bring what differs. It needs an admin's certificate. One attempt; it takes as long as there is to do.
    ///
    /// # Errors
    /// [`SendError`] when the node does not answer within `timeout`, or refuses; what was fetched by then stays.
    pub async fn compare_node(
        &self,
        node: NodeId,
        bucket: Option<BucketId>,
        partitions: RangeInclusive<u16>,
        timeout: Duration,
    ) -> Result<Comparison, SendError> {
        let request = Request::Compare(CompareV1 {
            bucket,
            first: *partitions.start(),
            last: *partitions.end(),
        });
        match self.session.ask_node(node, request, timeout).await? {
            Response::Compare(compared) => Ok(compared),
            other => Err(refusal(other)),
        }
    }

    /// Has the voters decide on a change of the topology, through one node; gives the epoch that it made. It needs an
    /// admin's certificate. One attempt.
    ///
    /// # Errors
    /// [`SendError`] when the change is not possible, or no majority of the voters answers within `timeout`; if its
    /// outcome is unknown, the change may still come into force.
    pub async fn change_topology(
        &self,
        via: NodeId,
        change: ChangeKind,
        timeout: Duration,
    ) -> Result<Epoch, SendError> {
        match self
            .session
            .ask_node(via, Request::Change(ChangeV1 { change }), timeout)
            .await?
        {
            Response::Change(reply) => Ok(reply.epoch),
            other => Err(refusal(other)),
        }
    }
}

fn refusal(response: Response) -> SendError {
    let (outcome, message) = match response {
        Response::Error(error) => (error.outcome, error.message),
        _ => (
            Outcome::Unknown,
            "it answered a question that was not asked; compare the versions".to_owned(),
        ),
    };
    SendError {
        fault: SendFault::Malformed,
        outcome,
        message,
    }
}
