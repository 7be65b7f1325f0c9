//! Generates the Rust types of the protocol files in this folder. Needs `protoc` (Debian: protobuf-compiler).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    #[cfg(feature = "client")]
    generate()?;
    Ok(())
}

#[cfg(feature = "client")]
fn generate() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure().file_descriptor_set_path(out.join("metad.bin")).compile_protos(
        &[
            "proto/metad.proto",
            "proto/cluster.proto",
            "proto/checks.proto",
            "proto/meta.proto",
            "proto/common.proto",
        ],
        &["proto"],
    )?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_protos(&["proto/etcd_lease.proto"], &["proto"])?;
    Ok(())
}
