//! Lines of an input, with their numbers, and with a bound on their length.

use std::io::{self, BufRead, Read};

use super::record::MOST_BYTES;

/// Reads lines, line ends included.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, number: 0 }
    }

    /// The number of the line that was read last, counted from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Appends the next line; `false` at the end of the input.
    pub(super) fn read(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        let most = MOST_BYTES as u64 + 1;
        let length = (&mut self.input).take(most).read_until(b'\n', line)?;
        if length > MOST_BYTES {
            let problem = format!("line {} is longer than {MOST_BYTES} bytes", self.number + 1);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        self.number += u64::from(length > 0);
        Ok(length > 0)
    }
}
