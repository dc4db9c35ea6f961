//! How many bytes move with slots of partitions, by what nodes tell of their data.

use std::collections::BTreeMap;

use kv_client::NodeId;
use kv_client::ring::assign::SlotMove;
use kv_client::ring::{MemberState, Topology};

use crate::cli::status::gather::{Node, Seen};
use crate::cli::value::size;

/// A number of bytes, as far as it can be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Predicted {
    /// The bytes of those slots of which something is known.
    pub(super) bytes: u64,
    /// Slots of which nothing is known: no node that owns the partition has answered.
    pub(super) unknown_slots: usize,
    /// All slots.
    pub(super) slots: usize,
}

impl Predicted {
    fn add(&mut self, bytes: Option<u64>) {
        self.slots += 1;
        match bytes {
            Some(bytes) => self.bytes = self.bytes.saturating_add(bytes),
            None => self.unknown_slots += 1,
        }
    }

    /// For people: `about 7.2 GiB`, `at least 7.2 GiB`, `unknown`.
    pub(super) fn text(&self) -> String {
        if self.slots > 0 && self.unknown_slots == self.slots {
            return "unknown".to_owned();
        }
        let sure = if self.unknown_slots > 0 {
            "at least"
        } else {
            "about"
        };
        format!("{sure} {}", size(self.bytes))
    }

    /// The bytes, if they are known of every slot.
    pub(super) fn whole(&self) -> Option<u64> {
        (self.unknown_slots == 0).then_some(self.bytes)
    }
}

/// What each node that answered and stays holds on its disk for each slot that it owns, on the average.
///
/// Who leaves has given away slots whose bytes are on its disk still.
#[derive(Debug)]
pub(super) struct Sizes<'a> {
    topology: &'a Topology,
    bytes_per_slot: BTreeMap<NodeId, u64>,
}

impl<'a> Sizes<'a> {
    pub(super) fn of(seen: &'a Seen) -> Self {
        let topology = &*seen.topology;
        let loads = topology.table().loads(topology.replication_factor());
        let owned: BTreeMap<NodeId, u32> = topology
            .table()
            .nodes()
            .iter()
            .copied()
            .zip(loads)
            .collect();
        let stays = |node: &Node| node.member.state == MemberState::Active;
        let answers = seen.answers().filter(|(node, _)| stays(node));
        let sizes = answers.filter_map(|(node, status)| {
            let slots = u64::from(*owned.get(&node.member.node)?);
            let bytes = status.disk_bytes.checked_div(slots)?;
            Some((node.member.node, bytes))
        });
        Self {
            topology,
            bytes_per_slot: sizes.collect(),
        }
    }

    /// The bytes of some moves: of each what the present owners of the partition hold for a slot, on the average.
    pub(super) fn predict<'m>(&self, moves: impl IntoIterator<Item = &'m SlotMove>) -> Predicted {
        let mut predicted = Predicted::default();
        for slot in moves {
            let owners = self.topology.table().owners(slot.partition);
            let known = owners.filter_map(|owner| self.bytes_per_slot.get(&owner));
            let (count, bytes) = known.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
            predicted.add(u64::checked_div(bytes, count));
        }
        predicted
    }
}
