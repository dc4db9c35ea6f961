//! Small documents as one word that people copy from one machine to another.

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A document that is handed on as one word.
pub trait Token: Serialize + DeserializeOwned {
    /// What its word begins with: what it is, and the version of its form.
    const PREFIX: &'static str;
    /// What it is, for people.
    const NAME: &'static str;

    /// The word: prefix, then postcard and CRC32C in base64 for URLs.
    ///
    /// # Errors
    /// When it cannot be encoded.
    fn to_word(&self) -> Result<String> {
        let mut bytes = postcard::to_stdvec(self)?;
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        Ok(format!(
            "{}{}",
            Self::PREFIX,
            BASE64URL_NOPAD.encode(&bytes)
        ))
    }

    /// The document of a word.
    ///
    /// # Errors
    /// When the word is not one of this kind, or was not copied whole.
    fn from_word(word: &str) -> Result<Self> {
        let (name, prefix) = (Self::NAME, Self::PREFIX);
        let text = word.trim().strip_prefix(prefix);
        let text =
            text.with_context(|| format!("this is not {name}: one begins with `{prefix}`"))?;
        let damaged = || format!("{name} was not copied whole; copy all of it, in one line");
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
        let bytes = bytes.ok().with_context(damaged)?;
        let (body, check) = bytes.split_last_chunk().with_context(damaged)?;
        ensure!(
            crc32c::crc32c(body) == u32::from_le_bytes(*check),
            damaged()
        );
        postcard::from_bytes(body).ok().with_context(damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note(String);

    impl Token for Note {
        const PREFIX: &'static str = "note1-";
        const NAME: &'static str = "a note";
    }

    #[test]
    fn a_word_gives_its_document_and_a_part_of_one_is_refused() {
        let note = Note("to be copied".to_owned());
        let word = note.to_word().expect("it encodes");
        assert_eq!(Note::from_word(&format!(" {word}\n")).expect("whole"), note);
        for shorter in 0..word.len() {
            let refused = Note::from_word(&word[..shorter]);
            assert!(refused.is_err(), "{shorter} letters");
        }
        let other = Note::from_word("ticket1-AAAA").expect_err("another kind");
        assert!(other.to_string().contains("this is not a note"), "{other}");
    }
}
