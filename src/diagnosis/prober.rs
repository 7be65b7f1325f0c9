//! Probes etcd's members, for the verdict, the metrics and the checks, and says each verdict once. It looks every few
//! seconds while all is well, and again and again while renewals are late.
//!
//! It runs on the driver's runtime, beside the driver, because the main loop's may be what hangs.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::verdict::{self, Evidence, Peer, Stall, Verdict};
use crate::client::MemberClient;
use crate::clock::{Clock, Instant};
use crate::election::history::Reason;
use crate::election::record::Member;
use crate::election::status::Status;
use crate::store::Request;
use crate::store::places::Health;
use crate::store::probe::Probe;
use crate::telemetry::{Event, Telemetry};
use crate::tls::client::Credentials;

/// How often etcd's members are looked at while all is well, while something is wrong, and while the lease runs out.
const CALM_PAUSE: Duration = Duration::from_secs(5);
const WRONG_PAUSE: Duration = Duration::from_secs(2);
const TROUBLE_PAUSE: Duration = Duration::from_millis(300);
/// How long a member of etcd, and another meta node, gets to answer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(800);
const PEER_TIMEOUT: Duration = Duration::from_millis(500);
/// The most meta nodes that are asked.
const PEERS_MAX: usize = 8;

/// What the monitor tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Worry {
    /// The store has been silent for longer than it should be.
    pub(super) is_troubled: bool,
    /// When it confirmed something for the last time.
    pub(super) heard_at: Instant,
    /// How often it confirms something when all is well.
    pub(super) hears_every: Duration,
    /// The longest stall lately.
    pub(super) stall: Option<Stall>,
}

/// What was seen last.
#[derive(Clone, Debug, Default)]
pub struct ProbeRound {
    /// Each member of etcd; none before the first look, and where the store is not etcd.
    pub probes: Vec<Probe>,
    complaint: Option<String>,
    peers: Vec<Peer>,
    /// For how long the store had confirmed nothing when the peers were asked.
    silent_for: Duration,
}

/// The looking task's parts.
pub(super) struct Looking {
    pub(super) health: Arc<dyn Health>,
    pub(super) question: Request,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) telemetry: Telemetry,
    pub(super) ttl: Duration,
    pub(super) credentials: Credentials,
    pub(super) status: watch::Receiver<Arc<Status>>,
    pub(super) worry: watch::Receiver<Worry>,
}

/// The monitor's end.
pub(super) struct Diagnosis {
    worry: watch::Sender<Worry>,
    look: watch::Receiver<Arc<ProbeRound>>,
    ttl: Duration,
}

// === impl Diagnosis ===

impl Diagnosis {
    /// Begins to look, on the present runtime, which must be the driver's; what was seen last is `shown`.
    pub(super) fn begin(
        parts: Looking,
        worry: watch::Sender<Worry>,
        shown: watch::Sender<Arc<ProbeRound>>,
    ) -> Self {
        let (look, ttl) = (shown.subscribe(), parts.ttl);
        tokio::spawn(parts.run(shown));
        Self { worry, look, ttl }
    }

    /// How the driver fares; looks at once if that is worse than before.
    pub(super) fn tell(&self, worry: Worry) {
        self.worry.send_if_modified(|known| {
            let is_news = (known.is_troubled, known.stall) != (worry.is_troubled, worry.stall);
            *known = worry;
            is_news
        });
    }

    /// Who is to blame for the end of a tenure, by what was seen last.
    pub(super) fn of_end(&self, reason: Reason, registration_gone: bool) -> Verdict {
        let seen = self.look.borrow().evidence(&self.worry.borrow(), self.ttl);
        verdict::judge(&Evidence { reason: Some(reason), registration_gone, ..seen })
    }
}

// === impl ProbeRound ===

impl ProbeRound {
    /// What is known while no tenure ends.
    fn evidence(&self, worry: &Worry, ttl: Duration) -> Evidence {
        Evidence {
            reason: None,
            registration_gone: false,
            stall: worry.stall,
            probes: self.probes.clone(),
            complaint: self.complaint.clone(),
            peers: self.peers.clone(),
            silent_for: self.silent_for,
            hears_every: worry.hears_every,
            ttl,
        }
    }
}

// === impl Looking ===

impl Looking {
    async fn run(mut self, shown: watch::Sender<Arc<ProbeRound>>) {
        let mut said = Verdict::Well;
        let mut took_no_login = false;
        loop {
            let worry = *self.worry.borrow_and_update();
            let look = self.look().await;
            let takes_no_login = look.probes.iter().any(|probe| probe.takes_no_login);
            if takes_no_login != std::mem::replace(&mut took_no_login, takes_no_login) {
                say_login(takes_no_login);
            }
            let evidence = look.evidence(&worry, self.ttl);
            shown.send_replace(Arc::new(look));
            let verdict = verdict::judge(&evidence);
            let pause = match verdict {
                _ if worry.is_troubled => TROUBLE_PAUSE,
                Verdict::Well => CALM_PAUSE,
                _ => WRONG_PAUSE,
            };
            if verdict != said && verdict != Verdict::TooEarly {
                say(&self.telemetry, &verdict);
                said = verdict;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = self.worry.changed() => if changed.is_err() {
                    return; // no driver: the node is ending
                },
            }
        }
    }

    async fn look(&self) -> ProbeRound {
        let probes = self.health.probe(&self.question, PROBE_TIMEOUT).await;
        for probe in &probes {
            let fault = probe.fault().map(|finding| (finding.to_string(), finding.fix().to_owned()));
            let rtt = probe.decided.as_ref().ok().copied().filter(|_| probe.answers());
            self.telemetry.metrics().endpoint_looked_at(&probe.place, rtt, fault);
        }
        // Only when nobody of etcd answers do the others know more.
        let is_silent = !probes.is_empty() && !probes.iter().any(Probe::answers);
        let silent_for = self.clock.now().since(self.worry.borrow().heard_at);
        let peers = if is_silent { self.ask_peers().await } else { vec![] };
        ProbeRound { probes, complaint: self.health.complaint(), peers, silent_for }
    }

    async fn ask_peers(&self) -> Vec<Peer> {
        let status = self.status.borrow().clone();
        let others = status.view.members.iter().filter(|m| m.registration.member.node != status.me.node);
        join_all(others.take(PEERS_MAX).map(|member| ask(member, &self.credentials))).await
    }
}

/// Says a verdict. That all is well again is not one.
pub(super) fn say(telemetry: &Telemetry, verdict: &Verdict) {
    if *verdict != Verdict::Well {
        telemetry.emit(Event::Verdict { verdict: verdict.as_str(), text: verdict.to_string() });
    }
}

/// Says that the login is not used, and that it is.
fn say_login(takes_none: bool) {
    if takes_none {
        tracing::warn!(
            "etcd's authentication is not enabled: this node works without the login of store.etcd.username, and logs in \
             once etcd asks for it (etcdctl auth enable)"
        );
    } else {
        tracing::info!("etcd's authentication is enabled: this node uses the login of store.etcd.username");
    }
}

async fn ask(member: &Member, credentials: &Credentials) -> Peer {
    let r = &member.registration;
    let asked = async {
        let answer =
            MemberClient::lazy(&r.rpc_address, credentials, PEER_TIMEOUT).ok()?.leader().await.ok()?;
        Some(Duration::from_millis(answer.answerer?.age_ms))
    };
    let age = tokio::time::timeout(PEER_TIMEOUT, asked).await.ok().flatten();
    Peer { node: r.member.node.clone(), age }
}
