//! Text from outside, made safe for a terminal: names, addresses and reasons come from whoever wrote them into the
//! store, and a terminal obeys what is printed on it.

use std::borrow::Cow;

/// The text with everything in it that a terminal would obey, or a reader not see, written out: `\u{1b}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    escape(text, is_unsafe)
}

/// The same for a text of several lines.
pub fn plain_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && is_unsafe(c))
}

fn escape(text: &str, is_unsafe: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_unsafe) {
        return Cow::Borrowed(text);
    }
    let written = |c: char| if is_unsafe(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(written).collect())
}

/// Control characters, and those that turn the direction of writing or cannot be seen.
fn is_unsafe(c: char) -> bool {
    let is_hidden = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || is_hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        assert_eq!(plain("n1 \u{1b}[2Jgone\r\n\u{202e}x\u{9b}"), "n1 \\u{1b}[2Jgone\\r\\n\\u{202e}x\\u{9b}");
        assert_eq!(plain_lines("a\n\tb\u{7}\n"), "a\n\\tb\\u{7}\n");
        assert!(
            matches!(plain("Knoten-ä 10.0.0.1:5690"), Cow::Borrowed(_)),
            "twin: ordinary text stays as it is"
        );
    }
}
