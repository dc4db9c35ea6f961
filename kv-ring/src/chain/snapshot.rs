//! A whole topology as the value of an entry.
//!
//! What is the same for most partitions is left out: the last change is listed only where it is not
//! epoch 1, and new owners only where there are some. A topology of 1,000 nodes and 4096 partitions of
//! three takes 24 KiB of slots and some 80 bytes for every member.

use std::collections::BTreeMap;

use kv_types::{
    ActorId, BlindPut, BucketId, BucketMode, BucketName, BucketProperties, ClusterId, Durability,
    Epoch, Level, NodeId, Quorum, RowCache,
};

use super::ChainError;
use super::wire::{Reader, Writer};
use crate::assign::{MAX_MEMBERS, Table};
use crate::hash::HashSecret;
use crate::partition::{PartitionCount, PartitionId};
use crate::topology::{
    Bucket, ClusterMode, Member, MemberState, Past, Removal, Topology, count_zones,
};

/// The least bytes of a member, an actor grant, a bucket, a voter and a changed partition.
const MEMBER_BYTES: usize = 16 + 4 + 32 + 1 + 3;
const ACTOR_BYTES: usize = 4 + 16;
const BUCKET_BYTES: usize = 4 + 1 + 5 + 4 + 3 + 2 + 8;
const VOTER_BYTES: usize = 16;
const CHANGED_BYTES: usize = 2 + 8;
const DRAINING_BYTES: usize = 2 + 2;
const REMOVED_BYTES: usize = 16 + 8 + 1;
const MARKED_BYTES: usize = 2 + 8;

/// The value of a topology; its epoch stands in the header of the entry.
pub(super) fn encode(topology: &Topology) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.id(topology.cluster_id.0);
    writer.text(&topology.cluster_name);
    writer.put(&topology.secret.0);
    let factor = topology.replication_factor();
    writer.put(&[topology.partitions.bits(), factor, topology.mode as u8]);
    writer.list(topology.members.iter(), put_member);
    writer.list(topology.actors.iter(), |writer, (actor, node)| {
        writer.put(&actor.0.to_le_bytes());
        writer.id(node.0);
    });
    writer.list(topology.buckets.iter(), put_bucket);
    writer.list(topology.voters.iter(), |writer, node| writer.id(node.0));
    put_slots(&mut writer, topology.table.all_slots());
    put_partitions(&mut writer, topology);
    writer.into_bytes()
}

fn put_member(writer: &mut Writer, member: &Member) {
    writer.id(member.node.0);
    writer.put(&member.weight.to_le_bytes());
    writer.put(&member.fingerprint);
    writer.put(&[member.state as u8]);
    writer.text(&member.name);
    writer.text(&member.zone);
    writer.text(&member.address);
}

fn put_bucket(writer: &mut Writer, bucket: &Bucket) {
    let BucketProperties {
        quorum,
        mode,
        blind_put,
        ttl_s,
        row_cache,
        durability,
        level,
    } = bucket.properties;
    writer.put(&bucket.id.0.to_le_bytes());
    writer.text(bucket.name.as_str());
    writer.put(&[
        quorum.n(),
        quorum.r(),
        quorum.w(),
        mode as u8,
        blind_put as u8,
    ]);
    writer.put(&ttl_s.to_le_bytes());
    writer.put(&[row_cache as u8, durability as u8, level as u8]);
    writer.put(&[bucket.past.read, bucket.past.written]);
    writer.put(&bucket.past.since.0.to_le_bytes());
}

fn put_slots(writer: &mut Writer, slots: &[u16]) {
    slots
        .iter()
        .for_each(|slot| writer.put(&slot.to_le_bytes()));
}

fn put_partitions(writer: &mut Writer, topology: &Topology) {
    let changed: Vec<(u16, Epoch)> = (0..)
        .zip(topology.changed.iter().copied())
        .filter(|&(_, at)| at != Epoch::GENESIS)
        .collect();
    writer.list(changed.into_iter(), |writer, (partition, at)| {
        writer.put(&partition.to_le_bytes());
        writer.put(&at.0.to_le_bytes());
    });
    for owners in [&topology.joint, &topology.moves] {
        writer.list(owners.iter(), |writer, (partition, new)| {
            writer.put(&partition.0.to_le_bytes());
            put_slots(writer, new);
        });
    }
    let draining = topology.draining.iter();
    let draining: Vec<(PartitionId, u16)> = draining
        .flat_map(|(partition, nodes)| nodes.iter().map(|node| (*partition, *node)))
        .collect();
    writer.list(draining.into_iter(), |writer, (partition, node)| {
        writer.put(&partition.0.to_le_bytes());
        writer.put(&node.to_le_bytes());
    });
    writer.list(topology.removed.iter(), |writer, (node, removal)| {
        writer.id(node.0);
        writer.put(&removal.epoch.0.to_le_bytes());
        writer.put(&[u8::from(removal.may_lose)]);
    });
    writer.list(topology.marked.iter(), |writer, (partition, since)| {
        writer.put(&partition.0.to_le_bytes());
        writer.put(&since.0.to_le_bytes());
    });
}

/// Reads the value of a topology of the given epoch, and checks it.
pub(super) fn decode(value: &[u8], epoch: Epoch) -> Result<Topology, ChainError> {
    let mut reader = Reader::new(value);
    let cluster_id = ClusterId(reader.id()?);
    let cluster_name = reader.text("cluster name")?;
    let secret = HashSecret(reader.array()?);
    let partitions = read_partition_count(reader.u8()?)?;
    let replicas = reader.u8()?;
    if replicas == 0 || replicas > Quorum::MAX_N {
        return Err(malformed("replication factor", replicas));
    }
    let mode = read_mode(reader.u8()?)?;
    let members = reader.list(MEMBER_BYTES, read_member)?;
    let grants = reader.list(ACTOR_BYTES, |r| Ok((ActorId(r.u32()?), NodeId(r.id()?))))?;
    let actors = ascending(grants, "actor")?;
    let buckets = reader.list(BUCKET_BYTES, read_bucket)?;
    let voters = reader.list(VOTER_BYTES, |reader| reader.id().map(NodeId))?;
    let nodes: Vec<NodeId> = members.iter().map(|member| member.node).collect();
    let slot_count = partitions.get() as usize * usize::from(replicas);
    let slots = read_slots(&mut reader, slot_count, nodes.len())?;
    let changed = read_changed(&mut reader, partitions)?;
    let joint = read_owners(&mut reader, partitions, replicas.into(), nodes.len())?;
    let moves = read_owners(&mut reader, partitions, replicas.into(), nodes.len())?;
    let draining = read_draining(&mut reader, partitions)?;
    let removed = reader.list(REMOVED_BYTES, |reader| {
        let node = NodeId(reader.id()?);
        let epoch = Epoch(reader.u64()?);
        let may_lose = match reader.u8()? {
            0 => false,
            1 => true,
            other => return Err(malformed("removal of a member", other)),
        };
        Ok((node, Removal { epoch, may_lose }))
    })?;
    let removed = ascending(removed, "removed member")?;
    let marked = reader.list(MARKED_BYTES, |reader| {
        let partition = read_partition(reader, partitions)?;
        Ok((partition, Epoch(reader.u64()?)))
    })?;
    let marked = ascending(marked, "marked partition")?;
    reader.finish()?;

    if nodes.len() > MAX_MEMBERS || !nodes.is_sorted() {
        return Err(ChainError::Malformed {
            what: "order of members",
            value: nodes.len() as u64,
        });
    }
    let table = Table::from_parts(nodes, replicas, slots);
    let topology = Topology {
        epoch,
        cluster_id,
        cluster_name,
        secret,
        partitions,
        mode,
        zone_count: count_zones(&members),
        members,
        actors,
        buckets,
        voters,
        table,
        joint,
        moves,
        draining,
        removed,
        marked,
        changed,
    };
    topology.check()?;
    Ok(topology)
}

fn read_partition_count(bits: u8) -> Result<PartitionCount, ChainError> {
    PartitionCount::from_bits(bits).map_err(|_| malformed("partition bits", bits))
}

fn read_mode(mode: u8) -> Result<ClusterMode, ChainError> {
    match mode {
        0 => Ok(ClusterMode::Ap),
        1 => Ok(ClusterMode::Cp),
        other => Err(malformed("cluster mode", other)),
    }
}

fn read_member(reader: &mut Reader<'_>) -> Result<Member, ChainError> {
    Ok(Member {
        node: NodeId(reader.id()?),
        weight: reader.u32()?,
        fingerprint: reader.array()?,
        state: match reader.u8()? {
            0 => MemberState::Active,
            1 => MemberState::Leaving,
            2 => MemberState::Lost,
            other => return Err(malformed("state of a member", other)),
        },
        name: reader.text("member name")?,
        zone: reader.text("zone")?,
        address: reader.text("address")?,
    })
}

fn read_bucket(reader: &mut Reader<'_>) -> Result<Bucket, ChainError> {
    let id = BucketId(reader.u32()?);
    let name = reader.text("bucket name")?;
    let length = name.len() as u64;
    let bad_name = |_| ChainError::Malformed {
        what: "length of a bucket name",
        value: length,
    };
    let name = BucketName::new(name).map_err(bad_name)?;
    let [n, r, w, mode, blind_put] = reader.array()?;
    let quorum = Quorum::new(n, r, w).map_err(|_| malformed("quorum of a bucket with n", n))?;
    let mode = match mode {
        0 => BucketMode::Siblings,
        1 => BucketMode::Lww,
        other => return Err(malformed("bucket mode", other)),
    };
    let blind_put = match blind_put {
        0 => BlindPut::Overwrite,
        1 => BlindPut::Sibling,
        other => return Err(malformed("rule for blind puts", other)),
    };
    let ttl_s = reader.u32()?;
    let [row_cache, durability, level] = reader.array()?;
    let row_cache = match row_cache {
        0 => RowCache::On,
        1 => RowCache::Off,
        other => return Err(malformed("row cache of a bucket", other)),
    };
    let durability = match durability {
        0 => Durability::Memory,
        1 => Durability::One,
        2 => Durability::Quorum,
        3 => Durability::All,
        other => return Err(malformed("durability of a bucket", other)),
    };
    let level = match level {
        0 => Level::Weak,
        1 => Level::Quorum,
        2 => Level::All,
        3 => Level::Eventual,
        4 => Level::Usual,
        other => return Err(malformed("level of a bucket", other)),
    };
    let [read, written] = reader.array()?;
    let mut numbers = [read, written].into_iter();
    if let Some(wrong) = numbers.find(|number| !(1..=n).contains(number)) {
        return Err(malformed("past number of a bucket", wrong));
    }
    let since = Epoch(reader.u64()?);
    Ok(Bucket {
        id,
        name,
        past: Past {
            read,
            written,
            since,
        },
        properties: BucketProperties {
            quorum,
            mode,
            blind_put,
            ttl_s,
            row_cache,
            durability,
            level,
        },
    })
}

fn read_slots(
    reader: &mut Reader<'_>,
    count: usize,
    members: usize,
) -> Result<Vec<u16>, ChainError> {
    let bytes = reader.take(count * 2)?;
    let slots: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|two| u16::from_le_bytes([two[0], two[1]]))
        .collect();
    match slots.iter().find(|&&slot| usize::from(slot) >= members) {
        None => Ok(slots),
        Some(&slot) => Err(ChainError::Malformed {
            what: "owner of a slot",
            value: slot.into(),
        }),
    }
}

fn read_changed(
    reader: &mut Reader<'_>,
    partitions: PartitionCount,
) -> Result<Vec<Epoch>, ChainError> {
    let listed = reader.list(CHANGED_BYTES, |reader| {
        let partition = read_partition(reader, partitions)?;
        match reader.u64()? {
            // Epoch 1 is what is left out; listing it would give one topology two encodings.
            1 => Err(ChainError::Malformed {
                what: "listed epoch of a change",
                value: 1,
            }),
            at => Ok((partition, Epoch(at))),
        }
    })?;
    let mut changed = vec![Epoch::GENESIS; partitions.get() as usize];
    for (partition, at) in ascending(listed, "changed partition")? {
        changed[partition.index()] = at;
    }
    Ok(changed)
}

fn read_owners(
    reader: &mut Reader<'_>,
    partitions: PartitionCount,
    replicas: usize,
    members: usize,
) -> Result<BTreeMap<PartitionId, Vec<u16>>, ChainError> {
    let listed = reader.list(2 + 2 * replicas, |reader| {
        let partition = read_partition(reader, partitions)?;
        Ok((partition, read_slots(reader, replicas, members)?))
    })?;
    ascending(listed, "partition in transition")
}

fn read_draining(
    reader: &mut Reader<'_>,
    partitions: PartitionCount,
) -> Result<BTreeMap<PartitionId, Vec<u16>>, ChainError> {
    let listed = reader.list(DRAINING_BYTES, |reader| {
        let partition = read_partition(reader, partitions)?;
        Ok(((partition, reader.u16()?), ()))
    })?;
    let mut draining: BTreeMap<PartitionId, Vec<u16>> = BTreeMap::new();
    for (partition, node) in ascending(listed, "draining partition")?.into_keys() {
        draining.entry(partition).or_default().push(node);
    }
    Ok(draining)
}

fn read_partition(
    reader: &mut Reader<'_>,
    partitions: PartitionCount,
) -> Result<PartitionId, ChainError> {
    let partition = reader.u16()?;
    if u32::from(partition) >= partitions.get() {
        return Err(ChainError::Malformed {
            what: "partition",
            value: partition.into(),
        });
    }
    Ok(PartitionId(partition))
}

/// A map from a list that must be in strictly ascending order, so that no map has two encodings.
fn ascending<K: Ord, V>(
    list: Vec<(K, V)>,
    what: &'static str,
) -> Result<BTreeMap<K, V>, ChainError> {
    match list.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
        None => Ok(list.into_iter().collect()),
        Some(place) => Err(ChainError::Malformed {
            what,
            value: place as u64 + 1,
        }),
    }
}

fn malformed(what: &'static str, value: u8) -> ChainError {
    ChainError::Malformed {
        what,
        value: value.into(),
    }
}
