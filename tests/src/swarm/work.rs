//! What clients do, and write down.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use kv_net::message::{PutV1, ReadOptions, RowsV1, SiblingHeadV1, WriteFate, WriteKind};
use kv_ring::Topology;
use kv_types::{
    Clock, Context, ContextKey, Durability, Hlc, Key, Level, NodeId, Outcome, Quorum, WriteId,
};

use super::scenario::{Mix, Scenario};
use super::witness::{Acknowledged, Served, Witness};
use crate::history::{Fate, History, KeyNumber, Read, Seen, Write};
use crate::sim::client::{BUCKET, Client};
use crate::sim::network::SimNetwork;
use crate::sim::{Handle, SimCluster};

/// What all clients write into.
pub type Notebook = Arc<Mutex<History>>;

/// Keys from here on are rows of one partition key.
pub const FIRST_ROW: KeyNumber = 1 << 16;
/// The longest pages of a listing.
const MOST_LISTED: u32 = 6;

/// The name of a key.
#[must_use]
pub fn name(key: KeyNumber) -> String {
    if key < FIRST_ROW {
        format!("k{key}")
    } else {
        format!("rows/k{key}")
    }
}

/// One client at work.
pub(super) struct Worker {
    client: Client,
    number: u32,
    network: SimNetwork,
    handle: Handle,
    rng: Rng,
    cluster: SimCluster,
    /// Members come and go, of which clients learn sooner or later.
    comes_and_goes: bool,
    keys: Range<KeyNumber>,
    topology: Arc<Topology>,
    rest_ms: u64,
    mix: Mix,
    /// Replicas of each key, and how few of them clients name.
    quorum: Quorum,
    least_to_write: u8,
    /// Level quorum is the usual one.
    names_no_level: bool,
    /// A write without a context replaces nothing.
    blind_adds: bool,
    notebook: Notebook,
    witness: Arc<Witness>,
    /// Of a client that keeps a session, what it has seen of each key.
    seen: Option<BTreeMap<KeyNumber, Clock>>,
    contexts: ContextKey,
}

impl Worker {
    pub(super) fn new(
        scenario: &Scenario,
        number: u32,
        handle: &Handle,
        cluster: &SimCluster,
        notebook: &Notebook,
        witness: &Arc<Witness>,
    ) -> Self {
        Self {
            client: cluster
                .client(u64::from(number))
                .ahead_by(scenario.client_ahead_ms(number)),
            number,
            network: cluster.network.clone(),
            handle: handle.clone(),
            rng: Rng::with_seed(scenario.seed ^ u64::from(number) << 40),
            cluster: cluster.clone(),
            comes_and_goes: scenario.newcomers > 0,
            keys: scenario.key_numbers(),
            topology: Arc::clone(cluster.topology()),
            rest_ms: scenario.rest_ms,
            mix: scenario.mix,
            quorum: scenario.quorum,
            least_to_write: scenario.least_to_write(),
            names_no_level: scenario.cp,
            blind_adds: scenario.blind_adds,
            notebook: Arc::clone(notebook),
            witness: Arc::clone(witness),
            seen: scenario.sessions.then(BTreeMap::new),
            contexts: ContextKey::new(cluster.topology().secret().context_key()),
        }
    }

    /// Reads and writes until `until`.
    pub(super) async fn work(mut self, until: Duration) {
        while self.handle.now() < until {
            let rest = Duration::from_millis(self.rng.u64(0..self.rest_ms.max(1)));
            self.handle.sleep(rest).await;
            let key = self.rng.u32(self.keys.clone());
            if self.mix.lists > 0 && self.chance(self.mix.lists) {
                self.list(key).await;
                continue;
            }
            if self.chance(self.mix.blind) {
                self.write(key, None, BTreeSet::new()).await;
                continue;
            }
            let Some((context, mut read)) = self.read(key).await else {
                continue;
            };
            let mut context = context;
            let other =
                self.keys.start + (key + 1 - self.keys.start) % (self.keys.end - self.keys.start);
            if self.mix.astray > 0 && other != key && self.chance(self.mix.astray) {
                self.write_astray(other, context.clone()).await;
            }
            // Now and then a writer goes on from its own write, without reading again; now and then it only reads.
            for _ in 0..self.rng.u8(0..4) {
                let Some((id, next)) = self.write(key, Some(context), read.clone()).await else {
                    break;
                };
                read.insert(id);
                context = next;
            }
        }
    }

    fn chance(&mut self, permille: u64) -> bool {
        self.rng.u64(0..1_000) < permille
    }

    /// How many replicas a request asks for, if it names a number; it means the key's own then.
    fn number(&mut self, least: u8) -> Option<u8> {
        let names_one = self.mix.numbers > 0 && self.chance(self.mix.numbers);
        names_one.then(|| self.rng.u8(least..=self.quorum.n()))
    }

    /// The level that a request names, if it means this one.
    fn named(&self, level: Level) -> Level {
        match level {
            Level::Quorum if self.names_no_level => Level::Usual,
            level => level,
        }
    }

    fn level(&mut self) -> Level {
        let draw = self.rng.u64(0..1_000);
        if draw < self.mix.weak {
            Level::Weak
        } else if draw < self.mix.weak + self.mix.all {
            Level::All
        } else if draw < self.mix.weak + self.mix.all + self.mix.eventual {
            Level::Eventual
        } else {
            Level::Quorum
        }
    }

    fn durability(&mut self) -> Durability {
        let Mix { memory, one, .. } = self.mix;
        if memory + one == 0 {
            return Durability::Quorum;
        }
        let draw = self.rng.u64(0..1_000);
        if draw < memory {
            Durability::Memory
        } else if draw < memory + one {
            Durability::One
        } else {
            Durability::Quorum
        }
    }

    fn via(&mut self) -> NodeId {
        let newest = self.cluster.newest();
        if self.comes_and_goes && self.rng.bool() {
            self.client.epoch = newest.epoch();
        }
        let members = newest.members();
        members[self.rng.usize(0..members.len())].node
    }

    fn notes(&self) -> MutexGuard<'_, History> {
        self.notebook.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a client was told to the trace.
    fn trace(&self, what: u64) {
        self.handle.note(u64::from(self.number) << 32 ^ what);
    }

    async fn read(&mut self, key: KeyNumber) -> Option<(Context, BTreeSet<WriteId>)> {
        let (number, via) = (self.number(1), self.via());
        let level = match number {
            Some(_) => Level::Quorum,
            None => self.level(),
        };
        let options = ReadOptions {
            level: self.named(level),
            r: number,
            ..ReadOptions::default()
        };
        let begun = self.handle.now();
        let seen_before = self.seen.as_ref().and_then(|seen| seen.get(&key));
        let seen_before = seen_before.map(|clock| {
            self.contexts
                .seal(BUCKET, &crate::sim::client::key(&name(key)), clock)
        });
        let answer = self
            .client
            .get_in_session(&self.network, via, &name(key), options, seen_before)
            .await;
        let Ok((values, reply)) = answer else {
            self.trace(1);
            return None;
        };
        self.trace(2 + reply.siblings.len() as u64);
        let named = crate::sim::client::key(&name(key));
        if number.is_none() {
            self.witness.answered(&named, level, begun, &reply);
        }
        if number.is_none() && matches!(level, Level::Quorum | Level::All) {
            let served = Served::Read;
            self.witness.served(served, &named, begun, reply.epoch);
        }
        self.saw(key, &reply.context);
        let read = Read {
            key,
            client: self.number,
            level,
            number,
            begun,
            ended: self.handle.now(),
            in_session: self.seen.is_some(),
            is_listed: false,
            seen: seen(&reply.siblings, &mut values.into_iter()),
        };
        let ids = read.ids();
        self.notes().reads.push(read);
        Some((reply.context, ids))
    }

    /// Lists the partition of a key, page by page, and notes what was shown of each key in it.
    async fn list(&mut self, key: KeyNumber) {
        let (level, via) = (self.level(), self.via());
        let options = ReadOptions {
            level: self.named(level),
            ..ReadOptions::default()
        };
        let place = |number: KeyNumber| {
            let key = crate::sim::client::key(&name(number));
            let (_, partition) = self.topology.locate(BUCKET, key.partition_key());
            (partition, key)
        };
        let (partition, of_key) = place(key);
        let all_rows = RowsV1 {
            partition_key: Bytes::copy_from_slice(of_key.partition_key()),
            from: Bytes::new(),
            until: None,
        };
        // On such a day it comes to the same.
        let rows = (key >= FIRST_ROW && self.rng.bool()).then_some(all_rows);
        let mut shown: BTreeMap<Key, (KeyNumber, Vec<Seen>)> = BTreeMap::new();
        for number in self.keys.clone() {
            let (of_key, key) = place(number);
            if of_key == partition {
                shown.insert(key, (number, Vec::new()));
            }
        }
        let begun = self.handle.now();
        let mut after = None;
        loop {
            let from = (partition.0, rows.clone(), after.take());
            let most = self.rng.u32(1..=MOST_LISTED);
            let page = self.client.list(&self.network, via, from, most, options);
            let Ok((page, values)) = page.await else {
                self.trace(3);
                return;
            };
            self.trace(200 + page.entries.len() as u64);
            let mut values = values.into_iter();
            for entry in page.entries {
                let seen = seen(&entry.siblings, &mut values);
                match shown.get_mut(&entry.key) {
                    Some((_, all)) => all.extend(seen),
                    None => panic!("{} was never written", entry.key),
                }
            }
            after = page.next_after;
            if after.is_none() {
                break;
            }
        }
        let ended = self.handle.now();
        let reads = shown.into_values().map(|(key, seen)| Read {
            key,
            client: self.number,
            level,
            number: None,
            begun,
            ended,
            in_session: false,
            is_listed: true,
            seen,
        });
        self.notes().reads.extend(reads.collect::<Vec<_>>());
    }

    async fn write(
        &mut self,
        key: KeyNumber,
        context: Option<Context>,
        read: BTreeSet<WriteId>,
    ) -> Option<(WriteId, Context)> {
        let is_blind = context.is_none() && !self.blind_adds;
        let is_delete = self.chance(self.mix.deletes);
        let kind = if is_delete {
            WriteKind::Delete
        } else {
            WriteKind::Put
        };
        let mut request = self.client.put_request(&name(key), context, kind);
        let number = self.number(self.least_to_write);
        let level = match number {
            Some(_) => Level::Quorum,
            None => self.level(),
        };
        request.options.level = self.named(level);
        match number {
            // Every node is a zone.
            Some(zones) if self.rng.bool() && zones >= self.quorum.w() => {
                request.options.distinct_zones = zones;
            }
            number => request.options.w = number,
        }
        if self.mix.large > 0 && self.chance(self.mix.large) {
            request.head.write_id = History::large(request.head.write_id);
        }
        let expires = !is_delete && self.mix.passing > 0 && self.chance(self.mix.passing);
        if expires {
            request.options.ttl_ms = Some(self.rng.u64(1..20_000));
        }
        let durability = self.durability();
        request.options.durability = Some(durability);
        let id = request.head.write_id;
        let write = Write {
            key,
            client: self.number,
            level,
            number,
            durability,
            is_delete,
            expires,
            is_astray: false,
            is_told_later: false,
            is_blind,
            read,
            begun: self.handle.now(),
            attempts: 0,
            fate: Fate::Unknown,
            minted: None,
        };
        self.notes().writes.insert(id, write);
        let (mut fate, context) = self.send(request).await;
        let is_told_later =
            fate == Fate::Unknown && self.mix.asks > 0 && self.chance(self.mix.asks);
        if is_told_later {
            fate = self.ask_about(key, id).await;
        }
        let begun = self.notes().writes.get_mut(&id).map(|write| {
            write.is_told_later = is_told_later;
            if is_told_later && (write.level == Level::All || write.number.is_some()) {
                // What is said to be applied is with as many as a quorum needs.
                write.level = Level::Quorum;
                write.number = None;
            }
            write.fate = fate;
            write.begun
        });
        let context = context?;
        self.witness.acknowledged(&Acknowledged {
            key: &crate::sim::client::key(&name(key)),
            id,
            level,
            number,
            durability,
            begun: begun.unwrap_or_default(),
            context: &context,
        });
        let clock = self.saw(key, &context);
        if let Some(write) = self.notes().writes.get_mut(&id) {
            // Whoever makes it has heard of all that it replaces.
            write.minted = clock.map(|clock| clock.latest());
        }
        Some((id, context))
    }

    /// Writes with the context of another key, once.
    async fn write_astray(&mut self, key: KeyNumber, context: Context) {
        let request = self
            .client
            .put_request(&name(key), Some(context), WriteKind::Put);
        let id = request.head.write_id;
        let write = Write {
            key,
            client: self.number,
            level: request.options.level,
            number: None,
            durability: Durability::Quorum,
            is_delete: false,
            expires: false,
            is_astray: true,
            is_told_later: false,
            is_blind: false,
            read: BTreeSet::new(),
            begun: self.handle.now(),
            attempts: 1,
            fate: Fate::Unknown,
            minted: None,
        };
        self.notes().writes.insert(id, write);
        let via = self.via();
        let value = History::value_of(id);
        let sent = self.client.send_put(&self.network, via, request, &value);
        let fate = match sent.await {
            Ok(_) => Fate::Acked(self.handle.now()),
            Err((_, Outcome::NotApplied)) => Fate::NotApplied,
            Err((_, Outcome::Unknown)) => Fate::Unknown,
        };
        if let Some(write) = self.notes().writes.get_mut(&id) {
            write.fate = fate;
        }
    }

    /// Asks what became of a write.
    async fn ask_about(&mut self, key: KeyNumber, id: WriteId) -> Fate {
        let (via, named) = (self.via(), name(key));
        let asked = self.client.fate(&self.network, via, &named, id);
        match asked.await {
            Ok(WriteFate::Applied { .. }) => {
                self.trace(300);
                Fate::Acked(self.handle.now())
            }
            // Never so early.
            Ok(WriteFate::NotApplied | WriteFate::Gone) => {
                self.trace(301);
                Fate::NotApplied
            }
            Ok(WriteFate::Unknown { .. }) | Err(_) => {
                self.trace(302);
                Fate::Unknown
            }
        }
    }

    /// What an answer covers; in a session, that is remembered.
    fn saw(&mut self, key: KeyNumber, context: &Context) -> Option<Clock> {
        let named = crate::sim::client::key(&name(key));
        let clock = self.contexts.open(BUCKET, &named, context, Hlc(u64::MAX));
        let clock = clock.ok()?;
        if let Some(seen) = &mut self.seen {
            seen.entry(key).or_default().merge(&clock);
        }
        Some(clock)
    }

    /// Sends a write up to three times, through random nodes. The worst over all attempts counts: a late
    /// "not applied" says nothing of an earlier one.
    async fn send(&mut self, request: PutV1) -> (Fate, Option<Context>) {
        let value = match request.kind {
            WriteKind::Put => History::value_of(request.head.write_id),
            WriteKind::Delete => String::new(),
        };
        let mut fate = Fate::NotApplied;
        let (level, key) = (request.options.level, request.key.clone());
        let is_quorum = level == self.named(Level::Quorum) || level == Level::All;
        let is_strict = is_quorum && request.options.w.is_none();
        let first_sent = self.handle.now();
        for attempt in 0..3 {
            let via = self.via();
            if let Some(write) = self.notes().writes.get_mut(&request.head.write_id) {
                write.attempts += 1;
            }
            let mut request = request.clone();
            request.head.epoch = self.client.epoch;
            let sent = self.handle.now();
            if attempt > 0 {
                let since = self.handle.now().saturating_sub(first_sent).as_millis();
                request.since_first_ms = u32::try_from(since).expect("a short run").max(1);
            }
            match self
                .client
                .send_put(&self.network, via, request, &value)
                .await
            {
                Ok(reply) => {
                    self.trace(100);
                    if is_strict {
                        let served = Served::Write;
                        self.witness.served(served, &key, sent, reply.epoch);
                    }
                    return (Fate::Acked(self.handle.now()), Some(reply.context));
                }
                Err((_, Outcome::Unknown)) => {
                    self.trace(101);
                    fate = Fate::Unknown;
                }
                Err((_, Outcome::NotApplied)) => self.trace(102),
            }
        }
        (fate, None)
    }
}

/// The siblings of a reply with their values.
fn seen(siblings: &[SiblingHeadV1], values: &mut impl Iterator<Item = String>) -> Vec<Seen> {
    let see = |head: &SiblingHeadV1| Seen {
        id: head.write_id,
        value: if head.tombstone { None } else { values.next() },
        minted: head.dot.hlc,
    };
    siblings.iter().map(see).collect()
}
