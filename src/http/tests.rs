//! The whole port over real sockets, with the real apply, store and hub behind it; only the log is
//! a double, so that it can be full, gone or slow.

mod admin;
mod batch;
mod due;
mod limits;
mod model;
mod rest;
mod slow_sockets;
mod socket;
pub(super) mod support;
