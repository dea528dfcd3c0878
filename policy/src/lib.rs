//! What podsec decides, as pure functions over validated types.
//!
//! Owns the names and requests that may reach the privileged side ([`operation`]), the caller as a set of facts
//! ([`peer`]), the one table of who may ask what ([`rules`]), the reasons of every refusal ([`reason`]), the
//! form of an audit record ([`audit`]), what monitors find ([`finding`]) and the daemon's configuration ([`config`]); with the feature `documents`, the
//! documents by which images are trusted (`containers`).
//!
//! Must not do: open, read, write, look up or wait for anything. Time, uids and files come in as values.

#![forbid(unsafe_code)]

/// A type with one constructor, which reading and writing go through (serde's `try_from` and `into`).
macro_rules! checked {
    ($type:ident($raw:ty), $error:ty) => {
        impl TryFrom<$raw> for $type {
            type Error = $error;
            fn try_from(raw: $raw) -> Result<Self, $error> {
                Self::new(raw)
            }
        }

        impl From<$type> for $raw {
            fn from(checked: $type) -> Self {
                checked.0
            }
        }
    };
}
pub(crate) use checked;

pub mod accounts;
pub mod audit;
pub mod config;
#[cfg(feature = "documents")]
pub mod containers;
pub mod denials;
pub mod enter;
pub mod finding;
pub mod glob;
pub mod name;
pub mod operation;
pub mod peer;
pub mod port;
pub mod reason;
pub mod rules;
pub mod secret;
#[cfg(feature = "documents")]
pub mod trivy;
pub mod trust;
pub mod user;

pub use operation::Operation;
pub use peer::{Peer, Role, Roles};
pub use reason::Reason;
pub use rules::{Denied, Permit, authorize};
