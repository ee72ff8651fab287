//! The configs of topics, as Kafka names them: which exist, their defaults, which values they take.
//!
//! Every key that a topic of Apache Kafka 4 has is taken and kept, so that tools and Kafka Streams
//! can set it. What acts here: `retention.ms`, `retention.bytes`, `segment.bytes`, `segment.ms` and
//! `max.message.bytes`. Values that would promise what is not done are refused (`LogAppendTime`,
//! tiered storage); the rest is kept and does nothing, because there is one replica and a batch is
//! stored as it was sent. `cleanup.policy=compact` is kept and does not act yet.

use crate::log;
use std::collections::BTreeMap;

/// Explicitly set configs of one topic.
pub type Configs = BTreeMap<String, String>;

/// What one config may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// true or false
    Boolean,
    /// A 32-bit number, at least this.
    Int(i32),
    /// A 64-bit number, at least this.
    Long(i64),
    /// A number from 0 to 1.
    Ratio,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A comma-separated list of these, at least one.
    ListOf(&'static [&'static str]),
    /// A comma-separated list of anything.
    List,
}

impl Kind {
    /// Kafka's number of the type in DescribeConfigs.
    pub fn wire_type(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::OneOf(_) => 2,
            Self::Int(_) => 3,
            Self::Long(_) => 5,
            Self::Ratio => 6,
            Self::ListOf(_) | Self::List => 7,
        }
    }

    /// Whether `value` may be set.
    pub fn takes(self, value: &str) -> bool {
        match self {
            Self::Boolean => ["true", "false"].contains(&value.to_ascii_lowercase().as_str()),
            Self::Int(least) => value.trim().parse::<i32>().is_ok_and(|value| value >= least),
            Self::Long(least) => value.trim().parse::<i64>().is_ok_and(|value| value >= least),
            Self::Ratio => value.trim().parse::<f64>().is_ok_and(|v| (0.0..=1.0).contains(&v)),
            Self::OneOf(choices) => choices.contains(&value),
            Self::ListOf(choices) => {
                !value.is_empty() && value.split(',').all(|item| choices.contains(&item.trim()))
            }
            Self::List => true,
        }
    }
}

/// One config that a topic can have.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// As Kafka names it.
    pub name: &'static str,
    /// What holds when it is not set.
    pub default: &'static str,
    /// What it takes.
    pub kind: Kind,
}

const fn config(name: &'static str, default: &'static str, kind: Kind) -> Config {
    Config { name, default, kind }
}

const MAX_I64: &str = "9223372036854775807";
const WEEK_MS: &str = "604800000";

/// Every config of a topic, by name.
pub const TOPIC_CONFIGS: &[Config] = &[
    config("cleanup.policy", "delete", Kind::ListOf(&["delete", "compact"])),
    config("compression.gzip.level", "-1", Kind::Int(-1)),
    config("compression.lz4.level", "9", Kind::Int(1)),
    config(
        "compression.type",
        "producer",
        Kind::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
    ),
    config("compression.zstd.level", "3", Kind::Int(-131_072)),
    config("delete.retention.ms", "86400000", Kind::Long(0)),
    config("file.delete.delay.ms", "60000", Kind::Long(0)),
    config("flush.messages", MAX_I64, Kind::Long(1)),
    config("flush.ms", MAX_I64, Kind::Long(0)),
    config("follower.replication.throttled.replicas", "", Kind::List),
    config("index.interval.bytes", "4096", Kind::Int(0)),
    config("leader.replication.throttled.replicas", "", Kind::List),
    config("max.compaction.lag.ms", MAX_I64, Kind::Long(1)),
    config("max.message.bytes", "1048588", Kind::Int(0)),
    config("message.timestamp.after.max.ms", "3600000", Kind::Long(0)),
    config("message.timestamp.before.max.ms", MAX_I64, Kind::Long(0)),
    config("message.timestamp.type", "CreateTime", Kind::OneOf(&["CreateTime"])),
    config("min.cleanable.dirty.ratio", "0.5", Kind::Ratio),
    config("min.compaction.lag.ms", "0", Kind::Long(0)),
    config("min.insync.replicas", "1", Kind::Int(1)),
    config("preallocate", "false", Kind::Boolean),
    config("remote.storage.enable", "false", Kind::OneOf(&["false"])),
    config("retention.bytes", "-1", Kind::Long(-1)),
    config("retention.ms", WEEK_MS, Kind::Long(-1)),
    config("segment.bytes", "67108864", Kind::Int(14)),
    config("segment.index.bytes", "10485760", Kind::Int(4)),
    config("segment.jitter.ms", "0", Kind::Long(0)),
    config("segment.ms", WEEK_MS, Kind::Long(1)),
    config("unclean.leader.election.enable", "false", Kind::Boolean),
];

/// The config of that name.
pub fn find(name: &str) -> Option<&'static Config> {
    TOPIC_CONFIGS.iter().find(|config| config.name == name)
}

/// Why a config is not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No such config.
    #[error("unknown topic config name: {0}")]
    Unknown(String),
    /// Not a value of it.
    #[error("invalid value {value} for configuration {name}")]
    Value {
        /// The config.
        name: String,
        /// What was asked for.
        value: String,
    },
    /// Longer than any value has to be.
    #[error("the value for configuration {name} has {bytes} bytes, allowed are {VALUE_BYTES_MAX}")]
    Length {
        /// The config.
        name: String,
        /// What was asked for.
        bytes: usize,
    },
    /// The daemon's own topics cannot be compacted.
    #[error("topic is owned by taskwire: cleanup.policy stays delete")]
    Reserved,
}

/// Checks configs that somebody sets.
///
/// # Errors
/// The first that is not taken.
pub fn check(configs: &Configs, is_reserved: bool) -> Result<(), ConfigError> {
    for (name, value) in configs {
        let config = find(name).ok_or_else(|| ConfigError::Unknown(name.clone()))?;
        check_length(name, value)?;
        if !config.kind.takes(value) {
            return Err(ConfigError::Value { name: name.clone(), value: value.clone() });
        }
        if is_reserved && name == "cleanup.policy" && value != "delete" {
            return Err(ConfigError::Reserved);
        }
    }
    Ok(())
}

/// Checks the length of a value that somebody sends, before anything is done with it.
///
/// # Errors
/// `Length`.
pub fn check_length(name: &str, value: &str) -> Result<(), ConfigError> {
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(ConfigError::Length { name: name.to_owned(), bytes: value.len() })
}

/// Longest value of a config in bytes.
pub const VALUE_BYTES_MAX: usize = 4096;

/// What the broker itself does by a topic's configs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How its logs are kept.
    pub log: log::Options,
    /// Largest record batch.
    pub message_bytes_max: u32,
}

impl Settings {
    /// The settings by checked configs; `message_bytes_default` is the broker's, `partitions` how
    /// many it has: the more, the less each keeps in memory.
    pub fn new(configs: &Configs, message_bytes_default: u32, partitions: usize) -> Self {
        let number = |name: &str| -> i64 {
            let config = find(name).expect("asked for by a name in the table");
            let value = configs.get(name).map_or(config.default, String::as_str);
            value.trim().parse().expect("checked before it was kept")
        };
        let message_bytes_max = if configs.contains_key("max.message.bytes") {
            u32::try_from(number("max.message.bytes")).unwrap_or(0)
        } else {
            message_bytes_default
        };
        let segment_bytes = u64::try_from(number("segment.bytes")).unwrap_or(0);
        let log = log::Options {
            segment_bytes: segment_bytes.max(SEGMENT_BYTES_MIN),
            segment_ms: number("segment.ms"),
            retention_ms: Some(number("retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
            tail_bytes: (ALL_TAILS_BYTES / partitions.max(1)).clamp(TAIL_BYTES_MIN, TAIL_BYTES_MAX),
        };
        Self { log, message_bytes_max }
    }
}

/// Smaller segments cost more files than they are worth.
const SEGMENT_BYTES_MIN: u64 = 4096;

/// Bytes of the newest batches that are kept in memory, by all partitions.
const ALL_TAILS_BYTES: usize = 64 << 20;
/// Most of one partition.
const TAIL_BYTES_MAX: usize = 4 << 20;
/// Least of one partition, however many there are: the records of a moment.
const TAIL_BYTES_MIN: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn taken(name: &str, value: &str) -> bool {
        check(&Configs::from([(name.to_owned(), value.to_owned())]), false).is_ok()
    }

    #[test]
    fn every_default_is_a_value() {
        for config in TOPIC_CONFIGS {
            assert!(config.kind.takes(config.default) || config.default.is_empty(), "{config:?}");
        }
        let settings = Settings::new(&Configs::new(), 5, 1);
        assert_eq!((settings.message_bytes_max, settings.log.retention_bytes), (5, None));
        assert_eq!(settings.log.retention_ms, Some(604_800_000));
    }

    #[test]
    fn values_are_checked_as_kafka_does() {
        assert!(taken("retention.ms", "-1"));
        assert!(taken("cleanup.policy", "compact,delete"));
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "soon"),
            ("cleanup.policy", "shred"),
            ("segment.bytes", "3"),
            ("message.timestamp.type", "LogAppendTime"),
            ("preallocate", "maybe"),
            ("min.cleanable.dirty.ratio", "2"),
            ("no.such.config", "1"),
            ("leader.replication.throttled.replicas", &"0:1,".repeat(1025)),
        ] {
            assert!(!taken(name, value), "{name}={value}");
        }
    }

    #[test]
    fn the_more_partitions_the_less_each_keeps_in_memory() {
        let tail = |partitions| Settings::new(&Configs::new(), 5, partitions).log.tail_bytes;
        assert_eq!([0, 1, 16, 64, 5000].map(tail), [4 << 20, 4 << 20, 4 << 20, 1 << 20, 16 << 10]);
        // However they came one after the other.
        let all: usize = (0..4000).map(tail).sum();
        assert!(all < 512 << 20, "{all}");
    }

    #[test]
    fn the_daemons_own_topics_are_never_compacted() {
        let compact = Configs::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        assert_eq!(check(&compact, true), Err(ConfigError::Reserved));
        let unlimited = Configs::from([("retention.ms".to_owned(), "-1".to_owned())]);
        assert_eq!(check(&unlimited, true), Ok(()));
        assert_eq!(Settings::new(&unlimited, 1, 1).log.retention_ms, None);
    }
}
