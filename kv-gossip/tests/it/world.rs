//! A discrete-event simulation of members and the network between them.
//!
//! Everything follows from the seed: delays, losses, the members' own choices. Faults are switched on
//! and off by the test between runs of the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use kv_gossip::message::COMPOSED_SIZE_BYTES;
use kv_gossip::{Config, Event, Gossip, Incarnation, Input, Myself, Output, State, Time};
use kv_types::{Epoch, NodeId};

/// How often the driver of a member reports its liveness proofs.
const PROOF_EVERY: Duration = Duration::from_secs(1);

/// The network's faults and delays.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// The share of messages that get lost.
    pub(crate) loss: f64,
    /// The shortest and the longest delay of a message.
    pub(crate) delay: (Duration, Duration),
    /// Directed links that carry nothing, by index of sender and recipient.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Members whose messages, both ways, take up to this much longer.
    pub(crate) slow: BTreeMap<usize, Duration>,
}

/// What the world does next.
#[derive(Debug)]
enum Happening {
    Wake {
        member: usize,
        life: u32,
    },
    Prove {
        member: usize,
        life: u32,
    },
    Deliver {
        from: usize,
        to: usize,
        address: String,
        bytes: Bytes,
    },
}

/// One simulated process.
pub(crate) struct Process {
    pub(crate) gossip: Gossip,
    pub(crate) up: bool,
    pub(crate) paused: bool,
    pub(crate) healthy: bool,
    address: String,
    boot: u64,
    /// Which life of the process the pending happenings belong to.
    life: u32,
    wake_at: Option<Time>,
    /// What arrived while it was paused.
    inbox: Vec<(usize, Bytes)>,
}

/// Something a member said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) at: Time,
    pub(crate) observer: usize,
    pub(crate) event: Event,
}

/// Members, the network, and a clock.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) network: Network,
    pub(crate) processes: Vec<Process>,
    pub(crate) heard: Vec<Heard>,
    pub(crate) longest_message: usize,
    /// How many messages were sent to each member.
    pub(crate) sent_to: BTreeMap<usize, u64>,
    /// Hash of every message sent, with its time, sender and recipient.
    pub(crate) trace: u64,
    index: BTreeMap<NodeId, usize>,
    config: Config,
    rng: Rng,
    pending: BTreeMap<(Time, u64), Happening>,
    scheduled_count: u64,
}

pub(crate) fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

pub(crate) fn id(member: usize) -> NodeId {
    // Spread over the id space, and stable.
    NodeId((member as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn default_address(member: usize) -> String {
    format!("10.0.{}.{}:7000", member / 250, member % 250)
}

impl World {
    /// An empty world.
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        Self {
            now: Time::from(seconds(1000.0)),
            network: Network {
                loss: 0.0,
                delay: (seconds(0.0002), seconds(0.002)),
                cut: BTreeSet::new(),
                slow: BTreeMap::new(),
            },
            processes: vec![],
            heard: vec![],
            longest_message: 0,
            sent_to: BTreeMap::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            index: (0..1000).map(|member| (id(member), member)).collect(),
            config,
            rng: Rng::with_seed(seed),
            pending: BTreeMap::new(),
            scheduled_count: 0,
        }
    }

    /// `count` members that list each other and have settled.
    pub(crate) fn settled(config: Config, seed: u64, count: usize) -> Self {
        let mut world = Self::new(config, seed);
        world.start_many(count, &(0..count.min(3)).collect::<Vec<_>>());
        let period = world.config.probe_period;
        for _ in 0..120 {
            world.run_for(period);
            if world.agrees() && world.everyone_sees_everyone() {
                world.run_for(10 * period);
                world.heard.clear();
                return world;
            }
        }
        panic!("{count} members did not settle in 120 probe periods, seed {seed}");
    }

    /// Starts `count` further members at once, with the same seeds.
    pub(crate) fn start_many(&mut self, count: usize, seeds: &[usize]) {
        for _ in 0..count {
            let member = self.processes.len();
            let gossip = self.make_gossip(member, default_address(member), 1);
            self.processes.push(Process {
                gossip,
                up: true,
                paused: false,
                healthy: true,
                address: default_address(member),
                boot: 1,
                life: 0,
                wake_at: None,
                inbox: vec![],
            });
            self.begin(member, seeds);
        }
    }

    /// Ends a process without a word.
    pub(crate) fn kill(&mut self, member: usize) {
        let process = &mut self.processes[member];
        process.up = false;
        process.life += 1;
        process.wake_at = None;
        process.inbox.clear();
    }

    /// Starts a killed process again, with the next boot.
    pub(crate) fn restart(&mut self, member: usize, seeds: &[usize]) {
        let (address, boot) = (
            self.processes[member].address.clone(),
            self.processes[member].boot + 1,
        );
        self.restart_as(member, address, boot, seeds);
    }

    /// Starts a killed process again, elsewhere or with a disk of another age.
    pub(crate) fn restart_as(
        &mut self,
        member: usize,
        address: String,
        boot: u64,
        seeds: &[usize],
    ) {
        assert!(!self.processes[member].up);
        let gossip = self.make_gossip(member, address.clone(), boot);
        let process = &mut self.processes[member];
        (process.gossip, process.address, process.boot) = (gossip, address, boot);
        (process.up, process.paused, process.healthy) = (true, false, true);
        self.begin(member, seeds);
    }

    /// Stops a process in its tracks, as SIGSTOP does; what arrives waits.
    pub(crate) fn pause(&mut self, member: usize) {
        self.processes[member].paused = true;
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&mut self, member: usize) {
        self.processes[member].paused = false;
        self.processes[member].wake_at = None;
        // Its timers fire before it gets to its messages: the harder order.
        self.input(member, Input::Tick);
        for (from, bytes) in std::mem::take(&mut self.processes[member].inbox) {
            self.input(
                member,
                Input::Message {
                    from: id(from),
                    bytes,
                },
            );
        }
    }

    /// Hands an input to a member and carries out what follows.
    pub(crate) fn input(&mut self, member: usize, input: Input) {
        let mut out = vec![];
        self.processes[member]
            .gossip
            .handle(self.now, input, &mut out);
        for output in out {
            match output {
                Output::Event(event) => self.heard.push(Heard {
                    at: self.now,
                    observer: member,
                    event,
                }),
                Output::Send { to, address, bytes } => self.send(member, to, address, bytes),
            }
        }
        self.schedule_wake(member);
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    pub(crate) fn run_until(&mut self, end: Time) {
        while let Some(entry) = self.pending.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), happening) = entry.remove_entry();
            self.now = at;
            self.happen(happening);
        }
        self.now = end;
    }

    /// Runs until the condition holds and says how long that took; `None` if it took too long.
    pub(crate) fn run_until_true(
        &mut self,
        limit: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Option<f64> {
        let start = self.now;
        while self.now.since(start) <= limit {
            if condition(self) {
                return Some(self.now.since(start).as_secs_f64());
            }
            self.run_for(Duration::from_millis(100));
        }
        None
    }

    /// Cuts all links between two groups, both ways.
    pub(crate) fn split(&mut self, left: &[usize], right: &[usize]) {
        for &a in left {
            for &b in right {
                self.network.cut.insert((a, b));
                self.network.cut.insert((b, a));
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.network.cut.clear();
    }

    /// Members whose process runs.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.processes.len())
            .filter(|&member| self.processes[member].up)
            .collect()
    }

    /// What `observer` believes `subject` to be doing.
    pub(crate) fn state(&self, observer: usize, subject: usize) -> Option<State> {
        self.processes[observer].gossip.state_of(id(subject))
    }

    /// How many running members, the subject not counted, believe it to be in one of `states`.
    pub(crate) fn count_believing(&self, subject: usize, states: &[State]) -> usize {
        let others = self
            .running()
            .into_iter()
            .filter(|&member| member != subject);
        others
            .filter(|&member| {
                self.state(member, subject)
                    .is_some_and(|s| states.contains(&s))
            })
            .count()
    }

    /// Whether all running members have the same view.
    pub(crate) fn agrees(&self) -> bool {
        let views: BTreeSet<u64> = self
            .running()
            .iter()
            .map(|&member| self.processes[member].gossip.view_hash())
            .collect();
        views.len() <= 1
    }

    /// Whether every running member believes every running member alive.
    pub(crate) fn everyone_sees_everyone(&self) -> bool {
        let running = self.running();
        running.iter().all(|&a| {
            running
                .iter()
                .all(|&b| self.state(a, b) == Some(State::Alive))
        })
    }

    /// Whether every running member sees the running ones alive and the others gone.
    pub(crate) fn everyone_knows_the_truth(&self) -> bool {
        let gone = (0..self.processes.len()).filter(|&member| !self.processes[member].up);
        let observers = self.running().len();
        self.everyone_sees_everyone()
            && gone
                .into_iter()
                .all(|m| self.count_believing(m, &[State::Dead, State::Left]) == observers)
    }

    /// Deaths that were declared of members that run: how many observers were wrong.
    pub(crate) fn false_deaths(&self) -> usize {
        let running: BTreeSet<NodeId> = self.running().into_iter().map(id).collect();
        self.heard
            .iter()
            .filter(|h| matches!(h.event, Event::Dead { node } if running.contains(&node)))
            .count()
    }

    /// The same, declared or believed by one observer.
    pub(crate) fn count_false_deaths_by(&self, observer: usize) -> usize {
        let running: BTreeSet<NodeId> = self.running().into_iter().map(id).collect();
        let by_it = self.heard.iter().filter(|heard| heard.observer == observer);
        by_it
            .filter(|h| matches!(h.event, Event::Dead { node } if running.contains(&node)))
            .count()
    }

    /// Whether anybody said this.
    pub(crate) fn was_heard(&self, event: Event) -> bool {
        self.heard.iter().any(|heard| heard.event == event)
    }

    /// Messages and bytes sent by all members so far, without what a transport adds.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let stats = self.processes.iter().map(|process| process.gossip.stats());
        stats.fold((0, 0), |(messages, bytes), s| {
            (messages + s.messages_sent, bytes + s.bytes_sent)
        })
    }

    fn make_gossip(&mut self, member: usize, address: String, boot: u64) -> Gossip {
        let me = Myself {
            node: id(member),
            address,
            incarnation: Incarnation::first_of_boot(boot),
            boot,
            epoch: Epoch::GENESIS,
            chain_hash: 0xc0ffee,
        };
        Gossip::new(self.config.clone(), me, self.rng.u64(..), self.now)
    }

    fn begin(&mut self, member: usize, seeds: &[usize]) {
        let seeds = seeds
            .iter()
            .map(|&seed| (id(seed), default_address(seed)))
            .collect();
        self.input(member, Input::Seeds(seeds));
        let life = self.processes[member].life;
        self.schedule(self.now + PROOF_EVERY, Happening::Prove { member, life });
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake { member, life } => {
                let process = &mut self.processes[member];
                if process.life == life && !process.paused && process.wake_at == Some(self.now) {
                    process.wake_at = None;
                    self.input(member, Input::Tick);
                }
            }
            Happening::Prove { member, life } => {
                let process = &self.processes[member];
                if process.life == life {
                    let (paused, healthy) = (process.paused, process.healthy);
                    self.schedule(self.now + PROOF_EVERY, Happening::Prove { member, life });
                    if !paused {
                        self.input(member, Input::LivenessProof { healthy });
                    }
                }
            }
            Happening::Deliver {
                from,
                to,
                address,
                bytes,
            } => self.deliver(from, to, &address, bytes),
        }
    }

    fn deliver(&mut self, from: usize, to: usize, address: &str, bytes: Bytes) {
        let Some(process) = self.processes.get_mut(to) else {
            return;
        };
        // Without an address the driver uses a connection that is open, and there is one.
        if !process.up || !(address.is_empty() || address == process.address) {
            return;
        }
        if process.paused {
            process.inbox.push((from, bytes));
        } else {
            self.input(
                to,
                Input::Message {
                    from: id(from),
                    bytes,
                },
            );
        }
    }

    fn send(&mut self, from: usize, to: NodeId, address: String, bytes: Bytes) {
        let to = self.index[&to];
        assert!(bytes.len() <= COMPOSED_SIZE_BYTES);
        self.longest_message = self.longest_message.max(bytes.len());
        *self.sent_to.entry(to).or_default() += 1;
        self.note(from, to, &bytes);
        if self.network.cut.contains(&(from, to)) || self.rng.f64() < self.network.loss {
            return;
        }
        let (shortest, longest) = self.network.delay;
        let mut delay = shortest + (longest - shortest).mul_f64(self.rng.f64());
        for end in [from, to] {
            if let Some(slow) = self.network.slow.get(&end) {
                delay += slow.mul_f64(self.rng.f64());
            }
        }
        self.schedule(
            self.now + delay,
            Happening::Deliver {
                from,
                to,
                address,
                bytes,
            },
        );
    }

    fn note(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let ends = [self.now.as_micros(), from as u64, to as u64];
        for byte in ends
            .iter()
            .flat_map(|end| end.to_le_bytes())
            .chain(bytes.iter().copied())
        {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn schedule_wake(&mut self, member: usize) {
        let process = &mut self.processes[member];
        let Some(due) = process.gossip.next_deadline() else {
            return;
        };
        let due = due.max(self.now);
        if process.wake_at.is_none_or(|planned| due < planned) {
            process.wake_at = Some(due);
            let life = process.life;
            self.schedule(due, Happening::Wake { member, life });
        }
    }

    fn schedule(&mut self, at: Time, happening: Happening) {
        self.pending.insert((at, self.scheduled_count), happening);
        self.scheduled_count += 1;
    }
}
