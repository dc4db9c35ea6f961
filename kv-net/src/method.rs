//! The methods: their numbers, their classes, and which role may call which.

use crate::frame::{MAX_CLIENT_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES};
use crate::identity::Role;
use crate::message::{Request, Response};

/// How urgent a frame is; each class has a stream of its own in every connection.
///
/// A slow or lost frame of one class does not hold up another class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Class {
    /// Gossip, topology and state: small, and must get through under load.
    Control = 0,
    /// What a user waits for.
    Foreground = 1,
    /// What nobody waits for: read repair, metrics.
    Background = 2,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::Control, Self::Foreground, Self::Background];

    /// The class of a number on the wire.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.number() == number)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Which stream's bytes go first within a connection; streams of single frames come last.
    pub(crate) const fn priority(self) -> i32 {
        match self {
            Self::Control => 20,
            Self::Foreground => 10,
            Self::Background => 0,
        }
    }
}

/// What is asked, by its number on the wire. Numbers are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Method {
    /// [`Request::Get`]
    Get = 1,
    /// [`Request::Put`]
    Put = 2,
    /// [`Request::List`]
    List = 3,
    /// [`Request::Topology`]
    Topology = 4,
    /// [`Request::Status`]
    Status = 5,
    /// [`Request::Metrics`]
    Metrics = 6,
    /// [`Request::Change`]
    Change = 7,
    /// [`Request::Hints`]
    Hints = 8,
    /// [`Request::ExplainGet`]
    ExplainGet = 9,
    /// [`Request::ExplainPut`]
    ExplainPut = 10,
    /// [`Request::Compare`]
    Compare = 11,
    /// [`Request::Fate`]
    Fate = 12,
    /// [`Request::ReplicaWrite`]
    ReplicaWrite = 16,
    /// [`Request::ReplicaRead`]
    ReplicaRead = 17,
    /// [`Request::ReplicaList`]
    ReplicaList = 18,
    /// [`Request::Vote`]
    Vote = 19,
    /// [`Request::StandInWrite`]
    StandInWrite = 20,
    /// [`Request::StandInRead`]
    StandInRead = 21,
    /// [`Request::Repair`]
    Repair = 22,
    /// [`Request::TreeRoots`]
    TreeRoots = 23,
    /// [`Request::TreeNodes`]
    TreeNodes = 24,
    /// [`Request::TreeKeys`]
    TreeKeys = 25,
    /// [`Request::TreeObjects`]
    TreeObjects = 26,
    /// [`Request::Floor`]
    Floor = 27,
    /// [`Request::Watermark`]
    Watermark = 28,
    /// [`Request::Remember`]
    Remember = 29,
    /// [`Request::Watermarks`]
    Watermarks = 30,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 27] = [
        Self::Get,
        Self::Put,
        Self::List,
        Self::Topology,
        Self::Status,
        Self::Metrics,
        Self::Change,
        Self::Hints,
        Self::ExplainGet,
        Self::ExplainPut,
        Self::Compare,
        Self::Fate,
        Self::ReplicaWrite,
        Self::ReplicaRead,
        Self::ReplicaList,
        Self::Vote,
        Self::StandInWrite,
        Self::StandInRead,
        Self::Repair,
        Self::TreeRoots,
        Self::TreeNodes,
        Self::TreeKeys,
        Self::TreeObjects,
        Self::Floor,
        Self::Watermark,
        Self::Remember,
        Self::Watermarks,
    ];

    /// The method of a number on the wire.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|method| method.number() == number)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The class that a request travels in unless its caller says otherwise.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Topology | Self::Status | Self::Change | Self::Vote => Class::Control,
            Self::Get
            | Self::Put
            | Self::ExplainGet
            | Self::ExplainPut
            | Self::Fate
            | Self::List
            | Self::ReplicaWrite
            | Self::ReplicaRead
            | Self::ReplicaList
            | Self::StandInWrite
            | Self::StandInRead => Class::Foreground,
            Self::Metrics
            | Self::Hints
            | Self::Compare
            | Self::Repair
            | Self::TreeRoots
            | Self::TreeNodes
            | Self::TreeKeys
            | Self::TreeObjects
            | Self::Floor
            | Self::Watermark
            | Self::Remember
            | Self::Watermarks => Class::Background,
        }
    }
}

impl Role {
    /// The longest payload of a request that this role may send, in bytes.
    pub(crate) fn longest_request(&self) -> usize {
        match self {
            Self::Node(_) => MAX_PAYLOAD_BYTES,
            Self::Client(_) | Self::Admin(_) => MAX_CLIENT_PAYLOAD_BYTES,
        }
    }

    /// Whether this role may call `method`; what is not listed is denied.
    #[must_use]
    pub fn may_call(&self, method: Method) -> bool {
        let is_node = matches!(self, Self::Node(_));
        match method {
            Method::Get
            | Method::Put
            | Method::ExplainGet
            | Method::ExplainPut
            | Method::Fate
            | Method::List
            | Method::Topology
            | Method::Status
            | Method::Hints => true,
            Method::Metrics | Method::Change | Method::Compare => matches!(self, Self::Admin(_)),
            Method::ReplicaWrite
            | Method::ReplicaRead
            | Method::ReplicaList
            | Method::Vote
            | Method::StandInWrite
            | Method::StandInRead
            | Method::Repair
            | Method::TreeRoots
            | Method::TreeNodes
            | Method::TreeKeys
            | Method::TreeObjects
            | Method::Floor
            | Method::Watermark
            | Method::Remember
            | Method::Watermarks => is_node,
        }
    }

    /// Whether this role may gossip.
    #[must_use]
    pub fn may_gossip(&self) -> bool {
        matches!(self, Self::Node(_))
    }
}

impl Request {
    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::Get(_) => Method::Get,
            Self::Put(..) => Method::Put,
            Self::List(_) => Method::List,
            Self::Topology(_) => Method::Topology,
            Self::Status(_) => Method::Status,
            Self::Metrics(_) => Method::Metrics,
            Self::Change(_) => Method::Change,
            Self::Hints(_) => Method::Hints,
            Self::ExplainGet(_) => Method::ExplainGet,
            Self::ExplainPut(..) => Method::ExplainPut,
            Self::Compare(_) => Method::Compare,
            Self::Fate(_) => Method::Fate,
            Self::ReplicaWrite(..) => Method::ReplicaWrite,
            Self::ReplicaRead(_) => Method::ReplicaRead,
            Self::ReplicaList(_) => Method::ReplicaList,
            Self::Vote(..) => Method::Vote,
            Self::StandInWrite(..) => Method::StandInWrite,
            Self::StandInRead(_) => Method::StandInRead,
            Self::Repair(..) => Method::Repair,
            Self::TreeRoots(_) => Method::TreeRoots,
            Self::TreeNodes(_) => Method::TreeNodes,
            Self::TreeKeys(_) => Method::TreeKeys,
            Self::TreeObjects(_) => Method::TreeObjects,
            Self::Floor(_) => Method::Floor,
            Self::Watermark(_) => Method::Watermark,
            Self::Remember(_) => Method::Remember,
            Self::Watermarks(_) => Method::Watermarks,
        }
    }
}

impl Response {
    /// The method that this answers; `None` for an error, which answers any.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        Some(match self {
            Self::Get(..) => Method::Get,
            Self::Put(_) => Method::Put,
            Self::List(..) => Method::List,
            Self::Topology(..) => Method::Topology,
            Self::Status(_) => Method::Status,
            Self::Metrics(..) => Method::Metrics,
            Self::Change(_) => Method::Change,
            Self::Hints(_) => Method::Hints,
            Self::ExplainGet(..) => Method::ExplainGet,
            Self::ExplainPut(_) => Method::ExplainPut,
            Self::Compare(_) => Method::Compare,
            Self::Fate(_) => Method::Fate,
            Self::ReplicaWrite(_) => Method::ReplicaWrite,
            Self::ReplicaRead(..) => Method::ReplicaRead,
            Self::ReplicaList(..) => Method::ReplicaList,
            Self::Vote(..) => Method::Vote,
            Self::StandInWrite(_) => Method::StandInWrite,
            Self::StandInRead(..) => Method::StandInRead,
            Self::Repair(_) => Method::Repair,
            Self::TreeRoots(..) => Method::TreeRoots,
            Self::TreeNodes(..) => Method::TreeNodes,
            Self::TreeKeys(..) => Method::TreeKeys,
            Self::TreeObjects(..) => Method::TreeObjects,
            Self::Floor(_) => Method::Floor,
            Self::Watermark(_) => Method::Watermark,
            Self::Remember(_) => Method::Remember,
            Self::Watermarks(_) => Method::Watermarks,
            Self::Error(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_types::NodeId;

    #[test]
    fn every_role_may_call_exactly_what_the_table_says() {
        let node = Role::Node(NodeId(1));
        let client = Role::Client("c".to_owned());
        let admin = Role::Admin("a".to_owned());
        #[rustfmt::skip]
        let table = [
            //                      node   client admin
            (Method::Get,          [true,  true,  true]),
            (Method::Put,          [true,  true,  true]),
            (Method::List,         [true,  true,  true]),
            (Method::Topology,     [true,  true,  true]),
            (Method::Status,       [true,  true,  true]),
            (Method::Metrics,      [false, false, true]),
            (Method::Change,       [false, false, true]),
            (Method::Hints,        [true,  true,  true]),
            (Method::ExplainGet,   [true,  true,  true]),
            (Method::ExplainPut,   [true,  true,  true]),
            (Method::Compare,      [false, false, true]),
            (Method::Fate,         [true,  true,  true]),
            (Method::ReplicaWrite, [true,  false, false]),
            (Method::ReplicaRead,  [true,  false, false]),
            (Method::ReplicaList,  [true,  false, false]),
            (Method::Vote,         [true,  false, false]),
            (Method::StandInWrite, [true,  false, false]),
            (Method::StandInRead,  [true,  false, false]),
            (Method::Repair,       [true,  false, false]),
            (Method::TreeRoots,    [true,  false, false]),
            (Method::TreeNodes,    [true,  false, false]),
            (Method::TreeKeys,     [true,  false, false]),
            (Method::TreeObjects,  [true,  false, false]),
            (Method::Floor,        [true,  false, false]),
            (Method::Watermark,    [true,  false, false]),
            (Method::Remember,     [true,  false, false]),
            (Method::Watermarks,   [true,  false, false]),
        ];
        assert_eq!(
            table.map(|(method, _)| method),
            Method::ALL,
            "the table lists every method"
        );
        for (method, allowed) in table {
            let may = [&node, &client, &admin].map(|role| role.may_call(method));
            assert_eq!(may, allowed, "{method:?}");
        }
        assert!(node.may_gossip() && !client.may_gossip() && !admin.may_gossip());
    }

    #[test]
    fn numbers_name_one_method_each() {
        for method in Method::ALL {
            assert_eq!(Method::from_number(method.number()), Some(method));
        }
        let known = (0..=u16::MAX)
            .filter(|n| Method::from_number(*n).is_some())
            .count();
        assert_eq!(known, Method::ALL.len());
    }
}
