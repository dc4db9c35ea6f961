//! An issuer: it holds the authority's key, and signs for whoever shows the secret of a ticket, once for each ticket.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use kv_net::credentials::fingerprint_of_pem;
use kv_net::issuing::{self, Issuing, NOBODY, Secret};
use kv_net::{
    CertificateAuthority, Credentials, Endpoint, EndpointConfig, Identity, KeyPair, Validity,
};
use kv_types::NodeId;

use super::joining::{
    Issued, IssuerAt, SigningRequest, Ticket, install, sign_with, signing_request,
};
use super::members::newest;
use super::token::Token as _;
use super::{load_authority, now};

/// How long a node waits for the issuer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Signs for the holders of tickets.
#[derive(Debug)]
pub struct Issuer {
    listening: Issuing,
    tickets: Vec<Ticket>,
    signing: Arc<Signing>,
}

#[derive(Debug)]
struct Signing {
    authority: CertificateAuthority,
    lifetime: Duration,
    /// Asks the members.
    endpoint: Endpoint,
    seeds: Vec<String>,
    /// For whom each ticket was used.
    used: Mutex<Vec<Option<SigningRequest>>>,
    /// Told when one is.
    signed: tokio::sync::mpsc::UnboundedSender<NodeId>,
}

/// How an issuer works.
#[derive(Debug, Clone)]
pub struct IssuerSpec {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where new nodes reach it; without it, where it listens.
    pub address: Option<String>,
    /// How many tickets there are, each for one node.
    pub tickets: usize,
    /// For how long it is to be believed.
    pub open: Duration,
    /// How long the certificates are valid.
    pub lifetime: Duration,
}

impl Issuer {
    /// Makes tickets out of one of the cluster, and listens. The receiver is told of each node that gets a certificate.
    ///
    /// # Errors
    /// When the authority is another one than that of the ticket, or the address is taken.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open(
        authority: &Path,
        ticket: &Ticket,
        spec: &IssuerSpec,
    ) -> Result<(Self, tokio::sync::mpsc::UnboundedReceiver<NodeId>)> {
        let dir = authority;
        let authority = load_authority(dir)?;
        ensure!(
            authority.cluster() == ticket.cluster,
            "the authority in {} is of cluster {}, the ticket is for {}",
            dir.display(),
            authority.cluster(),
            ticket.cluster
        );
        ensure!(
            fingerprint_of_pem(authority.certificate_pem())? == ticket.authority,
            "the ticket names another authority of the cluster than the one in {}",
            dir.display()
        );
        let secrets: Result<Vec<Secret>> = (0..spec.tickets).map(|_| new_secret()).collect();
        let secrets = secrets?;
        let times = (now(), spec.open);
        let listening = Issuing::bind(spec.listen, &authority, &secrets, times)?;
        let address = match &spec.address {
            Some(address) => address.clone(),
            None => listening.address()?.to_string(),
        };
        let tickets = secrets.iter().map(|secret| Ticket {
            issuer: Some(IssuerAt {
                address: address.clone(),
                secret: secret.0,
            }),
            ..ticket.clone()
        });
        let key = KeyPair::generate()?;
        let identity = Identity::admin(authority.cluster(), "issuer");
        let valid = Validity::starting(now(), spec.open);
        let certificate = authority.issue(&identity, &key.public_key(), valid)?;
        let own = Credentials::from_pem(authority.certificate_pem(), &certificate, &key.to_pem())?;
        let (signed, told) = tokio::sync::mpsc::unbounded_channel();
        let signing = Signing {
            authority,
            lifetime: spec.lifetime,
            endpoint: Endpoint::client(own, EndpointConfig::client())?,
            seeds: ticket.seeds.clone(),
            used: Mutex::new(vec![None; spec.tickets]),
            signed,
        };
        let issuer = Self {
            tickets: tickets.collect(),
            listening,
            signing: Arc::new(signing),
        };
        Ok((issuer, told))
    }

    /// The tickets, each for one node.
    #[must_use]
    pub fn tickets(&self) -> &[Ticket] {
        &self.tickets
    }

    /// Signs for as long as it is polled.
    pub async fn serve(&self) {
        let signing = Arc::clone(&self.signing);
        let answering = move |number: usize, request: Vec<u8>| {
            let signing = Arc::clone(&signing);
            async move {
                let answer = signing.answer(number, &request).await;
                answer.map_err(|why| format!("{why:#}"))
            }
            .boxed()
        };
        self.listening.serve(Arc::new(answering)).await;
    }
}

impl Signing {
    async fn answer(&self, number: usize, request: &[u8]) -> Result<Vec<u8>> {
        let word = str::from_utf8(request).context("the request is no text")?;
        let request = SigningRequest::from_word(word)?;
        let newest = newest(&self.endpoint, &self.seeds).await;
        let newest = newest.context(
            "no member answers, so nobody can say whether the node's id is another one's; try again when one is up",
        )?;
        let topology = newest.topology();
        let node = request.node;
        ensure!(
            topology.member(node).is_none() && !topology.removed().contains_key(&node),
            "node {node} is, or was, a member: empty the directory of the new one, and join anew"
        );
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = |(other, request): (usize, &Option<SigningRequest>)| {
            other != number && request.as_ref().is_some_and(|request| request.node == node)
        };
        ensure!(
            !used.iter().enumerate().any(is_other) && node != NOBODY,
            "node {node} has a certificate already: empty the directory of the new one, and join anew"
        );
        let used = used.get_mut(number).context("there is no such ticket")?;
        // Whoever did not get the answer asks once more.
        if let Some(before) = used.as_ref().filter(|before| **before != request) {
            anyhow::bail!(
                "this ticket was used for node {}; every node needs one of its own",
                before.node
            );
        }
        let issued = sign_with(&self.authority, &request, self.lifetime)?;
        if used.replace(request).is_none() {
            // Nobody may be interested.
            let _ = self.signed.send(node);
        }
        Ok(issued.to_word()?.into_bytes())
    }
}

/// Has the issuer that a ticket names sign for a node, and installs what comes back.
///
/// # Errors
/// When the issuer does not answer, or refuses; nothing was written then.
///
/// # Panics
/// Outside of a tokio runtime.
pub async fn fetch(data: &Path, ticket: &Ticket, issuer: &IssuerAt) -> Result<()> {
    let request = signing_request(data)?.to_word()?;
    let mut found = issuer
        .address
        .to_socket_addrs()
        .with_context(|| format!("the issuer's address {} is not known here", issuer.address))?;
    let address = found.next().context("the issuer has no address")?;
    let secret = Secret(issuer.secret);
    let answer = issuing::ask(
        address,
        ticket.authority,
        &secret,
        request.as_bytes(),
        PATIENCE,
    );
    let answer = answer.await?;
    let word = str::from_utf8(&answer).context("the issuer's answer is no text")?;
    let issued = Issued::from_word(word)?;
    // A member could play the issuer, and bring an authority of its own.
    ensure!(
        fingerprint_of_pem(&issued.authority)? == ticket.authority,
        "the issuer at {} answers for another authority than the one that the ticket names; do not go on before you know why",
        issuer.address
    );
    install(data, &issued)
}

fn new_secret() -> Result<Secret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("the operating system gives no random bytes")?;
    Ok(Secret(bytes))
}
