//! The daemon as its users meet it: the real binary, real sockets on free ports, a real directory.

mod admin;
mod bad_input;
mod idempotence;
mod kafka;
mod limits;
mod rest;
mod restart;
mod slow_peers;
mod socket;
mod startup;
mod support;
mod ws_protocol;
