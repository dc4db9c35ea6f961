//! `kv cluster`: members that join, leave, are given up, and weigh otherwise.
//!
//! What an operator wants is staged on this machine, looked at as a plan, and committed by the plan's number. Whoever commits
//! computes the plan anew from the newest topology: if something else follows by now, nothing is done.
//!
//! | module | holds |
//! |---|---|
//! | `args`, `new_member` | the commands, and how a new node is named |
//! | `wish`, `staged` | what is staged, and its file |
//! | `plan`, `tolerance`, `predicted`, `warnings` | what would follow |
//! | `plan_text`, `plan_json` | the same for people and programs |
//! | `progress`, `progress_text`, `progress_json` | what is on its way |
//! | `ticket` | what a new node needs to find the cluster |

mod args;
mod new_member;
mod plan;
mod plan_json;
mod plan_text;
mod predicted;
mod progress;
mod progress_json;
mod progress_text;
mod staged;
mod ticket;
mod tolerance;
mod warnings;
mod wish;

#[cfg(test)]
mod tests;

use std::time::Duration;

use kv_client::cluster::{ChangeKind, MemberChangesV1, NewMemberV1};
use kv_client::ring::{Member, MemberChanges, MemberState};
use kv_client::{Client, Epoch, NodeId};
use serde::Serialize;

pub(super) use args::ClusterCommand;
use args::{CommitArgs, PlanArgs, ProgressArgs, Wish};
use plan::Plan;
use progress::Progress;
use staged::StagedFile;

use super::decide;
use super::failure::Failure;
use super::output::Output;
use super::real;
use super::session::{Session, member};
use super::status::gather::{Seen, gather};

/// How long connecting may take, and looking for a newer topology.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const NEWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long `--watch` rests.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct StagedJson<'a> {
    schema: u8,
    staged: &'a [String],
}

#[derive(Serialize)]
struct DecidedJson {
    schema: u8,
    epoch: u64,
}

/// Stages, plans, commits, or looks at what moves.
pub(super) async fn run(
    session: &Session,
    output: &Output,
    command: ClusterCommand,
) -> Result<(), Failure> {
    match command {
        ClusterCommand::Stage(wish) => stage(session, output, &wish).await,
        ClusterCommand::Plan(args) => plan(session, output, &args).await,
        ClusterCommand::Commit(args) => commit(session, output, &args).await,
        ClusterCommand::Progress(args) => progress(session, output, &args).await,
        ClusterCommand::Ticket => ticket::run(session, output).await,
        ClusterCommand::Clear => clear(session, output).await,
        ClusterCommand::Abort => abort(session, output).await,
        ClusterCommand::ClearLoss { through } => clear_loss(session, output, Epoch(through)).await,
        ClusterCommand::Forget { node } => forget(session, output, &node).await,
    }
}

async fn stage(session: &Session, output: &Output, wish: &Wish) -> Result<(), Failure> {
    let client = session.client_within(CONNECT_TIMEOUT).await?;
    let seen = look(&client).await;
    let topology = &seen.topology;
    let file = StagedFile::of(topology.cluster_id())?;
    let staged = wish::add(topology, &file.load()?, wish)?;
    file.save(&staged)?;
    show_staged(output, &wish::lines(topology, &staged))?;
    if !output.is_json() {
        output.hint("nothing is decided yet; `kv cluster plan` shows what would follow");
    }
    Ok(())
}

fn show_staged(output: &Output, staged: &[String]) -> Result<(), Failure> {
    for line in plan_text::staged(staged) {
        output.line(line)?;
    }
    output.json_only(&StagedJson { schema: 1, staged })?;
    Ok(())
}

async fn plan(session: &Session, output: &Output, args: &PlanArgs) -> Result<(), Failure> {
    let client = session.client_within(CONNECT_TIMEOUT).await?;
    let seen = look(&client).await;
    let (_, staged) = staged(&seen)?;
    let plan = Plan::of(&seen, &staged, args.rate)?;
    output.json_only(&plan_json::plan(&plan))?;
    output.line(plan_text::plan(output, &plan))?;
    Ok(())
}

async fn commit(session: &Session, output: &Output, args: &CommitArgs) -> Result<(), Failure> {
    let client = session.admin().await?;
    let seen = look(&client).await;
    let (file, staged) = staged(&seen)?;
    let plan = Plan::of(&seen, &staged, 1)?;
    plan.is_meant(&args.plan)?;
    if plan.may_lose > 0 && !args.accept_data_loss {
        let message = format!(
            "acknowledged writes of {} partitions may be lost with the nodes that are given up; nothing was done",
            plan.may_lose
        );
        return Err(Failure::precondition(message).hint(
            "bring one of them back, or repeat the command with --accept-data-loss if that is meant",
        ));
    }
    let change = ChangeKind::Members {
        changes: on_the_wire(&staged),
        plan: plan.id.0,
        accepts_loss: args.accept_data_loss,
    };
    let hint = "it may still come into force: `kv cluster progress` shows whether something moves, `kv cluster plan` what is \
                left to do; what was staged is kept";
    let epoch = decide::change(&client, reachable_first(&seen), change, hint).await?;
    file.clear()?;
    decided(output, epoch, &format!("committed at epoch {epoch}"))?;
    if !output.is_json() {
        output.hint("watch it: kv cluster progress --watch");
    }
    Ok(())
}

async fn progress(session: &Session, output: &Output, args: &ProgressArgs) -> Result<(), Failure> {
    let client = session.client_within(CONNECT_TIMEOUT).await?;
    let mut line = String::new();
    loop {
        let progress = Progress::of(&look(&client).await);
        let is_last = !args.watch || progress.is_settled();
        let before = std::mem::replace(&mut line, progress_text::line(&progress));
        if args.watch && output.is_terminal() {
            // Cursor home, clear the screen.
            output.line("\x1b[H\x1b[2J")?;
        }
        if is_last || output.is_terminal() {
            output.line(progress_text::progress(output, &progress))?;
        } else if line != before {
            output.line(&line)?;
        }
        if is_last || line != before {
            output.json_only(&progress_json::progress(&progress))?;
        }
        if is_last {
            return Ok(());
        }
        real::sleep(PERIOD).await;
    }
}

async fn clear(session: &Session, output: &Output) -> Result<(), Failure> {
    let client = session.client_within(CONNECT_TIMEOUT).await?;
    StagedFile::of(client.topology().cluster_id())?.clear()?;
    show_staged(output, &[])
}

async fn abort(session: &Session, output: &Output) -> Result<(), Failure> {
    let client = session.admin().await?;
    let seen = look(&client).await;
    if !Progress::of(&seen).can_abort() {
        output.line("there is nothing to call off; nothing was done")?;
        output.json_only(&DecidedJson {
            schema: 1,
            epoch: seen.topology.epoch().0,
        })?;
        return Ok(());
    }
    let hint = "it may still come into force; `kv cluster progress` shows whether anything moves";
    let through = reachable_first(&seen);
    let epoch = decide::change(&client, through, ChangeKind::AbortMoves, hint).await?;
    decided(
        output,
        epoch,
        &format!("all moves that had not finished are called off at epoch {epoch}"),
    )?;
    if !output.is_json() {
        output.hint("what drains still goes on, as do moves that take the place of a lost node: kv cluster progress");
    }
    Ok(())
}

async fn forget(session: &Session, output: &Output, name: &str) -> Result<(), Failure> {
    let client = session.admin().await?;
    let seen = look(&client).await;
    let member = member(&seen.topology, name)?;
    let node = member.node;
    if member.state == MemberState::Active {
        let name = &member.name;
        let failure =
            Failure::precondition(format!("{name} is a member that stays; nothing was done"));
        return Err(failure.hint(format!(
            "first stage that it goes: `kv cluster leave {name}`, or `kv cluster remove {name}` if it will never be back"
        )));
    }
    let through = reachable_first(&seen)
        .into_iter()
        .filter(|other| *other != node);
    let hint =
        "it may still come into force; `kv cluster progress` shows whether the node is a member";
    let change = ChangeKind::RemoveMember { node };
    let epoch = decide::change(&client, through, change, hint).await?;
    let done = format!(
        "{} is no member any more from epoch {epoch} on",
        member.name
    );
    decided(output, epoch, &done)
}

async fn clear_loss(session: &Session, output: &Output, through: Epoch) -> Result<(), Failure> {
    let client = session.admin().await?;
    let seen = look(&client).await;
    let marks = seen.topology.marked().values();
    let count = marks.filter(|since| **since <= through).count();
    if count == 0 {
        let message = format!("no partition is marked up to epoch {through}; nothing was done");
        let failure = Failure::precondition(message);
        return Err(failure.hint("`kv status` names the epochs of what is marked"));
    }
    let hint = "it may still come into force; `kv status` warns until then";
    let change = ChangeKind::ClearLoss { through };
    let epoch = decide::change(&client, reachable_first(&seen), change, hint).await?;
    let done = format!("the marks of {count} partitions are taken off at epoch {epoch}");
    decided(output, epoch, &done)
}

fn decided(output: &Output, epoch: Epoch, line: &str) -> Result<(), Failure> {
    output.line(line)?;
    output.json_only(&DecidedJson {
        schema: 1,
        epoch: epoch.0,
    })?;
    Ok(())
}

/// What all nodes say, by the newest topology that any of them knows.
async fn look(client: &Client) -> Seen {
    let seen = gather(client).await;
    let newest = seen.answers().map(|(_, status)| status.epoch).max();
    match newest.filter(|newest| *newest > seen.topology.epoch()) {
        None => seen,
        Some(newest) => {
            client.topology_since(newest, NEWER_TIMEOUT).await;
            gather(client).await
        }
    }
}

/// What is staged, which must be something.
fn staged(seen: &Seen) -> Result<(StagedFile, MemberChanges), Failure> {
    let file = StagedFile::of(seen.topology.cluster_id())?;
    let staged = file.load()?;
    if staged == MemberChanges::default() {
        return Err(Failure::usage("nothing is staged")
            .hint("say what is wanted: kv cluster join, leave, remove, replace, weight or zone"));
    }
    Ok((file, staged))
}

/// All members through which a change can be proposed, those that answer first.
fn reachable_first(seen: &Seen) -> Vec<NodeId> {
    let of = |is_live: bool| {
        let nodes = seen
            .nodes
            .iter()
            .filter(move |node| node.is_live() == is_live);
        nodes
            .filter(|node| node.member.state != MemberState::Lost)
            .map(|node| node.member.node)
    };
    of(true).chain(of(false)).collect()
}

fn on_the_wire(staged: &MemberChanges) -> MemberChangesV1 {
    let MemberChanges {
        joins,
        leaves,
        lost,
        weights,
        zones,
    } = staged.clone();
    let join = |member: Member| NewMemberV1 {
        node: member.node,
        name: member.name,
        zone: member.zone,
        weight: member.weight,
        address: member.address,
        fingerprint: member.fingerprint,
    };
    MemberChangesV1 {
        joins: joins.into_iter().map(join).collect(),
        leaves,
        lost,
        weights,
        zones,
    }
}
