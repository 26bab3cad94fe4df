//! Compiles the catalog's gRPC definition, with no protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    tonic_prost_build::configure().compile_fds(protox::compile(["catalog.proto"], ["proto"])?)?;
    Ok(())
}
