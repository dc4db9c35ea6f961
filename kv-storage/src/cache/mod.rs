//! What is kept in memory of tables.

mod block;

pub(crate) use block::BlockCache;
