//! Replies of nodes as values of this crate: the tail is cut into the siblings' values.

use bytes::Bytes;
use kv_net::Response;
use kv_net::message::{ListEntryV1, SiblingHeadV1};
use kv_types::Key;

use crate::explain::Explanation;
use crate::read::{Read, Sibling};

/// A page of one partition.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<(Key, Read<Bytes>)>,
    pub(crate) next_after: Option<Key>,
}

/// The siblings of a reply to a get, and why it is so if that was asked. Where only headers were asked for, values are
/// empty.
pub(crate) fn get(
    response: Response,
    headers_only: bool,
) -> Result<(Read<Bytes>, Option<Explanation>), String> {
    let (reply, explanation, mut tail) = match response {
        Response::Get(reply, tail) => (reply, None, tail),
        Response::ExplainGet(told, tail) => {
            let reply = told.answer.map_err(|error| error.message)?;
            (reply, Some(told.explanation), tail)
        }
        _ => return Err("it is no reply to a get".to_owned()),
    };
    let siblings = cut(reply.siblings, &mut tail, headers_only)?;
    finish(&tail)?;
    let (context, answered, needed) = (reply.context, reply.answered, reply.needed);
    let read = Read {
        siblings,
        context,
        answered,
        needed,
    };
    Ok((read, explanation))
}

/// The page of a reply to a list. Where only headers were asked for, values are empty.
pub(crate) fn page(response: Response, headers_only: bool) -> Result<Page, String> {
    let Response::List(reply, mut tail) = response else {
        return Err("it is no reply to a list".to_owned());
    };
    let entry = |ListEntryV1 {
                     key,
                     siblings,
                     context,
                 }| {
        let siblings = cut(siblings, &mut tail, headers_only)?;
        Ok((
            key,
            Read {
                siblings,
                context,
                answered: Vec::new(),
                needed: 0,
            },
        ))
    };
    let entries = reply
        .entries
        .into_iter()
        .map(entry)
        .collect::<Result<Vec<_>, String>>()?;
    finish(&tail)?;
    Ok(Page {
        entries,
        next_after: reply.next_after,
    })
}

/// Gives every live sibling its bytes, in order. Siblings come out in the order of their dots.
fn cut(
    heads: Vec<SiblingHeadV1>,
    tail: &mut Bytes,
    headers_only: bool,
) -> Result<Vec<Sibling<Bytes>>, String> {
    let mut siblings = Vec::with_capacity(heads.len());
    for head in heads {
        let size = if head.tombstone || headers_only {
            0
        } else {
            head.value_bytes as usize
        };
        if size > tail.len() {
            return Err(format!(
                "a value has {size} bytes and {} are left",
                tail.len()
            ));
        }
        let bytes = tail.split_to(size);
        siblings.push(Sibling {
            value: (!head.tombstone).then_some(bytes),
            dot: head.dot,
            write_id: head.write_id,
            size_bytes: head.value_bytes,
            hash: head.value_hash,
            expires_ms: head.expires_ms,
        });
    }
    siblings.sort_by_key(|sibling| (sibling.dot.hlc, sibling.dot.actor));
    Ok(siblings)
}

fn finish(tail: &Bytes) -> Result<(), String> {
    if tail.is_empty() {
        return Ok(());
    }
    Err(format!("{} bytes are left over", tail.len()))
}
