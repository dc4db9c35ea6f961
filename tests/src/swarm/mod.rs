//! Many different bad days, each drawn from a seed: whole nodes, clients at work, faults, then healing and judgement.
//!
//! | module | holds |
//! |---|---|
//! | [`scenario`] | everything about one day, as a seed draws it or a file holds it |
//! | [`fault`] | what may go wrong, and when |
//! | [`nemesis`] | makes it go wrong |
//! | [`planted`] | bugs that are there on purpose, to show that days find them |
//! | [`witness`] | looks at the disks of all nodes when somebody is told something |
//! | [`work`] | what clients do, and write down |
//! | [`members`] | members that come and go meanwhile |
//! | `operator` | changes of the topology meanwhile, and what became of them |
//! | [`healing`] | afterwards: everything is mended, serves, and becomes equal |
//! | `settling` | long afterwards: what nodes say became of writes must be true |
//! | [`run`](mod@run) | one day from beginning to end, and what was found |
//! | [`shrink`] | makes a failing day smaller |
//! | [`summary`] | many days together |

pub mod fault;
pub mod healing;
pub mod members;
pub mod nemesis;
mod operator;
pub mod planted;
pub mod run;
pub mod scenario;
mod settling;
pub mod shrink;
pub mod summary;
pub mod witness;
pub mod work;

pub use run::{Report, run};
pub use scenario::Scenario;
pub use summary::Summary;
