//! What is staged: changes of members that an operator wants and has not committed.
//!
//! They are kept on the operator's machine, in `<config dir>/kv/staged/<cluster id>.toml`, beside the contexts; the cluster knows
//! nothing of them. One operator at a time stages on a machine.

use std::fs;
use std::io;
use std::path::PathBuf;

use kv_client::ring::{Member, MemberChanges, MemberState};
use kv_client::{ClusterId, ContextDirectory, NodeId};
use serde::{Deserialize, Serialize};

use super::new_member::fingerprint;
use crate::cli::failure::Failure;

/// The file of one cluster.
#[derive(Debug)]
pub(super) struct StagedFile {
    path: PathBuf,
}

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    schema: u8,
    leaves: Vec<String>,
    lost: Vec<String>,
    joins: Vec<JoinFields>,
    weights: Vec<WeightFields>,
    zones: Vec<ZoneFields>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinFields {
    node: String,
    name: String,
    zone: String,
    weight: u32,
    address: String,
    fingerprint: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightFields {
    node: String,
    weight: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneFields {
    node: String,
    zone: String,
}

impl StagedFile {
    /// That of a cluster, in the directory of this user.
    pub(super) fn of(cluster: ClusterId) -> Result<Self, Failure> {
        Ok(Self::within(&ContextDirectory::of_user()?, cluster))
    }

    pub(super) fn within(directory: &ContextDirectory, cluster: ClusterId) -> Self {
        let path = directory
            .root()
            .join("staged")
            .join(format!("{cluster}.toml"));
        Self { path }
    }

    /// What is staged; nothing where there is no file.
    pub(super) fn load(&self) -> Result<MemberChanges, Failure> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(MemberChanges::default());
            }
            Err(error) => return Err(self.unusable(&error)),
        };
        let fields: Fields = toml::from_str(&text).map_err(|error| self.unusable(&error))?;
        if fields.schema != 1 {
            let schema = fields.schema;
            return Err(self.unusable(&format!("schema {schema} is of another version of kv")));
        }
        fields.changes().map_err(|reason| self.unusable(&reason))
    }

    /// Replaces what is staged.
    pub(super) fn save(&self, staged: &MemberChanges) -> Result<(), Failure> {
        let text = toml::to_string(&Fields::of(staged)).map_err(|error| self.unusable(&error))?;
        let partial = self.path.with_extension("partial");
        let folder = self.path.parent().map_or(Ok(()), fs::create_dir_all);
        folder
            .and_then(|()| fs::write(&partial, text))
            .and_then(|()| fs::rename(&partial, &self.path))
            .map_err(|error| {
                let path = self.path.display();
                Failure::other(format!("cannot write {path}: {error}; nothing was staged"))
            })
    }

    /// Forgets what is staged.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.path.display();
                let failure = Failure::other(format!("cannot remove {path}: {error}"));
                Err(failure.hint("it is still staged; remove the file"))
            }
            _ => Ok(()),
        }
    }

    fn unusable(&self, reason: &dyn ToString) -> Failure {
        let (path, reason) = (self.path.display(), reason.to_string());
        let failure = Failure::other(format!("cannot use {path}: {}", reason.trim_end()));
        failure.hint("`kv cluster clear` removes it, with what was staged")
    }
}

impl Fields {
    fn of(staged: &MemberChanges) -> Self {
        let ids = |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect();
        let join = |member: &Member| JoinFields {
            node: member.node.to_string(),
            name: member.name.clone(),
            zone: member.zone.clone(),
            weight: member.weight,
            address: member.address.clone(),
            fingerprint: member
                .fingerprint
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        };
        let weight = |(node, weight): &(NodeId, u32)| WeightFields {
            node: node.to_string(),
            weight: *weight,
        };
        let zone = |(node, zone): &(NodeId, String)| ZoneFields {
            node: node.to_string(),
            zone: zone.clone(),
        };
        Self {
            schema: 1,
            leaves: ids(&staged.leaves),
            lost: ids(&staged.lost),
            joins: staged.joins.iter().map(join).collect(),
            weights: staged.weights.iter().map(weight).collect(),
            zones: staged.zones.iter().map(zone).collect(),
        }
    }

    fn changes(self) -> Result<MemberChanges, String> {
        let ids = |ids: Vec<String>| ids.iter().map(|text| id(text)).collect::<Result<_, _>>();
        let join = |join: JoinFields| {
            Ok::<_, String>(Member {
                node: id(&join.node)?,
                fingerprint: fingerprint(&join.fingerprint)
                    .ok_or_else(|| format!("`{}` is no fingerprint", join.fingerprint))?,
                name: join.name,
                zone: join.zone,
                weight: join.weight,
                address: join.address,
                state: MemberState::Active,
            })
        };
        let weights = self.weights.into_iter();
        let zones = self.zones.into_iter();
        Ok(MemberChanges {
            joins: self.joins.into_iter().map(join).collect::<Result<_, _>>()?,
            leaves: ids(self.leaves)?,
            lost: ids(self.lost)?,
            weights: weights
                .map(|fields| Ok((id(&fields.node)?, fields.weight)))
                .collect::<Result<_, String>>()?,
            zones: zones
                .map(|fields| Ok((id(&fields.node)?, fields.zone)))
                .collect::<Result<_, String>>()?,
        })
    }
}

fn id(text: &str) -> Result<NodeId, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no id of a node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> MemberChanges {
        MemberChanges {
            joins: vec![Member {
                node: NodeId(6),
                name: "n6".to_owned(),
                zone: "c".to_owned(),
                weight: 2,
                address: "127.0.0.1:7406".to_owned(),
                fingerprint: [0xa1; 32],
                state: MemberState::Active,
            }],
            leaves: vec![NodeId(1)],
            lost: vec![NodeId(u128::MAX)],
            weights: vec![(NodeId(2), 4)],
            zones: vec![(NodeId(3), "b \"x\"".to_owned())],
        }
    }

    #[test]
    fn what_is_staged_is_there_until_it_is_cleared_and_for_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let directory = ContextDirectory::at(dir.path());
        let file = StagedFile::within(&directory, ClusterId(7));
        assert_eq!(file.load().unwrap(), MemberChanges::default());
        file.save(&changes()).unwrap();
        assert_eq!(file.load().unwrap(), changes());
        let other = StagedFile::within(&directory, ClusterId(8));
        assert_eq!(other.load().unwrap(), MemberChanges::default());
        file.clear().unwrap();
        file.clear().unwrap();
        assert_eq!(file.load().unwrap(), MemberChanges::default());
    }

    #[test]
    fn a_file_that_is_not_understood_is_named_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = StagedFile::within(&ContextDirectory::at(dir.path()), ClusterId(7));
        file.save(&changes()).unwrap();
        let text = fs::read_to_string(&file.path).unwrap();
        for (from, to, expected) in [
            ("schema = 1", "schema = 2", "schema 2 is of another version"),
            ("weights", "heights", "unknown field `heights`"),
            ("a1a1", "x1a1", "is no fingerprint"),
        ] {
            fs::write(&file.path, text.replace(from, to)).unwrap();
            let failure = file.load().unwrap_err();
            assert!(
                failure.message().contains(expected),
                "{}",
                failure.message()
            );
        }
    }
}
