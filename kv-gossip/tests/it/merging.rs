//! The order in which news arrive does not matter.

use fastrand::Rng;
use kv_gossip::message::{Body, Claim, Message, Profile, Rumor};
use kv_gossip::{Config, Gossip, Incarnation, Input, Standing, State, Time};
use kv_types::{Epoch, NodeId};
use proptest::prelude::*;

use crate::by_hand;

const SENDER: NodeId = NodeId(1000);

fn member() -> Gossip {
    by_hand::member(Config::lan())
}

/// The address of a node's boot: within one boot a node has one address.
fn profile(node: u128, boot: u64) -> Profile {
    let address = format!("host{node}-{boot}:1");
    Profile {
        address,
        boot,
        heartbeat: 3,
        age: 3,
        epoch: Epoch::GENESIS,
    }
}

fn deliver(gossip: &mut Gossip, rumors: &[Rumor]) {
    for rumor in rumors {
        let bytes = by_hand::message(Incarnation(1), 1, Body::News, vec![rumor.clone()]);
        gossip.handle(
            Time::ZERO,
            Input::Message {
                from: SENDER,
                bytes,
            },
            &mut vec![],
        );
    }
}

fn any_rumor() -> impl Strategy<Value = Rumor> {
    (2_u128..6, 0_u64..3, 0_u64..3, 0_u64..4, 0_u8..4, 1_u64..4).prop_map(
        |(node, incarnation, cleared, accused_at, kind, boot)| {
            let claim = match kind {
                0 => Claim::Alive { cleared },
                1 => Claim::Suspect {
                    cleared,
                    accused_at,
                    accuser: NodeId(u128::from(accused_at)),
                },
                2 => Claim::Dead {
                    cleared,
                    accused_at,
                },
                _ => Claim::Left,
            };
            let incarnation = Incarnation(incarnation);
            Rumor {
                node: NodeId(node),
                incarnation,
                claim,
                profile: Some(profile(node, boot)),
            }
        },
    )
}

fn view(gossip: &Gossip) -> Vec<(NodeId, Standing, String)> {
    gossip
        .members()
        .map(|m| (m.node(), m.standing(), m.address().to_owned()))
        .collect()
}

proptest! {
    #[test]
    fn the_same_news_in_any_order_and_number_give_the_same_view(
        rumors in prop::collection::vec(any_rumor(), 1..30),
        seed in any::<u64>(),
    ) {
        let mut shuffled = rumors.clone();
        Rng::with_seed(seed).shuffle(&mut shuffled);
        shuffled.extend_from_slice(&rumors[..rumors.len() / 2]);
        let (mut one, mut other) = (member(), member());
        deliver(&mut one, &rumors);
        deliver(&mut other, &shuffled);
        prop_assert_eq!(view(&one), view(&other));
        prop_assert_eq!(one.view_hash(), other.view_hash());
    }

    #[test]
    fn what_is_held_in_the_end_is_the_greatest_of_what_was_said(
        rumors in prop::collection::vec(any_rumor(), 1..30),
    ) {
        let mut gossip = member();
        deliver(&mut gossip, &rumors);
        for node in 2..6 {
            let greatest =
                rumors.iter().filter(|rumor| rumor.node == NodeId(node)).map(Rumor::standing).max();
            prop_assert_eq!(gossip.member(NodeId(node)).map(|member| member.standing()), greatest);
        }
    }

    #[test]
    fn views_that_differ_have_different_hashes(
        left in prop::collection::vec(any_rumor(), 1..10),
        right in prop::collection::vec(any_rumor(), 1..10),
    ) {
        let (mut one, mut other) = (member(), member());
        deliver(&mut one, &left);
        deliver(&mut other, &right);
        prop_assert_eq!(view(&one) == view(&other), one.view_hash() == other.view_hash());
    }
}

#[test]
fn a_rumor_about_an_unknown_node_is_asked_about_and_not_guessed() {
    let mut gossip = member();
    let introduction = Rumor {
        node: SENDER,
        incarnation: Incarnation(1),
        claim: Claim::Alive { cleared: 0 },
        profile: Some(profile(1000, 1)),
    };
    deliver(&mut gossip, &[introduction]);
    let claim = Claim::Suspect {
        cleared: 0,
        accused_at: 1,
        accuser: SENDER,
    };
    let rumor = Rumor {
        node: NodeId(7),
        incarnation: Incarnation(1),
        claim,
        profile: None,
    };
    let bytes = by_hand::message(Incarnation(1), 1, Body::News, vec![rumor]);
    let mut out = vec![];
    gossip.handle(
        Time::ZERO,
        Input::Message {
            from: SENDER,
            bytes,
        },
        &mut out,
    );
    assert_eq!(gossip.state_of(NodeId(7)), None);
    assert_eq!(gossip.state_of(SENDER), Some(State::Alive));
    let asks = out.iter().any(|output| match output {
        kv_gossip::Output::Send {
            to: SENDER, bytes, ..
        } => {
            matches!(Message::decode(bytes).unwrap().body, Body::Digest { .. })
        }
        kv_gossip::Output::Send { .. } | kv_gossip::Output::Event(_) => false,
    });
    assert!(asks, "{out:?}");
}
