//! `metad advise lease`: which lease fits, from what a node has recorded.

use std::path::Path;
use std::time::Duration;

use super::args::{AdviseArgs, AdviseCommand, OutputFormat};
use super::query::CANNOT_ASK;
use super::{Failure, output, settings};
use crate::api::view::advice::{AdviceDocument, LeaseTrial};
use crate::config::{Config, Origin};
use crate::diagnosis::advice;
use crate::election::exit::Exit;
use crate::journal::stalls::{KEPT_DAYS, StallRecord, file};

/// Exit 0: a lease is recommended; 1: there is too little to say so.
pub(super) fn advise(args: &AdviseArgs) -> Result<i32, Failure> {
    let AdviseCommand::Lease { settings, output } = &args.command;
    let loaded = settings::load(settings)?;
    let config = loaded.config;
    let record = read(&config.node.data_dir)?;
    // Whoever names the data dir alone means the lease that the node has.
    let is_given = *loaded.origins.get("meta.meta_leader_lease_secs") != Origin::Default;
    let recorded = record.last_ttl().filter(|_| !is_given);
    let ttl = recorded.unwrap_or(Duration::from_secs(config.meta.meta_leader_lease_secs));
    let advice = advice::advise(&record, ttl, config.checks.expected_members == 1);
    let document = AdviceDocument::from(&advice);
    match output {
        OutputFormat::Json => output::print_json(&document)?,
        OutputFormat::Table => output::print(&text(&document, &config))?,
    }
    Ok(if document.recommended_secs.is_some() { 0 } else { CANNOT_ASK })
}

/// A data dir without a recording is one of a node that has not led yet; one that is not there is a mistake.
fn read(dir: &Path) -> Result<StallRecord, Failure> {
    let shown = dir.display();
    if !dir.is_dir() {
        let message = format!(
            "there is no data dir at {shown}\nfix: name the one that the node uses, with --data-dir or --config"
        );
        return Err(Failure::new(Exit::Config.code(), message));
    }
    let read = file::read(dir).map_err(|e| {
        let message = format!(
            "cannot read {shown}/stalls: {e}\nfix: ask as the user that the node runs as; a file that is damaged is begun anew \
             when the node starts"
        );
        Failure::new(Exit::Io.code(), message)
    })?;
    Ok(read.unwrap_or_default())
}

fn text(document: &AdviceDocument, config: &Config) -> String {
    let mut text = format!("recorded    {}\n", recorded(document));
    text += &format!("stalls      {}\n", stalls(document));
    if let Some(headroom) = document.lowest_headroom {
        let percent = headroom * 100.0;
        text += &format!("headroom    {percent:.0} % of the lease were left at the latest renewal\n");
    }
    text += &format!("\n{}\n", table(document));
    text += &process_dies(config);
    text += &format!("\n{}\n", recommendation(document));
    text
}

fn recorded(document: &AdviceDocument) -> String {
    let Some(began) = document.began else { return format!("nothing yet, of at most {KEPT_DAYS} days") };
    let led = output::span(document.led_ms);
    format!("since {began}; this node has led for {led} of it")
}

fn stalls(document: &AdviceDocument) -> String {
    let of = |n: usize, longest: u64| match n {
        0 => "none".to_owned(),
        n => format!("{n}, the longest {}", output::span(longest)),
    };
    let mut text = format!(
        "of the store {}; of this process {}",
        of(document.store_stalls, document.longest_store_stall_ms),
        of(document.process_stalls, document.longest_process_stall_ms)
    );
    if document.lost > 0 {
        text += &format!("; {} cost the leadership", document.lost);
    }
    if document.unended > 0 {
        text += &format!(", {} of them not seen to end", document.unended);
    }
    if document.left_out > 0 {
        text += &format!("; {} shorter ones are not kept", document.left_out);
    }
    text
}

fn table(document: &AdviceDocument) -> String {
    let mut t = output::table(&["LEASE", "LOSSES", "SURVIVES A STALL OF", "A MACHINE DIES: NO LEADER FOR"]);
    for trial in &document.leases {
        let mark = match trial.lease_secs {
            secs if Some(secs) == document.recommended_secs => " (recommended)",
            secs if secs == document.configured_secs => " (configured)",
            _ => "",
        };
        t.add_row([
            format!("{} s{mark}", trial.lease_secs),
            losses(trial),
            output::span(trial.survives_ms),
            format!("at most {}", output::span(trial.machine_dies_ms)),
        ]);
    }
    t.to_string()
}

fn losses(trial: &LeaseTrial) -> String {
    let LeaseTrial { at_least, likely, at_most, .. } = trial;
    if at_least == at_most { likely.to_string() } else { format!("{likely} ({at_least} to {at_most})") }
}

/// What costs the same under every lease.
fn process_dies(config: &Config) -> String {
    let has_guardian = config.node.guardian || config.node.guardian_socket.is_some();
    let text = if has_guardian {
        "A process that dies is replaced in milliseconds, whatever the lease: its guardian revokes it."
    } else {
        "A process that dies costs as much as a machine: node.guardian is false."
    };
    format!("{text}\n")
}

fn recommendation(document: &AdviceDocument) -> String {
    let Some(secs) = document.recommended_secs else {
        return format!("no recommendation: {}", document.why);
    };
    let set = if secs == document.configured_secs {
        "which is configured".to_owned()
    } else {
        format!("meta.meta_leader_lease_secs = {secs} on every node")
    };
    format!("recommended: {secs} s, {set}: {}", document.why)
}
