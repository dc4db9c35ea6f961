//! A document with a part that a program writes, between two markers.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- engine tables: begin; `cargo xtask bench engine` writes what follows -->";
const END: &str = "<!-- engine tables: end -->";

/// What kind of run tables are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Judges goals.
    Full,
    /// Shows that everything works.
    Quick,
}

/// The document.
#[derive(Debug)]
pub(super) struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }

    /// Which kind of tables it holds, if any.
    pub(super) fn kind(&self) -> Option<Kind> {
        [Kind::Full, Kind::Quick]
            .into_iter()
            .find(|kind| self.text.contains(kind.marker()))
    }

    /// Puts tables in the place of those it holds.
    ///
    /// # Errors
    /// A marker is missing.
    pub(super) fn put(&mut self, kind: Kind, tables: &str) -> Result<()> {
        let missing = |marker| format!("{} has no line {marker}", self.path.display());
        let (before, rest) = self
            .text
            .split_once(BEGIN)
            .with_context(|| missing(BEGIN))?;
        let (_, after) = rest.split_once(END).with_context(|| missing(END))?;
        self.text = format!(
            "{before}{BEGIN}\n{}\n\n{tables}\n{END}{after}",
            kind.marker()
        );
        Ok(())
    }

    /// Writes it back.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn save(&self) -> Result<()> {
        fs::write(&self.path, &self.text)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Kind {
    fn marker(self) -> &'static str {
        match self {
            Self::Full => "<!-- of a full run -->",
            Self::Quick => "<!-- of a quick run -->",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document {
            path: PathBuf::from("performance.md"),
            text: text.to_owned(),
        }
    }

    #[test]
    fn tables_are_replaced_and_the_rest_is_kept() {
        let mut document = document(&format!("intro\n{BEGIN}\nold\n{END}\nrest\n"));
        assert_eq!(document.kind(), None);
        document.put(Kind::Quick, "| quick |\n").unwrap();
        assert_eq!(document.kind(), Some(Kind::Quick));
        document.put(Kind::Full, "| full |\n").unwrap();
        assert_eq!(document.kind(), Some(Kind::Full));
        let expected =
            format!("intro\n{BEGIN}\n<!-- of a full run -->\n\n| full |\n\n{END}\nrest\n");
        assert_eq!(document.text, expected);
    }

    #[test]
    fn missing_markers_are_named() {
        let error = document("intro\n").put(Kind::Full, "").unwrap_err();
        assert!(error.to_string().contains(BEGIN), "{error}");
        let error = document(BEGIN).put(Kind::Full, "").unwrap_err();
        assert!(error.to_string().contains(END), "{error}");
    }
}
