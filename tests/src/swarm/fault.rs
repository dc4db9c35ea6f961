//! What may go wrong, and when.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// A node by its number.
pub type NodeNumber = u8;

/// Something that goes wrong for a while. It ends by itself, so that any of them can be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since the start.
    pub at_ms: u64,
    /// For how long.
    pub lasts_ms: u64,
    /// What.
    pub fault: Fault,
}

/// One kind of trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Processes are killed, and started again at the end.
    Kill(Vec<NodeNumber>),
    /// A process is killed, and whatever else happens, it is not started again before the end.
    Away(NodeNumber),
    /// Machines lose power: what was not synced may be gone, torn or garbage.
    PowerCut(Vec<NodeNumber>),
    /// A process stands still.
    Pause(NodeNumber),
    /// Two parts of the cluster do not hear each other; clients reach both.
    Split(Vec<NodeNumber>),
    /// Nobody hears these nodes, but they hear everybody.
    Mute(Vec<NodeNumber>),
    /// These nodes hear nobody, clients included, but are heard.
    Deafen(Vec<NodeNumber>),
    /// Each node hears only its neighbours in a ring.
    Ring,
    /// One node is cut off from the other nodes, on and off.
    Flapping(NodeNumber),
    /// A node and all others but one do not hear each other.
    Hermit {
        /// The node.
        node: NodeNumber,
        /// Whom it still hears.
        friend: NodeNumber,
    },
    /// So many of 1,000 messages are lost, and so many requests arrive twice.
    Lossy {
        /// Lost.
        loss: u64,
        /// Arriving twice.
        duplicates: u64,
    },
    /// Messages from one node to another take longer.
    SlowLink {
        /// From.
        from: NodeNumber,
        /// To.
        to: NodeNumber,
        /// Milliseconds more.
        by_ms: u64,
    },
    /// After so many more calls, one call to the disk fails; the process is restarted at the end.
    DiskError {
        /// Whose disk.
        node: NodeNumber,
        /// How many calls go well before.
        after: u64,
    },
    /// After so many more calls, one read returns a flipped bit.
    FlippedRead {
        /// Whose disk.
        node: NodeNumber,
        /// How many calls go well before.
        after: u64,
    },
    /// The disk has room for so many more bytes only.
    FullDisk {
        /// Whose.
        node: NodeNumber,
        /// Free bytes.
        room: u64,
    },
    /// Everything on the disk takes so many times longer.
    SlowDisk {
        /// Whose.
        node: NodeNumber,
        /// How much.
        factor: u64,
    },
    /// Nothing on the disk ends before the end.
    HungDisk(NodeNumber),
    /// The clock is wrong by so much.
    Skew {
        /// Whose.
        node: NodeNumber,
        /// Milliseconds ahead, or behind.
        by_ms: i64,
    },
    /// Two nodes that do not hear each other propose one after the other, and the node between them loses power after
    /// so many milliseconds: what it has promised the one it must not have forgotten before the other.
    Rivals {
        /// Proposes first.
        one: NodeNumber,
        /// Proposes then.
        other: NodeNumber,
        /// Hears both.
        between: NodeNumber,
        /// When it loses power.
        after_ms: u64,
        /// Its disk hangs until then.
        #[serde(default)]
        hangs: bool,
    },
    /// Nobody hears anybody.
    Blackout,
    /// A node's certificate has expired, and the node is restarted at the beginning, so that it has to show it.
    ExpiredPapers(NodeNumber),
    /// A new authority takes over in three steps: all believe it, it issues for all, all believe only it.
    NewAuthority,
    /// So many clients with certificates of a foreign authority dial a node at once.
    Strangers {
        /// Whom they dial.
        node: NodeNumber,
        /// How many.
        count: u16,
    },
    /// The disk of a node is put back as it was so long before it stops, if another node remembers that it was further. Else
    /// the node is only started again.
    Restore {
        /// Whose.
        node: NodeNumber,
        /// How much older the copy is, in milliseconds.
        age_ms: u64,
    },
    /// The store of a node is emptied before it starts again.
    Wipe(NodeNumber),
    /// A bit of a file flips for ever, then the process is killed and started again. Destroys durable bytes.
    Damage {
        /// Whose.
        node: NodeNumber,
        /// Which file and bit.
        seed: u64,
    },
}

impl Fault {
    /// Whether a node loses what it had synced, or has to take it for lost.
    #[must_use]
    pub fn takes_bytes(&self) -> bool {
        matches!(
            self,
            Self::Restore { .. } | Self::Wipe(_) | Self::Damage { .. } | Self::FlippedRead { .. }
        )
    }

    /// Whether no process ends for it.
    #[must_use]
    pub fn leaves_processes(&self) -> bool {
        matches!(
            self,
            Self::Pause(_)
                | Self::Split(_)
                | Self::Mute(_)
                | Self::Deafen(_)
                | Self::Ring
                | Self::Flapping(_)
                | Self::Hermit { .. }
                | Self::Lossy { .. }
                | Self::SlowLink { .. }
                | Self::SlowDisk { .. }
                | Self::Blackout
        )
    }

    /// A word for counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(nodes) if nodes.len() > 1 => "kill of several",
            Self::Kill(_) => "kill",
            Self::Away(_) => "node away",
            Self::PowerCut(nodes) if nodes.len() > 1 => "power cut of several",
            Self::PowerCut(_) => "power cut",
            Self::Pause(_) => "pause",
            Self::Split(_) => "split",
            Self::Mute(_) => "mute nodes",
            Self::Deafen(_) => "deaf nodes",
            Self::Ring => "ring",
            Self::Flapping(_) => "flapping",
            Self::Hermit { .. } => "hermit",
            Self::Lossy { .. } => "lossy network",
            Self::SlowLink { .. } => "slow link",
            Self::DiskError { .. } => "disk error",
            Self::FlippedRead { .. } => "flipped read",
            Self::FullDisk { .. } => "full disk",
            Self::SlowDisk { .. } => "slow disk",
            Self::HungDisk(_) => "hung disk",
            Self::Skew { .. } => "clock skew",
            Self::Rivals { .. } => "rivals",
            Self::Blackout => "blackout",
            Self::ExpiredPapers(_) => "expired certificate",
            Self::NewAuthority => "new authority",
            Self::Strangers { .. } => "strangers",
            Self::Damage { .. } => "damaged file",
            Self::Restore { .. } => "node with a copy of its disk",
            Self::Wipe(_) => "wiped store",
        }
    }
}

/// Puts the disk of one node back now and then, or empties its store. No other one loses durable bytes on such a day.
pub(super) fn with_restores(mut events: Vec<Event>, plan: &Plan, rng: &mut Rng) -> Vec<Event> {
    events.retain(|event| !matches!(event.fault, Fault::Damage { .. }));
    let node = rng.u8(1..=plan.nodes);
    let mut at_ms = rng.u64(OLDEST_COPY_MS..OLDEST_COPY_MS * 2);
    while at_ms < plan.until_ms {
        let lasts_ms = rng.u64(20..4_000);
        let age_ms = rng.u64(NEWEST_COPY_MS..OLDEST_COPY_MS);
        let fault = match rng.u8(0..4) {
            0 => Fault::Wipe(node),
            _ => Fault::Restore { node, age_ms },
        };
        events.push(Event {
            at_ms,
            lasts_ms,
            fault,
        });
        if rng.bool() {
            events.extend(cornered(plan, node, at_ms, lasts_ms, rng));
        } else if plan.nodes > 3 && rng.bool() {
            events.extend(outvoted(plan, node, at_ms, lasts_ms, rng));
        }
        at_ms += rng.u64(OLDEST_COPY_MS..3 * OLDEST_COPY_MS);
    }
    events
}

/// Takes the power from a node that heard of writes twice and could not sync them; of the others, first one hears nothing,
/// and then one of those that do.
pub(super) fn doubted(plan: &Plan, rng: &mut Rng) -> Vec<Event> {
    let mut nodes: Vec<NodeNumber> = (1..=plan.nodes).collect();
    rng.shuffle(&mut nodes);
    let (doubted, unaware, aware) = (nodes[0], nodes[1], nodes[2]);
    let hangs_ms = rng.u64(50..400);
    let begins_ms = rng.u64(3_000..plan.until_ms.max(4_000) - 500);
    let power_ms = begins_ms + hangs_ms;
    let event = |at_ms, lasts_ms, fault| Event {
        at_ms,
        lasts_ms,
        fault,
    };
    vec![
        event(begins_ms - 100, hangs_ms + 100, Fault::Split(vec![unaware])),
        event(
            begins_ms,
            hangs_ms,
            Fault::Lossy {
                loss: 0,
                duplicates: 500,
            },
        ),
        event(begins_ms, hangs_ms, Fault::HungDisk(doubted)),
        event(power_ms, 50, Fault::PowerCut(vec![doubted])),
        event(power_ms, rng.u64(500..3_000), Fault::Split(vec![aware])),
    ]
}

/// Keeps from one other node what the restored one takes in before, and from the restored one those that know of it after.
fn cornered(
    plan: &Plan,
    restored: NodeNumber,
    at_ms: u64,
    lasts_ms: u64,
    rng: &mut Rng,
) -> [Event; 2] {
    let others = (1..=plan.nodes).filter(|node| *node != restored);
    let mut others: Vec<NodeNumber> = others.collect();
    rng.shuffle(&mut others);
    let (unaware, aware) = others.split_at(1);
    let before_ms = rng.u64(500..4_000);
    let split = |at_ms, lasts_ms, part: &[NodeNumber]| Event {
        at_ms,
        lasts_ms,
        fault: Fault::Split(part.to_vec()),
    };
    [
        split(at_ms - before_ms, before_ms, unaware),
        split(at_ms, lasts_ms + rng.u64(2_000..6_000), aware),
    ]
}

/// Cuts a node off with one other one before its disk is put back: what it votes on meanwhile is not decided, so that it is asked
/// once more when it has forgotten.
fn outvoted(
    plan: &Plan,
    restored: NodeNumber,
    at_ms: u64,
    lasts_ms: u64,
    rng: &mut Rng,
) -> [Event; 1] {
    let ally = 1 + (restored - 1 + rng.u8(1..plan.nodes)) % plan.nodes;
    let before_ms = OLDEST_COPY_MS.min(at_ms);
    [Event {
        at_ms: at_ms - before_ms,
        lasts_ms: before_ms + lasts_ms + rng.u64(0..2_000),
        fault: Fault::Split(vec![restored, ally]),
    }]
}

/// A node is away for most of the day: for longer than others wait with what they keep for it, and than deletions are kept.
pub(super) fn absent(plan: &Plan, rng: &mut Rng) -> Event {
    let at_ms = rng.u64(1_000..(plan.until_ms / 4).max(2_000));
    Event {
        at_ms,
        lasts_ms: plan.until_ms.saturating_sub(at_ms),
        fault: Fault::Away(rng.u8(1..=plan.nodes)),
    }
}

/// Keeps what others have for some nodes from reaching them, while they are there for whoever wants deletions forgotten.
pub(super) fn hermits(plan: &Plan, rng: &mut Rng) -> Vec<Event> {
    let hermit = |_| {
        let node = rng.u8(1..=plan.nodes);
        let friend = 1 + (node - 1 + rng.u8(1..plan.nodes)) % plan.nodes;
        Event {
            at_ms: rng.u64(1_000..plan.until_ms.max(2_000)),
            lasts_ms: rng.u64(4_500..9_000),
            fault: Fault::Hermit { node, friend },
        }
    };
    (0..6).map(hermit).collect()
}

/// Of what happened since a newer copy the others may not have heard.
const NEWEST_COPY_MS: u64 = 11_000;
const OLDEST_COPY_MS: u64 = 20_000;

/// Draws what goes wrong on one day.
#[derive(Debug)]
pub(super) struct Plan {
    /// How many nodes there are.
    pub nodes: NodeNumber,
    /// When the last fault begins, in milliseconds.
    pub until_ms: u64,
    /// The only node whose durable bytes may be destroyed, if any.
    pub victim: Option<NodeNumber>,
    /// Nodes speak real QUIC.
    pub quic: bool,
}

/// How many kinds [`Plan::draw_one`] knows.
const KINDS: u8 = 19;
/// The kind that is [`Fault::Rivals`].
const RIVALS: u8 = 18;
/// How many more where nodes speak real QUIC.
const QUIC_KINDS: u8 = 4;

impl Plan {
    /// Draws which kinds occur on this day, how often, and each of them.
    pub(super) fn draw(&self, rng: &mut Rng) -> Vec<Event> {
        let all = KINDS + if self.quic { QUIC_KINDS } else { 0 };
        let mut kinds: BTreeSet<u8> = (0..all).filter(|_| rng.bool()).collect();
        kinds.insert(rng.u8(0..all));
        let kinds: Vec<u8> = kinds.into_iter().collect();
        let most_gap_ms = [800, 2_000, 5_000][rng.usize(0..3)];
        let mut events = Vec::new();
        let mut at_ms = 500;
        while at_ms < self.until_ms {
            let kind = kinds[rng.usize(0..kinds.len())];
            // Rivals try several times, and have to be apart until both have proposed.
            let (times, least_ms) = if kind == RIVALS { (4, 1_500) } else { (1, 20) };
            let times = (at_ms..self.until_ms).step_by(2_000).take(times);
            for at_ms in times {
                if let Some((fault, most_ms)) = self.draw_one(kind, rng) {
                    // Short ones often, long ones now and then.
                    let most_ms = most_ms >> rng.u32(0..5);
                    events.push(Event {
                        at_ms,
                        lasts_ms: rng.u64(20..most_ms.max(21)).max(least_ms),
                        fault,
                    });
                }
            }
            at_ms += rng.u64(50..most_gap_ms);
        }
        events
    }

    /// A fault of one kind, and how long it lasts at most.
    fn draw_one(&self, kind: u8, rng: &mut Rng) -> Option<(Fault, u64)> {
        let node = rng.u8(1..=self.nodes);
        let other = 1 + (node - 1 + rng.u8(1..self.nodes)) % self.nodes;
        let some = |rng: &mut Rng| -> Vec<NodeNumber> {
            let mut some: Vec<_> = (1..=self.nodes).filter(|_| rng.bool()).collect();
            if some.is_empty() || some.len() == usize::from(self.nodes) {
                some = vec![node];
            }
            some
        };
        let all = || (1..=self.nodes).collect();
        Some(match kind {
            0 | 1 => (Fault::Kill(vec![node]), 8_000),
            2 => (
                Fault::Kill(if rng.bool() { some(rng) } else { all() }),
                3_000,
            ),
            3 | 4 => (Fault::PowerCut(vec![node]), 8_000),
            5 => (
                Fault::PowerCut(if rng.bool() { some(rng) } else { all() }),
                3_000,
            ),
            6 => (Fault::Pause(node), 60_000),
            7 => (Fault::Split(some(rng)), 15_000),
            8 => match rng.u8(0..4) {
                0 => (Fault::Mute(some(rng)), 10_000),
                1 => (Fault::Deafen(some(rng)), 10_000),
                2 => (Fault::Ring, 10_000),
                _ => (Fault::Flapping(node), 10_000),
            },
            9 => {
                let (loss, duplicates) = (rng.u64(0..200), rng.u64(0..200));
                (Fault::Lossy { loss, duplicates }, 20_000)
            }
            10 => {
                let by_ms = rng.u64(10..900);
                let (from, to) = (node, other);
                (Fault::SlowLink { from, to, by_ms }, 20_000)
            }
            11 => {
                let after = rng.u64(0..200);
                (Fault::DiskError { node, after }, 8_000)
            }
            12 => {
                let after = rng.u64(0..400);
                (Fault::FlippedRead { node, after }, 8_000)
            }
            13 => {
                let room = rng.u64(0..40_000);
                (Fault::FullDisk { node, room }, 10_000)
            }
            14 => {
                let factor = rng.u64(2..60);
                (Fault::SlowDisk { node, factor }, 20_000)
            }
            15 => (Fault::HungDisk(node), 20_000),
            16 => {
                let most_ms = [100, 5_000, 3_600_000][rng.usize(0..3)];
                let by_ms = rng.i64(-most_ms..=most_ms);
                (Fault::Skew { node, by_ms }, 60_000)
            }
            17 => {
                let node = self.victim?;
                let seed = rng.u64(..);
                (Fault::Damage { node, seed }, 8_000)
            }
            RIVALS => {
                // As many nodes on from the second one as that is from the first is a third one, but for a circle of two.
                let step = (other + self.nodes - node) % self.nodes;
                let between = 1 + (other - 1 + step) % self.nodes;
                if between == node {
                    return None;
                }
                let hangs = rng.bool();
                let fault = Fault::Rivals {
                    one: node,
                    other,
                    between,
                    // It takes the right millisecond, unless its vote is on no disk until then.
                    after_ms: rng.u64(if hangs { 30..150 } else { 0..40 }),
                    hangs,
                };
                (fault, 8_000)
            }
            19 => (Fault::Blackout, 12_000),
            20 => (Fault::ExpiredPapers(node), 12_000),
            21 => (Fault::NewAuthority, 10_000),
            _ => {
                let count = rng.u16(1..100);
                (Fault::Strangers { node, count }, 1_000)
            }
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Duration::from_millis(self.at_ms);
        let lasts = Duration::from_millis(self.lasts_ms);
        write!(f, "at {at:?} for {lasts:?}: {:?}", self.fault)
    }
}
