//! Which members are there, and which were. One that has gone is shown as down for a while, then forgotten: it may
//! never come back, and names come and go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use crate::clock::{millis, wall_clock_ms};
use crate::telemetry::event::Event;

/// For how long a member that has gone is shown.
const GONE_FOR: Duration = Duration::from_secs(3600);
/// How many of those are shown; the one that has been gone for longest makes way.
const GONE_MAX: usize = 64;

/// The members by node id. Clones share them.
#[derive(Clone, Default)]
pub(super) struct MemberGauges {
    known: Arc<Mutex<BTreeMap<String, KnownMember>>>,
}

/// What is known of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KnownMember {
    /// When it went, in milliseconds since the Unix epoch; `None`: it is there.
    gone_ms: Option<u64>,
}

/// Shows the members; `view` says how old the view of those that are there is, and whether it is outdated.
pub(super) struct Shown {
    pub(super) members: MemberGauges,
    pub(super) view: Box<dyn Fn() -> ViewAge + Send + Sync>,
}

/// How old a node's view of the election is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewAge {
    /// Since the store last confirmed it.
    pub age: Duration,
    /// Does it say nothing any more?
    pub is_outdated: bool,
}

// === impl MemberGauges ===

impl MemberGauges {
    pub(super) fn count(&self, event: &Event) {
        match event {
            Event::MemberJoined { member, .. } => {
                self.known().insert(member.clone(), KnownMember { gone_ms: None });
            }
            Event::MemberLeft { member } => self.leave(member, wall_clock_ms()),
            _ => {}
        }
    }

    fn leave(&self, member: &str, now_ms: u64) {
        let mut known = self.known();
        known.insert(member.to_owned(), KnownMember { gone_ms: Some(now_ms) });
        let gone = known.iter().filter_map(|(name, k)| Some((k.gone_ms?, name.clone())));
        let gone: Vec<_> = gone.collect();
        if let Some((_, oldest)) = gone.iter().min().filter(|_| gone.len() > GONE_MAX) {
            known.remove(oldest);
        }
    }

    /// Name, presence, and when it was last there, in milliseconds.
    fn list(&self, now_ms: u64, age: Duration) -> Vec<(String, bool, u64)> {
        let mut known = self.known();
        let limit = millis(GONE_FOR);
        known.retain(|_, k| k.gone_ms.is_none_or(|at| now_ms.saturating_sub(at) < limit));
        let confirmed = now_ms.saturating_sub(millis(age));
        let row = |(name, k): (&String, &KnownMember)| {
            (name.clone(), k.gone_ms.is_none(), k.gone_ms.unwrap_or(confirmed))
        };
        known.iter().map(row).collect()
    }

    /// Those that are not there any more, and when they went, in milliseconds.
    pub(super) fn gone(&self, now_ms: u64) -> Vec<(String, u64)> {
        let all = self.list(now_ms, Duration::ZERO).into_iter();
        all.filter(|(_, is_there, _)| !is_there).map(|(name, _, at_ms)| (name, at_ms)).collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, KnownMember>> {
        self.known.lock().unwrap_or_else(|e| e.into_inner())
    }
}

// === impl Shown ===

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let view = (self.view)();
        let list = self.members.list(wall_clock_ms(), view.age);
        if list.is_empty() {
            return Ok(()); // a family without samples is not shown
        }
        let (up, seen) = ("metad_member_up", "metad_member_last_seen_timestamp_seconds");
        if !view.is_outdated {
            let help = "1 while the member is registered; 0 for an hour after it has gone; left out while this node's view is outdated.";
            let rows = list.iter().map(|(name, is_there, _)| (name, f64::from(u8::from(*is_there))));
            show(&mut encoder, up, help, rows)?;
        }
        let rows = list.iter().map(|(name, _, at_ms)| (name, *at_ms as f64 / 1000.0));
        show(&mut encoder, seen, "When the member was last registered, since the Unix epoch.", rows)
    }
}

fn show<'a>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = (&'a String, f64)>,
) -> Result<(), fmt::Error> {
    let kind = ConstGauge::new(0.0).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (member, value) in rows {
        let label = [("member", member.as_str())];
        ConstGauge::new(value).encode(family.encode_family(&label)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(members: &MemberGauges, name: &str) {
        members.count(&Event::MemberJoined { member: name.into(), address: String::new() });
    }

    #[test]
    fn a_member_that_has_gone_is_shown_for_an_hour() {
        let members = MemberGauges::default();
        join(&members, "a");
        join(&members, "b");
        members.leave("a", 10_000);
        let age = Duration::from_millis(500);
        let both = vec![("a".into(), false, 10_000), ("b".into(), true, 11_500)];
        assert_eq!(members.list(12_000, age), both);
        assert_eq!(members.gone(12_000), [("a".into(), 10_000)]);
        assert_eq!(members.list(10_000 + 3_600_000, age).len(), 1);
        join(&members, "a");
        assert!(members.list(12_000, age).iter().all(|(_, is_there, _)| *is_there));
    }

    #[test]
    fn no_more_than_a_few_are_remembered() {
        let members = MemberGauges::default();
        join(&members, "stays");
        for n in 0..GONE_MAX as u64 + 5 {
            members.leave(&format!("gone-{n:03}"), 1_000 + n);
        }
        let list = members.list(2_000, Duration::ZERO);
        assert_eq!(list.len(), GONE_MAX + 1);
        assert_eq!(list[0].0, "gone-005", "the oldest have made way");
    }
}
