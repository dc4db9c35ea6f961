//! Tests of the whole engine through its public face.

mod basics;
mod corruption;
mod crash;
mod determinism;
mod faults;
mod model;
mod support;
