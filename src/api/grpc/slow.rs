//! Readers that do not read: their stream is cut off with a reason, so that nobody keeps a watch open for them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How many messages may wait for the reader; each of them may be as large as a write.
const UNREAD_MAX: usize = 4;
/// How long the next one waits for room.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The same stream, which ends with ABORTED when its reader does not read for [`TIMEOUT`]. The source is dropped
/// then, and also when the reader goes away.
pub(super) fn cut_off<T: Send + 'static>(
    source: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send {
    let (items, inbox) = mpsc::channel(UNREAD_MAX);
    let is_cut = Arc::new(AtomicBool::new(false));
    tokio::spawn(pass_on(source, items, is_cut.clone()));
    // Looked at when the inbox has ended, which is after the cut.
    let why = stream::once(async move { is_cut.load(Ordering::Acquire) });
    let why = why.filter_map(|is_cut| std::future::ready(is_cut.then(|| Err(too_slow()))));
    ReceiverStream::new(inbox).chain(why)
}

async fn pass_on<T>(
    source: impl Stream<Item = Result<T, Status>>,
    items: mpsc::Sender<Result<T, Status>>,
    is_cut: Arc<AtomicBool>,
) {
    let mut source = pin!(source);
    loop {
        let item = tokio::select! {
            item = source.next() => item,
            () = items.closed() => return,
        };
        let Some(item) = item else { return };
        match items.send_timeout(item, TIMEOUT).await {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) => {
                is_cut.store(true, Ordering::Release);
                return tracing::warn!("a watch was not read for {TIMEOUT:?} and was cut off");
            }
            Err(SendTimeoutError::Closed(_)) => return,
        }
    }
}

fn too_slow() -> Status {
    Status::aborted(format!(
        "this watch was not read for {TIMEOUT:?} and was cut off; read again, and watch from there"
    ))
}
