//! The whole examination, as `metad doctor` makes it: group by group, each told as soon as it is done.

use std::sync::Arc;

use super::catalog::{self, Check, Group};
use super::collect::etcd::EtcdCollector;
use super::collect::host::HostCollector;
use super::collect::{Depth, meta};
use super::facts::Facts;
use super::{CHECKS, Finding, Report};
use crate::clock::Clock;
use crate::config::Config;
use crate::tls::client::Credentials;

/// The checks that need a write in etcd, and one into the data dir.
const WRITES: [&str; 3] = ["ETCD_009", "LEASE_001", "LEASE_002"];
const WRITES_HERE: [&str; 1] = ["HOST_005"];

/// What to examine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The node's configuration.
    pub config: Config,
    /// What the configuration warns of itself.
    pub warnings: Vec<String>,
    /// Meta nodes to ask, besides those that are registered.
    pub addresses: Vec<String>,
    /// What they are shown.
    pub credentials: Credentials,
    /// Why they are shown nothing, although something was named.
    pub unusable: Option<String>,
    /// How thoroughly.
    pub depth: Depth,
    /// Codes or names; empty: all.
    pub only: Vec<String>,
    /// Codes or names.
    pub skip: Vec<String>,
}

/// A name that no check has.
#[derive(Debug, thiserror::Error)]
#[error("no check is called {0:?}; metad doctor --list names them all")]
pub struct UnknownCheck(pub String);

impl Plan {
    /// Are all names those of checks?
    ///
    /// # Errors
    /// One is not.
    pub fn check_names(&self) -> Result<(), UnknownCheck> {
        let unknown = self.only.iter().chain(&self.skip).find(|name| catalog::find(name).is_none());
        unknown.map_or(Ok(()), |name| Err(UnknownCheck(name.clone())))
    }

    fn wants(&self, check: &Check) -> bool {
        let named = |names: &[String]| names.iter().any(|n| check.is_called(n));
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }

    /// Nothing is written for a check that does not need it.
    fn depth_for(&self, writing: &[&str]) -> Depth {
        let is_wanted = CHECKS.iter().any(|c| writing.contains(&c.code) && self.wants(c));
        Depth { writes: self.depth.writes && is_wanted, ..self.depth }
    }

    fn wants_any(&self, groups: &[Group]) -> bool {
        CHECKS.iter().any(|c| groups.contains(&c.group) && self.wants(c))
    }
}

/// Examines all that is wanted; `tell` gets each group when it is done.
pub async fn examine(plan: &Plan, clock: Arc<dyn Clock>, mut tell: impl FnMut(Group, &Report)) -> Report {
    let mut facts = Facts::of(plan.config.clone(), plan.warnings.clone());
    facts.unusable.clone_from(&plan.unusable);
    let collector = plan.config.store.is_etcd().then(|| EtcdCollector::new(&plan.config, clock.clone()));
    let mut collector = collector
        .and_then(|c| c.map_err(|e| facts.unusable = facts.unusable.take().or(Some(e.to_string()))).ok());
    let mut whole = Report::default();
    let mut judge = |groups: &[Group], facts: &Facts| {
        for group in groups {
            let mut report = Report::default();
            report.judge(catalog::of(*group).filter(|c| plan.wants(c)), facts);
            ask_the_nodes(&mut report, facts);
            tell(*group, &report);
            whole.findings.extend(report.findings);
            whole.skipped.extend(report.skipped);
        }
    };
    judge(&[Group::Config], &facts);
    if plan.wants_any(&[Group::Host, Group::Lease]) {
        let depth = plan.depth_for(&WRITES_HERE);
        facts.host = Some(HostCollector::new(&plan.config, false, clock.clone()).collect(depth).await);
    }
    // The lease is judged by the number of nodes as well.
    if plan.wants_any(&[Group::Host, Group::Leader, Group::Cluster, Group::Lease, Group::Etcd]) {
        let known = meta::in_store(&plan.config, clock.clone()).await;
        facts.meta = Some(meta::collect(known, &plan.addresses, &plan.credentials, &clock).await);
    }
    judge(&[Group::Host, Group::Leader, Group::Cluster], &facts);
    if let Some(collector) = collector.as_mut().filter(|_| plan.wants_any(&[Group::Etcd, Group::Lease])) {
        facts.etcd = Some(collector.collect(plan.depth_for(&WRITES), None).await);
    }
    judge(&[Group::Etcd, Group::Lease], &facts);
    whole
}

/// What only a running node knows: the worst that any of them says.
fn ask_the_nodes(report: &mut Report, facts: &Facts) {
    let answers = || facts.meta.iter().flat_map(|m| &m.answers).filter_map(|a| a.seen.as_ref().ok());
    report.skipped.retain(|skipped| {
        let is_asked = catalog::find(skipped.code).is_some_and(|c| c.asks_a_node);
        let said = answers().flat_map(|s| s.findings.iter().map(move |f| (s, f)));
        let said = said.filter(|(_, f)| is_asked && f.code == skipped.code);
        let Some((who, worst)) = said.max_by_key(|(_, f)| f.status.severity()) else { return true };
        let measured = format!("{} says: {}", who.node, worst.measured);
        report.findings.push(Finding { measured, ..worst.clone() });
        false
    });
}
