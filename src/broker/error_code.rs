//! The only mapping of the broker's errors to Kafka's error codes.

use super::{ProduceError, configs::ConfigError, topics::TopicError};
use crate::{
    log::ReadError,
    wire::{ErrorCode, batch::BatchError},
};

impl From<&ProduceError> for ErrorCode {
    fn from(error: &ProduceError) -> Self {
        match error {
            ProduceError::UnknownTopicOrPartition => Self::UnknownTopicOrPartition,
            ProduceError::MessageTooLarge { .. } => Self::MessageTooLarge,
            ProduceError::OutOfOrderSequence => Self::OutOfOrderSequenceNumber,
            ProduceError::InvalidProducerEpoch => Self::InvalidProducerEpoch,
            ProduceError::Full | ProduceError::Storage => Self::KafkaStorageError,
        }
    }
}

impl From<&BatchError> for ErrorCode {
    fn from(error: &BatchError) -> Self {
        match error {
            BatchError::Truncated | BatchError::Crc => Self::CorruptMessage,
            BatchError::Magic(_) => Self::UnsupportedForMessageFormat,
            BatchError::Field("codec") => Self::UnsupportedCompressionType,
            BatchError::Field(_) => Self::InvalidRecord,
        }
    }
}

impl From<&ReadError> for ErrorCode {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::OutOfRange { .. } => Self::OffsetOutOfRange,
            ReadError::Corrupt { .. } => Self::CorruptMessage,
            ReadError::Io(_) => Self::KafkaStorageError,
        }
    }
}

impl From<&ConfigError> for ErrorCode {
    fn from(error: &ConfigError) -> Self {
        match error {
            ConfigError::Unknown(_) | ConfigError::Value { .. } | ConfigError::Length { .. } => {
                Self::InvalidConfig
            }
            ConfigError::Reserved => Self::PolicyViolation,
        }
    }
}

impl From<&TopicError> for ErrorCode {
    fn from(error: &TopicError) -> Self {
        match error {
            TopicError::Exists(_) => Self::TopicAlreadyExists,
            TopicError::Unknown => Self::UnknownTopicOrPartition,
            TopicError::Partitions(_) => Self::InvalidPartitions,
            TopicError::Config(error) => error.into(),
            TopicError::Reserved | TopicError::Bound => Self::PolicyViolation,
            TopicError::Storage => Self::KafkaStorageError,
        }
    }
}
