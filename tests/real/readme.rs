//! The README's first commands, as they stand there, in an empty folder, as a newcomer runs them.

use std::path::Path;
use std::process::Command;

use crate::support::crew::PATIENCE;
use crate::support::spawn;

/// The blocks of shell commands of a section.
fn commands(section: &str) -> Vec<String> {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let (_, after) = readme.split_once(&format!("\n## {section}\n")).expect("the section");
    let of_section = after.split("\n## ").next().unwrap_or_default();
    let blocks = of_section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// What a newcomer's `sleep 1` is for: a machine that is busy with other tests may need longer than that.
const UNTIL_ALL_ARE_THERE: &str = "[ $(metad members | grep -c ' m[123] ') = 3 ]";
const UNTIL_ANOTHER_LEADS: &str =
    "[ -n \"$(next)\" ] && [ \"$(next)\" != \"$old\" ] && metad history | grep -q vanished";

/// The session's commands, each pause as long as it has to be.
fn patient(script: &str) -> String {
    let until = |state: &str| format!("for _ in $(seq 200); do {state} && break; sleep 0.1; done");
    let (first, rest) = script.split_once("; sleep 1").expect("a pause until all are there");
    let (second, rest) = rest.split_once("; sleep 1").expect("a pause until another one leads");
    let (between, kill) = second.rsplit_once('\n').expect("the command that kills");
    assert!(!rest.contains("sleep") && kill.starts_with("pkill"), "{script}");
    format!(
        "next() {{ metad leader | awk 'NR == 2 {{ print $1 }}'; }}\n{first}\n{}{between}\nold=$(next)\n{kill}\n{}{rest}",
        until(UNTIL_ALL_ARE_THERE),
        until(UNTIL_ANOTHER_LEADS),
    )
}

/// Runs a script in this folder, with our metad in the path, and answers with all that it printed.
fn run(script: &str, folder: &Path) -> String {
    let program = spawn::metad_program();
    let path = format!(
        "{}:{}",
        program.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).current_dir(folder).env("PATH", path).stdin(std::process::Stdio::null());
    let output = spawn::output(bash, PATIENCE);
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The session to the letter, with a mark before the output of each command that says something.
fn session(folder: &Path) -> Vec<(String, String)> {
    let blocks = commands("See a fail-over");
    assert_eq!(blocks.len(), 3, "start, fail-over, end");
    let mark = |line: &str| {
        if line.starts_with("metad ") { format!("echo '\u{1}{line}'; {line}\n") } else { format!("{line}\n") }
    };
    let script: String = patient(&blocks.concat()).lines().map(mark).collect();
    // In the folder of this test, not in one that nobody would take away.
    let said = run(&script.replace("cd \"$(mktemp -d)\"", ":"), folder);
    let told = said.split('\u{1}').skip(1).filter_map(|part| part.split_once('\n'));
    told.map(|(command, answer)| (command.to_owned(), answer.to_owned())).collect()
}

/// Who leads, as `metad status` shows it.
fn leader_in(status: &str) -> &str {
    status.lines().nth(1).and_then(|row| row.split_whitespace().next()).expect("a leader")
}

#[test]
fn its_fail_over_is_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let session = session(folder.path());
    let said: Vec<&str> = session.iter().map(|(_, answer)| answer.as_str()).collect();
    let [_, before, after, history, explained] = said[..] else { panic!("five commands: {session:?}") };
    assert!(["m1", "m2", "m3"].iter().all(|node| before.contains(node)), "{before}");
    assert_ne!(leader_in(before), leader_in(after), "another one leads");
    assert!(history.contains("vanished") && history.contains("(leads)"), "{history}");
    assert!(explained.contains("Fix:"), "{explained}");
}

/// Draws the session as the README shows it: `make screenshots`.
#[test]
#[ignore = "writes into src/docs/; make screenshots"]
fn recording() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut lines = Vec::new();
    let session = session(folder.path());
    for (i, (command, answer)) in session.iter().enumerate() {
        if i == 2 {
            lines.push((
                true,
                format!("$ pkill -9 -f \"serve --node-id {} \"; sleep 1", leader_in(&session[1].1)),
            ));
        }
        lines.push((true, format!("$ {command}")));
        lines.extend(
            answer
                .lines()
                .filter(|line| !line.contains("Killed"))
                .map(|line| (false, line.trim_end().to_owned())),
        );
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/failover.svg");
    std::fs::write(path, drawing(&lines)).expect("the file is written");
}

/// A terminal as SVG: each command, and what it printed, appears a moment after the one before; `true`: a command. Without
/// animation all of it is there.
fn drawing(lines: &[(bool, String)]) -> String {
    const LINE: usize = 19;
    const COLUMNS: usize = 92;
    let mut step = 0;
    let mut texts = String::new();
    for (i, (is_command, line)) in lines.iter().enumerate() {
        step += usize::from(*is_command);
        let shown: String = line.chars().take(COLUMNS).collect();
        let shown = shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let (kind, y) = (if *is_command { "command" } else { "answer" }, 44 + i * LINE);
        texts.push_str(&format!(
            "<text class=\"{kind}\" style=\"animation-delay:{step}s\" x=\"16\" y=\"{y}\">{shown}</text>\n"
        ));
    }
    let (width, height) = (COLUMNS * 8 + 16, 60 + lines.len() * LINE);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"A terminal: a leader is killed, and another one leads within milliseconds\">\n\
         <style>\n\
         text {{ font: 13px ui-monospace, Menlo, 'DejaVu Sans Mono', monospace; white-space: pre; fill: #d7dde8; }}\n\
         .command {{ fill: #7fb0ff; font-weight: 600; }}\n\
         @media (prefers-reduced-motion: no-preference) {{\n\
         text {{ animation: appear 0.2s both; }}\n\
         @keyframes appear {{ from {{ opacity: 0; }} to {{ opacity: 1; }} }}\n\
         }}\n\
         </style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"10\" fill=\"#12171f\"/>\n\
         <circle cx=\"20\" cy=\"18\" r=\"5\" fill=\"#ff8f86\"/><circle cx=\"38\" cy=\"18\" r=\"5\" fill=\"#f1bc63\"/>\
         <circle cx=\"56\" cy=\"18\" r=\"5\" fill=\"#62d196\"/>\n{texts}</svg>\n"
    )
}
