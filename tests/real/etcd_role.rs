//! What metad may do in etcd: with the commands of `metad doctor --role` everything works, and where one permission is
//! missing, the error names it.

use crate::support::crew::{PATIENCE, leader, wait_for_leader, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::login::{Login, USER};
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::wait_until;
use crate::support::spawn;

/// The sub-prefixes of DESIGN section 4, and the first key of each that a node may not use.
const PARTS: [(&str, &str); 3] = [
    ("nodes/", "read /metad/default/nodes/r"),
    ("election/", "read /metad/default/election/meta/leader"),
    ("identity/", "read /metad/default/identity/"),
];

/// How fast everything is, the password in plain text on loopback, and an etcd of one member, perhaps an old one.
const NOT_EXAMINED: &str = "HOST_001,HOST_003,HOST_004,HOST_005,HOST_007,CONFIG_001,CLUSTER_006,ETCD_004,ETCD_005,ETCD_006,\
     ETCD_008,ETCD_009,ETCD_016,ETCD_017,ETCD_018,LEASE_002";

fn role_commands(env: &[(&str, &str)]) -> Vec<String> {
    let mut command = spawn::metad_command();
    command.args(["doctor", "--role"]).envs(env.iter().copied());
    let output = spawn::output(command, PATIENCE);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let commands = text.lines().filter_map(|line| line.strip_prefix("etcdctl ")).map(|line| {
        let words = line.split('#').next().unwrap_or(line).trim();
        words.to_owned()
    });
    commands.collect()
}

fn etcdctl(etcd: &EtcdCluster, line: &str) {
    etcd.etcdctl_ok(&line.split(' ').collect::<Vec<_>>());
}

fn doctor(etcd: &EtcdCluster, login: &Login, meta: &[&Node]) -> std::process::Output {
    let mut command = spawn::metad_command();
    let addresses: Vec<String> = meta.iter().map(|n| n.rpc_addr().to_string()).collect();
    command.args(["doctor", "--sample", "1s", "--skip"]);
    command.arg(NOT_EXAMINED);
    command.args(["--etcd-endpoints", &etcd.endpoints().join(","), "--meta", &addresses.join(",")]);
    command.env("METAD_STORE__ETCD__USERNAME", USER).env("METAD_STORE__ETCD__PASSWORD_FILE", &login.file);
    spawn::output(command, PATIENCE)
}

#[test]
fn the_commands_of_doctor_role_are_enough_for_all_that_a_node_does() {
    let etcd = EtcdCluster::start(1);
    let commands = role_commands(&[]);
    assert_eq!(commands.len(), 4, "{commands:?}");
    let login = Login::enable_with(&etcd, "secret-2", &commands);
    let nodes = ["r0", "r1"].map(|id| login.of(NodeBuilder::new(id).etcd(&etcd)).spawn());
    let first = wait_for_leader(&nodes, PATIENCE);
    wait_until_all_know_all(&nodes);
    let examined = doctor(&etcd, &login, &[&nodes[0], &nodes[1]]);
    assert!(examined.status.success(), "{examined:?}");
    // A planned change, and a guardian that revokes.
    nodes[first].signal(Signal::TERM);
    assert_eq!(nodes[first].wait_exit(PATIENCE), 0, "{}", nodes[first].report());
    wait_until("the other one leads", PATIENCE, || leader(&nodes) == Some(1 - first));
    let third =
        login.of(NodeBuilder::new("r2").etcd(&etcd)).env("METAD_META__META_LEADER_LEASE_SECS", "86400");
    let third = third.spawn();
    third.wait_for("joined", PATIENCE);
    nodes[1 - first].kill();
    third.wait_for("main_loop_started", PATIENCE);
    for node in nodes.iter().chain([&third]) {
        let denied =
            node.messages().contains("permission denied") || node.stdout().contains("permission denied");
        assert!(!denied, "{}", node.report());
    }
    wait_until("the history is written", PATIENCE, || {
        etcd.etcdctl_ok(&["get", "--prefix", "--keys-only", "/metad/default/history/"]).lines().count() >= 3
    });
}

#[test]
fn a_permission_that_is_missing_is_named() {
    let etcd = EtcdCluster::start(1);
    let login = Login::enable(&etcd, "secret-3");
    let all = "/metad/default/";
    etcdctl(&etcd, "role revoke-permission metad --prefix=true /metad/");
    let cases = [
        (None, "read /metad/default/"),
        (Some("write"), "read /metad/default/"),
        (Some("read"), "write /metad/default/"),
    ];
    for (granted, missing) in cases {
        if let Some(kind) = granted {
            etcdctl(&etcd, &format!("role grant-permission metad --prefix=true {kind} {all}"));
        }
        judge(&etcd, &login, missing);
    }
    etcdctl(&etcd, &format!("role revoke-permission metad --prefix=true {all}"));
    for (part, missing) in PARTS {
        // All but this part: what is before it, and what is behind it.
        let (from, to) = (format!("{all}{part}"), format!("{all}{}0", part.trim_end_matches('/')));
        let before = format!("metad readwrite {all} {from}");
        let behind = format!("metad readwrite {to} /metad/default0");
        etcdctl(&etcd, &format!("role grant-permission {before}"));
        etcdctl(&etcd, &format!("role grant-permission {behind}"));
        judge(&etcd, &login, missing);
        etcdctl(&etcd, &format!("role revoke-permission metad {all} {from}"));
        etcdctl(&etcd, &format!("role revoke-permission metad {to} /metad/default0"));
    }
}

/// Starts a node, which must end and name the permission.
fn judge(etcd: &EtcdCluster, login: &Login, missing: &str) {
    let node = login.of(NodeBuilder::new("r").etcd(etcd)).spawn();
    assert_eq!(node.wait_exit(PATIENCE), 77, "{missing}: {}", node.report());
    let said = node.stderr();
    assert!(said.contains(&format!("{USER} may not {missing}")), "{missing}: {said}");
    assert!(said.contains("metad doctor --role"), "{said}");
}
