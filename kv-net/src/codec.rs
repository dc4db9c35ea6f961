//! Messages as bytes: a body in postcard, then, for some messages, a tail of raw bytes.
//!
//! Decoding never panics, never reserves more than it has bytes for, and refuses bytes that are
//! left over where a message has no tail.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::message::{
    ErrorReplyV1, ExplainedGetV1, GetReplyV1, ListReplyV1, ObjectsV1, PutV1, ReplicaListReplyV1,
    Request, Response, SiblingHeadV1, WriteKind,
};
use crate::method::Method;

/// The method's number of a response that is an error.
pub const ERROR_NUMBER: u16 = 0;

/// A message in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The method's number.
    pub method: u16,
    /// The body.
    pub body: Vec<u8>,
    /// What stands after it, uncopied.
    pub tail: Bytes,
}

impl Encoded {
    /// Bytes of body and tail together.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.body.len() + self.tail.len()
    }

    fn new<T: Serialize>(method: u16, body: &T, tail: Bytes) -> Self {
        let body = postcard::to_stdvec(body)
            .expect("writing to memory succeeds, and messages hold nothing that has no form");
        Self { method, body, tail }
    }
}

/// Writes a request.
#[must_use]
pub fn encode_request(request: &Request) -> Encoded {
    let number = request.method().number();
    let none = Bytes::new;
    match request {
        Request::Get(body) => Encoded::new(number, body, none()),
        Request::Put(body, tail) => Encoded::new(number, body, tail.clone()),
        Request::List(body) => Encoded::new(number, body, none()),
        Request::Topology(body) => Encoded::new(number, body, none()),
        Request::Status(body) => Encoded::new(number, body, none()),
        Request::Metrics(body) => Encoded::new(number, body, none()),
        Request::ReplicaWrite(body, tail) => Encoded::new(number, body, tail.clone()),
        Request::ReplicaRead(body) => Encoded::new(number, body, none()),
        Request::ReplicaList(body) => Encoded::new(number, body, none()),
        Request::Change(body) => Encoded::new(number, body, none()),
        Request::Hints(body) => Encoded::new(number, body, none()),
        Request::ExplainGet(body) => Encoded::new(number, body, none()),
        Request::ExplainPut(body, tail) => Encoded::new(number, body, tail.clone()),
        Request::Fate(body) => Encoded::new(number, body, none()),
        Request::Compare(body) => Encoded::new(number, body, none()),
        Request::Vote(body, tail) => Encoded::new(number, body, tail.clone()),
        Request::StandInWrite(body, tail) => Encoded::new(number, body, tail.clone()),
        Request::StandInRead(body) => Encoded::new(number, body, none()),
        Request::Repair(body, tail) => Encoded::new(number, body, tail.clone()),
        Request::TreeRoots(body) => Encoded::new(number, body, none()),
        Request::TreeNodes(body) => Encoded::new(number, body, none()),
        Request::TreeKeys(body) => Encoded::new(number, body, none()),
        Request::TreeObjects(body) => Encoded::new(number, body, none()),
        Request::Floor(body) => Encoded::new(number, body, none()),
        Request::Watermark(body) => Encoded::new(number, body, none()),
        Request::Remember(body) => Encoded::new(number, body, none()),
        Request::Watermarks(body) => Encoded::new(number, body, none()),
    }
}

/// Reads a request.
///
/// # Errors
/// [`DecodeError`] when the bytes are not such a request; the sender is answered that its request is
/// bad, and the connection goes on.
pub fn decode_request(method: Method, payload: &Bytes) -> Result<Request, DecodeError> {
    Ok(match method {
        Method::Get => Request::Get(whole(payload)?),
        Method::Put => {
            let (body, tail) = put(payload)?;
            Request::Put(body, tail)
        }
        Method::ExplainGet => Request::ExplainGet(whole(payload)?),
        Method::ExplainPut => {
            let (body, tail) = put(payload)?;
            Request::ExplainPut(body, tail)
        }
        Method::Fate => Request::Fate(whole(payload)?),
        Method::Compare => Request::Compare(whole(payload)?),
        Method::List => Request::List(whole(payload)?),
        Method::Topology => Request::Topology(whole(payload)?),
        Method::Status => Request::Status(whole(payload)?),
        Method::Metrics => Request::Metrics(whole(payload)?),
        Method::ReplicaWrite => {
            let (body, tail) = with_tail(payload)?;
            Request::ReplicaWrite(body, tail)
        }
        Method::ReplicaRead => Request::ReplicaRead(whole(payload)?),
        Method::ReplicaList => Request::ReplicaList(whole(payload)?),
        Method::Change => Request::Change(whole(payload)?),
        Method::Hints => Request::Hints(whole(payload)?),
        Method::Vote => {
            let (body, tail) = with_tail(payload)?;
            Request::Vote(body, tail)
        }
        Method::StandInWrite => {
            let (body, tail) = with_tail(payload)?;
            Request::StandInWrite(body, tail)
        }
        Method::StandInRead => Request::StandInRead(whole(payload)?),
        Method::Repair => {
            let (body, tail) = with_tail(payload)?;
            Request::Repair(body, tail)
        }
        Method::TreeRoots => Request::TreeRoots(whole(payload)?),
        Method::TreeNodes => Request::TreeNodes(whole(payload)?),
        Method::TreeKeys => Request::TreeKeys(whole(payload)?),
        Method::TreeObjects => Request::TreeObjects(whole(payload)?),
        Method::Floor => Request::Floor(whole(payload)?),
        Method::Watermark => Request::Watermark(whole(payload)?),
        Method::Remember => Request::Remember(whole(payload)?),
        Method::Watermarks => Request::Watermarks(whole(payload)?),
    })
}

/// Reads a write; a delete has no value.
fn put(payload: &Bytes) -> Result<(PutV1, Bytes), DecodeError> {
    let (body, tail) = with_tail::<PutV1>(payload)?;
    if body.kind == WriteKind::Delete && !tail.is_empty() {
        return Err(DecodeError::TailLength {
            have: tail.len(),
            want: 0,
        });
    }
    Ok((body, tail))
}

/// Writes a response.
#[must_use]
pub fn encode_response(response: &Response) -> Encoded {
    let number = response.method().map_or(ERROR_NUMBER, Method::number);
    let none = Bytes::new;
    match response {
        Response::Get(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::Put(body) => Encoded::new(number, body, none()),
        Response::List(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::Topology(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::Status(body) => Encoded::new(number, body, none()),
        Response::Metrics(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::ReplicaWrite(body) => Encoded::new(number, body, none()),
        Response::ReplicaRead(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::ReplicaList(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::Change(body) => Encoded::new(number, body, none()),
        Response::Hints(body) => Encoded::new(number, body, none()),
        Response::ExplainGet(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::ExplainPut(body) => Encoded::new(number, body, none()),
        Response::Fate(body) => Encoded::new(number, body, none()),
        Response::Compare(body) => Encoded::new(number, body, none()),
        Response::Vote(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::StandInWrite(body) => Encoded::new(number, body, none()),
        Response::StandInRead(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::Repair(body) => Encoded::new(number, body, none()),
        Response::TreeRoots(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::TreeNodes(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::TreeKeys(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::TreeObjects(body, tail) => Encoded::new(number, body, tail.clone()),
        Response::Floor(body) => Encoded::new(number, body, none()),
        Response::Watermark(body) => Encoded::new(number, body, none()),
        Response::Remember(body) => Encoded::new(number, body, none()),
        Response::Watermarks(body) => Encoded::new(number, body, none()),
        Response::Error(body) => Encoded::new(number, body, none()),
    }
}

/// Reads a response to a request of `method`; `number` is the method's number in its frame.
///
/// # Errors
/// [`DecodeError`] when the bytes are not such a response. What became of the request is unknown.
pub fn decode_response(
    method: Method,
    number: u16,
    payload: &Bytes,
) -> Result<Response, DecodeError> {
    if number == ERROR_NUMBER {
        return Ok(Response::Error(whole::<ErrorReplyV1>(payload)?));
    }
    if number != method.number() {
        return Err(DecodeError::OtherMethod {
            asked: method,
            answered: number,
        });
    }
    Ok(match method {
        Method::Get => {
            let (body, tail) = with_tail::<GetReplyV1>(payload)?;
            check_values(&body.siblings, &tail)?;
            Response::Get(body, tail)
        }
        Method::Put => Response::Put(whole(payload)?),
        Method::List => {
            let (body, tail) = with_tail::<ListReplyV1>(payload)?;
            check_values(body.entries.iter().flat_map(|entry| &entry.siblings), &tail)?;
            Response::List(body, tail)
        }
        Method::Topology => {
            let (body, tail) = with_tail(payload)?;
            Response::Topology(body, tail)
        }
        Method::Status => Response::Status(whole(payload)?),
        Method::Metrics => {
            let (body, tail) = with_tail(payload)?;
            Response::Metrics(body, tail)
        }
        Method::Change => Response::Change(whole(payload)?),
        Method::Hints => Response::Hints(whole(payload)?),
        Method::ExplainGet => {
            let (body, tail) = with_tail::<ExplainedGetV1>(payload)?;
            let siblings = body.answer.iter().flat_map(|reply| &reply.siblings);
            check_values(siblings, &tail)?;
            Response::ExplainGet(body, tail)
        }
        Method::ExplainPut => Response::ExplainPut(whole(payload)?),
        Method::Fate => Response::Fate(whole(payload)?),
        Method::Compare => Response::Compare(whole(payload)?),
        Method::Vote => {
            let (body, tail) = with_tail(payload)?;
            Response::Vote(body, tail)
        }
        Method::StandInWrite => Response::StandInWrite(whole(payload)?),
        Method::StandInRead => {
            let (body, tail) = with_tail(payload)?;
            Response::StandInRead(body, tail)
        }
        Method::Repair => Response::Repair(whole(payload)?),
        Method::TreeRoots => {
            let (body, tail) = with_tail(payload)?;
            Response::TreeRoots(body, tail)
        }
        Method::TreeNodes => {
            let (body, tail) = with_tail(payload)?;
            Response::TreeNodes(body, tail)
        }
        Method::TreeKeys => {
            let (body, tail) = with_tail(payload)?;
            Response::TreeKeys(body, tail)
        }
        Method::TreeObjects => {
            let (body, tail) = with_tail::<ObjectsV1>(payload)?;
            check_sum(body.entries.iter().map(|entry| entry.object_bytes), &tail)?;
            Response::TreeObjects(body, tail)
        }
        Method::Floor => Response::Floor(whole(payload)?),
        Method::Watermark => Response::Watermark(whole(payload)?),
        Method::Remember => Response::Remember(whole(payload)?),
        Method::Watermarks => Response::Watermarks(whole(payload)?),
        Method::ReplicaWrite => Response::ReplicaWrite(whole(payload)?),
        Method::ReplicaRead => {
            let (body, tail) = with_tail(payload)?;
            Response::ReplicaRead(body, tail)
        }
        Method::ReplicaList => {
            let (body, tail) = with_tail::<ReplicaListReplyV1>(payload)?;
            let lengths = body.page.entries.iter();
            check_sum(lengths.map(|entry| entry.object_bytes), &tail)?;
            Response::ReplicaList(body, tail)
        }
    })
}

/// Writes a structure that is a whole payload.
pub(crate) fn encode_whole<T: Serialize>(body: &T) -> Vec<u8> {
    Encoded::new(0, body, Bytes::new()).body
}

/// Reads a body that must end with the payload.
pub(crate) fn whole<T: DeserializeOwned>(payload: &Bytes) -> Result<T, DecodeError> {
    let (body, rest) = postcard::take_from_bytes(payload)?;
    if rest.is_empty() {
        Ok(body)
    } else {
        Err(DecodeError::LeftOver { bytes: rest.len() })
    }
}

/// Reads a body; what stands after it is the tail.
fn with_tail<T: DeserializeOwned>(payload: &Bytes) -> Result<(T, Bytes), DecodeError> {
    let (body, rest) = postcard::take_from_bytes(payload)?;
    let tail = payload.slice(payload.len() - rest.len()..);
    Ok((body, tail))
}

/// Values stand in the tail all or, where only headers were asked for, not at all.
fn check_values<'a>(
    siblings: impl IntoIterator<Item = &'a SiblingHeadV1>,
    tail: &Bytes,
) -> Result<(), DecodeError> {
    if tail.is_empty() {
        return Ok(());
    }
    check_sum(
        siblings.into_iter().map(|sibling| sibling.value_bytes),
        tail,
    )
}

fn check_sum(lengths: impl Iterator<Item = u32>, tail: &Bytes) -> Result<(), DecodeError> {
    let want: u64 = lengths.map(u64::from).sum();
    if want == tail.len() as u64 {
        Ok(())
    } else {
        Err(DecodeError::TailLength {
            have: tail.len(),
            want,
        })
    }
}

/// Why bytes are not the message they should be. Nothing was done with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is damaged, or of another version.
    #[error("the body is malformed: {0}")]
    Body(#[from] postcard::Error),
    /// Bytes are left over after a message that has no tail.
    #[error("{bytes} bytes are left over after the body")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
    /// The tail is not as long as the body says.
    #[error("the tail has {have} bytes, and the body says {want}")]
    TailLength {
        /// The bytes there are.
        have: usize,
        /// The bytes there should be.
        want: u64,
    },
    /// The response is to another method.
    #[error("the answer is to method {answered}, and {asked:?} was asked")]
    OtherMethod {
        /// What was asked.
        asked: Method,
        /// The number in the answer.
        answered: u16,
    },
}

#[cfg(test)]
mod tests;
