//! `--explain`: why a request was answered as it was, on stderr.

use kv_client::explain::{
    ExplainedError, Explanation, MemberState, NotShown, Preferred, ReadSource, Step, StepKind,
};
use kv_client::ring::Topology;
use kv_client::{Dot, Error, Level, NodeId};
use serde::Serialize;

use super::output::Output;
use super::session::names;
use super::value;

#[derive(Serialize)]
struct ExplainJson {
    schema: u8,
    explain: ExplanationJson,
}

#[derive(Serialize)]
struct ExplanationJson {
    epoch: u64,
    partition: u16,
    partition_epoch: u64,
    coordinator: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded_by: Option<String>,
    level: &'static str,
    needed: u8,
    preference: Vec<PreferredJson>,
    steps: Vec<StepJson>,
}

#[derive(Serialize)]
struct PreferredJson {
    node: String,
    owner: bool,
    state: &'static str,
    slow: bool,
}

#[derive(Serialize)]
struct StepJson {
    at_us: u64,
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_in_for: Option<String>,
    what: String,
}

/// Prints an explanation: for people on stderr, or as one line of JSON.
fn show(output: &Output, topology: &Topology, explanation: &Explanation) -> std::io::Result<()> {
    let told = Told { topology };
    output.note(told.heading(explanation));
    for preferred in &explanation.preference {
        let role = if preferred.is_owner {
            "owner"
        } else {
            "may stand in"
        };
        let slow = if preferred.is_slow {
            ", keeps requests waiting"
        } else {
            ""
        };
        let (node, state) = (told.name(preferred.node), state(preferred));
        output.note(format!("  {node:<12}  {role:<12}  {state}{slow}"));
    }
    for step in &explanation.steps {
        let at = format!("{:.1} ms", step.at_us as f64 / 1_000.0);
        let (who, what) = (told.who(step), told.what(step));
        output.note(format!("  {at:>9}  {who}  {what}"));
    }
    output.json_only(&ExplainJson {
        schema: 1,
        explain: told.json(explanation),
    })
}

/// Prints what explains a request that may have failed, and goes on with what was answered.
///
/// # Errors
/// The request's.
pub(super) fn shown<T>(
    output: &Output,
    topology: &Topology,
    explained: Result<(T, Explanation), ExplainedError>,
) -> Result<Result<T, Error>, std::io::Error> {
    let (answer, explanation) = match explained {
        Ok((answer, explanation)) => (Ok(answer), Some(Box::new(explanation))),
        Err(failed) => (Err(failed.error), failed.explanation),
    };
    if let Some(explanation) = explanation {
        show(output, topology, &explanation)?;
    }
    Ok(answer)
}

/// Explanations with the names of a topology.
struct Told<'a> {
    topology: &'a Topology,
}

impl Told<'_> {
    fn name(&self, node: NodeId) -> String {
        names(self.topology, &[node]).concat()
    }

    fn heading(&self, explanation: &Explanation) -> String {
        let forwarded = explanation.forwarded_by;
        let forwarded = forwarded.map(|by| format!(", passed on by {}", self.name(by)));
        format!(
            "explain  epoch {}  partition {} (as of epoch {})  level {}, {} needed  coordinated by {}{}",
            explanation.epoch,
            explanation.partition,
            explanation.partition_epoch,
            level(explanation.level),
            explanation.needed,
            self.name(explanation.coordinator),
            forwarded.unwrap_or_default(),
        )
    }

    fn who(&self, step: &Step) -> String {
        match step.stands_in_for {
            None => self.name(step.node),
            Some(owner) => format!("{} for {}", self.name(step.node), self.name(owner)),
        }
    }

    fn what(&self, step: &Step) -> String {
        match &step.what {
            StepKind::AskedForObject => "is asked for the object".to_owned(),
            StepKind::AskedForDigest => "is asked for its digest".to_owned(),
            StepKind::Object {
                dots,
                bytes,
                source,
            } => {
                let (dots, size) = (self.dots(dots), value::size(u64::from(*bytes)));
                format!("holds {dots}, {size}{}", from(*source))
            }
            StepKind::Digest { digest, source } => {
                format!("holds an object with digest {digest:016x}{}", from(*source))
            }
            StepKind::Nothing => "holds nothing".to_owned(),
            StepKind::Superseded { dots } => {
                format!(
                    "of this {} is superseded by what others hold",
                    self.dots(dots)
                )
            }
            StepKind::Coordinated { dot } => {
                let dot: Vec<Dot> = dot.iter().copied().collect();
                format!("puts the write in order as {}", self.dots(&dot))
            }
            StepKind::Sent => "is sent the object".to_owned(),
            StepKind::Repaired => "is sent the object, as its own is older".to_owned(),
            StepKind::Acknowledged => "has it on its disk".to_owned(),
            StepKind::Taken => "has it in memory".to_owned(),
            StepKind::Silent => "has not answered by then".to_owned(),
            StepKind::Failed { why } => format!("fails: {why}"),
            StepKind::Replaced { dots } => format!("has replaced {} by it", self.dots(dots)),
            StepKind::NotShown {
                dots,
                why: NotShown::Expired,
            } => format!("does not show {}: it has expired", self.dots(dots)),
            StepKind::NotShown {
                dots,
                why: NotShown::EarlierWrite,
            } => format!(
                "does not show {}: of concurrent writes the last one wins in this bucket",
                self.dots(dots)
            ),
        }
    }

    fn dots(&self, dots: &[Dot]) -> String {
        let dots = dots.iter().map(|dot| value::dot(*dot, self.topology));
        let dots: Vec<String> = dots.collect();
        if dots.is_empty() {
            return "no value".to_owned();
        }
        dots.join(" ")
    }

    fn json(&self, explanation: &Explanation) -> ExplanationJson {
        let preferred = |preferred: &Preferred| PreferredJson {
            node: self.name(preferred.node),
            owner: preferred.is_owner,
            state: state(preferred),
            slow: preferred.is_slow,
        };
        let step = |step: &Step| StepJson {
            at_us: step.at_us,
            node: self.name(step.node),
            stands_in_for: step.stands_in_for.map(|owner| self.name(owner)),
            what: self.what(step),
        };
        ExplanationJson {
            epoch: explanation.epoch.0,
            partition: explanation.partition,
            partition_epoch: explanation.partition_epoch.0,
            coordinator: self.name(explanation.coordinator),
            forwarded_by: explanation.forwarded_by.map(|by| self.name(by)),
            level: level(explanation.level),
            needed: explanation.needed,
            preference: explanation.preference.iter().map(preferred).collect(),
            steps: explanation.steps.iter().map(step).collect(),
        }
    }
}

fn from(source: Option<ReadSource>) -> &'static str {
    match source {
        None => "",
        Some(ReadSource::RowCache) => ", from the row cache",
        Some(ReadSource::Memtable) => ", from the memtable",
        Some(ReadSource::BlockCache) => ", from a cached block",
        Some(ReadSource::Disk) => ", from the disk",
    }
}

fn state(preferred: &Preferred) -> &'static str {
    match preferred.state {
        MemberState::Up => "up",
        MemberState::Suspect => "suspect",
        MemberState::Down => "down",
        MemberState::Left => "left",
        MemberState::Unknown => "not heard of",
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Weak => "weak",
        Level::Quorum => "quorum",
        Level::All => "all",
        Level::Eventual => "eventual",
        Level::Usual => "usual",
    }
}
