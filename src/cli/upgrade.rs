//! `metad upgrade-order`: which member to restart next, so that a rolling upgrade changes the leader once.

use std::time::Duration;

use futures_util::StreamExt;

use super::args::UpgradeArgs;
use super::asking::{self, Answer};
use super::query::{CANNOT_ASK, WAIT_PAUSE};
use super::target::{self, Addressees};
use super::{Failure, output};
use crate::proto::metad::{LeaderResponse, MemberInfo, MembersResponse};
use crate::telemetry::terminal::plain;

/// How long one look at all members waits for those that hang.
const ROUND_TIMEOUT: Duration = Duration::from_secs(3);

/// Exit 0: the order, or that all members run the version; 1: nobody answers, or with --wait not fit in time.
pub(super) async fn upgrade_order(args: UpgradeArgs) -> Result<i32, Failure> {
    let target = target::target(&args.meta)?;
    let members = match args.wait {
        false => look(&target).await?.1.members,
        true => wait_until_fit(&target, &args).await?,
    };
    let order = order(&members, &args.to);
    let text = match (order.first(), args.next) {
        (None, true) => String::new(),
        (None, false) => format!("all {} members run {}\n", members.len(), args.to),
        (Some(next), true) => format!("{}\n", plain(&next.node)),
        (Some(_), false) => table(&order, &args.to),
    };
    output::print(&text).map(|()| 0)
}

/// Those that do not run this version yet. The leader comes last, when there is an upgraded member to hand over to; before
/// it those of the lowest priority, which nobody needs.
fn order<'m>(members: &'m [MemberInfo], version: &str) -> Vec<&'m MemberInfo> {
    let mut order: Vec<&MemberInfo> = members.iter().filter(|m| m.version != version).collect();
    order.sort_by_key(|m| (m.is_leader, m.priority, &m.node));
    order
}

fn table(order: &[&MemberInfo], version: &str) -> String {
    let mut t = output::table(&["NODE", "ROLE", "ADDRESS", "VERSION", "TO"]);
    for m in order {
        let role = if m.is_leader { "leader" } else { "follower" };
        t.add_row([plain(&m.node), role.into(), plain(&m.rpc_address), plain(&m.version), version.into()]);
    }
    format!("{t}\n")
}

/// Who leads, and who the members are, as one member sees it.
async fn look(target: &Addressees) -> Result<(LeaderResponse, MembersResponse), Failure> {
    let Answer { mut member, leader } = asking::first_of(target).await?;
    let members = member.members().await.map_err(super::query::cannot_ask)?;
    Ok((leader, members))
}

/// The members, once one of them may be restarted.
async fn wait_until_fit(target: &Addressees, args: &UpgradeArgs) -> Result<Vec<MemberInfo>, Failure> {
    let mut unfit = String::from("no member has answered yet");
    let found = async {
        loop {
            unfit = match look(target).await {
                Ok((leader, members)) => match why_unfit(target, &leader, &members, &args.without).await {
                    Some(why) => why,
                    None => return members.members,
                },
                Err(e) => e.message,
            };
            tokio::time::sleep(WAIT_PAUSE).await;
        }
    };
    tokio::time::timeout(args.timeout, found).await.map_err(|_| {
        let message = format!("the cluster is not fit for a restart after {:?}: {unfit}", args.timeout);
        Failure::new(CANNOT_ASK, message)
    })
}

/// Why nobody should be restarted now; all members are asked only where nothing else is in the way.
async fn why_unfit(
    target: &Addressees,
    leader: &LeaderResponse,
    members: &MembersResponse,
    without: &[String],
) -> Option<String> {
    let Some(leads) = &leader.leader else { return Some("there is no leader".to_owned()) };
    if leader.freeze.is_some() {
        return Some("the election is frozen, so a leader that is restarted has no successor".to_owned());
    }
    let is_counted = |node: &&String| !without.contains(node);
    if let Some(node) = members.gone.iter().map(|g| &g.node).find(is_counted) {
        let fix = "start it, or name it with --without if it is not to come back";
        return Some(format!("{node} is gone; {fix}"));
    }
    let silent = silent(&members.members, target, leads.token).await;
    let node = silent.iter().find(is_counted)?;
    Some(format!("{node} does not take part in the election, or is not ready"))
}

/// Those members that do not say themselves that they take part, see this leader and, where they may lead, are ready to.
async fn silent(members: &[MemberInfo], target: &Addressees, token: u64) -> Vec<String> {
    let addresses = members.iter().map(|m| m.rpc_address.clone()).collect();
    let all = Addressees { addresses, credentials: target.credentials.clone(), unusable: None };
    let mut answers = std::pin::pin!(asking::all(&all).take_until(tokio::time::sleep(ROUND_TIMEOUT)));
    let mut silent: Vec<&MemberInfo> = members.iter().collect();
    while let Some(answer) = answers.next().await {
        let Ok(Answer { leader, .. }) = answer else { continue };
        let is_in = asking::takes_part(&leader) && leader.leader.as_ref().is_some_and(|l| l.token == token);
        let Some(who) = leader.answerer.filter(|who| is_in && !who.is_outdated) else { continue };
        let is_ready =
            |member: &MemberInfo| member.priority == 0 || who.unready.is_empty() && who.probe.is_empty();
        silent.retain(|member| member.uuid != who.uuid || !is_ready(member));
    }
    silent.into_iter().map(|member| member.node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: &str, priority: u32, version: &str, is_leader: bool) -> MemberInfo {
        let (node, version) = (node.to_owned(), version.to_owned());
        MemberInfo { node, priority, version, is_leader, ..MemberInfo::default() }
    }

    #[test]
    fn the_leader_comes_last_and_what_is_upgraded_not_at_all() {
        let members = [
            member("a", 0, "1", true),
            member("b", 100, "1", false),
            member("c", 100, "2", false),
            member("d", 0, "1", false),
            member("e", 100, "1", false),
        ];
        let nodes =
            |version| order(&members, version).into_iter().map(|m| m.node.as_str()).collect::<Vec<_>>();
        assert_eq!(nodes("2"), ["d", "b", "e", "a"]);
        assert_eq!(nodes("1"), ["c"], "going back is an upgrade as well");
        assert_eq!(order(&members[2..3], "2"), Vec::<&MemberInfo>::new());
    }
}
