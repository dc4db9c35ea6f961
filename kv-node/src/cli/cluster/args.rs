//! The commands of `kv cluster`.

use clap::{Args, Subcommand};

use super::new_member::NewMember;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ClusterCommand {
    /// Print what a new node needs to find this cluster and to believe it; `kv-node join` takes it
    Ticket,
    #[command(flatten)]
    Stage(Wish),
    /// Show what would follow from what is staged, and the id that commits it
    Plan(PlanArgs),
    /// Have the voters decide on a plan, by the id that `kv cluster plan` printed (needs an admin's certificate)
    Commit(CommitArgs),
    /// Show which partitions are on their way to other nodes, and what they wait for
    Progress(ProgressArgs),
    /// Forget what is staged; the cluster does not notice
    Clear,
    /// Call off all moves that have not finished; members that leave stay (needs an admin's certificate)
    Abort,
    /// Take off the marks of partitions that may have lost writes with nodes that were removed (needs an admin's certificate)
    ///
    /// `kv status` warns of them until then. What was lost does not come back by that: look first.
    ClearLoss {
        /// The last epoch whose losses you have looked at, as `kv status` names it
        #[arg(value_name = "EPOCH")]
        through: u64,
    },
    /// Take a removed node that owns nothing any more off the list of members (needs an admin's certificate)
    ///
    /// A node that leaves does this itself. One that was removed or replaced stays on the list until somebody does it, and
    /// deletions are remembered until then. Its id is refused for ever afterwards.
    Forget {
        /// The node, by its name or the beginning of its id
        node: String,
    },
}

/// What an operator wants of the members. It is staged on this machine only, until it is committed.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(in crate::cli) enum Wish {
    /// Stage that a node becomes a member
    Join {
        /// node=ID,name=n6,zone=c,address=HOST:PORT,fingerprint=HEX[,weight=1], as the new node prints it
        member: NewMember,
    },
    /// Stage that a node gives away all that it owns, and then goes
    Leave {
        /// The node, by its name or the beginning of its id
        node: String,
    },
    /// Stage that a node will never be back: nobody waits for it, and what only it had is lost
    Remove {
        /// The node, by its name or the beginning of its id
        node: String,
    },
    /// Stage that a node will never be back, and that a new one takes its place
    Replace {
        /// The node that is lost, by its name or the beginning of its id
        old: String,
        /// The new one, as for `join`; zone and weight are the old one's where they are left out
        member: NewMember,
    },
    /// Stage another weight of a node: its capacity relative to the others
    Weight {
        /// The node, by its name or the beginning of its id
        node: String,
        /// The weight; at least 1
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        weight: u32,
    },
    /// Stage another zone of a node
    Zone {
        /// The node, by its name or the beginning of its id
        node: String,
        /// The zone that it shares its failures with
        zone: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PlanArgs {
    /// How fast a node gains data, in MiB a second: what the estimated time is computed with; nodes gain no faster than their
    /// `storage.fetch_mib_s`, 64 if nothing else is configured
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rate: u32,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CommitArgs {
    /// The plan, as `kv cluster plan` printed it: 13-0123456789abcdef
    pub(super) plan: String,
    /// Go on although acknowledged writes may be lost with the nodes that are removed
    #[arg(long)]
    pub(super) accept_data_loss: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ProgressArgs {
    /// Look every second until nothing moves; off a terminal a line is printed where something is new
    #[arg(long)]
    pub(super) watch: bool,
}
