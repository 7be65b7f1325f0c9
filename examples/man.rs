//! Writes the manual pages, one of metad and one of each command, into a folder: `cargo run --example man FOLDER`.
//! `make deb` and `make dist` ship them.

use std::path::Path;
use std::{fs, io};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use metad::election::exit::EXITS;

const RELEASE: &str = concat!("metad ", env!("CARGO_PKG_VERSION"));

const ENVIRONMENT: [(&str, &str); 3] = [
    ("METAD_CONFIG", "The configuration file, where --config is not given."),
    ("METAD_META", "The members that a command asks, where --meta is not given."),
    ("METAD_SECTION__KEY", "Any key of the configuration, such as METAD_STORE__ETCD__ENDPOINTS."),
];

const FILES: [(&str, &str); 3] = [
    (
        "/etc/metad/metad.toml",
        "The configuration of metad.service, with every key, its default and its help.",
    ),
    ("/var/lib/metad", "The data directory of metad.service."),
    ("~/.config/metad/client.toml", "The members and the credentials of the commands that ask members."),
];

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: man FOLDER"))?;
    write(Path::new(&folder))
}

/// Writes all pages.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    let mut metad = metad::cli::definition().disable_help_subcommand(true);
    metad.build();
    write_page(&metad, folder)
}

fn write_page(command: &Command, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_page(below, folder)?;
    }
    // A date would make two builds differ; an empty one is left out of the title, and the rest of it would move up.
    let man = Man::new(command.clone()).date(" ").source(RELEASE).manual("metad manual");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let rest = if name == "metad" { rest_of_metad() } else { see_also("metad") };
    page.extend(rest.to_roff().into_bytes());
    fs::write(folder.join(man.get_filename()), page)
}

/// What clap does not know.
fn rest_of_metad() -> Roff {
    let mut page = Roff::new();
    page.control("SH", ["EXIT STATUS"]);
    page.text([
        roman("Of "),
        bold("metad serve"),
        roman(" and "),
        bold("metad run"),
        roman(". The latter passes on the code of a program that ends by itself. "),
        bold("metad explain"),
        roman(" tells more about each."),
    ]);
    for (exit, meaning) in EXITS {
        entry(&mut page, &exit.code().to_string(), meaning);
    }
    for (heading, entries) in [("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)] {
        page.control("SH", [heading]);
        for (term, meaning) in entries {
            entry(&mut page, term, meaning);
        }
    }
    page
}

fn entry(page: &mut Roff, term: &str, meaning: &str) {
    page.control("TP", []).text([bold(term)]).text([roman(meaning)]);
}

fn see_also(other: &str) -> Roff {
    let mut page = Roff::new();
    page.control("SH", ["SEE ALSO"]).text([italic(other), roman("(1)")]);
    page
}
