//! `metad explain`: what stands behind a code, for those who have the binary and not the documents.

use super::{Failure, output};
use crate::diagnosis::checks::{catalog, render};
use crate::election::exit::{EXITS, Exit};
use crate::election::history::{Ending, Reason};

/// Explains a check (code or name), a reason or an exit code; without one, lists them.
pub(super) fn explain(code: Option<&str>) -> Result<i32, Failure> {
    let Some(code) = code else { return output::print(&list()).map(|()| 0) };
    let said = of_check(code).or_else(|| of_reason(code)).or_else(|| of_exit(code));
    let unknown = || {
        let message =
            format!("{code:?} is no check, no reason and no exit code\nfix: metad explain lists them all");
        Failure::new(Exit::Usage.code(), message)
    };
    output::print(&said.ok_or_else(unknown)?).map(|()| 0)
}

fn of_check(code: &str) -> Option<String> {
    catalog::find(code).map(render::explanation)
}

fn of_reason(name: &str) -> Option<String> {
    let reason = Reason::parse(&name.to_lowercase())?;
    let planned = if reason.is_planned() { "planned" } else { "unplanned" };
    let code = Exit::of(&Ending::of(reason)).code();
    let (means, advice) = (reason.meaning(), reason.advice());
    Some(format!("{reason}: a reason, {planned}; exit code {code}\n  Means: {means}\n  Fix: {advice}\n"))
}

fn of_exit(code: &str) -> Option<String> {
    let number: i32 = code.trim_start_matches("exit").trim().parse().ok()?;
    let (exit, means) = EXITS.iter().find(|(exit, _)| exit.code() == number)?;
    let leads_to_it = |reason: &Reason| Exit::of(&Ending::of(*reason)) == *exit;
    let reasons: Vec<&str> = Reason::ALL.iter().filter(|r| leads_to_it(r)).map(|r| r.as_str()).collect();
    let reasons =
        if reasons.is_empty() { String::new() } else { format!("  Reasons: {}\n", reasons.join(", ")) };
    Some(format!("{number}: an exit code of metad serve and run\n  Means: {means}\n{reasons}"))
}

fn list() -> String {
    let reasons: String =
        Reason::ALL.iter().map(|r| format!("  {:<18} {}\n", r.as_str(), r.meaning())).collect();
    let exits: String =
        EXITS.iter().map(|(exit, means)| format!("  {:<18} {means}\n", exit.code())).collect();
    format!("{}reasons\n{reasons}exit codes\n{exits}", render::list())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::checks::CHECKS;

    #[test]
    fn every_check_reason_and_exit_code_is_explained() {
        let listed = list();
        let explained = |code: &str| {
            let said = of_check(code).or_else(|| of_reason(code)).or_else(|| of_exit(code));
            let said = said.unwrap_or_else(|| panic!("{code} is not explained"));
            assert!(said.contains(code) && said.lines().count() >= 2, "{said}");
            assert!(listed.contains(code), "{code} is not listed");
        };
        CHECKS.iter().for_each(|check| explained(check.code));
        Reason::ALL.iter().for_each(|reason| explained(reason.as_str()));
        EXITS.iter().for_each(|(exit, _)| explained(&exit.code().to_string()));
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
