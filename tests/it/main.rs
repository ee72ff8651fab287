//! The daemon as its users meet it: the real binary, real sockets on free ports, a real directory.

mod idempotence;
mod kafka;
mod limits;
mod port_abuse;
mod rest;
mod restart;
mod socket;
mod startup;
mod support;
