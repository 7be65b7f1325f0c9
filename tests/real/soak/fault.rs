//! The faults of a soak, and whether each may cost the leader its seat.

use std::time::Duration;

use crate::soak::LEASE_SECS;
use crate::soak::group::Group;
use crate::support::node::Signal;
use crate::support::poll::holds_within;
use crate::support::proxy::FaultProxy;
use crate::support::spawn;

/// A leader that is asked to stop has stopped by then.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of the leader.
    KillLeader,
    /// kill -9 of the leader with its guardian and all that descends from it.
    KillLeaderWithGuardian,
    /// kill -9 of a follower.
    KillFollower,
    /// SIGTERM of the leader.
    StopLeader,
    /// SIGSTOP of the leader, for less or more than its lease.
    PauseLeader,
    /// SIGSTOP of a follower.
    PauseFollower,
    /// An etcd member hangs.
    HangMember,
    /// etcd's leader hangs.
    HangRaftLeader,
    /// An etcd member is killed and comes back.
    KillMember,
    /// All of etcd hangs, for less than 0.8 of the lease.
    StallEtcd,
    /// All of etcd hangs for longer than the lease.
    LoseEtcd,
    /// The leader is cut off: its connections break, new ones hang.
    CutLeaderOff,
    /// The leader's connections are reset, and new ones work.
    ResetConnections,
    /// The leader can reach one member only.
    LeaveOneMember,
    /// Everything that etcd says to the leader comes late.
    DelayReplies,
}

/// What a fault may do to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// It must keep its seat.
    Harmless,
    /// It must keep its seat, unless etcd itself revokes its lease.
    WakesRaftLeader,
    /// Somebody else may lead afterwards.
    MayCostLeadership,
}

/// A small generator of random numbers (xorshift64*), so that a seed can be played again.
pub struct Dice(u64);

const ALL: [Fault; 15] = [
    Fault::KillLeader,
    Fault::KillLeaderWithGuardian,
    Fault::KillFollower,
    Fault::StopLeader,
    Fault::PauseLeader,
    Fault::PauseFollower,
    Fault::HangMember,
    Fault::HangRaftLeader,
    Fault::KillMember,
    Fault::StallEtcd,
    Fault::LoseEtcd,
    Fault::CutLeaderOff,
    Fault::ResetConnections,
    Fault::LeaveOneMember,
    Fault::DelayReplies,
];

// === impl Dice ===

impl Dice {
    /// Begins.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    /// A time between two parts of the lease, in per cent.
    fn lease_percent(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(LEASE_SECS * 10 * (from + self.below(to - from)))
    }
}

// === impl Fault ===

impl Fault {
    /// Any of them.
    pub fn draw(dice: &mut Dice) -> Self {
        ALL[dice.below(ALL.len() as u64) as usize]
    }

    /// Its name in the table that is printed.
    pub fn name(self) -> &'static str {
        match self {
            Fault::KillLeader => "kill -9 of the leader",
            Fault::KillLeaderWithGuardian => "kill -9 of the leader and its guardian",
            Fault::KillFollower => "kill -9 of a follower",
            Fault::StopLeader => "SIGTERM of the leader",
            Fault::PauseLeader => "SIGSTOP of the leader",
            Fault::PauseFollower => "SIGSTOP of a follower",
            Fault::HangMember => "an etcd member hangs",
            Fault::HangRaftLeader => "etcd's leader hangs",
            Fault::KillMember => "kill -9 of an etcd member",
            Fault::StallEtcd => "etcd stalls for less than 0.8 of the lease",
            Fault::LoseEtcd => "etcd stalls for longer than the lease",
            Fault::CutLeaderOff => "the leader is cut off",
            Fault::ResetConnections => "the leader's connections are reset",
            Fault::LeaveOneMember => "the leader reaches one member only",
            Fault::DelayReplies => "etcd's replies come late",
        }
    }

    /// Does it, waits, and undoes what can be undone.
    pub fn play(self, group: &mut Group, dice: &mut Dice) -> Hit {
        let leader = group.leader().expect("somebody leads before each fault");
        let follower = (leader + 1 + dice.below(2) as usize) % 3;
        match self {
            Fault::KillLeader => group.node(leader).kill(),
            Fault::KillLeaderWithGuardian => kill_tree(group, leader),
            Fault::KillFollower => group.node(follower).kill(),
            Fault::StopLeader => {
                group.node(leader).signal(Signal::TERM);
                group.node(leader).wait_exit(STOP_TIMEOUT);
            }
            Fault::PauseLeader => pause(group, leader, dice.lease_percent(30, 200)),
            Fault::PauseFollower => pause(group, follower, dice.lease_percent(30, 300)),
            Fault::HangMember | Fault::HangRaftLeader | Fault::KillMember => {
                return self.of_member(group, dice);
            }
            Fault::StallEtcd => stall(group, dice.lease_percent(20, 80)),
            Fault::LoseEtcd => stall(group, dice.lease_percent(120, 200)),
            Fault::CutLeaderOff => {
                group.proxies(leader).iter().for_each(FaultProxy::cut);
                wait(group, dice.lease_percent(50, 200));
                group.proxies(leader).iter().for_each(FaultProxy::pass);
            }
            Fault::ResetConnections => reset(group.proxies(leader)),
            Fault::LeaveOneMember => {
                let only = dice.below(3) as usize;
                let others = || group.proxies(leader).iter().enumerate().filter(|(i, _)| *i != only);
                others().for_each(|(_, p)| p.cut());
                std::thread::sleep(dice.lease_percent(100, 240));
                others().for_each(|(_, p)| p.pass());
            }
            Fault::DelayReplies => {
                let by = dice.lease_percent(5, 30);
                group.proxies(leader).iter().for_each(|p| p.delay_replies(by));
                std::thread::sleep(dice.lease_percent(100, 240));
                group.proxies(leader).iter().for_each(FaultProxy::pass);
            }
        }
        self.hit()
    }

    fn of_member(self, group: &Group, dice: &mut Dice) -> Hit {
        let (etcd, raft_leader) = (group.etcd(), group.etcd().leader());
        let other = (raft_leader + 1 + dice.below(2) as usize) % 3;
        let for_how_long = dice.lease_percent(20, 240);
        match self {
            Fault::KillMember => {
                let victim = dice.below(3) as usize;
                etcd.kill(victim);
                std::thread::sleep(for_how_long);
                etcd.restart(victim);
            }
            _ => {
                let victim = if self == Fault::HangRaftLeader { raft_leader } else { other };
                etcd.pause(victim);
                std::thread::sleep(for_how_long);
                etcd.resume(victim);
            }
        }
        etcd.wait_healthy();
        self.hit()
    }

    fn hit(self) -> Hit {
        match self {
            Fault::KillFollower
            | Fault::PauseFollower
            | Fault::HangMember
            | Fault::KillMember
            | Fault::StallEtcd
            | Fault::ResetConnections
            | Fault::LeaveOneMember
            | Fault::DelayReplies => Hit::Harmless,
            Fault::HangRaftLeader => Hit::WakesRaftLeader,
            Fault::KillLeader
            | Fault::KillLeaderWithGuardian
            | Fault::StopLeader
            | Fault::PauseLeader
            | Fault::LoseEtcd
            | Fault::CutLeaderOff => Hit::MayCostLeadership,
        }
    }
}

fn kill_tree(group: &Group, n: usize) {
    let node = group.node(n);
    let tree = node.tree();
    // Stopped first, so that none of them sees another one die.
    tree.iter().for_each(|pid| spawn::signal(*pid, Signal::STOP));
    tree.iter().filter(|pid| **pid != node.pid()).for_each(|pid| spawn::signal(*pid, Signal::KILL));
    node.kill();
}

fn pause(group: &Group, n: usize, for_how_long: Duration) {
    group.node(n).pause();
    std::thread::sleep(for_how_long);
    group.node(n).resume();
}

fn stall(group: &mut Group, for_how_long: Duration) {
    group.etcd().pause_all();
    wait(group, for_how_long);
    group.etcd().resume_all();
    group.etcd().wait_healthy();
}

/// Meanwhile the supervisor starts again what has ended.
fn wait(group: &mut Group, for_how_long: Duration) {
    holds_within(for_how_long, || {
        group.supervise();
        false
    });
}

fn reset(proxies: &[FaultProxy]) {
    for proxy in proxies {
        proxy.cut();
        proxy.pass();
    }
}
