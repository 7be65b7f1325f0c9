//! The arguments of a command: `word … key=value …`. What is not understood is an error, so that a misspelt
//! argument cannot pass for a default.
//!
//! Instants are milliseconds on both clocks, `1500`, or two readings, `boot:1500/raw:900`.

use std::collections::VecDeque;
use std::time::Duration;

use metad::clock::Instant;

/// The arguments that nobody has asked for yet.
pub struct Args<'a> {
    words: VecDeque<&'a str>,
    pairs: Vec<(&'a str, &'a str)>,
}

// === impl Args ===

impl<'a> Args<'a> {
    /// Splits `text` at `separator`: a command at spaces, a member of a view at slashes.
    pub fn split(text: &'a str, separator: char) -> Result<Self, String> {
        let mut args = Self { words: VecDeque::new(), pairs: Vec::new() };
        for part in text.split(separator).filter(|p| !p.is_empty()) {
            match part.split_once('=') {
                None => args.words.push_back(part),
                Some((key, _)) if args.pairs.iter().any(|(k, _)| *k == key) => {
                    return Err(format!("`{key}` is given twice"));
                }
                Some(pair) => args.pairs.push(pair),
            }
        }
        Ok(args)
    }

    /// The next word, if there is one.
    pub fn word(&mut self) -> Option<&'a str> {
        self.words.pop_front()
    }

    /// The next word.
    pub fn need_word(&mut self, what: &str) -> Result<&'a str, String> {
        self.word().ok_or_else(|| format!("{what} is missing"))
    }

    /// The value of `key`, if given.
    pub fn value(&mut self, key: &str) -> Option<&'a str> {
        let at = self.pairs.iter().position(|(k, _)| *k == key)?;
        Some(self.pairs.remove(at).1)
    }

    /// The value of `key`, read by `parse`.
    pub fn get<T>(&mut self, key: &str, parse: Parse<T>) -> Result<Option<T>, String> {
        self.value(key).map(|v| parse(v).map_err(|e| format!("{key}: {e}"))).transpose()
    }

    /// The value of `key`, which must be given.
    pub fn need<T>(&mut self, key: &str, parse: Parse<T>) -> Result<T, String> {
        self.get(key, parse)?.ok_or_else(|| format!("`{key}=` is missing"))
    }

    /// The value of `key`, or else `default`.
    pub fn or<T>(&mut self, key: &str, parse: Parse<T>, default: T) -> Result<T, String> {
        Ok(self.get(key, parse)?.unwrap_or(default))
    }

    /// Complains about what nobody has asked for.
    pub fn finish(self) -> Result<(), String> {
        let keys = self.pairs.iter().map(|(k, _)| *k);
        let rest: Vec<&str> = self.words.iter().copied().chain(keys).collect();
        match rest.is_empty() {
            true => Ok(()),
            false => Err(format!("not understood: {}", rest.join(", "))),
        }
    }
}

/// Reads a value.
pub type Parse<T> = fn(&str) -> Result<T, String>;

/// A whole number.
pub fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

/// `10s` or `250ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Some(ms) = text.strip_suffix("ms") {
        return Ok(Duration::from_millis(number(ms)?));
    }
    match text.strip_suffix('s') {
        Some(secs) => Ok(Duration::from_secs(number(secs)?)),
        None => Err(format!("`{text}` is not a duration (10s, 250ms)")),
    }
}

/// `1500` or `boot:1500/raw:900`, in milliseconds.
pub fn instant(text: &str) -> Result<Instant, String> {
    let Some((boot, raw)) = text.split_once('/') else {
        return Ok(Instant::from_millis(number(text)?));
    };
    let (Some(boot), Some(raw)) = (boot.strip_prefix("boot:"), raw.strip_prefix("raw:")) else {
        return Err(format!("`{text}` is not an instant (1500, boot:1500/raw:900)"));
    };
    Ok(Instant::from_nanos(number(boot)? * 1_000_000, number(raw)? * 1_000_000))
}
