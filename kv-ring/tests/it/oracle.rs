//! The fewest moves, by a textbook minimum-cost flow over the whole graph: slow, and sure.

use std::collections::{BTreeMap, VecDeque};

use kv_ring::assign::{Table, shares};

use crate::world::{World, partitions};

/// Cheap enough that the flow fills every share's floor before it minds any move.
const FILL_FLOOR_FIRST: i64 = -1_000_000;

/// The fewest moves that lead from `previous` to any table that meets rules R1 to R3.
pub(crate) fn fewest_moves(world: &World, previous: &Table) -> usize {
    let shares = shares(&world.input(None)).expect("a possible request");
    let mut members = world.members.clone();
    members.sort_by_key(|member| member.node);
    let zone_numbers: BTreeMap<&str, usize> = world.zones().into_keys().zip(0..).collect();
    let (zones, count) = (zone_numbers.len(), world.partitions as usize);

    let (source, sink) = (0, 1);
    let partition = |p: usize| 2 + p;
    let zone = |p: usize, z: usize| 2 + count + p * zones + z;
    let member = |m: usize| 2 + count + count * zones + m;
    let mut graph = Graph::new(member(members.len()));
    for (p, owners) in partitions(previous).enumerate() {
        graph.edge(source, partition(p), world.replicas.into(), 0);
        for z in 0..zones {
            graph.edge(partition(p), zone(p, z), world.zone_cap() as i64, 0);
        }
        for (m, candidate) in members.iter().enumerate() {
            let z = zone_numbers[candidate.zone.as_str()];
            graph.edge(
                zone(p, z),
                member(m),
                1,
                i64::from(!owners.contains(&candidate.node)),
            );
        }
    }
    let mut floors = 0;
    for (m, share) in shares.iter().enumerate() {
        let (floor, ceil) = (i64::from(share.floor()), i64::from(share.ceil()));
        graph.edge(member(m), sink, floor, FILL_FLOOR_FIRST);
        graph.edge(member(m), sink, ceil - floor, 0);
        floors += floor;
    }
    let (flow, cost) = graph.cheapest_flow(source, sink);
    assert_eq!(
        flow,
        i64::from(world.partitions) * i64::from(world.replicas),
        "feasible"
    );
    (cost - floors * FILL_FLOOR_FIRST) as usize
}

struct Edge {
    to: usize,
    room: i64,
    cost: i64,
}

/// A flow network; edge `i ^ 1` is the reverse of edge `i`.
struct Graph {
    edges: Vec<Edge>,
    at: Vec<Vec<usize>>,
}

impl Graph {
    fn new(points: usize) -> Self {
        Self {
            edges: Vec::new(),
            at: vec![Vec::new(); points],
        }
    }

    fn edge(&mut self, from: usize, to: usize, room: i64, cost: i64) {
        self.at[from].push(self.edges.len());
        self.edges.push(Edge { to, room, cost });
        self.at[to].push(self.edges.len());
        self.edges.push(Edge {
            to: from,
            room: 0,
            cost: -cost,
        });
    }

    /// The largest flow and its least cost, by successive shortest paths.
    fn cheapest_flow(&mut self, source: usize, sink: usize) -> (i64, i64) {
        let (mut flow, mut cost) = (0, 0);
        while let Some((path, length)) = self.shortest_path(source, sink) {
            let room = path
                .iter()
                .map(|&edge| self.edges[edge].room)
                .min()
                .unwrap_or(0);
            for edge in path {
                self.edges[edge].room -= room;
                self.edges[edge ^ 1].room += room;
            }
            flow += room;
            cost += room * length;
        }
        (flow, cost)
    }

    fn shortest_path(&self, source: usize, sink: usize) -> Option<(Vec<usize>, i64)> {
        let mut distance = vec![i64::MAX; self.at.len()];
        let mut through = vec![usize::MAX; self.at.len()];
        let mut queued = vec![false; self.at.len()];
        let mut queue = VecDeque::from([source]);
        distance[source] = 0;
        while let Some(point) = queue.pop_front() {
            queued[point] = false;
            for &number in &self.at[point] {
                let edge = &self.edges[number];
                let next = distance[point] + edge.cost;
                if edge.room > 0 && next < distance[edge.to] {
                    distance[edge.to] = next;
                    through[edge.to] = number;
                    if !std::mem::replace(&mut queued[edge.to], true) {
                        queue.push_back(edge.to);
                    }
                }
            }
        }
        (distance[sink] != i64::MAX).then(|| {
            let mut path = Vec::new();
            let mut point = sink;
            while point != source {
                path.push(through[point]);
                point = self.edges[through[point] ^ 1].to;
            }
            (path, distance[sink])
        })
    }
}
