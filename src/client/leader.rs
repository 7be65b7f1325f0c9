//! Finding the leader: all known members are asked at once, and the newest token wins.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::attempts::Attempts;
use super::error::Said;
use super::verdict;
use super::{MEMBERS_MAX, MetaClient, Target};
use crate::proto::metad::election_service_client::ElectionServiceClient;
use crate::proto::metad::{Answerer, LeaderInfo, LeaderRequest, MemberInfo, MembersRequest};

/// How long a member gets to say who leads.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the others get once one has named a leader: its view may be older than theirs.
const OTHERS_TIMEOUT: Duration = Duration::from_millis(100);

/// What the members say.
#[derive(Debug, Default)]
pub(super) struct LeaderSearch {
    pub(super) leader: Option<LeaderInfo>,
    /// The leader, as somebody to ask.
    pub(super) target: Option<Target>,
    /// The newest view of the members, if anyone has one.
    pub(super) members: Option<Vec<MemberInfo>>,
    said: Vec<Said>,
    /// The store's revision that `members` are the view of.
    revision: u64,
}

/// One member's view.
struct MemberView {
    leader: Option<LeaderInfo>,
    members: Vec<MemberInfo>,
    answerer: Answerer,
}

// === impl MetaClient: finding the leader ===

impl MetaClient {
    /// Asks everybody, and remembers what it learns.
    pub(super) async fn look(&self, attempts: &mut Attempts) -> LeaderSearch {
        let limit = attempts.left().min(LOOK_TIMEOUT);
        let ask = |address: String| async move { (self.view(&address, limit).await, address) };
        let mut answers: FuturesUnordered<_> = self.addresses().into_iter().map(ask).collect();
        let mut look = LeaderSearch::default();
        // Every answer has its own limit; the first one that names a leader sets another for the rest.
        while look.leader.is_none()
            && let Some((view, address)) = answers.next().await
        {
            look.add(view, address);
        }
        let others = async {
            while let Some((view, address)) = answers.next().await {
                look.add(view, address);
            }
        };
        let _ = tokio::time::timeout(OTHERS_TIMEOUT, others).await; // their silence has no meaning
        self.remember(&look);
        look.said.drain(..).for_each(|said| attempts.note(&said.address, said.why));
        look
    }

    async fn view(&self, address: &str, limit: Duration) -> Result<MemberView, String> {
        let mut service = ElectionServiceClient::new(self.channel(address).map_err(|e| e.why)?);
        let mut same = service.clone();
        let both =
            async { tokio::try_join!(service.leader(LeaderRequest {}), same.members(MembersRequest {})) };
        match tokio::time::timeout(limit, both).await {
            Ok(Ok((leader, members))) => {
                let (leader, members) = (leader.into_inner(), members.into_inner());
                let answerer = leader.answerer.unwrap_or_default();
                Ok(MemberView { leader: leader.leader, members: members.members, answerer })
            }
            Ok(Err(status)) => Err(verdict::words(&status)),
            Err(_) => {
                self.disconnect(address);
                Err(format!("no answer within {limit:.1?}"))
            }
        }
    }

    fn remember(&self, look: &LeaderSearch) {
        if let Some(members) = &look.members {
            self.learn(members);
        }
        if look.target.is_some() {
            self.known().leader.clone_from(&look.target);
        }
    }

    /// Whom else to ask from now on.
    pub(super) fn learn(&self, members: &[MemberInfo]) {
        self.known().members = members.iter().take(MEMBERS_MAX).map(|m| m.rpc_address.clone()).collect();
    }

    /// It does not lead, or is not there. Whoever else was found meanwhile stays.
    pub(super) fn forget(&self, target: &Target) {
        let mut known = self.known();
        if known.leader.as_ref() == Some(target) {
            known.leader = None;
        }
    }

    /// Asks the leader next that `from` has named, if that is a newer one than itself was taken for.
    pub(super) fn follow(&self, from: &Target, hint: Option<Target>) -> bool {
        let Some(hint) = hint.filter(|hint| hint.token > from.token) else { return false };
        self.known().leader = Some(hint);
        true
    }
}

// === impl LeaderSearch ===

impl LeaderSearch {
    fn add(&mut self, view: Result<MemberView, String>, address: String) {
        let view = match view {
            Ok(view) => view,
            Err(why) => return self.said.push(Said { address, why }),
        };
        let (node, role) = (&view.answerer.node, &view.answerer.role);
        let why = match &view.leader {
            Some(l) => format!("{node} ({role}) says that {} at {} leads", l.node, l.address),
            None => format!("{node} ({role}) knows no leader"),
        };
        self.said.push(Said { address, why });
        if self.members.is_none() || view.answerer.revision > self.revision {
            self.members = Some(view.members);
            self.revision = view.answerer.revision;
        }
        let newest = self.leader.as_ref().map_or(0, |l| l.token);
        if let Some(leader) = view.leader.filter(|l| l.token > newest) {
            self.target = Some(Target { address: leader.address.clone(), token: leader.token });
            self.leader = Some(leader);
        }
    }
}
