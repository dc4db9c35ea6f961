//! Picker tests.
