//! `meta.MetaMemberService`: the way in which RisingWave's components find their meta nodes and the leader.

use tonic::{Request, Response, Status};

use super::RpcParts;
use crate::proto::common::HostAddress;
use crate::proto::meta::meta_member_service_server::MetaMemberService;
use crate::proto::meta::{MembersRequest, MembersResponse, MetaMember};

pub(super) struct Members {
    parts: RpcParts,
}

impl Members {
    pub(super) fn new(parts: RpcParts) -> Self {
        Self { parts }
    }
}

#[tonic::async_trait]
impl MetaMemberService for Members {
    async fn members(&self, _: Request<MembersRequest>) -> Result<Response<MembersResponse>, Status> {
        let status = self.parts.driver.status();
        let leader = status.known_leader(self.parts.clock.now()).map(|t| &t.record.holder);
        let members = status.view.members.iter().filter_map(|m| {
            let address = Some(host_address(&m.registration.rpc_address)?);
            Some(MetaMember { address, is_leader: leader == Some(&m.registration.member) })
        });
        Ok(Response::new(MembersResponse { members: members.collect() }))
    }
}

/// `host:port`, with or without the brackets of IPv6.
fn host_address(address: &str) -> Option<HostAddress> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']).to_owned();
    Some(HostAddress { host, port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_at_the_last_colon() {
        let at = |s: &str| host_address(s).map(|a| (a.host, a.port));
        assert_eq!(at("meta-0:5690"), Some(("meta-0".into(), 5690)));
        assert_eq!(at("[::1]:5690"), Some(("::1".into(), 5690)));
        assert_eq!(at("nonsense"), None);
    }
}
