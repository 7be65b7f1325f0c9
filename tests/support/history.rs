//! Decides from the events of all nodes whether two main loops ever ran at once.
//!
//! The events are stamped on one clock, `CLOCK_BOOTTIME`: by the node (`boot_ns`) where it says so, else by the
//! test as it read the line. A main loop that has no end in the events ended when its process died.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::poll::holds_within;

/// Whatever has happened has been read within this time.
const READING_LAG: Duration = Duration::from_secs(3);

/// One event that a node printed.
#[derive(Clone, Debug)]
pub struct TimedEvent {
    /// The whole line.
    pub json: Value,
    /// When the test read it, on `CLOCK_BOOTTIME`.
    pub read_ns: u64,
}

/// Everything known about one process.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Which process, for messages; two processes of one node have different labels.
    pub label: String,
    /// Its events, oldest first.
    pub events: Vec<TimedEvent>,
    /// When it died, on `CLOCK_BOOTTIME`; `None` while it lives.
    pub died_ns: Option<u64>,
}

/// One run of a main loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The process that ran it.
    pub label: String,
    /// Its fencing token.
    pub token: u64,
    /// When it started, on `CLOCK_BOOTTIME`.
    pub start_ns: u64,
    /// When it ended; `None` while it runs.
    pub end_ns: Option<u64>,
}

/// Checks that no two main loops overlap and that tokens strictly grow from each to the next.
///
/// Returns the tenures, oldest first; the error ends with the time line of all processes.
pub fn check(traces: &[Trace]) -> Result<Vec<Tenure>, String> {
    find_tenures(traces).and_then(check_tenures).map_err(|why| format!("{why}\n{}", timeline(traces)))
}

/// The same for processes that run: `trace` tells what was read of them so far.
///
/// They are read one after the other, by threads that may lag behind: what looks like a main loop that runs beside
/// another may have ended before the other one started. A real overlap stays one, however much is read later.
pub fn check_running(trace: impl Fn() -> Vec<Trace>) -> Result<Vec<Tenure>, String> {
    let mut checked = check(&trace());
    holds_within(READING_LAG, || {
        if checked.is_err() {
            checked = check(&trace());
        }
        checked.is_ok()
    });
    checked
}

// === impl TimedEvent ===

impl TimedEvent {
    /// The event's `type`.
    pub fn kind(&self) -> &str {
        self.str("type")
    }

    /// A text field, empty when absent.
    pub fn str(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    /// A number field.
    pub fn u64(&self, field: &str) -> Option<u64> {
        self.json[field].as_u64()
    }

    /// The fencing token it names.
    pub fn token(&self) -> Option<u64> {
        self.u64("token")
    }

    /// When it happened, on `CLOCK_BOOTTIME`.
    pub fn at_ns(&self) -> u64 {
        self.u64("boot_ns").unwrap_or(self.read_ns)
    }
}

fn find_tenures(traces: &[Trace]) -> Result<Vec<Tenure>, String> {
    let mut all = Vec::new();
    for trace in traces {
        let mut open = None;
        for event in &trace.events {
            match event.kind() {
                "main_loop_started" => all.extend(open.replace(begin(trace, event)?)),
                "main_loop_stopped" => all.push(end(trace, event, open.take())?),
                _ => {}
            }
        }
        all.extend(open);
    }
    all.sort_by_key(|tenure| (tenure.start_ns, tenure.end_ns.unwrap_or(u64::MAX)));
    Ok(all)
}

/// A tenure that lasts, as far as is known yet, until its process dies.
fn begin(trace: &Trace, event: &TimedEvent) -> Result<Tenure, String> {
    let label = trace.label.clone();
    let token = event.token().ok_or_else(|| format!("{label} started a main loop without a token"))?;
    Ok(Tenure { label, token, start_ns: event.at_ns(), end_ns: trace.died_ns })
}

fn end(trace: &Trace, event: &TimedEvent, open: Option<Tenure>) -> Result<Tenure, String> {
    let label = &trace.label;
    let mut tenure = open.ok_or_else(|| format!("{label} stopped a main loop that had not started"))?;
    if let Some(token) = event.token().filter(|&token| token != tenure.token) {
        return Err(format!("{label} started with token {} and stopped with {token}", tenure.token));
    }
    let stopped = event.at_ns();
    tenure.end_ns = Some(tenure.end_ns.map_or(stopped, |died| died.min(stopped)));
    Ok(tenure)
}

fn check_tenures(tenures: Vec<Tenure>) -> Result<Vec<Tenure>, String> {
    for pair in tenures.windows(2) {
        let [first, second] = pair else { unreachable!("windows of two") };
        if first.end_ns.is_none_or(|end| end > second.start_ns) {
            return Err(format!("two main loops at once: {first:?} and {second:?}"));
        }
        if first.token >= second.token {
            return Err(format!("the token did not grow: {first:?} and {second:?}"));
        }
    }
    Ok(tenures)
}

/// All events and deaths in the order of time, in milliseconds since the first.
fn timeline(traces: &[Trace]) -> String {
    let mut lines = Vec::new();
    for trace in traces {
        lines.extend(trace.events.iter().map(|event| (event.at_ns(), &trace.label, event.json.to_string())));
        lines.extend(trace.died_ns.map(|died| (died, &trace.label, "died".to_owned())));
    }
    lines.sort_by_key(|line| line.0);
    let zero = lines.first().map_or(0, |line| line.0);
    let mut text = String::new();
    for (at_ns, label, what) in lines {
        let _ = writeln!(text, "{:12.3} ms  {label}  {what}", (at_ns - zero) as f64 / 1e6);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const STARTED: &str = "main_loop_started";
    const STOPPED: &str = "main_loop_stopped";

    fn trace(label: &str, died_ns: Option<u64>, events: &[(&str, u64, u64)]) -> Trace {
        let event = |&(kind, token, at): &(&str, u64, u64)| TimedEvent {
            json: json!({"type": kind, "token": token, "boot_ns": at}),
            read_ns: at + 1_000,
        };
        Trace { label: label.into(), events: events.iter().map(event).collect(), died_ns }
    }

    fn refusal(traces: &[Trace]) -> String {
        check(traces).expect_err("must be refused")
    }

    #[test]
    fn overlapping_main_loops_are_refused() {
        let a = trace("a", None, &[(STARTED, 1, 10), (STOPPED, 1, 30)]);
        let b = trace("b", None, &[(STARTED, 2, 29)]);
        assert!(refusal(&[a, b]).starts_with("two main loops at once"));
    }

    #[test]
    fn an_end_that_is_read_late_still_counts() {
        let looks = std::cell::Cell::new(0);
        let read = || {
            looks.set(looks.get() + 1);
            let died_ns = (looks.get() > 1).then_some(19);
            vec![trace("a", died_ns, &[(STARTED, 1, 10)]), trace("b", None, &[(STARTED, 2, 20)])]
        };
        assert_eq!(check_running(read).map(|tenures| tenures.len()), Ok(2));
        assert_eq!(looks.get(), 2, "twin: at the first look they overlap");
    }

    #[test]
    fn a_main_loop_inside_a_longer_one_is_refused() {
        let a = trace("a", None, &[(STARTED, 1, 10), (STOPPED, 1, 90)]);
        let b = trace("b", None, &[(STARTED, 2, 20), (STOPPED, 2, 30), (STARTED, 3, 95)]);
        assert!(refusal(&[a, b]).starts_with("two main loops at once"));
    }

    #[test]
    fn touching_main_loops_are_fine() {
        let a = trace("a", None, &[(STARTED, 1, 10), (STOPPED, 1, 30)]);
        let b = trace("b", None, &[(STARTED, 2, 30)]);
        let tenures = check(&[b, a]).expect("they only touch");
        assert_eq!(tenures.iter().map(|tenure| tenure.token).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((tenures[0].end_ns, tenures[1].end_ns), (Some(30), None));
    }

    #[test]
    fn a_token_that_does_not_grow_is_refused() {
        for token in [4, 5] {
            let a = trace("a", None, &[(STARTED, 5, 10), (STOPPED, 5, 20)]);
            let b = trace("b", None, &[(STARTED, token, 30)]);
            assert!(refusal(&[a, b]).starts_with("the token did not grow"));
        }
    }

    #[test]
    fn death_ends_an_open_main_loop() {
        let successor = trace("b", None, &[(STARTED, 2, 30)]);
        assert!(check(&[trace("a", Some(30), &[(STARTED, 1, 10)]), successor.clone()]).is_ok());
        assert!(refusal(&[trace("a", Some(31), &[(STARTED, 1, 10)]), successor.clone()]).contains("died"));
        assert!(check(&[trace("a", None, &[(STARTED, 1, 10)]), successor]).is_err());
    }

    #[test]
    fn one_process_with_two_open_main_loops_is_refused() {
        let events = [(STARTED, 1, 10), (STARTED, 2, 20)];
        assert!(refusal(&[trace("a", Some(30), &events)]).starts_with("two main loops at once"));
    }

    #[test]
    fn an_end_without_its_start_is_refused() {
        assert!(check(&[trace("a", None, &[(STOPPED, 1, 10)])]).is_err());
        assert!(check(&[trace("a", None, &[(STARTED, 1, 10), (STOPPED, 2, 20)])]).is_err());
    }
}
