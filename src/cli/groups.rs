//! `taskwire groups`: consumer groups of any broker, their members, committed offsets and lag.

use super::{
    kafka_client::{ClientError, CommittedOffsets, KafkaClient, VerbError},
    topics::or_dash,
};
use crate::wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use clap::Args;
use serde_json::json;
use std::{collections::BTreeMap, io::Write};

/// ListOffsets: the end of the log.
const LATEST: i64 = -1;

/// List consumer groups with their members, committed offsets and lag
#[derive(Args, Clone, Debug)]
pub struct GroupsArgs {
    /// Only these groups
    #[arg(value_name = "GROUP")]
    pub groups: Vec<String>,
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Lists the groups.
///
/// # Errors
/// See [`VerbError`].
pub async fn run(args: GroupsArgs, out: &mut dyn Write) -> Result<(), VerbError> {
    let mut client = KafkaClient::connect(&args.bootstrap).await?;
    let groups = if args.groups.is_empty() { client.groups().await? } else { args.groups.clone() };
    let mut ends = Ends::default();
    for name in groups {
        let (group, committed) = client.group(&name).await?;
        ends.learn(&mut client, &committed).await?;
        if args.json {
            print_json(&group, &committed, &ends, out)?;
        } else {
            print_text(&group, &committed, &ends, out)?;
        }
    }
    Ok(())
}

/// The end of every partition of the topics that were met.
#[derive(Default)]
struct Ends(BTreeMap<String, BTreeMap<i32, i64>>);

impl Ends {
    async fn learn(
        &mut self,
        client: &mut KafkaClient,
        committed: &CommittedOffsets,
    ) -> Result<(), ClientError> {
        for (topic, _) in committed.keys() {
            if self.0.contains_key(topic) {
                continue;
            }
            let ends = match client.topic(topic).await {
                Ok(topic) => client.offsets(&topic, LATEST).await?,
                // Deleted, its commits not yet.
                Err(ClientError::Refused { .. }) => BTreeMap::new(),
                Err(error) => return Err(error),
            };
            self.0.insert(topic.clone(), ends);
        }
        Ok(())
    }

    fn of(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.get(topic)?.get(&partition).copied()
    }
}

fn lag(end: Option<i64>, committed: i64) -> Option<i64> {
    end.map(|end| end.saturating_sub(committed).max(0))
}

fn print_text(
    group: &DescribedGroup,
    committed: &CommittedOffsets,
    ends: &Ends,
    out: &mut dyn Write,
) -> Result<(), VerbError> {
    let (name, state, members) = (&*group.group_id, &group.group_state, &group.members);
    writeln!(out, "{} ({}, members: {})", name.as_str(), state.as_str(), members.len())?;
    for member in members {
        let (id, host) = (member.member_id.as_str(), member.client_host.as_str());
        writeln!(out, "  member {id} of {} at {host}", member.client_id.as_str())?;
    }
    for ((topic, partition), offset) in committed {
        let end = ends.of(topic, *partition);
        let (lag, end) = (or_dash(lag(end, *offset)), or_dash(end));
        writeln!(out, "  {topic}/{partition} committed {offset} end {end} lag {lag}")?;
    }
    Ok(())
}

fn print_json(
    group: &DescribedGroup,
    committed: &CommittedOffsets,
    ends: &Ends,
    out: &mut dyn Write,
) -> Result<(), VerbError> {
    let member = |member: &DescribedGroupMember| {
        json!({
            "member_id": member.member_id.as_str(), "client_id": member.client_id.as_str(),
            "host": member.client_host.as_str(),
        })
    };
    let offset = |((topic, partition), offset): (&(String, i32), &i64)| {
        let end = ends.of(topic, *partition);
        json!({
            "topic": topic, "partition": partition, "committed": offset, "end": end,
            "lag": lag(end, *offset),
        })
    };
    let line = json!({
        "group": group.group_id.as_str(), "state": group.group_state.as_str(),
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "offsets": committed.iter().map(offset).collect::<Vec<_>>(),
    });
    writeln!(out, "{line}")?;
    Ok(())
}
