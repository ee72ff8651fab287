//! `taskwire records`: the records of a topic of any broker, as they are or as they come.

use super::kafka_client::{ClientError, KafkaClient, Topic, VerbError};
use crate::wire::{
    ResponseError,
    batch::{self, BatchHeader},
    messages::fetch_response::PartitionData,
    record::{Record, Records},
};
use bytes::{Buf, Bytes};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt::Write as _, io::Write, str::FromStr, time::Duration};

/// ListOffsets: the end of the log.
const LATEST: i64 = -1;
/// ListOffsets: its start.
const EARLIEST: i64 = -2;
/// How long a broker may wait for a record before it answers.
const FETCH_WAIT: Duration = Duration::from_millis(500);
/// Fetches without a record below the end before we give up: 10 s.
const EMPTY_ROUNDS_MAX: u32 = 20;
/// What a batch may unfold to.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;
/// Characters of a value that are shown in a line.
const VALUE_CHARS_MAX: usize = 200;

/// Where to begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StartAt {
    /// The oldest record.
    Earliest,
    /// Only what comes.
    Latest,
    /// This offset.
    Offset(i64),
}

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            offset => offset
                .parse()
                .ok()
                .filter(|offset| *offset >= 0)
                .map(Self::Offset)
                .ok_or_else(|| "neither an offset nor earliest or latest".to_owned()),
        }
    }
}

/// Print the records of a topic
#[derive(Args, Clone, Debug)]
pub struct RecordsArgs {
    /// The topic
    pub topic: String,
    /// Only this partition
    #[arg(long)]
    pub partition: Option<i32>,
    /// An offset, earliest or latest
    #[arg(long, default_value = "earliest")]
    pub from: StartAt,
    /// At most so many records
    #[arg(long)]
    pub limit: Option<u64>,
    /// Wait for new records instead of ending with the last one
    #[arg(long, short)]
    pub follow: bool,
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Prints the records.
///
/// # Errors
/// See [`VerbError`].
pub async fn run(args: RecordsArgs, out: &mut dyn Write) -> Result<(), VerbError> {
    let mut client = KafkaClient::connect(&args.bootstrap).await?;
    let topic = client.topic(&args.topic).await?;
    if let Some(partition) = args.partition {
        // Tells a partition that is not there, or has no leader.
        client.leader(&topic, partition)?;
    }
    let mut reading = Reading {
        places: places(&mut client, &topic, &args).await?,
        left: args.limit.unwrap_or(u64::MAX),
        args,
    };
    let mut empty_rounds = 0;
    while !reading.is_done() {
        let before = reading.places.clone();
        reading.round(&mut client, &topic, out).await?;
        out.flush()?;
        empty_rounds = if reading.places == before { empty_rounds + 1 } else { 0 };
        if empty_rounds > EMPTY_ROUNDS_MAX && !reading.args.follow {
            return Err(reading.stuck());
        }
    }
    Ok(())
}

/// Where each partition is read, and where it ends unless it is followed.
type Places = BTreeMap<i32, (i64, i64)>;

async fn places(
    client: &mut KafkaClient,
    topic: &Topic,
    args: &RecordsArgs,
) -> Result<Places, ClientError> {
    let starts = client.offsets(topic, EARLIEST).await?;
    let ends = client.offsets(topic, LATEST).await?;
    let place = |(partition, start): (i32, i64)| {
        let end = ends.get(&partition).copied()?;
        let from = match args.from {
            StartAt::Earliest => start,
            StartAt::Latest => end,
            StartAt::Offset(offset) => offset.max(start),
        };
        Some((partition, (from, end)))
    };
    Ok(starts
        .into_iter()
        .filter(|(partition, _)| args.partition.is_none_or(|only| only == *partition))
        .filter_map(place)
        .collect())
}

struct Reading {
    args: RecordsArgs,
    places: Places,
    left: u64,
}

impl Reading {
    fn is_done(&self) -> bool {
        self.left == 0 || self.wanted().next().is_none()
    }

    /// Partitions that are not read to their end.
    fn wanted(&self) -> impl Iterator<Item = i32> {
        let is_wanted = |(next, end): &(i64, i64)| self.args.follow || next < end;
        self.places.iter().filter(move |(_, place)| is_wanted(place)).map(|(index, _)| *index)
    }

    /// One fetch from each leader.
    async fn round(
        &mut self,
        client: &mut KafkaClient,
        topic: &Topic,
        out: &mut dyn Write,
    ) -> Result<(), VerbError> {
        for (leader, partitions) in client.by_leader(topic, self.wanted()) {
            let from: Vec<(i32, i64)> =
                partitions.iter().map(|index| (*index, self.places[index].0)).collect();
            for data in client.fetch(&leader, &topic.name, &from, FETCH_WAIT).await? {
                self.partition(&data, out)?;
            }
        }
        Ok(())
    }

    fn partition(&mut self, data: &PartitionData, out: &mut dyn Write) -> Result<(), VerbError> {
        let index = data.partition_index;
        if let Some(code) = ResponseError::try_from_code(data.error_code) {
            let what = format!("fetch from {}/{index}", self.args.topic);
            return Err(ClientError::Refused { what, code }.into());
        }
        let Some((mut next, end)) = self.places.get(&index).copied() else {
            return Ok(());
        };
        let mut bytes = data.records.clone().unwrap_or_default();
        // The last batch may be cut off.
        while let Some((header, records)) =
            next_batch(&mut bytes).map_err(|reason| self.unreadable(index, next, reason))?
        {
            let records = records.into_iter().flatten();
            for record in records.filter(|record| record.offset >= next) {
                if self.left == 0 || !self.args.follow && record.offset >= end {
                    break;
                }
                self.left -= 1;
                let line = if self.args.json { to_json } else { to_text };
                writeln!(out, "{}", line(&self.args.topic, index, &record))?;
            }
            next = next.max(header.last_offset().saturating_add(1));
        }
        self.places.insert(index, (next, end));
        Ok(())
    }

    /// Records are said to be there, and do not come.
    fn stuck(&self) -> VerbError {
        let index = self.wanted().next().unwrap_or_default();
        let next = self.places.get(&index).map_or(-1, |(next, _)| *next);
        self.unreadable(index, next, "the broker gives none".to_owned())
    }

    fn unreadable(&self, partition: i32, offset: i64, reason: String) -> VerbError {
        VerbError::Records { topic: self.args.topic.clone(), partition, offset, reason }
    }
}

/// The next whole batch; control batches have no records for us.
fn next_batch(bytes: &mut Bytes) -> Result<Option<(BatchHeader, Option<Records>)>, String> {
    let header = match BatchHeader::parse(bytes) {
        Err(batch::BatchError::Truncated) => return Ok(None),
        outcome => outcome.map_err(|error| error.to_string())?,
    };
    if !batch::check_crc(bytes, &header) {
        return Err(batch::BatchError::Crc.to_string());
    }
    let records = if header.is_control() {
        None
    } else {
        let opened = Records::open(bytes, &header, DECOMPRESSED_BYTES_MAX);
        Some(opened.map_err(|error| error.to_string())?)
    };
    bytes.advance(header.size_bytes);
    Ok(Some((header, records)))
}

fn to_text(topic: &str, partition: i32, record: &Record) -> String {
    let mut line = format!(
        "{topic}/{partition} {} {} {} {}",
        record.offset,
        time(record.timestamp_ms),
        record.key.as_deref().map_or_else(|| "-".to_owned(), printable),
        record.value.as_deref().map_or_else(|| "null".to_owned(), printable),
    );
    for (name, value) in &record.headers {
        let value = value.as_deref().map_or_else(|| "null".to_owned(), printable);
        write!(line, " [{}: {value}]", printable(name)).expect("a string takes all");
    }
    line
}

/// Text without what a terminal would obey, cut after [`VALUE_CHARS_MAX`] characters.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == VALUE_CHARS_MAX {
            shown.push_str("...");
            break;
        }
        if char.is_control() {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

fn time(timestamp_ms: i64) -> String {
    Timestamp::from_millisecond(timestamp_ms)
        .map_or_else(|_| timestamp_ms.to_string(), |time| format!("{time:.3}"))
}

fn to_json(topic: &str, partition: i32, record: &Record) -> String {
    let headers = record.headers.iter().map(|(name, value)| {
        let name = String::from_utf8_lossy(name);
        let mut header = Map::from_iter([("name".to_owned(), Value::from(name))]);
        put_bytes(&mut header, "value", value.as_deref());
        Value::from(header)
    });
    let headers: Vec<Value> = headers.collect();
    let mut line = Map::new();
    line.insert("topic".to_owned(), json!(topic));
    line.insert("partition".to_owned(), json!(partition));
    line.insert("offset".to_owned(), json!(record.offset));
    line.insert("timestamp_ms".to_owned(), json!(record.timestamp_ms));
    line.insert("time".to_owned(), json!(time(record.timestamp_ms)));
    put_bytes(&mut line, "key", record.key.as_deref());
    put_bytes(&mut line, "value", record.value.as_deref());
    line.insert("headers".to_owned(), Value::from(headers));
    Value::from(line).to_string()
}

/// Text under the name; what is no UTF-8 in hexadecimal digits under `<name>_hex`.
fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, str::from_utf8(bytes))) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((_, Ok(text))) => object.insert(name.to_owned(), json!(text)),
        Some((bytes, Err(_))) => {
            let mut hex = String::new();
            for byte in bytes {
                write!(hex, "{byte:02x}").expect("a string takes all");
            }
            object.insert(format!("{name}_hex"), json!(hex))
        }
    };
}
