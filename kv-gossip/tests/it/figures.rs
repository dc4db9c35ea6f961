//! Latency and traffic, as a table, and the goals they have to keep: `cargo test -p kv-gossip figures
//! -- --nocapture`, and with `--include-ignored` for the large ones.

use kv_gossip::{Config, State};

use crate::world::{World, seconds};

/// What UDP, IP and QUIC add to a datagram, about.
const TRANSPORT_OVERHEAD_BYTES: u64 = 70;

/// How long it may take until 99 % of the others suspect a member that is killed, in the median and at
/// worst, in seconds. The probe takes half of one, the news about as long; the rest is the wait for the
/// first probe, of which there is one a second.
const SUSPECTED_GOAL: (f64, f64) = (2.0, 3.0);

/// How long it may take until a member that is killed is dead for all others, in seconds.
const DEAD_GOAL: f64 = 16.0;

struct Figures {
    payload_rate: f64,
    wire_rate: f64,
    message_rate: f64,
    suspected_after: Option<f64>,
    dead_after: Option<f64>,
    false_deaths: usize,
}

fn measure(members: usize, loss: f64, span: f64, seed: u64) -> Figures {
    let mut world = World::settled(Config::lan(), seed, members);
    world.network.loss = loss;
    let (messages, bytes) = world.traffic();
    world.run_for(seconds(span));
    let (messages, bytes) = (world.traffic().0 - messages, world.traffic().1 - bytes);
    let false_deaths = world.false_deaths();
    let victim = members / 2;
    world.kill(victim);
    let quorum = (members - 1) * 99 / 100;
    let gone = [State::Suspect, State::Dead];
    let suspected = world.run_until_true(seconds(60.0), |w| {
        w.count_believing(victim, &gone) >= quorum
    });
    let dead = world.run_until_true(seconds(60.0), |w| {
        w.count_believing(victim, &[State::Dead]) == members - 1
    });
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let rate = |count: u64| count as f64 / (members as f64 * span);
    Figures {
        payload_rate: rate(bytes),
        wire_rate: rate(bytes + messages * TRANSPORT_OVERHEAD_BYTES),
        message_rate: rate(messages),
        suspected_after: suspected,
        dead_after: suspected.and_then(|s| dead.map(|d| s + d)),
        false_deaths,
    }
}

#[test]
fn figures_of_a_hundred_members() {
    println!(
        " loss  seed  payload B/s  wire B/s  msg/s  suspect at 99 %  dead at all  false deaths"
    );
    for (loss, span, limit) in [
        (0.0, 60.0, 300.0),
        (0.05, 120.0, 1500.0),
        (0.2, 120.0, 8000.0),
    ] {
        for seed in 1..=3 {
            let figures = measure(100, loss, span, seed);
            println!(
                "{:>4.0}%  {seed:>4}  {:>11.0}  {:>8.0}  {:>5.1}  {:>15.1?}  {:>11.1?}  {:>12}",
                loss * 100.0,
                figures.payload_rate,
                figures.wire_rate,
                figures.message_rate,
                figures.suspected_after,
                figures.dead_after,
                figures.false_deaths,
            );
            assert!(figures.wire_rate <= limit, "loss {loss}, seed {seed}");
            assert!(figures.dead_after.is_some(), "loss {loss}, seed {seed}");
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn detection_over_many_seeds() {
    let mut suspected = vec![];
    let mut dead = vec![];
    for seed in 1..=100 {
        let figures = measure(100, 0.05, 1.0, seed);
        suspected.extend(figures.suspected_after);
        dead.extend(figures.dead_after);
    }
    for (name, mut times, (median_goal, worst_goal)) in [
        ("suspect at 99 %", suspected, SUSPECTED_GOAL),
        // The shortest suspicion of 100 members is 8 s, that of 1,000 is 12 s.
        ("dead at all", dead, (DEAD_GOAL - 4.0, DEAD_GOAL - 4.0)),
    ] {
        assert_eq!(times.len(), 100, "{name}: not found in a minute");
        times.sort_by(f64::total_cmp);
        println!(
            "{name}: of {}, p50 {:.1} p90 {:.1} worst {:.1} s",
            times.len(),
            times[50],
            times[90],
            times[99]
        );
        assert!(times[50] <= median_goal, "{name}: half take longer");
        assert!(times[99] <= worst_goal, "{name}: the slowest takes longer");
    }
}

#[test]
#[ignore = "takes minutes"]
fn figures_of_a_thousand_members() {
    let mut suspected = vec![];
    for (loss, span, limit) in [(0.0, 20.0, 300.0), (0.05, 20.0, 600.0), (0.2, 30.0, 8000.0)] {
        for seed in 1..=3 {
            let figures = measure(1000, loss, span, seed);
            println!(
                "1000 members, {:.0} % loss, seed {seed}: {:.0} B/s payload, {:.0} B/s on the wire, \
                 {:.1} msg/s, suspect {:.1?} dead {:.1?} false deaths {}",
                loss * 100.0,
                figures.payload_rate,
                figures.wire_rate,
                figures.message_rate,
                figures.suspected_after,
                figures.dead_after,
                figures.false_deaths,
            );
            let case = format!("loss {loss}, seed {seed}");
            assert!(
                figures.wire_rate <= limit,
                "{case}: {} B/s",
                figures.wire_rate
            );
            assert!(
                figures.dead_after.is_some_and(|s| s <= DEAD_GOAL),
                "{case}: dead late"
            );
            assert_eq!(figures.false_deaths, 0, "{case}");
            suspected.extend(figures.suspected_after);
        }
    }
    suspected.sort_by(f64::total_cmp);
    let (median, worst) = (suspected[4], suspected[8]);
    assert!(
        median <= SUSPECTED_GOAL.0 && worst <= SUSPECTED_GOAL.1,
        "{suspected:?}"
    );
}

#[test]
#[ignore = "takes minutes"]
fn false_deaths_over_hours() {
    for (members, loss, slow, hours) in [
        (100, 0.05, 0, 24.0),
        (100, 0.2, 0, 1.0),
        (100, 0.05, 1, 24.0),
        (10, 0.05, 0, 24.0),
        (10, 0.2, 0, 4.0),
        (3, 0.05, 0, 24.0),
        (3, 0.2, 0, 12.0),
    ] {
        let mut world = World::settled(Config::lan(), 1, members);
        world.network.loss = loss;
        for member in 0..slow {
            world.network.slow.insert(member, seconds(2.0));
        }
        world.run_for(seconds(hours * 3600.0));
        let suspected = world
            .heard
            .iter()
            .filter(|h| matches!(h.event, kv_gossip::Event::Suspect { .. }))
            .count();
        println!(
            "{members} members, {:.0} % loss, {slow} slow, {hours} h: {} false deaths, {suspected} false suspicions, both counted per observer",
            loss * 100.0,
            world.false_deaths(),
        );
        assert_eq!(world.false_deaths(), 0, "{members} members, loss {loss}");
    }
}

#[test]
#[ignore = "takes minutes"]
fn many_members_meet_a_hundred_and_find_each_other_after_a_split() {
    for seed in 1..=3 {
        let mut world = World::settled(Config::lan(), seed, 900);
        world.start_many(100, &[0, 1, 2]);
        let seen = world.run_until_true(seconds(30.0), World::everyone_sees_everyone);
        let (left, right): (Vec<_>, Vec<_>) = (0..1000).partition(|member| member % 2 == 0);
        world.split(&left, &right);
        world.run_for(seconds(120.0));
        world.heard.clear();
        world.heal();
        let healed = world.run_until_true(seconds(60.0), World::everyone_sees_everyone);
        println!(
            "seed {seed}: 100 that join 900 are seen by all after {seen:.1?} s; halves of 1,000 see each other again {healed:.1?} s after a \
             split of 120 s, {} false deaths after that",
            world.false_deaths()
        );
        assert!(seen.is_some_and(|s| s <= 5.0), "seed {seed}: joins");
        assert!(healed.is_some_and(|s| s <= 15.0), "seed {seed}: halves");
        assert_eq!(world.false_deaths(), 0, "seed {seed}");
    }
}

#[test]
#[ignore = "takes an hour"]
fn false_deaths_of_a_thousand_members_in_a_day() {
    let hours = std::env::var("HOURS")
        .ok()
        .and_then(|text| text.parse().ok());
    let hours: f64 = hours.unwrap_or(24.0);
    let mut world = World::settled(Config::lan(), 1, 1000);
    world.network.loss = 0.05;
    for member in 0..10 {
        world.network.slow.insert(member, seconds(2.0));
    }
    for hour in 1..=24 {
        world.run_for(seconds(hours * 3600.0 / 24.0));
        println!(
            "1000 members, 5 % loss, 10 slow, {:.1} h: {} false deaths per observer",
            hours * f64::from(hour) / 24.0,
            world.false_deaths()
        );
        assert_eq!(world.false_deaths(), 0);
    }
}
