//! Asking all members what their clocks showed a while ago, and to promise a floor.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use kv_net::message::{FloorReplyV1, FloorV1, Request, Response};
use kv_ring::Topology;
use kv_types::{Hlc, NodeId};

use super::answers::Forgetting;
use crate::env::Env;
use crate::transport::Peer;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A member did not answer, or could not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldUp {
    /// Which one.
    pub by: NodeId,
}

/// Asks all members. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Promises {
    pub(crate) env: Env,
    pub(crate) forgetting: Forgetting,
}

impl Promises {
    /// What the clocks of all members showed a while ago, and their floors, after they have promised what they are asked
    /// to, if they can; and after they have settled what is to be ([`crate::fates::settled`]).
    ///
    /// # Errors
    /// [`HeldUp`] when one of them does not answer.
    pub async fn all(
        &self,
        topology: &Topology,
        promise: Option<Hlc>,
        settle: Option<Hlc>,
    ) -> Result<BTreeMap<NodeId, FloorReplyV1>, HeldUp> {
        let me = self.forgetting.me;
        let ask = |node: NodeId| async move {
            if node == me {
                let promised = self.forgetting.promise(promise, settle).await;
                return Ok((me, promised.map_err(|_| HeldUp { by: me })?));
            }
            let request = Request::Floor(FloorV1 { promise, settle });
            match self.ask(topology, node, request).await {
                Some(Response::Floor(floor)) => Ok((node, floor)),
                _ => Err(HeldUp { by: node }),
            }
        };
        let members = topology.members().iter().map(|member| ask(member.node));
        join_all(members).await.into_iter().collect()
    }

    /// What a member answers; nothing if that takes too long.
    pub async fn ask(
        &self,
        topology: &Topology,
        node: NodeId,
        request: Request,
    ) -> Option<Response> {
        let address = topology.member(node)?.address.clone();
        let peer = Peer { node, address };
        self.env.transport.call(peer, request, PATIENCE).await.ok()
    }
}
