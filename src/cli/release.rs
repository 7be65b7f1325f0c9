//! `metad release`: frees what a dead node has left in the store, on the operator's word.
//!
//! A lost data dir, or a machine that died under a long lease, leaves a record that nobody may touch: whoever took it
//! over could not know that its holder is dead. A person can. Talks to the store itself, so it works when no node does.

use std::sync::Arc;
use std::time::Duration;

use super::args::ReleaseArgs;
use super::query::CANNOT_ASK;
use super::{Failure, output, settings, target};
use crate::client::MemberClient;
use crate::clock::OsClock;
use crate::config::Config;
use crate::election::exit::Exit;
use crate::election::lease::LeaseId;
use crate::election::record::{MemberUuid, View};
use crate::node::security;
use crate::protocol::transactions;
use crate::store::codec::Keys;
use crate::store::open::{self, OpenStore};
use crate::store::{Request, ask, probe};
use crate::telemetry::terminal::plain;
use crate::tls::client::Credentials;

/// How long the node gets to show that it lives.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Nothing of this node is in the store.
const NOTHING_THERE: i32 = 2;

/// What a node has in the store.
struct Remains {
    uuid: MemberUuid,
    address: String,
    leases: Vec<LeaseId>,
    leads: bool,
}

/// Exit 0: what it left is gone; 1: the store does not answer; 2: there is nothing of it; 73: it answers, so it lives.
pub(super) async fn release(args: ReleaseArgs) -> Result<i32, Failure> {
    let config = settings::load(&args.settings)?.config;
    let credentials = target::credentials_or(&args.credentials, security::credential_files(&config))?;
    let keys = Keys::new(&config.node.cluster, &config.meta.group);
    let store = open_store(&config).await?;
    let view = look(store.as_ref(), &keys).await?;
    let Some(remains) = Remains::of(&view, &args.node) else {
        let nodes: Vec<&str> = view.members.iter().map(|m| m.registration.member.node.as_str()).collect();
        let there = if nodes.is_empty() {
            "no node is registered".to_owned()
        } else {
            format!("registered: {}", nodes.join(", "))
        };
        let message = format!(
            "nothing of {:?} found in {} under {}; {there}",
            args.node,
            store.location(),
            keys.prefix()
        );
        return Err(Failure::new(NOTHING_THERE, message));
    };
    if answers(&remains, &credentials).await? {
        let message = format!(
            "{} answers at {}, so it is not dead; nothing was changed. Stop it, or use metad step-down",
            args.node, remains.address
        );
        return Err(Failure::new(Exit::InUse.code(), message));
    }
    for lease in &remains.leases {
        store.call(Request::Revoke(*lease)).await.map_err(|e| cannot(store.as_ref(), &e.to_string()))?;
    }
    let what =
        if remains.leads { "its registration and the leader record are" } else { "its registration is" };
    let leases: Vec<String> = remains.leases.iter().map(LeaseId::to_string).collect();
    output::print(&format!("{}: lease {} revoked; {what} gone\n", plain(&args.node), leases.join(", ")))?;
    Ok(0)
}

/// A file that is not there must not come into being by a look at it.
async fn open_store(config: &Config) -> Result<Arc<dyn OpenStore>, Failure> {
    if let Some(file) = config.store.file().filter(|file| !file.exists()) {
        let message = format!(
            "there is no store at {}\nfix: name the store that the node used, with --config, --data-dir or \
             --etcd-endpoints",
            file.display()
        );
        return Err(Failure::new(Exit::Config.code(), message));
    }
    let opened = open::open(config, Arc::new(OsClock)).await;
    opened.map_err(|e| Failure::new(Exit::Config.code(), e.to_string()))
}

async fn look(store: &dyn OpenStore, keys: &Keys) -> Result<View, Failure> {
    match ask(store, transactions::read(keys)).await {
        Ok(reply) => Ok(transactions::watched_keys(&reply).view(keys)),
        Err(e) => Err(cannot(store, &format!("{e}\n{}", store.diagnose(&probe::question(keys)).await))),
    }
}

fn cannot(store: &dyn OpenStore, why: &str) -> Failure {
    Failure::new(CANNOT_ASK, format!("cannot query the store at {}: {why}", store.location()))
}

/// Does the node live? Who answers and does not say who it is may be the one.
async fn answers(remains: &Remains, credentials: &Credentials) -> Result<bool, Failure> {
    let asked =
        async { MemberClient::connect(&remains.address, credentials, PING_TIMEOUT).await?.leader().await };
    match asked.await {
        // Another process may listen there by now.
        Ok(answer) => Ok(answer.answerer.is_some_and(|a| a.uuid == remains.uuid.to_string())),
        Err(e) if e.is_unreached => Ok(false),
        Err(e) => {
            let lease = remains.leases.first().map(LeaseId::to_string).unwrap_or_default();
            let message = format!(
                "somebody answers at {}, and metad cannot tell who, so the node may live; nothing was changed: {}\nfix: stop what \
                 listens there; if that is another program by now: etcdctl lease revoke {lease}",
                remains.address, e.why
            );
            Err(Failure::new(Exit::InUse.code(), message))
        }
    }
}

// === impl Remains ===

impl Remains {
    fn of(view: &View, node: &str) -> Option<Self> {
        let registration = view.member(node).map(|m| &m.registration);
        let tenure = view.leader.tenure().filter(|t| t.record.holder.node == node);
        let leases = [registration.map(|r| r.lease), tenure.map(|t| t.lease)];
        let mut leases: Vec<LeaseId> = leases.into_iter().flatten().collect();
        leases.dedup();
        Some(Self {
            uuid: registration.map(|r| r.member.uuid).or(tenure.map(|t| t.record.holder.uuid))?,
            address: registration.map(|r| &r.rpc_address).or(tenure.map(|t| &t.record.address))?.clone(),
            leases,
            leads: tenure.is_some(),
        })
    }
}
