//! The generated types of the files in `proto/`. Nothing is written by hand here.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

/// metad's own services.
pub mod metad {
    tonic::include_proto!("metad.v1");
}

/// RisingWave's member service.
pub mod meta {
    tonic::include_proto!("meta");
}

/// RisingWave's common types.
pub mod common {
    tonic::include_proto!("common");
}

/// The part of etcd's API that etcd-client hides.
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// The descriptors of our services, for reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("metad");
