//! The only crate with `unsafe`: what std and nix lack, each call wrapped so that it cannot be misused.
//!
//! Owns sockets with their peers and passed descriptors ([`socket`]), processes as descriptors ([`process`]),
//! programs of the host ([`program`]), identities and capabilities ([`credentials`]), namespaces ([`namespace`]), terminals
//! ([`terminal`]), what systemd passes ([`systemd`]), events of file systems ([`fanotify`]) and
//! files in places that others can write ([`file`]). Must not decide anything: no rule, no name of a user, no
//! path of podsec's is in here.

pub mod credentials;
pub mod fanotify;
pub mod file;
pub mod namespace;
pub mod process;
pub mod program;
pub mod socket;
pub mod systemd;
pub mod terminal;

pub use nix;
