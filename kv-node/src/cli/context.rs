//! `kv context`: which clusters this user knows, and which one is in use.

use kv_client::context_file::KeyPairFiles;
use kv_client::{ContextDirectory, ContextFile};
use serde::Serialize;

use super::args::ContextCommand;
use super::failure::Failure;
use super::output::Output;

#[derive(Serialize)]
struct ContextJson<'a> {
    schema: u8,
    name: &'a str,
    in_use: bool,
    cluster: &'a str,
    seeds: &'a [String],
    ca: String,
    certificate: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_key: Option<String>,
}

/// Lists, chooses or shows contexts. No node is asked.
pub(super) fn run(output: &Output, command: ContextCommand) -> Result<(), Failure> {
    let directory = ContextDirectory::of_user()?;
    match command {
        ContextCommand::Ls => list(output, &directory),
        ContextCommand::Use { name } => {
            let context = directory.select(&name)?;
            output.note(format!(
                "context {name} is in use (cluster {})",
                context.cluster
            ));
            show(output, &context, true)
        }
        ContextCommand::Show { name } => {
            let in_use = in_use(&directory)?;
            let name = name.or_else(|| in_use.clone()).ok_or_else(|| {
                let failure = Failure::usage("no context is in use");
                failure.hint("choose one with `kv context use NAME`; `kv context ls` lists them")
            })?;
            let is_in_use = in_use.as_deref() == Some(&name);
            show(output, &directory.load(&name)?, is_in_use)
        }
    }
}

/// The environment comes before the choice on disk, as when connecting.
fn in_use(directory: &ContextDirectory) -> Result<Option<String>, Failure> {
    let variable = std::env::var("KV_CONTEXT")
        .ok()
        .filter(|name| !name.is_empty());
    match variable {
        Some(name) => Ok(Some(name)),
        None => Ok(directory.current()?),
    }
}

fn list(output: &Output, directory: &ContextDirectory) -> Result<(), Failure> {
    let in_use = in_use(directory)?;
    let names = directory.names()?;
    if names.is_empty() {
        output.hint("there are no contexts; `cargo xtask cluster` starts a cluster and writes one");
    }
    for name in names {
        let is_in_use = in_use.as_deref() == Some(&name);
        match directory.load(&name) {
            Ok(context) => {
                let mark = if is_in_use { "*" } else { " " };
                let seeds = context.seeds.join(",");
                output.line(format!(
                    "{mark} {name}  cluster {}  {seeds}",
                    context.cluster
                ))?;
                output.json_only(&json(&context, is_in_use))?;
            }
            Err(error) => output.error(&error.to_string()),
        }
    }
    Ok(())
}

fn show(output: &Output, context: &ContextFile, is_in_use: bool) -> Result<(), Failure> {
    let mut lines = vec![
        ("name", context.name.clone()),
        ("cluster", context.cluster.clone()),
        ("seeds", context.seeds.join(", ")),
        ("ca", context.ca.display().to_string()),
        (
            "certificate",
            context.client.certificate.display().to_string(),
        ),
        ("key", context.client.key.display().to_string()),
    ];
    if let Some(KeyPairFiles { certificate, key }) = &context.admin {
        lines.push(("admin_certificate", certificate.display().to_string()));
        lines.push(("admin_key", key.display().to_string()));
    }
    for (label, text) in lines {
        output.line(format!("{label:<18} {text}"))?;
    }
    output.json_only(&json(context, is_in_use))?;
    Ok(())
}

fn json(context: &ContextFile, in_use: bool) -> ContextJson<'_> {
    let admin = context.admin.as_ref();
    ContextJson {
        schema: 1,
        name: &context.name,
        in_use,
        cluster: &context.cluster,
        seeds: &context.seeds,
        ca: context.ca.display().to_string(),
        certificate: context.client.certificate.display().to_string(),
        key: context.client.key.display().to_string(),
        admin_certificate: admin.map(|admin| admin.certificate.display().to_string()),
        admin_key: admin.map(|admin| admin.key.display().to_string()),
    }
}
