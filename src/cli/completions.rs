//! Shell completions. The shell asks this program at each Tab, so they know the checks, and the members of the cluster
//! that `METAD_META` names.

use std::ffi::OsStr;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};

use super::args::{Cli, MetaArgs};
use super::{Failure, asking, output};
use crate::config::check_name;
use crate::diagnosis::checks::CHECKS;
use crate::election::exit::Exit;
use crate::election::history::Reason;
use crate::telemetry::terminal::plain;

/// Set by the shell when it asks.
const VARIABLE: &str = "METAD_COMPLETE";
/// In a folder of `$fpath` the script is the body of the function `_metad`, whose first call is a Tab that waits for an answer.
const FIRST_TAB_OF_ZSH: &[u8] = b"[[ $funcstack[1] != _metad ]] || _clap_dynamic_completer_metad \"$@\"\n";
/// Nobody waits longer for a Tab.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Answers the shell, and ends the process, if it is the shell that asks.
pub(super) fn answer_if_asked() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// `metad completions SHELL`: what makes the shell ask.
pub(super) fn print(shell: clap_complete::Shell) -> Result<i32, Failure> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let failed =
        |why: String| Failure::new(Exit::Internal.code(), format!("no completions for {name}: {why}"));
    let completer = shells.completer(&name).ok_or_else(|| failed("this shell is not known".to_owned()))?;
    let mut script = Vec::new();
    let written = completer.write_registration(VARIABLE, "metad", "metad", "metad", &mut script);
    written.map_err(|e| failed(e.to_string()))?;
    if shell == clap_complete::Shell::Zsh {
        script.extend(FIRST_TAB_OF_ZSH);
    }
    output::print(&String::from_utf8_lossy(&script)).map(|()| 0)
}

/// The checks, by code and by name.
pub(super) fn checks(typed: &OsStr) -> Vec<CompletionCandidate> {
    let named = CHECKS.iter().flat_map(|check| [(check.code, check.title), (check.name, check.title)]);
    beginning(typed, named)
}

/// Whatever can be explained, but for numbers.
pub(super) fn codes(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = checks(typed);
    all.extend(beginning(typed, Reason::ALL.iter().map(|reason| (reason.as_str(), reason.meaning()))));
    all
}

/// The members, as the first one that answers knows them; none, if nobody does so at once.
pub(super) fn members(typed: &OsStr) -> Vec<CompletionCandidate> {
    let asked = async {
        let mut answer = asking::first(&MetaArgs::default()).await.ok()?;
        answer.member.members().await.ok()
    };
    let bounded = async { Ok::<_, Failure>(tokio::time::timeout(TIMEOUT, asked).await.ok().flatten()) };
    let known = super::query::on_runtime(bounded).ok().flatten();
    let members = known.map(|answer| answer.members).unwrap_or_default();
    // The shell puts it on the command line as it is; whatever no node may be called was registered by a stranger.
    let named = members.iter().filter(|m| check_name(&m.node).is_ok());
    beginning(typed, named.map(|m| (m.node.as_str(), m.rpc_address.as_str())))
}

fn beginning<'t>(typed: &OsStr, all: impl Iterator<Item = (&'t str, &'t str)>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let fits = all.filter(|(word, _)| word.starts_with(typed.as_ref()));
    fits.map(|(word, help)| CompletionCandidate::new(word).help(Some(plain(help).into_owned().into())))
        .collect()
}
