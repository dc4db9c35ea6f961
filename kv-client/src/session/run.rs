//! One request under way: it carries out what [`Attempts`] decides.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{self, BoxFuture, Either};
use futures::stream::{FuturesUnordered, StreamExt};
use kv_net::Response;
use kv_net::message::DataHead;
use kv_ring::Topology;
use kv_types::{Epoch, NodeId, Outcome};

use super::{Call, Place, Routed, Session, destination, name};
use crate::attempts::{Attempts, Limits, Step};
use crate::error::Error;
use crate::explain::{ExplainedError, Explanation};
use crate::failure::{Cause, Failure, GivenUp};
use crate::health::Health;
use crate::route::{Candidates, Tried, choose, choose_ready};
use crate::transport::{Destination, SendError};

/// How long a probe of a node in doubt may hold up a request.
const PROBE_PATIENCE: Duration = Duration::from_millis(100);
/// Silence that is held against a node. Shorter ones come from short deadlines.
const SILENCE: Duration = Duration::from_millis(100);
/// How long a request looks for a topology that nobody said exists.
const LOOK_AROUND: Duration = Duration::from_millis(300);

/// An attempt that came back.
struct Landed {
    node: NodeId,
    result: Result<Response, SendError>,
}

/// One request under way. Dropping it gives up the wait for every attempt.
pub(super) struct Run<'a, T> {
    session: &'a Arc<Session>,
    call: &'a Call<T>,
    attempts: Attempts,
    tried: Tried,
    flights: FuturesUnordered<BoxFuture<'static, Landed>>,
    /// When each awaited node was asked.
    asked_at: Vec<(NodeId, Duration)>,
    /// The node that knows a newer topology.
    informant: Option<NodeId>,
    /// When the first of the attempts was sent that may have been applied.
    first_sent: Option<Duration>,
    has_looked_around: bool,
    /// Whether a node said that too few others live.
    lacks_replicas: bool,
    /// Names of nodes that said nothing for a whole attempt.
    silent: Vec<String>,
    /// What the last coordinator that failed has told of it.
    explanation: Option<Box<Explanation>>,
}

impl<'a, T> Run<'a, T> {
    pub(super) fn new(session: &'a Arc<Session>, call: &'a Call<T>) -> Self {
        let now = session.now();
        let limits = Limits {
            deadline: now + call.timeout,
            attempts: session.options.attempts.max(1),
            patience: session.options.patience,
            writes: call.writes,
        };
        session.retries().earn();
        Self {
            session,
            call,
            attempts: Attempts::new(limits, now),
            tried: Tried::default(),
            flights: FuturesUnordered::new(),
            asked_at: Vec::new(),
            informant: None,
            first_sent: None,
            has_looked_around: false,
            lacks_replicas: false,
            silent: Vec::new(),
            explanation: None,
        }
    }

    pub(super) async fn drive(mut self) -> Result<T, ExplainedError> {
        loop {
            let now = self.session.now();
            match self.attempts.next(now) {
                Step::Send => self.send(now).await?,
                Step::Wait(until) => {
                    if let Some(reply) = self.wait(until.saturating_sub(now)).await {
                        return Ok(reply);
                    }
                }
                Step::Refresh(epoch) => {
                    let remaining = self.attempts.remaining(now);
                    self.session
                        .refresh(epoch, self.informant.take(), remaining)
                        .await;
                    self.attempts.on_refreshed();
                }
                Step::GiveUp => return Err(self.into_error(now)),
            }
        }
    }

    /// Sends to the next node, or looks for a newer topology where this one does not help.
    async fn send(&mut self, now: Duration) -> Result<(), Error> {
        let topology = self.session.topology();
        let Some((routed, candidates)) = self.locate(&topology)? else {
            self.look_around(now).await;
            return Ok(());
        };
        let failed = &self.tried.failed;
        let nobody_fresh = candidates.replicas.iter().all(|node| failed.contains(node));
        if nobody_fresh && !self.lacks_replicas && !self.has_looked_around {
            self.look_around(now).await;
            return Ok(());
        }
        match self.choose(&topology, &candidates, now) {
            Some((node, to)) if self.may_send(now) => {
                let head = DataHead {
                    epoch: topology.epoch(),
                    trace: self.session.transport.random(),
                    write_id: self.call.write_id,
                };
                let request = (self.call.request)(routed, head, self.since_first_ms(now));
                let budget = self.attempts.budget(now);
                self.launch(node, self.session.transport.call(&to, request, budget), now);
            }
            _ => self.attempts.on_no_more(),
        }
        Ok(())
    }

    /// How long ago the first of the attempts was sent that may have been applied; 0 if there is none.
    fn since_first_ms(&mut self, now: Duration) -> u32 {
        let first = match self.first_sent {
            Some(first) if self.attempts.outcome() == Outcome::Unknown => first,
            _ => {
                self.first_sent = Some(now);
                return 0;
            }
        };
        let since = now.saturating_sub(first).as_millis();
        // At least one, so that it is not taken for none.
        u32::try_from(since).unwrap_or(u32::MAX).max(1)
    }

    /// Where the request goes; `None` when the bucket is not in the topology and a newer one may help.
    fn locate(&self, topology: &Topology) -> Result<Option<(Routed, Candidates)>, Error> {
        let Some(bucket) = topology.bucket_by_name(&self.call.bucket) else {
            if !self.has_looked_around {
                return Ok(None);
            }
            let (bucket, epoch) = (self.call.bucket.clone(), topology.epoch());
            let outcome = self.attempts.outcome();
            return Err(Error::UnknownBucket {
                bucket,
                epoch,
                outcome,
            });
        };
        let quorum = bucket.properties.quorum;
        if self.attempts.sent() == 0 {
            let (r, w) = self.call.numbers;
            quorum.with(r, w)?;
        }
        let partition = match &self.call.place {
            Place::Key(key) => topology.locate(bucket.id, key.partition_key()).1,
            Place::Hash(hash) => topology.partition_count().partition_of(*hash),
        };
        let routed = Routed {
            bucket: bucket.id,
            partition,
        };
        let candidates = match self.call.via {
            Some(node) => Candidates {
                replicas: vec![node],
                others: Vec::new(),
            },
            None => candidates(topology, routed, quorum.n()),
        };
        Ok(Some((routed, candidates)))
    }

    fn choose(
        &self,
        topology: &Topology,
        candidates: &Candidates,
        now: Duration,
    ) -> Option<(NodeId, Destination)> {
        let random = self.session.transport.random();
        let health = self.session.health();
        let ranking = self.call.ranking;
        let node = match self.lacks_replicas {
            true => choose_ready(candidates, ranking, &self.tried, &health, now, random)?,
            false => choose(candidates, ranking, &self.tried, &health, now, random)?,
        };
        Some((node, destination(topology, node)?))
    }

    /// First attempts are free; others are paid from the retry budget.
    fn may_send(&self, now: Duration) -> bool {
        !self.attempts.next_is_retry() || self.session.retries().spend(now)
    }

    fn launch(
        &mut self,
        node: NodeId,
        reply: BoxFuture<'static, Result<Response, SendError>>,
        now: Duration,
    ) {
        let is_probe = self.session.health().begin(node, now);
        let in_flight = InFlight {
            health: Arc::clone(&self.session.health),
            node,
            is_probe,
        };
        self.flights.push(Box::pin(async move {
            let result = reply.await;
            drop(in_flight);
            Landed { node, result }
        }));
        self.tried.open.push(node);
        self.asked_at.push((node, now));
        self.attempts
            .on_sent(now, is_probe.then_some(PROBE_PATIENCE));
    }

    /// Waits for the next answer; the reply, if it is a good one.
    async fn wait(&mut self, pause: Duration) -> Option<T> {
        let sleep = self.session.transport.sleep(pause);
        let landed = if self.flights.is_empty() {
            sleep.await;
            return None;
        } else {
            match future::select(self.flights.next(), sleep).await {
                Either::Left((landed, _)) => landed,
                Either::Right(_) => None,
            }
        };
        let now = self.session.now();
        let Some(landed) = landed else {
            self.hold_silence_against_nodes(now);
            return None;
        };
        match self.judge(landed, now) {
            Ok(reply) => Some(reply),
            Err(failure) => {
                if failure.is_stale_write() {
                    // Perhaps the node was wrong that said what time it is.
                    self.session.directory.time().forget();
                }
                self.attempts
                    .on_failure(now, failure, self.session.transport.random());
                None
            }
        }
    }

    /// Keeps the evidence of an answer, and takes the reply out of it.
    fn judge(&mut self, Landed { node, result }: Landed, now: Duration) -> Result<T, Failure> {
        self.tried.open.retain(|&open| open != node);
        let asked = self.asked_at.iter().position(|&(asked, _)| asked == node);
        let asked_at = asked.map_or(now, |index| self.asked_at.swap_remove(index).1);
        let cause = match result.map(Response::done) {
            Ok(Err((reply, explanation))) => {
                self.explanation = explanation.or(self.explanation.take());
                Cause::Refused(reply)
            }
            Ok(Ok(response)) => {
                if let Some(epoch) = response.epoch() {
                    self.session.told_of(epoch, node);
                }
                match (self.call.read)(response) {
                    Ok(reply) => {
                        self.session.health().answered(node);
                        return Ok(reply);
                    }
                    Err(what) => Cause::Malformed(what),
                }
            }
            Err(error) => Cause::Send(error),
        };
        let failure = Failure {
            node: name(&self.session.topology(), node),
            cause,
        };
        tracing::debug!(node = %failure.node, outcome = ?failure.outcome(), "attempt failed");
        let silence = now.saturating_sub(asked_at);
        if failure.blames_node() || (failure.is_silence() && silence >= SILENCE) {
            self.session.health().failed(node, now);
        } else if matches!(failure.cause, Cause::Refused(_)) {
            self.session.health().answered(node);
        }
        if failure.is_silence() {
            self.silent.push(failure.node.clone());
        }
        self.lacks_replicas |= failure.lacks_replicas();
        if failure.spares_node() {
            self.informant = Some(node);
        } else {
            self.tried.failed.push(node);
        }
        Err(failure)
    }

    async fn look_around(&mut self, now: Duration) {
        self.has_looked_around = true;
        let timeout = self.attempts.remaining(now).min(LOOK_AROUND);
        self.session.refresh(Epoch(0), None, timeout).await;
    }

    fn hold_silence_against_nodes(&self, now: Duration) {
        let mut health = self.session.health();
        for &(node, asked_at) in &self.asked_at {
            if now.saturating_sub(asked_at) >= SILENCE {
                health.failed(node, now);
            }
        }
    }

    fn into_error(self, now: Duration) -> ExplainedError {
        self.hold_silence_against_nodes(now);
        let topology = self.session.topology();
        let open = self.tried.open.iter().map(|&node| name(&topology, node));
        let given_up = GivenUp {
            bucket: self.call.bucket.clone(),
            outcome: self.attempts.outcome(),
            attempts: self.attempts.sent(),
            deadline: self.call.timeout,
            is_expired: self.attempts.remaining(now).is_zero(),
            silent: self.silent.iter().cloned().chain(open).collect(),
        };
        ExplainedError {
            error: given_up.into_error(self.attempts.into_telling()),
            explanation: self.explanation,
        }
    }
}

/// Old owners coordinate; joining ones only pass on, as every other member may.
fn candidates(topology: &Topology, routed: Routed, n: u8) -> Candidates {
    let replicas = topology.replicas(routed.partition, n).old().to_vec();
    let members = topology.members().iter().map(|member| member.node);
    let others = members.filter(|node| !replicas.contains(node)).collect();
    Candidates { replicas, others }
}

/// Counts a request as under way for as long as it lives.
struct InFlight {
    health: Arc<Mutex<Health>>,
    node: NodeId,
    is_probe: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.end(self.node, self.is_probe);
    }
}
