//! Damaged bytes for everything that decodes: what peers send, what lies on disks, what users write.
//!
//! | module | holds |
//! |---|---|
//! | [`messages`] | real messages, and who decodes them |
//! | [`store`] | real stores, whose files are damaged and read |
//! | [`checksums`] | what each checksum of a store's files covers, so that damage can be made to pass it |
//! | [`text`] | configurations |
//! | [`mutation`] | how bytes are damaged |
//!
//! The tests in `tests/decoders` draw damage from a seed; the targets in `fuzz/` let libFuzzer look for it.

pub mod checksums;
pub mod messages;
pub mod mutation;
pub mod store;
pub mod text;
