//! `metad doctor` and `metad check`: the checks, on a terminal and for monitoring.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use super::args::{CheckArgs, CheckFormat, DoctorArgs, DoctorFormat};
use super::settings::{self, ClusterSettings};
use super::{Failure, asking, output, role};
use crate::api::view::checks::ReportDocument;
use crate::clock::{Clock, OsClock};
use crate::diagnosis::checks::background::AT_ONCE;
use crate::diagnosis::checks::catalog::Group;
use crate::diagnosis::checks::collect::{Depth, meta};
use crate::diagnosis::checks::examine::{self, Plan, UnknownCheck};
use crate::diagnosis::checks::facts::{MetaFacts, Seen};
use crate::diagnosis::checks::render::{self, Colours};
use crate::diagnosis::checks::{Check, Finding, Outcome, Report, Skipped, Status, catalog};
use crate::election::exit::Exit;
use crate::telemetry::terminal::plain;

/// How many reads are measured at each endpoint.
const READS: usize = 20;
/// What a node found longer ago than this is found out again.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How long `metad check` watches etcd's counters, where no node has done so.
const CHECK_SAMPLE: Duration = Duration::from_secs(1);

/// `metad doctor`.
pub(super) async fn doctor(args: DoctorArgs) -> Result<i32, Failure> {
    if args.list {
        return output::print(&render::list()).map(|()| 0);
    }
    if args.role {
        return role::print(&args.settings);
    }
    let ClusterSettings { loaded, whose, target } =
        settings::load_as_a_node_has(&args.settings, &args.meta).await?;
    let depth = Depth { sample: args.sample, writes: !args.no_write_probe, reads: READS };
    let plan = Plan {
        config: loaded.config,
        warnings: loaded.warnings,
        addresses: target.addresses,
        credentials: target.credentials,
        unusable: target.unusable,
        depth,
        only: args.only,
        skip: args.skip,
    };
    plan.check_names().map_err(unknown)?;
    let is_table = args.output == DoctorFormat::Table;
    if is_table {
        output::print(&format!("settings of {}\n", plain(&whose)))?;
    }
    let mut printed = Ok(());
    let mut report = examine::examine(&plan, Arc::new(OsClock), |group, report| {
        if is_table && printed.is_ok() {
            printed = output::print(&render::group(group, report, colours()));
        }
    })
    .await;
    printed?;
    let left_out = skipped(&report);
    if !plan.only.is_empty() {
        report.findings.extend(report.skipped.drain(..).filter_map(not_known));
    }
    match args.output {
        DoctorFormat::Table => output::print(&format!("{left_out}{}", render::summary(&report))),
        DoctorFormat::Json => output::print_json(&ReportDocument::of(&report)),
        DoctorFormat::Markdown => output::print(&render::markdown(&report)),
    }?;
    Ok(report.status().code())
}

/// `metad check`: what a running node says, and what none says, found out here.
pub(super) async fn check(args: CheckArgs) -> Result<i32, Failure> {
    let ClusterSettings { loaded, target, .. } =
        settings::load_as_a_node_has(&args.settings, &args.meta).await?;
    let mut plan = Plan {
        config: loaded.config,
        warnings: loaded.warnings,
        addresses: target.addresses.clone(),
        credentials: target.credentials.clone(),
        unusable: target.unusable.clone(),
        depth: Depth { sample: CHECK_SAMPLE, writes: true, reads: READS },
        only: args.codes,
        skip: vec![],
    };
    plan.check_names().map_err(unknown)?;
    // One that hangs is waited for only if it is registered: then its silence is an answer.
    let answering = asking::answering(&target).await;
    if !answering.is_empty() {
        plan.addresses = answering;
    }
    let clock: Arc<dyn Clock> = Arc::new(OsClock);
    let (told, looked_ago) = told_by_a_node(&plan, &clock).await;
    plan.only.retain(|name| !told.iter().any(|f| catalog::find(name).is_some_and(|c| c.code == f.code)));
    let mut report = Report::default();
    if !plan.only.is_empty() {
        report = examine::examine(&plan, clock, |_, _| {}).await;
    }
    let is_told = |f: &Finding| !AT_ONCE.contains(&f.code.as_str()) && told.iter().any(|t| t.code == f.code);
    report.findings.extend(told.iter().cloned());
    report.findings.extend(report.skipped.drain(..).filter_map(not_known));
    match args.output {
        CheckFormat::Text => {
            let dated = |f: &Finding| {
                let age =
                    if is_told(f) { format!(" ({} s ago)", looked_ago.as_secs()) } else { String::new() };
                render::finding(&Finding { measured: f.measured.clone() + &age, ..f.clone() }, colours())
            };
            let lines: String = report.findings.iter().map(dated).collect();
            output::print(&format!("{lines}{}", skipped(&report)))
        }
        CheckFormat::Json => output::print_json(&ReportDocument::of(&report)),
        CheckFormat::Nagios => output::print(&render::nagios(&report)),
    }?;
    Ok(report.status().code())
}

/// What was asked for, as far as the first node that answers has found it out, and how long ago that was.
async fn told_by_a_node(plan: &Plan, clock: &Arc<dyn Clock>) -> (Vec<Finding>, Duration) {
    let nobody = MetaFacts { registered: Some(vec![]), ..MetaFacts::default() };
    let asked = meta::collect(nobody, &plan.addresses, &plan.credentials, clock).await;
    let first = asked.answers.into_iter().find_map(|a| a.seen.ok());
    let told = |seen: Seen| (usable(seen.findings, seen.looked_ago, &plan.only), seen.looked_ago);
    first.map(told).unwrap_or_default()
}

/// Some it counts all the time; the rest is as old as its last look.
fn usable(found: Vec<Finding>, looked_ago: Duration, wanted: &[String]) -> Vec<Finding> {
    let is_fresh = looked_ago < FRESH;
    // Who leads and who is there can be asked now, and a minute ago is no answer to that.
    let may_be_old = |c: &Check| is_fresh && !matches!(c.group, Group::Leader | Group::Cluster);
    let counts = |c: &Check, f: &Finding| c.code == f.code && (may_be_old(c) || AT_ONCE.contains(&c.code));
    let is_wanted = |f: &Finding| wanted.iter().any(|n| catalog::find(n).is_some_and(|c| counts(c, f)));
    found.into_iter().filter(is_wanted).collect()
}

/// What was asked for by name and could not be looked at is not fine: monitoring must see that.
fn not_known(skipped: Skipped) -> Option<Finding> {
    let outcome = Outcome::new(Status::Unknown, format!("not checked: {}", skipped.why), "an answer");
    Some(Finding::of(
        catalog::find(skipped.code)?,
        outcome.fix("name a node that runs with --meta, or the configuration of one with --config"),
    ))
}

fn unknown(e: UnknownCheck) -> Failure {
    Failure::new(Exit::Usage.code(), e.to_string())
}

fn colours() -> Colours {
    let on = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if on { Colours::On } else { Colours::Off }
}

fn skipped(report: &Report) -> String {
    let lines = report.skipped.iter().map(|s| format!("  - {} skipped: {}\n", s.code, plain(&s.why)));
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("not checked\n{lines}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_found_long_ago_is_found_out_again() {
        let finding = |name| Finding::of(catalog::find(name).unwrap(), Outcome::new(Status::Pass, "m", "l"));
        let found = || ["ETCD_001", "LEADER_003", "HOST_007"].map(finding).to_vec();
        let codes = |looked_ago, wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|n| (*n).to_owned()).collect();
            let usable = usable(found(), looked_ago, &wanted);
            usable.into_iter().map(|f| f.code).collect::<Vec<_>>()
        };
        let all = ["etcd-endpoints", "LEADER_003", "host_007"];
        assert_eq!(codes(Duration::ZERO, &all), ["ETCD_001", "LEADER_003", "HOST_007"]);
        assert_eq!(codes(FRESH, &all), ["LEADER_003"], "that one is counted all the time");
        assert_eq!(codes(Duration::ZERO, &["etcd-endpoints"]), ["ETCD_001"], "nothing else was asked for");
    }
}
