//! `metad history`: who led when, and why each tenure ended, by whatever member answers.

use super::Failure;
use super::args::{HistoryArgs, OutputFormat};
use super::asking;
use super::output::{self, span};
use super::query::{CANNOT_ASK, UNKNOWN, cannot_ask};
use crate::api::view::Time;
use crate::api::view::tenure::{HistoryDocument, Tenure};
use crate::telemetry::terminal::plain;

/// Oldest first, so that the newest stands just above the prompt.
pub(super) async fn history(args: HistoryArgs) -> Result<i32, Failure> {
    let mut client = asking::first(&args.meta).await?.member;
    let answer = client.history(args.since, args.limit).await.map_err(cannot_ask)?;
    let document = HistoryDocument::from(answer);
    if document.age_ms.is_none() {
        let message = format!("metad at {} has not read the history yet; try again", client.address());
        return Err(Failure::new(CANNOT_ASK, message));
    }
    match args.output {
        OutputFormat::Json => output::print_json(&document)?,
        OutputFormat::Table => {
            let who = output::answerer_line(&document.answerer);
            output::print(&format!("{}\n{who}", table(&document, Time::now())))?;
        }
    }
    Ok(if document.answerer.is_outdated { UNKNOWN } else { 0 })
}

fn table(document: &HistoryDocument, now: Time) -> String {
    let leads = |tenure: &Tenure| document.leader_token == Some(tenure.token);
    let open = |tenure: &Tenure| match leads(tenure) {
        true => "(leads)",
        // It may have ended since the store last answered.
        false if document.answerer.is_outdated => "(unknown)",
        false => "(ended; why is not reported yet)",
    };
    // Of one that has ended nobody knows how long it lasted until its end is written.
    let held_for = |tenure: &Tenure| match tenure.to.is_some() || leads(tenure) {
        true => held(tenure, now),
        false => "?".to_owned(),
    };
    let mut t = output::table(&["TIME", "LEADER", "TOKEN", "HELD FOR", "GAP", "REASON", "PLANNED", "SEEN"]);
    for tenure in &document.tenures {
        t.add_row([
            tenure.from.to_string().into(),
            plain(&tenure.node),
            tenure.token.to_string().into(),
            held_for(tenure).into(),
            gap(tenure).into(),
            tenure.reason.as_deref().map_or_else(|| open(tenure).into(), plain),
            tenure.planned.map_or("", |planned| if planned { "yes" } else { "no" }).into(),
            plain(&seen(tenure)).into_owned().into(),
        ]);
    }
    format!("{t}\n")
}

/// How long nobody had led before it.
fn gap(tenure: &Tenure) -> String {
    let at_least = if tenure.gap_at_least { "≥ " } else { "" };
    tenure.gap_ms.map_or_else(|| "?".to_owned(), |ms| format!("{at_least}{}", span(ms)))
}

/// Why a tenure ended, in one line.
pub(super) fn sentence(tenure: &Tenure) -> String {
    let Some((reason, to)) = tenure.reason.as_ref().zip(tenure.to) else {
        return format!("{} leads", tenure.node);
    };
    let planned = if tenure.planned == Some(true) { "planned" } else { "unplanned" };
    let held = held(tenure, to);
    format!("{} led for {held}, ended {planned}: {reason} {}", tenure.node, seen(tenure))
        .trim_end()
        .to_owned()
}

/// How long it lasted, or has lasted.
fn held(tenure: &Tenure, now: Time) -> String {
    span(tenure.to.unwrap_or(now).0.saturating_sub(tenure.from.0))
}

/// What is known besides the reason. Only what points to the cause of an unplanned end is worth a person's time.
fn seen(tenure: &Tenure) -> String {
    let mut parts: Vec<String> = Vec::new();
    if let Some(seen) = tenure.seen.as_ref().filter(|_| tenure.planned == Some(false)) {
        parts.extend(seen.ack_age_ms.map(|ms| format!("last ack {} old", span(ms))));
        let slowest = seen.slowest.as_ref().zip(seen.slowest_ms);
        parts.extend(slowest.map(|(slowest, ms)| format!("{slowest} took {}", span(ms))));
        parts.push(format!("timer {} late", span(seen.tick_delay_ms)));
    }
    parts.extend(tenure.detail.clone());
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::metad::{Answerer, HistoryResponse, TenureEnd, TenureInfo, TenureSeen};

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
        let tenure = Tenure::from(TenureInfo { node: "n1".into(), end: Some(end), ..TenureInfo::default() });
        let text = sentence(&tenure);
        assert_eq!(
            text,
            "n1 led for 1 min 1 s, ended unplanned: renew_deadline last ack 4.8 s old, http://b:2379 took 2.1 s, \
             timer 3 ms late"
        );
        let document = HistoryDocument { tenures: vec![tenure], ..HistoryResponse::default().into() };
        assert!(table(&document, Time(0)).contains("http://b:2379 took 2.1 s"));
    }

    #[test]
    fn only_who_leads_is_said_to_lead() {
        let open = |token| TenureInfo { token, from_ms: 1_000, ..TenureInfo::default() };
        let tenures = vec![open(7), open(9)];
        let answerer = |is_outdated| Some(Answerer { is_outdated, ..Answerer::default() });
        let told = |leader_token, is_outdated| {
            let answerer = answerer(is_outdated);
            let answer =
                HistoryResponse { tenures: tenures.clone(), leader_token, answerer, ..Default::default() };
            let text = table(&answer.into(), Time(4_000));
            let rows = text.lines().filter(|l| l.starts_with(" 1970"));
            let short = |row: &str| {
                let states = ["(leads)", "(unknown)", "(ended;"].into_iter().filter(|s| row.contains(s));
                (states.collect::<String>(), row.contains(" 3.0 s "))
            };
            rows.map(short).collect::<Vec<_>>()
        };
        let (leads, ended, unknown) = ("(leads)".to_owned(), "(ended;".to_owned(), "(unknown)".to_owned());
        assert_eq!(told(Some(9), false), [(ended.clone(), false), (leads, true)]);
        assert_eq!(told(None, false), [(ended.clone(), false), (ended, false)]);
        assert_eq!(told(None, true), [(unknown.clone(), false), (unknown, false)]);
    }
}
