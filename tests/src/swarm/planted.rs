//! The bugs that are planted in the code under test, to show that simulated days find them.
//!
//! A build with `--cfg kv_planted` holds them; `KV_PLANTED` names the one that is awake.

/// All of them. Each is caught within the days of one ordinary test run.
pub const PLANTED: &[&str] = &[
    "skip the sync of the log",
    "skip the sync of the directory",
    "ignore a block's checksum",
    "acknowledge before the log is synced",
    "let a replica acknowledge before its log is synced",
    "acknowledge before the quorum",
    "count the coordinator twice",
    "let a read ask one replica too few",
    "say \"not applied\" after sending",
    "forget the clock's mark",
    "extend intervals over a crash",
    "drop a sibling when merging",
    "keep superseded siblings when merging",
    "apply a repeated write anew",
    "let a write supersede what its writer never saw",
    "let a blind write miss what readers see",
    "believe any dialler",
    "hand a late response to another call",
    "say \"not applied\" when a connection is lost",
    "repeat a request that may have arrived",
    "vote before the vote is synced",
    "propose over what a voter has accepted",
    "forget what is kept for others",
    "swallow a failed write-back",
    "repair nothing that a comparison finds",
    "leave writes out of the tree",
    "answer a session with something older",
    "forget deletions by their age",
    "raise a watermark without comparing",
    "let incomplete copies answer",
    "complete copies after one comparison",
];
