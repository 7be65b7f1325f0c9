//! Asks etcd, member by member.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::super::facts::{EndpointFacts, EtcdFacts, REVISIONS_MAX};
use super::super::page::{Etcd, Learned};
use super::elections::Elections;
use super::{Depth, TIMEOUT};
use crate::clock::{Clock, Instant};
use crate::config::Config;
use crate::election::record::Revision;
use crate::store::codec::Keys;
use crate::store::etcd::inspect::{Inspector, ListedMember};
use crate::store::open::{self, OpenError};
use crate::store::probe::{self, MemberStatus, Probe};

/// How many writes are measured, and how long they may take together.
const WRITES: usize = 20;
const WRITES_TIME_MAX: Duration = Duration::from_secs(5);
/// The lease that they hang on, which ends them if we cannot.
const WRITES_LEASE: Duration = Duration::from_secs(10);
/// The most voters that are looked for at addresses that are not configured, and the most addresses of each.
const OTHERS_MAX: usize = 16;
const ADDRESSES_MAX: usize = 2;

/// Asks the configured endpoints, and remembers their counters for the next time.
pub struct EtcdCollector {
    config: Config,
    clock: Arc<dyn Clock>,
    inspectors: Vec<Inspector>,
    before: Vec<Option<Before>>,
    elections: Elections,
    revision_before: Option<(u64, Instant)>,
}

/// An earlier metrics page.
struct Before {
    page: Etcd,
    at: Instant,
}

impl EtcdCollector {
    /// For the configured endpoints.
    ///
    /// # Errors
    /// A certificate or a password that cannot be read.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let inspectors = open::inspectors(config, &clock, TIMEOUT)?;
        let before = inspectors.iter().map(|_| None).collect();
        Ok(Self {
            config: config.clone(),
            clock,
            inspectors,
            before,
            elections: Elections::default(),
            revision_before: None,
        })
    }

    /// Reads the certificates again. Those that cannot be used leave the old ones in force.
    pub fn reopen(&mut self) {
        if let Ok(inspectors) = open::inspectors(&self.config, &self.clock, TIMEOUT) {
            self.inspectors = inspectors;
        }
    }

    /// Looks at each member, where no node has done so.
    pub async fn probe(&self) -> Vec<Probe> {
        let keys = Keys::new(&self.config.node.cluster, &self.config.meta.group);
        let question = probe::question(&keys);
        join_all(self.inspectors.iter().map(|i| i.probe(&question))).await
    }

    /// Asks what a look at each member has not shown yet. `probes`: those looks; without them it looks itself.
    pub async fn collect(&mut self, depth: Depth, probes: Option<Vec<Probe>>) -> EtcdFacts {
        // Before the counters are read: to etcd 3.4 a read that is answered late is a slow apply.
        let probes = match probes {
            Some(probes) => probes,
            None => self.probe().await,
        };
        let began = self.clock.now();
        if !depth.sample.is_zero() {
            self.remember_pages(&probes).await;
        }
        let prefix = self.prefix();
        let asked = self.inspectors.iter().zip(probes).map(|(i, p)| ask(i, p, depth, &prefix));
        let mut facts = EtcdFacts { endpoints: join_all(asked).await, ..EtcdFacts::default() };
        if let Some(best) = best_informed(&facts).map(|i| &self.inspectors[i]) {
            self.ask_cluster(best, depth, &mut facts).await;
        }
        let rest = depth.sample.saturating_sub(self.clock.now().since(began));
        tokio::time::sleep(rest).await;
        self.compare_pages(&mut facts).await;
        facts.elections = self.elections.growth();
        self.count_writes(&mut facts).await;
        facts
    }

    /// Where our keys are.
    fn prefix(&self) -> String {
        format!("/metad/{}/", self.config.node.cluster)
    }

    async fn remember_pages(&mut self, probes: &[Probe]) {
        let pages = self.pages(probes.iter()).await;
        let now = self.clock.now();
        self.elections.note(now, &pages);
        self.before = pages.into_iter().map(|p| p.ok().map(|page| Before { page, at: now })).collect();
    }

    async fn compare_pages(&mut self, facts: &mut EtcdFacts) {
        let pages = self.pages(facts.endpoints.iter().map(|e| &e.probe)).await;
        let now = self.clock.now();
        self.elections.note(now, &pages);
        for ((facts, page), slot) in facts.endpoints.iter_mut().zip(pages).zip(&mut self.before) {
            let next = page.as_ref().ok().map(|page| Before { page: page.clone(), at: now });
            let then = std::mem::replace(slot, next);
            facts.page_before = then.map(|b| (b.page, now.since(b.at)));
            facts.page = page;
        }
    }

    /// The metrics of those that answer. Whoever does not would be waited for again.
    async fn pages(&self, probes: impl Iterator<Item = &Probe>) -> Vec<Result<Etcd, String>> {
        let asked = self.inspectors.iter().zip(probes).map(async |(inspector, probe)| match &probe.status {
            Ok(_) => Etcd::read(&inspector.page("/metrics").await?),
            Err(why) => Err(why.clone()),
        });
        join_all(asked).await
    }

    /// Writes in a second: the growth of the revision.
    async fn count_writes(&mut self, facts: &mut EtcdFacts) {
        let first = facts.answering().map(|(e, s)| (s.revision, e.probe.at)).max_by_key(|(r, _)| *r);
        let earlier = self.revision_before.take().or(first);
        let Some(i) = facts.endpoints.iter().position(|e| e.probe.status.is_ok()) else { return };
        let Ok(status) = self.inspectors[i].status().await else { return };
        let now = self.clock.now();
        self.revision_before = Some((status.revision, now));
        if let Some((revision, at)) = earlier {
            let secs = now.since(at).as_secs_f64().max(0.1);
            facts.writes_per_sec = Some(status.revision.saturating_sub(revision) as f64 / secs);
        }
    }

    /// What any member can tell about all.
    async fn ask_cluster(&self, first: &Inspector, depth: Depth, facts: &mut EtcdFacts) {
        facts.members = first.members().await.ok();
        facts.others = self.look_for_others(facts).await;
        facts.request_bytes_max = first.request_bytes_max().await.ok();
        let revision = facts.answering().map(|(_, s)| s.revision).max().unwrap_or(0);
        if revision > REVISIONS_MAX {
            facts.never_compacted = first.is_readable_at("/metad/", Revision(1)).await.ok();
        }
        // Without a leader these only wait, and count as failed; that there is none is said elsewhere.
        if depth.writes && facts.answering().any(|(_, s)| s.leader != 0) {
            facts.shortest_lease = Some(shortest_lease(first).await);
            facts.writes = Some(self.write(first).await);
        }
    }

    /// The voters that no configured endpoint leads to. etcd lets anybody ask for its status, so nobody logs in there.
    async fn look_for_others(&self, facts: &EtcdFacts) -> Vec<(String, bool)> {
        let known = |m: &&ListedMember| facts.answering().any(|(_, s)| s.member == m.id);
        let others = facts.members.iter().flatten().filter(|m| !m.is_learner && !known(m));
        let configured = |url: &String| facts.endpoints.iter().any(|e| &e.probe.place == url);
        let looks =
            others.take(OTHERS_MAX).filter(|m| !m.client_urls.iter().any(configured)).map(async |m| {
                let name = if m.name.is_empty() { format!("{:x}", m.id) } else { m.name.clone() };
                for url in m.client_urls.iter().take(ADDRESSES_MAX) {
                    let inspector = open::inspector_of_stranger(&self.config, url, &self.clock, TIMEOUT / 2);
                    if let Ok(inspector) = inspector
                        && inspector.status().await.is_ok_and(|s| s.member == m.id)
                    {
                        return (name, true);
                    }
                }
                (name, false)
            });
        join_all(looks).await
    }

    async fn write(&self, to: &Inspector) -> Result<Vec<Duration>, String> {
        let (lease, _) = to.grant(WRITES_LEASE).await?;
        let key = format!("{}doctor/{lease}", self.prefix());
        let (began, mut took) = (self.clock.now(), Ok(Vec::new()));
        for i in 0..WRITES {
            match (&mut took, to.write(&key, &i.to_string(), lease).await) {
                (Ok(all), Ok(one)) => all.push(one),
                (_, Err(why)) => took = Err(why),
                (Err(_), Ok(_)) => {}
            }
            if took.is_err() || self.clock.now().since(began) > WRITES_TIME_MAX {
                break;
            }
        }
        let _ = to.revoke(lease).await; // it ends by itself
        took
    }
}

/// Whom to ask about all: etcd's leader, else a voter that knows one, else anybody.
fn best_informed(facts: &EtcdFacts) -> Option<usize> {
    let answering = facts.endpoints.iter().enumerate().filter_map(|(i, e)| Some((i, e.probe.says()?)));
    let knows = |s: &MemberStatus| (s.leader != 0 && s.leader == s.member, s.leader != 0 && !s.is_learner);
    // Of several that are as good the first one: they are in the order of the configuration.
    answering.max_by_key(|(i, s)| (knows(s), std::cmp::Reverse(*i))).map(|(i, _)| i)
}

async fn shortest_lease(of: &Inspector) -> Result<Duration, String> {
    let (lease, granted) = of.grant(Duration::from_secs(1)).await?;
    let _ = of.revoke(lease).await; // it ends by itself
    Ok(granted)
}

/// The reads are spread over the time of the sample: a member that stands still again and again answers quickly in
/// between.
async fn ask(inspector: &Inspector, probe: Probe, depth: Depth, key: &str) -> EndpointFacts {
    let mut facts = EndpointFacts {
        probe,
        reads: Vec::new(),
        page: Err("not asked for".to_owned()),
        page_before: None,
        learned: None,
    };
    if facts.probe.status.is_err() {
        return facts;
    }
    let pause = depth.sample / u32::try_from(depth.reads.max(1)).unwrap_or(u32::MAX);
    for i in 0..depth.reads {
        if i > 0 {
            tokio::time::sleep(pause).await;
        }
        match inspector.read(key).await {
            Ok(took) => facts.reads.push(took),
            Err(_) => break,
        }
    }
    facts.learned = inspector.page("/debug/vars").await.ok().map(|page| Learned::read(&page));
    facts
}
