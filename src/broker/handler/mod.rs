//! One file per API, named as Kafka names it. A handler takes the decoded request and gives the
//! response; the connection encodes it.

pub(in crate::broker) mod groups;
