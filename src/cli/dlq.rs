//! `taskwire dlq`: dead letters listed, shown, sent again, dismissed.

use super::{
    Failure,
    admin::{AdminArgs, AdminClient},
    output,
};
use crate::config::Flags;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// Arguments of `dlq`.
#[derive(Debug, Args)]
pub(super) struct DlqArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List dead letters, oldest first
    Ls(LsArgs),
    /// Show one, with its record's bytes
    Show(ShowArgs),
    /// Send them to the topic again, each under its event's id
    Redrive(RedriveArgs),
    /// Leave one as it is, for good
    Dismiss(DismissArgs),
}

#[derive(Debug, Args)]
struct LsArgs {
    /// Only of this reason
    #[arg(long)]
    reason: Option<String>,
    /// Only in this state
    #[arg(long, value_parser = ["open", "redriven", "dismissed"])]
    state: Option<String>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// As `ls` lists it
    id: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// Print the record's value alone, byte for byte
    #[arg(long, conflicts_with = "json")]
    value: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
struct RedriveArgs {
    /// One letter
    #[arg(group = "which")]
    id: Option<String>,
    /// All open letters of this reason
    #[arg(long, group = "which")]
    reason: Option<String>,
    /// All open letters
    #[arg(long, group = "which")]
    all: bool,
    /// File with the mended value of the one letter; `-` is standard input
    #[arg(long, value_name = "FILE", requires = "id")]
    value: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct DismissArgs {
    /// As `ls` lists it
    id: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Time for one request of a bulk redrive: up to 500 records, each synced with its group.
const BULK_TIMEOUT: Duration = Duration::from_secs(600);
const PATH: &str = "/api/admin/dead-letters";

/// Does what was asked for.
pub(super) async fn run(args: DlqArgs, outer: &Flags) -> Result<(), Failure> {
    match args.verb {
        Verb::Ls(args) => list(args, outer).await,
        Verb::Show(args) => show(args, outer).await,
        Verb::Redrive(args) => redrive(args, outer).await,
        Verb::Dismiss(args) => {
            let path = letter_path(&args.id)?;
            let client = args.admin.client(outer)?;
            let answer = client.post(&format!("{path}/dismiss"), None).await?;
            print(&answer, args.json, |answer| format!("{} is dismissed", text(&answer["id"])))
        }
    }
}

async fn list(args: LsArgs, outer: &Flags) -> Result<(), Failure> {
    let client = args.admin.client(outer)?;
    let mut path = format!("{PATH}?limit=1000");
    for (name, value) in [("reason", &args.reason), ("state", &args.state)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", plain("--reason", value)?));
        }
    }
    let mut is_first = true;
    client
        .list(&path, |letter| {
            if args.json {
                return output::line(letter);
            }
            if std::mem::take(&mut is_first) {
                output::line(row(["ID", "STATE", "REASON", "SOURCE", "AT", "DETAIL"]))?;
            }
            let source = source(letter);
            let fields = ["id", "state", "reason", "at", "detail"].map(|name| text(&letter[name]));
            let [id, state, reason, at, detail] = fields;
            output::line(row([&id, &state, &reason, &source, &at, &detail]))
        })
        .await
}

fn row(fields: [&str; 6]) -> String {
    let [id, state, reason, source, at, detail] = fields;
    format!("{id:<10} {state:<9} {reason:<15} {source:<22} {at:<24} {detail}")
}

async fn show(args: ShowArgs, outer: &Flags) -> Result<(), Failure> {
    let path = letter_path(&args.id)?;
    let letter = args.admin.client(outer)?.get(&path).await?;
    if args.value {
        let value = value_of(&letter)?;
        let mut out = io::stdout().lock();
        out.write_all(&value)?;
        return Ok(out.flush()?);
    }
    if args.json {
        return output::line(letter);
    }
    let source = source(&letter);
    for name in ["id", "state", "reason", "detail", "event_id", "source", "at", "timestamp"] {
        let value = if name == "source" { source.clone() } else { text(&letter[name]) };
        output::line(format!("{name:<10} {value}"))?;
    }
    output::line(format!("{:<10} {}", "key", shown(&letter, "key")))?;
    for header in letter["headers"].as_array().into_iter().flatten() {
        let (name, value) = (shown(header, "name"), shown(header, "value"));
        output::line(format!("{:<10} {name}: {value}", "header"))?;
    }
    output::line(format!("{:<10} {}", "value", shown(&letter, "value")))
}

async fn redrive(args: RedriveArgs, outer: &Flags) -> Result<(), Failure> {
    let client = args.admin.client(outer)?;
    let Some(id) = &args.id else {
        let which = match &args.reason {
            Some(reason) => format!("reason={}", plain("--reason", reason)?),
            None => "all=true".to_owned(),
        };
        let client = client.with_timeout(BULK_TIMEOUT);
        return redrive_all(&client, &which, args.json).await;
    };
    let mended = args.value.as_deref().map(read_value).transpose()?;
    let path = format!("{}/redrive", letter_path(id)?);
    let answer = match mended {
        Some(value) => client.post_bytes(&path, value).await?,
        None => client.post(&path, None).await?,
    };
    print(&answer, args.json, |answer| {
        let outcome = match answer["outcome"].as_str() {
            None => "not applied yet".to_owned(),
            Some("dead_letter") => format!("a dead letter again: {}", text(&answer["reason"])),
            Some("waiting") => "it waits for its task".to_owned(),
            Some(other) => other.to_owned(),
        };
        let (id, record) = (text(&answer["id"]), text(&answer["record"]));
        format!("{id} is redriven as {record}: {outcome}")
    })
}

/// Page by page until none is open.
async fn redrive_all(client: &AdminClient, which: &str, is_json: bool) -> Result<(), Failure> {
    let (mut redriven, mut skipped, mut cursor) = (0, 0, None);
    loop {
        let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let answer = client.post(&format!("{PATH}/redrive?{which}{after}"), None).await?;
        redriven += answer["redriven"].as_u64().unwrap_or(0);
        skipped += answer["skipped"].as_u64().unwrap_or(0);
        match answer["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    let answer = serde_json::json!({ "redriven": redriven, "skipped": skipped });
    print(&answer, is_json, |_| match skipped {
        0 => format!("{redriven} redriven"),
        skipped => {
            format!("{redriven} redriven, {skipped} skipped: no record, or one that is too large")
        }
    })
}

fn print(
    answer: &Value,
    is_json: bool,
    words: impl FnOnce(&Value) -> String,
) -> Result<(), Failure> {
    if is_json { output::line(answer) } else { output::line(words(answer)) }
}

fn read_value(path: &Path) -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().read_to_end(&mut value).map(drop)
    } else {
        fs::read(path).map(|read| value = read)
    };
    read.map_err(|error| Failure::Failed(format!("cannot read {}: {error}", path.display())))?;
    if value.is_empty() {
        return Err(Failure::Failed(format!("{} is empty", path.display())));
    }
    Ok(value.into())
}

fn letter_path(id: &str) -> Result<String, Failure> {
    Ok(format!("{PATH}/{}", plain("ID", id)?))
}

/// What needs no escape in a path or query.
fn plain<'a>(name: &str, text: &'a str) -> Result<&'a str, Failure> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Ok(text);
    }
    Err(Failure::Usage(format!("{name}: {text:?} is not as `taskwire dlq ls` shows it")))
}

fn source(letter: &Value) -> String {
    let source = &letter["source"];
    let place = format!("{}/{}/{}", text(&source["topic"]), source["partition"], source["offset"]);
    match &source["end"] {
        Value::Null => place,
        end => format!("{place}..{end}"),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.escape_debug().to_string().replace("\\\"", "\""),
        value => value.to_string(),
    }
}

/// Bytes for a terminal: text with its control characters escaped, or base64.
fn shown(of: &Value, name: &str) -> String {
    match &of[format!("{name}_base64")] {
        Value::String(base64) => format!("(base64) {base64}"),
        _ => text(&of[name]),
    }
}

/// The value, byte for byte; a failure where the letter is of one and retention has taken it.
fn value_of(letter: &Value) -> Result<Vec<u8>, Failure> {
    let value = bytes(letter, "value")?;
    if value.is_none() && letter["value_bytes"].as_u64() > Some(0) {
        return Err(Failure::Failed("its bytes are gone: retention has taken them".to_owned()));
    }
    Ok(value.unwrap_or_default())
}

fn bytes(of: &Value, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    if let Some(base64) = of[format!("{name}_base64")].as_str() {
        let decoded = BASE64_STANDARD.decode(base64);
        return decoded.map(Some).map_err(|error| Failure::Failed(error.to_string()));
    }
    Ok(of[name].as_str().map(|text| text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_that_is_gone_is_not_an_empty_one() {
        let value = |letter: Value| value_of(&letter).ok();
        assert_eq!(value(json!({ "value": null, "value_bytes": 3 })), None);
        assert_eq!(value(json!({ "value": null, "value_bytes": 0 })), Some(Vec::new()));
        assert_eq!(value(json!({ "value": "abc", "value_bytes": 3 })), Some(b"abc".to_vec()));
        assert_eq!(value(json!({ "value_base64": "/w==", "value_bytes": 1 })), Some(vec![255]));
    }
}
