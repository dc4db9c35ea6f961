//! The state of a cluster for people.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment};
use kv_client::ring::MemberState;

use super::gather::{Node, Seen, State};
use super::health::Health;
use crate::cli::output::Output;
use crate::cli::session::natural;
use crate::cli::time;
use crate::cli::value::{count, size};

/// The lines above the table.
pub(super) fn lines(output: &Output, seen: &Seen, health: &Health) -> Vec<String> {
    vec![
        format!("cluster    {}", cluster(seen)),
        format!("health     {}", sentence(output, seen, health)),
        format!("tolerance  {}", tolerance(health)),
        format!("data       {}", data(seen)),
        format!("traffic    {}", traffic(seen)),
    ]
}

/// One line for `--check`.
pub(super) fn verdict(health: &Health) -> String {
    if !health.is_degraded() {
        return "OK".to_owned();
    }
    let missing = health
        .missing
        .iter()
        .map(|(name, state)| format!("{name} {state}"));
    let views = (health.disagreeing > 0).then(|| "views differ".to_owned());
    format!(
        "DEGRADED {}",
        missing.chain(views).collect::<Vec<_>>().join(", ")
    )
}

fn cluster(seen: &Seen) -> String {
    let members = seen.nodes.len();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, status) in seen.answers() {
        *versions.entry(&status.version).or_default() += 1;
    }
    let versions: Vec<String> = versions
        .iter()
        .map(|(version, nodes)| format!("kv {version} on {nodes}/{members}"))
        .collect();
    let versions = if versions.is_empty() {
        "no node answers".to_owned()
    } else {
        versions.join(", ")
    };
    let topology = &seen.topology;
    let (name, id) = (topology.cluster_name(), &topology.cluster_id().short()[..6]);
    let (agreeing, answering) = (seen.agreeing(), seen.answers().count());
    let epoch = topology.epoch();
    let present = time::present();
    format!(
        "{name} {id} · {versions} · topology epoch {epoch} · views agree {agreeing}/{answering} reachable · {present}"
    )
}

fn sentence(output: &Output, seen: &Seen, health: &Health) -> String {
    let n = health.quorum.n();
    if !health.is_degraded() {
        return format!(
            "{}  every key range has {n} of {n} replicas",
            output.pleased("OK")
        );
    }
    let missing = seen.nodes.iter().filter(|node| !node.is_live());
    let mut parts: Vec<String> = missing
        .map(|node| format!("{} {}", node.member.name, state(node).to_lowercase()))
        .collect();
    if health.disagreeing > 0 {
        let disagreeing = health.disagreeing;
        parts.push(format!(
            "{disagreeing} nodes see the cluster differently than the rest"
        ));
    }
    if health.ranges_short > 0 {
        let share = percent(health.ranges_short, health.ranges);
        let fewest = health.fewest_live;
        parts.push(format!(
            "{share} of key ranges lack replicas, at worst {fewest} of {n} are live"
        ));
    }
    let (r, w) = (health.quorum.r(), health.quorum.w());
    parts.push(match health.ranges_below {
        0 => format!("every range still meets R={r} W={w}"),
        below => {
            let share = percent(below, health.ranges);
            format!("{share} of key ranges cannot meet R={r} W={w}: strict requests there fail")
        }
    });
    format!("{}  {}", output.alarmed("DEGRADED"), parts.join("; "))
}

fn tolerance(health: &Health) -> String {
    let nodes = |count: u8| {
        if count == 1 {
            "1 node".to_owned()
        } else {
            format!("{count} nodes")
        }
    };
    format!(
        "can still lose {} for strict quorum · {} without losing an acknowledged write",
        nodes(health.can_lose_for_quorum),
        nodes(health.can_lose_for_data),
    )
}

fn data(seen: &Seen) -> String {
    let objects: u64 = seen.answers().map(|(_, status)| status.objects).sum();
    let disk: u64 = seen.answers().map(|(_, status)| status.disk_bytes).sum();
    let (answering, members) = (seen.answers().count(), seen.nodes.len());
    let fullest = seen
        .answers()
        .min_by_key(|(_, status)| status.disk_free_bytes);
    let free = fullest.map_or_else(String::new, |(node, status)| {
        format!(
            " · least free disk {} ({})",
            size(status.disk_free_bytes),
            node.member.name
        )
    });
    let replicas = count(objects);
    format!(
        "about {replicas} entries (old versions among them) on {answering}/{members} nodes · {} on disk{free}",
        size(disk)
    )
}

fn traffic(seen: &Seen) -> String {
    let sum = |figure: fn(&kv_client::cluster::NodeStatus) -> u64| -> u64 {
        seen.answers().map(|(_, status)| figure(status)).sum()
    };
    let (gets, puts, errors) = (sum(|s| s.gets), sum(|s| s.puts), sum(|s| s.errors));
    let slowest = |figure: fn(&kv_client::cluster::NodeStatus) -> u32| {
        time::latency(
            seen.answers()
                .map(|(_, status)| figure(status))
                .max()
                .unwrap_or(0),
        )
    };
    let share = errors as f64 * 100.0 / (gets + puts).max(1) as f64;
    format!(
        "{} gets p50 {} p99 {} · {} puts p50 {} p99 {} · errors {share:.2} %  (since start, slowest node)",
        count(gets),
        slowest(|s| s.get_us.0),
        slowest(|s| s.get_us.1),
        count(puts),
        slowest(|s| s.put_us.0),
        slowest(|s| s.put_us.1),
    )
}

/// The table of nodes.
pub(super) fn nodes(output: &Output, seen: &Seen) -> String {
    let header = [
        "NODE", "ZONE", "ADDRESS", "STATE", "OWNS", "ENTRIES", "DISK", "FREE", "GET P99",
        "PUT P99", "UPTIME", "VERSION",
    ];
    let mut rows: Vec<_> = seen.nodes.iter().map(|node| row(output, node)).collect();
    // By name; members are in the order of their ids, which are random.
    rows.sort_by_key(|row| natural(&row[0].content()));
    output.table(&header, rows)
}

fn row(output: &Output, node: &Node) -> Vec<Cell> {
    let text = state(node);
    let state = if node.state == State::Up {
        Cell::new(text)
    } else {
        output.alarmed_cell(text)
    };
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let member = &node.member;
    let mut cells = vec![
        Cell::new(&member.name),
        Cell::new(&member.zone),
        Cell::new(&member.address),
        state,
        right(format!("{:.1} %", node.owns_percent)),
    ];
    let figures = match &node.status {
        Ok(status) => [
            count(status.objects),
            size(status.disk_bytes),
            size(status.disk_free_bytes),
            time::latency(status.get_us.1),
            time::latency(status.put_us.1),
            time::length(std::time::Duration::from_millis(status.uptime_ms)),
            status.version.clone(),
        ],
        Err(_) => [const { String::new() }; 7].map(|_| "–".to_owned()),
    };
    cells.extend(figures.map(right));
    cells
}

/// One word, and for how long.
fn state(node: &Node) -> String {
    let name = node.state.name();
    let word = match node.state {
        State::Up | State::Silent | State::Left => name.to_owned(),
        // Those that call for someone to act.
        State::Suspect | State::Down | State::Unknown => name.to_uppercase(),
    };
    let word = match node
        .since
        .filter(|_| matches!(node.state, State::Suspect | State::Down))
    {
        Some(since) => format!("{word} {}", time::length(since)),
        None => word,
    };
    // What the operator has decided of it.
    match node.member.state {
        MemberState::Active => word,
        MemberState::Leaving => format!("{word}, leaves"),
        MemberState::Lost => format!("{word}, given up"),
    }
}

/// What to do about what is wrong.
pub(super) fn hints(seen: &Seen) -> Vec<String> {
    let hint = |node: &Node| {
        let name = &node.member.name;
        let accusers = node.accusers.join(" ");
        let heartbeat = count(node.heartbeat);
        if node.member.state == MemberState::Lost {
            return Some(format!(
                "{name} is given up for good; kv cluster progress shows what others still have to take over, then kv cluster forget {name}"
            ));
        }
        match node.state {
            State::Up | State::Left => None,
            State::Silent => Some(format!(
                "{name} did not answer from here ({}), and the other nodes see it up; check the network to {}",
                node.status
                    .as_ref()
                    .err()
                    .map_or("no reason", String::as_str),
                node.member.address
            )),
            State::Suspect => Some(format!(
                "{name} is suspected by {accusers} (last heartbeat {heartbeat}); wait some seconds"
            )),
            State::Down => Some(format!(
                "{name} is down by the word of {accusers} (last heartbeat {heartbeat}); start it again: the others \
                 bring it what it missed; if it will never be back: kv cluster remove {name}"
            )),
            State::Unknown => Some(format!(
                "{name} has not been heard of by any node that answers; start it, or check {}",
                node.member.address
            )),
        }
    };
    let mut hints: Vec<String> = seen.nodes.iter().filter_map(hint).collect();
    hints.extend(losses(seen));
    hints.extend(disagreement(seen));
    hints
}

/// What may be gone with nodes that were given up.
fn losses(seen: &Seen) -> Option<String> {
    let marked = seen.topology.marked();
    let (first, last) = (marked.values().min()?, marked.values().max()?);
    let when = match first == last {
        true => format!("in epoch {first}"),
        false => format!("from epoch {first} to {last}"),
    };
    Some(format!(
        "acknowledged writes of {} partitions may be lost with nodes that were given up {when}; look at what was written there \
         last, then kv cluster clear-loss {last}",
        count(marked.len() as u64)
    ))
}

/// Who sees what, where nodes do not see the same.
fn disagreement(seen: &Seen) -> Option<String> {
    let views = seen.views();
    if views.len() < 2 {
        return None;
    }
    let told = views.iter().map(|view| {
        let epoch = view.epoch;
        let states = view.disputed.iter();
        let states: Vec<String> = states
            .map(|(name, state)| format!("{name} {state}"))
            .collect();
        let sees = match states.is_empty() {
            true => String::new(),
            false => format!(", {}", states.join(", ")),
        };
        format!("{} by epoch {epoch}{sees}", view.nodes.join(" "))
    });
    Some(format!(
        "views differ: {}; seconds after a change that is usual, if it stays, these nodes cannot reach each other",
        told.collect::<Vec<_>>().join(" | ")
    ))
}

fn percent(part: u32, whole: u32) -> String {
    format!("{:.1} %", f64::from(part) * 100.0 / f64::from(whole.max(1)))
}
