//! The commands that set a cluster up.

use anyhow::{Context as _, Result, bail};
use kv_net::Role;
use kv_node::setup::joining::{self, Issued, SigningRequest};
use kv_node::setup::token::Token as _;
use kv_node::setup::{self, NewCluster, NewMember};
use kv_ring::ClusterMode;
use serde_json::json;

use super::{CaCommand, CertCommand, CreateArgs, InitArgs, Mode, PersonArgs};

#[expect(clippy::print_stdout, reason = "the result of a command")]
fn say(json: bool, object: &serde_json::Value, text: &str) {
    if json {
        println!("{object}");
    } else {
        println!("{text}");
    }
}

#[expect(clippy::print_stderr, reason = "beside the result of a command")]
fn note(text: &str) {
    eprintln!("{text}");
}

pub(super) fn init(args: &InitArgs) -> Result<()> {
    let node = setup::init_node(&args.data)?;
    let data = args.data.display();
    let text = format!("node {node} in {data}\nnext: kv-node cert node --ca CA_DIR --data {data}");
    say(
        args.json,
        &json!({ "schema": 1, "node_id": node.to_string() }),
        &text,
    );
    Ok(())
}

pub(super) fn ca(command: CaCommand) -> Result<()> {
    let CaCommand::Create { name, dir, json } = command;
    let cluster = setup::create_authority(&dir, &name)?;
    let text = format!(
        "authority of cluster {cluster} in {}\nkeep ca-key.pem safe and off the nodes: whoever has it can join the cluster",
        dir.display()
    );
    say(
        json,
        &json!({ "schema": 1, "cluster_id": cluster.to_string() }),
        &text,
    );
    Ok(())
}

pub(super) fn cert(command: CertCommand) -> Result<()> {
    let (person, role): (PersonArgs, fn(String) -> Role) = match command {
        CertCommand::Node { issuing, data } => {
            let node = setup::issue_node(&issuing.ca, &data, issuing.valid)?;
            say(
                false,
                &json!({}),
                &format!(
                    "certificate of node {node} in {}",
                    setup::credentials_dir(&data).display()
                ),
            );
            return Ok(());
        }
        CertCommand::Sign { issuing, request } => {
            let request = SigningRequest::from_word(&request)?;
            let issued = joining::sign(&issuing.ca, &request, issuing.valid)?;
            note(&format!("signed for node {}", request.node));
            say(false, &json!({}), &issued.to_word()?);
            return Ok(());
        }
        CertCommand::Install { data, certificate } => {
            joining::install(&data, &Issued::from_word(&certificate)?)?;
            let text = format!("certificate in {}", setup::credentials_dir(&data).display());
            say(false, &json!({}), &text);
            return Ok(());
        }
        CertCommand::Issuer(args) => return super::issuer::run(&args),
        CertCommand::Client(person) => (person, Role::Client),
        CertCommand::Admin(person) => (person, Role::Admin),
    };
    setup::issue_person(
        &person.issuing.ca,
        role(person.name.clone()),
        &person.out,
        person.issuing.valid,
    )?;
    say(
        false,
        &json!({}),
        &format!("certificate of {} in {}", person.name, person.out.display()),
    );
    Ok(())
}

pub(super) fn create(args: CreateArgs) -> Result<()> {
    let mode = match args.mode {
        Mode::Ap => ClusterMode::Ap,
        Mode::Cp => ClusterMode::Cp,
    };
    let spec = NewCluster {
        name: args.name,
        mode,
        replicas: args.replicas,
        partitions: args.partitions,
        members: args.members,
    };
    let cluster = setup::create_cluster(&spec)?;
    let count = spec.members.len();
    let text = format!(
        "cluster {} ({cluster}): {count} nodes, {} replicas of each key\nnext: kv-node serve --data DIR, for each node",
        spec.name, spec.replicas
    );
    say(
        args.json,
        &json!({ "schema": 1, "cluster_id": cluster.to_string() }),
        &text,
    );
    Ok(())
}

/// Parses `name=n1,zone=a,address=127.0.0.1:7401,data=DIR[,weight=1]`.
pub(super) fn parse_member(text: &str) -> Result<NewMember> {
    let (mut name, mut zone, mut weight, mut address, mut data) = (None, None, 1, None, None);
    for part in text.split(',') {
        let (field, value) = part
            .split_once('=')
            .with_context(|| format!("`{part}` is not `field=value`"))?;
        match field {
            "name" => name = Some(value.to_owned()),
            "zone" => zone = Some(value.to_owned()),
            "address" => address = Some(value.to_owned()),
            "data" => data = Some(value.into()),
            "weight" => {
                let parsed = value.parse();
                weight = parsed.with_context(|| format!("weight `{value}` is not a number"))?;
            }
            _ => bail!(
                "there is no field `{field}`; the fields are name, zone, address, data and weight"
            ),
        }
    }
    let missing = |field| format!("`{text}` lacks {field}=…");
    Ok(NewMember {
        name: name.with_context(|| missing("name"))?,
        zone: zone.with_context(|| missing("zone"))?,
        weight,
        address: address.with_context(|| missing("address"))?,
        data: data.with_context(|| missing("data"))?,
    })
}
