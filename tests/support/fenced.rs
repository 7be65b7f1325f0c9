//! Decides from etcd's own history whether a write ever landed under an old token.
//!
//! etcd keeps every revision until it is compacted, in one order that no clock disturbs. So the history of a
//! cluster's keys is read from its first revision: each write under `state/` that names a token must name that of
//! the leader record as it stood at that very revision, and the record's tokens must grow.

use std::time::{Duration, Instant};

use etcd_client::{
    Certificate, Client, ConnectOptions, EventType, GetOptions, Identity, TlsOptions, WatchOptions,
};
use serde_json::Value;

use super::crew::tenures;
use super::etcd::EtcdCluster;
use super::history::Tenure;
use super::node::Node;

/// How long reading the history may take.
const PATIENCE: Duration = Duration::from_secs(60);
const LEADER: &str = "election/meta/leader";
const COMMITTED: &str = "state/meta/barrier/committed";
const CEILING: &str = "state/meta/barrier/ceiling";

/// What the history holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Every token that the leader record ever had, oldest first.
    pub tokens: Vec<u64>,
    /// How many writes under `state/` named a token, and the right one.
    pub fenced: usize,
    /// How many rows of the history were opened, each under its own token.
    pub opened: usize,
    /// Every epoch that was committed, oldest first.
    pub committed: Vec<EpochWrite>,
    /// Every ceiling of epochs, oldest first.
    pub ceilings: Vec<EpochWrite>,
}

/// An epoch that was written, and the leader's token at that revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochWrite {
    /// Under which token; 0: nobody led, which no fenced write survives.
    pub token: u64,
    /// What.
    pub epoch: u64,
}

/// One change of a key.
struct Step {
    key: String,
    revision: u64,
    /// `None`: deleted.
    value: Option<Vec<u8>>,
}

/// Reads the history of a cluster and checks each write in it. etcd must have a quorum.
///
/// `tenures` are those that the nodes told of: each must have had the leader record.
#[track_caller]
pub fn check(etcd: &EtcdCluster, cluster: &str, tenures: &[Tenure]) -> Result<Writes, String> {
    let prefix = format!("/metad/{cluster}/");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let steps = runtime.block_on(read_in_time(etcd, &prefix))?;
    let writes = judge(&steps)?;
    match tenures.iter().find(|t| !writes.tokens.contains(&t.token)) {
        Some(t) => Err(format!("{} led with token {}, which the leader record never had", t.label, t.token)),
        None => Ok(writes),
    }
}

/// How every row about faults ends: main loops that never overlapped, and no write under an old token in etcd's history.
#[track_caller]
pub fn assert_no_stale_write(etcd: &EtcdCluster, nodes: &[Node]) {
    let writes = check(etcd, "default", &tenures(nodes)).unwrap_or_else(|e| panic!("{e}"));
    assert!(writes.fenced > 0, "no main loop has written anything");
}

/// Asks one member after the other: some may be dead on purpose, or just be electing their leader.
async fn read_in_time(etcd: &EtcdCluster, prefix: &str) -> Result<Vec<Step>, String> {
    let (mut why, deadline) = (String::new(), Instant::now() + PATIENCE);
    for endpoint in etcd.urls().iter().cycle() {
        if Instant::now() >= deadline {
            break;
        }
        match tokio::time::timeout(PATIENCE / 3, read(endpoint, options(etcd), prefix)).await {
            Ok(Ok(steps)) => return Ok(steps),
            Ok(Err(e)) => why = e,
            Err(e) => why = e.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err(format!("the history of etcd cannot be read: {why}"))
}

/// The client certificate and the login of a cluster that wants them.
fn options(etcd: &EtcdCluster) -> ConnectOptions {
    let mut options = ConnectOptions::new();
    if let Some(tls) = &etcd.tls {
        let read = |path| std::fs::read(path).expect("a PEM file");
        let identity = Identity::from_pem(read(&tls.cert), read(&tls.key));
        let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(&tls.ca))).identity(identity);
        options = options.with_tls(tls);
    }
    if let Some((user, password)) =
        etcd.root.lock().expect("not poisoned").as_ref().and_then(|r| r.split_once(':'))
    {
        options = options.with_user(user, password);
    }
    options
}

/// All changes below `prefix` up to now.
async fn read(endpoint: &str, options: ConnectOptions, prefix: &str) -> Result<Vec<Step>, String> {
    let text = |e: etcd_client::Error| e.to_string();
    let mut client = Client::connect([endpoint], Some(options)).await.map_err(text)?;
    let now = client.get(prefix, Some(GetOptions::new().with_prefix().with_limit(1))).await.map_err(text)?;
    let now = now.header().map_or(0, |h| h.revision());
    // A change that comes last, so that its arrival proves that all others have arrived.
    let last = client.put(format!("{prefix}checked"), "", None).await.map_err(text)?;
    let last = last.header().map_or(now + 1, |h| h.revision());
    let options = WatchOptions::new().with_prefix().with_start_revision(1);
    let mut stream = client.watch(prefix, Some(options)).await.map_err(text)?;
    let mut steps = Vec::new();
    while let Some(batch) = stream.message().await.map_err(text)? {
        if batch.compact_revision() > 0 {
            return Err(format!("it was compacted at {}", batch.compact_revision()));
        }
        for event in batch.events() {
            let Some(kv) = event.kv() else { continue };
            if kv.mod_revision() >= last {
                return Ok(steps);
            }
            steps.push(Step {
                key: kv.key_str().map_err(text)?.trim_start_matches(prefix).to_owned(),
                revision: kv.mod_revision().unsigned_abs(),
                value: (event.event_type() == EventType::Put).then(|| kv.value().to_vec()),
            });
        }
    }
    Err("the watch ended".into())
}

fn judge(steps: &[Step]) -> Result<Writes, String> {
    let mut writes = Writes::default();
    let mut leader = None;
    for step in steps {
        if step.key == LEADER {
            leader = step.value.is_some().then_some(step.revision);
            writes.tokens.extend(leader);
            continue;
        }
        let json = step.value.as_deref().and_then(|value| serde_json::from_slice::<Value>(value).ok());
        let number = |field| json.as_ref().and_then(|json| json[field].as_u64());
        let epoch = number("epoch").map(|epoch| EpochWrite { token: leader.unwrap_or(0), epoch });
        match step.key.as_str() {
            COMMITTED => writes.committed.extend(epoch),
            CEILING => writes.ceilings.extend(epoch),
            _ => {}
        }
        // Rows are closed by others, too, or when the token is gone; they are opened under it.
        let is_opening =
            step.key.starts_with("history/") && json.as_ref().is_some_and(|row| row["reason"].is_null());
        let is_fenced = is_opening || step.key.starts_with("state/");
        let Some(token) = number("token").filter(|_| is_fenced) else { continue };
        if leader != Some(token) {
            let Step { key, revision, .. } = step;
            return Err(format!(
                "{key} was written at revision {revision} under token {token}; the leader's was {leader:?}"
            ));
        }
        if is_opening {
            writes.opened += 1;
        } else {
            writes.fenced += 1;
        }
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(key: &str, revision: u64, token: Option<u64>) -> Step {
        let value = token.map(|t| format!("{{\"token\":{t}}}").into_bytes());
        Step { key: key.into(), revision, value }
    }

    #[test]
    fn writes_under_the_record_of_their_time_are_counted() {
        let steps = [
            step(LEADER, 4, Some(0)),
            step("state/tick", 5, Some(4)),
            step(LEADER, 6, None),
            step(LEADER, 7, Some(0)),
            step("state/tick", 8, Some(7)),
            step("state/other", 9, None),
        ];
        assert_eq!(judge(&steps), Ok(Writes { tokens: vec![4, 7], fenced: 2, ..Writes::default() }));
    }

    #[test]
    fn a_row_is_opened_under_its_token_and_closed_by_anybody() {
        let row = |revision, reason: &str| Step {
            key: "history/4".into(),
            revision,
            value: Some(format!("{{\"token\":4,\"reason\":{reason}}}").into_bytes()),
        };
        let good =
            [step(LEADER, 4, Some(0)), row(5, "null"), step(LEADER, 7, Some(0)), row(8, "\"vanished\"")];
        assert_eq!(judge(&good), Ok(Writes { tokens: vec![4, 7], opened: 1, ..Writes::default() }));
        let late = [step(LEADER, 4, Some(0)), step(LEADER, 7, Some(0)), row(8, "null")];
        assert!(judge(&late).is_err_and(|e| e.contains("under token 4")));
    }

    #[test]
    fn epochs_are_listed_with_the_token_of_their_time() {
        let epoch = |key: &str, revision, epoch: u64| Step {
            value: Some(format!("{{\"epoch\":{epoch}}}").into_bytes()),
            ..step(key, revision, None)
        };
        let steps = [step(LEADER, 4, Some(0)), epoch(CEILING, 5, 90), epoch(COMMITTED, 6, 80)];
        let writes = judge(&steps).expect("fine");
        assert_eq!(writes.ceilings, [EpochWrite { token: 4, epoch: 90 }]);
        assert_eq!(writes.committed, [EpochWrite { token: 4, epoch: 80 }]);
    }

    #[test]
    fn a_write_under_an_old_token_is_refused() {
        let taken = [step(LEADER, 4, Some(0)), step(LEADER, 7, Some(0)), step("state/tick", 8, Some(4))];
        assert!(judge(&taken).is_err_and(|e| e.contains("under token 4")));
        let vacant = [step(LEADER, 4, Some(0)), step(LEADER, 5, None), step("state/tick", 6, Some(4))];
        assert!(judge(&vacant).is_err());
    }
}
