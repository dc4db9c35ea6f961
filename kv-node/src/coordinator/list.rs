//! The driver of a page of a partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use kv_net::ErrorCode;
use kv_net::message::{
    DataHead, ListEntryV1, ListReplyV1, ListV1, ReplicaListV1, Request, Response,
};
use kv_ring::{PartitionId, ReplicaSet, Topology};
use kv_types::{Epoch, Key, NodeId, Object};

use super::hedge::Waited;
use super::list_core::{ReplicaPage, merge};
use super::places::Places;
use super::plan::{check, level, reachable};
use super::{Coordinator, describe, join};
use crate::env::Deadline;
use crate::refusal::Refusal;
use crate::storage_key;

const DOING: &str = "list the partition";
/// Answers under way.
type Answers = FuturesUnordered<BoxFuture<'static, (NodeId, Result<ReplicaPage, Refusal>)>>;

/// The most keys and bytes of objects that one page carries.
const MAX_ITEMS: u32 = 1000;
const MAX_BYTES: u32 = 1 << 20;

impl Coordinator {
    /// A page of a partition, in storage order: what each of r replicas knows.
    ///
    /// # Errors
    /// [`Refusal`]; a read changes nothing.
    pub async fn list(
        self: &Arc<Self>,
        request: ListV1,
        deadline: Deadline,
    ) -> Result<(ListReplyV1, Bytes), Refusal> {
        let topology = self.topologies.current();
        if u32::from(request.partition) >= topology.partition_count().get() {
            let message = format!(
                "there is no partition {}; the ring has {}",
                request.partition,
                topology.partition_count().get()
            );
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        let partition = PartitionId(request.partition);
        let properties = check(&topology, &request.head, request.bucket)?;
        let partition_epoch = topology.changed_at(partition);
        let (epoch, served_since) = (
            topology.epoch(),
            topology.served_since(request.bucket, partition),
        );
        check_rows(&topology, &request)?;
        // Only owners know all of a partition, so nobody stands in for them.
        let (asked, number) = (request.options.level, request.options.r);
        let quorum = level(topology.mode(), properties.level, asked, number)?
            .quorum(properties.quorum)
            .with(request.options.r, None);
        let quorum = quorum
            .map_err(|impossible| Refusal::new(ErrorCode::BadRequest, impossible.to_string()))?;
        let replicas = topology.replicas(partition, properties.quorum.n());
        let places = Places::strict();
        reachable(
            &replicas,
            &places,
            quorum.r(),
            &self.liveness,
            self.env.now(),
            DOING,
        )?;
        if quorum.r() > 1 {
            self.replica.may_count().await?;
        }

        let ask = PageRequest {
            topology,
            partition_epoch,
            message: replica_request(&request, served_since),
        };
        let mut pages = Vec::new();
        let collecting = self.collect_pages(ask, &replicas, quorum.r(), &mut pages, deadline);
        let left = deadline.left(&self.env);
        match self.env.timeout(left, collecting).await {
            Ok(collected) => collected?,
            Err(_) => {
                let got = replicas.count(|node| pages.iter().any(|(from, _)| *from == node));
                return Err(Refusal::timeout(quorum.r(), got, DOING));
            }
        }
        // Whoever is to gain the partition may not know yet what was deleted. The old owners have all that was acknowledged.
        let counts = |from: &NodeId| replicas.old().contains(from);
        let pages = pages.into_iter().filter(|(from, _)| counts(from));
        let pages: Vec<ReplicaPage> = pages.map(|(_, page)| page).collect();
        let page = merge(&pages);
        let mut values = Vec::new();
        let mut entries = Vec::with_capacity(page.entries.len());
        for (key, object) in page.entries {
            let context = self.seal(request.bucket, &key, &object);
            let siblings = describe(
                &object,
                properties.mode,
                self.replica.minter().right_ms(),
                request.options.headers_only,
                &mut values,
            );
            entries.push(ListEntryV1 {
                key,
                siblings,
                context,
            });
        }
        Ok((
            ListReplyV1 {
                entries,
                next_after: page.next_after,
                epoch,
            },
            join(values),
        ))
    }

    async fn collect_pages(
        self: &Arc<Self>,
        ask: PageRequest,
        replicas: &ReplicaSet,
        needed: u8,
        pages: &mut Vec<(NodeId, ReplicaPage)>,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        let topology = Arc::clone(&ask.topology);
        let mut unasked = self.candidates(replicas, &Places::strict()).into_iter();
        let mut answers = Answers::new();
        let send = |node: NodeId| -> BoxFuture<'static, _> {
            let page = Arc::clone(self).ask_for_page(node, ask.clone(), deadline);
            Box::pin(async move { (node, page.await) })
        };
        let mut waited = Waited::default();
        let ask =
            |answers: &Answers, waited: &mut Waited, nodes: &mut dyn Iterator<Item = NodeId>| {
                for node in nodes {
                    waited.add(node);
                    answers.push(send(node));
                }
            };
        ask(
            &answers,
            &mut waited,
            &mut unasked.by_ref().take(usize::from(needed)),
        );
        let patience = self.patience(&waited);
        let mut late = Some(self.env.sleep(patience));
        loop {
            let next = match late.take() {
                None => answers.next().await,
                Some(timer) => match select(answers.next(), timer).await {
                    Either::Left((next, timer)) => {
                        late = Some(timer);
                        next
                    }
                    Either::Right(_) => {
                        if unasked.len() > 0 {
                            if self.may_hedge(&waited) {
                                ask(&answers, &mut waited, &mut unasked.by_ref().take(1));
                            }
                            late = Some(self.env.sleep(patience));
                        }
                        continue;
                    }
                },
            };
            if let Some((node, _)) = &next {
                waited.remove(*node);
            }
            match next {
                None => {
                    let got = replicas.count(|node| pages.iter().any(|(from, _)| *from == node));
                    return Err(Refusal::not_enough(needed, got, DOING));
                }
                Some((node, Err(refusal))) if refusal.code == ErrorCode::StaleEpoch => {
                    // So that the refusal names the epoch that the client must learn.
                    self.learn_topology(&topology, node, deadline).await;
                    return Err(refusal);
                }
                Some((_, Err(_))) => {
                    ask(&answers, &mut waited, &mut unasked.by_ref().take(1));
                }
                Some((from, Ok(page))) => {
                    pages.push((from, page));
                    if replicas.is_met(|node| pages.iter().any(|(from, _)| *from == node), needed) {
                        return Ok(());
                    }
                    if answers.is_empty() {
                        // In a transition more than `needed` may have to answer.
                        ask(&answers, &mut waited, &mut unasked.by_ref().take(1));
                    }
                }
            }
        }
    }

    async fn ask_for_page(
        self: Arc<Self>,
        node: NodeId,
        ask: PageRequest,
        deadline: Deadline,
    ) -> Result<ReplicaPage, Refusal> {
        let PageRequest {
            topology,
            partition_epoch,
            message,
        } = ask;
        let (entries, until, through) = if node == self.me {
            let page = self.replica.list(&message).await?;
            (page.entries, page.until, page.through)
        } else {
            match self
                .call(
                    &topology,
                    node,
                    Request::ReplicaList(message.clone()),
                    deadline,
                )
                .await?
            {
                Response::ReplicaList(reply, tail) => {
                    let page = reply.page;
                    if page.partition_epoch != partition_epoch {
                        return Err(Refusal::stale(page.partition_epoch));
                    }
                    let lengths = page
                        .entries
                        .into_iter()
                        .map(|entry| (entry.key, entry.object_bytes));
                    (split(lengths, tail)?, page.until, reply.through)
                }
                other => return Err(super::unexpected(&other)),
            }
        };
        let stored = |key: &Key| {
            let (hash, _) = topology.locate(message.bucket, key.partition_key());
            storage_key::encode(message.bucket, hash, key)
        };
        let mut page = ReplicaPage {
            entries: BTreeMap::new(),
            end: until.map(|last| (stored(&last), last)),
            through,
        };
        for (key, encoded) in entries {
            let object = Object::decode(&encoded).map_err(|damage| {
                Refusal::new(
                    ErrorCode::Storage,
                    format!("the object of {key} is damaged: {damage}"),
                )
            })?;
            page.entries.insert(stored(&key), (key, object));
        }
        Ok(page)
    }
}

/// What every replica is asked, and the topology it is asked under.
#[derive(Clone)]
struct PageRequest {
    topology: Arc<Topology>,
    partition_epoch: Epoch,
    message: ReplicaListV1,
}

fn replica_request(request: &ListV1, epoch: Epoch) -> ReplicaListV1 {
    let head = DataHead {
        epoch,
        ..request.head.clone()
    };
    ReplicaListV1 {
        head,
        bucket: request.bucket,
        partition: request.partition,
        rows: request.rows.clone(),
        after: request.after.clone(),
        max_items: request.max_items.clamp(1, MAX_ITEMS),
        max_bytes: MAX_BYTES,
    }
}

/// Refuses rows of a partition key that cannot be, or that lie in another partition.
fn check_rows(topology: &Topology, request: &ListV1) -> Result<(), Refusal> {
    let Some(rows) = &request.rows else {
        return Ok(());
    };
    let refused = |message: String| Err(Refusal::new(ErrorCode::BadRequest, message));
    if let Err(error) = Key::new(rows.partition_key.clone()) {
        return refused(error.to_string());
    }
    // A bound may be the smallest one behind the longest sort key.
    let longest = Key::MAX_SORT_BYTES + 1;
    let until = rows.until.iter();
    if let Some(bound) = until.chain([&rows.from]).find(|b| b.len() > longest) {
        let message = format!(
            "a sort key of {} bytes; the limit is {longest}",
            bound.len()
        );
        return refused(message);
    }
    let (_, partition) = topology.locate(request.bucket, &rows.partition_key);
    if partition.0 != request.partition {
        return refused(format!(
            "these rows are in {partition}, not in {}",
            request.partition
        ));
    }
    Ok(())
}

/// Cuts a tail into the objects whose lengths the reply states.
fn split(
    lengths: impl Iterator<Item = (Key, u32)>,
    mut tail: Bytes,
) -> Result<Vec<(Key, Bytes)>, Refusal> {
    let mut entries = Vec::new();
    for (key, length) in lengths {
        let length = length as usize;
        if length > tail.len() {
            return Err(Refusal::new(
                ErrorCode::Internal,
                "a peer's page is shorter than it says",
            ));
        }
        entries.push((key, tail.split_to(length)));
    }
    Ok(entries)
}
