//! How the two sides of a connection introduce themselves: the first frame of every lane.

use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::frame::{Header, Kind, VERSION};
use crate::method::Class;
use crate::outbox::Outbox;

/// The longest hello in bytes.
pub(crate) const MAX_HELLO_BYTES: usize = 256;

/// How each side introduces itself on a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloV1 {
    /// A bit for every feature that the sender knows; both sides use what both know. None so far.
    pub features: u64,
}

impl HelloV1 {
    /// The hello of this build.
    pub(crate) const OURS: Self = Self { features: 0 };

    /// Puts it into the outbox of a fresh lane, which has room for it.
    pub(crate) fn send(self, class: Class, lane: &Outbox) {
        let body = codec::encode_whole(&self);
        let header = Header {
            len: u32::try_from(body.len()).expect("a hello is short"),
            kind: Kind::Hello,
            version: VERSION,
            method: class.number(),
            id: 0,
            deadline_ms: 0,
        };
        lane.try_push(header, &body, &[]);
    }

    /// Reads the payload of a hello.
    pub(crate) fn read(payload: &bytes::Bytes) -> Result<Self, DecodeError> {
        codec::whole(payload)
    }
}
