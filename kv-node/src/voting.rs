//! This node as a voter on the next topology: what it has promised and accepted, durable before it says so.

use std::sync::Arc;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_net::message::{BallotV1, VoteAnswer, VoteStep, VoteV1};
use kv_ring::ChainEntry;
use kv_ring::consensus::{Accepted, Acceptor, Answer, Ballot};
use kv_storage::WriteBatch;
use kv_types::{Epoch, NodeId, planted};
use serde::{Deserialize, Serialize};

use crate::completeness::Completeness;
use crate::refusal::Refusal;
use crate::storage_key;
use crate::store::{Store, StoreError, committed};
use crate::topologies::Topologies;

/// A voter's memory of the one instance that is open: that of the epoch after the present one.
///
/// Invariants
/// 1. A state is durable before an answer that follows from it leaves this node.
/// 2. A voter that may have forgotten how it voted on an instance does not vote on it; and whether it may have, only another
///    member can tell, so it votes on nothing before one has.
/// 3. An instance whose epoch is decided is over: it is answered so, never voted on again.
#[derive(Debug)]
pub struct Voting {
    me: NodeId,
    topologies: Arc<Topologies>,
    store: Store,
    completeness: Arc<Completeness>,
    /// One vote at a time.
    voting: tokio::sync::Mutex<()>,
}

/// What is stored, in postcard; `docs/formats/storage-key.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    epoch: Epoch,
    promised: Option<BallotV1>,
    accepted: Option<(BallotV1, Vec<u8>)>,
}

impl Voting {
    /// The voter of a node.
    #[must_use]
    pub fn new(
        me: NodeId,
        topologies: Arc<Topologies>,
        store: Store,
        completeness: Arc<Completeness>,
    ) -> Self {
        Self {
            me,
            topologies,
            store,
            completeness,
            voting: tokio::sync::Mutex::default(),
        }
    }

    /// Answers a proposer. The bytes are the entry that was accepted before, where the answer names one.
    ///
    /// # Errors
    /// [`Refusal`]: this node is no voter of that epoch, has another history, is behind, or cannot store its answer.
    pub async fn vote(
        &self,
        from: NodeId,
        request: VoteV1,
        entry: Bytes,
    ) -> Result<(VoteAnswer, Bytes), Refusal> {
        if request.ballot.proposer != from {
            let message = "a proposer has only ballots of its own";
            return Err(Refusal::new(ErrorCode::Denied, message));
        }
        let _one = self.voting.lock().await;
        let (topology, chain_hash) = self.topologies.tip();
        let open = topology.epoch().next();
        if request.epoch < open {
            return Ok((VoteAnswer::Decided, Bytes::new()));
        }
        if request.epoch > open {
            return Err(Refusal::behind(topology.epoch(), request.epoch));
        }
        if request.previous != chain_hash.0 {
            let message = format!(
                "the history before epoch {open} is another one here: nodes of two clusters, or a forked chain; change nothing until it is understood"
            );
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        if !topology.voters().contains(&self.me) {
            let message = format!("this node is no voter at epoch {}", topology.epoch());
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        if !self.completeness.may_vote(open) {
            let message = "this voter has lost a part of its disk and may not know how it has voted; a majority of the others decides";
            return Err(Refusal::new(ErrorCode::Incomplete, message));
        }
        if topology.voters().len() > 1 {
            // Where there is one voter, its disk is all the memory there is.
            self.completeness.check_told(&topology)?;
        }
        if request.step == VoteStep::Accept {
            // What is decided must be something that every node can take over.
            let decoded = ChainEntry::decode(&entry);
            let follows =
                |entry: &ChainEntry| entry.epoch() == open && entry.previous() == chain_hash;
            if !decoded.is_ok_and(|entry| follows(&entry)) {
                let message = "what is to be accepted is no entry that continues the chain";
                return Err(Refusal::new(ErrorCode::BadRequest, message));
            }
        }
        let mut acceptor = self.recall(open).await?;
        let before = acceptor.clone();
        let ballot = ballot_of(request.ballot);
        let answer = match request.step {
            VoteStep::Prepare => acceptor.prepare(ballot),
            VoteStep::Accept => acceptor.accept(ballot, entry),
        };
        if acceptor != before {
            self.remember(open, &acceptor).await?;
        }
        Ok(match answer {
            Answer::Promised(None) => (VoteAnswer::Promised(None), Bytes::new()),
            Answer::Promised(Some(Accepted { ballot, value })) => {
                (VoteAnswer::Promised(Some(sent(ballot))), value)
            }
            Answer::Accepted => (VoteAnswer::Accepted, Bytes::new()),
            Answer::Beaten(ballot) => (VoteAnswer::Beaten(sent(ballot)), Bytes::new()),
        })
    }

    /// What is stored of an instance.
    async fn recall(&self, epoch: Epoch) -> Result<Acceptor<Bytes>, Refusal> {
        let Some(found) = self.store.get(&vote_key()).await? else {
            return Ok(Acceptor::default());
        };
        // It may be a write that is not synced yet.
        self.store.durable(found.seq).await?;
        let record: Record = postcard::from_bytes(&found.value)
            .map_err(|_| StoreError::Failed("the stored vote is damaged".to_owned()))?;
        if record.epoch > epoch && !planted!("vote below an earlier vote") {
            // It has known a later topology, of which it may be told again: how it voted here it does not know any more.
            let message = format!(
                "this voter has voted on epoch {} and knows of none after epoch {} now: its directory `topology` is older than its store; it votes again when another node has told it of what is newer",
                record.epoch,
                epoch.0.saturating_sub(1)
            );
            return Err(Refusal::new(ErrorCode::Incomplete, message));
        }
        if record.epoch != epoch {
            return Ok(Acceptor::default());
        }
        let accepted = record.accepted.map(|(ballot, value)| Accepted {
            ballot: ballot_of(ballot),
            value: value.into(),
        });
        Ok(Acceptor::restored(record.promised.map(ballot_of), accepted))
    }

    async fn remember(&self, epoch: Epoch, acceptor: &Acceptor<Bytes>) -> Result<(), Refusal> {
        let accepted = acceptor.accepted();
        let record = Record {
            epoch,
            promised: acceptor.promised().map(sent),
            accepted: accepted.map(|accepted| (sent(accepted.ballot), accepted.value.to_vec())),
        };
        let bytes = postcard::to_stdvec(&record)
            .map_err(|error| StoreError::Failed(format!("a vote cannot be stored: {error}")))?;
        let mut batch = WriteBatch::new();
        batch.put(&vote_key(), &bytes);
        let commit = self.store.write(batch, Store::REQUEST_PATIENCE).await?;
        if planted!("vote before the vote is synced") {
            return Ok(());
        }
        committed(commit).await?;
        Ok(())
    }
}

fn vote_key() -> Bytes {
    storage_key::system("vote")
}

fn ballot_of(ballot: BallotV1) -> Ballot {
    Ballot {
        round: ballot.round,
        proposer: ballot.proposer,
    }
}

/// A ballot as it is sent and stored.
pub(crate) fn sent(ballot: Ballot) -> BallotV1 {
    BallotV1 {
        round: ballot.round,
        proposer: ballot.proposer,
    }
}

/// What a voter has answered, for a proposer; `None` where the instance is over.
pub(crate) fn heard(answer: VoteAnswer, entry: Bytes) -> Option<Answer<Bytes>> {
    Some(match answer {
        VoteAnswer::Promised(_) if planted!("propose over what a voter has accepted") => {
            Answer::Promised(None)
        }
        VoteAnswer::Promised(accepted) => Answer::Promised(accepted.map(|ballot| Accepted {
            ballot: ballot_of(ballot),
            value: entry,
        })),
        VoteAnswer::Accepted => Answer::Accepted,
        VoteAnswer::Beaten(ballot) => Answer::Beaten(ballot_of(ballot)),
        VoteAnswer::Decided => return None,
    })
}
