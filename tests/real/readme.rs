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

/// The session, with a mark before the output of each command. Whoever leads is killed.
fn session(folder: &Path) -> Vec<(String, String)> {
    let [start, fail_over, end] = <[String; 3]>::try_from(commands("See a fail-over")).expect("three blocks");
    assert!(fail_over.contains("node-id m1 '"), "{fail_over}");
    let whoever = fail_over.replace(
        "'serve --node-id m1 '",
        "\"serve --node-id $(metad leader | awk 'NR == 2 { print $1 }') \"",
    );
    let marked = |script: &str| {
        script
            .lines()
            .map(|line| {
                if line.starts_with("metad ") || line.starts_with("pkill") {
                    format!("echo \"\u{1}\"; {line}")
                } else {
                    line.to_owned()
                }
            })
            .collect::<Vec<_>>()
            .join("\n")
    };
    // The others join a moment after the first one leads, and the row of a tenure is written a moment after its end.
    let joined = "until [ \"$(metad members -o json | grep -c '\"node\": \"m')\" -ge 4 ]; do sleep 0.1; done";
    let written = "until metad history | grep -q vanished; do sleep 0.1; done";
    let start = marked(&start)
        .replace("echo \"\u{1}\"; metad status", &format!("{joined}\necho \"\u{1}\"; metad status"));
    let fail_over_marked = marked(&whoever)
        .replace("echo \"\u{1}\"; metad history", &format!("{written}\necho \"\u{1}\"; metad history"));
    let said = run(&[start, fail_over_marked, end].join("\n"), folder);
    let asked = commands("See a fail-over")[..2].concat();
    let asked = asked
        .lines()
        .filter(|line| line.starts_with("metad ") || line.starts_with("pkill"))
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let answers: Vec<String> = said.split("\u{1}\n").skip(1).map(str::to_owned).collect();
    assert_eq!(asked.len(), answers.len(), "{said}");
    asked.into_iter().zip(answers).collect()
}

#[test]
fn its_fail_over_is_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let session = session(folder.path());
    let said = |command: &str| {
        &session
            .iter()
            .find(|(asked, _)| asked == command)
            .unwrap_or_else(|| panic!("{command}: {session:?}"))
            .1
    };
    let status = said("metad status");
    assert!(
        ["m1", "m2", "m3"].iter().all(|node| status.contains(node)) && status.contains("leader"),
        "{status}"
    );
    let history = said("metad history");
    assert!(history.contains("vanished") && history.contains("(leads)"), "{history}");
    assert!(said("metad explain vanished").contains("Fix:"));
}

/// Draws the session as the README shows it: `make screenshots`.
#[test]
#[ignore = "writes into src/docs/; make screenshots"]
fn recording() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut lines = Vec::new();
    let session = session(folder.path());
    let leader = session[1]
        .1
        .lines()
        .nth(1)
        .and_then(|row| row.split_whitespace().next())
        .expect("who led")
        .to_owned();
    for (command, answer) in session {
        lines.push((true, format!("$ {}", command.replace("node-id m1", &format!("node-id {leader}")))));
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
