//! Whole-system tests of kv: the simulator, and what scenarios share.
//!
//! [`sim`] runs whole nodes, unchanged, in one process and one thread: virtual time, a simulated
//! network and simulated disks, all from one seed. A seed reproduces a run bit for bit. [`processes`]
//! runs real `kv-node` processes, and [`namespaces`] gives each of them a network of its own.

pub mod check;
pub mod damage;
pub mod history;
pub mod namespaces;
pub mod processes;
pub mod sim;
pub mod swarm;
