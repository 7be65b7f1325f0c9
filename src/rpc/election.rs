//! `metad.v1.ElectionService`: who leads, who may, and what changes.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::{RpcParts, convert};
use crate::proto::metad::election_service_server::ElectionService;
use crate::proto::metad::{
    LeaderRequest, LeaderResponse, MembersRequest, MembersResponse, ObserveRequest, ObserveResponse,
};

pub(super) struct Election {
    parts: RpcParts,
}

impl Election {
    pub(super) fn new(parts: RpcParts) -> Self {
        Self { parts }
    }
}

#[tonic::async_trait]
impl ElectionService for Election {
    async fn leader(&self, _: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let status = self.parts.driver.status();
        let answerer = Some(convert::answerer(&status, self.parts.clock.now()));
        Ok(Response::new(LeaderResponse { leader: convert::leader(&status), answerer }))
    }

    async fn members(&self, _: Request<MembersRequest>) -> Result<Response<MembersResponse>, Status> {
        let status = self.parts.driver.status();
        let answerer = Some(convert::answerer(&status, self.parts.clock.now()));
        Ok(Response::new(MembersResponse { members: convert::members(&status), answerer }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<ObserveResponse, Status>> + Send>>;

    /// The watch keeps one value, the newest, so a slow reader costs nothing and never sees an old one.
    async fn observe(&self, _: Request<ObserveRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let clock = self.parts.clock.clone();
        let snapshots = WatchStream::new(self.parts.driver.subscribe());
        let mut last = None;
        let changes = snapshots.filter_map(move |status| {
            // Renewals change the snapshot all the time; only what an observer can see is a change to it.
            let seen = (convert::leader(&status), convert::members(&status), status.role);
            let fresh = last.as_ref() != Some(&seen);
            last = Some(seen.clone());
            let (leader, members, _) = seen;
            let answerer = Some(convert::answerer(&status, clock.now()));
            std::future::ready(fresh.then_some(Ok(ObserveResponse { leader, members, answerer })))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
