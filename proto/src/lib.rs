//! podsec's gRPC interface: generated messages, server traits, clients and the descriptor set.
//!
//! Owns nothing but the generated code and the codec that reads strangers' bytes. Validation lives in
//! `podsec-policy`, authority nowhere near.

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "generated items carry the comments of the .proto files")]
#![allow(clippy::doc_markdown, clippy::large_enum_variant, clippy::derive_partial_eq_without_eq)]

/// Messages and server traits of package `podsec.v1`.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/server/podsec.v1.rs"));
}

impl std::fmt::Debug for v1::SetPasswordRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetPasswordRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for v1::SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields = (&self.algorithm, &self.days, !self.passphrase.is_empty());
        f.debug_tuple("SigningKey").field(&fields).finish()
    }
}

impl std::fmt::Debug for v1::RegistryCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryCredential").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Clients of package `podsec.v1`.
#[cfg(feature = "client")]
pub mod client {
    include!(concat!(env!("OUT_DIR"), "/client/podsec.v1.rs"));
}

/// The encoded `FileDescriptorSet` of every `.proto` file, for reflection and for the test that holds the
/// rules against it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

mod codec;
pub use codec::StrictCodec;
