//! Answers as frames, and the answers that the network layer itself gives.

use kv_types::{Epoch, Outcome};

use crate::codec::{self, Encoded};
use crate::error::ErrorCode;
use crate::frame::{Header, Kind, MAX_PAYLOAD_BYTES, VERSION};
use crate::message::{ErrorReplyV1, Response};

/// An answer, ready to be sent.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) header: Header,
    pub(crate) message: Encoded,
}

impl Reply {
    /// The answer to the request with this id; in place of one that no frame can hold, an error
    /// that says so.
    pub(crate) fn new(id: u32, response: &Response) -> Self {
        let mut message = codec::encode_response(response);
        let size = message.payload_bytes();
        if size > MAX_PAYLOAD_BYTES {
            let text = format!("the answer has {size} bytes, and the limit is {MAX_PAYLOAD_BYTES}");
            message = codec::encode_response(&error(ErrorCode::TooLarge, Outcome::Unknown, text));
        }
        let header = Header {
            len: u32::try_from(message.payload_bytes()).expect("within the limit"),
            kind: Kind::Response,
            version: VERSION,
            method: message.method,
            id,
            deadline_ms: 0,
        };
        Self { header, message }
    }
}

/// The answer to a request with which nothing was done.
pub(crate) fn refusal(code: ErrorCode, message: String) -> Response {
    error(code, Outcome::NotApplied, message)
}

/// An error that this layer gives, which knows of no topology epoch.
pub(crate) fn error(code: ErrorCode, outcome: Outcome, message: String) -> Response {
    let epoch = Epoch(0);
    Response::Error(ErrorReplyV1 {
        code,
        outcome,
        message,
        needed: 0,
        got: 0,
        epoch,
    })
}
