//! Values out of bytes, so that a fuzzer that changes the bytes changes the values.

/// What is left of the bytes. When there are no more, every value is zero or empty.
pub struct Bytes<'a>(pub &'a [u8]);

/// Texts that sit at the edges of ranges, lengths and syntaxes.
const TEXTS: [&str; 20] = [
    "",
    "/",
    "a",
    "a/",
    "a\0",
    "\0",
    "\u{7f}",
    "é",
    "\u{7ff}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{ffff}",
    "\u{10ffff}",
    "..",
    "meta/",
    "user/",
    "\"",
    "\\",
    "workers/00000000000000000001",
    "{}",
];

// === impl Bytes ===

impl<'a> Bytes<'a> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Small numbers, large numbers, and the edges between them.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            n @ 0..=99 => n.into(),
            n @ 100..=163 => 1_u64 << (n - 100),
            n @ 164..=227 => (1_u64 << (n - 164)).wrapping_neg(),
            n @ 228..=239 => u64::MAX - u64::from(n - 228),
            _ => (0..8).fold(0, |sum, _| sum << 8 | u64::from(self.byte())),
        }
    }

    /// One of our texts, or some of theirs; now and then a long one.
    pub fn text(&mut self) -> String {
        let n = self.byte();
        match n {
            0..=99 => TEXTS[usize::from(n) % TEXTS.len()].to_owned(),
            100..=149 => self.text_of(usize::from(n - 99)) + &self.text_of(4),
            150..=199 => self.text_of(3) + TEXTS[usize::from(n) % TEXTS.len()],
            200..=249 => self.text_of(usize::from(n - 199)),
            _ => self.text_of(8).repeat(usize::from(self.byte())),
        }
    }

    /// At most so many bytes, as they are.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn text_of(&mut self, n: usize) -> String {
        String::from_utf8_lossy(self.take(n)).into_owned()
    }
}
