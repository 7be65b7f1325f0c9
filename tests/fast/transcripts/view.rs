//! A view of the election in a command: `rev=7 leader=a/token=7 members=a:5,b:3/priority=200`.
//!
//! What is left out is as in the elector's own newest view, so `read id=3` alone means "nothing has
//! changed". `leader=` is `vacant`, `foreign:<name>` or `<node>/token=<n>`; a member is
//! `<node>:<revision of its registration>`, its claim generation the same unless `/gen=` says otherwise. Both
//! take `/lease=`, `/uuid=` and `/incarnation=`; a leader also `/acquired=` and `/probed=`, when it got the record, and when
//! one last handed over because of its probe, in milliseconds. Unless told, a node's uuid is made from its name, its
//! incarnation is 1, our own lease is the one we hold, and everybody else's is not. `freeze=` is a reason, or `none`.

use std::time::Duration;

use metad::election::lease::LeaseId;
use metad::election::record::{
    Freeze, Incarnation, Leader, LeaderRecord, Member, MemberId, MemberUuid, Nonce, Registration, Revision,
    Tenure, Token, View,
};

use super::args::{Args, number};

const TTL: Duration = Duration::from_secs(10);

/// What a view is completed from.
pub struct Defaults<'a> {
    /// Who we are.
    pub me: &'a MemberId,
    /// The lease we hold.
    pub lease: LeaseId,
    /// The newest view so far.
    pub old: &'a View,
}

/// The uuid that a node has unless the transcript gives it another.
pub fn uuid_of(node: &str) -> MemberUuid {
    MemberUuid(node.bytes().fold(0, |n, b| (n << 8) | u128::from(b)))
}

/// A lease by its number.
pub fn lease_id(text: &str) -> Result<LeaseId, String> {
    let id = i64::try_from(number(text)?).map_err(|e| e.to_string())?;
    Ok(LeaseId(id))
}

/// A token by its number.
pub fn token(text: &str) -> Result<Token, String> {
    Token::new(Revision(number(text)?)).ok_or_else(|| "0 is not a token".into())
}

// === impl Defaults ===

impl Defaults<'_> {
    /// The view that the arguments `rev`, `leader` and `members` describe.
    pub fn view(&self, args: &mut Args) -> Result<View, String> {
        let revision = Revision(args.or("rev", number, self.old.revision.0)?);
        let leader = match args.value("leader") {
            None => self.old.leader.clone(),
            Some("vacant") => Leader::Vacant,
            Some(text) => match text.strip_prefix("foreign:") {
                Some(name) => Leader::Foreign(name.into()),
                None => Leader::Held(Box::new(self.tenure(text)?)),
            },
        };
        let members = match args.value("members") {
            None => self.old.members.clone(),
            Some("none") => Vec::new(),
            Some(list) => list.split(',').map(|m| self.member(m)).collect::<Result<_, _>>()?,
        };
        let freeze = match args.value("freeze") {
            None => self.old.freeze.clone(),
            Some("none") => None,
            Some(reason) => {
                let freeze = Freeze { reason: reason.into(), by: String::new(), since_ms: 0, until_ms: None };
                Some((freeze, revision))
            }
        };
        let view = View { revision, leader, members, freeze, ..View::default() };
        check_revisions(&view)?;
        Ok(view)
    }

    fn tenure(&self, text: &str) -> Result<Tenure, String> {
        let mut args = Args::split(text, '/')?;
        let node = args.need_word("the leader's name")?;
        let token = args.need("token", token)?;
        let (acquired_ms, probed) = (args.or("acquired", number, 0)?, args.or("probed", number, 0)?);
        let (holder, lease) = self.identity(node, &mut args)?;
        args.finish()?;
        let record = LeaderRecord {
            holder,
            address: format!("{node}:5690"),
            nonce: Nonce(0),
            ttl: TTL,
            acquired_ms,
            transitions: 0,
            probe_handed_ms: probed,
        };
        Ok(Tenure { record, token, lease, rewritten: false })
    }

    fn member(&self, text: &str) -> Result<Member, String> {
        let mut args = Args::split(text, '/')?;
        let name = args.need_word("a member's name")?;
        let (node, created) =
            name.split_once(':').ok_or_else(|| format!("member `{name}`: its revision is missing"))?;
        let created = number(created)?;
        let priority = args.or("priority", number, 100)?;
        let generation = Revision(args.or("gen", number, created)?);
        let version = args.value("version").unwrap_or("1").to_owned();
        let (member, lease) = self.identity(node, &mut args)?;
        args.finish()?;
        let registration = Registration {
            member,
            rpc_address: format!("{node}:5690"),
            http_address: format!("{node}:5691"),
            priority: u16::try_from(priority).map_err(|e| e.to_string())?,
            version,
            ttl: TTL,
            lease,
        };
        Ok(Member { registration, created: Revision(created), generation })
    }

    fn identity(&self, node: &str, args: &mut Args) -> Result<(MemberId, LeaseId), String> {
        let mine = node == self.me.node;
        let usual = if mine { self.me.uuid } else { uuid_of(node) };
        let uuid = args.get("uuid", number)?.map_or(usual, |n| MemberUuid(n.into()));
        let incarnation = if mine { self.me.incarnation.0 } else { 1 };
        let incarnation = Incarnation(args.or("incarnation", number, incarnation)?);
        let lease = if mine { self.lease } else { LeaseId(i64::MAX) };
        let lease = args.or("lease", lease_id, lease)?;
        let id = MemberId { node: node.into(), uuid, incarnation };
        Ok((id, lease))
    }
}

/// A view cannot show what was written after it.
fn check_revisions(view: &View) -> Result<(), String> {
    let token = view.leader.tenure().map(|t| t.token.revision());
    let members = view.members.iter().flat_map(|m| [m.created, m.generation]);
    match members.chain(token).find(|r| *r > view.revision) {
        Some(r) => Err(format!("a view of revision {} cannot show revision {r}", view.revision)),
        None => Ok(()),
    }
}
