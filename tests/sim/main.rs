//! The daemon on a simulated disk: crashed at every call that changes the disk, again while it
//! recovers, and with calls that fail. See docs/testing.md, "Simulated crashes".

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells its seed")]

mod check;
mod crash;
mod daemon;
mod model;
mod story;
mod workload;
