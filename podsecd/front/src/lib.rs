//! The only process of podsecd that speaks HTTP/2: gRPC of one caller on one side, checked operations on the other.
//!
//! Owns reading what a stranger sent ([`dispatch`], one module a service: [`identity`], [`namespace`], [`audit`],
//! [`users`], [`keys`], [`trust`], [`signatures`], [`services`], [`health`]), telling him what came of it ([`status`]),
//! the limits of his connection ([`serve`]), the channel to the gate ([`gate`]), and its own cage ([`sandbox`]).
//!
//! Must not hold authority or decide anything. It names no caller: whatever it asks for counts as its own
//! connection's peer. So who takes a front over has, at the gate, the rights that he had before.

#![forbid(unsafe_code)]

pub mod audit;
pub mod checks;
mod dispatch;
pub mod gate;
pub mod health;
pub mod identity;
pub mod keys;
pub mod namespace;
pub mod sandbox;
pub mod serve;
pub mod services;
pub mod signatures;
pub mod status;
pub mod trust;
pub mod users;
