//! Every real process leaves a trace of its election. It is played again when the process has ended: the same inputs must
//! give the same outputs. Then the traces of one election are held against each other.
//!
//! The one place here that uses metad's own library: what is played again is its elector.

use std::cmp::Ordering as Order;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use metad::clock::Instant;
use metad::election::elector::Elector;
use metad::election::event::Event;
use metad::journal::trace::line::{At, Heard, Line};
use serde_json::Value;

/// Where the processes of one test elect.
#[derive(Clone, Debug)]
pub struct Election {
    /// The folder of its etcd.
    pub etcd: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// Has its etcd got another past meanwhile? Then its revisions say nothing.
    pub was_restored: Arc<AtomicBool>,
}

/// What the trace of one process says.
#[derive(Clone, Debug, Default)]
struct Played {
    process: String,
    tenures: Vec<TracedTenure>,
    /// What the store held at each revision, as this process was shown it.
    views: BTreeMap<u64, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TracedTenure {
    token: u64,
    started: At,
    /// When its elector last counted on the main loop.
    ran: At,
    has_ended: bool,
}

/// One elector, played.
struct Player {
    elector: Elector,
    last: At,
    played: Played,
}

// === impl Player ===

impl Player {
    fn wake(&mut self, at: At, heard: Vec<Heard>) -> Result<(), String> {
        self.is_later(at)?;
        let now = Instant::from(at);
        for heard in heard {
            self.note(at, &heard)?;
            let event = Event::try_from(heard).map_err(|e| e.to_string())?;
            self.elector.handle_event(now, event);
        }
        self.elector.handle_timeout(now);
        self.note_main_loop(at);
        Ok(())
    }

    /// Nothing is asked at a time that was before it.
    fn is_later(&mut self, at: At) -> Result<(), String> {
        let is_later = at.boot_ns >= self.last.boot_ns && at.raw_ns >= self.last.raw_ns;
        self.last = at;
        is_later.then_some(()).ok_or_else(|| format!("a clock went back to {at:?}"))
    }

    fn note(&mut self, at: At, heard: &Heard) -> Result<(), String> {
        match heard {
            Heard::Renewed { stamp, .. } if stamp.boot_ns > at.boot_ns || stamp.raw_ns > at.raw_ns => {
                return Err(format!("a renewal heard at {at:?} left at {stamp:?}"));
            }
            Heard::MainLoopEnded(_) => {
                let tenure = self.played.tenures.last_mut().ok_or("a main loop ended that never started")?;
                tenure.has_ended = true;
            }
            _ => {}
        }
        let Some((revision, shown)) = heard.shown() else { return Ok(()) };
        let shown = serde_json::to_string(shown).expect("JSON");
        match self.played.views.insert(revision, shown.clone()) {
            Some(before) if before != shown => {
                Err(format!("revision {revision} showed {before} and then {shown}"))
            }
            _ => Ok(()),
        }
    }

    fn note_main_loop(&mut self, at: At) {
        let runs = self.elector.main_loop_token();
        if let (Some(tenure), Some(_)) = (self.played.tenures.last_mut(), runs) {
            tenure.ran = at;
        }
    }

    fn ask(&mut self, at: At, action: &str) -> Result<(), String> {
        self.is_later(at)?;
        let ours = self.elector.poll_action().map_or("nothing".into(), |action| format!("{action:?}"));
        if ours != action {
            return Err(format!("it asked for {action}; played again, for {ours}"));
        }
        if let Some(token) = number_in(action, "StartMainLoop(Token(Revision(") {
            if self.played.tenures.iter().any(|t| t.token >= token) {
                return Err(format!("a main loop starts under {token} after {:?}", self.played.tenures));
            }
            self.played.tenures.push(TracedTenure { token, started: at, ran: at, has_ended: false });
        }
        let gives_up = ["Release(", "HandOver {"].iter().any(|of| action.starts_with(of));
        if gives_up && self.played.tenures.last().is_some_and(|t| !t.has_ended) {
            return Err(format!("{action} while the main loop runs"));
        }
        Ok(())
    }
}

fn number_in(text: &str, before: &str) -> Option<u64> {
    let digits = text.strip_prefix(before)?;
    digits[..digits.find(')')?].parse().ok()
}

/// A line that a killed process has begun, and the next one has ended.
fn is_torn(line: &str) -> bool {
    let end = serde_json::from_str::<Value>(line).expect_err("it is no line");
    end.is_eof()
}

/// Plays one file; several processes may have written it, one after the other.
fn play(text: &str) -> Result<Vec<Played>, String> {
    let mut played = Vec::new();
    let mut player: Option<Player> = None;
    for (number, text) in text.split_inclusive('\n').enumerate() {
        let in_line = |e: String| format!("line {}: {e}", number + 1);
        if !text.ends_with('\n') {
            break; // the process was killed while it wrote
        }
        let line: Line = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(_) if is_torn(text) => continue, // and the next process went on behind it
            Err(e) => return Err(in_line(e.to_string())),
        };
        match (line, &mut player) {
            (Line::Began(began), _) => {
                let elector = began.elector().map_err(|e| in_line(e.to_string()))?;
                let process = format!("{} (pid {})", elector.me().node, began.pid);
                let next = Player {
                    elector,
                    last: At { boot_ns: 0, raw_ns: 0 },
                    played: Played { process, ..Played::default() },
                };
                played.extend(player.replace(next).map(|p| p.played));
            }
            (Line::Woke { at, heard }, Some(player)) => player.wake(at, heard).map_err(in_line)?,
            (Line::Asked { at, action }, Some(player)) => player.ask(at, &action).map_err(in_line)?,
            (Line::CutOff, Some(_)) => return Err(in_line("the disk was too slow for the trace".into())),
            (line, None) => return Err(in_line(format!("{line:?} of no process"))),
        }
    }
    played.extend(player.map(|p| p.played));
    Ok(played)
}

/// Do these two contradict each other?
fn compare(one: &Played, other: &Played) -> Result<(), String> {
    for (revision, shown) in &one.views {
        if let Some(otherwise) = other.views.get(revision).filter(|o| *o != shown) {
            let (one, other) = (&one.process, &other.process);
            return Err(format!("revision {revision} was {shown} to {one}, and to {other} {otherwise}"));
        }
    }
    for tenure in &one.tenures {
        for other_tenure in &other.tenures {
            let (first, then) = match tenure.token.cmp(&other_tenure.token) {
                Order::Less => (tenure, other_tenure),
                Order::Greater => (other_tenure, tenure),
                Order::Equal => return Err(format!("both led under {}", tenure.token)),
            };
            if first.ran.boot_ns > then.started.boot_ns {
                let (one, other) = (&one.process, &other.process);
                return Err(format!("{one} and {other}: {first:?} ran when {then:?} had started"));
            }
        }
    }
    Ok(())
}

/// Plays the trace of a process that has ended, and holds it against those of the others. Panics where it is wrong.
pub fn check(file: &Path, election: Option<&Election>, has_joined: bool) {
    static ELECTIONS: Mutex<BTreeMap<(PathBuf, String), Vec<Played>>> = Mutex::new(BTreeMap::new());
    let text = fs::read_to_string(file).unwrap_or_default();
    let checked = play(&text).and_then(|played| {
        if has_joined && played.is_empty() {
            return Err("twin: it joined, and its trace is empty".into());
        }
        let Some(election) = election.filter(|e| !e.was_restored.load(Ordering::Relaxed)) else {
            return Ok(());
        };
        let mut elections = ELECTIONS.lock().unwrap_or_else(|e| e.into_inner());
        let others = elections.entry((election.etcd.clone(), election.cluster.clone())).or_default();
        for one in played {
            others.iter().try_for_each(|other| compare(&one, other))?;
            others.push(one);
        }
        Ok(())
    });
    if let Err(wrong) = checked
        && !thread::panicking()
    {
        let kept = std::env::temp_dir().join(format!("metad-trace-{}.jsonl", std::process::id()));
        let _ = fs::copy(file, &kept);
        panic!("the trace {}: {wrong}", kept.display());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metad::election::elector::ElectorSettings;
    use metad::election::event::{ClaimAnswer, Joined};
    use metad::election::lease::LeaseId;
    use metad::election::record::{
        Incarnation, Member, MemberId, MemberUuid, Nonce, Registration, Revision, Token, View,
    };
    use metad::journal::trace::line::Began;

    use super::*;

    const TTL: Duration = Duration::from_secs(5);
    const LEASE: LeaseId = LeaseId(9);

    fn me(node: &str) -> MemberId {
        MemberId { node: node.into(), uuid: MemberUuid(1), incarnation: Incarnation(1) }
    }

    /// Lives an election as the driver does, and writes it down: at so many milliseconds this event.
    fn lived(node: &str, steps: Vec<(u64, Event)>) -> Vec<Line> {
        let settings =
            ElectorSettings { me: me(node), stop_timeout: TTL, start_timeout: TTL, failback_delay: None };
        let mut elector = Elector::new(settings);
        let mut lines = vec![Line::Began(Began::of(&elector, 7))];
        for (ms, event) in steps {
            let now = Instant::from_millis(ms);
            while let Some(action) = elector.poll_action() {
                lines.push(Line::Asked { at: now.into(), action: format!("{action:?}") });
            }
            lines.push(Line::Woke { at: now.into(), heard: vec![(&event).into()] });
            elector.handle_event(now, event);
            elector.handle_timeout(now);
        }
        lines
    }

    fn view(node: &str, revision: u64) -> View {
        let registration = Registration {
            member: me(node),
            rpc_address: "r:1".into(),
            http_address: "h:1".into(),
            priority: 1,
            version: "1".into(),
            ttl: TTL,
            lease: LEASE,
        };
        let generation = Revision(revision);
        let member = Member { registration, created: generation, generation };
        View { revision: generation, members: vec![member], ..View::default() }
    }

    /// Joins, leads under `token`, and ends.
    fn leads(node: &str, from_ms: u64, token: u64) -> Vec<Line> {
        let joined = Joined {
            lease: LEASE,
            stamp: Instant::from_millis(from_ms),
            ttl: TTL,
            generation: Revision(token - 1),
            view: view(node, token - 1),
            raft_term: 1,
        };
        let token = Token::new(Revision(token)).expect("positive");
        let won = Event::Claimed { nonce: Nonce(1), answer: ClaimAnswer::Won(token), seen: None };
        let steps = vec![
            (from_ms + 1, Event::Joined(joined)),
            (from_ms + 2, won),
            (from_ms + 3, Event::MainLoopHung),
            (from_ms + 4, Event::MainLoopEnded(None)),
            (from_ms + 5, Event::Prepared(vec![])),
        ];
        lived(node, steps)
    }

    fn text(lines: &[Line]) -> String {
        lines.iter().map(|line| serde_json::to_string(line).expect("JSON") + "\n").collect()
    }

    fn played(lines: &[Line]) -> Played {
        play(&text(lines)).expect("an honest trace").pop().expect("one process")
    }

    fn refused(lines: &[Line]) -> String {
        play(&text(lines)).expect_err("a false one")
    }

    #[test]
    fn an_honest_trace_is_accepted() {
        let played = played(&leads("a", 0, 6));
        assert_eq!(played.tenures.len(), 1, "{played:?}");
        assert!(played.tenures[0].has_ended && played.tenures[0].token == 6, "{played:?}");
        assert_eq!(played.views.len(), 1);
        let cut = text(&leads("a", 0, 6));
        assert!(play(&cut[..cut.len() - 3]).is_ok(), "the end of a process that was killed");
    }

    #[test]
    fn another_output_is_refused() {
        let honest = leads("a", 0, 6);
        for (number, line) in honest.iter().enumerate() {
            let Line::Asked { at, action } = line else { continue };
            let mut changed = honest.clone();
            changed[number] = Line::Asked { at: *at, action: format!("{action}, twice") };
            assert!(refused(&changed).contains("it asked for"), "{action}");
            changed.remove(number);
            let later = honest[number..].iter().filter(|l| matches!(l, Line::Asked { .. })).count();
            assert!(later == 1 || play(&text(&changed)).is_err(), "without {action}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_and_a_stamp_from_the_future_are_refused() {
        let mut lines = leads("a", 10, 6);
        lines.push(Line::Woke { at: At { boot_ns: 1, raw_ns: 1 }, heard: vec![] });
        assert!(refused(&lines).contains("a clock went back"));
        let mut lines = leads("a", 10, 6);
        let (at, stamp) = (At { boot_ns: 1 << 40, raw_ns: 1 << 40 }, At { boot_ns: 2 << 40, raw_ns: 0 });
        lines.push(Line::Woke { at, heard: vec![Heard::Renewed { lease: 9, stamp, alive: None }] });
        assert!(refused(&lines).contains("left at"));
    }

    #[test]
    fn two_main_loops_and_two_pasts_are_refused() {
        let one = played(&leads("a", 10, 6));
        let between = |from_ms, token| compare(&one, &played(&leads("b", from_ms, token)));
        assert_eq!(between(100, 16), Ok(()), "one after the other");
        assert!(between(5, 16).expect_err("both").contains("ran when"));
        assert!(between(100, 6).expect_err("both").contains("revision 5 was"));
        let mut same = one.clone();
        same.views.clear();
        assert!(compare(&one, &same).expect_err("both").contains("both led under 6"));
    }
}
