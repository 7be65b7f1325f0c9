//! What stands behind a code, for those who have the binary and not the documents: `metad explain`, and the links of the
//! page.

use crate::diagnosis::checks::{catalog, render};
use crate::election::exit::{EXITS, Exit};
use crate::election::history::{Ending, Reason};

/// What a shell makes of SIGKILL.
const KILLED: (i32, &str) =
    (137, "killed, by the kernel timer or by its guardian at the end of its lease, or by somebody else");
/// The codes of `status` and its kin; `doctor` and `check` have those of Nagios.
const OF_COMMANDS: [(i32, &str); 4] = [
    (0, "done, or there is a leader; doctor and check: all passed"),
    (1, "no member answers, or refused; doctor and check: a warning"),
    (2, "there is no leader; doctor and check: a failure"),
    (
        3,
        "unknown: the newest view is older than the lease; step-down: another leads than was wanted; check: a result \
         is unknown",
    ),
];

/// A check (its code or name), a reason or an exit code, explained; `None`: it is none of them.
pub fn of(code: &str) -> Option<String> {
    of_check(code).or_else(|| of_reason(code)).or_else(|| of_exit(code))
}

fn of_check(code: &str) -> Option<String> {
    catalog::find(code).map(render::explanation)
}

fn of_reason(name: &str) -> Option<String> {
    let reason = Reason::parse(&name.to_lowercase())?;
    let planned = if reason.is_planned() { "planned" } else { "unplanned" };
    let (means, advice) = (reason.meaning(), reason.advice());
    let ends = match exit_of(reason) {
        Some(code) => format!("exit code {code}"),
        None if reason == Reason::MainLoopEnded => "exit code of the program, else 75".to_owned(),
        None => "its exit code is not known to those who say so".to_owned(),
    };
    Some(format!("{reason}: a reason, {planned}; {ends}\n  Means: {means}\n  Fix: {advice}\n"))
}

/// The exit code that a reason always has.
fn exit_of(reason: Reason) -> Option<i32> {
    match reason {
        Reason::KernelTimer | Reason::GuardianKill => Some(KILLED.0),
        Reason::Vanished | Reason::HandedOver | Reason::MainLoopEnded => None,
        _ => Some(Exit::of(&Ending::of(reason)).code()),
    }
}

fn of_exit(code: &str) -> Option<String> {
    let number: i32 = code.trim_start_matches("exit").trim().parse().ok()?;
    let mut said = String::new();
    if let Some((_, means)) = of_daemon().find(|(code, _)| *code == number) {
        let leads_to_it = |reason: &&Reason| exit_of(**reason) == Some(number);
        let reasons: Vec<&str> = Reason::ALL.iter().filter(leads_to_it).map(|r| r.as_str()).collect();
        let reasons =
            if reasons.is_empty() { String::new() } else { format!("  Reasons: {}\n", reasons.join(", ")) };
        said.push_str(&format!("{number}: an exit code of metad serve and run\n  Means: {means}\n{reasons}"));
    }
    if let Some((_, means)) = OF_COMMANDS.iter().find(|(code, _)| *code == number) {
        said.push_str(&format!("{number}: an exit code of the commands that ask\n  Means: {means}\n"));
    }
    Some(said).filter(|said| !said.is_empty())
}

fn of_daemon() -> impl Iterator<Item = (i32, &'static str)> {
    EXITS.iter().map(|(exit, means)| (exit.code(), *means)).chain([KILLED])
}

/// All codes, one line each.
pub fn list() -> String {
    let reasons: String =
        Reason::ALL.iter().map(|r| format!("  {:<18} {}\n", r.as_str(), r.meaning())).collect();
    let lines = |codes: &mut dyn Iterator<Item = (i32, &'static str)>| -> String {
        codes.map(|(code, means)| format!("  {code:<18} {means}\n")).collect()
    };
    let (exits, of_commands) = (lines(&mut of_daemon()), lines(&mut OF_COMMANDS.into_iter()));
    format!(
        "{}reasons\n{reasons}exit codes of metad serve and run\n{exits}exit codes of the commands that ask\n{of_commands}",
        render::list()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::checks::CHECKS;

    #[test]
    fn every_check_reason_and_exit_code_is_explained() {
        let listed = list();
        let explained = |code: &str| {
            let said = of(code).unwrap_or_else(|| panic!("{code} is not explained"));
            assert!(said.contains(code) && said.lines().count() >= 2, "{said}");
            assert!(listed.contains(code), "{code} is not listed");
        };
        CHECKS.iter().for_each(|check| explained(check.code));
        Reason::ALL.iter().for_each(|reason| explained(reason.as_str()));
        of_daemon().chain(OF_COMMANDS).for_each(|(code, _)| explained(&code.to_string()));
        assert!(of_exit("137").expect("one").contains("kernel_timer, guardian_kill"));
        assert!(!of_exit("75").expect("one").contains("vanished"));
        assert_eq!([of_check("x"), of_reason("x"), of_exit("99")], [const { None }; 3]);
    }

    /// A command or a check that an advice names is one that there is.
    #[test]
    fn advice_names_only_checks_and_keys_that_there_are() {
        for reason in Reason::ALL {
            let advice = reason.advice();
            for word in advice.split(|c: char| !c.is_alphanumeric() && !"_.".contains(c)) {
                let is_check = word.contains('_')
                    && word.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit());
                assert!(!is_check || catalog::find(word).is_some(), "{reason}: {word}");
                let is_key = ["meta.", "node."].iter().any(|section| word.starts_with(section));
                let key = word.trim_end_matches('.');
                assert!(!is_key || crate::config::KEYS.iter().any(|k| k.path == key), "{reason}: {word}");
            }
        }
    }
}
