//! Findings, written down: for a terminal, for a ticket, for Nagios.

use super::catalog::{self, Check, Group};
use super::{Finding, Report, Status};
use crate::telemetry::terminal::{plain, plain_lines};

/// Does the reader see colours?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// A terminal.
    On,
    /// A file, or a reader that does not want them.
    Off,
}

/// A group, as lines of text.
pub fn group(group: Group, report: &Report, colours: Colours) -> String {
    if report.findings.is_empty() {
        return String::new();
    }
    let lines: String = report.findings.iter().map(|f| finding(f, colours)).collect();
    format!("{}\n{lines}", group.as_str())
}

/// One finding, as lines of text: one if it passed, else with reason and remedy.
pub fn finding(f: &Finding, colours: Colours) -> String {
    let (title, measured) = (plain(&f.title), plain_lines(&f.measured));
    let mut text = format!("  {} {} {title}: {measured}", sign(f.status, colours), plain(&f.code));
    if f.status != Status::Pass {
        text.push_str(&format!(" (limit: {})\n      Why: {}", plain_lines(&f.limit), plain_lines(&f.why)));
        if !f.fix.is_empty() {
            text.push_str(&format!("\n      Fix: {}", plain_lines(&f.fix)));
        }
    }
    text.push('\n');
    text
}

/// A check and all that is known of it before it is made.
pub fn explanation(check: &Check) -> String {
    let Check { code, name, title, limit, why, fix, .. } = check;
    format!("{code} ({name}): {title}\n  Limit: {limit}\n  Why: {why}\n  Fix: {fix}\n")
}

/// All checks by group, for those who look for a name.
pub fn list() -> String {
    let mut text = String::new();
    for group in Group::ALL {
        text.push_str(&format!("{}\n", group.as_str()));
        for c in catalog::of(group) {
            text.push_str(&format!("  {:<12} {:<22} {}\n", c.code, c.name, c.title));
        }
    }
    text
}

fn sign(status: Status, colours: Colours) -> String {
    let (sign, colour) = match status {
        Status::Pass => ("√", 32),
        Status::Warn => ("‼", 33),
        Status::Fail => ("×", 31),
        Status::Unknown => ("?", 35),
    };
    if colours == Colours::On { format!("\u{1b}[{colour}m{sign}\u{1b}[0m") } else { sign.to_owned() }
}

/// The last line: how many of each, and the exit code.
pub fn summary(report: &Report) -> String {
    let n = |status| report.count(status);
    format!(
        "{} passed, {} warned, {} failed, {} unknown, {} skipped: {}\n",
        n(Status::Pass),
        n(Status::Warn),
        n(Status::Fail),
        n(Status::Unknown),
        report.skipped.len(),
        report.status().as_str()
    )
}

/// A report for a ticket: a table, and what does not pass below it.
pub fn markdown(report: &Report) -> String {
    let cell = |text: &str| plain(&text.replace('|', "\\|").replace('\n', " ")).into_owned();
    let mut text = format!("# metad doctor: {}\n\n", report.status().as_str());
    text.push_str("| code | check | status | measured | limit |\n| --- | --- | --- | --- | --- |\n");
    for f in &report.findings {
        let (title, measured, limit) = (cell(&f.title), cell(&f.measured), cell(&f.limit));
        text.push_str(&format!("| {} | {title} | {} | {measured} | {limit} |\n", f.code, f.status.as_str()));
    }
    for f in report.findings.iter().filter(|f| f.status != Status::Pass) {
        text.push_str(&format!("\n## {}: {}\n\n", f.code, f.title));
        text.push_str(&format!("- measured: {}\n- limit: {}\n- why: {}\n", f.measured, f.limit, f.why));
        if !f.fix.is_empty() {
            text.push_str(&format!("- fix: `{}`\n", f.fix.replace('`', "'")));
        }
    }
    if !report.skipped.is_empty() {
        text.push_str("\nNot checked:\n\n");
    }
    for s in &report.skipped {
        text.push_str(&format!("- {}: {}\n", s.code, s.why));
    }
    text
}

/// One line in the form of Nagios' plug-ins, with perf data.
pub fn nagios(report: &Report) -> String {
    let status = match report.status() {
        Status::Pass => "OK",
        Status::Warn => "WARNING",
        Status::Fail => "CRITICAL",
        Status::Unknown => "UNKNOWN",
    };
    // What hurts comes first; a pipe begins the perf data, so it must not stand in the text.
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|f| std::cmp::Reverse(f.status.severity()));
    let said = findings.iter().map(|f| format!("{} {}", f.code, f.measured));
    let skipped = report.skipped.iter().map(|s| format!("{} skipped: {}", s.code, s.why));
    let text = said.chain(skipped).collect::<Vec<_>>().join("; ").replace('|', "/").replace('\n', " ");
    let text = plain(&text);
    let perf = report.findings.iter().filter_map(|f| {
        let r = f.reading.as_ref()?;
        // "10:" is a range that begins at 10 (Nagios' plug-in guidelines, "threshold and ranges").
        let colon = if r.lower_is_worse { ":" } else { "" };
        Some(format!("'{}'={}{};{}{colon}", f.name, number(r.value), r.unit, number(r.warn)))
    });
    let perf: Vec<String> = perf.collect();
    let bar = if perf.is_empty() { "" } else { " | " };
    format!("METAD {status} - {text}{bar}{}\n", perf.join(" "))
}

/// Three digits behind the point at most, and none without need.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
