//! What the checks of requests share.
//!
//! A check is beside its handler: a pure function that takes what a caller has sent and returns it in our types, or what is
//! wrong with it. So each refusal says the same on every member, and the fuzz targets run what the handlers run. A request
//! that is refused there has touched nothing.

use tonic::Status;

/// How much of a caller's own text a refusal quotes: the answer's header is bounded.
const QUOTED_CHARS_MAX: usize = 80;

/// The beginning of a caller's text, for a message.
pub fn quoted(text: &str) -> String {
    let end = text.char_indices().nth(QUOTED_CHARS_MAX);
    end.map_or_else(|| format!("{text:?}"), |(end, _)| format!("{:?}… ({} bytes)", &text[..end], text.len()))
}

/// Where a page begins; `None`: at the beginning.
pub(super) fn page(token: &str) -> Result<Option<u64>, Status> {
    let unknown = |_| {
        let token = quoted(token);
        Status::invalid_argument(format!("page_token {token} is unknown; start without one"))
    };
    (!token.is_empty()).then(|| token.parse().map_err(unknown)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_not_quoted_in_full() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        let long = quoted(&"é".repeat(10_000));
        assert!(long.len() < 250 && long.ends_with("(20000 bytes)"), "{long}");
    }
}
