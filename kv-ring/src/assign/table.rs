//! The table: N replica slots for every partition.

use kv_types::NodeId;

use crate::partition::PartitionId;

/// Which node holds which slot, for all partitions.
///
/// Slots hold two-byte indexes into the list of nodes: 24 KiB for 4096 partitions of three.
#[derive(Clone, PartialEq, Eq)]
pub struct Table {
    nodes: Vec<NodeId>,
    replicas: u8,
    slots: Vec<u16>,
}

/// One slot that changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotMove {
    /// The partition.
    pub partition: PartitionId,
    /// The slot, counted from 0.
    pub slot: u8,
    /// Who held it; nobody, when there were fewer slots.
    pub from: Option<NodeId>,
    /// Who will hold it.
    pub to: NodeId,
}

impl Table {
    /// A table from nodes in ascending order and `replicas` indexes into them per partition.
    ///
    /// The caller has checked that every index is in range.
    pub(crate) fn from_parts(nodes: Vec<NodeId>, replicas: u8, slots: Vec<u16>) -> Self {
        debug_assert!(nodes.is_sorted());
        debug_assert!(slots.iter().all(|&index| usize::from(index) < nodes.len()));
        debug_assert_eq!(slots.len() % usize::from(replicas), 0);
        Self {
            nodes,
            replicas,
            slots,
        }
    }

    /// The nodes that the slots name, in ascending order.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// Slots of each partition.
    #[must_use]
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        (self.slots.len() / usize::from(self.replicas)) as u32
    }

    /// The slots of one partition, as indexes into [`Self::nodes`].
    ///
    /// # Panics
    /// When the table has no such partition.
    #[must_use]
    pub fn slots(&self, partition: PartitionId) -> &[u16] {
        let width = usize::from(self.replicas);
        let first = partition.index() * width;
        &self.slots[first..first + width]
    }

    /// The holders of one partition's slots, in slot order.
    ///
    /// # Panics
    /// When the table has no such partition.
    pub fn owners(&self, partition: PartitionId) -> impl ExactSizeIterator<Item = NodeId> {
        self.slots(partition)
            .iter()
            .map(|&index| self.nodes[usize::from(index)])
    }

    /// How many of the first `prefix` slots each node holds, in order of [`Self::nodes`].
    #[must_use]
    pub fn loads(&self, prefix: u8) -> Vec<u32> {
        let mut loads = vec![0; self.nodes.len()];
        for slots in self.slots.chunks_exact(usize::from(self.replicas)) {
            for &index in slots.iter().take(usize::from(prefix)) {
                loads[usize::from(index)] += 1;
            }
        }
        loads
    }

    /// The slots whose holder differs from an earlier table of as many partitions.
    #[must_use]
    pub fn moves_from(&self, earlier: &Self) -> Vec<SlotMove> {
        let partitions = (0..self.partitions().min(earlier.partitions())).map(|p| p as u16);
        let in_partition = |partition: PartitionId| {
            let mut before = earlier.owners(partition);
            let now = self.owners(partition).enumerate();
            let pairs = now.map(move |(slot, to)| (slot as u8, before.next(), to));
            pairs
                .filter(|&(_, from, to)| from != Some(to))
                .map(move |(slot, from, to)| SlotMove {
                    partition,
                    slot,
                    from,
                    to,
                })
        };
        partitions.map(PartitionId).flat_map(in_partition).collect()
    }

    /// The same table over other nodes, in ascending order, among which are all that hold a slot.
    ///
    /// # Errors
    /// The first node that holds one and is not among them.
    pub(crate) fn over(&self, nodes: &[NodeId]) -> Result<Self, NodeId> {
        let index = |node: &NodeId| nodes.binary_search(node).ok().map(|index| index as u16);
        let indexes: Vec<Option<u16>> = self.nodes.iter().map(index).collect();
        let slot = |slot: &u16| {
            let old = usize::from(*slot);
            indexes[old].ok_or(self.nodes[old])
        };
        let slots = self.slots.iter().map(slot).collect::<Result<_, _>>()?;
        Ok(Self::from_parts(nodes.to_vec(), self.replicas, slots))
    }

    pub(crate) fn all_slots(&self) -> &[u16] {
        &self.slots
    }

    pub(crate) fn slots_mut(&mut self, partition: PartitionId) -> &mut [u16] {
        let width = usize::from(self.replicas);
        let first = partition.index() * width;
        &mut self.slots[first..first + width]
    }

    pub(crate) fn index_of(&self, node: NodeId) -> Option<u16> {
        self.nodes
            .binary_search(&node)
            .ok()
            .map(|index| index as u16)
    }
}

impl core::fmt::Debug for Table {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Table")
            .field("nodes", &self.nodes.len())
            .field("partitions", &self.partitions())
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}
