//! `kv-node cluster recover`: a cluster goes on that has lost a majority of its voters.

use anyhow::Result;
use kv_node::setup::recovery;
use kv_ring::Topology;
use serde_json::json;

use super::RecoverArgs;

/// Says what would be done, or does it.
///
/// # Errors
/// As [`recovery::plan`] and [`recovery::install`].
#[expect(clippy::print_stdout, reason = "the result of a command")]
pub(super) fn run(args: &RecoverArgs) -> Result<()> {
    let recovery = recovery::plan(&args.data, &args.lost, &args.without_vote)?;
    if args.accept_loss {
        recovery::install(&args.data, &recovery)?;
    }
    let (present, next) = (&recovery.present, &recovery.next);
    let voters = voters(next);
    if args.json {
        let object = json!({
            "schema": 1,
            "done": args.accept_loss,
            "epoch_before": present.epoch().0,
            "epoch": next.epoch().0,
            "voters": voters,
        });
        println!("{object}");
        return Ok(());
    }
    println!(
        "newest topology here: epoch {}; see that no other node that is left has a newer one",
        present.epoch()
    );
    let voters = voters.join(" ");
    match args.accept_loss {
        false => println!(
            "would begin a new generation with epoch {}, in which {voters} votes; nothing was changed; with --accept-loss it is done, and what the lost have decided that nobody else knows is dropped",
            next.epoch()
        ),
        true => {
            let lost = match args.lost.is_empty() {
                true => String::new(),
                false => format!(
                    "; never start {} again; then kv cluster replace or remove for each of them",
                    args.lost.join(" ")
                ),
            };
            println!(
                "a new generation begins with epoch {}, in which {voters} votes\nnext: start this node, then the others that are left{lost}",
                next.epoch(),
            );
        }
    }
    Ok(())
}

/// The names of those that vote.
fn voters(topology: &Topology) -> Vec<&str> {
    let names = topology.voters().iter();
    names
        .filter_map(|node| Some(topology.member(*node)?.name.as_str()))
        .collect()
}
