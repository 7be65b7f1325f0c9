//! What etcd tells on its pages: `/metrics` in Prometheus' text form, and `/debug/vars`, which shows its command line.
//!
//! Only the few names that a check looks at are kept, so a page of any size and content costs little, and nonsense
//! is ignored line by line.

use std::collections::BTreeMap;

use serde_json::Value;

/// Histograms of which the upper bounds and counts are kept.
const HISTOGRAMS: [&str; 3] = [FSYNC, COMMIT, PEER_RTT];
/// Time to sync the write-ahead log.
pub const FSYNC: &str = "etcd_disk_wal_fsync_duration_seconds";
/// Time to commit to the database.
pub const COMMIT: &str = "etcd_disk_backend_commit_duration_seconds";
/// Round trips between etcd's members.
pub const PEER_RTT: &str = "etcd_network_peer_round_trip_time_seconds";

/// Counters and gauges that are kept; several of one name are added up.
const NUMBERS: [&str; 9] = [
    QUOTA,
    COMPACTED,
    LEADER_CHANGES,
    SLOW_APPLIES,
    FAILED_PROPOSALS,
    FAILED_HEARTBEATS,
    RECEIVED_BYTES,
    "etcd_server_has_leader",
    "etcd_mvcc_db_total_size_in_bytes",
];
/// The quota in force.
pub const QUOTA: &str = "etcd_server_quota_backend_bytes";
/// The last compaction; -1 or absent: never.
pub const COMPACTED: &str = "etcd_debugging_mvcc_compact_revision";
/// Changes of etcd's own leader.
pub const LEADER_CHANGES: &str = "etcd_server_leader_changes_seen_total";
/// Entries that took longer than 100 ms to apply.
pub const SLOW_APPLIES: &str = "etcd_server_slow_apply_total";
/// Proposals that came to nothing.
pub const FAILED_PROPOSALS: &str = "etcd_server_proposals_failed_total";
/// Heartbeats that the leader could not send in time.
pub const FAILED_HEARTBEATS: &str = "etcd_server_heartbeat_send_failures_total";
/// Bytes of requests.
pub const RECEIVED_BYTES: &str = "etcd_network_client_grpc_received_bytes_total";

/// Of a metrics page, what the checks look at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Etcd {
    numbers: BTreeMap<&'static str, f64>,
    histograms: BTreeMap<&'static str, Histogram>,
}

/// Upper bounds in nanoseconds, each with the count of what is not above it.
type Histogram = BTreeMap<u64, f64>;

/// What etcd's command line tells. A flag that was not given, or was given in the environment or in a file, is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    flags: BTreeMap<String, String>,
}

// === impl Etcd ===

impl Etcd {
    /// Reads a page.
    ///
    /// # Errors
    /// Nothing on it is etcd's.
    pub fn read(page: &[u8]) -> Result<Self, String> {
        let mut read = Self::default();
        for line in page.split(|b| *b == b'\n') {
            if let Ok(line) = std::str::from_utf8(line) {
                read.take_line(line.trim_end());
            }
        }
        if read.numbers.is_empty() && read.histograms.is_empty() {
            return Err("/metrics shows nothing of etcd".to_owned());
        }
        Ok(read)
    }

    fn take_line(&mut self, line: &str) {
        let Some((series, value)) = line.rsplit_once(' ') else { return };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let Some(value) = value.parse::<f64>().ok().filter(|v| v.is_finite()) else { return };
        if let Some(known) = NUMBERS.iter().find(|n| **n == name) {
            *self.numbers.entry(known).or_default() += value;
        }
        let Some(of) = name.strip_suffix("_bucket") else { return };
        let bound = label(labels, "le").and_then(|le| le.parse::<f64>().ok());
        if let Some((known, bound)) = HISTOGRAMS.iter().find(|n| **n == of).zip(bound) {
            // A float that does not fit becomes the largest number, as infinity does.
            let nanos = (bound * 1e9) as u64;
            *self.histograms.entry(known).or_default().entry(nanos).or_default() += value;
        }
    }

    /// A counter or a gauge.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.numbers.get(name).copied()
    }

    /// By how much a counter has grown since an earlier page.
    pub fn grown(&self, name: &str, before: &Self) -> Option<f64> {
        let (now, then) = (self.number(name)?, before.number(name)?);
        // A restart begins at 0.
        Some(if now >= then { now - then } else { now })
    }

    /// The 99th percentile in milliseconds: of what came since an earlier page if that is something, else since the
    /// start. Of fewer than a hundred values one is left out all the same: an outlier is no slow disk. Within a bucket
    /// the values are taken to be spread evenly.
    pub fn p99_ms(&self, name: &str, before: Option<&Self>) -> Option<f64> {
        let all = self.histograms.get(name)?;
        let since = before.and_then(|b| b.histograms.get(name)).map(|then| difference(all, then));
        since.as_ref().and_then(p99_ms).or_else(|| p99_ms(all))
    }
}

fn difference(now: &Histogram, then: &Histogram) -> Histogram {
    now.iter().map(|(bound, n)| (*bound, n - then.get(bound).copied().unwrap_or(0.0))).collect()
}

fn p99_ms(histogram: &Histogram) -> Option<f64> {
    let total = *histogram.last_key_value()?.1;
    if total < 2.0 {
        return None;
    }
    let rank = (total * 0.99).min(total - 1.0);
    let (mut from, mut below) = (0_u64, 0.0);
    for (bound, count) in histogram {
        if *count >= rank {
            if *bound == u64::MAX {
                return Some(from as f64 / 1e6); // beyond the last bound: at least so long
            }
            let part = if *count > below { (rank - below) / (count - below) } else { 1.0 };
            return Some((from as f64 + (*bound - from) as f64 * part) / 1e6);
        }
        (from, below) = (*bound, *count);
    }
    None
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let after = labels.split_once(&format!("{name}=\""))?.1;
    Some(after.split_once('"')?.0)
}

// === impl Learned ===

impl Learned {
    /// Reads `/debug/vars`. A page without a command line teaches nothing.
    pub fn read(page: &[u8]) -> Self {
        let vars: Value = serde_json::from_slice(page).unwrap_or_default();
        let words: Vec<&str> =
            vars["cmdline"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut flags = BTreeMap::new();
        for (i, word) in words.iter().enumerate() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
            let next = words.get(i + 1).filter(|w| !w.starts_with('-')).copied();
            let (name, value) = flag.split_once('=').unwrap_or((flag, next.unwrap_or("true")));
            flags.insert(name.to_owned(), value.to_owned());
        }
        Self { flags }
    }

    /// A flag's value, without its dashes.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(counts: [u32; 4]) -> Etcd {
        let [a, b, c, all] = counts;
        let text = format!(
            "# HELP {FSYNC} x\n{FSYNC}_bucket{{le=\"0.001\"}} {a}\n{FSYNC}_bucket{{le=\"0.002\"}} {b}\n\
             {FSYNC}_bucket{{le=\"0.004\"}} {c}\n{FSYNC}_bucket{{le=\"+Inf\"}} {all}\n{LEADER_CHANGES} {all}\n"
        );
        Etcd::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_percentile_is_of_what_came_since_the_earlier_page() {
        let (then, now) = (page([1000, 1000, 1000, 1000]), page([1000, 1000, 1100, 1100]));
        let since = now.p99_ms(FSYNC, Some(&then)).unwrap();
        assert!((since - 3.98).abs() < 1e-9, "all hundred are between 2 and 4 ms: {since}");
        let whole = then.p99_ms(FSYNC, None).unwrap();
        assert!((whole - 0.99).abs() < 1e-9, "{whole}");
        let idle = now.p99_ms(FSYNC, Some(&now)).unwrap();
        assert_eq!(Some(idle), now.p99_ms(FSYNC, None), "nothing came: since the start");
        assert_eq!(page([0, 0, 0, 5]).p99_ms(FSYNC, None), Some(4.0), "beyond the last bound");
        let (outlier, slow) = (page([1009, 1009, 1010, 1010]), page([1000, 1000, 1010, 1010]));
        assert_eq!(outlier.p99_ms(FSYNC, Some(&then)), Some(1.0), "one of ten is chance");
        assert!(slow.p99_ms(FSYNC, Some(&then)).unwrap() > 3.0, "ten of ten are not");
        assert_eq!(now.grown(LEADER_CHANGES, &then), Some(100.0));
        assert_eq!(then.grown(LEADER_CHANGES, &now), Some(1000.0), "restarted");
    }

    #[test]
    fn garbage_is_no_page_of_etcd() {
        let binary: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let nonsense =
            format!("{FSYNC}_bucket{{le=\"x\"}} 1\n{FSYNC}_bucket 1\n{QUOTA} NaN\n{QUOTA}\n}}{{ 7\n");
        for text in [&b""[..], b"<html>nginx</html>", &binary, nonsense.as_bytes()] {
            assert!(Etcd::read(text).is_err());
        }
    }

    #[test]
    fn flags_are_read_in_every_spelling() {
        let vars = br#"{"cmdline":["etcd","--a=1","--b","2","-c","3","--d"],"memstats":{}}"#;
        let learned = Learned::read(vars);
        let flags = ["a", "b", "c", "d", "e"].map(|f| learned.flag(f));
        assert_eq!(flags, [Some("1"), Some("2"), Some("3"), Some("true"), None]);
        assert_eq!(Learned::read(b"not json"), Learned::default());
    }
}
