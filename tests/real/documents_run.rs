//! The pages for operators: every command line in them runs, on real processes, and prints what the page shows below it.
//!
//! A scene is a laboratory of its own ([`lab`]): it begins at a heading, is prepared as that section presupposes, and runs
//! the page's blocks from there to the next scene in one shell. A section without a scene goes on in the one before.
//! What only a real machine can run is fenced as `sh host`; it is in [`HOST_ONLY`], and its metad commands must exist.

mod compare;
mod lab;
mod pages;
mod scenes;

use std::collections::VecDeque;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::{spawn, sudo};
use lab::Told;
use pages::Block;
use scenes::{INSTALL, MONITOR, TROUBLESHOOT, UPGRADE};

const NEEDS: &str = "namespaces of its own";
/// Most of a scene is waiting.
const AT_ONCE: usize = 5;

/// What a section of a page presupposes.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// The heading at which it begins.
    pub section: &'static str,
    /// The machine on which the page's commands are typed.
    pub host: &'static str,
    /// What is started, and what is broken, before.
    pub prepare: &'static str,
    /// What happens before the block of this number.
    pub meanwhile: &'static [(usize, &'static str)],
}

/// Blocks that no test can run: where they begin, and why.
const HOST_ONLY: [(&str, &str); 5] = [
    ("make deb\n", "builds a release; make deb-test installs the package in a Debian of its own"),
    ("sudo install target/release/metad", "needs systemd; tests/fast/documents.rs reads the unit"),
    ("docker-compose up", "needs Docker; make containers runs images"),
    ("kubectl apply", "needs a cluster; make kubernetes decodes the manifests"),
    ("promtool check rules", "tests/real/prometheus.rs runs it"),
];

#[test]
fn what_install_says_can_be_typed() {
    if !sudo::runs(what_install_says_can_be_typed, NEEDS) {
        check("install.md", &INSTALL);
    }
}

#[test]
fn what_monitor_says_can_be_typed() {
    if !sudo::runs(what_monitor_says_can_be_typed, NEEDS) {
        check("monitor.md", &MONITOR);
    }
}

#[test]
fn what_upgrade_says_can_be_typed() {
    if !sudo::runs(what_upgrade_says_can_be_typed, NEEDS) {
        check("upgrade.md", &UPGRADE);
    }
}

#[test]
fn what_troubleshoot_says_can_be_typed() {
    if sudo::runs(what_troubleshoot_says_can_be_typed, NEEDS) {
        return;
    }
    let told = check("troubleshoot.md", &TROUBLESHOOT);
    if std::env::var_os("METAD_PAGE_SECTION").is_some() {
        return; // the index is of the whole page
    }
    let missing: Vec<_> = pages::first_table("troubleshoot.md")
        .iter()
        .flat_map(|row| symptoms(row))
        .filter(|(section, quoted)| {
            let said = told.iter().find(|(covers, _)| covers.contains(section));
            !said.is_some_and(|(_, told)| compare::has(&told.everything, quoted))
        })
        .collect();
    assert!(missing.is_empty(), "nothing in the scene of its section prints this symptom: {missing:?}");
}

/// The section that a row of the index leads to, with each text that it quotes as a symptom.
fn symptoms(row: &[String]) -> Vec<(String, String)> {
    let section = row[1].split_once('[').and_then(|(_, rest)| rest.split_once(']')).expect("a link").0;
    row[0].split('`').skip(1).step_by(2).map(|quoted| (section.to_owned(), quoted.to_owned())).collect()
}

/// Runs a page; for each scene, the sections that it covers and what happened.
fn check(page: &str, scenes: &[Scene]) -> Vec<(Vec<String>, Told)> {
    let blocks = pages::blocks(page);
    blocks.iter().filter(|b| b.is_for_host).for_each(|block| assert_host_only(page, block));
    let jobs = Mutex::new(assigned(page, scenes, &blocks));
    let told = Mutex::new(Vec::new());
    let faults = Mutex::new(Vec::new());
    let work = || {
        while let Some((scene, blocks)) = take(&jobs) {
            let sections = blocks.iter().map(|b| b.section.clone()).collect();
            match lab::run(&scene, &blocks) {
                Err(why) => faults.lock().expect("not poisoned").push(why),
                Ok(found) => {
                    faults.lock().expect("not poisoned").extend(faults_of(page, &blocks, &found));
                    told.lock().expect("not poisoned").push((sections, found));
                }
            }
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let faults = faults.into_inner().expect("not poisoned");
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    told.into_inner().expect("not poisoned")
}

type Jobs<'a> = VecDeque<(Scene, Vec<&'a Block>)>;

fn take<'a>(jobs: &Mutex<Jobs<'a>>) -> Option<(Scene, Vec<&'a Block>)> {
    jobs.lock().expect("not poisoned").pop_front()
}

/// Each scene with its blocks; `METAD_PAGE_SECTION=A,B` leaves only those whose headings have one of these words. Panics when a block belongs to none, or a scene has none.
fn assigned<'a>(page: &str, scenes: &[Scene], blocks: &'a [Block]) -> Jobs<'a> {
    let mut jobs: Jobs = VecDeque::new();
    let only = std::env::var("METAD_PAGE_SECTION").unwrap_or_default();
    for block in blocks.iter().filter(|b| !b.is_for_host) {
        let begins = scenes.iter().find(|s| s.section == block.section);
        match begins.filter(|s| jobs.back().is_none_or(|(last, _)| last.section != s.section)) {
            Some(scene) => jobs.push_back((*scene, vec![block])),
            None => jobs.back_mut().unwrap_or_else(|| panic!("{page}: no scene for {block:?}")).1.push(block),
        }
    }
    jobs.retain(|(s, _)| only.is_empty() || only.split(',').any(|o| s.section.contains(o)));
    let all = !only.is_empty() || jobs.len() == scenes.len();
    assert!(all, "{page}: a scene begins at a heading that has no block");
    jobs
}

/// What is not as the page says.
fn faults_of(page: &str, blocks: &[&Block], told: &Told) -> Vec<String> {
    let mut faults = Vec::new();
    for (block, (printed, failed)) in blocks.iter().zip(told.printed.iter().zip(&told.failed)) {
        let place = format!("{page}, {:?}:\n{}", block.section, block.commands);
        let asks_for_code = block.commands.contains("exit $?");
        // A doctor that finds something says so with its code.
        let may_fail = |command: &str| asks_for_code || command.starts_with("metad doctor");
        for (code, command) in failed.iter().filter(|(code, c)| !may_fail(c) || [64, 126, 127].contains(code))
        {
            faults.push(format!("{place}`{command}` exits {code}:\n{printed}"));
        }
        if let Some(line) = compare::first_missing(&block.shown, printed) {
            faults.push(format!("{place}does not print\n{line}\nbut\n{printed}"));
        }
    }
    faults
}

/// It is one of those that cannot be run, and each metad command in it has flags that exist.
fn assert_host_only(page: &str, block: &Block) {
    let known = HOST_ONLY.iter().any(|(begins, _)| block.commands.starts_with(begins));
    assert!(known, "{page}: {:?} is run by no test and not in HOST_ONLY", block.commands);
    for line in block.commands.replace("\\\n", " ").lines().map(|l| format!(" {l}")) {
        // Also behind `kubectl exec metad-0 -c metad --`.
        let Some((_, arguments)) = line.rsplit_once(" metad ") else { continue };
        let typed = arguments.split(['|', '>', '#', ';', '&']).next().unwrap_or_default();
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(format!("{} {typed} --help", spawn::metad_program().display()));
        let output = spawn::output(bash, Duration::from_secs(60));
        assert!(
            output.status.success(),
            "{page}: metad {typed}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
