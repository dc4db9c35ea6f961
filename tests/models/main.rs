//! Every interleaving of small worlds, in which the crate's own functions decide: what they allow must be safe, and each weaker
//! rule must be caught.

mod consensus;
mod epochs;
mod handover;
mod watermark;
