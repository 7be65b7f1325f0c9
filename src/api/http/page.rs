//! The page at `/`: what this node knows, for people. Every node serves it, with or without a leader.
//!
//! Its parts are embedded in the binary, and they ask nobody but the node that served them: an operator may have
//! nothing else left. It only shows; whoever wants to change something uses the command line.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::HttpParts;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// One part of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
}

macro_rules! asset {
    ($name:literal, $kind:expr) => {
        Asset { name: $name, kind: $kind, body: include_str!(concat!("page/", $name)) }
    };
}

/// All parts; the first one is the page itself.
static ASSETS: [Asset; 19] = [
    asset!("index.html", HTML),
    asset!("style.css", CSS),
    asset!("icon.svg", SVG),
    asset!("page.js", SCRIPT),
    asset!("feed.js", SCRIPT),
    asset!("format.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("leader.js", SCRIPT),
    asset!("members.js", SCRIPT),
    asset!("timeline.js", SCRIPT),
    asset!("incident.js", SCRIPT),
    asset!("headroom.js", SCRIPT),
    asset!("etcd.js", SCRIPT),
    asset!("checks.js", SCRIPT),
    asset!("events.js", SCRIPT),
    asset!("token.js", SCRIPT),
    asset!("uPlot.iife.min.js", SCRIPT),
    asset!("uPlot.min.css", CSS),
    asset!("UPLOT-LICENSE", TEXT),
];

/// `/` and the parts of the page, under `/page/`.
pub(super) fn routes() -> Router<HttpParts> {
    Router::new().route("/", get(index)).route("/page/{name}", get(part))
}

async fn index(headers: HeaderMap) -> Response {
    ASSETS[0].respond(&headers)
}

async fn part(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => asset.respond(&headers),
        None => (StatusCode::NOT_FOUND, "the page has no such file\n").into_response(),
    }
}

// === impl Asset ===

impl Asset {
    /// The part, or nothing if the browser has it already: it asks each time, so that a new version shows at once.
    fn respond(&self, headers: &HeaderMap) -> Response {
        let tag = self.tag();
        let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let has_it = known.is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag));
        let common = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, "no-cache")];
        if has_it {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        (common, [(header::CONTENT_TYPE, self.kind)], self.body).into_response()
    }

    /// Changes with the content (FNV-1a).
    fn tag(&self) -> String {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        format!("\"{:016x}\"", self.body.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What everything together may weigh, uncompressed.
    const BYTES_MAX: usize = 160_000;

    fn asset(name: &str) -> &'static Asset {
        ASSETS.iter().find(|a| a.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn asked(asset: &Asset, known: Option<&str>) -> Response {
        let tags = known.map(|tag| (header::IF_NONE_MATCH, tag.parse().expect("a header")));
        asset.respond(&tags.into_iter().collect())
    }

    #[test]
    fn the_page_is_small() {
        let bytes: usize = ASSETS.iter().map(|a| a.body.len()).sum();
        assert!(bytes < BYTES_MAX, "{bytes} bytes; drop something");
        assert!(bytes > asset("uPlot.iife.min.js").body.len(), "there is something to weigh");
    }

    #[test]
    fn what_a_part_asks_for_is_there() {
        let from = |a: &'static Asset, mark: &str, root: &str| {
            let after = a.body.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
            after.map(|path| path.strip_prefix(root).unwrap_or(path)).collect::<Vec<_>>()
        };
        let html = asset("index.html");
        let linked = [from(html, "href=\"/page/", ""), from(html, "src=\"/page/", "")].concat();
        assert!(linked.len() >= 4, "{linked:?}");
        let imported = ASSETS.iter().filter(|a| a.kind == SCRIPT).flat_map(|a| from(a, "from \"./", ""));
        let imported: Vec<_> = imported.collect();
        assert!(imported.len() >= 8, "{imported:?}");
        for name in linked.into_iter().chain(imported) {
            asset(name);
        }
    }

    #[test]
    fn a_part_that_the_browser_has_is_not_sent_again() {
        let style = asset("style.css");
        assert_eq!(asked(style, None).status(), StatusCode::OK);
        assert_eq!(asked(style, Some(&asset("index.html").tag())).status(), StatusCode::OK);
        assert_eq!(asked(style, Some(&style.tag())).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(asked(style, Some(&format!("\"x\", {}", style.tag()))).status(), StatusCode::NOT_MODIFIED);
    }
}
