//! Tests of the whole engine through its public face.

mod basics;
mod support;
