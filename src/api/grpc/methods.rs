//! The methods that are served, as the descriptors list them: a request for another one must not become a label.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;

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
    #[prost(bool, optional, tag = "5")]
    client_streaming: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    server_streaming: Option<bool>,
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
            for labels in FileSet::decode(*set)?.methods() {
                let path = format!("/{}/{}", labels.grpc_service, labels.grpc_method);
                by_path.insert(path, Arc::new(metrics.method(labels)));
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
    fn methods(&self) -> impl Iterator<Item = MethodLabels> {
        let services = self.files.iter().flat_map(|file| {
            let package = file.package.as_deref().unwrap_or_default();
            file.services
                .iter()
                .map(move |s| (format!("{package}.{}", s.name.as_deref().unwrap_or_default()), s))
        });
        services.flat_map(|(grpc_service, service)| {
            service.methods.iter().map(move |method| MethodLabels {
                grpc_service: grpc_service.clone(),
                grpc_method: method.name.clone().unwrap_or_default(),
                grpc_type: method.kind(),
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
    use crate::api::auth;

    #[test]
    fn the_descriptors_name_every_method_and_its_kind() {
        let set = FileSet::decode(crate::proto::DESCRIPTORS).expect("a descriptor set");
        let all: Vec<_> =
            set.methods().map(|m| (format!("{}/{}", m.grpc_service, m.grpc_method), m.grpc_type)).collect();
        for expected in [
            ("metad.v1.ElectionService/Leader", "unary"),
            ("metad.v1.ElectionService/Observe", "server_stream"),
            ("metad.v1.BarrierService/Stream", "bidi_stream"),
            ("meta.MetaMemberService/Members", "unary"),
        ] {
            assert!(all.contains(&(expected.0.to_owned(), expected.1)), "{expected:?} in {all:?}");
        }
    }

    #[test]
    fn each_method_has_its_rule_of_who_may_call_it() {
        let sets = [
            crate::proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ];
        for set in sets {
            for m in FileSet::decode(set).expect("a descriptor set").methods() {
                let path = format!("/{}/{}", m.grpc_service, m.grpc_method);
                assert!(auth::named(&path).is_some(), "which role does {path} take?");
            }
        }
    }
}
