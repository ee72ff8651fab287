//! The Kafka protocol, sans-IO: bytes in, values out, and back.
//!
//! Every request is walked against its shape ([`shape`]) before kafka-protocol decodes it, so that
//! no count or length is believed beyond the bytes that are there. Record batches are checked
//! views and are never encoded again.

pub mod api;
pub mod batch;
pub mod client;
mod codec;
pub mod error_code;
pub mod fetch;
pub mod frame;
mod lz4;
pub mod partitioner;
mod reader;
pub mod record;
pub mod shape;

pub use api::{
    ApiKey, EncodeError, Request, RequestError, RequestHeader, Response, decode_request,
    encode_response,
};
pub use error_code::ErrorCode;
pub use fetch::FetchResponse;
/// What a broker answered, by name.
pub use kafka_protocol::error::ResponseError;
/// The generated message structs: requests and responses of every key.
pub use kafka_protocol::messages;
/// The string type of the message structs.
pub use kafka_protocol::protocol::StrBytes;
