//! A node's first certificate over the wire.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use futures::FutureExt;
use kv_net::Peer;
use kv_net::credentials::fingerprint_of_pem;
use kv_net::issuing::{Answering, Issuing, IssuingError, MAX_BYTES, Secret, ask};

use crate::support::{Issuer, LONG, SECOND, dialler, status};

const SECRETS: [Secret; 2] = [Secret([1; 32]), Secret([2; 32])];

/// An issuer that tells which secret was shown, and what was asked; but of "no" it wants to know nothing.
fn open(authority: &Issuer) -> SocketAddr {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let times = (SystemTime::now(), LONG);
    let issuing = Issuing::bind(any, &authority.0, &SECRETS, times).expect("a free port");
    let address = issuing.address().expect("it is bound");
    let answering: Answering = Arc::new(|number, request| {
        async move {
            match request.as_slice() {
                b"no" => Err("not that".to_owned()),
                _ => Ok([&[b'0' + u8::try_from(number).expect("two")], &request[..]].concat()),
            }
        }
        .boxed()
    });
    tokio::spawn(async move { issuing.serve(answering).await });
    address
}

fn authority_of(issuer: &Issuer) -> [u8; 32] {
    fingerprint_of_pem(issuer.0.certificate_pem()).expect("a certificate")
}

#[tokio::test]
async fn whoever_has_a_secret_is_answered_and_told_apart() {
    let issuer = Issuer::new();
    let (address, authority) = (open(&issuer), authority_of(&issuer));
    for (number, secret) in SECRETS.iter().enumerate() {
        for _ in 0..2 {
            let answer = ask(address, authority, secret, b"please", LONG).await;
            assert_eq!(
                answer.expect("answered"),
                format!("{number}please").into_bytes()
            );
        }
    }
    let refused = ask(address, authority, &SECRETS[0], b"no", LONG).await;
    let refused = refused.expect_err("refused").to_string();
    assert_eq!(refused, "the issuer refuses: not that");
    let long = vec![b'x'; MAX_BYTES + 1];
    let refused = ask(address, authority, &SECRETS[0], &long, LONG).await;
    assert!(
        matches!(refused, Err(IssuingError::Unreachable { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn without_a_secret_nobody_is_heard() {
    let issuer = Issuer::new();
    let (address, authority) = (open(&issuer), authority_of(&issuer));
    let refused = ask(address, authority, &Secret([3; 32]), b"please", LONG).await;
    assert!(
        matches!(refused, Err(IssuingError::Unreachable { .. })),
        "{refused:?}"
    );
    // A member's certificate does not help either.
    let peer = Peer {
        node: None,
        address,
    };
    let called = dialler(issuer.node(1)).call(&peer, status(), SECOND).await;
    assert!(called.is_err(), "{called:?}");
}

#[tokio::test]
async fn an_issuer_of_another_authority_is_not_believed() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let address = open(&other);
    let refused = ask(address, authority_of(&issuer), &SECRETS[0], b"please", LONG).await;
    let refused = refused.expect_err("not the one that was meant").to_string();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
}
