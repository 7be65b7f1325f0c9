//! Which names this listener answers to.
//!
//! A web site can have its own name point at this node, and then read what this node says through the browser of
//! somebody who can reach it. That takes a name that it owns: an address, a name without a dot, or one of a kind that
//! nobody can register is never such a name. Probes tell nothing, and are asked for by machines: they always answer.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{HttpParts, is_probe};
use crate::telemetry::metrics::limits::{Limit, Listener};

/// Last parts of names that exist in a network of one's own only.
const PRIVATE: [&str; 9] =
    ["localhost", "local", "internal", "svc", "lan", "home", "corp", "test", "localdomain"];

/// The names that work besides those that always do.
pub struct Hosts(Vec<String>);

// === impl Hosts ===

impl Hosts {
    /// From the configuration: names, separated by commas, and the `host:port` where others are told to look.
    pub fn new(allowed: Option<&str>, advertised: Option<&str>) -> Self {
        let advertised = advertised.and_then(|address| address.rsplit_once(':')).map(|(host, _)| host);
        let names = allowed.unwrap_or_default().split(',').chain(advertised);
        let names = names.map(|name| name.trim().to_ascii_lowercase());
        Self(names.filter(|name| !name.is_empty()).collect())
    }

    /// May one ask for this `host` or `host:port`?
    fn allows(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        let is_private = || match name.rsplit_once('.') {
            Some((_, last)) => PRIVATE.contains(&last),
            None => !name.is_empty(),
        };
        name.parse::<IpAddr>().is_ok() || is_private() || self.0.iter().any(|allowed| allowed == name)
    }
}

/// Refuses requests for a name that may be somebody else's. Without a name it is no browser that asks.
pub(super) async fn check(State(parts): State<HttpParts>, request: Request, next: Next) -> Response {
    let named = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let named = request.uri().authority().map(Authority::as_str).or(named);
    if is_probe(Uri::path(request.uri())) || named.is_none_or(|host| parts.hosts.allows(host)) {
        return next.run(request).await;
    }
    parts.telemetry.metrics().limit_reached(Listener::Http, Limit::Host);
    let why =
        "this host name is not allowed; use the node's address, or add the name to http.allowed_hosts\n";
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_else_may_own_is_refused() {
        let hosts = Hosts::new(Some("meta.example.com, Other.example.org"), Some("Page.example.com:443"));
        for host in [
            "127.0.0.1",
            "10.1.2.3:5691",
            "[::1]:5691",
            "localhost:5691",
            "n1",
            "n1:5691",
            "metad-0.metad.ns.svc:5691",
            "metad-0.metad.ns.svc.cluster.local",
            "meta.example.com:5691",
            "META.EXAMPLE.COM",
            "page.example.com",
            "other.example.org.",
        ] {
            assert!(hosts.allows(host), "{host}");
        }
        for host in [
            "evil.example.com:5691",
            "example.com",
            "meta.example.com.evil.net",
            "",
            "a b",
            "x.127.0.0.1.nip.io",
        ] {
            assert!(!hosts.allows(host), "{host}");
        }
        assert!(!Hosts::new(None, None).allows("meta.example.com"));
    }
}
