//! The manual pages: one of each command that people see, and nothing in them that a reader would take for a mistake.

use std::collections::{BTreeMap, BTreeSet};

#[path = "../../examples/man.rs"]
#[allow(dead_code, reason = "its main is the example's")]
mod pages;

/// What clap_mangen and the example write, and any reader of manual pages knows.
const MACROS: [&str; 10] = [".TH", ".SH", ".TP", ".PP", ".IP", ".RS", ".RE", ".br", ".ie", ".el"];

fn written() -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    pages::write(folder.path()).expect("the pages");
    let files = std::fs::read_dir(folder.path()).expect("the folder").flatten();
    files
        .map(|file| {
            let text = std::fs::read_to_string(file.path()).expect("a page");
            (file.file_name().to_string_lossy().into_owned(), text)
        })
        .collect()
}

/// The file of a command's page, and of each one below it.
fn names(command: &clap::Command, above: &str, found: &mut BTreeSet<String>) {
    let name = format!("{above}{}", command.get_name());
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        names(below, &format!("{name}-"), found);
    }
    found.insert(format!("{name}.1"));
}

#[test]
fn every_command_has_a_page_that_says_what_it_does_and_which_flags_it_takes() {
    let (mut wanted, pages) = (BTreeSet::new(), written());
    names(&metad::cli::definition(), "", &mut wanted);
    assert!(wanted.contains("metad-step-down.1") && wanted.contains("metad-config-check.1"), "{wanted:?}");
    assert_eq!(pages.keys().cloned().collect::<BTreeSet<_>>(), wanted);
    for command in metad::cli::definition().get_subcommands().filter(|command| !command.is_hide_set()) {
        let page =
            pages[&format!("metad-{}.1", command.get_name())].replace("\\-", "-").replace("\\*(Aq", "'");
        let about = command.get_about().expect("each command says what it does").to_string();
        assert!(page.contains(&format!("metad-{} - {about}", command.get_name())), "{page}");
        for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(
                page.contains(&format!("\n\\fB--{flag}\\fR"))
                    || page.contains(&format!(", \\fB--{flag}\\fR")),
                "--{flag}: {page}"
            );
        }
    }
    let metad = &pages["metad.1"];
    for exit in ["64", "69", "73", "75", "78"] {
        assert!(metad.contains(&format!(".TP\n\\fB{exit}\\fR\n")), "{exit} is not explained: {metad}");
    }
}

#[test]
fn no_page_shows_the_markup_of_its_source() {
    for (name, page) in written() {
        let title = page.lines().find(|line| line.starts_with(".TH")).expect("a title");
        let release = format!(" 1 \" \" \"metad {}\" \"metad manual\"", env!("CARGO_PKG_VERSION"));
        assert!(title.ends_with(&release), "{name}: {title}");
        for line in page.lines() {
            let is_macro = MACROS.iter().any(|known| line.split(' ').next() == Some(known));
            assert!(!line.starts_with(['.', '\'']) || is_macro, "{name} has an unknown macro: {line}");
            for markup in ["`", "**", "\x1b", "</", "](", "[`", "src/"] {
                assert!(!line.contains(markup), "{name} shows {markup:?}: {line}");
            }
        }
    }
}
