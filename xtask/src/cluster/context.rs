//! The context: how `kv` and programs find a cluster by its name.

use super::layout::Layout;
use super::state::State;
use crate::failure::Failure;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// First line of every context we write; a file without it belongs to the user.
const MARK: &str =
    "# Written by `cargo xtask cluster`; deleted by `cargo xtask cluster down --wipe`.";

/// The folder of contexts that `kv` reads.
#[derive(Debug, Clone)]
pub(crate) struct Contexts {
    root: PathBuf,
}

/// What `kv` needs to know about a cluster.
#[derive(Debug, Serialize)]
struct Context {
    cluster: String,
    seeds: Vec<String>,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    admin_certificate: PathBuf,
    admin_key: PathBuf,
}

impl Contexts {
    /// Where `kv` looks: `$KV_CONFIG_DIR`, else `$XDG_CONFIG_HOME`, else `~/.config`.
    ///
    /// # Errors
    /// When none of the three is set.
    pub(crate) fn of_user() -> Result<Self> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let root = set("KV_CONFIG_DIR")
            .or_else(|| set("XDG_CONFIG_HOME"))
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")))
            .context(
                "none of KV_CONFIG_DIR, XDG_CONFIG_HOME and HOME is set; set one, for the context",
            )?;
        Ok(Self::at(std::path::absolute(root)?))
    }

    /// A folder of contexts of its own.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// What `KV_CONFIG_DIR` must be for `kv` to find these contexts.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The file of one context.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.join("kv/contexts").join(format!("{name}.toml"))
    }

    /// Refuses to overwrite a context that somebody else wrote.
    ///
    /// # Errors
    /// When there is such a context; nothing was changed.
    pub(crate) fn must_be_ours(&self, name: &str) -> Result<()> {
        let file = self.file(name);
        match fs::read_to_string(&file) {
            Ok(text) if !text.starts_with(MARK) => Err(Failure::usage(format!(
                "context \"{name}\" ({}) was not written by this task; use another --name",
                file.display()
            ))),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Writes the cluster's context, and selects it unless another one is selected.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub(crate) fn write(&self, layout: &Layout, state: &State) -> Result<()> {
        let name = layout.name();
        let (client, admin) = (layout.person("client"), layout.person("admin"));
        let context = Context {
            cluster: name.to_owned(),
            seeds: state
                .nodes
                .iter()
                .map(|node| node.address.to_string())
                .collect(),
            ca: client.join("ca.pem"),
            certificate: client.join("cert.pem"),
            key: client.join("key.pem"),
            admin_certificate: admin.join("cert.pem"),
            admin_key: admin.join("key.pem"),
        };
        let text = format!("{MARK}\n{}", toml::to_string(&context)?);
        store(&self.file(name), &text)?;
        if self.selected().is_none() {
            store(&self.current(), &format!("{name}\n"))?;
        }
        Ok(())
    }

    /// The context `kv` uses when none is named, if it exists.
    pub(crate) fn selected(&self) -> Option<String> {
        let named = env::var("KV_CONTEXT").ok().filter(|name| !name.is_empty());
        let name = named.or_else(|| fs::read_to_string(self.current()).ok())?;
        let name = name.trim();
        self.file(name).exists().then(|| name.to_owned())
    }

    /// Removes the cluster's context if we wrote it, and the selection if it meant this context.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        if self.must_be_ours(name).is_err() {
            return Ok(());
        }
        delete(&self.file(name))?;
        let selected = fs::read_to_string(self.current()).unwrap_or_default();
        if selected.trim() == name {
            delete(&self.current())?;
        }
        Ok(())
    }

    fn current(&self) -> PathBuf {
        self.root.join("kv/current")
    }
}

fn store(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn delete(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", path.display()))
        }
        _ => Ok(()),
    }
}
