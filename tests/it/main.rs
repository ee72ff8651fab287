//! The daemon as its users meet it: the real binary, real sockets on free ports, a real directory.

mod admin;
mod auth;
mod backup;
mod bad_input;
mod counted;
mod cross_user;
mod damage;
mod due;
mod flips;
mod full_disk;
mod idempotence;
mod kafka;
mod letters;
mod limits;
mod origin;
mod port_abuse;
mod rest;
mod restart;
mod secrets;
mod slow_peers;
mod slow_readers;
mod socket;
mod startup;
mod strace;
mod support;
mod ws_protocol;
