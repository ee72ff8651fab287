//! The daemon as its users meet it: the real binary, real sockets on free ports, a real directory.

mod admin;
mod backup;
mod counted;
mod idempotence;
mod kafka;
mod letters;
mod limits;
mod rest;
mod restart;
mod slow_peers;
mod socket;
mod startup;
mod support;
mod ws_protocol;
