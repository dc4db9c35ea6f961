//! Who is let in: every wrong certificate is refused, and both ends say why.

use std::time::{Duration, SystemTime};

use crate::raw;
use crate::support::*;
use kv_net::{
    ALPN, BindError, CallError, Credentials, DialError, Endpoint, EndpointConfig, Identity,
    KeyPair, Peer, Role, Validity,
};
use kv_types::{ClusterId, NodeId, Outcome};

/// Calls with `theirs` at a node with `ours`: what the caller is told, and what the node noted.
async fn refusal(dialling: Credentials, listening: Credentials) -> (DialError, String) {
    let (server, peer) = listen(listening, Echo::answering());
    let error = dialler(dialling)
        .call(&peer, put("x"), LONG)
        .await
        .expect_err("refused");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    let CallError::Connect { reason, .. } = error else {
        panic!("another error: {error}")
    };
    // The dialling side may know before the listening one does, which is asked until it does.
    eventually(|| server.stats().last_refusal.is_some()).await;
    let refusal = server
        .stats()
        .last_refusal
        .expect("it is there")
        .to_string();
    (reason, refusal)
}

fn untrusted(error: &DialError) -> &str {
    match error {
        DialError::Untrusted { reason } => reason,
        other => panic!("another error: {other}"),
    }
}

fn rejected(error: &DialError) -> &str {
    match error {
        DialError::Rejected { reason } => reason,
        other => panic!("another error: {other}"),
    }
}

/// A year that ended an hour ago.
fn ended() -> Validity {
    let now = SystemTime::now();
    Validity {
        not_before: now - Duration::from_secs(7200),
        not_after: now - Duration::from_secs(3600),
    }
}

#[tokio::test]
async fn a_node_of_another_authority_is_refused_by_its_caller() {
    let (ours, theirs) = (Issuer::new(), Issuer::new());
    let (told, noted) = refusal(ours.client(), theirs.node(1)).await;
    assert!(
        untrusted(&told).starts_with("the certificate was not issued by an authority"),
        "{told}"
    );
    assert!(
        noted.starts_with("the dialling side refuses our certificate"),
        "{noted}"
    );
    assert!(noted.contains("not issued by an authority"), "{noted}");
}

#[tokio::test]
async fn a_caller_of_another_authority_is_refused_by_the_node() {
    let (ours, theirs) = (Issuer::new(), Issuer::new());
    let identity = Identity::client(CLUSTER, "stranger");
    // It believes us; we do not believe it.
    let stranger = theirs.credentials_believing(ours.0.certificate_pem(), &identity);
    let (told, noted) = refusal(stranger, ours.node(1)).await;
    assert!(
        rejected(&told).starts_with("the certificate was not issued by an authority"),
        "{told}"
    );
    assert_eq!(rejected(&told), noted);
}

#[tokio::test]
async fn expired_certificates_are_refused_in_both_directions() {
    let issuer = Issuer::new();
    let node = issuer.credentials_for(&Identity::node(CLUSTER, NodeId(1)), ended());
    let (told, _) = refusal(issuer.client(), node).await;
    // It ended an hour before this test began, and the test takes a while itself.
    let ago = untrusted(&told)
        .strip_prefix("the certificate expired ")
        .and_then(|rest| rest.split_once(" s ago"))
        .map(|(seconds, _)| seconds.parse::<u64>().expect("a number"));
    assert!(ago.is_some_and(|s| (3600..7200).contains(&s)), "{told}");
    let client = issuer.credentials_for(&Identity::client(CLUSTER, "old"), ended());
    let (told, noted) = refusal(client, issuer.node(1)).await;
    assert!(
        rejected(&told).contains("issue a new one with `kv-node cert`"),
        "{told}"
    );
    assert_eq!(rejected(&told), noted);
}

#[tokio::test]
async fn a_certificate_from_the_future_is_refused() {
    let issuer = Issuer::new();
    let valid = Validity::starting(SystemTime::now() + Duration::from_secs(3600), SECOND * 9000);
    let client = issuer.credentials_for(&Identity::client(CLUSTER, "early"), valid);
    let (told, _) = refusal(client, issuer.node(1)).await;
    assert!(rejected(&told).contains("check the clocks"), "{told}");
}

#[tokio::test]
async fn a_clock_that_lags_five_minutes_believes_a_fresh_certificate() {
    #[derive(Debug)]
    struct Lagging;
    impl rustls::time_provider::TimeProvider for Lagging {
        fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
            let now = rustls::pki_types::UnixTime::now().as_secs();
            Some(rustls::pki_types::UnixTime::since_unix_epoch(
                Duration::from_secs(now - 290),
            ))
        }
    }
    let issuer = Issuer::new();
    let config = EndpointConfig {
        time: std::sync::Arc::new(Lagging),
        ..EndpointConfig::node()
    };
    let (_server, peer) = listen_with(issuer.node(1), Echo::answering(), config);
    dialler(issuer.client())
        .call(&peer, put("x"), LONG)
        .await
        .expect("believed");
}

#[tokio::test]
async fn another_cluster_is_refused_even_under_a_trusted_authority() {
    let (ours, theirs) = (Issuer::new(), Issuer::of(ClusterId(0xc2)));
    let both = format!("{}{}", ours.0.certificate_pem(), theirs.0.certificate_pem());
    let node = ours.credentials_believing(&both, &Identity::node(CLUSTER, NodeId(1)));
    let client = theirs.credentials_believing(&both, &Identity::client(ClusterId(0xc2), "c"));
    let (told, noted) = refusal(client, node).await;
    let (c1, c2) = (CLUSTER, ClusterId(0xc2));
    // The dialling side looks first, so it is the one that refuses.
    assert_eq!(
        untrusted(&told),
        format!("the certificate is of cluster {c1}, and this is cluster {c2}")
    );
    assert!(noted.contains(&format!("is of cluster {c1}")), "{noted}");
}

#[tokio::test]
async fn the_node_that_answers_must_be_the_one_that_is_meant() {
    let issuer = Issuer::new();
    let (_server, peer) = listen(issuer.node(1), Echo::answering());
    let meant = Peer {
        node: Some(NodeId(2)),
        ..peer
    };
    let client = dialler(issuer.client());
    let error = client
        .call(&meant, put("x"), LONG)
        .await
        .expect_err("another node");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    let text = error.to_string();
    assert!(
        text.contains(&format!("node {} answers at this address", NodeId(1))),
        "{text}"
    );
    assert!(
        text.contains(&format!("node {} was expected", NodeId(2))),
        "{text}"
    );
}

#[tokio::test]
async fn nobody_listens_with_a_client_certificate() {
    let issuer = Issuer::new();
    let refused = Endpoint::bind(loopback(), issuer.client(), EndpointConfig::node());
    let error = refused.expect_err("a client cannot be dialled");
    assert!(matches!(&error, BindError::NotNode { role: Role::Client(name) } if name == "tester"));
    assert!(error.to_string().contains("kv-node cert"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_not_a_node_for_those_who_dial() {
    let issuer = Issuer::new();
    let key = KeyPair::generate().expect("a key");
    let identity = Identity::client(CLUSTER, "impostor");
    let valid = Validity::starting(SystemTime::now(), SECOND * 3600);
    let certificate = issuer
        .0
        .issue(&identity, &key.public_key(), valid)
        .expect("issued");
    let impostor = raw::listen(&raw::Pem {
        certificate,
        key: key.to_pem(),
    });
    let address = impostor.local_addr().expect("bound");
    let accepting = tokio::spawn(async move {
        let incoming = impostor.accept().await.expect("someone dials");
        incoming.await.expect_err("and is not deceived").to_string()
    });
    let peer = Peer {
        node: None,
        address,
    };
    let error = dialler(issuer.client())
        .call(&peer, put("x"), LONG)
        .await
        .expect_err("refused");
    let text = "a certificate of client/impostor was used as a node's";
    assert!(error.to_string().contains(text), "{error}");
    let seen = accepting.await.expect("no panic");
    assert!(seen.contains(text), "{seen}");
}

#[tokio::test]
async fn without_a_certificate_or_with_another_protocol_nobody_gets_in() {
    let issuer = Issuer::new();
    let (server, peer) = listen(issuer.node(1), Echo::answering());
    // A dialler without a certificate learns of its refusal just after its own handshake is done.
    if let Ok(connection) = raw::dial(peer.address, None, ALPN).await {
        let error = connection.closed().await.to_string();
        assert!(
            error.contains("NoCertificatesPresented") || error.contains("certificate"),
            "{error}"
        );
    }
    let key = KeyPair::generate().expect("a key");
    let identity = Identity::client(CLUSTER, "web");
    let valid = Validity::starting(SystemTime::now(), SECOND * 3600);
    let certificate = issuer
        .0
        .issue(&identity, &key.public_key(), valid)
        .expect("issued");
    let pem = raw::Pem {
        certificate,
        key: key.to_pem(),
    };
    let error = raw::dial(peer.address, Some(&pem), b"h3")
        .await
        .expect_err("another protocol");
    assert!(
        error.to_string().contains("application protocol") || error.to_string().contains("120"),
        "{error}"
    );
    assert_eq!(server.stats().accepted, 0);
    dialler(issuer.client())
        .call(&peer, put("x"), LONG)
        .await
        .expect("others are served");
}

#[tokio::test]
async fn credentials_are_replaced_while_connections_live() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let identity = Identity::node(CLUSTER, NodeId(1));
    let (server, peer) = listen(old.node(1), Echo::answering());
    let client = dialler(old.client());
    client.call(&peer, put("x"), LONG).await.expect("answered");

    // Both authorities are believed while one takes over from the other.
    let both = format!("{}{}", old.0.certificate_pem(), new.0.certificate_pem());
    server
        .replace_credentials(new.credentials_believing(&both, &identity))
        .expect("same node");
    client
        .call(&peer, put("x"), LONG)
        .await
        .expect("the live connection stays");
    assert_eq!(client.stats().dialled, 1);

    dialler(new.client())
        .call(&peer, put("x"), LONG)
        .await
        .expect("the new one is shown");
    let error = dialler(old.client())
        .call(&peer, put("x"), LONG)
        .await
        .expect_err("unknown to it");
    assert!(
        error.to_string().contains("not issued by an authority"),
        "{error}"
    );

    let other = server
        .replace_credentials(old.node(2))
        .expect_err("another node");
    assert!(
        other.to_string().contains("restart to change that"),
        "{other}"
    );
}
