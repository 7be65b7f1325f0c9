//! The page in a real browser, served by real nodes: what it shows, how soon, to whom, and when nothing answers.

pub mod browser;
mod fixtures;
mod incident;

use std::time::Duration;

use crate::support;
use crate::support::crew::{PATIENCE, kill_leader, wait_for_leader, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::http;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::papers::Papers;
use crate::support::poll::wait_until;
use browser::Browser;
use serde_json::{Value, json};

/// What the parts of the page may weigh together.
const BYTES_MAX: u64 = 160_000;
/// From what the page hears to what it shows, at most.
const SHOWN_WITHIN_MS: i64 = 2_000;
/// From the change itself to what is shown, on a machine that has a lot to do. Without load it is about a second.
const SEEN_WITHIN_MS: i64 = 20_000;
/// The nodes `e0`, `e1`, …, all of which know each other; and the leader's index.
fn start(etcd: &EtcdCluster, nodes: usize, lease_secs: u64) -> (Vec<Node>, usize) {
    // What the checks say of a busy machine is not what is looked at here.
    let node = |i| {
        let builder = NodeBuilder::new(&format!("e{i}")).etcd(etcd).lease_secs(lease_secs);
        builder.env("METAD_CHECKS__INTERVAL_SECS", "0").spawn()
    };
    let nodes: Vec<Node> = (0..nodes).map(node).collect();
    wait_until_all_know_all(&nodes);
    let leader = wait_for_leader(&nodes, PATIENCE);
    (nodes, leader)
}

fn state(node: &Node) -> Value {
    let (status, body) = http::get(node.http_addr(), "/api/v1/state", PATIENCE).expect("an answer");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn cells(row: &Value) -> Vec<&str> {
    row.as_array().expect("a row").iter().map(|cell| cell.as_str().unwrap_or_default()).collect()
}

/// The row of a table whose first cell begins with this.
#[track_caller]
fn row<'a>(table: &'a Value, first: &str) -> Vec<&'a str> {
    let found = table.as_array().expect("a table").iter().map(cells).find(|row| row[0].starts_with(first));
    found.unwrap_or_else(|| panic!("no row {first}: {table}"))
}

/// The names of all fields of a document, at any depth.
fn fields(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map.iter().flat_map(|(k, v)| [vec![k.clone()], fields(v)].concat()).collect(),
        Value::Array(list) => list.iter().flat_map(fields).collect(),
        _ => vec![],
    }
}

#[track_caller]
fn assert_accessible(browser: &mut Browser, what: &str) {
    let found = browser.ask("axe", Value::Null);
    assert_eq!(found["violations"], json!([]), "{what}");
    assert!(found["passes"].as_u64() > Some(20), "{what}: the rules were applied: {found}");
}

#[test]
fn a_healthy_cluster_and_a_fail_over_are_shown_at_once() {
    let etcd = EtcdCluster::start(3);
    let (mut nodes, first) = start(&etcd, 3, 10);
    let served = (first + 1) % 3;
    let mut browser = Browser::open(nodes[served].http_addr());

    browser.wait("#leader-node", nodes[first].id());
    browser.wait("#etcd-text", "3 of 3 answer");
    browser.wait("#verdict-word", "leads");
    let page = browser.texts();
    let state = state(&nodes[served]);
    assert_eq!(page["level"], "good", "{page}");
    assert_eq!(page["token"], state["leader"]["token"].to_string());
    assert_eq!(page["address"], nodes[first].rpc_addr().to_string());
    assert_eq!(page["budget"], "at most 10.5 s");
    assert!(page["served"].as_str().is_some_and(|s| s.contains(nodes[served].id())), "{page}");
    assert_eq!(page["members"].as_array().map(Vec::len), Some(3), "{page}");
    assert_eq!(row(&page["members"], nodes[first].id())[1], "★ leader");
    assert_eq!(row(&page["members"], nodes[served].id())[1], "● follower");
    assert_eq!(row(&page["etcd"], &etcd.endpoint(0))[1], "✓ answers");
    assert_eq!(page["lanes"], json!(["e0", "e1", "e2", "changes"]));
    assert_eq!(page["leads_now"], 1, "{page}");
    assert_accessible(&mut browser, "healthy");

    nodes[first].kill();
    let won = |n: &&Node| n.is_alive() && n.has_event("leadership_won");
    wait_until("another leads", PATIENCE, || nodes.iter().any(|n| won(&n)));
    let next = nodes.iter().find(won).expect("it leads").id().to_owned();
    let told = |e: &support::history::TimedEvent| e.json["leader"] == next.as_str();
    let changed = nodes[served].wait_event(|e| e.kind() == "leader_changed" && told(e), PATIENCE);
    browser.wait("#leader-node", &next);
    let noted = browser.ask("noted", Value::Null);
    let at = |what: &str| noted[what][&next].as_i64().unwrap_or_else(|| panic!("{what}: {noted}"));
    let seen = at("shown") - wall_ms(changed.str("time"));
    println!(
        "shown {} ms after the page heard of it, {seen} ms after the node did",
        at("shown") - at("heard")
    );
    assert!(at("shown") - at("heard") < SHOWN_WITHIN_MS, "{noted}");
    assert!(seen < SEEN_WITHIN_MS, "{seen} ms");

    browser.wait("#announce", &format!("{next} leads now"));
    let gone = nodes[first].id().to_owned();
    browser.wait("#members-count", "1 gone"); // its registration ends with its lease, or with its guardian's work
    let page = browser.texts();
    assert_eq!(row(&page["members"], &gone)[1], "✕ gone");
    assert_eq!(page["level"], "warn", "{page}");
    assert!(page["title"].as_str().is_some_and(|t| t.starts_with(&next)), "{page}");
    assert_accessible(&mut browser, "after a fail-over");
    assert_asks_only(&mut browser, &nodes[served]);

    nodes.swap_remove(served).kill();
    browser.wait("#verdict-word", "Cannot reach this node");
    let page = browser.texts();
    assert_eq!((&page["level"], &page["leader"]), (&json!("lost"), &json!(next)), "nothing is blank");
    let text = page["text"].as_str().unwrap_or_default();
    assert!(text.contains("since") && text.contains("ago"), "{page}");
    assert!(text.contains("Open the page of another member: e"), "{page}");
}

fn wall_ms(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().expect("a time").as_millisecond()
}

/// No complaint of the browser, no request to anybody else, and not too much of it.
#[track_caller]
fn assert_asks_only(browser: &mut Browser, node: &Node) {
    let seen = browser.ask("seen", Value::Null);
    assert_eq!(seen["complaints"], json!([]));
    let origin = format!("http://{}/", node.http_addr());
    let requests = seen["requests"].as_array().expect("a list");
    let elsewhere: Vec<_> =
        requests.iter().filter(|r| !r.as_str().unwrap_or_default().starts_with(&origin)).collect();
    assert_eq!(elsewhere, Vec::<&Value>::new());
    assert!(requests.len() > 10, "twin: requests are noted: {requests:?}");
    let parts = seen["bytes"].as_object().expect("a map");
    let bytes: u64 = parts.values().filter_map(Value::as_u64).sum();
    assert!(parts.len() > 10 && bytes > 50_000, "twin: the parts are weighed: {parts:?}");
    assert!(bytes < BYTES_MAX, "{bytes} bytes: {parts:?}");
}

#[test]
fn a_lost_store_is_shown_grey_with_the_age_of_what_is_known() {
    let etcd = EtcdCluster::start(1);
    let (nodes, first) = start(&etcd, 2, 5);
    let served = 1 - first;
    let mut browser = Browser::open(nodes[served].http_addr());
    browser.wait("#etcd-text", "1 of 1 answer");
    browser.wait("#verdict-word", "leads");
    let grey =
        |browser: &mut Browser| browser.ask("style", json!({ "selector": "main", "property": "filter" }));
    assert_eq!(grey(&mut browser), "none");

    etcd.pause_all();
    browser.wait("#verdict-word", "etcd does not answer");
    let page = browser.texts();
    assert_eq!(page["level"], "lost", "{page}");
    assert_eq!(grey(&mut browser), "grayscale(1)");
    let cure = "accepts connections but does not answer; look at that process";
    wait_until("it says what to do", PATIENCE, || {
        browser.texts()["text"].as_str().is_some_and(|text| text.contains(cure))
    });
    let led = format!("{} led", nodes[first].id());
    assert!(page["text"].as_str().is_some_and(|t| t.contains(&led) && t.contains("ago")), "{page}");
    assert_eq!(page["leader"], nodes[first].id(), "what was known is not blank");
    assert_eq!(row(&page["etcd"], &etcd.endpoint(0))[1], "✕ accepts connections but does not answer");
    assert_accessible(&mut browser, "without etcd");
    // The lease drains, and the leader, wherever it is, ends with it; on a busy machine its fuse may have to see to that.
    let code = nodes[first].wait_exit(PATIENCE);
    assert!([75, 76].contains(&code), "{code}: {}", nodes[first].report());
    let drained = |browser: &mut Browser| browser.texts()["lease_now"] == "0";
    wait_until("the lease is shown as drained", PATIENCE, || drained(&mut browser));

    etcd.resume_all();
    browser.wait("#leader-node", nodes[served].id());
    browser.wait("#etcd-text", "1 of 1 answer");
    assert_eq!(grey(&mut browser), "none");
    assert_asks_only(&mut browser, &nodes[served]);

    // etcd answers, but what this node knows is a minute old: its election hangs.
    let mut said = state(&nodes[served]);
    (said["answerer"]["age_ms"], said["leader"]["lease_ttl_secs"]) = (json!(60_000), json!(86_400));
    browser.ask("fulfil", json!({ "path": "/api/v1/state", "body": said }));
    browser.wait("#verdict-word", "This node has an outdated view");
    assert_eq!(grey(&mut browser), "grayscale(1)");
    said["answerer"]["age_ms"] = json!(0);
    browser.ask("fulfil", json!({ "path": "/api/v1/state", "body": said }));
    let unknown = json!({ "at": said["time"], "findings": fixtures::findings_unknown() });
    browser.ask("fulfil", json!({ "path": "/api/v1/checks", "body": unknown }));
    browser.ask("reload", Value::Null);
    browser.wait("#verdict-word", "1 check not possible");
    assert_eq!(browser.texts()["level"], "warn", "what could not be looked at is not green");
}

#[test]
fn a_leadership_that_flaps_is_shown_with_what_to_do_until_it_is_over() {
    let etcd = EtcdCluster::start(1);
    let window_secs = 20;
    let builder = |id: &str| {
        let builder = NodeBuilder::new(id).etcd(&etcd).env("METAD_CHECKS__INTERVAL_SECS", "1");
        builder.env("METAD_CHECKS__LEADER_CHANGE_WINDOW_SECS", window_secs.to_string())
    };
    let observer = builder("observer").env("METAD_NODE__PRIORITY", "0").spawn();
    observer.wait_for("joined", PATIENCE);
    let mut browser = Browser::open(observer.http_addr());
    browser.wait("#checks-passed code", "LEADER_003");
    let builders = ["a", "b"].map(builder);
    let mut nodes: Vec<Node> = builders.iter().map(NodeBuilder::spawn).collect();
    for _ in 0..2 {
        kill_leader(&mut nodes, &builders);
    }
    let shown = browser.wait("#checks-open .finding:has(code:text('LEADER_003'))", "META_003");
    for words in ["▲ warning", "2 unplanned changes", "vanished", "Why it matters", "look at that node"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    browser.wait("#events-list li", "check LEADER_003 is warn now");
    browser.wait("#history-summary", "2 unplanned");
    browser.wait("#checks-passed code", "LEADER_003");
    browser.wait("#events-list li", "check LEADER_003 is pass now");
    assert_asks_only(&mut browser, &observer);
    // Who opens the page afterwards sees what has happened, once.
    browser.ask("reload", Value::Null);
    browser.wait("#events-list li", "check LEADER_003 is warn now");
    let warned =
        browser.ask("count", json!({ "selector": "#events-list li", "text": "LEADER_003 is warn now" }));
    assert_eq!(warned, 1);
}

#[test]
fn everybody_can_use_it_by_day_and_night_on_a_phone_and_without_a_mouse() {
    let node = NodeBuilder::new("a-node-with-a-rather-long-name").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let mut browser = Browser::open(node.http_addr());
    for (path, body) in fixtures::documents(&state(&node)) {
        browser.ask("fulfil", json!({ "path": path, "body": body }));
    }
    browser.ask("reload", Value::Null);
    browser.wait("#checks-open .finding.fail strong", "the leader does not flap");
    browser.wait("#history-summary", "Last 6h: 2 changes"); // it fits what has happened
    browser.ask("click", json!({ "selector": "#ranges button:text('24h')" }));
    browser
        .wait("#history-summary", "Last 24h: 4 changes · 2 unplanned · longest without a leader 5 min 24 s");
    browser.wait("#headroom-summary", "least 0.30");
    browser.wait("#events-list li", "e1 leads now, e0 led before");
    browser.wait("#events-list li:first-child", "the store answers again, after 2.1 s");
    walk(&mut browser);
    look_at_all_sizes(&mut browser, "day");
    browser.ask("fulfil", json!({ "path": "/api/v1/state", "body": fixtures::crowd(&state(&node)) }));
    browser.wait("#members-count", "12 registered, 3 gone");
    let page = browser.texts();
    let names: Vec<&str> =
        page["members"].as_array().expect("a table").iter().map(|row| cells(row)[0]).collect();
    assert!(names[1].ends_with("-2") && names[9].ends_with("-10"), "2 comes before 10: {names:?}");
    assert!(names.iter().all(|name| name.chars().count() <= 40), "{names:?}");
    assert!(page["verdict"].as_str().is_some_and(|v| v.contains("3 members gone")), "{page}");
    look_at_all_sizes(&mut browser, "crowd");
    assert_asks_only(&mut browser, &node);
    browser.ask("spoil", json!({ "selector": "#lease", "attribute": "aria-label" }));
    let found = browser.ask("axe", Value::Null)["violations"].to_string();
    assert!(found.contains("aria-meter-name"), "twin: a violation is noticed: {found}");
}

/// On a phone, a tablet and a screen, by day and night: nothing to scroll sideways, and nothing that axe finds. With
/// `METAD_PAGE_SHOTS=folder` it leaves pictures for who wants to look.
fn look_at_all_sizes(browser: &mut Browser, name: &str) {
    for (width, height) in [(1280, 900), (768, 1024), (360, 740)] {
        for scheme in ["light", "dark"] {
            let looks = browser.ask("look", json!({ "width": width, "height": height, "scheme": scheme }));
            assert_eq!(
                looks["content"], looks["window"],
                "{name}: nothing to scroll sideways at {width}, {scheme}"
            );
            assert_accessible(browser, &format!("{name}, {width}, {scheme}"));
            if let Ok(folder) = std::env::var("METAD_PAGE_SHOTS") {
                let path = format!("{folder}/{name}-{width}-{scheme}.png");
                browser.ask("screenshot", json!({ "path": path, "whole": true }));
            }
        }
    }
}

/// One Tab stop among the marks of the timeline; arrows go on, Enter tells what is known and takes it away again.
fn walk(browser: &mut Browser) {
    let mut keys =
        |focus: Option<&str>, keys: &[&str]| browser.ask("keys", json!({ "focus": focus, "keys": keys }));
    let last = keys(Some("#timeline-marks button[tabindex='0']"), &[]);
    assert!(last["label"].as_str().is_some_and(|l| l.contains("unplanned change, e2 → a-node")), "{last}");
    assert_eq!((&last["stops"], &last["change"]), (&json!(1), &json!("")));
    let first = keys(None, &["Home"]);
    assert!(first["label"].as_str().is_some_and(|l| l.contains(": planned change, e0 → e1")), "{first}");
    let second = keys(None, &["ArrowLeft", "ArrowRight", "Enter"]);
    assert_eq!((&second["pressed"], &second["stops"]), (&json!("true"), &json!(1)));
    let change = second["change"].as_str().unwrap_or_default();
    for words in
        ["e1 → e2", "renew_deadline", "No leader for 15 s", "member b took 2.1 s", "last renewal 14 s before"]
    {
        assert!(change.contains(words), "{words}: {change}");
    }
    assert_eq!(keys(None, &["Enter"])["change"], "");
    assert_ne!(keys(None, &["End", "Enter"])["change"], "");
}

#[test]
fn the_state_is_documented_field_by_field() {
    let etcd = EtcdCluster::start(1);
    let (nodes, first) = start(&etcd, 2, 5);
    nodes[1 - first].signal(Signal::TERM);
    wait_until("a member has gone", PATIENCE, || {
        let state = state(&nodes[first]);
        !state["gone"][0].is_null() && !state["store"]["endpoints"][0].is_null()
    });
    let state = state(&nodes[first]);
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/http.md")).expect("the page");
    let found = fields(&state);
    assert!(found.len() > 40, "{found:?}");
    let missing: Vec<_> = found.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "src/docs/http.md lacks {missing:?}");
    assert_eq!(state["store"]["endpoints"][0]["up"], true);
    let left = state["lease"]["remaining_ms"].as_u64().expect("a number");
    assert!(left > 0 && left <= 5_000, "{state}");
}

/// Writes the pictures of the README: `make screenshots`.
#[test]
#[ignore = "writes into src/docs/; make screenshots"]
fn screenshots() {
    let etcd = EtcdCluster::start(3);
    let builder = |i: usize| NodeBuilder::new(&format!("m{i}")).etcd(&etcd).cluster("prod").lease_secs(15);
    let shot = |browser: &mut Browser, name: &str| {
        let path = format!("{}/src/docs/{name}.png", env!("CARGO_MANIFEST_DIR"));
        browser.ask("screenshot", json!({ "path": path }));
    };
    let first = builder(1).spawn();
    first.wait_for("main_loop_started", PATIENCE);
    // The one that is looked at does not lead.
    let (second, third) = (builder(2).spawn(), builder(3).env("METAD_NODE__PRIORITY", "0").spawn());
    third.wait_for("joined", PATIENCE);
    let mut browser = Browser::open(third.http_addr());
    browser.ask("click", json!({ "selector": "#ranges button" }));
    browser.wait("#etcd-text", "3 of 3");
    let pause = Duration::from_secs(75); // long enough to be seen on the timeline
    std::thread::sleep(pause);
    shot(&mut browser, "page-healthy");
    first.kill();
    browser.wait("#members-count", "1 gone");
    std::thread::sleep(pause);
    shot(&mut browser, "page-failover");
    etcd.pause_all();
    browser.wait("#verdict-word", "etcd does not answer");
    std::thread::sleep(Duration::from_secs(16)); // longer than the lease
    shot(&mut browser, "page-etcd-lost");
    drop(second);
    etcd.resume_all();
}

#[test]
fn a_node_that_asks_who_is_calling_shows_itself_to_a_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let papers = Papers::create(&dir.path().join("papers"), &["n1"]);
    papers.make_tokens(&[("reader", "ops", "token"), ("reader", "old", "old")]);
    let token = std::fs::read_to_string(papers.path("token")).expect("a token");
    let builder = NodeBuilder::new("n1").sqlite(dir.path().join("n1.db"));
    let node = builder.env("METAD_AUTH__ACCESS_FILE", papers.path("access")).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let mut browser = Browser::open(node.http_addr());
    browser.wait("#verdict-word", "Token needed");
    browser.wait("#login-why", "requires authentication");
    let found = browser.ask("axe", Value::Null);
    assert_eq!(found["violations"], json!([]));
    let show = |browser: &mut Browser, text: &str| {
        browser.ask("type", json!({ "selector": "#token", "text": text }));
        browser.ask("click", json!({ "selector": "#login button" }));
    };
    show(&mut browser, "wrong");
    browser.wait("#login-why", "does not know this token");
    show(&mut browser, token.trim());
    browser.wait("#verdict-word", "n1 leads");
    // The stream of events shows the token as well.
    browser.wait("#events", "main loop");
    assert!(!node.has_event("stopped"));
    // It is nowhere but in memory.
    browser.ask("reload", Value::Null);
    browser.wait("#verdict-word", "Token needed");
}
