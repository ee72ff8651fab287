//! InitProducerId 0 to 4: a new id, epoch 0, for idempotent producers. Transactions are not served:
//! a transactional id is answered with UNSUPPORTED_VERSION, which clients report as "the broker has
//! no transactions" and do not retry.

use crate::{
    broker::Broker,
    wire::{
        ErrorCode,
        messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId},
    },
};

pub(in crate::broker) async fn handle(
    broker: &Broker,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |code: ErrorCode| {
        InitProducerIdResponse::default()
            .with_error_code(code.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        return refused(ErrorCode::UnsupportedVersion);
    }
    // An id in the request is of no use without a transactional id: a new one is always right.
    match broker.meta().allocate_producer_id().await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(0),
        Err(error) => {
            tracing::error!(%error, "no producer id could be given");
            refused(ErrorCode::KafkaStorageError)
        }
    }
}
