//! The verdict: when leadership is lost, cannot be won, or is in danger, was it this node, the network, an etcd member,
//! or all of etcd?
//!
//! A pure function from evidence to a closed set. Evidence that points at this node comes first: a process that stood
//! still has seen everything else late. Then what was seen of each etcd member, and only if none answers, what the
//! other meta nodes see: they tell an etcd that is down from one that is merely out of our reach.

use std::fmt;
use std::time::Duration;

use crate::election::history::Reason;
use crate::election::lease::LeaseTiming;
use crate::store::probe::{Finding, Probe};

/// A follower hears of the store once in a third of the lease. Longer than this nobody waits for its word.
const PEER_HEARS_EVERY_MAX: Duration = Duration::from_secs(30);
/// What an answer of another node may be off by, besides: rounding, and its way to us.
const PEER_MARGIN: Duration = Duration::from_millis(300);

/// What is said of a node that reaches nobody.
const CUT_OFF: &str = "network fault: this node reaches neither etcd nor another meta node; check this node's own link \
                       first, then its DNS and the way to etcd";
/// The same where it is for want of a name, and what to do about that.
const NO_NAMES: &str = "no name of etcd's endpoints resolves on this node";
const NAMES_FIX: &str = "check this node's DNS (getent hosts NAME), and the names in store.etcd.endpoints";

/// Who is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong that can be seen.
    Well,
    /// This node: something else used the CPU for so long.
    CpuStarved(Duration),
    /// This node: its process was stopped for so long.
    ProcessStopped(Duration),
    /// This node: its machine was suspended for so long.
    MachineSuspended(Duration),
    /// This node: it may open no more files, and so no connection to etcd.
    OwnLimits,
    /// The network: this node reaches neither etcd nor the other meta nodes.
    CutOff(Vec<Silent>),
    /// No name of etcd's endpoints resolves here.
    Unresolvable(Vec<Silent>),
    /// The network: the other meta nodes reach etcd, this one does not.
    NoWayToEtcd(String),
    /// Some of etcd's members, while the others work.
    EtcdMember(Vec<Silent>),
    /// etcd has lost its quorum: those that answer know no leader.
    EtcdQuorum(Vec<Silent>),
    /// All of etcd.
    EtcdDown(Vec<Silent>),
    /// etcd answers, and refuses this node's login or token: why.
    EtcdRefuses(String),
    /// etcd is full.
    EtcdFull,
    /// The file of the embedded store: what it said.
    StoreFile(String),
    /// Somebody deleted the leader record.
    RecordDeleted,
    /// Somebody revoked the lease, or etcd let it end.
    LeaseGone,
    /// Another member took the record.
    Deposed,
    /// Renewals came too late, and everything works again.
    Unclear,
    /// Nobody of etcd answers, and it is too early to say whether it is etcd or the way there.
    TooEarly,
}

/// A place that does not answer as it should. Two are equal if what is wrong is of one kind: the words for it may contain a
/// time, or change with the moment at which a connection fails.
#[derive(Clone, Debug)]
pub struct Silent {
    /// The place.
    pub place: String,
    /// What is wrong with it.
    pub finding: Finding,
}

impl PartialEq for Silent {
    fn eq(&self, other: &Self) -> bool {
        let kind = |silent: &Self| std::mem::discriminant(&silent.finding);
        self.place == other.place && kind(self) == kind(other)
    }
}

impl Eq for Silent {}

/// The process did nothing for a while, although it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// For how long.
    pub lasted: Duration,
    /// How much of that it waited for a CPU.
    pub waiting: Duration,
    /// How much of that the machine was suspended.
    pub suspended: Duration,
}

/// What another meta node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its node id.
    pub node: String,
    /// How old its view of the store is; `None`: it does not answer.
    pub age: Option<Duration>,
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Why our tenure ends, if it does.
    pub reason: Option<Reason>,
    /// Is our registration, which hangs on the same lease as the record, gone too?
    pub registration_gone: bool,
    /// The longest stall lately.
    pub stall: Option<Stall>,
    /// Each etcd member, as it was seen last.
    pub probes: Vec<Probe>,
    /// What is wrong with the store, if it is in one place and says so.
    pub complaint: Option<String>,
    /// The other meta nodes, if they were asked.
    pub peers: Vec<Peer>,
    /// For how long the store had confirmed nothing to us when they were asked.
    pub silent_for: Duration,
    /// How often it confirms something to us when all is well.
    pub hears_every: Duration,
    /// The lease.
    pub ttl: Duration,
}

/// Judges.
pub fn judge(e: &Evidence) -> Verdict {
    let store = judge_store(e);
    // A stall costs a lease only if it took most of it.
    let explains_end = |s: &Stall| s.lasted * 2 > e.ttl;
    let by_time = matches!(
        e.reason,
        Some(Reason::RenewDeadline | Reason::ClockSuspended | Reason::LeaseExpired | Reason::StartTimeout)
    );
    match e.reason {
        Some(Reason::Deposed | Reason::Fenced) => return Verdict::Deposed,
        // A lease that ended because we stood still takes the record along.
        Some(Reason::RecordDeleted) if e.registration_gone => {
            return e.stall.filter(explains_end).map_or(Verdict::LeaseGone, |s| stood_still(&s));
        }
        Some(Reason::RecordDeleted) => return Verdict::RecordDeleted,
        _ => {}
    }
    match (e.stall, store) {
        (Some(s), _) if by_time && explains_end(&s) => stood_still(&s),
        (Some(s), Verdict::Well | Verdict::EtcdMember(_)) if !by_time => stood_still(&s),
        (_, Verdict::Well) if by_time => Verdict::Unclear,
        (_, store) => store,
    }
}

fn stood_still(s: &Stall) -> Verdict {
    let half = s.lasted / 2;
    if s.suspended > half {
        Verdict::MachineSuspended(s.lasted)
    } else if s.waiting > half {
        Verdict::CpuStarved(s.lasted)
    } else {
        Verdict::ProcessStopped(s.lasted)
    }
}

fn judge_store(e: &Evidence) -> Verdict {
    let refused = || e.probes.iter().find_map(Probe::refusal);
    let silent: Vec<Silent> = e.probes.iter().filter_map(silent).collect();
    let is_any_well = silent.len() < e.probes.len();
    if let Some(why) = &e.complaint {
        return Verdict::StoreFile(why.clone());
    }
    match () {
        () if e.probes.is_empty() => Verdict::Well,
        () if !e.probes.iter().any(Probe::answers) => judge_silence(e, silent),
        // A refusal is an answer: whoever decides on it has a quorum, or had one when it made the rule.
        () if !is_any_well && let Some(why) = refused() => Verdict::EtcdRefuses(why.to_owned()),
        () if !is_any_well => Verdict::EtcdQuorum(silent),
        () if e.probes.iter().any(Probe::is_full) => Verdict::EtcdFull,
        () if silent.is_empty() => Verdict::Well,
        () => Verdict::EtcdMember(silent),
    }
}

/// Nobody of etcd answers. What do the others see?
fn judge_silence(e: &Evidence, silent: Vec<Silent>) -> Verdict {
    if silent.iter().any(|s| s.finding == Finding::OwnLimits) {
        return Verdict::OwnLimits; // what could not be tried says nothing about anybody else
    }
    let is_unresolved = |s: &Silent| matches!(s.finding, Finding::Unresolvable(_));
    let is_anybody_there = e.peers.iter().any(|p| p.age.is_some());
    // Nothing was tried beyond the name server. Where the other nodes do not answer either, the link may be down as well.
    if silent.iter().all(is_unresolved) && (is_anybody_there || e.peers.is_empty()) {
        return Verdict::Unresolvable(silent);
    }
    // Whoever has heard of etcd since it can have fallen silent for us can reach it.
    let margin = e.hears_every + PEER_MARGIN;
    let sees_etcd = |p: &&Peer| p.age.is_some_and(|age| age + margin < e.silent_for);
    if let Some(peer) = e.peers.iter().find(sees_etcd) {
        return Verdict::NoWayToEtcd(peer.node.clone());
    }
    let peers_hear_every = LeaseTiming::new(e.ttl).candidate_cadence().min(PEER_HEARS_EVERY_MAX);
    if is_anybody_there && e.silent_for < peers_hear_every + margin + PEER_MARGIN {
        return Verdict::TooEarly;
    }
    // Hosts that accept or refuse a connection can be reached, so it is not the network.
    let is_away = |s: &Silent| is_unresolved(s) || matches!(s.finding, Finding::Unreachable(_));
    let is_cut_off = !is_anybody_there && silent.iter().all(is_away);
    if is_cut_off { Verdict::CutOff(silent) } else { Verdict::EtcdDown(silent) }
}

fn silent(probe: &Probe) -> Option<Silent> {
    Some(Silent { place: probe.place.clone(), finding: probe.finding()? })
}

// === impl Verdict ===

impl Verdict {
    /// Its name in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Verdict::Well => "well",
            Verdict::CpuStarved(_) => "cpu_starved",
            Verdict::ProcessStopped(_) => "process_stopped",
            Verdict::MachineSuspended(_) => "machine_suspended",
            Verdict::OwnLimits => "own_limits",
            Verdict::CutOff(_) => "cut_off",
            Verdict::Unresolvable(_) => "unresolvable",
            Verdict::NoWayToEtcd(_) => "no_way_to_etcd",
            Verdict::EtcdMember(_) => "etcd_member",
            Verdict::EtcdQuorum(_) => "etcd_quorum",
            Verdict::EtcdDown(_) => "etcd_down",
            Verdict::EtcdRefuses(_) => "etcd_refuses",
            Verdict::EtcdFull => "etcd_full",
            Verdict::StoreFile(_) => "store_file",
            Verdict::RecordDeleted => "record_deleted",
            Verdict::LeaseGone => "lease_gone",
            Verdict::Deposed => "deposed",
            Verdict::Unclear => "unclear",
            Verdict::TooEarly => "too_early",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Well => f.write_str("no fault found: all that was probed answers"),
            Verdict::CpuStarved(d) => {
                write!(f, "this node waited for a CPU for {d:.1?}; give it more CPU, or move other work away")
            }
            Verdict::ProcessStopped(d) => write!(
                f,
                "this node's process was stopped for {d:.1?} (SIGSTOP, a debugger, a frozen cgroup, a paused \
                 virtual machine, swapping)"
            ),
            Verdict::MachineSuspended(d) => {
                write!(f, "this node's machine was suspended for {d:.1?}; disable suspend on it")
            }
            Verdict::OwnLimits => f.write_str(
                "this node has reached its limit of open files and cannot connect to etcd; raise that limit \
                 (LimitNOFILE= in the unit, ulimit -n), or node.reserved_descriptors",
            ),
            Verdict::CutOff(silent) => write!(f, "{CUT_OFF}: {}", SilentList(silent)),
            Verdict::Unresolvable(silent) => write!(f, "{NO_NAMES}: {}; {NAMES_FIX}", SilentList(silent)),
            Verdict::NoWayToEtcd(peer) => write!(
                f,
                "network fault: {peer} reaches etcd, this node does not; check the network from here to etcd"
            ),
            Verdict::EtcdMember(silent) => {
                write!(f, "fault of an etcd member: {}; the others work", SilentList(silent))
            }
            Verdict::EtcdQuorum(silent) => {
                let all_answer = silent.iter().all(|s| s.finding == Finding::HasNoLeader);
                let (what, fix) = if all_answer {
                    ("its members know no leader", "they are electing one, or cannot reach each other")
                } else {
                    ("it has lost its quorum", "start the members that are down")
                };
                write!(f, "fault of etcd: {what}: {}; {fix}", SilentList(silent))
            }
            Verdict::EtcdDown(silent) => write!(f, "no etcd member answers: {}", SilentList(silent)),
            Verdict::EtcdRefuses(why) => write!(
                f,
                "fault of etcd's access control: etcd answers, and refuses this node: {why}; check \
                 store.etcd.username and the password in store.etcd.password_file, and the user's role (metad doctor --role)",
            ),
            Verdict::EtcdFull => f.write_str(
                "etcd is full (alarm NOSPACE): it grants no lease and takes no write; compact it, defragment \
                 each member, then: etcdctl alarm disarm",
            ),
            Verdict::StoreFile(why) => write!(f, "fault of {why}"),
            Verdict::RecordDeleted => {
                f.write_str("leader record deleted externally; lease valid, store healthy")
            }
            Verdict::LeaseGone => f.write_str(
                "this node's lease was revoked or had expired in the store, although it was renewed (an etcd \
                 leader that resumes after a hang can cause this, and so can etcdctl lease revoke)",
            ),
            Verdict::Deposed => {
                f.write_str("another member leads: the record names it, and the store refuses this node")
            }
            Verdict::TooEarly => {
                f.write_str("no etcd member responds; outage or network fault not yet distinguishable")
            }
            Verdict::Unclear => f.write_str(
                "renewals came too late, but the store and the network to it work again; the headroom of the \
                 last minutes shows when it began",
            ),
        }
    }
}

/// "a hangs, b refuses connections".
struct SilentList<'s>(&'s [Silent]);

impl fmt::Display for SilentList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, silent) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", silent.place, silent.finding)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;
    use crate::store::probe::{Alarm, MemberStatus};
    use crate::store::{Refusal, StoreError};

    const TTL: Duration = Duration::from_secs(10);

    fn says(place: &str, leader: u64, alarms: Vec<Alarm>) -> Probe {
        let status = MemberStatus { leader, alarms, ..MemberStatus::default() };
        let (status, decided) = (Ok((status, Duration::ZERO)), Ok(Duration::ZERO));
        let (place, at) = (place.into(), Instant::default());
        Probe { place, at, found: None, status, decided, takes_no_login: false }
    }

    fn well(place: &str) -> Probe {
        says(place, 1, vec![])
    }

    fn silent(place: &str, found: Finding) -> Probe {
        let decided = Err(StoreError::Unknown("no answer".into()));
        Probe { found: Some(found), status: Err("no answer".into()), decided, ..well(place) }
    }

    fn leaderless(place: &str) -> Probe {
        Probe { decided: Err(StoreError::Unknown("no leader".into())), ..says(place, 0, vec![]) }
    }

    fn refusing(place: &str) -> Probe {
        let refused = StoreError::Refused(Refusal::Denied, "etcdserver: invalid auth token".into());
        Probe { decided: Err(refused), ..well(place) }
    }

    fn peer(age_ms: Option<u64>) -> Peer {
        Peer { node: "p".into(), age: age_ms.map(Duration::from_millis) }
    }

    fn still(lasted: u64, waiting: u64, suspended: u64) -> Option<Stall> {
        let [lasted, waiting, suspended] = [lasted, waiting, suspended].map(Duration::from_millis);
        Some(Stall { lasted, waiting, suspended })
    }

    fn seen(probes: Vec<Probe>) -> Evidence {
        let hears_every = Duration::from_secs(1);
        Evidence { probes, ttl: TTL, silent_for: Duration::from_secs(6), hears_every, ..Evidence::default() }
    }

    fn all(found: Finding) -> Vec<Probe> {
        ["a", "b", "c"].map(|p| silent(p, found.clone())).into()
    }

    fn unreachable() -> Finding {
        Finding::Unreachable("no route to host".into())
    }

    fn unresolvable() -> Finding {
        Finding::Unresolvable("no such name".into())
    }

    #[track_caller]
    fn assert_judged(cases: &[(Evidence, &str)]) {
        for (evidence, expected) in cases {
            let verdict = judge(evidence);
            assert_eq!(verdict.as_str(), *expected, "{evidence:?}");
            assert!(verdict.to_string().len() > 20, "a sentence: {verdict}");
        }
    }

    fn healthy() -> Evidence {
        seen(["a", "b", "c"].map(well).into())
    }

    #[test]
    fn what_is_seen_of_etcd_has_its_verdict() {
        let of_three = |one: Probe| seen(vec![well("a"), one, well("c")]);
        let full = says("b", 1, vec![Alarm { member: 2, kind: "NOSPACE".into() }]);
        let two_down =
            vec![leaderless("a"), silent("b", Finding::NothingListens), silent("c", Finding::Hangs)];
        assert_judged(&[
            (seen(vec![]), "well"),
            (healthy(), "well"),
            (of_three(silent("b", Finding::Hangs)), "etcd_member"),
            (of_three(silent("b", Finding::NothingListens)), "etcd_member"),
            (of_three(silent("b", unreachable())), "etcd_member"),
            (of_three(silent("b", Finding::Stray { cluster: 2, pinned: 1 })), "etcd_member"),
            (
                of_three(Probe { found: Some(Finding::Stray { cluster: 2, pinned: 1 }), ..well("b") }),
                "etcd_member",
            ),
            (of_three(full), "etcd_full"),
            (of_three(Probe { status: Err("denied".into()), ..well("b") }), "well"),
            (seen(two_down), "etcd_quorum"),
            (of_three(refusing("b")), "etcd_member"),
            (seen(["a", "b", "c"].map(refusing).into()), "etcd_refuses"),
            (
                seen(vec![refusing("a"), silent("b", Finding::NothingListens), silent("c", Finding::Hangs)]),
                "etcd_refuses",
            ),
            (Evidence { reason: Some(Reason::RenewDeadline), ..seen(vec![refusing("a")]) }, "etcd_refuses"),
            (seen(all(Finding::Hangs)), "etcd_down"),
            (seen(all(Finding::NothingListens)), "etcd_down"),
            (seen(all(unreachable())), "cut_off"),
            (seen(all(unresolvable())), "unresolvable"),
            (seen(vec![silent("a", unreachable()), silent("b", unresolvable())]), "cut_off"),
            (seen(vec![silent("a", Finding::NothingListens), silent("b", unresolvable())]), "etcd_down"),
            (seen(vec![well("a"), silent("b", unresolvable())]), "etcd_member"),
            (seen(all(Finding::SpeaksTls)), "etcd_down"),
            (seen(all(Finding::OwnLimits)), "own_limits"),
            (seen(vec![silent("a", Finding::NothingListens), silent("b", Finding::OwnLimits)]), "own_limits"),
            (seen(vec![well("a"), silent("b", Finding::OwnLimits)]), "etcd_member"),
        ]);
    }

    #[test]
    fn the_other_nodes_tell_the_network_from_etcd() {
        let follower = |e| Evidence { hears_every: TTL / 3, ..e };
        let with = |found, silent_for, peers: Vec<Peer>| Evidence {
            peers,
            silent_for: Duration::from_millis(silent_for),
            ..seen(all(found))
        };
        assert_judged(&[
            (with(unreachable(), 6_000, vec![peer(Some(50)), peer(None)]), "no_way_to_etcd"),
            (with(unreachable(), 6_000, vec![peer(Some(9_000)), peer(None)]), "etcd_down"),
            (with(Finding::Hangs, 6_000, vec![peer(Some(5_900))]), "etcd_down"),
            (with(Finding::Hangs, 2_000, vec![peer(Some(1_900))]), "too_early"),
            (with(unreachable(), 6_000, vec![peer(None), peer(None)]), "cut_off"),
            (with(unresolvable(), 6_000, vec![peer(None)]), "cut_off"),
            (with(unresolvable(), 6_000, vec![peer(Some(50))]), "unresolvable"),
            (with(unresolvable(), 6_000, vec![peer(Some(5_900))]), "unresolvable"),
            (with(Finding::Hangs, 6_000, vec![peer(None), peer(None)]), "etcd_down"),
            // A follower hears every 3.3 s: what its leader heard 2 s later was before the outage.
            (follower(with(Finding::Hangs, 8_000, vec![peer(Some(6_000))])), "etcd_down"),
            (follower(with(Finding::Hangs, 8_000, vec![peer(Some(4_000))])), "no_way_to_etcd"),
        ]);
    }

    #[test]
    fn what_this_node_went_through_and_why_it_lost_have_their_verdicts() {
        let lost = |reason, e: Evidence| Evidence { reason: Some(reason), ..e };
        let gone = |e: Evidence| Evidence { registration_gone: true, ..e };
        let stood = |stall, e: Evidence| Evidence { stall, ..e };
        let down = || seen(all(Finding::Hangs));
        assert_judged(&[
            (stood(still(4_000, 3_900, 0), healthy()), "cpu_starved"),
            (stood(still(4_000, 10, 0), healthy()), "process_stopped"),
            (stood(still(4_000, 10, 3_990), healthy()), "machine_suspended"),
            // A little starvation does not excuse an etcd that is down.
            (lost(Reason::RenewDeadline, stood(still(900, 900, 0), down())), "etcd_down"),
            (lost(Reason::RenewDeadline, stood(still(9_000, 9_000, 0), down())), "cpu_starved"),
            (lost(Reason::RenewDeadline, healthy()), "unclear"),
            (lost(Reason::ClockSuspended, stood(still(60_000, 10, 59_990), healthy())), "machine_suspended"),
            (lost(Reason::ClockSuspended, stood(still(60_000, 10, 59_990), down())), "machine_suspended"),
            (lost(Reason::RecordDeleted, healthy()), "record_deleted"),
            (lost(Reason::RecordDeleted, gone(healthy())), "lease_gone"),
            (lost(Reason::RecordDeleted, gone(stood(still(12_000, 1, 0), healthy()))), "process_stopped"),
            // Nor does a hiccup explain the loss of a lease.
            (lost(Reason::RenewDeadline, stood(still(900, 900, 0), healthy())), "unclear"),
            (lost(Reason::RecordDeleted, gone(stood(still(900, 1, 0), healthy()))), "lease_gone"),
            (lost(Reason::Deposed, down()), "deposed"),
        ]);
    }

    #[test]
    fn a_quorum_that_is_lost_is_told_from_an_election() {
        let text = |probes| judge(&seen(probes)).to_string();
        let down =
            text(vec![leaderless("a"), silent("b", Finding::NothingListens), silent("c", Finding::Hangs)]);
        assert!(down.contains("lost its quorum") && down.contains("b refuses connections"), "{down}");
        let electing = text(["a", "b", "c"].map(leaderless).into());
        assert!(electing.contains("know no leader") && !electing.contains("are down"), "{electing}");
    }

    #[test]
    fn the_file_of_the_embedded_store_is_named() {
        let why = "the store's file /d/metad.db: database or disk is full";
        let seen = Evidence { complaint: Some(why.into()), ..seen(vec![]) };
        assert_eq!(judge(&seen).to_string(), format!("fault of {why}"));
        assert_judged(&[
            (Evidence { reason: Some(Reason::RenewDeadline), ..seen.clone() }, "store_file"),
            (Evidence { reason: Some(Reason::RenewDeadline), complaint: None, ..seen.clone() }, "unclear"),
            (
                Evidence { stall: still(9_000, 10, 0), reason: Some(Reason::RenewDeadline), ..seen },
                "process_stopped",
            ),
        ]);
    }

    /// Else a certificate that has expired so many seconds ago would be a new verdict at each look.
    #[test]
    fn what_only_says_it_in_other_words_is_the_same_verdict() {
        let of = |why: &str| judge(&seen(all(Finding::TlsFails(why.into()))));
        assert_eq!(of("expired 5 seconds ago"), of("expired 7 seconds ago"));
        assert_ne!(of("expired"), judge(&seen(all(Finding::Hangs))), "twin");
    }

    #[test]
    fn the_sentence_names_the_member_and_what_it_does() {
        let text = judge(&seen(vec![well("a"), silent("http://b:1", Finding::Hangs), well("c")])).to_string();
        assert!(text.contains("http://b:1 accepts connections but does not answer"), "{text}");
        for peers in [vec![], vec![peer(None)]] {
            let text = judge(&Evidence { peers, ..seen(all(unresolvable())) }).to_string();
            assert!(text.contains("a has a name that does not resolve (no such name)"), "{text}");
            assert!(text.contains("DNS"), "{text}");
        }
    }
}
