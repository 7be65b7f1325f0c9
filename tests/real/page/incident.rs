//! What an operator does with the page after a fail-over: copy, go to another node, filter the events, print what happened.

use serde_json::{Value, json};

use super::{PATIENCE, assert_accessible, fixtures, start, state};
use crate::page::browser::Browser;
use crate::support::etcd::EtcdCluster;
use crate::support::http;
use crate::support::node::{Node, Signal};
use crate::support::poll::wait_until;

#[track_caller]
fn count(browser: &mut Browser, selector: &str) -> u64 {
    browser.ask("count", json!({ "selector": selector, "text": "" })).as_u64().expect("a number")
}

#[test]
fn what_ended_a_tenure_is_shown_copied_filtered_and_printed() {
    let etcd = EtcdCluster::start(1);
    let (mut nodes, first) = start(&etcd, 3, 5);
    let left = nodes.remove(first);
    let mut browser = Browser::open(nodes[0].http_addr());
    browser.wait("#leader-node", left.id());
    go_to_others(&mut browser, &left, &nodes[1]);
    copy_ids(&mut browser, &state(&nodes[0]));
    filter_events(&mut browser);

    left.signal(Signal::TERM);
    left.wait_exit(PATIENCE);
    read_and_print(&mut browser, left.id());
    read_advice(&mut browser, &state(&nodes[0]));
}

/// To the other nodes, as they advertise themselves; and each of these links works.
#[track_caller]
fn go_to_others(browser: &mut Browser, leader: &Node, other: &Node) {
    wait_until("both are linked", PATIENCE, || links(browser, "#pages").len() == 2);
    let pages = links(browser, "#pages");
    let expected =
        [leader, other].map(|node| (node.id().to_owned(), format!("http://{}/", node.http_addr())));
    assert!(expected.iter().all(|link| pages.contains(link)), "{pages:?}, not {expected:?}");
    let links_to_leader = links(browser, "#leader .who");
    assert_eq!(links_to_leader, [("its page".to_owned(), format!("http://{}/", leader.http_addr()))]);
    let (status, body) = http::get(leader.http_addr(), "/", PATIENCE).expect("an answer");
    assert!(status == 200 && body.contains("<title>metad</title>"), "{status}");
}

fn copy_ids(browser: &mut Browser, said: &Value) {
    for (id, expected) in [
        ("leader-token", said["leader"]["token"].to_string()),
        ("leader-lease", said["leader"]["lease"].as_str().expect("a lease").to_owned()),
        ("leader-address", said["leader"]["address"].as_str().expect("an address").to_owned()),
    ] {
        browser.ask("click", json!({ "selector": format!("[data-copy={id}]") }));
        browser.wait(&format!("[data-copy={id}]"), "Copied");
        assert_eq!(browser.ask("paste", json!({ "selector": "#events-filter" })), expected);
    }
}

fn filter_events(browser: &mut Browser) {
    browser.ask("type", json!({ "selector": "#events-filter", "text": "" }));
    let all = count(browser, "#events-list li:visible");
    assert!(all > 2, "{all}");
    browser.ask("type", json!({ "selector": "#events-filter", "text": "LEADS now" }));
    browser.wait("#events-shown", &format!("1 of {all} are shown"));
    assert_eq!(count(browser, "#events-list li:visible"), 1);
    browser.ask("type", json!({ "selector": "#events-filter", "text": "member_joined" }));
    assert!(count(browser, "#events-list li:visible") >= 1, "by type");
    browser.ask("type", json!({ "selector": "#events-filter", "text": "" }));
}

fn read_and_print(browser: &mut Browser, left: &str) {
    browser.wait("#events-list li", "the tenure of");
    browser.wait("#history-summary", "1 change");
    browser.ask("click", json!({ "selector": "#timeline-marks button" }));
    browser.ask("click", json!({ "selector": "#change button:text('Incident report')" }));
    browser.wait("#incident-title", &format!("the end of {left}"));
    let told = browser.wait("#incident-body", "resigned_signal");
    for words in [
        "a signal asked the node to stop",
        "Told by",
        "leads now",
        "metad history -o json --meta",
        "journalctl -u metad",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    browser.wait("#incident-events tr", "the tenure of");
    browser.wait("#incident-headroom", "in that minute");
    assert_accessible(browser, "an incident");

    let paper = browser.ask("print", Value::Null);
    assert_eq!(paper["shown"], json!(["incident"]), "nothing else is on paper");
    assert!(paper["bytes"].as_u64() > Some(10_000), "{paper}");
    browser.ask("click", json!({ "selector": "#incident-close" }));
    let paper = browser.ask("print", Value::Null);
    let shown = paper["shown"].as_array().expect("a list");
    assert!(shown.contains(&json!("members")) && !shown.contains(&json!("incident")), "twin: {paper}");
}

fn read_advice(browser: &mut Browser, said: &Value) {
    for (status, words) in [("warn", "▲ would have been lost"), ("pass", "✓ would have been lost")] {
        let finding = fixtures::finding("LEASE_006", "the lease", status, "would have been lost", "");
        let checks = json!({ "at": said["time"], "findings": [finding] });
        browser.ask("fulfil", json!({ "path": "/api/v1/checks", "body": checks }));
        browser.ask("reload", Value::Null);
        browser.wait("#advice", words);
    }
    let checks = json!({ "at": said["time"], "findings": [] });
    browser.ask("fulfil", json!({ "path": "/api/v1/checks", "body": checks }));
    browser.ask("reload", Value::Null);
    browser.wait("#advice", "Too little is recorded");
}

#[track_caller]
fn links(browser: &mut Browser, selector: &str) -> Vec<(String, String)> {
    let links = browser.ask("links", json!({ "selector": selector }));
    serde_json::from_value(links).expect("pairs")
}
