//! Generates the Rust types of the protocol files in this folder. Needs `protoc` (Debian: protobuf-compiler).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    #[cfg(feature = "client")]
    generate()?;
    Ok(())
}

#[cfg(feature = "client")]
fn generate() -> Result<(), Box<dyn std::error::Error>> {
    use std::path::PathBuf;

    // A part of etcd's API: we call it, and serve nothing of it.
    let etcd = PathBuf::from("proto/etcd_lease.proto");
    let files =
        std::fs::read_dir("proto")?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let is_ours = |file: &PathBuf| file.extension().is_some_and(|ext| ext == "proto") && *file != etcd;
    let mut ours: Vec<_> = files.into_iter().filter(is_ours).collect();
    ours.sort();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = out.join("metad.bin");
    tonic_prost_build::configure()
        .file_descriptor_set_path(descriptors)
        .compile_protos(&ours, &["proto".into()])?;
    tonic_prost_build::configure().build_server(false).compile_protos(&[etcd], &["proto".into()])?;
    Ok(())
}
