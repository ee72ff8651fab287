//! `taskwire topics`: the topics of any broker, with the range of each partition.

use super::kafka_client::{KafkaClient, Topic, VerbError};
use clap::Args;
use serde_json::json;
use std::{collections::BTreeMap, io::Write};

/// ListOffsets: the end of the log.
const LATEST: i64 = -1;
/// ListOffsets: its start.
const EARLIEST: i64 = -2;

/// List topics with their partitions and offsets
#[derive(Args, Clone, Debug)]
pub struct TopicsArgs {
    /// Only these topics
    #[arg(value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Lists the topics.
///
/// # Errors
/// See [`VerbError`].
pub async fn run(args: TopicsArgs, out: &mut dyn Write) -> Result<(), VerbError> {
    let mut client = KafkaClient::connect(&args.bootstrap).await?;
    let mut topics = Vec::new();
    if args.topics.is_empty() {
        topics = client.topics().await?;
    }
    for name in &args.topics {
        topics.push(client.topic(name).await?);
    }
    if !args.json {
        writeln!(
            out,
            "{:<40} {:>9} {:>12} {:>12} {:>12}",
            "TOPIC", "PARTITION", "START", "END", "OFFSETS"
        )?;
    }
    for topic in &topics {
        let starts = client.offsets(topic, EARLIEST).await?;
        let ends = client.offsets(topic, LATEST).await?;
        print(topic, &starts, &ends, args.json, out)?;
    }
    Ok(())
}

fn print(
    topic: &Topic,
    starts: &BTreeMap<i32, i64>,
    ends: &BTreeMap<i32, i64>,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<(), VerbError> {
    for partition in topic.leaders.keys() {
        let (start, end) = (starts.get(partition).copied(), ends.get(partition).copied());
        let count = start.zip(end).map(|(start, end)| end.saturating_sub(start));
        let name = &topic.name;
        if is_json {
            let line = json!({
                "topic": name, "partition": partition, "start": start, "end": end,
                "is_internal": topic.is_internal,
            });
            writeln!(out, "{line}")?;
        } else {
            let [start, end, count] = [start, end, count].map(or_dash);
            writeln!(out, "{name:<40} {partition:>9} {start:>12} {end:>12} {count:>12}")?;
        }
    }
    Ok(())
}

/// The number, or `-` where no leader tells it.
pub(super) fn or_dash(number: Option<i64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}
