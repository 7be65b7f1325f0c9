//! Rust as tokens and comments, never fooled by a string, a character, a lifetime or a comment in a comment.

/// A comment: its line, and its text with the slashes.
pub type Comment = (usize, String);

/// A piece of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The line it begins in, from 1.
    pub line: usize,
    /// What it is.
    pub kind: Kind,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name, a keyword or a number.
    Word(String),
    /// `::`, or a single other character.
    Mark(String),
    /// A string of any sort; what is between its quotes, escapes as they are written.
    Text(String),
    /// A character, a byte or a lifetime.
    Other,
}

/// The tokens and the comments of a text.
pub fn tokens(text: &str) -> (Vec<Token>, Vec<Comment>) {
    let chars = text.chars().collect();
    let mut lexer = Lexer { chars, at: 0, line: 1, tokens: vec![], comments: vec![] };
    while lexer.step() {}
    (lexer.tokens, lexer.comments)
}

// === impl Token ===

impl Token {
    /// The word, if it is one.
    pub fn word(&self) -> Option<&str> {
        if let Kind::Word(word) = &self.kind { Some(word) } else { None }
    }

    /// The mark, if it is one.
    pub fn mark(&self) -> Option<&str> {
        if let Kind::Mark(mark) = &self.kind { Some(mark) } else { None }
    }

    /// The string, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Kind::Text(text) = &self.kind { Some(text) } else { None }
    }
}

// === the lexer ===

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
    comments: Vec<Comment>,
}

impl Lexer {
    /// Takes in one token or comment; `false` at the end.
    fn step(&mut self) -> bool {
        let Some(c) = self.peek(0) else { return false };
        let line = self.line;
        match (c, self.peek(1)) {
            ('/', Some('/')) => self.line_comment(),
            ('/', Some('*')) => self.block_comment(),
            ('"', _) => self.string(line),
            ('\'', _) => self.quote(line),
            (':', Some(':')) => {
                self.take(2);
                self.push(line, Kind::Mark("::".to_owned()));
            }
            _ if is_word(c) => self.word(line),
            _ if c.is_whitespace() => drop(self.take(1)),
            _ => {
                self.take(1);
                self.push(line, Kind::Mark(c.to_string()));
            }
        }
        true
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn take(&mut self, n: usize) -> String {
        let end = (self.at + n).min(self.chars.len());
        let taken: String = self.chars[self.at..end].iter().collect();
        self.line += taken.matches('\n').count();
        self.at = end;
        taken
    }

    fn push(&mut self, line: usize, kind: Kind) {
        self.tokens.push(Token { line, kind });
    }

    fn line_comment(&mut self) {
        let rest = self.chars[self.at..].iter();
        let (line, n) = (self.line, rest.take_while(|c| **c != '\n').count());
        let text = self.take(n);
        self.comments.push((line, text));
    }

    fn block_comment(&mut self) {
        let (line, mut depth, mut text) = (self.line, 0, String::new());
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    text.push_str(&self.take(2));
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    text.push_str(&self.take(2));
                }
                _ => text.push_str(&self.take(1)),
            }
            if depth == 0 || self.peek(0).is_none() {
                break;
            }
        }
        self.comments.push((line, text));
    }

    /// A string with escapes, from its first quote.
    fn string(&mut self, line: usize) {
        self.take(1);
        let mut text = String::new();
        loop {
            match self.peek(0) {
                Some('\\') => text.push_str(&self.take(2)),
                Some('"') | None => break,
                Some(_) => text.push_str(&self.take(1)),
            }
        }
        self.take(1);
        self.push(line, Kind::Text(text));
    }

    /// A raw string, from its first `#` or quote.
    fn raw_string(&mut self, line: usize) {
        let hashes = self.chars[self.at..].iter().take_while(|c| **c == '#').count();
        self.take(hashes + 1);
        let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
        let rest = &self.chars[self.at..];
        let n = rest.windows(end.len()).position(|w| w == end).unwrap_or(rest.len());
        let text = self.take(n);
        self.take(end.len());
        self.push(line, Kind::Text(text));
    }

    /// A character or a lifetime, from its first quote.
    fn quote(&mut self, line: usize) {
        let is_char = self.peek(1) == Some('\\') || self.peek(2) == Some('\'');
        self.take(1);
        if !is_char {
            let n = self.chars[self.at..].iter().take_while(|c| is_word(**c)).count();
            self.take(n);
        } else if self.peek(0) == Some('\\') {
            self.take(2);
            let n = self.chars[self.at..].iter().take_while(|c| **c != '\'').count();
            self.take(n + 1);
        } else {
            self.take(2);
        }
        self.push(line, Kind::Other);
    }

    fn word(&mut self, line: usize) {
        let n = self.chars[self.at..].iter().take_while(|c| is_word(**c)).count();
        let word = self.take(n);
        let is_raw = self.peek(0) == Some('"')
            || (self.peek(0) == Some('#') && matches!(self.peek(1), Some('"' | '#')));
        match (word.as_str(), self.peek(0)) {
            ("r" | "br" | "cr", _) if is_raw => self.raw_string(line),
            ("b" | "c", Some('"')) => self.string(line),
            ("b", Some('\'')) => self.quote(line),
            ("r", Some('#')) => {
                self.take(1);
                self.word(line); // a raw name
            }
            _ => self.push(line, Kind::Word(word)),
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let (tokens, _) = tokens(text);
        tokens.iter().filter_map(|t| t.word().map(str::to_owned)).collect()
    }

    #[test]
    fn comments_strings_and_characters_hold_no_words() {
        let text = r###"
            a // b
            /* c /* d */ e */ f
            "g \" h" i r"j" k r#"l " m"# n b"o" p br##"q "# r"## s c"t"
            'u' v '\'' w '"' x b'y' z '\u{41}' end
        "###;
        assert_eq!(words(text), ["a", "f", "i", "k", "n", "p", "s", "v", "w", "x", "z", "end"]);
    }

    #[test]
    fn lifetimes_and_raw_names_do_not_open_a_string() {
        assert_eq!(
            words("fn f<'a>(x: &'a str, r#fn: &'static u8) {} // '"),
            ["fn", "f", "x", "str", "fn", "u8"]
        );
        assert_eq!(words("'outer: loop { break 'outer; } g"), ["loop", "break", "g"]);
    }

    #[test]
    fn strings_comments_and_lines_are_kept() {
        let (tokens, comments) = tokens("\n// one\nf(\"a\nb\",\n  r#\"c\"#); // two\n");
        let texts: Vec<_> = tokens.iter().filter_map(|t| Some((t.line, t.text()?))).collect();
        assert_eq!(texts, [(3, "a\nb"), (5, "c")]);
        assert_eq!(comments, [(2, "// one".to_owned()), (5, "// two".to_owned())]);
    }
}
