//! Keys and values as they stand in the store: the layout of `src/docs/store.md`, and the JSON of its records.
//!
//! The leader record uses the names of Kubernetes' Lease object, so that people and tools recognise it. A value
//! that cannot be read is never guessed at: an unreadable leader record counts as somebody else's. A registration counts
//! only under the key of its node and on the lease that it names: whatever else is put there speaks for nobody.

pub mod history;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Change, KeyRange, KeyValue, WatchBatch, after_prefix};
use crate::clock::rfc3339;
use crate::election::lease::LeaseId;
use crate::election::record::{
    Foreign, Freeze, Incarnation, Leader, LeaderRecord, Member, MemberId, MemberUuid, Nonce, Registration,
    Revision, Tenure, Token, View,
};

/// How much of a foreign candidate's value is shown.
const FOREIGN_CHARS_MAX: usize = 200;

/// Where the keys of one cluster and group are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Keys {
    prefix: String,
    group: String,
}

/// What is left of an earlier start of a data dir: `identity/<uuid>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdentityRow {
    /// The last start that the store knows of.
    pub incarnation: Incarnation,
    /// The lease it took.
    pub lease: LeaseId,
    /// When somebody was last seen with it, in milliseconds since the Unix epoch; 0: nobody has noted that.
    pub seen_ms: u64,
}

/// Record and registrations as key-value pairs; a watch's changes are folded into it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct WatchedKeys {
    revision: Revision,
    keys: BTreeMap<String, KeyValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeaderJson {
    holder_identity: String,
    lease_duration_seconds: u64,
    acquire_time: String,
    lease_transitions: u64,
    uuid: String,
    incarnation: u64,
    address: String,
    nonce: u64,
    #[serde(default)]
    probe_handed_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct RegistrationJson {
    node: String,
    uuid: String,
    incarnation: u64,
    rpc_address: String,
    http_address: String,
    priority: u16,
    version: String,
    lease_duration_seconds: u64,
    lease: String,
}

#[derive(Serialize, Deserialize)]
struct FreezeJson {
    reason: String,
    by: String,
    since: String,
    until: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct IdentityJson {
    incarnation: u64,
    lease: String,
    #[serde(default)]
    seen_ms: u64,
}

// === impl Keys ===

impl Keys {
    /// The keys of this cluster and group.
    pub fn new(cluster: &str, group: &str) -> Self {
        Self { prefix: format!("/metad/{cluster}/"), group: group.to_owned() }
    }

    /// Everything of this cluster.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `nodes/<node>`: a member's registration.
    pub fn node(&self, node: &str) -> String {
        format!("{}{node}", self.nodes())
    }

    /// The prefix of all registrations.
    pub fn nodes(&self) -> String {
        format!("{}nodes/", self.prefix)
    }

    /// The prefix of the election; holds nothing but the leader record, and foreign campaigners.
    pub fn election(&self) -> String {
        format!("{}election/{}/", self.prefix, self.group)
    }

    /// The leader record.
    pub fn leader(&self) -> String {
        format!("{}leader", self.election())
    }

    /// `control/<group>`: the freeze.
    pub fn control(&self) -> String {
        format!("{}control/{}", self.prefix, self.group)
    }

    /// `control/<group>/changed`: its revision moves with each freeze and unfreeze. Never deleted.
    pub fn control_changed(&self) -> String {
        format!("{}/changed", self.control())
    }

    /// `identity/<uuid>`.
    pub fn identity(&self, uuid: MemberUuid) -> String {
        format!("{}{uuid}", self.identities())
    }

    /// The prefix of all identities.
    pub fn identities(&self) -> String {
        format!("{}identity/", self.prefix)
    }

    /// A key of the main loop's own state; every write of it is fenced.
    pub fn state(&self, name: &str) -> String {
        format!("{}state/{name}", self.prefix)
    }

    /// The key that is written to lift the store's revision, and deleted afterwards.
    pub fn revision(&self) -> String {
        format!("{}revision", self.prefix)
    }

    /// What a member watches: from `control/` to the end of `nodes/`, in one stream, because two streams are
    /// not ordered with each other. `state/` lies outside of it.
    pub fn watched(&self) -> KeyRange {
        KeyRange { from: format!("{}control/", self.prefix), to: after_prefix(&self.nodes()) }
    }
}

// === impl WatchedKeys ===

impl WatchedKeys {
    /// The keys that a read of election, nodes and control shows.
    pub fn of(revision: Revision, found: &[Vec<KeyValue>]) -> Self {
        let keys = found.iter().flatten().map(|kv| (kv.key.clone(), kv.clone())).collect();
        Self { revision, keys }
    }

    /// Up to where it is complete.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Folds in what a watch has shown.
    pub fn fold(&mut self, batch: WatchBatch) {
        for change in batch.changes {
            match change {
                Change::Put(kv) => self.keys.insert(kv.key.clone(), kv),
                Change::Deleted(key) => self.keys.remove(&key),
            };
        }
        self.revision = self.revision.max(batch.revision);
    }

    /// What it means.
    pub fn view(&self, keys: &Keys) -> View {
        let nodes = KeyRange::prefix(&keys.nodes());
        let registrations = self.keys.values().filter(|kv| nodes.contains(&kv.key));
        let members = registrations.filter_map(|kv| decode_member(keys, kv)).collect();
        let tenure = self.keys.get(&keys.leader()).and_then(decode_tenure);
        let foreign = self.foreign(keys, tenure.is_some());
        let leader = match (tenure, &foreign) {
            (Some(tenure), _) => Leader::Held(Box::new(tenure)),
            (None, Some(foreign)) => Leader::Foreign(foreign.value.clone()),
            (None, None) => Leader::Vacant,
        };
        let freeze = self.keys.get(&keys.control()).map(|kv| (decode_freeze(kv), kv.modified));
        View { revision: self.revision, leader, members, foreign, freeze }
    }

    /// The oldest key that is where only the leader record belongs, and is none.
    fn foreign(&self, keys: &Keys, is_led: bool) -> Option<Foreign> {
        let election = KeyRange::prefix(&keys.election());
        let is_foreign = |kv: &&KeyValue| election.contains(&kv.key) && !(is_led && kv.key == keys.leader());
        let oldest = self.keys.values().filter(is_foreign).min_by_key(|kv| kv.created)?;
        let value: String = String::from_utf8_lossy(&oldest.value).chars().take(FOREIGN_CHARS_MAX).collect();
        Some(Foreign { key: oldest.key.clone(), value })
    }
}

// === values ===

/// The leader record as JSON.
pub fn encode_leader(record: &LeaderRecord) -> Vec<u8> {
    to_json(&LeaderJson {
        holder_identity: record.holder.node.clone(),
        lease_duration_seconds: record.ttl.as_secs(),
        acquire_time: rfc3339(record.acquired_ms),
        lease_transitions: record.transitions,
        uuid: record.holder.uuid.to_string(),
        incarnation: record.holder.incarnation.0,
        address: record.address.clone(),
        nonce: record.nonce.0,
        probe_handed_ms: record.probe_handed_ms,
    })
}

/// The tenure that a leader record stands for; `None` if it is not one of ours.
pub fn decode_tenure(kv: &KeyValue) -> Option<Tenure> {
    let json: LeaderJson = serde_json::from_slice(&kv.value).ok()?;
    let holder = MemberId {
        node: json.holder_identity,
        uuid: json.uuid.parse().ok()?,
        incarnation: Incarnation(json.incarnation),
    };
    let acquired: jiff::Timestamp = json.acquire_time.parse().ok()?;
    let record = LeaderRecord {
        holder,
        address: json.address,
        nonce: Nonce(json.nonce),
        ttl: Duration::from_secs(json.lease_duration_seconds),
        acquired_ms: u64::try_from(acquired.as_millisecond()).unwrap_or(0),
        transitions: json.lease_transitions,
        probe_handed_ms: json.probe_handed_ms,
    };
    // A record without a lease would be immortal; it is none of ours.
    let rewritten = kv.created != kv.modified;
    Some(Tenure { record, token: Token::new(kv.modified)?, lease: kv.lease?, rewritten })
}

/// A registration as JSON.
pub fn encode_registration(registration: &Registration) -> Vec<u8> {
    to_json(&RegistrationJson {
        node: registration.member.node.clone(),
        uuid: registration.member.uuid.to_string(),
        incarnation: registration.member.incarnation.0,
        rpc_address: registration.rpc_address.clone(),
        http_address: registration.http_address.clone(),
        priority: registration.priority,
        version: registration.version.clone(),
        lease_duration_seconds: registration.ttl.as_secs(),
        lease: registration.lease.to_string(),
    })
}

/// The member that a registration stands for; `None` if it is under another key than its node's, or hangs on another
/// lease than it names. One without a lease would be immortal.
pub fn decode_member(keys: &Keys, kv: &KeyValue) -> Option<Member> {
    let json: RegistrationJson = serde_json::from_slice(&kv.value).ok()?;
    let lease = parse_lease(&json.lease)?;
    if kv.key != keys.node(&json.node) || kv.lease != Some(lease) {
        return None;
    }
    let member = MemberId {
        node: json.node,
        uuid: json.uuid.parse().ok()?,
        incarnation: Incarnation(json.incarnation),
    };
    let registration = Registration {
        member,
        rpc_address: json.rpc_address,
        http_address: json.http_address,
        priority: json.priority,
        version: json.version,
        ttl: Duration::from_secs(json.lease_duration_seconds),
        lease,
    };
    Some(Member { registration, created: kv.created, generation: kv.modified })
}

/// A freeze as JSON.
pub fn encode_freeze(freeze: &Freeze) -> Vec<u8> {
    to_json(&FreezeJson {
        reason: freeze.reason.clone(),
        by: freeze.by.clone(),
        since: rfc3339(freeze.since_ms),
        until: freeze.until_ms.map(rfc3339),
    })
}

/// The freeze in a value. A key that cannot be read freezes as well: no claim passes it.
pub fn decode_freeze(kv: &KeyValue) -> Freeze {
    let ms = |text: &str| {
        text.parse().ok().and_then(|at: jiff::Timestamp| u64::try_from(at.as_millisecond()).ok())
    };
    match serde_json::from_slice(&kv.value) {
        Ok(FreezeJson { reason, by, since, until }) => Freeze {
            reason,
            by,
            since_ms: ms(&since).unwrap_or_default(),
            until_ms: until.as_deref().and_then(ms),
        },
        Err(e) => {
            let reason = format!("the key {} cannot be read: {e}", kv.key);
            Freeze { reason, by: String::new(), since_ms: 0, until_ms: None }
        }
    }
}

/// An identity row as JSON.
pub fn encode_identity(row: &IdentityRow) -> Vec<u8> {
    let (lease, seen_ms) = (row.lease.to_string(), row.seen_ms);
    to_json(&IdentityJson { incarnation: row.incarnation.0, lease, seen_ms })
}

/// The identity row in a value.
pub fn decode_identity(value: &[u8]) -> Option<IdentityRow> {
    let json: IdentityJson = serde_json::from_slice(value).ok()?;
    let (lease, seen_ms) = (parse_lease(&json.lease)?, json.seen_ms);
    Some(IdentityRow { incarnation: Incarnation(json.incarnation), lease, seen_ms })
}

/// A lease id as etcdctl prints it.
pub fn parse_lease(hex: &str) -> Option<LeaseId> {
    u64::from_str_radix(hex, 16).ok().map(|id| LeaseId(id.cast_signed()))
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    // These structs hold strings and numbers only, which always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: Vec<u8>, created: u64, lease: Option<i64>) -> KeyValue {
        let modified = Revision(created + 1);
        KeyValue { key: key.into(), value, created: Revision(created), modified, lease: lease.map(LeaseId) }
    }

    fn record() -> LeaderRecord {
        LeaderRecord {
            holder: MemberId { node: "n1".into(), uuid: MemberUuid(7), incarnation: Incarnation(3) },
            address: "h:1".into(),
            nonce: Nonce(2),
            ttl: Duration::from_secs(5),
            acquired_ms: 1_700_000_000_123,
            transitions: 4,
            probe_handed_ms: 5,
        }
    }

    #[test]
    fn the_leader_record_has_the_names_of_a_kubernetes_lease_and_survives_the_round_trip() {
        let bytes = encode_leader(&record());
        let text = String::from_utf8(bytes.clone()).unwrap();
        for name in ["holderIdentity", "leaseDurationSeconds", "acquireTime", "leaseTransitions"] {
            assert!(text.contains(name), "{name} in {text}");
        }
        let tenure = decode_tenure(&kv("k", bytes, 5, Some(9))).unwrap();
        assert_eq!((tenure.record, tenure.token.get(), tenure.lease), (record(), 6, LeaseId(9)));
    }

    #[test]
    fn a_record_that_is_not_ours_is_foreign_and_never_vacant() {
        let keys = Keys::new("c", "meta");
        for (name, value) in [("leader", b"junk".to_vec()), ("1234abcd", b"another tool".to_vec())] {
            let found = vec![vec![kv(&format!("{}{name}", keys.election()), value, 5, Some(1))]];
            let view = WatchedKeys::of(Revision(9), &found).view(&keys);
            assert!(matches!(view.leader, Leader::Foreign(_)), "{name}: {:?}", view.leader);
        }
        assert_eq!(WatchedKeys::default().view(&keys).leader, Leader::Vacant, "twin");
    }

    #[test]
    fn a_registration_counts_under_its_own_key_and_lease_only() {
        let keys = Keys::new("c", "meta");
        let mut registration = Registration::of(record().holder);
        registration.lease = LeaseId(9);
        let at =
            |key: &str, lease| decode_member(&keys, &kv(key, encode_registration(&registration), 5, lease));
        assert_eq!(at(&keys.node("n1"), Some(9)).map(|m| m.registration), Some(registration.clone()));
        for (key, lease) in [("n2", Some(9)), ("n1/x", Some(9)), ("n1", Some(8)), ("n1", None)] {
            assert_eq!(at(&keys.node(key), lease), None, "{key} on {lease:?}");
        }
    }

    #[test]
    fn a_key_beside_the_leader_record_is_shown_whoever_leads() {
        let keys = Keys::new("c", "meta");
        let stray = kv(&format!("{}x", keys.election()), "y".repeat(300).into_bytes(), 7, None);
        let ours = kv(&keys.leader(), encode_leader(&record()), 5, Some(1));
        let led = WatchedKeys::of(Revision(9), &[vec![ours, stray.clone()]]).view(&keys);
        assert!(led.leader.tenure().is_some());
        let shown = Foreign { key: stray.key.clone(), value: "y".repeat(200) };
        assert_eq!(led.foreign, Some(shown));
        let vacant = WatchedKeys::of(Revision(9), &[vec![stray]]).view(&keys);
        assert_eq!((vacant.leader, vacant.foreign), (Leader::Foreign("y".repeat(200)), led.foreign));
    }

    #[test]
    fn a_freeze_survives_the_round_trip_and_one_that_cannot_be_read_freezes_too() {
        let keys = Keys::new("c", "meta");
        let freeze = Freeze {
            reason: "etcd is being moved".into(),
            by: "admin ana".into(),
            since_ms: 1_700_000_000_123,
            until_ms: Some(1_700_000_060_123),
        };
        let view = |value: Vec<u8>| {
            WatchedKeys::of(Revision(9), &[vec![kv(&keys.control(), value, 5, None)]]).view(&keys).freeze
        };
        assert_eq!(view(encode_freeze(&freeze)), Some((freeze, Revision(6))));
        let (unreadable, _) = view(b"junk".to_vec()).expect("a freeze");
        assert!(
            unreadable.reason.contains("control/meta") && unreadable.until_ms.is_none(),
            "{unreadable:?}"
        );
        assert_eq!(WatchedKeys::default().view(&keys).freeze, None, "twin");
    }

    #[test]
    fn changes_are_folded_in() {
        let keys = Keys::new("c", "meta");
        let mut watched = WatchedKeys::default();
        let put = Change::Put(kv(&keys.leader(), encode_leader(&record()), 5, Some(1)));
        watched.fold(WatchBatch { revision: Revision(6), changes: vec![put] });
        assert!(watched.view(&keys).leader.tenure().is_some());
        let gone = Change::Deleted(keys.leader());
        watched.fold(WatchBatch { revision: Revision(7), changes: vec![gone] });
        assert_eq!(watched.view(&keys).leader, Leader::Vacant);
        assert_eq!(watched.revision(), Revision(7));
    }

    #[test]
    fn the_watched_range_holds_election_and_nodes_but_no_state() {
        let keys = Keys::new("c", "meta");
        let range = keys.watched();
        let watched = [keys.leader(), keys.node("n1"), keys.control()];
        assert!(watched.iter().all(|key| range.contains(key)));
        assert!(!range.contains(&keys.state("tick")));
    }
}
