//! The Kafka side of the bench.

use super::{Outcome, bench::Bench};
use crate::{
    causes::chain,
    cli::{
        kafka_client::{ClientError, KafkaClient},
        records::{self, RecordsArgs, StartAt},
    },
    clock::Clock,
    wire::record::{self, NewRecord},
};
use bytes::Bytes;
use serde_json::Value;

/// One partition for all, so that the events of a step keep their order.
const PARTITION: i32 = 0;
/// ListOffsets: the end of the log.
const LATEST: i64 = -1;

impl Bench {
    /// Produces one record to the applied topic.
    pub(super) async fn produce(
        &self,
        key: &str,
        value: &[u8],
        headers: &[(&str, &str)],
    ) -> Outcome {
        let header = |(name, value): &(&str, &str)| {
            let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
            (bytes(name), Some(bytes(value)))
        };
        let record = NewRecord {
            timestamp_ms: Clock::system().now_ms(),
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::copy_from_slice(value)),
            headers: headers.iter().map(header).collect(),
        };
        let (_, batch) = record::encode(&[record]).stamp(0, -1);
        let produce = async {
            let mut client = KafkaClient::connect(&self.bootstrap).await?;
            let topic = client.topic_or_new(self.topic.as_str()).await?;
            client.produce(&topic, PARTITION, batch).await
        };
        produce.await.map(drop).map_err(|error: ClientError| chain(&error))
    }

    /// Where the topic ends now; 0 if it is not there yet.
    pub(super) async fn end(&self, topic: &str) -> Result<i64, String> {
        let look = async {
            let mut client = KafkaClient::connect(&self.bootstrap).await?;
            match client.topic(topic).await {
                Ok(topic) => client.offsets(&topic, LATEST).await,
                Err(ClientError::Refused { .. }) => Ok(Default::default()),
                Err(error) => Err(error),
            }
        };
        let ends = look.await.map_err(|error| chain(&error))?;
        Ok(ends.get(&PARTITION).copied().unwrap_or_default())
    }

    /// Values of a topic's records from an offset on.
    pub(super) async fn values(&self, topic: &str, from: i64) -> Result<Vec<String>, String> {
        let args = RecordsArgs {
            topic: topic.to_owned(),
            partition: Some(PARTITION),
            from: StartAt::Offset(from),
            limit: None,
            follow: false,
            bootstrap: self.bootstrap.clone(),
            json: true,
        };
        let mut lines = Vec::new();
        records::run(args, &mut lines).await.map_err(|error| chain(&error))?;
        let text = String::from_utf8_lossy(&lines);
        let values = text.lines().filter_map(|line| {
            let record: Value = serde_json::from_str(line).ok()?;
            record["value"].as_str().map(str::to_owned)
        });
        Ok(values.collect())
    }
}
