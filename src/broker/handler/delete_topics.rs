//! DeleteTopics 1 to 5: the topic and its files. The daemon's own topics stay (POLICY_VIOLATION).

use super::message;
use crate::{
    broker::{Broker, topics::TopicError},
    position::TopicName,
    wire::{
        ErrorCode,
        messages::{
            DeleteTopicsRequest, DeleteTopicsResponse, delete_topics_response::DeletableTopicResult,
        },
    },
};

pub(in crate::broker) async fn handle(
    broker: &Broker,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let mut responses = Vec::new();
    for name in request.topic_names {
        let deleted = match TopicName::new(&name) {
            Some(valid) => broker.delete_topic(valid).await,
            None => Err(TopicError::Unknown),
        };
        let mut result = DeletableTopicResult::default().with_name(Some(name));
        if let Err(error) = deleted {
            result.error_code = ErrorCode::from(&error).code();
            result.error_message = message(error).filter(|_| version >= ERROR_MESSAGE_VERSION);
        }
        responses.push(result);
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

/// First version with `error_message`.
const ERROR_MESSAGE_VERSION: i16 = 5;
