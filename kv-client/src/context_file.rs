//! Contexts: named clusters with the files that open them.
//!
//! A context is the file `<config dir>/kv/contexts/<name>.toml`:
//!
//! ```toml
//! cluster = "dev"                               # its name, for people
//! seeds = ["127.0.0.1:7401", "127.0.0.1:7402"]  # at least one node's host and port
//! ca = "ca.pem"                                 # the cluster's authority
//! certificate = "client.pem"                    # this client's certificate chain
//! key = "client.key"                            # its private key
//! admin_certificate = "admin.pem"               # optional: for commands that need an admin
//! admin_key = "admin.key"                       # optional, with admin_certificate
//! ```
//!
//! Paths are absolute or relative to the file's directory. Other fields are errors. The config
//! directory is `$KV_CONFIG_DIR`, else `$XDG_CONFIG_HOME`, else `$HOME/.config`. The name of the
//! context in use is the content of `<config dir>/kv/current`, one line. Names have 1 to 64 of
//! `A-Z a-z 0-9 . _ -` and do not begin with a dot.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::connect_error::ConnectError;

const MAX_NAME_BYTES: usize = 64;

/// A certificate chain and its private key, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPairFiles {
    /// The certificate chain, in PEM.
    pub certificate: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

/// What the file of a context says, with absolute paths.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextFile {
    /// The context's name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// Host and port of nodes to begin with.
    pub seeds: Vec<String>,
    /// The cluster's authority, in PEM.
    pub ca: PathBuf,
    /// What the client shows.
    pub client: KeyPairFiles,
    /// What an admin shows, if this machine has it.
    pub admin: Option<KeyPairFiles>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    cluster: String,
    seeds: Vec<String>,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    admin_certificate: Option<PathBuf>,
    admin_key: Option<PathBuf>,
}

/// The directory that holds contexts, and which of them is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextDirectory {
    root: PathBuf,
}

impl ContextDirectory {
    /// The directory of this user, by the environment.
    ///
    /// # Errors
    /// [`ConnectError::NoContext`] when no variable says where it is.
    pub fn of_user() -> Result<Self, ConnectError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = variable("KV_CONFIG_DIR")
            .or_else(|| variable("XDG_CONFIG_HOME"))
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")));
        let reason = "none of KV_CONFIG_DIR, XDG_CONFIG_HOME and HOME is set".to_owned();
        root.map(Self::at).ok_or(ConnectError::NoContext { reason })
    }

    /// The directory in a given config directory.
    #[must_use]
    pub fn at(config_dir: impl AsRef<Path>) -> Self {
        Self {
            root: config_dir.as_ref().join("kv"),
        }
    }

    /// The directory itself: `<config dir>/kv`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of a context, whether it is there or not.
    ///
    /// # Errors
    /// [`ConnectError::NoContext`] when the name cannot be one.
    pub fn path(&self, name: &str) -> Result<PathBuf, ConnectError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !(1..=MAX_NAME_BYTES).contains(&name.len())
            || name.starts_with('.')
            || !name.bytes().all(allowed)
        {
            let reason = format!("`{name}` cannot name a context");
            return Err(ConnectError::NoContext { reason });
        }
        Ok(self.root.join("contexts").join(format!("{name}.toml")))
    }

    /// Reads a context.
    ///
    /// # Errors
    /// [`ConnectError::NoContext`] when there is none of that name, [`ConnectError::Context`] when its
    /// file cannot be used.
    pub fn load(&self, name: &str) -> Result<ContextFile, ConnectError> {
        let path = self.path(name)?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let known = self.names().unwrap_or_default().join(", ");
                let known = if known.is_empty() {
                    "there are none".to_owned()
                } else {
                    known
                };
                let reason = format!("there is no context `{name}` (contexts: {known})");
                return Err(ConnectError::NoContext { reason });
            }
            Err(error) => return Err(unusable(&path, error)),
        };
        parse(name, &path, &text)
    }

    /// The names of all contexts, in order.
    ///
    /// # Errors
    /// [`ConnectError::Context`] when the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, ConnectError> {
        let directory = self.root.join("contexts");
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unusable(&directory, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry
                .map_err(|error| unusable(&directory, error))?
                .file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".toml"));
            names.extend(
                name.filter(|name| self.path(name).is_ok())
                    .map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    /// The name of the context in use, if one was selected.
    ///
    /// # Errors
    /// [`ConnectError::Context`] when the file that says so cannot be read.
    pub fn current(&self) -> Result<Option<String>, ConnectError> {
        let path = self.root.join("current");
        match std::fs::read_to_string(&path) {
            Ok(name) => Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(&path, error)),
        }
    }

    /// Selects a context, which must be usable.
    ///
    /// # Errors
    /// As for [`Self::load`], and [`ConnectError::Context`] when the choice cannot be written.
    pub fn select(&self, name: &str) -> Result<ContextFile, ConnectError> {
        let context = self.load(name)?;
        let (path, partial) = (self.root.join("current"), self.root.join("current.partial"));
        std::fs::write(&partial, format!("{name}\n"))
            .and_then(|()| std::fs::rename(&partial, &path))
            .map_err(|error| unusable(&path, error))?;
        Ok(context)
    }
}

fn parse(name: &str, path: &Path, text: &str) -> Result<ContextFile, ConnectError> {
    let fields: Fields =
        toml::from_str(text).map_err(|error| unusable(path, error.to_string().trim_end()))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let absolute = |file: PathBuf| directory.join(file);
    if fields.seeds.is_empty() {
        return Err(unusable(
            path,
            "`seeds` is empty; name at least one node's host:port",
        ));
    }
    let admin = match (fields.admin_certificate, fields.admin_key) {
        (Some(certificate), Some(key)) => Some(KeyPairFiles {
            certificate: absolute(certificate),
            key: absolute(key),
        }),
        (None, None) => None,
        _ => {
            let reason = "`admin_certificate` and `admin_key` need each other; give both or none";
            return Err(unusable(path, reason));
        }
    };
    Ok(ContextFile {
        name: name.to_owned(),
        cluster: fields.cluster,
        seeds: fields.seeds,
        ca: absolute(fields.ca),
        client: KeyPairFiles {
            certificate: absolute(fields.certificate),
            key: absolute(fields.key),
        },
        admin,
    })
}

fn unusable(path: &Path, reason: impl core::fmt::Display) -> ConnectError {
    ConnectError::Context {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests;
