//! The documents are part of the product: what they say is compared with what the code does.

use std::collections::BTreeSet;
use std::time::Duration;

use metad::config::{Fallback, KEYS};
use metad::election::exit::EXITS;
use metad::election::lease::LeaseTiming;
use yaml_rust2::{Yaml, YamlLoader};

use crate::tidy;

fn read(path: &str) -> String {
    let path = tidy::root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn yaml(path: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_readme_names_every_command() {
    let readme = read("README.md");
    let binary =
        std::process::Command::new(env!("CARGO_BIN_EXE_metad")).arg("--help").output().expect("metad runs");
    let help = String::from_utf8_lossy(&binary.stdout).into_owned();
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| l.starts_with("  "))
        .filter(|l| !l.starts_with("   ")) // the rest of a wrapped line
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(commands.contains(&"serve"), "{help}");
    for command in commands {
        let names = [format!("`metad {command}"), format!("`{command}`")];
        assert!(names.iter().any(|n| readme.contains(n.as_str())), "README.md lacks `metad {command}`");
    }
}

#[test]
fn the_table_of_the_lease_page_is_what_the_code_computes() {
    let page = read("src/docs/lease.md");
    let secs = |d: Duration| (d.as_secs_f64() * 1000.0).round() / 1000.0;
    for ttl in [5, 15, 30, 86_400] {
        let t = LeaseTiming::new(Duration::from_secs(ttl));
        let h = secs(t.span());
        let s = secs(t.span() - t.stop_budget());
        let survived = t.survived_stall(Duration::from_millis(2)).as_secs_f64();
        let has = |what: &str, value: f64, digits: usize| {
            let row = page.lines().find(|l| l.contains(what)).unwrap_or_else(|| panic!("no row {what}"));
            let text = format!(" {value:.digits$} s");
            assert!(row.contains(&text), "ttl {ttl}: {what}: expected{text} in {row}");
        };
        if ttl < 86_400 {
            has("| H, counted", h, 2);
            has("a stall that is survived", survived, 2);
            let digits = if ttl == 30 { 2 } else { 3 };
            has("| S, when", s, digits);
        } else {
            has("| H, counted", h.floor(), 0);
            has("| S, when", s.floor(), 0);
            has("a stall that is survived", survived.floor(), 0);
        }
    }
}

#[test]
fn compose_starts_three_etcd_and_three_metad_with_keys_that_exist() {
    let docs = yaml("docker-compose.yml");
    let services = docs[0]["services"].as_hash().expect("services");
    let names: Vec<&str> = services.keys().filter_map(Yaml::as_str).collect();
    let metads: Vec<_> = services.iter().filter(|(_, s)| *field(s, "build") != Yaml::BadValue).collect();
    assert_eq!(names.iter().filter(|n| n.starts_with("etcd")).count(), 3, "{names:?}");
    assert_eq!(metads.len(), 3, "{names:?}");
    for (name, service) in metads {
        assert_eq!(field(service, "build")["dockerfile"].as_str(), Some("config/Dockerfile"), "{name:?}");
        let variables = environment(&service["environment"]);
        assert!(variables.contains("METAD_STORE__ETCD__ENDPOINTS"), "{name:?}: {variables:?}");
        assert_known(&variables, &format!("{name:?}"));
    }
    assert!(read("config/Dockerfile").contains("\"health\""), "the image's health check is metad's own");
}

/// A field of a mapping, with what it merges in (`<<`).
fn field<'a>(yaml: &'a Yaml, name: &str) -> &'a Yaml {
    match &yaml[name] {
        Yaml::BadValue if yaml["<<"] != Yaml::BadValue => field(&yaml["<<"], name),
        found => found,
    }
}

/// The names in a list `- NAME=value` or a map `NAME: value`.
fn environment(yaml: &Yaml) -> BTreeSet<String> {
    let of_list = yaml.as_vec().into_iter().flatten().filter_map(Yaml::as_str);
    let of_map = yaml.as_hash().into_iter().flat_map(|h| h.keys()).filter_map(Yaml::as_str);
    let own = of_list.map(|e| e.split('=').next().unwrap_or_default()).chain(of_map).map(str::to_owned);
    let merged = if yaml["<<"] == Yaml::BadValue { BTreeSet::new() } else { environment(&yaml["<<"]) };
    own.filter(|name| name != "<<").chain(merged).collect()
}

fn assert_known(variables: &BTreeSet<String>, place: &str) {
    let known: BTreeSet<String> = KEYS.iter().map(|k| k.env()).collect();
    for variable in variables.iter().filter(|v| v.starts_with("METAD_")) {
        assert!(known.contains(variable), "{place}: {variable} is no key of the configuration");
    }
}

#[test]
fn the_kubernetes_manifests_are_well_formed_and_name_keys_that_exist() {
    let files = ["base/metad", "base/kustomization", "with-etcd/etcd", "with-etcd/kustomization"];
    let overlays = ["single-node/kustomization", "three-nodes/kustomization", "tls/kustomization"];
    let mut names = BTreeSet::new();
    for file in files.iter().chain(&overlays).map(|file| format!("config/kubernetes/{file}.yaml")) {
        let text = read(&file);
        assert!(!yaml(&file).is_empty(), "{file}");
        assert!(!text.contains("path: /leader"), "{file}: never readiness: rolling updates would hang");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        names.extend(words.filter(|word| word.starts_with("METAD_")).map(str::to_owned));
    }
    assert!(names.len() > 10, "{names:?}");
    assert_known(&names, "config/kubernetes");
}

#[test]
fn the_systemd_unit_restarts_on_the_codes_that_ask_for_it() {
    let unit = read("config/systemd/metad.service");
    let line = |key: &str| {
        unit.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    assert_eq!(line("Restart="), "Restart=on-failure");
    assert_eq!(line("RestartForceExitStatus="), "RestartForceExitStatus=75 76");
    assert_eq!(
        line("RestartPreventExitStatus="),
        "RestartPreventExitStatus=64 77 78",
        "what is in use may be free soon"
    );
    let number = |key: &str| {
        let line = line(key);
        line.rsplit('=').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let (interval, burst) = (number("StartLimitIntervalSec="), number("StartLimitBurst="));
    let endless = interval / burst;
    assert!(number("RestartSec=") < endless, "one that ends at once is given up");
    let start_timeout = KEYS.iter().find(|k| k.path == "store.etcd.start_timeout_secs").expect("a key");
    let Fallback::Integer(start_timeout) = start_timeout.fallback else { panic!("a number") };
    assert!(u64::try_from(start_timeout).expect("seconds") > endless, "one that waits for etcd never is");
    assert!(line("KillMode=").contains("control-group"));
}

#[test]
fn the_unit_runs_as_the_user_that_the_package_makes_and_purges() {
    let unit = read("config/systemd/metad.service");
    let user = unit.lines().find_map(|line| line.strip_prefix("User=")).expect("a user");
    assert!(read("config/systemd/metad.sysusers").contains(&format!("\nu {user} - ")));
    assert!(read("config/debian/postrm").contains(&format!("userdel {user}\n")));
}

#[test]
fn the_package_has_the_version_of_the_crate() {
    let changelog = read("config/debian/changelog");
    let newest = format!("metad ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(changelog.starts_with(&newest), "the newest entry of config/debian/changelog is not {newest}");
}

#[test]
fn the_page_of_failures_names_tests_that_exist() {
    let page = read("src/docs/failures.md");
    let mut shown = 0;
    for row in page.lines().filter(|l| l.starts_with("| ") && l.contains('`')) {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        let (file, tests) = names.split_first().unwrap_or_else(|| panic!("no test in: {row}"));
        let source = source_of_tests(file);
        for test in tests {
            assert!(
                source.contains(&format!("fn {test}()")),
                "no tests/*/{file}.rs, nor the folder beside it, has {test}: {row}"
            );
            shown += 1;
        }
    }
    assert!(shown >= 10, "the table was not understood");
}

/// The test file of this name and the modules in the folder beside it, or the file of this path.
fn source_of_tests(name: &str) -> String {
    if name.contains('/') {
        return read(name);
    }
    let tests = tidy::root().join("tests");
    let kinds = std::fs::read_dir(tests).expect("the tests").flatten().map(|kind| kind.path());
    let files = kinds.flat_map(|kind| {
        let modules = std::fs::read_dir(kind.join(name)).into_iter().flatten().flatten();
        modules.map(|module| module.path()).chain([kind.join(format!("{name}.rs"))]).collect::<Vec<_>>()
    });
    files.filter_map(|file| std::fs::read_to_string(file).ok()).collect()
}

#[test]
fn every_document_that_is_cited_exists() {
    let folders = ["src", "tests", "proto", "config", "benches", "examples"];
    let pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let files = folders.iter().chain(&pages).flat_map(|below| tidy::files(below));
    let texts = files.filter_map(|(name, path)| Some((name, std::fs::read_to_string(path).ok()?)));
    let cited: Vec<_> = texts.flat_map(|(name, text)| documents_cited(&name, &text)).collect();
    assert!(cited.len() >= 50, "the citations were not understood");
    let missing: Vec<_> = cited.iter().filter(|(_, document)| !is_document(document)).collect();
    assert!(missing.is_empty(), "neither src/docs nor the repository's root has what is cited: {missing:?}");
}

/// Each `*.md` that a text names, without its folder, with its place. In Rust only comments are read.
fn documents_cited(name: &str, text: &str) -> Vec<(String, String)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut cited = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let from = if name.ends_with(".rs") { line.find("//").unwrap_or(line.len()) } else { 0 };
        let words = line[from..].split(|c: char| !is_part(c)).map(|word| word.trim_end_matches('.'));
        let documents = words.filter(|word| word.ends_with(".md") && *word != ".md");
        cited.extend(documents.map(|word| (format!("{name}:{}", i + 1), word.to_owned())));
    }
    cited
}

fn is_document(name: &str) -> bool {
    let root = tidy::root();
    root.join("src/docs").join(name).is_file() || root.join(name).is_file()
}

#[test]
fn a_citation_of_a_missing_document_is_noticed() {
    let missing = ["none", "md"].join("."); // in one piece it would be a citation
    let in_code = ("x.rs", format!("f(); // see `src/docs/{missing}`, rule C1"));
    let in_text = ("x.toml", format!("# told in ({missing}#a)."));
    for (name, text) in [in_code, in_text] {
        assert_eq!(documents_cited(name, &text), [(format!("{name}:1"), missing.clone())]);
    }
    assert!(!is_document(&missing) && is_document("protocol.md") && is_document("README.md"));
}

#[test]
fn the_page_for_contributors_names_files_that_exist() {
    let page = read("CONTRIBUTING.md");
    let tops = ["src/", "tests/", "config/", "proto/"];
    let quoted = page.split('`').skip(1).step_by(2).filter(|q| tops.iter().any(|top| q.starts_with(top)));
    let paths: Vec<&str> = quoted.filter(|path| !path.contains("NAME")).collect();
    assert!(paths.len() >= 40, "the page was not understood: {paths:?}");
    let root = tidy::root();
    let gone: Vec<_> = paths.iter().filter(|path| !root.join(path).exists()).collect();
    assert!(gone.is_empty(), "CONTRIBUTING.md names {gone:?}");
}

/// The pages whose commands `tests/real/documents_run.rs` runs.
const FOR_OPERATORS: [&str; 4] = ["install", "monitor", "upgrade", "troubleshoot"];

#[test]
fn the_pages_for_operators_name_checks_reasons_exit_codes_and_tests_that_exist() {
    let known: BTreeSet<String> = read("src/docs/checks.md").split('`').map(str::to_owned).collect();
    let codes: BTreeSet<i32> = EXITS.iter().map(|(exit, _)| exit.code()).collect();
    let mut named = 0;
    for page in FOR_OPERATORS {
        let text = read(&format!("src/docs/{page}.md"));
        for code in check_codes(&text) {
            assert!(known.contains(&code), "{page}.md: there is no check {code}");
            named += 1;
        }
        // Those of commands, and of a process that is killed, are in no enum.
        let of_commands = [1, 2, 3, 137];
        for code in exit_codes(&text) {
            assert!(codes.contains(&code) || of_commands.contains(&code), "{page}.md: exit {code} is none");
            named += 1;
        }
        for shown in text.split("<!-- shown by: ").skip(1) {
            let (file, test) =
                shown.split_once(" -->").and_then(|(s, _)| s.split_once(' ')).expect("FILE TEST");
            assert!(
                source_of_tests(file).contains(&format!("fn {test}()")),
                "{page}.md: {file} has no {test}"
            );
            named += 1;
        }
    }
    assert!(named >= 60, "the pages were not understood: {named}");
}

/// Such as `ETCD_003`. META_003 and its like are other people's codes.
fn check_codes(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_code = |word: &&str| {
        let parts = word.split_once('_').filter(|(group, _)| *group != "META");
        parts.is_some_and(|(group, number)| {
            group.chars().all(|c| c.is_ascii_uppercase())
                && number.len() == 3
                && number.chars().all(|c| c.is_ascii_digit())
        })
    };
    words.filter(is_code).map(str::to_owned).collect()
}

/// Of `exit 75`, `exits 75` and `code=75`.
fn exit_codes(text: &str) -> Vec<i32> {
    let number = |rest: &str| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let before = ["exit ", "Exit ", "exits ", "code=", "exit code "];
    before.iter().flat_map(|words| text.split(*words).skip(1)).filter_map(number).collect()
}
