//! `taskwire import`: events of a file, one a line, to the topic that is applied, of any broker.
//!
//! The file is read twice: nothing is sent before every line is known to be an event. Each event
//! has an id, so an import that is repeated, or that was cut off, changes nothing twice.

use super::{
    kafka_client::{KafkaClient, Topic, VerbError},
    send::partition_of,
};
use crate::{
    clock::Clock,
    task::{
        event::{self, TaskEvent, VALUE_BYTES_MAX},
        time,
    },
    wire::record::{self, NewRecord},
};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, IsTerminal, Read, Write},
    path::PathBuf,
};

/// Most events of one request, and most bytes of them.
const EVENTS_PER_BATCH_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Send the events of a file, for example of another application's database. See
/// docs/integration.md
#[derive(Args, Clone, Debug)]
pub(super) struct ImportArgs {
    /// One event a line: {"type":"task_created","data":{"id":1,"title":"..","user_id":".."}}.
    /// One without event_id gets an id made of its type and data.id
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// The topic
    #[arg(long, default_value = "task-events")]
    topic: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Checks all lines, then sends their events in order; tells on standard error how many are sent.
///
/// # Errors
/// `Usage`: a line is no event; nothing is sent. Else see [`VerbError`]: repeat it.
pub(super) async fn run(args: ImportArgs, out: &mut dyn Write) -> Result<(), VerbError> {
    let mut total = 0_u64;
    for line in lines(&args)? {
        drop(line?);
        total += 1;
    }
    let mut client = KafkaClient::connect(&args.bootstrap).await?;
    let topic = client.topic_or_new(&args.topic).await?;
    let mut batches = Batches { topic, records: BTreeMap::new(), count: 0, bytes: 0 };
    let mut sent = 0_u64;
    for line in lines(&args)? {
        batches.add(line?);
        if batches.is_full() {
            sent += batches.send(&mut client).await?;
            tell(sent, total);
        }
    }
    sent += batches.send(&mut client).await?;
    tell(sent, total);
    if args.json {
        writeln!(out, "{}", json!({"topic": args.topic, "events": sent}))?;
    } else {
        writeln!(out, "{sent} events -> {}", args.topic)?;
    }
    Ok(())
}

/// On one line, where that is seen.
#[allow(clippy::print_stderr, reason = "a counter for whoever waits")]
fn tell(sent: u64, total: u64) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{sent} of {total} events{}", if sent == total { "\n" } else { "" });
    } else {
        eprintln!("{sent} of {total} events");
    }
}

/// The file's events; empty lines are passed over.
fn lines(
    args: &ImportArgs,
) -> Result<impl Iterator<Item = Result<NewRecord, VerbError>> + use<>, VerbError> {
    let name = args.file.display().to_string();
    let told = move |error| VerbError::Usage(format!("cannot read {name}: {error}"));
    let mut file = BufReader::new(File::open(&args.file).map_err(&told)?);
    let (mut number, line_max) = (0_u64, u64::try_from(VALUE_BYTES_MAX + 1).unwrap_or(u64::MAX));
    Ok(std::iter::from_fn(move || {
        loop {
            let mut line = Vec::new();
            match file.by_ref().take(line_max).read_until(b'\n', &mut line) {
                Err(error) => return Some(Err(told(error))),
                Ok(0) => return None,
                Ok(_) => number += 1,
            }
            if !line.trim_ascii().is_empty() {
                let refused = |why: String| VerbError::Usage(format!("line {number}: {why}"));
                return Some(record_of(line.trim_ascii()).map_err(refused));
            }
        }
    }))
}

/// The record of a line, at the time at which the event says that it happened.
fn record_of(line: &[u8]) -> Result<NewRecord, String> {
    let mut value: Value = serde_json::from_slice(line).map_err(|_| "not JSON".to_owned())?;
    let event = event::decode::<&[u8]>(Some(line), &[]).map_err(|no_event| no_event.detail)?;
    let Some(id) = event.body.task_id().map(ToString::to_string) else {
        return Err(format!("{:?} is no event of a task", event.event_type));
    };
    if event.event_id.is_none() {
        value["event_id"] = format!("import-{id}-{}", event.event_type).into();
    }
    Ok(NewRecord {
        timestamp_ms: happened_at(&event, &value).unwrap_or_else(|| Clock::system().now_ms()),
        key: Some(Bytes::from(id)),
        value: Some(value.to_string().into()),
        headers: Vec::new(),
    })
}

fn happened_at(event: &TaskEvent, value: &Value) -> Option<i64> {
    let name = match event.event_type.as_ref() {
        "task_created" => "created_at",
        "task_completed" => "completed_at",
        _ => "updated_at",
    };
    value["data"][name].as_str().and_then(time::parse)
}

/// What is collected for the next requests, by partition.
struct Batches {
    topic: Topic,
    records: BTreeMap<i32, Vec<NewRecord>>,
    count: usize,
    bytes: usize,
}

impl Batches {
    fn add(&mut self, record: NewRecord) {
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let partition = partition_of(key, &self.topic);
        self.count += 1;
        self.bytes += record.value.as_ref().map_or(0, Bytes::len);
        self.records.entry(partition).or_default().push(record);
    }

    const fn is_full(&self) -> bool {
        self.count >= EVENTS_PER_BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    async fn send(&mut self, client: &mut KafkaClient) -> Result<u64, VerbError> {
        let mut sent = 0;
        for (partition, records) in std::mem::take(&mut self.records) {
            // One record may be as large as a batch may be; several are then sent one by one.
            let size = if self.bytes > VALUE_BYTES_MAX { 1 } else { records.len() };
            for records in records.chunks(size) {
                let (_, batch) = record::encode(records).stamp(0, -1);
                client.produce(&self.topic, partition, batch).await?;
                sent += u64::try_from(records.len()).unwrap_or(u64::MAX);
            }
        }
        (self.count, self.bytes) = (0, 0);
        Ok(sent)
    }
}
