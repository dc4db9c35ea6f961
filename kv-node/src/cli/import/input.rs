//! Where an import reads from: a file, stdin, or a program of this system.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::process::{Command, Stdio};

use tokio::sync::mpsc;

use super::deb822::{KEY_FIELDS, Stanzas};
use super::jsonl::JsonLines;
use super::record::Item;
use crate::cli::args::{Format, ImportArgs, Source};
use crate::cli::failure::Failure;
use crate::cli::real;

/// Records that are read ahead of those under way.
const READ_AHEAD: usize = 256;
/// What is read from a file at once. Larger saves calls; a demo looks at how far the file is read.
const BUFFER_BYTES: usize = 64 << 10;

/// An opened input.
pub(super) struct Input {
    source: Box<dyn Read + Send>,
    /// Its length in bytes, where that is known.
    pub(super) length: Option<u64>,
    pub(super) format: Format,
    key_fields: Vec<String>,
}

impl Input {
    /// Opens what the arguments name.
    pub(super) fn open(args: &ImportArgs) -> Result<Self, Failure> {
        let (source, length): (Box<dyn Read + Send>, _) = match (&args.file, args.source) {
            (_, Some(Source::Apt)) => (Box::new(package_index()?), None),
            (Some(file), None) if file == "-" => (Box::new(io::stdin()), None),
            (Some(file), None) => {
                let unreadable = |error| {
                    let message = format!("cannot read {file}: {error}");
                    Failure::usage(message).hint("correct the path or its permissions")
                };
                let file = File::open(file).map_err(unreadable)?;
                let metadata = file.metadata().map_err(unreadable)?;
                let length = metadata.is_file().then_some(metadata.len());
                (Box::new(file), length)
            }
            (None, None) => return Err(Failure::usage("name a file, or - for stdin")),
        };
        let usual = match args.source {
            Some(Source::Apt) => Format::Deb822,
            None => Format::Jsonl,
        };
        let format = args.format.unwrap_or(usual);
        let mut key_fields = args.key_field.clone();
        if format == Format::Deb822 && key_fields.is_empty() {
            key_fields = KEY_FIELDS.map(str::to_owned).to_vec();
        }
        Ok(Self {
            source,
            length,
            format,
            key_fields,
        })
    }

    /// Reads records on a thread of its own, so that a slow pipe holds up no request.
    pub(super) fn read(self) -> mpsc::Receiver<Item> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let input = BufReader::with_capacity(BUFFER_BYTES, self.source);
        let mut items: Box<dyn Iterator<Item = Item> + Send> = match self.format {
            Format::Deb822 => Box::new(Stanzas::new(input, self.key_fields)),
            Format::Jsonl => Box::new(JsonLines::new(input, self.key_fields)),
        };
        // It ends with the input, or when the import no longer listens.
        real::on_a_thread(move || {
            let _ = items.try_for_each(|item| sender.blocking_send(item));
        });
        receiver
    }
}

/// The output of `apt-cache dumpavail`.
fn package_index() -> Result<impl Read + Send, Failure> {
    let mut command = Command::new("apt-cache");
    command
        .arg("dumpavail")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let child = command.spawn().map_err(|error| {
        let failure = Failure::usage(format!("cannot run apt-cache dumpavail: {error}"));
        failure.hint("this needs Debian or one of its kind; elsewhere, import a file of stanzas")
    })?;
    child
        .stdout
        .ok_or_else(|| Failure::other("apt-cache has no output"))
}

/// What to say when there was not a single record.
pub(super) fn nothing_to_import(format: Format) -> Option<Failure> {
    match format {
        Format::Jsonl => None,
        Format::Deb822 => Some(
            Failure::usage("the input holds no stanza: the package lists are missing or empty")
                .hint("run `apt-get update` (as root), then `kv import --source apt`"),
        ),
    }
}
