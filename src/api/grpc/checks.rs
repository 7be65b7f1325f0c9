//! `metad.v1.CheckService`: what this member found when it last checked itself, and what time it thinks it is.

use tonic::{Request, Response, Status};

use super::RpcParts;
use crate::clock::wall_clock_ms;
use crate::diagnosis::checks::facts::Burden;
use crate::proto::metad::check_service_server::CheckService;
use crate::proto::metad::{
    ChecksRequest, ChecksResponse, ClockRequest, ClockResponse, MemberBurden, Setting,
};

pub(super) struct Checks {
    parts: RpcParts,
}

impl Checks {
    pub(super) fn new(parts: RpcParts) -> Self {
        Self { parts }
    }
}

#[tonic::async_trait]
impl CheckService for Checks {
    async fn checks(&self, _: Request<ChecksRequest>) -> Result<Response<ChecksResponse>, Status> {
        let latest = self.parts.checks.borrow().clone();
        let findings = latest.findings.iter().cloned().map(Into::into).collect();
        let burden = latest.burden.map(burden);
        let setting =
            |(key, value): &(&str, String)| Setting { key: (*key).to_owned(), value: value.clone() };
        let settings = latest.settings.iter().map(setting).collect();
        Ok(Response::new(ChecksResponse { at_ms: latest.at_ms, findings, burden, settings }))
    }

    async fn clock(&self, _: Request<ClockRequest>) -> Result<Response<ClockResponse>, Status> {
        let received_ms = wall_clock_ms();
        let node = self.parts.driver.status().me.node.clone();
        Ok(Response::new(ClockResponse { node, received_ms, sent_ms: wall_clock_ms() }))
    }
}

fn burden(b: Burden) -> MemberBurden {
    MemberBurden { cpu_percent: b.cpu_percent, rss_bytes: b.rss_bytes, headroom: b.headroom }
}
