//! The `taskwire` binary.

fn main() {}
