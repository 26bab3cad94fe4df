//! Compiles the protocol definitions under `proto/`, with no protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(feature = "wire")]
    {
        println!("cargo::rerun-if-changed=proto");
        let files = [
            "envoy/service/auth/v3/external_auth.proto",
            "envoy/service/discovery/v3/ads.proto",
            "mesh/identity/v1/identity.proto",
            "mesh/keys/v1/keys.proto",
            "mesh/replicas/v1/replicas.proto",
        ];
        let descriptors = protox::compile(files, ["proto"])?;
        tonic_prost_build::configure().compile_fds(descriptors)?;
    }
    Ok(())
}
