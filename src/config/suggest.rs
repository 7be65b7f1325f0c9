//! "Did you mean": the nearest known name to one that was misspelt.

use super::keys::{KEYS, SECTIONS};

/// What to say about an unknown variable of the environment.
pub(super) fn for_env(name: &str) -> String {
    if let Some(hint) = nearest_env(name) {
        return hint;
    }
    let names: Vec<String> = KEYS.iter().map(|key| key.env()).collect();
    let section = name.rsplit_once("__").map_or(name, |(section, _)| section);
    let siblings: Vec<&str> =
        names.iter().map(String::as_str).filter(|known| known.starts_with(section)).collect();
    let listed = if siblings.is_empty() { names.iter().map(String::as_str).collect() } else { siblings };
    format!("known variables: {}", listed.join(", "))
}

/// What to say about a variable that nobody reads.
pub(super) fn for_unread(name: &str) -> String {
    let hint = nearest_env(name).map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("environment {name}: has no effect{hint}")
}

fn nearest_env(name: &str) -> Option<String> {
    let names: Vec<String> = KEYS.iter().map(|key| key.env()).collect();
    nearest(name, names.iter().map(String::as_str)).map(|best| format!("did you mean `{best}`?"))
}

/// What to say about an unknown key or section of the file, or path of a flag.
pub(super) fn for_path(path: &str) -> String {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let children = children(section);
    // A key that stands in the wrong section is spelt right: say where it belongs.
    if let Some(key) = KEYS.iter().find(|key| key.name() == name) {
        return format!("did you mean `{}` in [{}]?", key.name(), key.section());
    }
    if let Some(best) = nearest(name, children.iter().copied()) {
        return format!("did you mean `{best}`?");
    }
    if let Some(key) = nearest(name, KEYS.iter().map(|key| key.name())) {
        let sections = KEYS.iter().filter(|known| known.name() == key).map(|known| known.section());
        return format!("did you mean `{key}` in [{}]?", sections.collect::<Vec<_>>().join("] or ["));
    }
    match section {
        "" => format!("known sections: {}", children.join(", ")),
        _ => format!("known keys in [{section}]: {}", children.join(", ")),
    }
}

/// The keys and sections right under `section`; the sections of the file for the empty name.
fn children(section: &str) -> Vec<&'static str> {
    let of = |path: &'static str| {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        (parent == section).then_some(name)
    };
    let keys = KEYS.iter().filter_map(|key| of(key.path));
    let sections = SECTIONS.iter().filter_map(|(path, _)| of(path));
    keys.chain(sections).collect()
}

/// The candidate nearest to `name`, unless even that one is too far away to have been meant.
fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let close = |candidate: &&str| {
        let longest = name.chars().count().max(candidate.chars().count());
        // Two letters in the wrong order count as two edits, in a short word too.
        distance(name, candidate) <= (longest / 3).max(if longest < 4 { 1 } else { 2 })
    };
    // `lease_secs` is far from `meta_leader_lease_secs`, yet clearly a part of it.
    let part = |candidate: &&str| name.len() >= 4 && candidate.contains(name);
    candidates
        .filter(|candidate| close(candidate) || part(candidate))
        .min_by_key(|candidate| distance(name, candidate))
}

/// Levenshtein's distance: insertions, deletions and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
