//! etcd behind the contract: transactions and watches through etcd-client, renewals on streams of our own.
//!
//! One single-endpoint client per etcd member, because a balanced client sends every n-th call to a member that
//! hangs, and waits for it. Every call is *hedged*: the preferred member is asked first; if it has not answered after
//! three times the usual round trip, the next one is asked as well, and the first answer counts. That is safe for every
//! transaction that [`crate::protocol::transactions`] makes: a second copy finds its guard broken.
//!
//! Preferred is the member that answered last, and etcd's leader whenever a look at all members shows which one that is:
//! a follower passes each write and each renewal on to it, and hears of a change later.
//!
//! The v3election service is not used: it does not watch its own key, so it reports phantom leaders and strands
//! zombies (etcd-io/etcd#19597), and an answer of it says nothing about *now*.

mod convert;
mod error;
pub mod inspect;
mod keepalive;
mod login;
mod member;
mod permission;
mod probe;
mod reach;
mod stray;
mod watch;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, FuturesUnordered};

use super::places::{Belongs, Health, Places};
use super::probe::{Finding, Probe};
use super::{KeyRange, Refusal, Renewal, Request, Response, Store, StoreError, WatchBatch};
use crate::clock::Clock;
use crate::election::lease::LeaseId;
use crate::election::record::Revision;
use member::Member;

pub use login::Login;
pub use member::ConnectError;

/// The shortest time after which a second member is asked.
const HEDGE_MIN: Duration = Duration::from_millis(30);
/// How many round trips are remembered.
const ROUND_TRIPS_MAX: usize = 64;

/// How to reach etcd.
#[derive(Clone)]
pub struct EtcdOptions {
    /// `host:port`, `http://host:port` or `https://host:port`, one for each member.
    pub endpoints: Vec<String>,
    /// Certificates, for `https://`.
    pub tls: Option<TlsFiles>,
    /// Who logs in, for an etcd that asks for it.
    pub login: Option<Login>,
    /// How long a TCP connection, and again a TLS handshake, may take.
    pub connect_timeout: Duration,
    /// How long a call may take with all its hedges.
    pub request_timeout: Duration,
    /// The longest time after which a second member is asked.
    pub hedge_max: Duration,
}

/// PEM texts for TLS.
#[derive(Clone, Default)]
pub struct TlsFiles {
    /// Whom to trust.
    pub ca: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// An etcd cluster. Its connections live on the runtime that first uses them.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
}

struct Shared {
    members: Vec<Arc<Member>>,
    choice: Arc<MemberChoice>,
    /// Where the last watch was opened: one that is silent is opened again elsewhere.
    last_watch: Mutex<Option<usize>>,
    round_trips: Mutex<RoundTrips>,
    clock: Arc<dyn Clock>,
    options: EtcdOptions,
}

/// Whom the stores of a node ask first, and whose answers count.
#[derive(Default)]
struct MemberChoice {
    /// The cluster whose answers count; 0: any.
    pinned: AtomicU64,
    /// The member that answered last, or etcd's leader; asked first.
    preferred: AtomicUsize,
}

/// The last round trips, for the hedge delay.
#[derive(Default)]
struct RoundTrips {
    recent: Vec<Duration>,
    next: usize,
}

// === impl EtcdStore ===

impl EtcdStore {
    /// A client for these endpoints. Connects when first used.
    ///
    /// # Errors
    /// An endpoint or a certificate that cannot be used.
    pub fn new(options: EtcdOptions, clock: Arc<dyn Clock>) -> Result<Self, ConnectError> {
        Self::choosing(options, clock, Arc::default())
    }

    /// The same cluster, on connections of its own and with these options. Whatever either of the two pins or prefers holds
    /// for both.
    ///
    /// # Errors
    /// As [`EtcdStore::new`].
    pub fn again(&self, options: EtcdOptions) -> Result<Self, ConnectError> {
        Self::choosing(options, self.shared.clock.clone(), self.shared.choice.clone())
    }

    fn choosing(
        options: EtcdOptions,
        clock: Arc<dyn Clock>,
        choice: Arc<MemberChoice>,
    ) -> Result<Self, ConnectError> {
        let members = options
            .endpoints
            .iter()
            .map(|e| Member::new(e, &options).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let shared = Shared {
            members,
            choice,
            last_watch: Mutex::default(),
            round_trips: Mutex::default(),
            clock,
            options,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Uses these certificates for every connection from now on; what is open stays open.
    ///
    /// # Errors
    /// They cannot be used; the old ones stay.
    pub fn use_certificates(&self, files: &TlsFiles) -> Result<(), ConnectError> {
        // All of them or none.
        let members = &self.shared.members;
        let fresh: Vec<_> = members.iter().map(|m| m.endpoint_with(files)).collect::<Result<_, _>>()?;
        members.iter().zip(fresh).for_each(|(member, endpoint)| member.set_endpoint(endpoint));
        Ok(())
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn call(&self, request: Request) -> Result<Response, StoreError> {
        let budget = self.shared.options.request_timeout;
        match tokio::time::timeout(budget, self.shared.hedged(&request)).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unknown(format!("none within {budget:?} from {}", self.location()))),
        }
    }

    fn renew(&self, lease: LeaseId) -> BoxStream<'static, Result<Renewal, StoreError>> {
        keepalive::renew(self.shared.clone(), lease)
    }

    async fn watch(
        &self,
        range: KeyRange,
        after: Revision,
        alive_every: Duration,
    ) -> Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError> {
        let member = self.shared.member_to_watch();
        let open = watch::open(&self.shared, member, range, after, alive_every);
        tokio::time::timeout(self.shared.options.connect_timeout * 2, open)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unknown("the watch was not opened in time".into())))
    }

    fn location(&self) -> String {
        self.shared.options.endpoints.join(", ")
    }
}

#[async_trait]
impl Places for EtcdStore {
    fn pin(&self, cluster: u64) {
        self.shared.choice.pinned.store(cluster, Ordering::Relaxed);
    }

    async fn clusters(&self) -> Vec<Belongs> {
        self.shared.clusters(self.shared.options.request_timeout).await
    }

    async fn diagnose(&self, question: &Request) -> String {
        let probes = self.probe(question, self.shared.options.connect_timeout).await;
        let told = probes.iter().map(|probe| match probe.fault() {
            Some(finding) => format!("{} {finding}; {}", probe.place, finding.fix()),
            None => format!("{} answers", probe.place),
        });
        told.collect::<Vec<_>>().join("\n")
    }
}

#[async_trait]
impl Health for EtcdStore {
    fn slowest(&self) -> Option<(String, Duration)> {
        let now = self.shared.clock.now();
        let slow = self.shared.members.iter().max_by_key(|m| m.latency(now))?;
        Some((slow.name().to_owned(), slow.latency(now)))
    }

    async fn probe(&self, question: &Request, timeout: Duration) -> Vec<Probe> {
        let clock = self.shared.clock.as_ref();
        let looks = self.shared.members.iter().enumerate().map(async |(index, member)| {
            let probe = member.probe(clock, question, timeout).await;
            match (probe.says().map(|status| status.cluster), self.shared.pinned()) {
                (Some(cluster), pinned) if pinned != 0 && cluster != pinned => {
                    Probe { found: Some(Finding::Stray { cluster, pinned }), ..probe }
                }
                (Some(cluster), _) if probe.leads() => {
                    self.shared.prefer_leader(index, cluster);
                    probe
                }
                _ => probe,
            }
        });
        join_all(looks).await
    }
}

// === impl Shared ===

impl Shared {
    /// The members in the order in which to ask them.
    fn order(&self) -> impl Iterator<Item = (usize, Arc<Member>)> {
        let (first, n) = (self.preferred(), self.members.len());
        (0..n).map(move |i| (first + i) % n).map(|i| (i, self.members[i].clone()))
    }

    /// This member of that cluster leads etcd. It may only believe so, but then it is asked in vain once: who answers
    /// instead is preferred from then on.
    fn prefer_leader(&self, index: usize, cluster: u64) {
        if [0, cluster].contains(&self.pinned()) {
            self.prefer(index);
        }
    }

    /// This member is asked first from now on.
    fn prefer(&self, index: usize) {
        self.choice.preferred.store(index, Ordering::Relaxed);
    }

    fn preferred(&self) -> usize {
        self.choice.preferred.load(Ordering::Relaxed)
    }

    /// The preferred member, unless the last watch was opened there: it may be the one that is silent.
    fn member_to_watch(&self) -> Arc<Member> {
        let preferred = self.preferred();
        let mut last = self.last_watch.lock().unwrap_or_else(|e| e.into_inner());
        let index = if *last == Some(preferred) { (preferred + 1) % self.members.len() } else { preferred };
        *last = Some(index);
        self.members[index].clone()
    }

    async fn hedged(&self, request: &Request) -> Result<Response, StoreError> {
        let mut waiting = self.order();
        let mut asked = FuturesUnordered::new();
        let mut failures: Vec<StoreError> = Vec::new();
        let mut copies = 0;
        loop {
            if let Some((index, member)) = waiting.next() {
                copies += 1;
                asked.push(async move { (index, self.ask(&member, request).await) });
            } else if asked.is_empty() {
                return Err(worst(failures));
            }
            let more = waiting.size_hint().0 > 0;
            tokio::select! {
                biased;
                Some((index, answer)) = asked.next() => match answer {
                    Err(e) if is_worth_another(&e) => failures.push(e),
                    // This copy was refused; another one may have been heard, or may be the very reason.
                    Err(StoreError::Refused(_, why)) if copies > 1 && request.writes() => {
                        return Err(StoreError::Unknown(why));
                    }
                    answer => {
                        self.prefer(index);
                        return answer;
                    }
                },
                () = tokio::time::sleep(self.hedge_delay()), if more => {}
            }
        }
    }

    async fn ask(&self, member: &Arc<Member>, request: &Request) -> Result<Response, StoreError> {
        let started = self.clock.now();
        let answer = self.ask_own(member, request).await;
        match answer {
            Ok(response) => {
                self.record_round_trip(self.clock.now().since(started));
                Ok(response)
            }
            Err(e) if permission::is_missing(&e) => Err(self.name_permission(member, request, e).await),
            Err(e) => Err(e),
        }
    }

    fn record_round_trip(&self, took: Duration) {
        self.round_trips.lock().unwrap_or_else(|e| e.into_inner()).record(took);
    }

    /// h: three times the 95th percentile of the last round trips.
    fn hedge_delay(&self) -> Duration {
        let p95 = self.round_trips.lock().unwrap_or_else(|e| e.into_inner()).p95();
        (p95 * 3).clamp(HEDGE_MIN, self.options.hedge_max.max(HEDGE_MIN))
    }
}

/// Could another member answer better? A refusal on its merits is final.
fn is_worth_another(e: &StoreError) -> bool {
    matches!(e, StoreError::Unknown(_) | StoreError::Refused(Refusal::NotSent | Refusal::NotAStore, _))
}

/// What to say when nobody could answer: unknown, if any of the copies may have been heard.
fn worst(failures: Vec<StoreError>) -> StoreError {
    let unknown = failures.iter().position(|e| e.refusal().is_none());
    let pick = unknown.unwrap_or(0);
    failures.into_iter().nth(pick).unwrap_or_else(|| StoreError::Unknown("no etcd endpoint".into()))
}

// === impl RoundTrips ===

impl RoundTrips {
    fn record(&mut self, took: Duration) {
        if self.recent.len() < ROUND_TRIPS_MAX {
            self.recent.push(took);
        } else {
            self.recent[self.next] = took;
        }
        self.next = (self.next + 1) % ROUND_TRIPS_MAX;
    }

    fn p95(&self) -> Duration {
        let mut sorted = self.recent.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) * 95 / 100).copied().unwrap_or(HEDGE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;

    #[test]
    fn a_pin_holds_for_both_stores_of_a_node() {
        let options = EtcdOptions {
            endpoints: vec!["127.0.0.1:9".to_owned()],
            tls: None,
            login: None,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
            hedge_max: Duration::from_secs(1),
        };
        let new = || EtcdStore::new(options.clone(), Arc::new(SimClock::default())).unwrap();
        let (first, stranger) = (new(), new());
        let second = first.again(options.clone()).unwrap();
        first.pin(7);
        assert_eq!((second.shared.pinned(), stranger.shared.pinned()), (7, 0));
    }
}
