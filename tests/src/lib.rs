//! What the end-to-end tests and benchmarks share: the throwaway host with podsec on it ([`host`]), its people
//! ([`people`]), clients of every kind ([`client`]), and the oracle that every test ends with ([`oracle`]).
//!
//! Everything here runs as root on a host that is thrown away; panics are how a test fails.

#![forbid(unsafe_code)]

pub mod client;
pub mod host;
pub mod oracle;
pub mod peer;
pub mod people;
pub mod role;
pub mod terminal;
