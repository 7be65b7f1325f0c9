//! The methods that are served, as the descriptors list them, with what each takes: a request for another one must not
//! become a label.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use prost::Message;

use crate::api::auth::AccessRole;
use crate::proto::{DESCRIPTORS, metad as proto};
use crate::telemetry::metrics::grpc::{GrpcMetrics, MethodLabels, MethodMetrics};

/// What an unknown service, and an unknown method, is called.
const UNKNOWN: &str = "unknown";

/// Each served method's counters, by the path of its requests. Clones share them.
#[derive(Clone)]
pub(super) struct Methods {
    by_path: Arc<HashMap<String, Arc<MethodMetrics>>>,
    other: Arc<MethodMetrics>,
}

/// The few fields of `google.protobuf.FileDescriptorSet` that are needed here.
#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, optional, tag = "2")]
    package: Option<String>,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(message, optional, tag = "4")]
    options: Option<Options>,
    #[prost(bool, optional, tag = "5")]
    client_streaming: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    server_streaming: Option<bool>,
}

/// Those of `proto/access.proto`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Options {
    #[prost(enumeration = "proto::Role", optional, tag = "50690")]
    role: Option<i32>,
    #[prost(bool, optional, tag = "50691")]
    costly: Option<bool>,
}

/// What our methods say of themselves, by the paths of their requests. Descriptors that are none keep [`Methods::of`] from
/// serving anything.
static OURS: LazyLock<HashMap<String, Options>> = LazyLock::new(|| {
    let set = FileSet::decode(DESCRIPTORS).unwrap_or_default();
    set.methods().map(|(labels, method)| (path_of(&labels), method.options.unwrap_or_default())).collect()
});

/// What a call takes, by its path `/service/method`; `None`: nothing. Whatever is unknown takes a reader's role, and learns
/// then that it is unknown.
pub(super) fn role_of(path: &str) -> Option<AccessRole> {
    match path {
        // It says no more than /readyz. Its Watch is a stream, which takes a place for as long as it lasts.
        "/grpc.health.v1.Health/Check" => None,
        // RisingWave's service is not ours to write into.
        "/meta.MetaMemberService/Members" => Some(AccessRole::Reader),
        _ => Some(OURS.get(path).map_or(AccessRole::Reader, |options| access_role(options.role()))),
    }
}

/// Does the answer take much work?
pub(super) fn is_costly(path: &str) -> bool {
    match path {
        "/grpc.health.v1.Health/Watch" | "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => true,
        _ => OURS.get(path).is_some_and(Options::costly),
    }
}

fn path_of(labels: &MethodLabels) -> String {
    format!("/{}/{}", labels.grpc_service, labels.grpc_method)
}

/// A method whose role was forgotten opens nothing to anybody else.
fn access_role(role: proto::Role) -> AccessRole {
    match role {
        proto::Role::Reader => AccessRole::Reader,
        proto::Role::Worker => AccessRole::Worker,
        proto::Role::Writer => AccessRole::Writer,
        proto::Role::Unspecified | proto::Role::Admin => AccessRole::Admin,
        proto::Role::Member => AccessRole::Member,
    }
}

// === impl Methods ===

impl Methods {
    /// The methods of these descriptor sets.
    ///
    /// # Errors
    /// Something that is no descriptor set.
    pub(super) fn of(descriptors: &[&[u8]], metrics: &GrpcMetrics) -> Result<Self, prost::DecodeError> {
        let mut by_path = HashMap::new();
        for set in descriptors {
            for (labels, _) in FileSet::decode(*set)?.methods() {
                by_path.insert(path_of(&labels), Arc::new(metrics.method(labels)));
            }
        }
        let (grpc_service, grpc_method) = (UNKNOWN.to_owned(), UNKNOWN.to_owned());
        let other = metrics.method(MethodLabels { grpc_service, grpc_method, grpc_type: "unary" });
        Ok(Self { by_path: Arc::new(by_path), other: Arc::new(other) })
    }

    /// The counters for a request with this path.
    pub(super) fn at(&self, path: &str) -> Arc<MethodMetrics> {
        self.by_path.get(path).unwrap_or(&self.other).clone()
    }
}

// === impl FileSet ===

impl FileSet {
    fn methods(&self) -> impl Iterator<Item = (MethodLabels, &Method)> {
        let services = self.files.iter().flat_map(|file| {
            let package = file.package.as_deref().unwrap_or_default();
            file.services
                .iter()
                .map(move |s| (format!("{package}.{}", s.name.as_deref().unwrap_or_default()), s))
        });
        services.flat_map(|(grpc_service, service)| {
            service.methods.iter().map(move |method| {
                let grpc_method = method.name.clone().unwrap_or_default();
                let grpc_service = grpc_service.clone();
                (MethodLabels { grpc_service, grpc_method, grpc_type: method.kind() }, method)
            })
        })
    }
}

// === impl Method ===

impl Method {
    fn kind(&self) -> &'static str {
        match (self.client_streaming.unwrap_or(false), self.server_streaming.unwrap_or(false)) {
            (false, false) => "unary",
            (true, false) => "client_stream",
            (false, true) => "server_stream",
            (true, true) => "bidi_stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_name_every_method_and_its_kind() {
        let set = FileSet::decode(DESCRIPTORS).expect("a descriptor set");
        let all: Vec<_> = set.methods().map(|(labels, _)| (path_of(&labels), labels.grpc_type)).collect();
        for expected in [
            ("/metad.v1.ElectionService/Leader", "unary"),
            ("/metad.v1.ElectionService/Observe", "server_stream"),
            ("/metad.v1.BarrierService/Stream", "bidi_stream"),
            ("/meta.MetaMemberService/Members", "unary"),
        ] {
            assert!(all.contains(&(expected.0.to_owned(), expected.1)), "{expected:?} in {all:?}");
        }
    }

    #[test]
    fn each_method_of_ours_names_its_role() {
        let ours = OURS.iter().filter(|(path, _)| path.starts_with("/metad.v1."));
        let roles: Vec<_> = ours.map(|(path, options)| (path, options.role())).collect();
        assert!(roles.len() > 20, "{roles:?}");
        for (path, role) in roles {
            assert_ne!(role, proto::Role::Unspecified, "which role does {path} take? (proto/access.proto)");
        }
        assert_eq!(access_role(proto::Role::Unspecified), AccessRole::Admin);
    }

    #[test]
    fn a_call_takes_what_its_method_takes() {
        use AccessRole::{Admin, Member, Reader, Worker, Writer};
        for (path, role, costly) in [
            ("/metad.v1.ElectionService/StepDown", Some(Admin), false),
            ("/metad.v1.ElectionService/Prepare", Some(Member), false),
            ("/metad.v1.ElectionService/Observe", Some(Reader), true),
            ("/metad.v1.ElectionService/Leader", Some(Reader), false),
            ("/metad.v1.ClusterService/Register", Some(Worker), false),
            ("/metad.v1.ClusterService/List", Some(Reader), true),
            ("/metad.v1.StateService/Put", Some(Writer), false),
            ("/metad.v1.StateService/Watch", Some(Writer), true),
            ("/meta.MetaMemberService/Members", Some(Reader), false),
            ("/grpc.health.v1.Health/Check", None, false),
            ("/grpc.health.v1.Health/Watch", Some(Reader), true),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Some(Reader), true),
        ] {
            assert_eq!((role_of(path), is_costly(path)), (role, costly), "{path}");
        }
        for unknown in ["/x.Y/Z", "", "/", "x", "/metad.v1.ElectionService/", "//"] {
            assert_eq!((role_of(unknown), is_costly(unknown)), (Some(Reader), false), "{unknown:?}");
        }
    }
}
