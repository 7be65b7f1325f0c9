//! The difference of two texts, line by line, in the manner of `diff -u`.

use std::fmt::Write;

/// How many equal lines are shown around a difference.
const CONTEXT: usize = 4;

type Edit<'a> = (char, &'a str);

/// The differing parts, with the line of `old` at which each begins.
pub fn unified(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let edits = edits(&old, &new);
    let is_shown = |i: usize| {
        let around = i.saturating_sub(CONTEXT)..(i + CONTEXT + 1).min(edits.len());
        edits[around].iter().any(|(sign, _)| *sign != ' ')
    };
    let (mut text, mut line, mut in_hunk) = (String::new(), 1, false);
    for (i, (sign, content)) in edits.iter().enumerate() {
        if is_shown(i) {
            if !in_hunk {
                let _ = writeln!(text, "@@ line {line} @@");
            }
            let _ = writeln!(text, "{sign}{content}");
        }
        in_hunk = is_shown(i);
        line += usize::from(*sign != '+');
    }
    text
}

/// All lines of both texts, each marked `-` (only old), `+` (only new) or blank (both), keeping as many in
/// common as possible.
fn edits<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Edit<'a>> {
    // common[i][j]: how many lines old[i..] and new[j..] have in common.
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut edits) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            edits.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            edits.push(('-', old[i]));
            i += 1;
        } else {
            edits.push(('+', new[j]));
            j += 1;
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn only_what_differs_is_shown_with_the_lines_around_it() {
        let old: Vec<String> = (1..=30).map(|n| n.to_string()).collect();
        let mut new = old.clone();
        new[19] = "twenty".into();
        let text = unified(&old.join("\n"), &new.join("\n"));
        assert_eq!(text, "@@ line 16 @@\n 16\n 17\n 18\n 19\n-20\n+twenty\n 21\n 22\n 23\n 24\n");
    }

    #[test]
    fn equal_texts_have_no_difference() {
        assert_eq!(unified("a\nb\n", "a\nb\n"), "");
    }
}
