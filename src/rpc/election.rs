//! `metad.v1.ElectionService`: who leads, who may, and what changes.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::{RpcParts, convert, refuse, requests};
use crate::driver::status::{self, Role};
use crate::proto::metad::election_service_server::ElectionService;
use crate::proto::metad::{
    LeaderRequest, LeaderResponse, MembersRequest, MembersResponse, ObserveRequest, ObserveResponse,
    PrepareRequest, PrepareResponse, StepDownRequest, StepDownResponse,
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

    async fn step_down(
        &self,
        request: Request<StepDownRequest>,
    ) -> Result<Response<StepDownResponse>, Status> {
        let status = self.parts.driver.status();
        let Some(token) = status.token.filter(|_| status.role == Role::Leader) else {
            return Err(refuse::not_the_leader(&status));
        };
        let wanted = requests::step_down(request.into_inner());
        if let Some(node) = &wanted {
            check_target(&status, node)?;
        }
        self.parts.driver.step_down(wanted);
        Ok(Response::new(StepDownResponse { token: token.get() }))
    }

    async fn prepare(&self, _: Request<PrepareRequest>) -> Result<Response<PrepareResponse>, Status> {
        let status = self.parts.driver.status();
        let now = self.parts.clock.now();
        let ready = status.role == Role::Follower && status.allows_start(now);
        if ready {
            self.parts.driver.prepare();
        }
        let uuid = status.me.uuid.to_string();
        Ok(Response::new(PrepareResponse { ready, uuid, incarnation: status.me.incarnation.0 }))
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

fn check_target(status: &status::Status, node: &str) -> Result<(), Status> {
    if node == status.me.node {
        return Err(Status::failed_precondition(format!("{node} leads already")));
    }
    let Some(member) = status.view.member(node) else {
        let known: Vec<_> = status.view.members.iter().map(|m| m.registration.member.node.as_str()).collect();
        return Err(Status::not_found(format!(
            "no member {} is registered; there are {}",
            requests::quoted(node),
            known.join(", ")
        )));
    };
    if member.registration.priority == 0 {
        return Err(Status::failed_precondition(format!("{node} has priority 0 and never leads")));
    }
    Ok(())
}
