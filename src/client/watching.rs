//! Watching leader and members, through whichever member answers.

use futures_util::Stream;
use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::Streaming;

use super::MetaClient;
use super::attempts::Attempts;
use super::error::ClientError;
use super::verdict;
use crate::proto::metad::election_service_client::ElectionServiceClient;
use crate::proto::metad::{ObserveRequest, ObserveResponse};

/// How long a member gets to open a stream, and then to send the first view.
const OPEN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// Where a watch stands.
struct Watch {
    client: MetaClient,
    open: Option<(String, Streaming<ObserveResponse>)>,
    /// The member whose stream broke is asked last.
    broken: Option<String>,
    is_over: bool,
}

// === impl MetaClient: watching ===

impl MetaClient {
    /// Leader and members: first as they are, then again after every change. When the stream breaks, another member
    /// is asked; its first view may repeat the last one, or even be older: the leader's token and the answerer's
    /// revision tell. Changes in quick succession may come as one.
    ///
    /// The stream ends after an error, [`ClientError::GaveUp`]: no member answered for as long as the deadline.
    pub fn watch_members(&self) -> impl Stream<Item = Result<ObserveResponse, ClientError>> + Send + use<> {
        let watch = Watch { client: self.clone(), open: None, broken: None, is_over: false };
        let views: BoxStream<'static, _> = stream::unfold(watch, next).boxed();
        views
    }
}

async fn next(mut watch: Watch) -> Option<(Result<ObserveResponse, ClientError>, Watch)> {
    if watch.is_over {
        return None;
    }
    if let Some((address, views)) = &mut watch.open {
        if let Ok(Some(view)) = views.message().await {
            return Some((Ok(view), watch));
        }
        watch.broken = Some(address.clone());
        watch.open = None;
    }
    let mut attempts = watch.client.attempts("cannot watch the members");
    loop {
        if let Some(view) = watch.open_anywhere(&mut attempts).await {
            return Some((Ok(view), watch));
        }
        if let Err(e) = attempts.pause().await {
            watch.is_over = true;
            return Some((Err(e), watch));
        }
    }
}

// === impl Watch ===

impl Watch {
    /// The first view of the first member that has one.
    async fn open_anywhere(&mut self, attempts: &mut Attempts) -> Option<ObserveResponse> {
        let mut addresses = self.client.addresses();
        addresses.sort_by_key(|a| self.broken.as_ref() == Some(a));
        for address in addresses {
            let limit = attempts.left().min(OPEN_TIMEOUT);
            match tokio::time::timeout(limit, self.open(&address)).await {
                Ok(Ok((view, views))) => {
                    self.client.learn(&view.members);
                    self.open = Some((address, views));
                    return Some(view);
                }
                Ok(Err(why)) => attempts.note(&address, why),
                Err(_) => {
                    attempts.note(&address, format!("no answer within {limit:.1?}"));
                    self.client.disconnect(&address);
                }
            }
        }
        None
    }

    async fn open(&self, address: &str) -> Result<(ObserveResponse, Streaming<ObserveResponse>), String> {
        let mut service = ElectionServiceClient::new(self.client.channel(address).map_err(|e| e.why)?);
        let answer = service.observe(ObserveRequest {}).await.map_err(|s| verdict::words(&s))?;
        let mut views = answer.into_inner();
        match views.message().await {
            Ok(Some(view)) => Ok((view, views)),
            Ok(None) => Err("it has closed the stream".to_owned()),
            Err(status) => Err(verdict::words(&status)),
        }
    }
}
