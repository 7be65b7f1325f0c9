//! Golden transcripts of the elector: what it does, said so that a person can read and review it.
//!
//! A transcript is a file `tests/fast/transcripts/*.txt`. It opens with a comment that states the property shown.
//! After that, a line `> command args` feeds the elector ([`session`] has the list), and the indented lines
//! below it are what came out: the actions in their order, then whatever changed of the state, of the lease's
//! two instants `H` and `S`, of the fuse, and of the moment of the next timeout. The model is etcd-io/raft's
//! `interaction_test.go`.
//!
//! Nobody writes outputs by hand. Write the commands, then record:
//!
//! ```text
//! METAD_REWRITE_TRANSCRIPTS=1 cargo test --test fast transcripts && git diff tests/fast/transcripts
//! ```
//!
//! and *read the diff*: a recording shows what the elector does, only a reader knows whether it should.
//!
//! Not shown here: what happens between several members. That is the simulation's business.

mod args;
mod diff;
mod session;
mod show;
mod view;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use session::Session;

const DIR: &str = "tests/fast/transcripts";
const REWRITE: &str = "METAD_REWRITE_TRANSCRIPTS";
const HOW_TO_RECORD: &str = "If the new behaviour is the right one, record it and read the diff:\n    \
    METAD_REWRITE_TRANSCRIPTS=1 cargo test --test fast transcripts && git diff tests/fast/transcripts\n";

/// A change of state, by the names that [`show::state_name`] gives.
type Edge = (String, String);

/// What became of a transcript when its commands were run again.
#[derive(Debug)]
struct Played {
    /// The transcript with the outputs of this run.
    text: String,
    /// The changes of state that it shows.
    edges: Vec<Edge>,
}

/// Runs the commands of a transcript. Comments and blank lines stay; recorded outputs give way to new ones.
fn play(text: &str) -> Result<Played, String> {
    check_property(text)?;
    let mut session = Session::default();
    let mut played = Played { text: String::new(), edges: Vec::new() };
    let mut commands = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let Some(command) = line.strip_prefix("> ") else {
            match line {
                "" => played.text.push('\n'),
                l if l.starts_with('#') => played.text += &format!("{l}\n"),
                l if l.starts_with("  ") => {}
                _ => {
                    return Err(format!("line {number}: neither `> command`, `# comment` nor output"));
                }
            }
            continue;
        };
        commands += 1;
        let before = session.state_name();
        let output = session.run(command).map_err(|e| format!("line {number}: `{command}`: {e}"))?;
        played.text += &format!("{line}\n");
        played.text.extend(output.iter().map(|l| format!("  {l}\n")));
        played.edges.push((before, session.state_name()));
    }
    match commands {
        0 => Err("has no command".into()),
        _ => Ok(played),
    }
}

/// A transcript that does not say what it shows cannot be reviewed.
fn check_property(text: &str) -> Result<(), String> {
    let opening: Vec<&str> = text.lines().map_while(|l| l.strip_prefix('#')).collect();
    let opening = opening.join(" ");
    if opening.split_whitespace().count() < 4 || !opening.trim_end_matches([' ', ')']).ends_with('.') {
        return Err("must open with a comment that states, in a sentence, the property it shows".into());
    }
    Ok(())
}

/// The transcripts of a directory. None at all is a mistake, not a success.
fn transcripts_in(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    match files.is_empty() {
        true => Err(format!("{}: no transcript (*.txt) here", dir.display())),
        false => Ok(files),
    }
}

/// Plays one file; `Err` is what to tell a person.
fn check(path: &Path, rewrite: bool) -> Result<(), String> {
    let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).display();
    let recorded = fs::read_to_string(path).map_err(|e| format!("{name}: {e}\n"))?;
    let played = play(&recorded).map_err(|e| format!("{name}: {e}\n"))?;
    if played.text == recorded {
        return Ok(());
    }
    if !rewrite {
        return Err(format!(
            "--- {name} (recorded)\n+++ {name} (now)\n{}\n",
            diff::unified(&recorded, &played.text)
        ));
    }
    // Renamed into place, because another test of this process may be reading it.
    let new = path.with_extension("new");
    fs::write(&new, played.text).and_then(|()| fs::rename(&new, path)).map_err(|e| format!("{name}: {e}\n"))
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(DIR)
}

#[test]
fn every_transcript_plays_as_recorded() {
    let rewrite = std::env::var_os(REWRITE).is_some_and(|v| v == "1");
    let files = transcripts_in(&here()).unwrap_or_else(|e| panic!("{e}"));
    let failures: Vec<String> = files.iter().filter_map(|f| check(f, rewrite).err()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} transcripts differ.\n\n{}\n{HOW_TO_RECORD}",
        failures.len(),
        files.len(),
        failures.join("\n")
    );
}

/// The rows of the table of transitions in `src/election.rs`, one pair for each pair of states that they name.
fn table_of_transitions() -> BTreeSet<Edge> {
    let states_in = |cell: &str| -> Vec<String> {
        let words = cell.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase);
        words.filter(|w| show::STATE_NAMES.contains(&w.as_str())).collect()
    };
    let source = include_str!("../../src/election.rs");
    let rows = source.lines().filter_map(|l| l.strip_prefix("//! | "));
    rows.filter_map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        Some((states_in(cells.first()?), states_in(cells.get(2)?)))
    })
    .flat_map(|(from, to)| {
        from.into_iter().flat_map(move |f| to.clone().into_iter().map(move |t| (f.clone(), t)))
    })
    .collect()
}

#[test]
fn every_row_of_the_table_of_transitions_has_a_transcript() {
    let table = table_of_transitions();
    assert!(table.len() >= 15, "the table of src/election.rs was not understood: {table:?}");
    let mut shown = BTreeSet::new();
    for file in transcripts_in(&here()).unwrap_or_else(|e| panic!("{e}")) {
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let played = play(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        shown.extend(played.edges);
    }
    let missing: Vec<&Edge> = table.difference(&shown).collect();
    assert!(missing.is_empty(), "no transcript shows {missing:?}");
}

#[test]
fn a_directory_without_transcripts_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("notes.md"), "not a transcript").expect("a file");
    let error = transcripts_in(dir.path()).expect_err("there is none");
    assert!(error.contains("no transcript"), "{error}");
    fs::write(dir.path().join("one.txt"), "").expect("a file");
    assert_eq!(transcripts_in(dir.path()).map(|f| f.len()), Ok(1));
}

#[test]
fn a_transcript_without_its_property_is_refused() {
    for text in [
        "",
        "> start node=a\n",
        "#\n> start node=a\n",
        "# start\n> start node=a\n",
        "\n# Too late to say it.\n",
    ] {
        let error = play(text).expect_err(text);
        assert!(error.contains("property"), "{error}");
    }
    let error = play("# It says what it shows, and shows nothing.\n").expect_err("no command");
    assert!(error.contains("no command"), "{error}");
    assert!(play("# A member that starts asks to join.\n> start node=a\n").is_ok());
}

#[test]
fn a_difference_is_shown_with_its_file_and_the_way_to_record_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("start.txt");
    let text = "# A member that starts asks to join.\n> start node=a\n  leave\n";
    fs::write(&path, text).expect("a file");
    let error = check(&path, false).expect_err("it joins");
    for part in ["start.txt (recorded)", "\n-  leave\n", "\n+  join\n"] {
        assert!(error.contains(part), "{part:?} is missing in:\n{error}");
    }
    assert!(HOW_TO_RECORD.contains(REWRITE));
    check(&path, true).expect("recorded");
    check(&path, false).expect("and now it is as recorded");
}

#[test]
fn mistakes_in_a_command_are_errors() {
    for command in [
        "leave",
        "start",
        "start node=a nod=b",
        "start node=a node=b",
        "start node=a stop_timeout=5",
        "at 5\n> at 4",
        "start node=a\n> shutdown perhaps",
        "start node=a\n> seen rev=5 leader=b/token=6",
        "start node=a\n> seen rev=5 members=a:5/colour=red",
        "timeout",
    ] {
        let text = format!("# A mistake is never recorded.\n> {command}\n");
        let error = play(&text).expect_err(command);
        assert!(error.starts_with("line "), "{error}");
    }
}
