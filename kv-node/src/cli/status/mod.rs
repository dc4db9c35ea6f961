//! `kv status`: is the cluster well, what can it still lose, and who is doing what.
//!
//! All nodes are asked at once, each within half a second, so that it never takes longer than one.

pub(super) mod gather;
mod health;
mod json;
mod render;

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::args::StatusArgs;
use super::failure::Failure;
use super::output::Output;
use super::session::Session;
use gather::gather;
use health::Health;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Prints the state of the cluster; with `--check` only whether it is well.
pub(super) async fn run(
    session: &Session,
    output: &Output,
    args: StatusArgs,
) -> Result<(), Failure> {
    let client = session.client_within(CONNECT_TIMEOUT).await?;
    let seen = gather(&client).await;
    let health = Health::of(&seen);
    output.json_only(&json::status(&seen, &health))?;
    if args.check {
        output.line(render::verdict(&health))?;
        return if health.is_degraded() {
            Err(Failure::silent(9))
        } else {
            Ok(())
        };
    }
    for line in render::lines(output, &seen, &health) {
        output.line(line)?;
    }
    output.line("")?;
    output.line(render::nodes(output, &seen))?;
    if !output.is_json() {
        render::hints(&seen)
            .iter()
            .for_each(|hint| output.hint(hint));
    }
    Ok(())
}
