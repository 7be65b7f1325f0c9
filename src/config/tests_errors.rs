//! The text of every error: it must name the place, the value and the fix.

use std::path::Path;

use super::load;
use super::tests::{NODE, assert_refused, from_file, run};

#[test]
fn unreadable_files() {
    let missing = load(Some(Path::new("/no/such.toml")), std::iter::empty(), &[]);
    assert_refused("missing", missing, &["/no/such.toml: cannot read", "No such file", "--config"]);
    let directory = load(Some(Path::new("/tmp")), std::iter::empty(), &[]);
    assert_refused("directory", directory, &["/tmp: cannot read", "directory"]);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latin1.toml");
    std::fs::write(&path, b"[node]\nid = \"n\xe9\"\n").unwrap();
    let latin1 = load(Some(&path), std::iter::empty(), &[]);
    assert_refused("latin 1", latin1, &["latin1.toml:2:8", "0xe9", "UTF-8"]);
}

#[test]
fn malformed_toml_keeps_its_line_and_caret() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "unquoted",
            "[node]\nid = node 1\n",
            &["metad.toml:2:", "line 2, column", "id = node 1", "^", "double quotes"],
        ),
        ("unclosed", "[node\n", &["metad.toml:1:", "[node", "^"]),
        ("end of file", "[node]\nid =", &["metad.toml:2:", "id =", "^"]),
        (
            "byte order mark",
            "\u{feff}priorty = 1\n",
            &["metad.toml:1:1: unknown key", "1 | priorty = …\n  | ^^^^^^^\n"],
        ),
        ("line ends of Windows", "[node]\r\nid = 1\r\n", &["metad.toml:2:6", "2 | id = 1\n  |      ^\n"]),
        ("twice", "[node]\npriority = 1\npriority = 2\n", &["metad.toml:3:1", "duplicate"]),
    ];
    for (case, text, parts) in cases {
        assert_refused(case, from_file(text), parts);
    }
}

#[test]
fn unknown_keys_come_with_a_suggestion() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "misspelt key",
            "[meta]\n\n\tmeta_leader_lease_sec = 5\n",
            &[
                "metad.toml:3:2: unknown key `meta.meta_leader_lease_sec`",
                "3 | \tmeta_leader_lease_sec = …\n  | \t^^^^^^^^^^^^^^^^^^^^^\n",
                "did you mean `meta_leader_lease_secs`?",
            ],
        ),
        ("part of a name", "[meta]\nlease_secs = 5", &["did you mean `meta_leader_lease_secs`?"]),
        (
            "no section",
            "meta_leader_lease_secs = 5",
            &["metad.toml:1:1", "`meta_leader_lease_secs` in [meta]"],
        ),
        (
            "misspelt, no section",
            "leader_lease_sec = 5",
            &["did you mean `meta_leader_lease_secs` in [meta]?"],
        ),
        ("misspelt section", "[metta]\ngroup = \"g\"", &["metad.toml:1:2", "unknown key `metta`", "`meta`?"]),
        ("strange section", "[qqqqqqqq]", &["known sections: node, meta, store, rpc, http, tls, auth, log"]),
        ("misspelt subsection", "[store.etdc]", &["unknown key `store.etdc`", "did you mean `etcd`?"]),
        ("strange key", "[log]\nqqqqqqqq = 1", &["known keys in [log]: filter, format"]),
        ("quoted path", "\"meta.group\" = \"g\"", &["metad.toml:1:1: unknown key"]),
        ("first fault wins", "[rpc]\nx = 1\n[http]\ny = 2\n", &["metad.toml:2:1"]),
    ];
    for (case, text, parts) in cases {
        assert_refused(case, from_file(text), parts);
    }
}

#[test]
fn wrong_types_name_the_right_one() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "key as section",
            "[meta.group]\na = 1",
            &["metad.toml:1:", "meta.group: expected 1 to 63", "found a section"],
        ),
        (
            "section as key",
            "meta = 5",
            &["metad.toml:1:8", "expected a section, found the number 5", "[meta]"],
        ),
        ("table list", "[[node]]\nid = \"n\"", &["node: expected a section, found a list"]),
        (
            "text for a number",
            "[meta]\nmeta_leader_lease_secs = \"15s\"",
            &[
                "metad.toml:2:26: meta.meta_leader_lease_secs: expected a whole number of seconds, 3 to",
                "found the string \"15s\"",
                "2 | meta_leader_lease_secs = \"15s\"\n  |                          ^^^^^\n",
                "fix: write meta_leader_lease_secs = 15",
            ],
        ),
        ("decimal", "[node]\npriority = 1.5", &["0 to 1000", "the decimal number 1.5", "priority = 100"]),
        ("bool", "[node]\nid = true", &["found the boolean true", "id = \"node-1\""]),
        ("huge", "[node]\npriority = 99999999999999999999", &["found 99999999999999999999", "0 to 1000"]),
        (
            "endpoints as text",
            "[store.etcd]\nendpoints = \"a:1,b:2\"",
            &[
                "expected a list",
                "found the string \"a:1,b:2\"",
                "endpoints = [\"10.0.0.1:2379\", \"10.0.0.2:2379\"",
            ],
        ),
        ("mixed list", "[store.etcd]\nendpoints = [\"a:1\", 2]", &["found the number 2 in the list"]),
    ];
    for (case, text, parts) in cases {
        assert_refused(case, from_file(text), parts);
    }
}

#[test]
fn a_password_under_a_wrong_name_is_not_shown() {
    let cases = [
        "[store.etcd]\npassword = \"hunter2\"",
        "store = { etcd = { password = \"hunter2\" } }",
        "[store.etcd]\nendpoints = [\"http://root:hunter2@h:2379\"]",
    ];
    for text in cases {
        let error = from_file(text).unwrap_err().to_string();
        assert!(!error.contains("hunter2") && error.contains("password_file"), "{error}");
    }
    let env = [("METAD_STORE__ETCD__PASSWORD", "hunter2")];
    let error = run(None, &env, NODE).unwrap_err().to_string();
    assert!(!error.contains("hunter2") && error.contains("`METAD_STORE__ETCD__PASSWORD_FILE`"), "{error}");
}

#[test]
fn variables_and_flags_are_named() {
    const LEASE: &str = "METAD_META__META_LEADER_LEASE_SECS";
    let env: &[(&str, &str, &[&str])] = &[
        (LEASE, "15s", &["environment METAD_META__META_LEADER_LEASE_SECS", "\"15s\"", "LEASE_SECS=15"]),
        (LEASE, "", &["found \"\"", "whole number"]),
        (LEASE, "2", &["environment METAD_META__META_LEADER_LEASE_SECS", "= 2", "LEASE_SECS=15"]),
        (
            "METAD_META__LEADER_LEASE_SECS",
            "5",
            &["unknown key", "did you mean `METAD_META__META_LEADER_LEASE_SECS`?"],
        ),
        ("METAD_LOG__QQQQQQQQ", "5", &["known variables: METAD_LOG__FILTER, METAD_LOG__FORMAT"]),
        ("METAD_QQQQQQQQQQ__QQQQQQQ", "5", &["known variables: METAD_NODE__ID, "]),
        ("METAD_node__id", "n", &["did you mean `METAD_NODE__ID`?"]),
        ("METAD_LOG__FORMAT", "xml", &["environment METAD_LOG__FORMAT", "\"xml\"", "auto, text, json"]),
        ("METAD_LOG__FILTER", "info\n", &["\"info\\u000A\"", "such as a newline"]),
        ("METAD_STORE__ETCD__ENDPOINTS", "a:1,,b:2", &["\"\": is empty"]),
        ("METAD_STORE__ETCD__ENDPOINTS", "", &["METAD_STORE__ETCD__ENDPOINTS", "is empty"]),
        ("METAD_STORE__ETCD__ENDPOINTS", " , ", &["is empty"]),
    ];
    for (name, value, parts) in env {
        assert_refused(name, run(None, &[(name, value)], NODE), parts);
    }
    let flags: &[(&str, &str, &[&str])] = &[
        (
            "meta.meta_leader_lease_secs",
            "x",
            &["flag --meta-leader-lease-secs", "\"x\"", "--meta-leader-lease-secs 15"],
        ),
        ("meta.meta_leader_lease_secs", "0", &["flag --meta-leader-lease-secs", "= 0", "3 to 31536000"]),
        ("node.priority", "x", &["flag node.priority"]),
        ("node.pririty", "1", &["did you mean `priority`?"]),
    ];
    for (path, value, parts) in flags {
        assert_refused(path, run(None, &[], &[NODE, &[(path, value)]].concat()), parts);
    }
}

#[test]
fn values_out_of_range() {
    let long = "x".repeat(64);
    let id = format!("node.id = \"{long}\"");
    let cases: &[(&str, &[&str])] = &[
        ("meta.meta_leader_lease_secs = 0", &["= 0: is below the minimum, 3 seconds", "_secs = 15"]),
        ("meta.meta_leader_lease_secs = 2", &["metad.toml:1:31", "= 2: is below", "3 to 31536000"]),
        ("meta.meta_leader_lease_secs = -1", &["= -1: is below the minimum, 3 seconds"]),
        (
            "meta.meta_leader_lease_secs = 1_000_000_000_000",
            &["= 1000000000000: is above the maximum, 31536000"],
        ),
        ("node.priority = 1001", &["= 1001: is above the maximum, 1000\n"]),
        ("node.cluster = \"\"", &["node.cluster = \"\": is empty", "1 to 63"]),
        ("node.cluster = \".x\"", &["\".x\": begins with a dot or a dash"]),
        ("node.cluster = \"a/b\"", &["contains the character `/`", "cluster = \"default\""]),
        ("meta.group = \"a b\"", &["contains the character ` `"]),
        ("store.kind = \"redis\"", &["\"redis\"", "sqlite, etcd"]),
        ("node.data_dir = \"\"", &["is empty"]),
        ("rpc.listen_addr = \"5690\"", &["has no port", "host:port", "127.0.0.1:5690"]),
        ("rpc.listen_addr = \":5690\"", &["has no host"]),
        ("http.listen_addr = \"h:65536\"", &["port 65536", "65535"]),
        ("http.listen_addr = \"::1:80\"", &["IPv6", "brackets"]),
        ("http.listen_addr = \"[::g]:80\"", &["not an IPv6 address"]),
        ("http.listen_addr = \"[::1]80\"", &["has no port"]),
        ("http.listen_addr = \"[::1\"", &["closing bracket"]),
        ("http.listen_addr = \"127.0.0:80\"", &["127.0.0", "not an IPv4 address"]),
    ];
    for (text, parts) in cases {
        assert_refused(text, from_file(text), parts);
    }
    let named = load_alone(&id);
    assert_refused("long id", named, &[&long, "has 64 characters"]);
}

/// A file that sets the node id itself.
fn load_alone(text: &str) -> Result<super::Loaded, super::ConfigError> {
    run(Some(text), &[], &[])
}

#[test]
fn endpoints_that_cannot_be_used() {
    let cases: &[(&str, &str)] = &[
        ("", "is empty"),
        ("h", "has no port"),
        ("http://h", "has no port"),
        ("h:", "has no port"),
        ("http://", "is empty"),
        ("ftp://h:2379", "scheme `ftp`"),
        ("unix:///x", "scheme `unix`"),
        (" h:2379", "a space"),
        ("h: 2379", "a space"),
        ("h:0", "port 0"),
        ("h:65536", "port 65536"),
        ("h:-1", "port `-1`, which is not a number"),
        ("h:http", "port `http`"),
        ("http://h:2379/v3", "must end after the port"),
        ("http://h:2379//", "must end after the port"),
        ("h!:2379", "character `!`"),
        ("256.0.0.1:2379", "not an IPv4 address"),
        ("::1:2379", "in brackets"),
        (":2379", "has no host"),
        ("a@h:1", "contains a login"),
    ];
    for (endpoint, problem) in cases {
        let shown = if endpoint.contains('@') { "\"***@h:1\"" } else { &format!("{endpoint:?}") };
        let text = format!("[store.etcd]\nendpoints = [\"ok:2379\", {endpoint:?}]");
        assert_refused(
            endpoint,
            from_file(&text),
            &["metad.toml:2:25: store.etcd.endpoints = ", shown, problem],
        );
    }
    for good in
        ["h:1", "http://h:1", "https://h-1.x_y.z:65535", "10.0.0.1:2379", "[::1]:2379", "https://[fe80::1]:1"]
    {
        let loaded = from_file(&format!("store.etcd.endpoints = [\"{good}\"]"));
        assert!(loaded.is_ok(), "{good}: {}", loaded.unwrap_err());
    }
}

#[test]
fn of_a_list_and_of_rules_each_fault_is_told() {
    let list = "[store.etcd]\nendpoints = [\"h\", \"ok:1\", \"ftp://h:2379\"]";
    assert_refused(
        list,
        from_file(list),
        &["metad.toml:2:14", "has no port", "metad.toml:2:27", "scheme `ftp`", "2 errors"],
    );
    let rules = "store.etcd.cert_file = \"c\"\nstore.etcd.username = \"u\"\nmeta.tick_interval_ms = 60000";
    let parts = [
        "store.etcd.key_file",
        "store.etcd.password_file",
        "meta.tick_interval_ms",
        "needs etcd endpoints",
        "4 errors",
    ];
    assert_refused(rules, from_file(&format!("store.kind = \"etcd\"\n{rules}")), &parts);
}

#[test]
fn a_listener_that_others_can_reach_needs_tls_or_a_clear_word() {
    let listens =
        |key: &str, at: &str, more: &str| from_file(&format!("{more}\n[{key}]\nlisten_addr = \"{at}\""));
    let tls = "tls.ca_file = \"a\"\ntls.cert_file = \"c\"\ntls.key_file = \"k\"";
    for key in ["rpc", "http"] {
        for open in ["0.0.0.0:7", "[::]:7", "10.0.0.1:7", "meta-0:7", "[fe80::1]:7"] {
            assert_refused(
                open,
                listens(key, open, ""),
                &[&format!("{key}.listen_addr"), "step down", "auth.insecure"],
            );
            assert!(listens(key, open, "auth.insecure = true").is_ok(), "{key} {open}");
            assert!(listens(key, open, tls).is_ok(), "{key} {open}");
        }
        for closed in ["127.0.0.1:7", "127.9.9.9:7", "[::1]:7", "localhost:7"] {
            assert!(listens(key, closed, "").is_ok(), "{key} {closed}");
        }
    }
    assert_refused("alone", from_file("tls.cert_file = \"c\""), &["tls.cert_file", "without tls.ca_file"]);
}

#[test]
fn values_that_do_not_fit_together() {
    let cases: &[(&str, &[&str])] = &[
        ("store.kind = \"etcd\"", &["metad.toml:1:14: store.kind = \"etcd\"", "--etcd-endpoints"]),
        (
            "http.listen_addr = \"127.0.0.1:5690\"",
            &["http.listen_addr", "is also rpc.listen_addr", "--http-addr"],
        ),
        ("http.advertise_addr = \"h:0\"", &["\"h:0\": has port 0", "for example 5691"]),
        ("node.advertise_addr = \"h:0\"", &["\"h:0\": has port 0", "for example 5690"]),
        (
            "meta.meta_leader_lease_secs = 5\nmeta.tick_interval_ms = 5001",
            &["metad.toml:2:25", "= 5001: is more than the lease", "= 5)", "set it to 5000 or less"],
        ),
        (
            "meta.probe_interval_secs = 7\nmeta.probe_failure_secs = 7",
            &[
                "meta.probe_failure_secs = 7",
                "one failed probe would change the leader",
                "set it to 8 or more",
            ],
        ),
        ("meta.probe_command = [\"\", \"x\"]", &["meta.probe_command = [\"\", \"x\"]", "names no program"]),
        ("meta.probe_command = \"p x\"", &["a list of strings", "the string \"p x\""]),
        (
            "meta.main_loop_timeout_secs = 4",
            &["meta.main_loop_timeout_secs = 4", "would look hung", "5 or more, or to 0"],
        ),
        (
            "meta.meta_leader_lease_secs = 5\nstore.sqlite.busy_timeout_ms = 6000",
            &["store.sqlite.busy_timeout_ms = 6000", "more than the lease", "5000"],
        ),
        (
            "store.etcd.endpoints = [\"h:1\"]\nstore.etcd.request_timeout_ms = 20000",
            &["store.etcd.request_timeout_ms = 20000", "= 15)", "15000 or less"],
        ),
        (
            "store.etcd = { endpoints = [\"h:1\"], password_file = \"p\" }",
            &["store.etcd.password_file = \"p\"", "without store.etcd.username", "leave both out"],
        ),
        ("store.etcd = { endpoints = [\"h:1\"], username = \"u\" }", &["without store.etcd.password_file"]),
        ("store.etcd = { endpoints = [\"h:1\"], cert_file = \"c\" }", &["without store.etcd.key_file"]),
        ("store.etcd = { endpoints = [\"h:1\"], key_file = \"k\" }", &["without store.etcd.cert_file"]),
        (
            "store.etcd = { endpoints = [\"https://a:1\", \"http://b:2\"], ca_file = \"ca.pem\" }",
            &["store.etcd.ca_file = \"ca.pem\"", "http://b:2", "write http://b:2 with https://"],
        ),
    ];
    for (text, parts) in cases {
        assert_refused(text, from_file(text), parts);
    }
    let three = from_file("meta.meta_leader_lease_secs = 3\nstore.etcd.endpoints = [\"h:1\"]");
    assert!(three.is_ok(), "the least lease must work with the other defaults");
}

#[test]
fn all_errors_are_told_at_once() {
    let text = "[node]\nid = \"a b\"\npriorty = 3\n[meta]\nmeta_leader_lease_secs = \"15s\"\n";
    let env = [("METAD_META__TICK_INTERVAL_MS", "soon")];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metad.toml");
    std::fs::write(&file, text).unwrap();
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let said = load(Some(&file), env.into_iter(), &[("http.listen_addr", "nowhere".to_owned())])
        .unwrap_err()
        .to_string();
    for part in [
        "`node.priorty`",
        "contains the character",
        "meta_leader_lease_secs",
        "TICK_INTERVAL",
        "nowhere",
        "5 errors",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Those between the values are told together too.
    let flags = [
        ("meta.meta_leader_lease_secs", "3"),
        ("meta.tick_interval_ms", "5000"),
        ("meta.main_loop_timeout_secs", "2"),
        ("store.kind", "etcd"),
    ];
    let flags = flags.map(|(key, value)| (key, value.to_owned()));
    let said = load(None, std::iter::empty(), &flags).unwrap_err().to_string();
    for part in ["tick_interval_ms", "main_loop_timeout_secs", "needs etcd endpoints", "3 errors"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
