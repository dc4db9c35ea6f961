//! What the nodes say about themselves and about each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kv_client::cluster::{MemberState, NodeStatus};
use kv_client::ring::{Member, Topology};
use kv_client::{Client, NodeId};

use crate::cli::session::natural;

const NODE_DEADLINE: Duration = Duration::from_millis(500);

/// How a node is, by its own answer and by what the others say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum State {
    /// It answered.
    Up,
    /// It did not answer us; the others say that it is up.
    Silent,
    /// The others have not heard it lately.
    Suspect,
    /// The others have not heard it for long.
    Down,
    /// It said that it leaves.
    Left,
    /// Nobody has ever heard of it.
    Unknown,
}

impl State {
    /// One word for it, as in JSON.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Silent => "silent",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
            Self::Unknown => "unknown",
        }
    }
}

/// One member as it is seen.
#[derive(Debug)]
pub(in crate::cli) struct Node {
    pub(in crate::cli) member: Member,
    pub(in crate::cli) state: State,
    /// For how long the others have seen it so; none of an answering node.
    pub(in crate::cli) since: Option<Duration>,
    /// The newest heartbeat that anyone knows.
    pub(in crate::cli) heartbeat: u64,
    /// Who says so: the names of the nodes that see it suspect or down.
    pub(in crate::cli) accusers: Vec<String>,
    /// Its share of all replica slots, in percent.
    pub(in crate::cli) owns_percent: f64,
    /// Its own answer, or why there is none.
    pub(in crate::cli) status: Result<NodeStatus, String>,
}

/// The cluster as it is seen.
#[derive(Debug)]
pub(in crate::cli) struct Seen {
    pub(in crate::cli) topology: Arc<Topology>,
    pub(in crate::cli) nodes: Vec<Node>,
}

impl Node {
    /// Whether requests from here can count on it.
    pub(in crate::cli) fn is_live(&self) -> bool {
        self.state == State::Up
    }
}

impl Seen {
    /// The answers that came.
    pub(in crate::cli) fn answers(&self) -> impl Iterator<Item = (&Node, &NodeStatus)> {
        self.nodes
            .iter()
            .filter_map(|node| Some((node, node.status.as_ref().ok()?)))
    }

    /// How many answering nodes see the same: epoch and members.
    pub(in crate::cli) fn agreeing(&self) -> usize {
        self.views().first().map_or(0, |view| view.nodes.len())
    }

    /// What the answering nodes see, those together that see the same; first what most of them do.
    pub(in crate::cli) fn views(&self) -> Vec<View<'_>> {
        let mut groups: BTreeMap<(u64, u64), Vec<(&Node, &NodeStatus)>> = BTreeMap::new();
        for (node, status) in self.answers() {
            let seen = (status.epoch.0, status.view_hash);
            groups.entry(seen).or_default().push((node, status));
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|group| core::cmp::Reverse(group.len()));
        let state = |status: &NodeStatus, of: &Node| {
            let mut views = status.members.iter();
            let view = views.find(|view| view.node == of.member.node);
            view.map_or(MemberState::Unknown, |view| view.state)
        };
        // Who answers for a group sees what all of it do.
        let speakers: Vec<&NodeStatus> = groups.iter().map(|group| group[0].1).collect();
        let is_disputed = |of: &&Node| {
            let mut states = speakers.iter().map(|speaker| state(speaker, of));
            let first = states.next();
            states.any(|state| Some(state) != first)
        };
        let disputed: Vec<&Node> = self.nodes.iter().filter(is_disputed).collect();
        let views = groups.iter().map(|group| View {
            nodes: names(group.iter().map(|(node, _)| *node)),
            epoch: group[0].1.epoch.0,
            disputed: disputed
                .iter()
                .map(|of| (of.member.name.as_str(), word(state(group[0].1, of))))
                .collect(),
        });
        views.collect()
    }
}

/// What some nodes see alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct View<'a> {
    /// Their names.
    pub(in crate::cli) nodes: Vec<&'a str>,
    /// The topology that they know.
    pub(in crate::cli) epoch: u64,
    /// How they see those members whom others see otherwise.
    pub(in crate::cli) disputed: Vec<(&'a str, &'static str)>,
}

fn names<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<&'a str> {
    let mut names: Vec<&'a str> = nodes.map(|node| node.member.name.as_str()).collect();
    names.sort_by_key(|name| natural(name));
    names
}

fn word(state: MemberState) -> &'static str {
    match state {
        MemberState::Up => State::Up.name(),
        MemberState::Suspect => State::Suspect.name(),
        MemberState::Down => State::Down.name(),
        MemberState::Left => State::Left.name(),
        MemberState::Unknown => State::Unknown.name(),
    }
}

/// Asks every member at once.
pub(in crate::cli) async fn gather(client: &Client) -> Seen {
    let topology = client.topology();
    let members = topology.members();
    let replies = members
        .iter()
        .map(|member| client.node_status(member.node, NODE_DEADLINE));
    let replies = join_all(replies).await;
    let replies = replies
        .into_iter()
        .map(|reply| reply.map_err(|error| error.to_string()));
    combine(&topology, replies.collect())
}

/// Joins the answers, in the order of the members.
pub(in crate::cli) fn combine(
    topology: &Arc<Topology>,
    replies: Vec<Result<NodeStatus, String>>,
) -> Seen {
    let loads = topology.table().loads(topology.replication_factor());
    let slots: u32 = loads.iter().sum();
    let views: Vec<(String, NodeStatus)> = topology
        .members()
        .iter()
        .zip(&replies)
        .filter_map(|(member, reply)| Some((member.name.clone(), reply.as_ref().ok()?.clone())))
        .collect();
    let members = topology.members().iter();
    let nodes = members
        .zip(replies)
        .zip(loads)
        .map(|((member, status), load)| {
            let opinion = Opinion::of_others(&views, member.node);
            Node {
                member: member.clone(),
                state: if status.is_ok() {
                    State::Up
                } else {
                    opinion.state
                },
                since: if status.is_ok() { None } else { opinion.since },
                heartbeat: opinion.heartbeat,
                accusers: opinion.accusers,
                owns_percent: f64::from(load) * 100.0 / f64::from(slots.max(1)),
                status,
            }
        });
    Seen {
        topology: Arc::clone(topology),
        nodes: nodes.collect(),
    }
}

/// What the others say of one node.
struct Opinion {
    state: State,
    since: Option<Duration>,
    heartbeat: u64,
    accusers: Vec<String>,
}

impl Opinion {
    /// The best that anyone says of it: who heard it knows more than who did not.
    fn of_others(views: &[(String, NodeStatus)], node: NodeId) -> Self {
        let mut opinion = Self {
            state: State::Unknown,
            since: None,
            heartbeat: 0,
            accusers: Vec::new(),
        };
        let mut best = None;
        for (name, status) in views.iter().filter(|(_, status)| status.node != node) {
            let Some(view) = status.members.iter().find(|view| view.node == node) else {
                continue;
            };
            let (rank, state) = match view.state {
                MemberState::Up => (0, State::Silent),
                MemberState::Suspect => (1, State::Suspect),
                MemberState::Down => (2, State::Down),
                MemberState::Left => (3, State::Left),
                MemberState::Unknown => (4, State::Unknown),
            };
            opinion.heartbeat = opinion.heartbeat.max(view.heartbeat);
            if matches!(view.state, MemberState::Suspect | MemberState::Down) {
                opinion.accusers.push(name.clone());
            }
            if best.is_none_or(|best| rank < best) {
                best = Some(rank);
                opinion.state = state;
                opinion.since = Some(Duration::from_millis(view.since_ms));
            }
        }
        opinion
    }
}
