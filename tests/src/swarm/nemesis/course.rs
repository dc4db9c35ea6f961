//! What happens in the course of a fault, moment by moment.

use std::time::Duration;

use kv_storage::sim::Fault as DiskFault;
use kv_types::NodeId;

use super::step::Step;
use super::{Nemesis, id};
use crate::sim::network::{CLIENTS, Link};
use crate::swarm::fault::{Fault, NodeNumber};

impl Nemesis {
    /// What happens in the course of a fault.
    pub(super) fn steps(
        &self,
        begin: Duration,
        lasts: Duration,
        fault: &Fault,
    ) -> Vec<(Duration, Step)> {
        let end = begin + lasts;
        let nodes = &self.nodes;
        let blocked = |links: Vec<Link>| {
            vec![
                (begin, Step::Block(links.clone())),
                (end, Step::Unblock(links)),
            ]
        };
        let links = |is_blocked: &dyn Fn(NodeId, NodeId) -> bool| -> Vec<Link> {
            let ends = || nodes.iter().copied().chain([CLIENTS]);
            let pairs = ends().flat_map(|from| ends().map(move |to| (from, to)));
            pairs
                .filter(|(from, to)| from != to && is_blocked(*from, *to))
                .collect()
        };
        let restart = |node| [(end, Step::Kill(node)), (end, Step::Start(node))];
        match fault {
            Fault::Kill(numbers) => each(numbers, |node| {
                vec![(begin, Step::Kill(node)), (end, Step::Start(node))]
            }),
            Fault::Away(node) => {
                self.disks().away.insert(id(*node), (begin, end));
                vec![
                    (begin, Step::Kill(id(*node))),
                    (end, Step::Start(id(*node))),
                ]
            }
            Fault::PowerCut(numbers) => each(numbers, |node| {
                vec![(begin, Step::CutPower(node)), (end, Step::Start(node))]
            }),
            Fault::Pause(node) => {
                vec![
                    (begin, Step::Pause(id(*node))),
                    (end, Step::Resume(id(*node))),
                ]
            }
            Fault::Split(left) => {
                let is_left = |node: NodeId| left.iter().any(|number| id(*number) == node);
                blocked(links(&|from, to| {
                    from != CLIENTS && to != CLIENTS && is_left(from) != is_left(to)
                }))
            }
            Fault::Mute(muted) => blocked(links(&|from, _| {
                muted.iter().any(|number| id(*number) == from)
            })),
            Fault::Deafen(deaf) => {
                blocked(links(&|_, to| deaf.iter().any(|number| id(*number) == to)))
            }
            Fault::Ring => blocked(links(&|from, to| {
                let count = nodes.len() as u128;
                let apart = (from.0 + count - to.0 % count) % count;
                from != CLIENTS && to != CLIENTS && apart != 1 && apart != count - 1
            })),
            Fault::Hermit { node, friend } => {
                let (node, friend) = (id(*node), id(*friend));
                blocked(links(&|from, to| {
                    let is_between_nodes = from != CLIENTS && to != CLIENTS;
                    let is_hermit = from == node || to == node;
                    is_between_nodes && is_hermit && from != friend && to != friend
                }))
            }
            Fault::Flapping(node) => {
                let node = id(*node);
                let cut = links(&|from, to| {
                    from != CLIENTS && to != CLIENTS && (from == node || to == node)
                });
                let period = Duration::from_millis(400);
                let mut steps = Vec::new();
                let mut at = begin;
                while at < end {
                    steps.push((at, Step::Block(cut.clone())));
                    steps.push((at + period / 2, Step::Unblock(cut.clone())));
                    at += period;
                }
                steps
            }
            Fault::Lossy { loss, duplicates } => vec![
                (
                    begin,
                    Step::Chances {
                        loss: *loss,
                        duplicates: *duplicates,
                    },
                ),
                (
                    end,
                    Step::Chances {
                        loss: 0,
                        duplicates: 0,
                    },
                ),
            ],
            Fault::SlowLink { from, to, by_ms } => {
                let (link, by) = ((id(*from), id(*to)), Duration::from_millis(*by_ms));
                vec![
                    (begin, Step::SlowDown(link, by)),
                    (end, Step::SpeedUp(link, by)),
                ]
            }
            Fault::DiskError { node, after } => {
                let kind = match after % 2 {
                    0 => DiskFault::Io,
                    _ => DiskFault::LateIo,
                };
                let mut steps = vec![(begin, Step::DiskFault(id(*node), kind, *after))];
                steps.extend(restart(id(*node)));
                steps
            }
            Fault::FlippedRead { node, after } => {
                let flip = Step::DiskFault(id(*node), DiskFault::FlippedRead, *after);
                let mut steps = vec![(begin, flip)];
                steps.extend(restart(id(*node)));
                steps
            }
            Fault::FullDisk { node, room } => vec![
                (begin, Step::Fill(id(*node), *room)),
                (end, Step::Free(id(*node))),
                (end, Step::Start(id(*node))),
            ],
            Fault::SlowDisk { node, factor } => vec![
                (begin, Step::Slowness(id(*node), *factor)),
                (end, Step::Slowness(id(*node), 1)),
            ],
            Fault::HungDisk(node) => vec![(begin, Step::HangUntil(id(*node), end))],
            Fault::Skew { node, by_ms } => vec![
                (begin, Step::Skew(id(*node), *by_ms)),
                (end, Step::Skew(id(*node), 0)),
            ],
            Fault::Rivals {
                one,
                other,
                between,
                after_ms,
                hangs,
            } => {
                let (one, other, between) = (id(*one), id(*other), id(*between));
                let cut = begin + Duration::from_millis(*after_ms);
                let mut steps = blocked(vec![(one, other), (other, one)]);
                // Nor is it told by the first one what was decided.
                let untold = vec![(one, between), (between, one)];
                steps.push((cut, Step::Block(untold.clone())));
                steps.push((end.max(cut), Step::Unblock(untold)));
                if *hangs {
                    steps.push((begin, Step::HangUntil(between, cut)));
                }
                steps.push((begin, Step::Propose(one)));
                steps.push((cut, Step::CutPower(between)));
                steps.push((cut, Step::Start(between)));
                // By then it has started again, most often: it waits half a second for the one that it does not hear.
                steps.push((cut + Duration::from_millis(900), Step::Propose(other)));
                steps
            }
            Fault::Blackout => blocked(links(&|_, _| true)),
            Fault::ExpiredPapers(node) => {
                let node = id(*node);
                vec![
                    (begin, Step::Expire(node)),
                    (begin, Step::Kill(node)),
                    (begin, Step::Start(node)),
                    (end, Step::Renew(node)),
                ]
            }
            Fault::NewAuthority => vec![
                (begin, Step::FoundAuthority),
                (begin + lasts / 2, Step::IssueByNewest),
                (end, Step::BelieveOnlyIssuing),
            ],
            Fault::Strangers { node, count } => vec![(begin, Step::Strangers(id(*node), *count))],
            Fault::Restore { node, age_ms } => {
                let node = id(*node);
                let copied = begin.saturating_sub(Duration::from_millis(*age_ms));
                vec![
                    (copied, Step::Copy(node)),
                    (begin, Step::Kill(node)),
                    (end, Step::PutBack(node)),
                ]
            }
            Fault::Wipe(node) => vec![
                (begin, Step::Kill(id(*node))),
                (end, Step::Wipe(id(*node))),
                (end, Step::Start(id(*node))),
            ],
            Fault::Damage { node, seed } => {
                let mut steps = vec![(begin, Step::Flip(id(*node), *seed))];
                steps.extend(restart(id(*node)));
                steps
            }
        }
    }
}

/// The steps of each of some nodes.
fn each(
    numbers: &[NodeNumber],
    steps: impl Fn(NodeId) -> Vec<(Duration, Step)>,
) -> Vec<(Duration, Step)> {
    numbers
        .iter()
        .flat_map(|number| steps(id(*number)))
        .collect()
}
