//! Reads that are kept waiting ask one replica more, but seldom.

use std::time::Duration;

use kv_tests::sim::SimCluster;
use kv_types::NodeId;

use crate::client::{Client, metric, with_cluster};

const VIA: NodeId = NodeId(1);
const READS: u64 = 1_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_cluster_that_is_slow_as_a_whole_is_asked_for_five_of_a_hundred_more() {
    with_cluster(1, |cluster, mut client, handle| async move {
        client.put(&cluster, VIA, "k", "v").await.expect("all run");
        let mut is_slow = false;
        for read in 0..READS {
            // Every now and then all answers take longer than they use to.
            if read % 100 == 0 {
                for peer in [NodeId(2), NodeId(3)] {
                    match is_slow {
                        false => cluster.network.slow_down((peer, VIA), ms(8)),
                        true => cluster.network.speed_up((peer, VIA), ms(8)),
                    }
                }
                is_slow = !is_slow;
            }
            client.get(&cluster, VIA, "k").await.expect("all run");
            handle.sleep(ms(1)).await;
        }
        let hedges = metric(&cluster, VIA, "kv_read_hedges_total ");
        let most = 10 + READS / 20;
        assert!((1..=most).contains(&hedges), "{hedges} of {most}");
    });
}

#[test]
fn an_answer_that_is_late_is_asked_for_elsewhere_and_the_late_one_is_asked_last() {
    with_cluster(2, |cluster, mut client, _| async move {
        client.put(&cluster, VIA, "k", "v").await.expect("all run");
        for _ in 0..100 {
            client.get(&cluster, VIA, "k").await.expect("all run");
        }
        for node in [NodeId(2), NodeId(3)] {
            cluster.network.slow_down((node, VIA), ms(300));
            let mut longest = Duration::ZERO;
            for _ in 0..200 {
                let begun = client.now();
                client.get(&cluster, VIA, "k").await.expect("all run");
                longest = longest.max(client.now() - begun);
            }
            assert!(longest < ms(30), "{node} alone is late: {longest:?}");
            cluster.network.speed_up((node, VIA), ms(300));
            client.sleep(ms(400)).await;
        }
    });
}

/// Who answers most reads besides their coordinator: a hedge may put another one first now and then.
async fn usually_asked(cluster: &SimCluster, client: &mut Client) -> NodeId {
    let mut answers = [0; 2];
    let others = [NodeId(2), NodeId(3)];
    for _ in 0..40 {
        let (_, read) = client.get(cluster, VIA, "k").await.expect("all run");
        for (count, other) in answers.iter_mut().zip(others) {
            *count += usize::from(read.answered.contains(&other));
        }
    }
    others[usize::from(answers[1] > answers[0])]
}

#[test]
fn a_member_that_comes_and_goes_is_asked_last_for_some_minutes() {
    with_cluster(3, |cluster, mut client, handle| async move {
        client.put(&cluster, VIA, "k", "v").await.expect("all run");
        handle.sleep(Duration::from_secs(3)).await;
        let usual = usually_asked(&cluster, &mut client).await;
        let others = cluster.nodes().filter(|node| *node != usual);
        let links = others.flat_map(|other| [(usual, other), (other, usual)]);
        let links: Vec<_> = links.collect();
        for _ in 0..4 {
            cluster.network.block(&links);
            handle.sleep(Duration::from_secs(8)).await;
            cluster.network.unblock(&links);
            handle.sleep(Duration::from_secs(20)).await;
        }
        let asked = usually_asked(&cluster, &mut client).await;
        assert_ne!(asked, usual, "it has just come back for the fourth time");
        handle.sleep(Duration::from_mins(11)).await;
        assert_eq!(usually_asked(&cluster, &mut client).await, usual);
    });
}
