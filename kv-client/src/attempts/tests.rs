use kv_net::ErrorCode;
use kv_net::message::ErrorReplyV1;

use super::*;
use crate::failure::Cause;
use crate::transport::{SendError, SendFault};

const LIMITS: Limits = Limits {
    deadline: Duration::from_millis(1000),
    attempts: 4,
    patience: Duration::from_millis(300),
    writes: true,
};

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn refused(code: ErrorCode, outcome: Outcome) -> Failure {
    let epoch = Epoch(7);
    let reply = ErrorReplyV1 {
        code,
        outcome,
        message: String::new(),
        needed: 2,
        got: 1,
        epoch,
    };
    Failure {
        node: "n1".to_owned(),
        cause: Cause::Refused(reply),
    }
}

fn unreachable() -> Failure {
    let message = String::new();
    let (fault, outcome) = (SendFault::Unreachable, Outcome::NotApplied);
    Failure {
        node: "n1".to_owned(),
        cause: Cause::Send(SendError {
            fault,
            outcome,
            message,
        }),
    }
}

/// Sent once at 0 ms.
fn sent_once(limits: Limits) -> Attempts {
    let mut attempts = Attempts::new(limits, at(0));
    assert_eq!(attempts.next(at(0)), Step::Send);
    attempts.on_sent(at(0), None);
    attempts
}

#[test]
fn every_refusal_has_its_step() {
    use ErrorCode as E;
    let refresh = || Step::Refresh(Epoch(7));
    let elsewhere = || Step::Wait(at(10));
    for (code, step) in [
        (E::BadRequest, Step::GiveUp),
        (E::UnknownBucket, refresh()),
        (E::TooLarge, Step::GiveUp),
        (E::TooManySiblings, Step::GiveUp),
        (E::WrongContext, Step::GiveUp),
        (E::NotEnoughReplicas, elsewhere()),
        (E::Timeout, elsewhere()),
        (E::Overloaded, elsewhere()),
        (E::StaleEpoch, refresh()),
        (E::NotReplica, refresh()),
        (E::Denied, Step::GiveUp),
        (E::Storage, elsewhere()),
        (E::ShuttingDown, elsewhere()),
        (E::StaleWriteId, Step::GiveUp),
        (E::Unsupported, Step::GiveUp),
        (E::Internal, elsewhere()),
        (E::Incomplete, elsewhere()),
        (E::ClockSkew, elsewhere()),
    ] {
        let mut attempts = sent_once(LIMITS);
        // No jitter, no pause; a millisecond earlier the wait for it can be seen.
        attempts.on_failure(at(10), refused(code, Outcome::NotApplied), 0);
        assert_eq!(attempts.next(at(9)), step, "{code:?}");
    }
}

#[test]
fn nothing_is_sent_in_the_last_tenth_of_the_time() {
    for (answered_ms, goes_on) in [(900, true), (901, false)] {
        let mut attempts = sent_once(LIMITS);
        let late = refused(ErrorCode::Timeout, Outcome::NotApplied);
        attempts.on_failure(at(answered_ms), late, 0);
        let next = attempts.next(at(answered_ms));
        assert_eq!(next == Step::Send, goes_on, "{next:?}");
    }
}

#[test]
fn a_silent_attempt_is_joined_by_the_next_after_the_patience() {
    let mut attempts = sent_once(LIMITS);
    assert_eq!(
        attempts.next(at(1)),
        Step::Wait(at(250)),
        "a quarter of the time is the most"
    );
    assert_eq!(attempts.next(at(250)), Step::Send);
    attempts.on_sent(at(250), None);
    assert_eq!(attempts.next(at(251)), Step::Wait(at(500)));
    attempts.on_sent(at(500), None);
    attempts.on_sent(at(750), None);
    assert_eq!(
        attempts.next(at(751)),
        Step::Wait(at(1000)),
        "the last one has no patience"
    );
    assert_eq!(attempts.next(at(1000)), Step::GiveUp);
}

#[test]
fn long_deadlines_do_not_stretch_the_patience() {
    let attempts = sent_once(Limits {
        deadline: at(60_000),
        ..LIMITS
    });
    assert_eq!(attempts.next(at(1)), Step::Wait(at(300)));
}

#[test]
fn a_node_in_doubt_gets_less_patience() {
    let mut attempts = Attempts::new(LIMITS, at(0));
    attempts.on_sent(at(0), Some(at(100)));
    assert_eq!(attempts.next(at(1)), Step::Wait(at(100)));
}

#[test]
fn attempts_are_bounded() {
    let mut attempts = sent_once(LIMITS);
    for now in 1..4 {
        attempts.on_failure(at(now), unreachable(), 0);
        assert_eq!(attempts.next(at(now)), Step::Send);
        attempts.on_sent(at(now), None);
    }
    attempts.on_failure(at(5), unreachable(), 0);
    assert_eq!(attempts.next(at(5)), Step::GiveUp);
    assert_eq!(attempts.sent(), 4);
}

#[test]
fn refreshes_are_bounded_and_cost_no_attempt() {
    let mut attempts = sent_once(LIMITS);
    for _ in 0..2 {
        attempts.on_failure(
            at(1),
            refused(ErrorCode::StaleEpoch, Outcome::NotApplied),
            0,
        );
        assert_eq!(attempts.next(at(1)), Step::Refresh(Epoch(7)));
        attempts.on_refreshed();
        assert!(!attempts.next_is_retry(), "the node did nothing");
        assert_eq!(attempts.next(at(1)), Step::Send);
        attempts.on_sent(at(1), None);
    }
    assert_ne!(attempts.next(at(2)), Step::GiveUp);
    attempts.on_failure(
        at(2),
        refused(ErrorCode::StaleEpoch, Outcome::NotApplied),
        0,
    );
    assert_eq!(attempts.next(at(2)), Step::GiveUp);
}

#[test]
fn without_a_retry_the_first_attempt_keeps_all_the_time() {
    let mut attempts = sent_once(LIMITS);
    attempts.on_no_more();
    assert_eq!(attempts.next(at(250)), Step::Wait(at(1000)));
    attempts.on_failure(at(400), unreachable(), 0);
    attempts.on_no_more();
    assert_eq!(attempts.next(at(400)), Step::GiveUp);
}

#[test]
fn the_outcome_is_the_worst_of_all_attempts() {
    let unknown = || refused(ErrorCode::Timeout, Outcome::Unknown);
    let not_applied = || refused(ErrorCode::NotEnoughReplicas, Outcome::NotApplied);

    let mut attempts = sent_once(LIMITS);
    attempts.on_failure(at(1), not_applied(), 0);
    assert_eq!(attempts.outcome(), Outcome::NotApplied);
    attempts.on_sent(at(2), None);
    assert_eq!(attempts.outcome(), Outcome::Unknown, "one is awaited");
    attempts.on_failure(at(3), unknown(), 0);
    attempts.on_sent(at(4), None);
    attempts.on_failure(at(5), not_applied(), 0);
    assert_eq!(
        attempts.outcome(),
        Outcome::Unknown,
        "the last attempt does not excuse the others"
    );

    let mut read = sent_once(Limits {
        writes: false,
        ..LIMITS
    });
    assert_eq!(read.outcome(), Outcome::NotApplied);
    read.on_failure(at(1), unknown(), 0);
    assert_eq!(read.outcome(), Outcome::NotApplied, "reads change nothing");
}

#[test]
fn pauses_grow_to_a_hundred_milliseconds_with_full_jitter() {
    for (sent, longest) in [(1, 5), (2, 20), (3, 80), (4, 100), (40, 100)] {
        assert_eq!(pause(sent, 0), Duration::ZERO);
        let longest = at(longest);
        let drawn = pause(sent, u64::MAX);
        assert!(
            drawn < longest && drawn > longest * 9 / 10,
            "{sent}: {drawn:?}"
        );
    }
}

#[test]
fn a_failure_does_not_delay_an_attempt_that_was_planned() {
    let mut attempts = sent_once(LIMITS);
    attempts.on_sent(at(250), None);
    attempts.on_failure(at(495), unreachable(), u64::MAX);
    assert_eq!(attempts.next(at(496)), Step::Wait(at(500)));
}
