//! A watch on one member, with signs of life.
//!
//! The revision of a batch is that of its last event. A progress notification's own revision is not used: before
//! etcd 3.4.25 and 3.5.8 it could run ahead of events that were still to come, and would make a view look
//! complete that is not. It only shows that the stream lives.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::Shared;
use super::convert::{key_value, revision};
use super::error::{error, is_of_login};
use super::member::Member;
use crate::clock::{Clock, Instant, OsClock};
use crate::election::record::Revision;
use crate::store::{Change, KeyRange, Refusal, StoreError, WatchBatch};

type Batch = Result<WatchBatch, StoreError>;

struct Watching {
    shared: Arc<Shared>,
    member: Arc<Member>,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    opened_at: Instant,
    /// What happened up to here is known already.
    after: Revision,
    seen: Revision,
    ask_every: Duration,
}

/// Opens a watch at this member.
pub(super) async fn open(
    shared: &Arc<Shared>,
    member: Arc<Member>,
    range: KeyRange,
    after: Revision,
    alive_every: Duration,
) -> Result<BoxStream<'static, Batch>, StoreError> {
    shared.check_stray(&member).await?;
    let stamp = OsClock.now();
    let mut connection = member.connection(stamp).await?;
    // From `after` itself, whose events are dropped again: to a watch that starts in the future etcd sends no
    // progress notification, so an idle store would look like a dead watch.
    let start = after.0.max(1).cast_signed();
    let options = WatchOptions::new().with_range(range.to).with_start_revision(start);
    let stream = connection.client.watch(range.from, Some(options)).await.map_err(|e| error(&e))?;
    member.heard(stamp, true);
    let (requests, responses) = stream.split();
    let ask_every = alive_every / 2;
    let shared = shared.clone();
    let watching =
        Watching { shared, member, requests, responses, opened_at: stamp, after, seen: after, ask_every };
    Ok(stream::unfold(Some(watching), |watching| async {
        let mut watching = watching?;
        match watching.next().await {
            Ok(batch) => Some((Ok(batch), Some(watching))),
            Err(e) => Some((Err(e), None)),
        }
    })
    .boxed())
}

impl Watching {
    async fn next(&mut self) -> Batch {
        loop {
            match tokio::time::timeout(self.ask_every, self.responses.message()).await {
                Ok(Ok(Some(response))) => return self.batch(&response),
                Ok(Ok(None)) => return Err(StoreError::Unknown("the watch ended".into())),
                Ok(Err(e)) => return Err(error(&e)),
                Err(_) => self.requests.request_progress().await.map_err(|e| error(&e))?,
            }
        }
    }

    fn batch(&mut self, response: &WatchResponse) -> Batch {
        // etcd's proxy puts no cluster on what it says of itself.
        let cluster = response.header().map_or(0, etcd_client::ResponseHeader::cluster_id);
        if cluster != 0 {
            self.shared.check_cluster(&self.member, cluster)?;
        }
        if response.compact_revision() > 0 {
            let why = format!("compacted up to {}", response.compact_revision());
            return Err(StoreError::Refused(Refusal::Compacted, why));
        }
        if response.canceled() {
            if is_of_login(response.cancel_reason()) {
                self.member.needs_login(self.opened_at); // the next watch would be refused like this one
            }
            return Err(StoreError::Unknown(format!(
                "the watch was cancelled: {}",
                response.cancel_reason()
            )));
        }
        let mut changes = Vec::new();
        for event in response.events() {
            let Some(kv) = event.kv().filter(|kv| revision(kv.mod_revision()) > self.after) else { continue };
            self.seen = self.seen.max(revision(kv.mod_revision()));
            changes.push(match event.event_type() {
                EventType::Put => Change::Put(key_value(kv)),
                EventType::Delete => Change::Deleted(String::from_utf8_lossy(kv.key()).into_owned()),
            });
        }
        Ok(WatchBatch { revision: self.seen, changes })
    }
}
