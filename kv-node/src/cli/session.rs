//! From options to a connected client.

use std::time::Duration;

use kv_client::bucket::Bucket;
use kv_client::ring::{Member, Topology};
use kv_client::{Client, NodeId, Options, Target};

use super::args::BucketArgs;
use super::failure::Failure;

/// Which cluster a command speaks to, and how.
#[derive(Debug)]
pub(super) struct Session {
    context: Option<String>,
    connect: Option<String>,
    via: Option<String>,
}

impl Session {
    pub(super) fn new(
        context: Option<String>,
        connect: Option<String>,
        via: Option<String>,
    ) -> Self {
        Self {
            context,
            connect,
            via,
        }
    }

    /// Connects as a client within a given time.
    pub(super) async fn client_within(&self, timeout: Duration) -> Result<Client, Failure> {
        Ok(Client::builder()
            .connect_timeout(timeout)
            .connect(self.target()?)
            .await?)
    }

    /// Connects as an admin.
    pub(super) async fn admin(&self) -> Result<Client, Failure> {
        Ok(Client::builder().connect(self.target()?.as_admin()).await?)
    }

    /// Connects, and opens a bucket.
    pub(super) async fn bucket(&self, args: &BucketArgs) -> Result<(Client, Bucket), Failure> {
        self.bucket_with(args, Options::default()).await
    }

    /// Connects with defaults of the command's own, and opens a bucket.
    pub(super) async fn bucket_with(
        &self,
        args: &BucketArgs,
        options: Options,
    ) -> Result<(Client, Bucket), Failure> {
        let client = Client::builder()
            .options(options)
            .connect(self.target()?)
            .await?;
        let bucket = client.bucket(args.bucket.as_str())?;
        let bucket = match &self.via {
            Some(name) => bucket.via(member(&client.topology(), name)?.node),
            None => bucket,
        };
        Ok((client, bucket))
    }

    /// SHA-256 of the certificates of the authorities that are believed: the last one issues.
    pub(super) fn authorities(&self) -> Result<Vec<[u8; 32]>, Failure> {
        Ok(self.target()?.authorities()?)
    }

    fn target(&self) -> Result<Target, Failure> {
        match (&self.connect, &self.context) {
            (Some(_), Some(_)) => Err(Failure::usage(
                "--connect and --context exclude each other; put the context into the URL: \
                 kv://host:port?context=NAME",
            )),
            (Some(url), None) => Ok(Target::try_from(url)?),
            (None, Some(name)) => Ok(Target::context(name)),
            (None, None) => Ok(Target::from_env()),
        }
    }
}

/// The members in the order of their names; their ids are random.
pub(super) fn by_name(topology: &Topology) -> Vec<&Member> {
    let mut members: Vec<&Member> = topology.members().iter().collect();
    members.sort_by_key(|member| natural(&member.name));
    members
}

/// `n10` after `n9`.
pub(super) fn natural(name: &str) -> (String, u64, String) {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (stem, number) = name.split_at(name.len() - digits);
    (
        stem.to_owned(),
        number.parse().unwrap_or(0),
        number.to_owned(),
    )
}

/// A member by its name, or by the beginning of its id.
pub(super) fn member<'a>(topology: &'a Topology, name: &str) -> Result<&'a Member, Failure> {
    let members = topology.members();
    let named = members.iter().find(|member| member.name == name);
    let by_id = || {
        let is_meant = |member: &&Member| member.node.to_string().starts_with(name);
        let mut meant = members.iter().filter(is_meant);
        meant
            .next()
            .filter(|_| name.len() >= 4 && meant.next().is_none())
    };
    named.or_else(by_id).ok_or_else(|| {
        let members = by_name(topology).into_iter();
        let names: Vec<&str> = members.map(|member| member.name.as_str()).collect();
        Failure::usage(format!(
            "there is no node `{name}`; the nodes are {}",
            names.join(", ")
        ))
    })
}

/// The names of nodes, for people.
pub(super) fn names(topology: &Topology, nodes: &[NodeId]) -> Vec<String> {
    let name = |node: &NodeId| {
        topology
            .member(*node)
            .map_or_else(|| node.short(), |member| member.name.clone())
    };
    nodes.iter().map(name).collect()
}
