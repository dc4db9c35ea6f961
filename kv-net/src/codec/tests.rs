//! Tests of the message encodings.
