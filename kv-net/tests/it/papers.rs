//! Certificates and their files: what is issued, what is loaded, what is refused with a next step.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::*;
use kv_net::{
    CertificateAuthority, CertificateError, Credentials, CredentialsError, Identity, KeyPair,
    PublicKey, Validity, write_private,
};
use kv_types::{ClusterId, NodeId};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn write(directory: &Path, name: &str, content: &str) {
    write_private(&directory.join(name), content).expect("a file");
}

/// The three files of a node in a directory of their own, and when its certificate ends.
fn files() -> (tempfile::TempDir, SystemTime) {
    let issuer = Issuer::new();
    let key = KeyPair::generate().expect("a key");
    let valid = Validity::starting(SystemTime::now(), DAY);
    let identity = Identity::node(CLUSTER, NodeId(5));
    let certificate = issuer
        .0
        .issue(&identity, &key.public_key(), valid)
        .expect("issued");
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "ca.pem", issuer.0.certificate_pem());
    write(directory.path(), "cert.pem", &certificate);
    write(directory.path(), "key.pem", &key.to_pem());
    (directory, valid.not_after)
}

#[test]
fn credentials_load_from_their_directory() {
    let (directory, not_after) = files();
    let credentials = Credentials::load(directory.path()).expect("loaded");
    assert_eq!(credentials.identity(), &Identity::node(CLUSTER, NodeId(5)));
    let difference = not_after
        .duration_since(credentials.not_after())
        .expect("whole seconds");
    assert!(difference < SECOND, "{difference:?}");
    let again = Credentials::load(directory.path()).expect("loaded");
    assert_eq!(credentials.fingerprint(), again.fingerprint());
}

#[test]
fn what_is_missing_or_damaged_is_named_with_the_next_step() {
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let (directory, _) = files();
        let path = directory.path().join(name);

        std::fs::remove_file(&path).expect("it was there");
        let error = Credentials::load(directory.path()).expect_err("missing");
        assert!(
            matches!(&error, CredentialsError::Unreadable { path: named, .. } if *named == path)
        );
        assert!(error.to_string().contains("kv-node cert"), "{error}");

        for content in [
            "",
            "no certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            write(directory.path(), name, content);
            let error = Credentials::load(directory.path()).expect_err("damaged");
            assert!(
                matches!(&error, CredentialsError::Malformed { path: named, .. } if *named == path),
                "{error}"
            );
            assert!(error.to_string().contains("kv-node cert"), "{error}");
        }
    }
}

#[test]
fn a_key_of_another_certificate_is_noticed() {
    let (directory, _) = files();
    write(
        directory.path(),
        "key.pem",
        &KeyPair::generate().expect("a key").to_pem(),
    );
    let error = Credentials::load(directory.path()).expect_err("another key");
    assert!(
        matches!(error, CredentialsError::OtherKey { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("key.pem is not the private key of"),
        "{error}"
    );
}

#[test]
fn a_certificate_of_no_identity_is_noticed() {
    let (directory, _) = files();
    let key = rcgen::KeyPair::generate().expect("a key");
    let cluster_uri = |path: &str| format!("kv://{CLUSTER}/{path}");
    for uris in [
        vec![],
        vec![cluster_uri("client/a"), cluster_uri("admin/a")],
        vec!["https://x".to_owned()],
    ] {
        let mut params = rcgen::CertificateParams::default();
        for uri in &uris {
            let uri = uri.as_str().try_into().expect("ascii");
            params.subject_alt_names.push(rcgen::SanType::URI(uri));
        }
        let certificate = params.self_signed(&key).expect("signed");
        write(directory.path(), "cert.pem", &certificate.pem());
        write(directory.path(), "key.pem", &key.serialize_pem());
        let error = Credentials::load(directory.path())
            .expect_err("no identity")
            .to_string();
        let expected = match uris.len() {
            1 => "is not an identity".to_owned(),
            count => format!("has {count} URI names, and must have exactly one"),
        };
        assert!(error.contains(&expected), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn private_files_are_their_owners_alone_also_when_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key.pem");
    std::fs::write(&path, "old").expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("changed");
    write_private(&path, "new").expect("written");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "new");
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        std::fs::read_dir(directory.path()).expect("listed").count(),
        1,
        "nothing else"
    );
}

#[test]
fn an_authority_survives_its_files_and_issues_what_the_first_one_believes() {
    let issuer = Issuer::new();
    let (certificate, key) = issuer.0.to_pem();
    let loaded = CertificateAuthority::load(&certificate, &key).expect("loaded");
    assert_eq!(loaded.cluster(), CLUSTER);
    assert_eq!(loaded.certificate_pem(), issuer.0.certificate_pem());
    let client = Issuer(loaded).client();
    assert_eq!(client.identity(), &Identity::client(CLUSTER, "tester"));
}

#[test]
fn an_authority_is_not_made_of_what_is_not_one() {
    let issuer = Issuer::new();
    let (certificate, key) = issuer.0.to_pem();
    let (_, other_key) = Issuer::new().0.to_pem();
    let leaf_key = KeyPair::generate().expect("a key");
    let valid = Validity::starting(SystemTime::now(), DAY);
    let identity = Identity::client(CLUSTER, "c");
    let leaf = issuer
        .0
        .issue(&identity, &leaf_key.public_key(), valid)
        .expect("issued");
    let load = |certificate: &str, key: &str| CertificateAuthority::load(certificate, key);
    assert!(matches!(
        load(&certificate, &other_key),
        Err(CertificateError::OtherKey)
    ));
    assert!(matches!(
        load(&leaf, &leaf_key.to_pem()),
        Err(CertificateError::NotAuthority)
    ));
    assert!(matches!(
        load("", &key),
        Err(CertificateError::Malformed { .. })
    ));
    assert!(matches!(
        load(&certificate, ""),
        Err(CertificateError::Crypto(_))
    ));
}

#[test]
fn an_authority_issues_only_what_is_its_to_issue() {
    let issuer = Issuer::new();
    let key = KeyPair::generate().expect("a key");
    let key = PublicKey::from_pem(key.public_key().to_pem()).expect("its own text");
    let now = SystemTime::now();
    let day = Validity::starting(now, DAY);
    let issue = |identity: Identity, valid| issuer.0.issue(&identity, &key, valid);

    let foreign = issue(Identity::node(ClusterId(9), NodeId(1)), day);
    assert!(matches!(
        foreign,
        Err(CertificateError::OtherCluster { .. })
    ));
    let unnamed = issue(Identity::client(CLUSTER, "a/b"), day);
    assert!(matches!(unnamed, Err(CertificateError::Identity(_))));
    let empty = issue(
        Identity::client(CLUSTER, "a"),
        Validity {
            not_before: now,
            not_after: now,
        },
    );
    assert!(matches!(empty, Err(CertificateError::EmptyValidity)));
    let too_long = issue(
        Identity::client(CLUSTER, "a"),
        Validity::starting(now, 36_500 * DAY),
    );
    assert!(matches!(too_long, Err(CertificateError::OutlivesAuthority)));

    let first = issue(Identity::client(CLUSTER, "a"), day).expect("issued");
    let renewed = issue(
        Identity::client(CLUSTER, "a"),
        Validity::starting(now + DAY, DAY),
    );
    assert_ne!(first, renewed.expect("issued"));
}
