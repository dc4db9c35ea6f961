//! Votes: durable, never taken back, and none on what was open when the voter lost its memory.

use std::collections::BTreeMap;
use std::time::Duration;

use kv_net::message::{BallotV1, VoteAnswer, VoteStep, VoteV1};
use kv_types::{Epoch, NodeId};

use super::{CHANCES, Witness};

/// What was heard of votes so far.
#[derive(Debug, Default)]
pub(super) struct Votes {
    /// When each voter was first asked for each vote, by number.
    asked: BTreeMap<(NodeId, Epoch, BallotV1, bool), u64>,
    /// What each voter has answered on each instance, and before which number.
    told: BTreeMap<(NodeId, Epoch), Vec<Told>>,
    next: u64,
    /// When anybody was first asked to vote on an instance.
    opened: BTreeMap<Epoch, Duration>,
    /// What stood on a disk of each voter's vote when it started from that disk: a ballot comes again.
    pub(super) then: BTreeMap<NodeId, (Epoch, Option<BallotV1>)>,
}

/// A vote, and how many votes had been asked for when it was given.
#[derive(Debug, Clone, Copy)]
struct Told {
    before: u64,
    ballot: BallotV1,
    has_accepted: bool,
}

impl Witness {
    /// A voter is asked.
    pub(super) fn vote_asked(&self, from: NodeId, voter: NodeId, vote: &VoteV1) {
        let now = self.handle.now();
        let opened = self.state().votes.opened.get(&vote.epoch).copied();
        if opened.is_some() && self.cluster.disk_since(from) > opened {
            // A proposer's vote for itself is no message.
            let own = self.cluster.image(from).map(|image| image.vote());
            let is_its_own = |(epoch, promised, _): &(Epoch, Option<BallotV1>, _)| {
                *epoch == vote.epoch && *promised == Some(vote.ballot)
            };
            if let Some(Ok(Some(own))) = own
                && is_its_own(&own)
                && self.state().votes.then.get(&from) != Some(&(own.0, own.1))
            {
                let what = format!(
                    "{from} votes for its own {vote:?}, on what was open before its disk was put back"
                );
                self.wrong("vote", what);
            }
        }
        let mut state = self.state();
        state.votes.next += 1;
        let (number, accept) = (state.votes.next, vote.step == VoteStep::Accept);
        state.votes.opened.entry(vote.epoch).or_insert(now);
        let asked = (voter, vote.epoch, vote.ballot, accept);
        state.votes.asked.entry(asked).or_insert(number);
    }

    /// A voter answers.
    pub(super) fn vote_told(&self, voter: NodeId, vote: &VoteV1, answer: VoteAnswer) {
        let has_accepted = match answer {
            VoteAnswer::Promised(_) => false,
            VoteAnswer::Accepted => true,
            VoteAnswer::Beaten(_) | VoteAnswer::Decided => return,
        };
        if self.damaged.contains(&voter) {
            return;
        }
        let asked = (
            voter,
            vote.epoch,
            vote.ballot,
            vote.step == VoteStep::Accept,
        );
        let (earlier, number) = {
            let mut state = self.state();
            let opened = state.votes.opened.get(&vote.epoch).copied();
            if self.cluster.disk_since(voter) > opened {
                let what = format!(
                    "{voter} answers {answer:?} to {vote:?}, which was open before its disk was put back"
                );
                drop(state);
                return self.wrong("vote", what);
            }
            let number = state.votes.asked.get(&asked).copied().unwrap_or(0);
            let before = state.votes.next;
            let told = state.votes.told.entry((voter, vote.epoch)).or_default();
            let earlier: Vec<Told> = told
                .iter()
                .filter(|told| told.before < number)
                .copied()
                .collect();
            told.push(Told {
                before,
                ballot: vote.ballot,
                has_accepted,
            });
            (earlier, number)
        };
        let is_beaten = earlier.iter().any(|told| told.ballot > vote.ballot);
        let accepted = earlier.iter().filter(|told| told.has_accepted);
        let accepted = accepted.map(|told| told.ballot).max();
        let forgets = match answer {
            VoteAnswer::Promised(before) => accepted > before,
            _ => false,
        };
        if is_beaten || forgets {
            let what = format!(
                "{voter}, asked as number {number}, answers {answer:?} to {vote:?} after {earlier:?}"
            );
            self.wrong("vote", what);
        }
        if !self.looks_at("look at a vote", CHANCES.vote) {
            return;
        }
        let Some(Ok(stored)) = self.cluster.image(voter).map(|image| image.vote()) else {
            return;
        };
        let is_there = stored.is_some_and(|(epoch, promised, accepted)| {
            let has = |ballot: Option<BallotV1>| ballot >= Some(vote.ballot);
            let accepted = accepted.map(|(ballot, _)| ballot);
            epoch > vote.epoch
                || epoch == vote.epoch && has(promised) && (!has_accepted || has(accepted))
        });
        if !is_there {
            let what =
                format!("{voter} answers {answer:?} to {vote:?}, and that is not on its disk");
            self.wrong("vote-not-synced", what);
        }
    }
}
