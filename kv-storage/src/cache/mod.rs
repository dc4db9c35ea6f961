//! What is kept in memory of tables: decoded blocks, and single rows.

mod block;
mod budget;
mod climber;
mod counter;
mod row;
mod row_set;

pub(crate) use block::{BlockCache, BlockSlots};
pub(crate) use budget::Budget;
pub(crate) use climber::Uses;
pub(crate) use counter::Counter;
pub(crate) use row::{ReadMark, RowCache};
