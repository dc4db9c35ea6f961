use super::*;

const ALL_CODES: [ErrorCode; 18] = [
    ErrorCode::BadRequest,
    ErrorCode::UnknownBucket,
    ErrorCode::TooLarge,
    ErrorCode::TooManySiblings,
    ErrorCode::WrongContext,
    ErrorCode::NotEnoughReplicas,
    ErrorCode::Timeout,
    ErrorCode::Overloaded,
    ErrorCode::StaleEpoch,
    ErrorCode::NotReplica,
    ErrorCode::Denied,
    ErrorCode::Storage,
    ErrorCode::ShuttingDown,
    ErrorCode::StaleWriteId,
    ErrorCode::Unsupported,
    ErrorCode::Internal,
    ErrorCode::Incomplete,
    ErrorCode::ClockSkew,
];

fn examples(outcome: Outcome) -> Vec<Error> {
    let detail = || "n2: why".to_owned();
    let bucket = BucketName::new("carts").expect("a good name");
    let mut errors = vec![
        Error::Key(KeyError::Empty),
        Error::BucketName(BucketName::new("A").unwrap_err()),
        Error::Quorum(QuorumError::Read { r: 4, n: 3 }),
        Error::WrongContext {
            outcome,
            detail: detail(),
        },
        Error::TooLarge {
            outcome,
            detail: detail(),
        },
        Error::UnknownBucket {
            bucket,
            epoch: Epoch(3),
            outcome,
        },
        Error::TooManySiblings {
            outcome,
            detail: detail(),
        },
        Error::Unavailable {
            needed: 2,
            got: 1,
            outcome,
            detail: detail(),
        },
        Error::Timeout {
            deadline: Duration::from_secs(1),
            attempts: 3,
            outcome,
            detail: detail(),
        },
        Error::Overloaded {
            outcome,
            detail: detail(),
        },
        Error::Unreachable {
            attempts: 2,
            outcome,
            detail: detail(),
        },
        Error::Denied {
            outcome,
            detail: detail(),
        },
        Error::Conflict {
            siblings: 2,
            context: Context::from_bytes("c".into()),
        },
        Error::decoding("why"),
        Error::Connect(ConnectError::NoContext {
            reason: "why".to_owned(),
        }),
    ];
    errors.extend(ALL_CODES.map(|code| Error::Refused {
        code,
        outcome,
        detail: detail(),
    }));
    errors
}

#[test]
fn every_error_has_a_listed_code_and_an_exit_code() {
    let table = include_str!("../error.rs");
    for error in examples(Outcome::NotApplied) {
        let listed = format!("`{}`", error.code());
        assert!(table.contains(&listed), "{listed} is not in the table");
        assert!(
            matches!(error.exit_code(), 1 | 2 | 4 | 6 | 7 | 8),
            "{error:?}"
        );
        assert_eq!(error.outcome(), Outcome::NotApplied);
    }
}

#[test]
fn every_message_says_what_became_of_the_write() {
    for error in examples(Outcome::Unknown) {
        let text = error.to_string();
        assert!(!text.ends_with('.'), "{text}");
        if error.outcome() == Outcome::Unknown {
            assert!(text.contains("may or may not have been applied"), "{text}");
        }
    }
    for error in examples(Outcome::NotApplied) {
        assert!(!error.to_string().contains("may or may not"), "{error}");
    }
}

#[test]
fn messages_carry_numbers_and_the_next_step() {
    let outcome = Outcome::NotApplied;
    let error = Error::Unavailable {
        needed: 2,
        got: 1,
        outcome,
        detail: "n2: why".to_owned(),
    };
    assert_eq!(
        error.to_string(),
        "too few replicas: needed 2, got 1 (n2: why); nothing was changed; wait for nodes to come \
         back, or ask for fewer replicas"
    );
}
