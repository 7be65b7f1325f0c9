//! `metad history`: who led when, and why each tenure ended, by whatever member answers.

use serde_json::{Value, json};

use super::args::{HistoryArgs, OutputFormat};
use super::query::{CANNOT_ASK, cannot_ask, connect, print_json};
use super::{Failure, output};
use crate::clock::wall_clock_ms;
use crate::proto::metad::{TenureEnd, TenureInfo, TenureSeen};
use crate::store::codec::rfc3339;
use crate::telemetry::terminal::plain;

/// Oldest first, so that the newest stands just above the prompt.
pub(super) async fn history(args: HistoryArgs) -> Result<i32, Failure> {
    let mut client = connect(&args.meta).await?;
    let answer = client.history(args.since, args.limit).await.map_err(cannot_ask)?;
    let Some(age_ms) = answer.age_ms else {
        let message = format!("metad at {} has not read the history yet; try again", client.address());
        return Err(Failure::new(CANNOT_ASK, message));
    };
    match args.output {
        OutputFormat::Json => print_json(&json!({
            "schema": 1,
            "tenures": answer.tenures.iter().map(tenure_json).collect::<Value>(),
            "age_ms": age_ms,
            "answerer": output::answerer_json(answer.answerer.as_ref()),
        }))?,
        OutputFormat::Table => output::print(&table(&answer.tenures, wall_clock_ms()))?,
    }
    Ok(0)
}

fn table(tenures: &[TenureInfo], now_ms: u64) -> String {
    let mut t = output::table(&["TIME", "LEADER", "TOKEN", "HELD FOR", "GAP", "REASON", "PLANNED", "SEEN"]);
    for tenure in tenures {
        let end = tenure.end.as_ref();
        let held_ms = end.map_or(now_ms, |e| e.at_ms).saturating_sub(tenure.from_ms);
        t.add_row([
            rfc3339(tenure.from_ms).into(),
            plain(&tenure.node),
            tenure.token.to_string().into(),
            span(held_ms).into(),
            tenure.gap_ms.map_or_else(|| "?".to_owned(), span).into(),
            end.map_or("(leads)".into(), |e| plain(&e.reason)),
            end.map_or("", |e| if e.planned { "yes" } else { "no" }).into(),
            plain(&end.map(seen).unwrap_or_default()).into_owned().into(),
        ]);
    }
    format!("{t}\n")
}

/// A tenure as JSON, as the HTTP interface shows it.
pub(super) fn tenure_json(tenure: &TenureInfo) -> Value {
    let end = tenure.end.as_ref();
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let seen_json = |seen: &TenureSeen| {
        json!({
            "ack_age_ms": seen.ack_age_ms,
            "slowest": text(&seen.slowest),
            "slowest_ms": text(&seen.slowest).map(|_| seen.slowest_ms),
            "tick_delay_ms": seen.tick_delay_ms,
        })
    };
    json!({
        "token": tenure.token,
        "node": tenure.node,
        "uuid": tenure.uuid,
        "incarnation": tenure.incarnation,
        "address": tenure.address,
        "from_ms": tenure.from_ms,
        "to_ms": end.map(|e| e.at_ms),
        "reason": end.map(|e| &e.reason),
        "planned": end.map(|e| e.planned),
        "gap_ms": tenure.gap_ms,
        "previous": text(&tenure.previous),
        "detail": end.and_then(|e| text(&e.detail)),
        "seen": end.and_then(|e| e.seen.as_ref()).map(seen_json),
        "said_by": end.map(|e| if e.by_holder { "holder" } else { "successor" }),
    })
}

/// Why a tenure ended, in one line.
pub(super) fn sentence(tenure: &TenureInfo) -> String {
    let Some(end) = &tenure.end else { return format!("{} leads", tenure.node) };
    let planned = if end.planned { "planned" } else { "unplanned" };
    let held = span(end.at_ms.saturating_sub(tenure.from_ms));
    format!("{} led for {held}, ended {planned}: {} {}", tenure.node, end.reason, seen(end))
        .trim_end()
        .to_owned()
}

/// What is known besides the reason. Only what points to the cause of an unplanned end is worth a person's time.
fn seen(end: &TenureEnd) -> String {
    let mut parts: Vec<String> = Vec::new();
    if let Some(seen) = end.seen.as_ref().filter(|_| !end.planned) {
        parts.extend(seen.ack_age_ms.map(|ms| format!("last ack {} old", span(ms))));
        if !seen.slowest.is_empty() {
            parts.push(format!("{} took {}", seen.slowest, span(seen.slowest_ms)));
        }
        parts.push(format!("timer {} late", span(seen.tick_delay_ms)));
    }
    parts.extend(Some(end.detail.clone()).filter(|d| !d.is_empty()));
    parts.join(", ")
}

/// As short as it can be read.
fn span(ms: u64) -> String {
    let secs = ms / 1000;
    match secs {
        0 => format!("{ms} ms"),
        1..60 => format!("{:.1} s", ms as f64 / 1000.0),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        3_600..86_400 => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let shown = [0, 999, 1_500, 61_000, 3_660_000, 90_000_000].map(span);
        assert_eq!(shown, ["0 ms", "999 ms", "1.5 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn a_lost_lease_names_its_cause() {
        let seen = TenureSeen {
            ack_age_ms: Some(4_800),
            slowest: "http://b:2379".into(),
            slowest_ms: 2_100,
            tick_delay_ms: 3,
        };
        let reason = "renew_deadline".to_owned();
        let end = TenureEnd { at_ms: 61_000, reason, seen: Some(seen), ..TenureEnd::default() };
        let tenure = TenureInfo { node: "n1".into(), end: Some(end), ..TenureInfo::default() };
        let text = sentence(&tenure);
        assert_eq!(
            text,
            "n1 led for 1 min 1 s, ended unplanned: renew_deadline last ack 4.8 s old, http://b:2379 took 2.1 s, \
             timer 3 ms late"
        );
        assert!(table(&[tenure], 0).contains("http://b:2379 took 2.1 s"));
    }
}
