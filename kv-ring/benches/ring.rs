//! Benches: planning tables, and finding the replicas of a key.
//!
//! `cargo bench -p kv-ring`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use kv_ring::assign::{Candidate, PlanInput, Table, plan};
use kv_ring::{
    ClusterMode, GenesisSpec, HashSecret, Member, MemberState, PartitionCount, PartitionId,
    Topology,
};
use kv_types::{BucketId, ClusterId, NodeId};

fn candidates(count: u32, zones: u32, weights: &[u32]) -> Vec<Candidate> {
    let candidate = |number: u32| Candidate {
        node: NodeId(number.into()),
        zone: format!("z{}", number % zones),
        weight: weights[number as usize % weights.len()],
    };
    (0..count).map(candidate).collect()
}

fn table(members: &[Candidate], previous: Option<&Table>) -> Table {
    let input = PlanInput {
        members,
        partitions: 4096,
        replicas: 3,
        previous,
    };
    plan(&input).expect("a possible request")
}

fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(20);
    for (label, zones, weights) in [("alike", 1, &[1][..]), ("weighted", 5, &[1, 1, 2, 4])] {
        for count in [11, 101, 1000] {
            let members = candidates(count, zones, weights);
            let before = table(&members, None);
            let larger = candidates(count + 1, zones, weights);
            let smaller = candidates(count - 1, zones, weights);
            let rezoned = candidates(count, zones + 1, weights);
            let name = |what: &str| format!("{what}/{label}/{count}");
            group.bench_function(name("first"), |b| b.iter(|| table(&members, None)));
            group.bench_function(name("join"), |b| b.iter(|| table(&larger, Some(&before))));
            group.bench_function(name("leave"), |b| b.iter(|| table(&smaller, Some(&before))));
            group.bench_function(name("rezone"), |b| {
                b.iter(|| table(&rezoned, Some(&before)));
            });
        }
    }
    group.finish();
}

fn topology(count: u32) -> Topology {
    let member = |number: u32| Member {
        node: NodeId(number.into()),
        name: format!("n{number}"),
        zone: format!("z{}", number % 3),
        weight: 1,
        address: format!("10.0.0.1:{number}"),
        fingerprint: [0; 32],
        state: MemberState::Active,
    };
    let spec = GenesisSpec {
        cluster_id: ClusterId(1),
        cluster_name: "bench".to_owned(),
        secret: HashSecret([7; 16]),
        partitions: PartitionCount::default(),
        replication_factor: 3,
        mode: ClusterMode::Ap,
        members: (0..count).map(member).collect(),
        default_bucket: None,
        buckets: Vec::new(),
    };
    Topology::genesis(spec).expect("a good specification")
}

fn lookups(criterion: &mut Criterion) {
    let topology = topology(1000);
    let mut group = criterion.benchmark_group("lookup");
    let mut next = 0u16;
    // An odd step through all partitions: the table does not stay in the nearest cache by luck.
    let mut partition = move || {
        next = (next + 1237) % 4096;
        PartitionId(next)
    };
    group.bench_function("locate, 16-byte key", |b| {
        b.iter(|| topology.locate(BucketId(1), black_box(b"user:00000001024")));
    });
    group.bench_function("slots of the table", |b| {
        b.iter(|| topology.table().slots(partition())[0]);
    });
    group.bench_function("owners of the table", |b| {
        b.iter(|| {
            topology
                .table()
                .owners(partition())
                .for_each(|node| _ = black_box(node));
        });
    });
    group.bench_function("replicas", |b| b.iter(|| topology.replicas(partition(), 3)));
    group.bench_function("preference", |b| {
        b.iter(|| topology.preference(partition(), 3));
    });
    group.finish();
}

criterion_group!(benches, plans, lookups);
criterion_main!(benches);
