//! What the cluster user's side knows: its configuration, rootlesskit's state directory and HTTP API, and the ports
//! that outlive a restart.
//!
//! Owns: the files below the state directory and `ports.json`. Must not: hold or ask for any privilege. podsecd's
//! worker links this library too, but calls it only once it has become the cluster user for good; so there is no
//! thread, no global state, no name service look-up here, and every wait has an end.
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod files;
pub mod ports;
pub mod rootlesskit;
