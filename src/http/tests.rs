//! The whole port over real sockets, with the real apply, store and hub behind it; only the log is
//! a double, so that it can be full, gone or slow.

mod admin;
mod batch;
mod changes;
mod due;
mod limits;
mod model;
mod rest;
mod slow_sockets;
mod socket;
mod sse;
pub(super) mod support;
mod v1;
