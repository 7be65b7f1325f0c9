//! `metad run` in containers: the program and all that descends from it are gone before the next one starts, whatever is
//! killed.

use std::time::Duration;

use super::engine::Engine;
use super::{Container, LONG_SECS, Setup};
use crate::support::crew::PATIENCE;
use crate::support::etcd::EtcdCluster;
use crate::support::family::{ALL, Families, live};
use crate::support::node::Signal;
use crate::support::poll::{boot_ns, holds_within};
use crate::support::{ourselves, sealed, spawn};

#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_lives() {
    live();
}

type Deed = fn(&Container);

/// A leader and a candidate, each in a container with a program, and the guardian beside them.
struct Pair {
    leader: Container,
    _candidate: Container,
    guardian: Container,
    families: Families,
    _etcd: EtcdCluster,
}

impl Pair {
    fn start(engine: Engine, lease_secs: u64) -> Self {
        let (etcd, families) = (EtcdCluster::start(1), Families::new());
        let guardian = Container::guardian(engine, &etcd);
        // Who runs in there is not us.
        std::fs::set_permissions(families.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("a mode");
        let (folder, tests) = (families.folder().display().to_string(), ourselves::path());
        let mut more = vec![format!("--volume={folder}:{folder}"), format!("--volume={tests}:{tests}:ro")];
        more.extend(families.variables(&ALL).map(|variable| format!("--env={variable}")));
        let program = ourselves::calling(program_that_lives);
        let setup =
            Setup { lease_secs, watched: true, program: &program, more: &more, ..Setup::new(engine, &etcd) };
        let leader = setup.leader();
        families.wait_for(1, "a", &ALL, PATIENCE);
        let candidate = setup.start("b");
        candidate.wait_watched();
        Self { leader, _candidate: candidate, guardian, families, _etcd: etcd }
    }

    /// Waits for the candidate's program, and prints how long there was none. No two of them ever lived at once.
    fn succeed(&self, what: &str, since_ns: u64) -> Duration {
        self.families.wait_for(2, "b", &ALL, PATIENCE);
        let all = self.families.check();
        assert!(all.len() == 2 && all[0].token < all[1].token, "{all:?}");
        let [killed, gap] = [since_ns, all[0].last_ns()].map(|from| all[1].first_ns().saturating_sub(from));
        let [killed, gap] = [killed, gap].map(Duration::from_nanos);
        println!("{what}: the next program {killed:.0?} later, {gap:.0?} after the last stamp of the first");
        killed
    }
}

#[test]
#[ignore = "make containers"]
fn all_of_a_program_is_gone_before_the_next_one_starts() {
    if sealed::runs(all_of_a_program_is_gone_before_the_next_one_starts) {
        return;
    }
    let deeds: [(&str, Deed); 3] = [
        ("process 1 killed", |container| spawn::signal(container.init(), Signal::KILL)),
        ("node killed", |container| spawn::signal(container.node(), Signal::KILL)),
        ("container killed", |container| drop(container.call("kill"))),
    ];
    for engine in Engine::both() {
        for (what, deed) in deeds {
            let pair = Pair::start(engine, LONG_SECS);
            let since_ns = boot_ns();
            deed(&pair.leader);
            pair.succeed(&format!("{engine:?}, {what}"), since_ns);
            assert_eq!(pair.leader.exit_code(), 137, "{}", pair.leader.log());
        }
    }
}

/// It revokes nothing while the leader lives; without it, whoever is killed as a whole costs the lease.
#[test]
#[ignore = "make containers"]
fn a_guardian_that_is_killed_ends_no_program() {
    if sealed::runs(a_guardian_that_is_killed_ends_no_program) {
        return;
    }
    let lease_secs = 5;
    for engine in Engine::both() {
        let pair = Pair::start(engine, lease_secs);
        pair.guardian.call("kill");
        let ended = || pair.families.seen().len() > 1;
        assert!(!holds_within(Duration::from_secs(2 * lease_secs), ended), "{}", pair.leader.log());
        let since_ns = boot_ns();
        pair.leader.call("kill");
        let took = pair.succeed(&format!("{engine:?}, guardian and container killed"), since_ns);
        assert!(took > Duration::from_secs(3), "twin: nobody was there to revoke: {took:?}");
    }
}
