//! Is what a page shows what was printed? Words must be the same; times, durations and what `…` stands for may differ.

/// Checks that measure how fast something is: a busy machine has another result than the page.
const SPEED: [&str; 6] = ["ETCD_005 ", "ETCD_006 ", "ETCD_008 ", "ETCD_009 ", "HOST_003 ", "HOST_005 "];

/// The first line that is shown and was not printed, after those that were.
pub fn first_missing(shown: &str, printed: &str) -> Option<String> {
    let mut printed = printed.lines();
    let is_missing = |line: &&str| !printed.any(|l| is_like(line, l));
    shown.lines().filter(|l| !["", "…"].contains(&l.trim())).find(is_missing).map(str::to_owned)
}

/// Is this a line such as the one shown?
pub fn is_like(shown: &str, printed: &str) -> bool {
    if let Some(code) = SPEED.iter().find(|code| shown.contains(*code)) {
        return printed.contains(code);
    }
    let (shown, printed) = (masked(shown), masked(printed));
    let mut parts = shown.split('…').map(str::trim);
    let Some(rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let mut rest = rest.trim_start();
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Does a text have this anywhere in a line? `…` stands for anything within the line.
pub fn has(text: &str, quoted: &str) -> bool {
    text.lines().any(|line| is_like(&format!("…{quoted}…"), line))
}

/// With single spaces, and without what is another one each time: instants, numbers with a point, numbers with a unit.
fn masked(line: &str) -> String {
    const UNITS: [&str; 8] = ["ms", "s", "min", "h", "%", "MiB", "KiB", "GiB"];
    let words: Vec<&str> = line.split_whitespace().collect();
    let bare = |word: &str| word.trim_matches(['(', ')', ',', ';', ':']).to_owned();
    let is_masked = |i: usize| {
        let word = bare(words[i]);
        let digits = word.trim_end_matches("ms").trim_end_matches('s');
        let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_digit() || ".-:TZ".contains(c))
            && digits.matches('.').count() < 3; // an address
        let has_unit = words.get(i + 1).is_some_and(|next| UNITS.contains(&&*bare(next)));
        is_number && (has_unit || digits.len() < word.len() || word.contains(['.', 'T']))
    };
    let word = |i: usize| if is_masked(i) { words[i].replace(&bare(words[i]), "#") } else { words[i].into() };
    (0..words.len()).map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn words_must_be_the_same_and_times_need_not() {
    let printed = " m1  leader  2026-11-29T06:26:02.783Z  5 s  (age 485 ms, 10.0.0.1:5690) code=75";
    assert!(is_like("m1 leader 2026-01-01T00:00:00.000Z 15 s (age 0.5 ms, 10.0.0.1:5690) code=75", printed));
    assert!(is_like("m1 … code=75", printed) && is_like("… leader …", printed));
    for other in ["m2 … code=75", "m1 leader", "… code=76", "… follower …", "m1 … 10.0.0.2:5690) …"]
    {
        assert!(!is_like(other, printed), "{other}");
    }
}

#[test]
fn the_order_counts() {
    assert_eq!(first_missing("a\n…\nb", "a\nx\nb\n"), None);
    assert_eq!(first_missing("b\na", "a\nx\nb\n"), Some("a".into()));
    assert!(has("2026 ERROR lease timeout: x=1", "lease timeout") && !has("lease", "lease timeout"));
}
