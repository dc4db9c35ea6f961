//! Cuts damage out of tables, once the caller has provided for the loss.
//!
//! A damaged table answers with errors for the keys that its damage touches, and compaction leaves it alone. Whoever can
//! fetch those keys again from elsewhere gives up what is unreadable: the table is written anew without it, in the same
//! place. Of the keys that are lost, older values may come to light, or none.

use super::flush::{NewFiles, OpenTables, open_tables, take_table};
use super::inner::Inner;
use super::state::State;
use crate::compaction::{Choice, Finished, Place, Reason, TableSink};
use crate::env::JobClass;
use crate::error::Error;
use crate::files::Numbered;
use crate::key::Kind;
use crate::range::KeyRange;
use crate::table::{Damaged, Table, TableBuilder, TableSpec};
use crate::version::{Edit, NewTable, Placed, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, PoisonError};

/// What was cut out.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CutReport {
    /// Tables that were written anew, or dropped as a whole.
    pub tables: u64,
    /// Keys of which the newest value may be lost, and an older one or none be in its place.
    pub lost: Vec<KeyRange>,
    /// Damage that was left, because it touches other keys than those that may be lost.
    pub left: Vec<Error>,
    /// Tables that compactions are reading: try again later.
    pub busy: u64,
    /// Failures of the file system: those tables are as they were.
    pub failed: Vec<Error>,
}

type Input = Arc<Placed<Arc<Table>>>;
type Done = Box<dyn FnOnce(Result<CutReport, Error>) + Send>;

pub(super) fn begin(inner: &Arc<Inner>, may_be_lost: Vec<KeyRange>, done: Done) {
    let weak = Arc::downgrade(inner);
    let job = move || {
        // The store may have been dropped since.
        if let Some(inner) = weak.upgrade() {
            done(run(&inner, &may_be_lost));
        }
    };
    inner.env.jobs.submit(JobClass::Compaction, Box::new(job));
}

fn run(inner: &Arc<Inner>, may_be_lost: &[KeyRange]) -> Result<CutReport, Error> {
    let mut report = CutReport::default();
    for input in suspects(inner) {
        let Some(choice) = reserve(inner, &input)? else {
            report.busy += 1;
            continue;
        };
        let outcome = cut(inner, &input, choice.to, may_be_lost, &mut report);
        {
            let mut state = inner.state();
            state.roster.pause();
            state.roster.leave(&choice);
        }
        inner.note_progress();
        drop(input);
        inner.files.empty_trash();
        inner.schedule();
        match outcome {
            Ok(()) => {}
            Err(error) if error.is_corrupt() => {
                inner.report_damage(&error);
                report.left.push(error);
            }
            // The disk may give the others.
            Err(error) => report.failed.push(error),
        }
    }
    Ok(report)
}

/// Tables in which damage was met, and those that point into blob files in which it was.
fn suspects(inner: &Inner) -> Vec<Input> {
    let told = inner.told.lock().unwrap_or_else(PoisonError::into_inner);
    let names = told
        .iter()
        .filter_map(|(path, _)| path.file_name()?.to_str());
    let files: BTreeSet<Numbered> = names.filter_map(Numbered::parse).collect();
    drop(told);
    let is_suspect = |table: &&Input| {
        let summary = &table.summary;
        let mut references = summary.references.iter();
        files.contains(&Numbered::Table(summary.file))
            || references.any(|reference| files.contains(&Numbered::Blob(reference.file)))
    };
    let version = Arc::clone(&inner.state().version);
    version.tables().filter(is_suspect).cloned().collect()
}

/// Keeps compactions away from a table; `None` while one reads it.
fn reserve(inner: &Inner, input: &Input) -> Result<Option<Arc<Choice>>, Error> {
    let mut state = inner.state();
    if let Some(halted) = state.halted() {
        return Err(halted);
    }
    let Some(place) = place_of(&state.version, input) else {
        return Ok(None);
    };
    let choice = Choice::of_one(&input.summary, place, Reason::Damage);
    if state.roster.collides(&choice) {
        return Ok(None);
    }
    let bytes = state.version.size_bytes();
    Ok(Some(state.roster.enter(choice, bytes)))
}

fn place_of(version: &Version, input: &Input) -> Option<Place> {
    let mut runs = version.placed_runs();
    let holds = |tables: &[Input]| tables.iter().any(|table| Arc::ptr_eq(table, input));
    runs.find(|(_, run)| holds(&run.tables))
        .map(|(place, _)| place)
}

/// Writes a table anew without what cannot be read of it.
fn cut(
    inner: &Arc<Inner>,
    input: &Input,
    place: Place,
    may_be_lost: &[KeyRange],
    report: &mut CutReport,
) -> Result<(), Error> {
    let spec = if place == Place::BOTTOM {
        TableSpec::bottom(&inner.options)
    } else {
        TableSpec::upper(&inner.options)
    };
    let mut files = NewFiles::new(inner, spec);
    let copied = copy(inner, input, may_be_lost, &mut files);
    let (mut tables, lost) = copied.inspect_err(|_| files.discard())?;
    // From here on the files are part of the store, perhaps also after a failure: the edit may be in the manifest.
    files.keep(&tables);
    inner.install(|state| replace(state, input, place, &mut tables), |_, _| {})?;
    // Readers have the new view, so nothing lost gets into the row cache from here on.
    inner.files.rows.start_epoch();
    input.reader.mark_obsolete();
    report.tables += 1;
    report.lost.extend(lost);
    Ok(())
}

fn copy(
    inner: &Arc<Inner>,
    input: &Input,
    may_be_lost: &[KeyRange],
    files: &mut NewFiles,
) -> Result<(OpenTables, Vec<KeyRange>), Error> {
    let again;
    let reader = match input.reader.damaged() {
        // What could not be read when it was opened may be readable now.
        Damaged::Outline(_) => {
            let path = Numbered::Table(input.summary.file).path(&inner.dir);
            again = Table::open_damaged(&inner.files, &path, &input.summary)?;
            &again
        }
        Damaged::Nothing | Damaged::Filter(_) => &*input.reader,
    };
    let mut lost = Vec::new();
    let mut give_up = |error: Error| match &error {
        Error::Corrupt { range, .. } if may_be_lost.iter().any(|allowed| allowed.covers(range)) => {
            lost.push(range.clone());
            Ok(())
        }
        _ => Err(error),
    };
    let mut builder: Option<TableBuilder> = None;
    for number in 0..reader.blocks() {
        let versions = match reader.read_block(number) {
            Ok(versions) => versions,
            Err(error) => {
                give_up(error)?;
                continue;
            }
        };
        for version in versions {
            if version.kind == Kind::Blob
                && let Err(error) = reader.resolve(&mut version.clone())
            {
                give_up(error)?;
                continue;
            }
            let builder = match &mut builder {
                Some(builder) => builder,
                None => builder.insert(files.create()?),
            };
            builder.push(version.version(), version.kind, &version.value)?;
        }
    }
    let ranges = (**reader.ranges()).clone();
    if builder.is_none() && !ranges.is_empty() {
        builder = Some(files.create()?);
    }
    let Some(mut builder) = builder else {
        return Ok((BTreeMap::new(), lost));
    };
    builder.set_ranges(ranges);
    let mut table = builder.finish()?;
    table.expires = input.summary.expires;
    table.covered_bytes = input.summary.covered_bytes;
    let blobs = Vec::new();
    let tables = open_tables(inner, vec![Finished { table, blobs }])?;
    Ok((tables, lost))
}

fn replace(
    state: &State,
    input: &Input,
    place: Place,
    tables: &mut OpenTables,
) -> (Edit, Arc<Version>) {
    let added = tables.values().map(|opened| NewTable {
        level: place.level,
        run: place.run,
        table: opened.table.clone(),
    });
    let edit = Edit {
        added: added.collect(),
        removed: vec![input.summary.file],
        ..Edit::default()
    };
    let Ok(version) = state
        .version
        .apply(&edit, |new| Ok::<_, Infallible>(take_table(tables, new)));
    (edit, Arc::new(version))
}
