//! Layering, origins, warnings, and the files that are made from the list of keys. Errors: `tests_errors.rs`.

use std::path::Path;

use super::*;

/// No layer but the defaults and a fixed node id, so that the machine's host name does not matter.
pub(super) const NODE: &[(&str, &str)] = &[("node.id", "n1")];

pub(super) fn run(
    file: Option<&str>,
    env: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metad.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let flags: Vec<_> = flags.iter().map(|(path, value)| (*path, value.to_string())).collect();
    load(file.map(|_| path.as_path()), env, &flags)
}

/// The configuration from a file and the node id.
pub(super) fn from_file(text: &str) -> Result<Loaded, ConfigError> {
    run(Some(text), &[], NODE)
}

/// The error's text, which must contain every part, in any order.
pub(super) fn assert_refused(case: &str, result: Result<Loaded, ConfigError>, parts: &[&str]) {
    let text = match result {
        Ok(loaded) => panic!("{case}: accepted as {:?}", loaded.config),
        Err(error) => error.to_string(),
    };
    for part in parts {
        assert!(text.contains(part), "{case}: no {part:?} in:\n{text}");
    }
    assert!(text.contains("\nfix: "), "{case}: names no fix:\n{text}");
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = run(None, &[], NODE).unwrap().config;
    assert_eq!(config.node.id, "n1");
    assert_eq!(config.node.cluster, "default");
    assert_eq!(config.node.data_dir, Path::new("n1.metad"));
    assert_eq!(config.node.advertise_addr.as_deref(), Some("127.0.0.1:5690"));
    assert_eq!(config.node.priority, 100);
    assert_eq!(config.meta.meta_leader_lease_secs, 15);
    assert_eq!(config.meta.group, "meta");
    assert_eq!(config.meta.stop_timeout_secs, 10);
    assert_eq!(config.meta.start_timeout_secs, 10);
    assert_eq!(config.meta.tick_interval_ms, 0);
    assert_eq!(config.store.kind, StoreKind::Sqlite);
    assert_eq!(config.store.etcd.endpoints, Vec::<String>::new());
    assert_eq!(config.store.etcd.connect_timeout_ms, 1000);
    assert_eq!(config.store.etcd.request_timeout_ms, 3000);
    assert_eq!(config.store.etcd.start_timeout_secs, 10);
    assert_eq!(config.store.sqlite.path, Path::new("n1.metad/metad.db"));
    assert_eq!(config.store.sqlite.busy_timeout_ms, 2000);
    assert_eq!(config.rpc.listen_addr, "127.0.0.1:5690");
    assert_eq!(config.http.listen_addr, "127.0.0.1:5691");
    assert_eq!(config.log.filter, "info");
    assert_eq!(config.log.format, LogFormat::Auto);
    assert_eq!(config.validate().map_err(|error| error.to_string()), Ok(()));
}

#[test]
fn the_node_id_defaults_to_the_host_name() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    match run(None, &[], &[]) {
        Ok(loaded) => assert_eq!(loaded.config.node.id, host.trim()),
        // A host name may be no good as a node id; then the message must say where it came from.
        Err(error) => assert!(error.to_string().contains("this is the host name"), "{error}"),
    }
}

#[test]
fn each_layer_replaces_single_keys_of_the_ones_below() {
    const LEASE: &str = "METAD_META__META_LEADER_LEASE_SECS";
    const FILE: &str = "[meta]\nmeta_leader_lease_secs = 20\ngroup = \"g\"\n";
    let file = Some(FILE);
    let env: &[(&str, &str)] = &[(LEASE, "30")];
    let flags: &[(&str, &str)] = &[("node.id", "n1"), ("meta.meta_leader_lease_secs", "40")];
    type Layer<'p> = &'p [(&'p str, &'p str)];
    let check = |file: Option<&str>, env: Layer, flags: Layer, lease: u64, origin: &str, group: &str| {
        let loaded = run(file, env, flags).unwrap();
        assert_eq!(loaded.config.meta.meta_leader_lease_secs, lease);
        assert_eq!(loaded.config.meta.group, group);
        let shown = loaded.origins.get("meta.meta_leader_lease_secs").to_string();
        assert!(shown.ends_with(origin), "{shown} is not {origin}");
    };
    check(None, &[], NODE, 15, "default", "meta");
    check(file, &[], NODE, 20, "metad.toml:2", "g");
    check(None, env, NODE, 30, "env METAD_META__META_LEADER_LEASE_SECS", "meta");
    check(file, env, NODE, 30, "env METAD_META__META_LEADER_LEASE_SECS", "g");
    check(file, env, flags, 40, "flag --meta-leader-lease-secs", "g");
    check(None, &[], flags, 40, "flag --meta-leader-lease-secs", "meta");
}

#[test]
fn every_key_can_be_set_by_its_variable_and_by_its_path() {
    for key in KEYS {
        let (name, example) = (key.env(), key.example());
        let mut env = vec![(name.as_str(), example.as_str())];
        // What the other rules demand besides.
        env.extend(match key.name() {
            "kind" => vec![("METAD_STORE__ETCD__ENDPOINTS", "h:1")],
            _ if key.path.starts_with("tls.") => vec![
                ("METAD_TLS__CA_FILE", "/etc/metad/tls/ca.pem"),
                ("METAD_TLS__CERT_FILE", "/etc/metad/tls/node-1.pem"),
                ("METAD_TLS__KEY_FILE", "/etc/metad/tls/node-1.key"),
            ],
            _ => vec![],
        });
        let id = if key.path == "node.id" { vec![] } else { NODE.to_vec() };
        let loaded = run(None, &env, &id).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(*loaded.origins.get(key.path), Origin::Env(name.clone()));

        let by_path = run(None, &env[1..], &[id, vec![(key.path, &example)]].concat()).unwrap();
        assert_eq!(by_path.config, loaded.config, "{name}");
    }
}

#[test]
fn a_command_is_typed_as_words_or_as_a_list() {
    let command = |text: &str| {
        let loaded = run(None, &[("METAD_META__PROBE_COMMAND", text)], NODE);
        loaded.map(|l| l.config.meta.probe_command).map_err(|e| e.to_string())
    };
    assert_eq!(command(" /bin/p  -x "), Ok(vec!["/bin/p".into(), "-x".into()]));
    assert_eq!(command(r#"["/bin/p", "a b", ""]"#), Ok(vec!["/bin/p".into(), "a b".into(), String::new()]));
    assert_eq!(command(""), Ok(vec![]));
    let wrong = command(r#"["p", 1]"#).expect_err("a number");
    assert!(wrong.contains("a program and its arguments, as a list of strings"), "{wrong}");
}

#[test]
fn defaults_that_follow_from_others() {
    let etcd = from_file("[store.etcd]\nendpoints = [\"a:1\", \"https://b:2\"]\n").unwrap();
    assert_eq!(etcd.config.store.kind, StoreKind::Etcd);
    assert_eq!(etcd.config.store.etcd.urls(), ["http://a:1", "https://b:2"]);
    assert_eq!(etcd.origins.get("store.kind").to_string(), "default");

    let dir = from_file("[node]\ndata_dir = \"/x\"").unwrap();
    assert_eq!(dir.config.store.sqlite.path, Path::new("/x/metad.db"));

    let list = run(None, &[("METAD_STORE__ETCD__ENDPOINTS", "a:1, [::1]:2")], NODE).unwrap();
    assert_eq!(list.config.store.etcd.endpoints, ["a:1", "[::1]:2"]);

    let as_etcdctl = run(None, &[("METAD_STORE__ETCD__ENDPOINTS", "http://a:1/, b:2/,")], NODE).unwrap();
    assert_eq!(as_etcdctl.config.store.etcd.urls(), ["http://a:1", "http://b:2"]);

    let tls = from_file("[store.etcd]\nendpoints = [\"a:1\"]\nca_file = \"ca.pem\"").unwrap();
    assert_eq!(tls.config.store.etcd.urls(), ["https://a:1"]);
}

#[test]
fn the_advertised_address_follows_the_bound_port() {
    let bound = "127.0.0.1:4321".parse().unwrap();
    let cases = [
        ("listen_addr = \"127.0.0.1:5690\"", "", "127.0.0.1:5690"),
        ("listen_addr = \"127.0.0.1:0\"", "", "127.0.0.1:4321"),
        ("listen_addr = \"127.0.0.1:0\"", "advertise_addr = \"node-1:0\"", "node-1:4321"),
        ("listen_addr = \"0.0.0.0:5690\"", "advertise_addr = \"[fe80::1]:7\"", "[fe80::1]:7"),
    ];
    for (listen, advertise, expected) in cases {
        let loaded =
            from_file(&format!("[rpc]\n{listen}\n[node]\n{advertise}\n[auth]\ninsecure = true\n")).unwrap();
        assert_eq!(loaded.config.node.advertised(bound), expected);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
    let unbound = from_file("rpc.listen_addr = \"127.0.0.1:0\"").unwrap();
    assert_eq!(unbound.config.node.advertise_addr, None);
}

#[test]
fn the_page_is_linked_where_a_browser_reaches_it() {
    let cases = [
        ("", "127.0.0.1:4322", "127.0.0.1:4322"),
        ("[node]\nadvertise_addr = \"m1:5690\"", "127.0.0.1:4322", "127.0.0.1:4322"),
        ("[node]\nadvertise_addr = \"m1:5690\"", "0.0.0.0:4322", "m1:4322"),
        ("[http]\nadvertise_addr = \"page.example.com:443\"", "0.0.0.0:4322", "page.example.com:443"),
        (
            "[http]\nlisten_addr = \"0.0.0.0:0\"\nadvertise_addr = \"m1:0\"\n[auth]\ninsecure = true",
            "0.0.0.0:4322",
            "m1:4322",
        ),
    ];
    for (text, bound, expected) in cases {
        let loaded = from_file(text).unwrap();
        assert_eq!(loaded.config.page_address(bound.parse().unwrap()), expected, "{text}");
        assert!(loaded.warnings.is_empty(), "{text}: {:?}", loaded.warnings);
    }
}

#[test]
fn variables_of_others_are_ignored() {
    let env = [("METAD_CONFIG", "x"), ("METAD_META", "y"), ("METAD_SERVICE_PORT", "1"), ("A__B", "z")];
    let loaded = run(None, &env, NODE).unwrap();
    assert_eq!((loaded.config, loaded.warnings), (run(None, &[], NODE).unwrap().config, vec![]));
    let kubernetes = [("METAD_PORT_5690_TCP", "x"), ("METAD_HTTP_SERVICE_HOST", "x"), ("METAD_PORT", "x")];
    assert_eq!(run(None, &kubernetes, NODE).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn a_variable_that_nobody_reads_is_warned_of() {
    let loaded = run(None, &[("METAD_NODE_PRIORITY", "7"), ("METAD_FOO", "1")], NODE).unwrap();
    let expected = [
        "environment METAD_NODE_PRIORITY: has no effect; did you mean `METAD_NODE__PRIORITY`?",
        "environment METAD_FOO: has no effect",
    ];
    assert_eq!(loaded.warnings, expected);
}

#[test]
fn what_is_rendered_loads_back() {
    let cases = [
        "",
        "[node]\nadvertise_addr = \"h:1\"\n[log]\nformat = \"json\"\nfilter = 'a=\"b\\c\",é'",
        "[rpc]\nlisten_addr = \"127.0.0.1:0\"",
        "[store.etcd]\nendpoints = [\"a:1\",\n \"b:2\"]\nusername = \"u\"\npassword_file = \"p\"",
    ];
    for text in cases {
        let loaded = run(Some(text), &[("METAD_NODE__PRIORITY", "7")], NODE).unwrap();
        for origins in [false, true] {
            let rendered = loaded.render(origins);
            let again = run(Some(&rendered), &[], &[]).unwrap_or_else(|error| panic!("{error}\n{rendered}"));
            assert_eq!(again.config, loaded.config);
        }
        let body = loaded.render(true);
        for part in
            ["id = \"n1\"  # flag --node-id", "priority = 7  # env METAD_NODE__PRIORITY", "  # default"]
        {
            assert!(body.contains(part), "no {part} in {body}");
        }
        let lines = body.lines().skip(2).filter(|line| !line.is_empty() && !line.starts_with('['));
        assert_eq!(lines.filter(|line| line.contains("  # ")).count(), KEYS.len());
    }
    let shown = from_file("\n[node]\npriority = 7").unwrap().render(true);
    assert!(shown.contains("metad.toml:3\n"), "{shown}");
}

#[test]
fn the_sample_file_sets_nothing_and_shows_the_defaults() {
    let plain = run(None, &[], NODE).unwrap().config;
    assert_eq!(from_file(&reference()).unwrap().config, plain);
    for key in KEYS {
        let commented = format!("\n#{} = ", key.name());
        assert!(reference().contains(&commented), "{} is missing", key.path);
        if matches!(
            key.fallback,
            Fallback::Integer(_) | Fallback::Text(_) | Fallback::Switch(_) | Fallback::EmptyList
        ) {
            let section = format!("[{}]\n", key.section());
            let (before, after) =
                reference().split_once(&section).map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
            let set =
                format!("{before}{section}{}", after.replacen(&commented, &commented.replace('#', ""), 1));
            let loaded = from_file(&set).unwrap_or_else(|error| panic!("{}: {error}", key.path));
            assert_eq!(loaded.config, plain, "{}", key.path);
            assert!(matches!(loaded.origins.get(key.path), Origin::File(_)), "{}", key.path);
        }
    }
    assert!(reference().lines().all(|line| line.chars().count() <= 110));
}

#[test]
fn the_single_node_file_loads() {
    let loaded = from_file(include_str!("../../config/single-node.toml")).unwrap();
    assert_eq!(loaded.config.meta.meta_leader_lease_secs, 86_400);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn warnings_for_what_is_probably_not_meant() {
    let etcd = "[store.etcd]\nendpoints = [\"http://a:1\"]\n";
    let cases = [
        (format!("store.kind = \"sqlite\"\n{etcd}"), "store.etcd.endpoints (file "),
        (format!("{etcd}username = \"u\"\npassword_file = \"p\""), "unencrypted"),
        ("rpc.listen_addr = \"0.0.0.0:5690\"\nauth.insecure = true".to_owned(), "--advertise-addr"),
        ("http.advertise_addr = \"0.0.0.0:5691\"".to_owned(), "no browser can reach its page"),
        (
            format!(
                "{etcd}[tls]\nca_file = \"a\"\ncert_file = \"c\"\nkey_file = \"k\"\n[auth]\ninsecure = true"
            ),
            "no effect",
        ),
        ("store.etcd.endpoints = [\"a:1\", \"http://a:1\"]".to_owned(), "http://a:1 twice"),
    ];
    for (text, part) in cases {
        let warnings = from_file(&text).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{text}: {warnings:?}");
    }
}

#[test]
fn validate_needs_no_origins() {
    let mut config = run(None, &[], NODE).unwrap().config;
    config.meta.meta_leader_lease_secs = 2;
    let text = config.validate().unwrap_err().to_string();
    assert!(text.starts_with("meta.meta_leader_lease_secs = 2: is below the minimum, 3 seconds"), "{text}");
    config.meta.meta_leader_lease_secs = u64::MAX;
    assert!(config.validate().is_err());
}
