//! Reads that are kept waiting ask one replica more, but seldom.

use std::time::Duration;

use kv_types::NodeId;

use crate::client::{metric, with_cluster};

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
