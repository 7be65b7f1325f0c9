//! Which role a request over HTTP takes. What a call takes is said beside it, in the protocol files.

use super::AccessRole;

/// What a request for the page or a document takes; `None`: nothing. The page itself knows nothing: it asks for what it
/// shows, and for a token if it must. Probes are asked by machines that have none.
pub fn of_path(path: &str) -> Option<AccessRole> {
    let takes_role = path.starts_with("/api/") || path == "/metrics" || path == "/leader";
    takes_role.then_some(AccessRole::Reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_nothing_takes_nothing() {
        for path in ["/", "/livez", "/readyz", "/healthz", "/page.js", "/explain/75", "/version"] {
            assert_eq!(of_path(path), None, "{path}");
        }
        for path in ["/metrics", "/leader", "/api/v1/state", "/api/v1/events"] {
            assert_eq!(of_path(path), Some(AccessRole::Reader), "{path}");
        }
    }
}
