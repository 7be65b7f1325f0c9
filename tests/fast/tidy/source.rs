//! A Rust file, and what the rules ask of it: its module, its functions, the paths that it names.

use super::tokens::{Comment, Kind, Token, tokens};

/// A file, read.
pub struct Source {
    /// Its path from the root of the repository, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Its tokens, without comments.
    pub tokens: Vec<Token>,
    /// Its comments.
    pub comments: Vec<Comment>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its `fn`.
    pub line: usize,
    /// How many lines it has, signature included.
    pub lines: usize,
}

/// A path that is named somewhere, in a `use` or in the midst of code.
#[derive(Debug, PartialEq, Eq)]
pub struct Path {
    /// Where.
    pub line: usize,
    /// Its segments as they are written; `*` for a glob.
    pub segments: Vec<String>,
    /// The inline modules around it.
    pub inside: Vec<String>,
}

// === impl Source ===

impl Source {
    /// Reads a file's text.
    pub fn parse(path: &str, text: &str) -> Self {
        let (tokens, comments) = tokens(text);
        Self { path: path.to_owned(), text: text.to_owned(), tokens, comments }
    }

    /// How many lines it has.
    pub fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// The module that it is: `["store", "etcd"]` for `src/store/etcd.rs`, nothing for `src/lib.rs`.
    pub fn module(&self) -> Vec<String> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let path = path.strip_suffix(".rs").unwrap_or(path);
        if path == "lib" { vec![] } else { path.split('/').map(str::to_owned).collect() }
    }

    /// Its functions, nested ones too.
    pub fn functions(&self) -> Vec<Function> {
        let named = |i: usize| Some((self.tokens[i].word()?, self.tokens.get(i + 1)?.word()?, i));
        let all = (0..self.tokens.len()).filter_map(named).filter(|(keyword, ..)| *keyword == "fn");
        all.filter_map(|(_, name, i)| {
            let end = self.body_end(i + 2)?;
            let line = self.tokens[i].line;
            Some(Function { name: name.to_owned(), line, lines: self.tokens[end].line - line + 1 })
        })
        .collect()
    }

    /// The closing brace of the body of the function whose signature goes on at `i`; `None` if it has no body.
    fn body_end(&self, i: usize) -> Option<usize> {
        let mut depth = 0;
        let open = (i..self.tokens.len()).find(|&i| {
            match self.tokens[i].mark() {
                Some("(" | "[") => depth += 1,
                Some(")" | "]") => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(self.tokens[i].mark(), Some("{" | ";"))
        })?;
        if self.tokens[open].mark() == Some(";") { None } else { self.closing(open) }
    }

    /// The brace that closes the one at `open`.
    pub fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        (open..self.tokens.len()).find(|&i| {
            match self.tokens[i].mark() {
                Some("{") => depth += 1,
                Some("}") => depth -= 1,
                _ => {}
            }
            depth == 0
        })
    }

    /// The inline modules around each token.
    pub fn surroundings(&self) -> Vec<Vec<String>> {
        let mut open: Vec<(String, usize)> = Vec::new();
        let mut around = Vec::with_capacity(self.tokens.len());
        for i in 0..self.tokens.len() {
            while open.last().is_some_and(|(_, end)| *end < i) {
                open.pop();
            }
            around.push(open.iter().map(|(name, _)| name.clone()).collect());
            if let [keyword, name, brace, ..] = &self.tokens[i..]
                && keyword.word() == Some("mod")
                && let (Some(name), Some("{")) = (name.word(), brace.mark())
            {
                open.push((name.to_owned(), self.closing(i + 2).unwrap_or(self.tokens.len())));
            }
        }
        around
    }

    /// All paths of more than one segment, those of `use` trees spelled out.
    pub fn paths(&self) -> Vec<Path> {
        let around = self.surroundings();
        let mut paths = Vec::new();
        let mut i = 0;
        while i < self.tokens.len() {
            let inside = &around[i];
            let mut add = |line, segments: Vec<String>| {
                paths.push(Path { line, segments, inside: inside.clone() });
            };
            let is_use = self.tokens[i].word() == Some("use");
            if is_use && self.tokens.get(i + 1).is_some_and(|t| t.mark() != Some("<")) {
                i = self.tree(i + 1, &[], &mut add);
            } else {
                i = self.inline_path(i, &mut add);
            }
        }
        paths
    }

    /// The path in the midst of code that begins at `i`, if one does; gives where to go on.
    fn inline_path(&self, mut i: usize, add: &mut impl FnMut(usize, Vec<String>)) -> usize {
        let line = self.tokens[i].line;
        let Some(first) = self.tokens[i].word() else { return i + 1 };
        let mut segments = vec![first.to_owned()];
        i += 1;
        while let [colons, next, ..] = &self.tokens[i..]
            && let (Some("::"), Some(next)) = (colons.mark(), next.word())
        {
            segments.push(next.to_owned());
            i += 2;
        }
        if segments.len() > 1 {
            add(line, segments);
        }
        i
    }

    /// A tree of `use`, from `i`, below `prefix`; gives the place behind it.
    fn tree(&self, mut i: usize, prefix: &[String], add: &mut impl FnMut(usize, Vec<String>)) -> usize {
        let mut path = prefix.to_vec();
        let mut line = self.tokens.get(i).map_or(0, |t| t.line);
        while let Some(token) = self.tokens.get(i) {
            match &token.kind {
                Kind::Word(word) if word == "as" => i += 1, // and the new name, below
                Kind::Word(word) => {
                    path.push(word.clone());
                    line = token.line;
                }
                Kind::Mark(mark) if mark == "*" => path.push("*".to_owned()),
                Kind::Mark(mark) if mark == "{" => return self.branches(i + 1, &path, add),
                Kind::Mark(mark) if matches!(mark.as_str(), "," | "}" | ";") => break,
                _ => {}
            }
            i += 1;
        }
        if path.len() > prefix.len() {
            add(line, path);
        }
        i
    }

    /// The branches of a tree, up to their brace; gives the place behind it.
    fn branches(&self, mut i: usize, path: &[String], add: &mut impl FnMut(usize, Vec<String>)) -> usize {
        loop {
            i = self.tree(i, path, add);
            match self.tokens.get(i).and_then(Token::mark) {
                Some(",") => i += 1,
                _ => return i + 1,
            }
        }
    }
}

mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<(usize, String)> {
        Source::parse("src/x.rs", text).paths().into_iter().map(|p| (p.line, p.segments.join("::"))).collect()
    }

    #[test]
    fn functions_are_measured_with_their_signature() {
        let text = "trait T {\n fn no_body(x: [u8; 4]);\n}\nfn a() -> [u8; 2] {\n '{'; \"}\"; // }\n [0; 2]\n}\n\
                    pub async fn b<F: Fn()>(\n  f: fn(u8),\n) {\n  fn c() {}\n}\n";
        let found: Vec<_> = Source::parse("src/x.rs", text).functions();
        let short: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(short, [("a", 4, 4), ("b", 8, 5), ("c", 11, 1)]);
    }

    #[test]
    fn use_trees_are_spelled_out() {
        let text =
            "use a::b;\nuse crate::{\n  c::{self, d as e},\n  f::*,\n};\npub use g::{h, i};\nj::k(l::m);";
        let expected = [
            (1, "a::b"),
            (3, "crate::c::self"),
            (3, "crate::c::d"),
            (4, "crate::f::*"),
            (6, "g::h"),
            (6, "g::i"),
        ];
        let expected = expected.into_iter().chain([(7, "j::k"), (7, "l::m")]);
        assert_eq!(paths(text), expected.map(|(n, p)| (n, p.to_owned())).collect::<Vec<_>>());
    }

    #[test]
    fn inline_modules_are_known() {
        let text = "mod a { use super::x; mod b { super::y(); } z::z(); }\nmod c;\nw::w();";
        let found: Vec<_> = Source::parse("src/x.rs", text).paths();
        let inside: Vec<_> = found.iter().map(|p| (p.segments[1].as_str(), p.inside.join("/"))).collect();
        let expected = [("x", "a"), ("y", "a/b"), ("z", "a"), ("w", "")];
        assert_eq!(inside, expected.map(|(p, m)| (p, m.to_owned())));
    }

    #[test]
    fn a_file_is_a_module() {
        let module = |path| Source::parse(path, "").module().join("::");
        assert_eq!(module("src/store/etcd/watch.rs"), "store::etcd::watch");
        assert_eq!((module("src/lib.rs"), module("src/main.rs")), (String::new(), "main".to_owned()));
    }
}
