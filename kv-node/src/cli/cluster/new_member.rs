//! A node that is to become a member, as text: `node=ID,name=n6,zone=c,address=127.0.0.1:7406,fingerprint=HEX,weight=1`.

use std::collections::BTreeMap;
use std::str::FromStr;

use kv_client::NodeId;
use kv_client::ring::{Member, MemberState};

use crate::setup::wording::{check_address, check_name};

/// The fields, in the order in which they are asked for.
const FIELDS: [&str; 6] = ["node", "name", "zone", "address", "fingerprint", "weight"];

/// What a new node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct NewMember {
    node: NodeId,
    name: String,
    zone: Option<String>,
    weight: Option<u32>,
    address: String,
    fingerprint: [u8; 32],
}

impl NewMember {
    /// The member that it becomes, in a zone and with a weight of its own or those given; `None` without any zone.
    pub(super) fn member(&self, zone: Option<&str>, weight: u32) -> Option<Member> {
        Some(Member {
            node: self.node,
            name: self.name.clone(),
            zone: self.zone.clone().or(zone.map(str::to_owned))?,
            weight: self.weight.unwrap_or(weight),
            address: self.address.clone(),
            fingerprint: self.fingerprint,
            state: MemberState::Active,
        })
    }
}

impl FromStr for NewMember {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = fields(text)?;
        let mut needed = |field: &str| {
            let value = fields.remove(field);
            value.ok_or_else(|| {
                format!("`{field}=` is missing; take the text as the node printed it")
            })
        };
        let node = needed("node")?;
        let (name, address) = (needed("name")?, needed("address")?);
        check_name("name", name).map_err(|error| error.to_string())?;
        check_address(address).map_err(|error| error.to_string())?;
        if let Some(zone) = fields.get("zone") {
            check_name("zone", zone).map_err(|error| error.to_string())?;
        }
        let print = fields.remove("fingerprint").ok_or_else(|| {
            "`fingerprint=` is missing; take the text as the node printed it".to_owned()
        })?;
        let weight = fields.remove("weight").map(|weight| match weight.parse() {
            Ok(weight) if weight > 0 => Ok(weight),
            _ => Err(format!(
                "`{weight}` is no weight; it is a whole number from 1 on"
            )),
        });
        Ok(Self {
            node: node.parse().map_err(|_| {
                format!("`{node}` is no id of a node; it has 32 hexadecimal digits")
            })?,
            name: name.to_owned(),
            zone: fields.remove("zone").map(str::to_owned),
            weight: weight.transpose()?,
            address: address.to_owned(),
            fingerprint: fingerprint(print).ok_or_else(|| {
                format!("`{print}` is no fingerprint; it has 64 hexadecimal digits")
            })?,
        })
    }
}

fn fields(text: &str) -> Result<BTreeMap<&str, &str>, String> {
    let mut fields = BTreeMap::new();
    for part in text.split(',') {
        let (field, value) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` is not FIELD=VALUE"))?;
        if !FIELDS.contains(&field) {
            let known = FIELDS.join(", ");
            return Err(format!(
                "there is no field `{field}`; the fields are {known}"
            ));
        }
        if fields.insert(field, value).is_some() {
            return Err(format!("`{field}=` is given twice"));
        }
    }
    Ok(fields)
}

/// The bytes of 64 hexadecimal digits.
pub(super) fn fingerprint(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rest: &str) -> String {
        let (node, print) = ("0f".repeat(16), "a1".repeat(32));
        format!("node={node},name=n6,address=[::1]:7406,fingerprint={print}{rest}")
    }

    #[test]
    fn what_a_node_prints_is_a_member() {
        let new: NewMember = text(",zone=c,weight=3").parse().unwrap();
        let member = new.member(None, 1).unwrap();
        assert_eq!(
            member.node,
            NodeId(0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f)
        );
        assert_eq!((member.name.as_str(), member.zone.as_str()), ("n6", "c"));
        assert_eq!((member.weight, member.address.as_str()), (3, "[::1]:7406"));
        assert_eq!(member.fingerprint, [0xa1; 32]);
    }

    #[test]
    fn zone_and_weight_are_those_given_where_it_names_none() {
        let new: NewMember = text("").parse().unwrap();
        assert_eq!(new.member(None, 1), None);
        let member = new.member(Some("b"), 2).unwrap();
        assert_eq!((member.zone.as_str(), member.weight), ("b", 2));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            (text(",weight=0"), "`0` is no weight"),
            (text(",zone"), "`zone` is not FIELD=VALUE"),
            (
                text(",rack=1"),
                "there is no field `rack`; the fields are node,",
            ),
            (text(",name=n7"), "`name=` is given twice"),
            ("name=n6".to_owned(), "`node=` is missing"),
            (text("").replace("0f0f", "0f"), "is no id of a node"),
            (text("").replace("a1a1", "g1a1"), "is no fingerprint"),
            (text("").replace("a1a1", "é1a"), "is no fingerprint"),
        ] {
            let error = text.parse::<NewMember>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
