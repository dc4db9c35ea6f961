//! Which cluster a client connects to, and as whom.

use std::path::PathBuf;

use kv_net::Credentials;

use crate::connect_error::ConnectError;
use crate::context_file::{ContextDirectory, ContextFile, KeyPairFiles};

/// A description of a cluster to connect to. Files are read when the client connects.
///
/// As text: `kv://host:port,host:port?context=name`. Seeds in the text replace those of the context;
/// without `?context=`, the context in use opens the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    seeds: Vec<String>,
    identity: Identity,
    as_admin: bool,
}

/// Whose certificate is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    Context(String),
    ContextInUse,
    Files {
        ca: PathBuf,
        pair: KeyPairFiles,
    },
    /// Some of the variables that name files are missing.
    Incomplete(&'static str),
}

/// A target whose files were read.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) seeds: Vec<String>,
    pub(crate) credentials: Credentials,
}

impl Target {
    /// The cluster of a named context; [`crate::context_file`] says where it is.
    #[must_use]
    pub fn context(name: impl Into<String>) -> Self {
        Self {
            seeds: Vec::new(),
            identity: Identity::Context(name.into()),
            as_admin: false,
        }
    }

    /// The cluster of the context in use.
    #[must_use]
    pub fn context_in_use() -> Self {
        Self {
            seeds: Vec::new(),
            identity: Identity::ContextInUse,
            as_admin: false,
        }
    }

    /// A cluster by its seeds, opened by files: authority, certificate, private key.
    pub fn files<S: Into<String>>(
        seeds: impl IntoIterator<Item = S>,
        ca: impl Into<PathBuf>,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        let pair = KeyPairFiles {
            certificate: certificate.into(),
            key: key.into(),
        };
        let seeds = seeds.into_iter().map(Into::into).collect();
        Self {
            seeds,
            identity: Identity::Files {
                ca: ca.into(),
                pair,
            },
            as_admin: false,
        }
    }

    /// The cluster that the environment names.
    ///
    /// `KV_CA`, `KV_CERT` and `KV_KEY` together name the files and need `KV_SEEDS`
    /// (`host:port,host:port`); else `KV_CONTEXT` names a context, whose seeds `KV_SEEDS` replaces;
    /// else it is the context in use.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let seeds = variable("KV_SEEDS")
            .map(|seeds| split(&seeds))
            .unwrap_or_default();
        let identity = match (variable("KV_CA"), variable("KV_CERT"), variable("KV_KEY")) {
            (Some(ca), Some(certificate), Some(key)) => {
                let pair = KeyPairFiles {
                    certificate: certificate.into(),
                    key: key.into(),
                };
                Identity::Files {
                    ca: ca.into(),
                    pair,
                }
            }
            (None, None, None) => {
                variable("KV_CONTEXT").map_or(Identity::ContextInUse, Identity::Context)
            }
            _ => Identity::Incomplete("KV_CA, KV_CERT and KV_KEY need each other; set all or none"),
        };
        Self {
            seeds,
            identity,
            as_admin: false,
        }
    }

    /// Other seeds than the context's.
    #[must_use]
    pub fn seeds<S: Into<String>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// Shows the context's admin certificate in place of the client's.
    #[must_use]
    pub fn as_admin(mut self) -> Self {
        self.as_admin = true;
        self
    }

    /// Reads the files.
    /// SHA-256 of the certificate of each authority that is believed: the last one issues.
    ///
    /// # Errors
    /// [`ConnectError`] when the context or its files cannot be read.
    pub fn authorities(&self) -> Result<Vec<[u8; 32]>, ConnectError> {
        let resolved = self.clone().resolve()?;
        Ok(resolved.credentials.authorities().to_vec())
    }

    pub(crate) fn resolve(self) -> Result<Resolved, ConnectError> {
        match self.identity {
            Identity::Incomplete(reason) => Err(ConnectError::NoContext {
                reason: reason.to_owned(),
            }),
            Identity::Files { ca, pair } => {
                let credentials = Credentials::load_files(&ca, &pair.certificate, &pair.key)?;
                let seeds = check_seeds(self.seeds)?;
                Ok(Resolved { seeds, credentials })
            }
            Identity::Context(ref name) => {
                let context = ContextDirectory::of_user()?.load(name)?;
                self.of_context(context)
            }
            Identity::ContextInUse => {
                let directory = ContextDirectory::of_user()?;
                let reason = "no context is in use".to_owned();
                let name = directory
                    .current()?
                    .ok_or(ConnectError::NoContext { reason })?;
                let context = directory.load(&name)?;
                self.of_context(context)
            }
        }
    }

    fn of_context(self, context: ContextFile) -> Result<Resolved, ConnectError> {
        let pair = match context.admin {
            Some(admin) if self.as_admin => admin,
            None if self.as_admin => {
                let (name, field) = (context.name, "admin_certificate");
                let reason = format!("context `{name}` has no `{field}`, which this command needs");
                return Err(ConnectError::NoContext { reason });
            }
            _ => context.client,
        };
        let credentials = Credentials::load_files(&context.ca, &pair.certificate, &pair.key)?;
        let seeds = if self.seeds.is_empty() {
            context.seeds
        } else {
            self.seeds
        };
        Ok(Resolved {
            seeds: check_seeds(seeds)?,
            credentials,
        })
    }
}

impl TryFrom<&str> for Target {
    type Error = ConnectError;

    fn try_from(text: &str) -> Result<Self, ConnectError> {
        let error = |reason| ConnectError::Target {
            text: text.to_owned(),
            reason,
        };
        let rest = text
            .strip_prefix("kv://")
            .ok_or(error("it does not begin with kv://"))?;
        let (seeds, query) = rest.split_once('?').unwrap_or((rest, ""));
        let seeds = split(seeds.trim_end_matches('/'));
        let mut identity = Identity::ContextInUse;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("context", name)) if !name.is_empty() => {
                    identity = Identity::Context(name.to_owned());
                }
                _ => return Err(error("the only parameter is context=NAME")),
            }
        }
        if seeds.is_empty() && identity == Identity::ContextInUse {
            return Err(error("it names neither seeds nor a context"));
        }
        Ok(Self {
            seeds: check_seeds(seeds)?,
            identity,
            as_admin: false,
        })
    }
}

impl TryFrom<String> for Target {
    type Error = ConnectError;

    fn try_from(text: String) -> Result<Self, ConnectError> {
        Self::try_from(text.as_str())
    }
}

impl TryFrom<&String> for Target {
    type Error = ConnectError;

    fn try_from(text: &String) -> Result<Self, ConnectError> {
        Self::try_from(text.as_str())
    }
}

fn split(seeds: &str) -> Vec<String> {
    let seeds = seeds.split(',').map(str::trim);
    seeds
        .filter(|seed| !seed.is_empty())
        .map(str::to_owned)
        .collect()
}

fn check_seeds(seeds: Vec<String>) -> Result<Vec<String>, ConnectError> {
    for seed in &seeds {
        let port = seed.rsplit_once(':').and_then(|(host, port)| {
            let host_ok = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
            port.parse::<u16>().ok().filter(|&port| host_ok && port > 0)
        });
        if port.is_none() {
            let reason = "a seed is host:port, with IPv6 addresses in brackets";
            return Err(ConnectError::Target {
                text: seed.clone(),
                reason,
            });
        }
    }
    Ok(seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_seeds_and_a_context() {
        let target = Target::try_from("kv://h1:7401,h2:7402?context=dev").unwrap();
        assert_eq!(target, Target::context("dev").seeds(["h1:7401", "h2:7402"]));
        let target = Target::try_from("kv://?context=dev").unwrap();
        assert_eq!(target, Target::context("dev"));
        let target = Target::try_from("kv://[::1]:7401/").unwrap();
        assert_eq!(target, Target::context_in_use().seeds(["[::1]:7401"]));
    }

    #[test]
    fn other_texts_are_refused_with_what_is_wrong() {
        for (text, part) in [
            ("h1:7401", "kv://"),
            ("kv://", "neither"),
            ("kv://h1", "host:port"),
            ("kv://:7401", "host:port"),
            ("kv://h1:0", "host:port"),
            ("kv://::1:7401", "brackets"),
            ("kv://h1:99999", "host:port"),
            ("kv://h1:7401?contxt=dev", "context=NAME"),
            ("kv://h1:7401?context=", "context=NAME"),
        ] {
            let error = Target::try_from(text).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert_eq!((error.code(), error.exit_code()), ("bad-target", 8));
        }
    }

    #[test]
    fn the_environment_names_files_or_a_context() {
        let from = |set: &'static [(&'static str, &'static str)]| {
            Target::from_variables(|name| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(from(&[]), Target::context_in_use());
        assert_eq!(from(&[("KV_CONTEXT", "dev")]), Target::context("dev"));
        assert_eq!(
            from(&[
                ("KV_SEEDS", "a:1, b:2"),
                ("KV_CA", "ca"),
                ("KV_CERT", "c"),
                ("KV_KEY", "k")
            ]),
            Target::files(["a:1", "b:2"], "ca", "c", "k"),
        );
        let error = from(&[("KV_CA", "ca")]).resolve().unwrap_err();
        assert!(error.to_string().contains("set all or none"), "{error}");
    }
}
