//! `metad.v1.ElectionService`: who leads, who may, and what changes.

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::ready;
use futures_util::stream::{once, select};
use futures_util::{Stream, StreamExt};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::{IntervalStream, WatchStream};
use tonic::{Request, Response, Status};

use super::{RpcParts, authorize, history, refuse, steering};
use crate::api::auth::AccessRole;
use crate::api::view::member::{Answerer, FreezeView, Leader, Member};
use crate::api::view::tenure::Tenure;
use crate::api::view::{LeaderDocument, MembersDocument};
use crate::clock::{millis, wall_clock_ms};
use crate::driver::FreezeError;
use crate::election::record::{self, PRIORITY_MAX};
use crate::election::status::{self, Role};
use crate::limits::rate::Rate;
use crate::proto::metad::election_service_server::ElectionService;
use crate::proto::metad::{
    EventsRequest, EventsResponse, FreezeRequest, FreezeResponse, HistoryRequest, HistoryResponse,
    LeaderRequest, LeaderResponse, MembersRequest, MembersResponse, ObserveRequest, ObserveResponse,
    PrepareRequest, PrepareResponse, SetPriorityRequest, SetPriorityResponse, StepDownRequest,
    StepDownResponse, UnfreezeRequest, UnfreezeResponse,
};
use crate::protocol::freeze::FreezeOrder;
use crate::telemetry::Event;

/// How often a leader looks into a request to step down (each may ask another member several times), and a member into one for
/// another priority.
const STEP_DOWN_EVERY: Duration = Duration::from_secs(1);
const STEP_DOWN_BURST: u32 = 5;
/// How often a candidate renews its lease because a leader asks it to stand ready. It answers more often than that.
const PREPARE_EVERY: Duration = Duration::from_millis(250);
const PREPARE_BURST: u32 = 4;

/// How soon an observer is told that the view has become outdated.
const OUTDATED_LOOK: Duration = Duration::from_secs(1);

/// The longest reason of a freeze.
pub const REASON_CHARS_MAX: usize = 200;
/// The longest freeze that ends by itself.
pub const FREEZE_SECS_MAX: u64 = 30 * 86_400;

/// What a request to step down asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDown {
    /// Who is to lead next; `None`: anybody.
    pub to: Option<String>,
    /// The tenure that is to end; `None`: whichever it is.
    pub expected_token: Option<u64>,
}

/// What a request to freeze asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeFor {
    /// What for.
    pub reason: String,
    /// For how long; `None`: until somebody ends it.
    pub duration: Option<Duration>,
    /// Also in the place of a freeze that is there?
    pub replaces: bool,
}

pub(super) struct Election {
    parts: RpcParts,
    step_downs: Rate,
    priorities: Rate,
    prepares: Rate,
}

impl Election {
    pub(super) fn new(parts: RpcParts) -> Self {
        let step_downs = Rate::new(STEP_DOWN_EVERY, STEP_DOWN_BURST);
        let priorities = Rate::new(STEP_DOWN_EVERY, STEP_DOWN_BURST);
        let prepares = Rate::new(PREPARE_EVERY, PREPARE_BURST);
        Self { parts, step_downs, priorities, prepares }
    }
}

impl Election {
    /// A hand-over is prepared by who leads, and by no other member. Of a newer leader than we have heard of the token says
    /// it.
    fn only_the_leader(
        &self,
        request: &Request<PrepareRequest>,
        status: &status::Status,
    ) -> Result<(), Status> {
        let caller = authorize::caller(request)?;
        let known = status.leader().filter(|tenure| tenure.token.get() >= request.get_ref().token);
        let leader = known.map(|tenure| tenure.record.holder.node.as_str());
        let leads = |node: &str| leader.is_none_or(|leader| leader == node);
        let otherwise = format!("may not prepare a hand-over: {} leads", leader.unwrap_or("nobody"));
        let checked = caller.check_name(AccessRole::Member, leads, &otherwise);
        checked.map_err(|denied| authorize::refusal(&denied))
    }
}

impl Election {
    /// Freezes or unfreezes the election. What may have been done is recorded like what has been.
    async fn change(&self, order: FreezeOrder, by: String) -> Result<Option<record::Freeze>, Status> {
        let action = match order {
            FreezeOrder::Freeze { .. } => "freeze",
            FreezeOrder::Unfreeze => "unfreeze",
        };
        let done = self.parts.driver.freeze(order).await;
        if matches!(done, Ok(_) | Err(FreezeError::Unknown(_))) {
            self.parts.telemetry.emit(Event::AdminAction { action, to: None, by });
        }
        done.map_err(refuse::not_done)
    }

    /// A member that has not joined does not know yet which store is the right one.
    fn may_steer(&self, rate: &Rate, what: &str) -> Result<(), Status> {
        if !self.parts.driver.status().role.is_ready() {
            return Err(refuse::not_joined());
        }
        match rate.allows(self.parts.clock.now()) {
            true => Ok(()),
            false => Err(refuse::too_often(what, STEP_DOWN_EVERY)),
        }
    }
}

#[tonic::async_trait]
impl ElectionService for Election {
    async fn leader(&self, _: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let (status, now) = (self.parts.driver.status(), self.parts.clock.now());
        let answer: LeaderResponse = LeaderDocument::of(&status, &self.parts.look_command, now).into();
        let vacant_for = self.parts.telemetry.metrics().vacant_for(now);
        let vacant_for_ms = vacant_for.filter(|_| answer.leader.is_none()).map(millis);
        Ok(Response::new(LeaderResponse { vacant_for_ms, ..answer }))
    }

    async fn members(&self, _: Request<MembersRequest>) -> Result<Response<MembersResponse>, Status> {
        let (status, now) = (self.parts.driver.status(), self.parts.clock.now());
        let gone = self.parts.telemetry.metrics().members_gone();
        Ok(Response::new(MembersDocument::of(&status, gone, now).into()))
    }

    async fn step_down(
        &self,
        request: Request<StepDownRequest>,
    ) -> Result<Response<StepDownResponse>, Status> {
        let by = authorize::caller(&request)?.who();
        let status = self.parts.driver.status();
        let Some(token) = status.token.filter(|_| status.role == Role::Leader) else {
            return Err(refuse::not_the_leader(&status, self.parts.clock.now()));
        };
        if let Some(freeze) = status.freeze() {
            return Err(refuse::frozen(&freeze.clone().into(), ""));
        }
        let StepDown { to, expected_token } = checked_step_down(request.into_inner());
        if let Some(expected) = expected_token.filter(|expected| *expected != token.get()) {
            return Err(refuse::another_token(token, expected));
        }
        if !self.step_downs.allows(self.parts.clock.now()) {
            return Err(refuse::too_often("a request to step down", STEP_DOWN_EVERY));
        }
        if let Some(node) = &to {
            steering::check_target(&status, node, token, &self.parts.credentials).await?;
        }
        self.parts.driver.step_down(to.clone()).map_err(refuse::busy)?;
        self.parts.telemetry.emit(Event::AdminAction { action: "step-down", to, by });
        Ok(Response::new(StepDownResponse { token: token.get() }))
    }

    async fn freeze(&self, request: Request<FreezeRequest>) -> Result<Response<FreezeResponse>, Status> {
        let by = authorize::caller(&request)?.who();
        let FreezeFor { reason, duration, replaces } = checked_freeze(request.into_inner())?;
        self.may_steer(&self.step_downs, "a request to freeze or unfreeze")?;
        let since_ms = wall_clock_ms();
        let until_ms = duration.map(|duration| since_ms.saturating_add(millis(duration)));
        let freeze = record::Freeze { reason, by: by.clone(), since_ms, until_ms };
        let replaced = self.change(FreezeOrder::Freeze { freeze: freeze.clone(), replaces }, by).await?;
        let (freeze, replaced) = (FreezeView::from(freeze), replaced.map(FreezeView::from));
        let answer = FreezeResponse { freeze: Some(freeze.into()), replaced: replaced.map(Into::into) };
        Ok(Response::new(answer))
    }

    async fn unfreeze(
        &self,
        request: Request<UnfreezeRequest>,
    ) -> Result<Response<UnfreezeResponse>, Status> {
        let by = authorize::caller(&request)?.who();
        self.may_steer(&self.step_downs, "a request to freeze or unfreeze")?;
        let ended = self.change(FreezeOrder::Unfreeze, by).await?;
        Ok(Response::new(UnfreezeResponse { ended: ended.map(FreezeView::from).map(Into::into) }))
    }

    async fn set_priority(
        &self,
        request: Request<SetPriorityRequest>,
    ) -> Result<Response<SetPriorityResponse>, Status> {
        let by = authorize::caller(&request)?.who();
        let (node, priority) = checked_set_priority(request.into_inner())?;
        let me = &self.parts.driver.status().me.node;
        if node != *me {
            return Err(refuse::another_member(me, &node));
        }
        self.may_steer(&self.priorities, "a request for another priority")?;
        let before = self.parts.driver.set_priority(priority).await.map_err(refuse::priority)?;
        let to = Some(priority.to_string());
        self.parts.telemetry.emit(Event::AdminAction { action: "change of its priority", to, by });
        Ok(Response::new(SetPriorityResponse { before: before.map(u32::from) }))
    }

    async fn prepare(&self, request: Request<PrepareRequest>) -> Result<Response<PrepareResponse>, Status> {
        let (status, now) = (self.parts.driver.status(), self.parts.clock.now());
        self.only_the_leader(&request, &status)?;
        let may_renew = || self.prepares.allows(now);
        let asked = self.parts.driver.prepare(request.into_inner().token, now, may_renew);
        let why = asked.map_err(refuse::busy)?;
        let (uuid, incarnation) = (status.me.uuid.to_string(), status.me.incarnation.0);
        let (ready, why) = (why.is_none(), why.unwrap_or_default());
        let healthy_for_ms = Some(millis(status.health.healthy_for(now)));
        Ok(Response::new(PrepareResponse { ready, uuid, incarnation, why, healthy_for_ms }))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        let asked = history::checked_history(&request.into_inner())?;
        Ok(Response::new(history::answer(&self.parts, asked)))
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<EventsResponse, Status>> + Send>>;

    async fn events(&self, _: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        Ok(Response::new(Box::pin(history::events(&self.parts.telemetry))))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<ObserveResponse, Status>> + Send>>;

    /// The watches keep one value, the newest, so a slow reader costs nothing and never sees an old one.
    async fn observe(&self, _: Request<ObserveRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let parts = self.parts.clone();
        // It ends with the driver, whatever else goes on.
        let snapshots = WatchStream::new(parts.driver.subscribe()).map(|_| true).chain(once(ready(false)));
        let rows = WatchStream::from_changes(parts.past.clone()).map(|_| true);
        // Nothing tells when a view gets too old to say anything.
        let mut tick = tokio::time::interval(OUTDATED_LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ticks = IntervalStream::new(tick).map(|_| true);
        let mut last = None;
        let goes_on = select(select(snapshots, rows), ticks).take_while(|goes_on| ready(*goes_on));
        let changes = goes_on.filter_map(move |_| {
            let (status, past) = (parts.driver.status(), parts.past.borrow().clone());
            let now = parts.clock.now();
            // Renewals change the snapshot all the time; only what an observer can see is a change to it.
            let last_ended = past.last_ended().map(|row| Tenure::of(row, past.before(row)));
            let leaders = (Leader::of(&status, now), Leader::last_known(&status, now));
            let freeze = status.freeze().cloned().map(FreezeView::from);
            let rest = (status.is_outdated(now), status.role, last_ended, freeze);
            let seen = (leaders, Member::all(&status, now), rest);
            let fresh = last.as_ref() != Some(&seen);
            last = Some(seen.clone());
            let ((leader, last_known), members, (_, _, last_ended, freeze)) = seen;
            let change = ObserveResponse {
                leader: leader.map(Into::into),
                members: members.into_iter().map(Into::into).collect(),
                last_known: last_known.map(Into::into),
                answerer: Some(Answerer::of(&status, now).into()),
                last_ended: last_ended.map(Into::into),
                freeze: freeze.map(Into::into),
            };
            ready(fresh.then_some(Ok(change)))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

/// What is asked of a leader.
pub fn checked_step_down(request: StepDownRequest) -> StepDown {
    let StepDownRequest { to, expected_token } = request;
    StepDown { to: Some(to).filter(|to| !to.is_empty()), expected_token }
}

/// The priority that is asked for, and of which member.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_set_priority(request: SetPriorityRequest) -> Result<(String, u16), Status> {
    let SetPriorityRequest { node, priority } = request;
    let valid = u16::try_from(priority).ok().filter(|priority| *priority <= PRIORITY_MAX);
    let refused = || {
        let message = format!("priority is {priority}: at most {PRIORITY_MAX}, or 0: it never leads");
        Status::invalid_argument(message)
    };
    Ok((node, valid.ok_or_else(refused)?))
}

/// The freeze that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_freeze(request: FreezeRequest) -> Result<FreezeFor, Status> {
    let FreezeRequest { reason, for_secs, replace: replaces } = request;
    let (reason, chars) = (reason.trim().to_owned(), reason.chars().count());
    if reason.is_empty() {
        return Err(Status::invalid_argument("reason is empty: say what the election is frozen for"));
    }
    if chars > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "reason must be one line of at most {REASON_CHARS_MAX} characters"
        )));
    }
    if for_secs > FREEZE_SECS_MAX {
        return Err(Status::invalid_argument(format!(
            "for_secs is {for_secs}: at most {FREEZE_SECS_MAX} (30 days), or 0: until unfreeze"
        )));
    }
    Ok(FreezeFor { reason, duration: (for_secs > 0).then(|| Duration::from_secs(for_secs)), replaces })
}
