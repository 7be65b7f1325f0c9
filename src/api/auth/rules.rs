//! Which role a request takes. Each method that is served is named here: a test walks them all.

use super::AccessRole;

/// What a call takes, by its path `/service/method`; `None`: nothing. Whatever is unknown takes a reader's role, and learns
/// then that it is unknown.
pub fn of_call(path: &str) -> Option<AccessRole> {
    named(path).unwrap_or(Some(AccessRole::Reader))
}

/// What a request for the page or a document takes; `None`: nothing. The page itself knows nothing: it asks for what it
/// shows, and for a token if it must. Probes are asked by machines that have none.
pub fn of_path(path: &str) -> Option<AccessRole> {
    let takes_role = path.starts_with("/api/") || path == "/metrics" || path == "/leader";
    takes_role.then_some(AccessRole::Reader)
}

/// `None`: this method is not known here.
pub(in crate::api) fn named(path: &str) -> Option<Option<AccessRole>> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    Some(match (service, method) {
        // It says no more than /readyz.
        ("grpc.health.v1.Health", "Check") => None,
        // A stream takes a place for as long as it lasts.
        ("grpc.health.v1.Health", "Watch")
        | ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo")
        | ("meta.MetaMemberService", "Members")
        | ("metad.v1.CheckService", "Checks" | "Clock")
        | ("metad.v1.ElectionService", "Leader" | "Members" | "Observe" | "History" | "Events")
        | ("metad.v1.ClusterService", "List" | "Watch") => Some(AccessRole::Reader),
        ("metad.v1.ClusterService", "Register" | "Heartbeat" | "Deregister")
        | ("metad.v1.BarrierService", "Stream") => Some(AccessRole::Worker),
        ("metad.v1.StateService", "Get" | "Range" | "Put" | "Delete" | "Txn" | "Watch") => {
            Some(AccessRole::Writer)
        }
        ("metad.v1.ElectionService", "StepDown" | "Freeze" | "Unfreeze" | "SetPriority") => {
            Some(AccessRole::Admin)
        }
        ("metad.v1.ElectionService", "Prepare") => Some(AccessRole::Member),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_what_its_method_takes() {
        assert_eq!(of_call("/metad.v1.ElectionService/StepDown"), Some(AccessRole::Admin));
        assert_eq!(of_call("/metad.v1.ElectionService/Prepare"), Some(AccessRole::Member));
        assert_eq!(of_call("/metad.v1.StateService/Put"), Some(AccessRole::Writer));
        assert_eq!(of_call("/grpc.health.v1.Health/Check"), None);
        assert_eq!(of_call("/grpc.health.v1.Health/Watch"), Some(AccessRole::Reader));
        for unknown in ["/x.Y/Z", "", "/", "x", "/metad.v1.ElectionService/", "//"] {
            assert_eq!(of_call(unknown), Some(AccessRole::Reader), "{unknown:?}");
        }
    }

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
