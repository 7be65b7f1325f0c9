//! SIGHUP on the real binary: log filter and certificates change, what needs a restart is named, a bad file changes
//! nothing.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::crew::{PATIENCE, check_status, leads};
use crate::support::etcd::EtcdCluster;
use crate::support::http;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::wait_until;
use crate::support::tls::TlsFiles;

fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("a file");
}

/// Sends SIGHUP and waits for the line that answers it. Each answer is asked for once.
#[track_caller]
fn reload(node: &Node, answer: &str) {
    assert!(!node.stderr().contains(answer), "{answer} was said before");
    node.signal(Signal::HUP);
    wait_until(answer, PATIENCE, || node.stderr().contains(answer));
}

#[test]
fn sighup_reloads_the_log_filter_and_names_what_needs_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.toml");
    write(&file, "[log]\nfilter = \"info\"\n");
    let node = NodeBuilder::new("n1").arg("--config").arg(&file).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    reload(&node, "SIGHUP: no setting changed");
    assert!(!node.stderr().contains("DEBUG"), "{}", node.stderr());

    write(&file, "[log]\nfilter = \"debug\"\n[meta]\nstop_timeout_secs = 7\nmeta_leader_lease_secs = 60\n");
    reload(&node, "SIGHUP: log.filter reloaded");
    // The lease is given by a flag, which wins over the file as it did at the start.
    wait_until("the restart is named", PATIENCE, || {
        node.stderr().contains("SIGHUP: restart the node to apply the new values of meta.stop_timeout_secs\"")
    });

    for (text, answer) in [
        (
            "[log]\nfilter = \"a=b=c\"\n",
            "SIGHUP: log.filter not reloaded: log.filter = \\\"a=b=c\\\" is not a log filter",
        ),
        ("[log]\nfliter = \"info\"\n", "SIGHUP: configuration not reloaded: "),
    ] {
        write(&file, text);
        reload(&node, answer);
    }
    assert!(node.stderr().contains("fliter"), "the error names the key: {}", node.stderr());

    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 0, "it went on all the time");
    let debug = node.stderr().lines().filter(|l| l.contains("\"level\":\"DEBUG\"")).count();
    assert!(debug > 0, "the new filter is in force: {}", node.stderr());
}

/// The value of a metric that has one sample; `None`: it is not there yet.
fn metric(node: &Node, name: &str) -> Option<f64> {
    let page = http::get(node.http_addr(), "/metrics", PATIENCE).expect("an answer").1;
    page.lines().find(|l| l.starts_with(name))?.rsplit(' ').next()?.parse().ok()
}

/// Copies what a client needs.
fn give(files: &TlsFiles, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for (file, name) in [(&files.ca, "ca.pem"), (&files.cert, "client.pem"), (&files.key, "client.key")] {
        fs::copy(file, to.join(name)).expect("a copy");
    }
}

fn client(id: &str, etcd: &EtcdCluster, files: &Path) -> NodeBuilder {
    give(etcd.tls().expect("etcd with TLS"), files);
    NodeBuilder::new(id)
        .endpoints(etcd.urls())
        .lease_secs(60)
        .env("METAD_STORE__ETCD__CA_FILE", files.join("ca.pem"))
        .env("METAD_STORE__ETCD__CERT_FILE", files.join("client.pem"))
        .env("METAD_STORE__ETCD__KEY_FILE", files.join("client.key"))
}

#[test]
fn sighup_reloads_the_limits_of_the_checks_and_looks_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.toml");
    let text = |limits: &str| format!("[checks]\ninterval_secs = 3600\n{limits}");
    write(&file, &text(""));
    let node = NodeBuilder::new("n1").arg("--config").arg(&file).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    wait_until("it has looked", PATIENCE, || check_status(&node, "CLUSTER_001") == Some(0));
    // The next look is due in an hour.
    write(&file, &text("expected_members = 3\n"));
    reload(&node, "SIGHUP: reloaded checks.expected_members");
    wait_until("one of three is there", PATIENCE, || check_status(&node, "CLUSTER_001") == Some(1));
    let findings = || {
        let page = http::get(node.http_addr(), "/api/v1/checks", PATIENCE).expect("an answer").1;
        let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        page["findings"].as_array().expect("findings").len()
    };
    assert!(findings() > 5);
    write(&file, "[checks]\ninterval_secs = 0\n");
    reload(&node, "SIGHUP: reloaded checks.interval_secs, checks.expected_members");
    wait_until("what was found is not shown for ever", PATIENCE, || {
        findings() == 0 && check_status(&node, "CLUSTER_001").is_none()
    });
}

#[test]
fn sighup_reloads_certificates_so_that_a_change_of_the_authority_costs_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, other_files) = (folder.path().join("a"), folder.path().join("b"));
    let etcd = EtcdCluster::builder().tls().start();
    let node = client("a", &etcd, &files).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let other = client("b", &etcd, &other_files).spawn();
    other.wait_for("joined", PATIENCE);

    write(&files.join("client.pem"), "no certificate");
    reload(&node, "SIGHUP: a certificate or token file was not reloaded: ");
    // Another authority, which has signed all certificates anew.
    let next = TlsFiles::create(&folder.path().join("next"));
    give(&next, &files);
    reload(&node, "SIGHUP: certificates and tokens reloaded");
    let old = etcd.tls().expect("etcd with TLS");
    for (from, to) in
        [(&next.ca, &old.ca), (&next.server_cert, &old.server_cert), (&next.server_key, &old.server_key)]
    {
        fs::copy(from, to).expect("a copy");
    }
    etcd.restart(0);
    let restarted = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();

    let seen = "metad_etcd_last_seen_timestamp_seconds{";
    wait_until("etcd answers it again", PATIENCE, || metric(&node, seen) > Some(restarted));
    wait_until("its lease is renewed", PATIENCE, || {
        metric(&node, "metad_picture_age_seconds ").is_some_and(|age| age < 3.0)
    });
    assert!(leads(&node), "it cost nothing: {}", node.report());
    wait_until("etcd refuses the other", PATIENCE, || metric(&other, "metad_etcd_endpoint_up{") == Some(0.0));
    assert!(metric(&other, seen).is_some_and(|at| at < restarted), "twin: without a reload it is shut out");
}
