//! Compiles the `.proto` files with protox, so that nobody needs `protoc`.
//!
//! Server and client code come from two passes, because they read strangers differently: the server's codec
//! refuses what it does not know, the client's must accept the answers of a newer server.

use prost::Message as _;

const FILES: &[&str] = &[
    "podsec/v1/identity.proto",
    "podsec/v1/namespace.proto",
    "podsec/v1/audit.proto",
    "podsec/v1/users.proto",
    "podsec/v1/keys.proto",
    "podsec/v1/trust.proto",
    "podsec/v1/signatures.proto",
    "podsec/v1/services.proto",
    "podsec/v1/checks.proto",
];
/// Messages with a secret: what they print is written by hand, in `src/lib.rs`.
const SECRET: &[&str] =
    &[".podsec.v1.SetPasswordRequest", ".podsec.v1.SigningKey", ".podsec.v1.RegistryCredential"];

#[allow(clippy::disallowed_methods, reason = "cargo alone looks at its build directory")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let server = out.join("server");
    std::fs::create_dir_all(&server)?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .codec_path("crate::StrictCodec")
        .skip_debug(SECRET)
        .out_dir(&server)
        .compile_fds(descriptors.clone())?;

    let client = out.join("client");
    std::fs::create_dir_all(&client)?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .extern_path(".podsec.v1", "crate::v1")
        .out_dir(&client)
        .compile_fds(descriptors)?;
    Ok(())
}
