//! Flags, `TASKWIRE_*`, a TOML file and defaults become the typed options of every part.
//!
//! The only reader of the environment. No part knows this module: it builds their `Options`.

mod flags;
mod layers;
mod print;
mod secret;
mod settings;
mod suggest;
mod value;

pub use flags::Flags;
pub use print::default_toml;
pub use secret::Secret;

use crate::{
    apply, auth,
    broker::{self, Durability, limits::PortOptions},
    http, hub,
    position::TopicName,
    store,
    task::UserId,
};
use layers::Layers;
use settings::Setting;
use std::{
    ffi::OsString,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// A duration as settings have it: `50ms`, `25s`, `10m`, `1h`, `7d`.
///
/// # Errors
/// What is allowed, in one clause.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    value::duration(text)
}

/// The daemon's own group, as Kafka's tools show it.
pub const GROUP: &str = "taskwire";

/// Everything that was configured, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the log, the store and the development secret.
    pub data_dir: PathBuf,
    /// Addresses of HTTP, at least one.
    pub http_listen: Vec<SocketAddr>,
    /// Addresses of the broker; empty for none.
    pub kafka_listen: Vec<SocketAddr>,
    /// How log lines are written.
    pub logging: Logging,
    /// The applied topic.
    pub topic: TopicName,
    /// Time over which open connections are ended.
    pub drain_timeout: Duration,
    /// Time that the whole stop may take.
    pub stop_timeout: Duration,
    secret: Option<Secret>,
    jwks: Option<auth::JwksSource>,
    jwt_audience: Option<String>,
    jwt_issuer: Option<String>,
    kafka_advertise: Option<(String, u16)>,
    allow_origins: Vec<String>,
    protects_metrics: bool,
    starts_at_latest: bool,
    waiting_timeout: Duration,
    due_soon: Option<Duration>,
    durability: Durability,
    dedup_window: (Duration, u64),
    changes_keep: (Duration, u64),
    http_limits: http::Limits,
    is_rate_per_user_auto: bool,
    sessions_per_user_max: usize,
    kafka_connections_max: usize,
    kafka_port: PortOptions,
}

/// How log lines are written.
#[derive(Clone, Debug)]
pub struct Logging {
    /// A filter of `tracing-subscriber`.
    pub filter: String,
    /// Text or JSON.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Always text.
    Text,
    /// Always JSON.
    Json,
}

/// Why there is no configuration. Every variant names what to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file that was named cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why, in several lines.
        detail: String,
    },
    /// A key that no setting has.
    #[error("unknown key {key} in {}{}", path.display(), did_you_mean(suggestion))]
    UnknownKey {
        /// The key.
        key: String,
        /// The file.
        path: PathBuf,
        /// The nearest key.
        suggestion: Option<String>,
    },
    /// A `TASKWIRE_` variable that no setting has.
    #[error("unknown variable {name}{}", did_you_mean(suggestion))]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The nearest variable.
        suggestion: Option<String>,
    },
    /// A value that the setting does not take.
    #[error("{name}: {problem}")]
    Value {
        /// The setting as the user named it.
        name: String,
        /// Why, and what is allowed.
        problem: String,
    },
    /// A secret file with nothing in it.
    #[error("{} holds no secret", path.display())]
    EmptySecret {
        /// The file.
        path: PathBuf,
    },
    /// Development mode, and the data directory has no secret yet.
    #[error(
        "{} is not there: start the daemon once with this data directory, name another with \
         --data-dir, or give --jwt-secret-file FILE",
        path.display()
    )]
    NoSecret {
        /// Where it would be.
        path: PathBuf,
    },
    /// Tokens are checked with public keys only.
    #[error(
        "tokens are checked by --jwt-jwks, so only its issuer can sign one; give a token of its, \
         or a secret of ours beside it (--jwt-secret-file FILE)"
    )]
    NoSigningKey,
    /// HTTP beyond loopback in development mode.
    #[error(
        "--http-listen {0} is reachable from other machines, and no token would be asked for; \
         give --jwt-secret-file FILE (or TASKWIRE_JWT_SECRET) or --jwt-jwks FILE|URL, or listen \
         on 127.0.0.1"
    )]
    OpenHttp(SocketAddr),
    /// Kafka beyond loopback without login.
    #[error(
        "--kafka-listen {0} is reachable from other machines, and no login is asked for: whoever \
         reaches it may act for any user; listen on 127.0.0.1, use --kafka-listen none, or allow \
         it with --kafka-allow-anonymous on a network that you trust"
    )]
    OpenKafka(SocketAddr),
}

impl Config {
    /// Merges flags over the environment over the file over the defaults.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        Self::resolve(flags, std::env::vars_os().collect())
    }

    /// As [`Config::load`], in an environment of the caller's choice.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn resolve(
        flags: &Flags,
        environment: Vec<(OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let state_dir = state_directory(&environment);
        let layers = Layers::merge(flags, environment)?;
        let config = Self::of_layers(&layers, state_dir)?;
        config.refuse_open_listeners(switch(&layers, &settings::KAFKA_ALLOW_ANONYMOUS)?)?;
        Ok(config)
    }

    fn of_layers(layers: &Layers, state_dir: Option<PathBuf>) -> Result<Self, ConfigError> {
        let data_dir = match (layers.given(&settings::DATA_DIR), state_dir) {
            (None, Some(state_dir)) => state_dir,
            _ => PathBuf::from(required(layers, &settings::DATA_DIR)?),
        };
        Ok(Self {
            data_dir,
            http_listen: listen(layers, &settings::HTTP_LISTEN, Portless::Refused)?,
            kafka_listen: listen(layers, &settings::KAFKA_LISTEN, Portless::Allowed)?,
            logging: logging(layers)?,
            topic: parsed(layers, &settings::TOPIC, topic)?,
            drain_timeout: parsed(layers, &settings::DRAIN_TIMEOUT, value::duration)?,
            stop_timeout: parsed(layers, &settings::STOP_TIMEOUT, value::duration)?,
            secret: secret(layers)?,
            jwks: optional(layers, &settings::JWT_JWKS, value::jwks)?,
            jwt_audience: layers.one(&settings::JWT_AUDIENCE)?,
            jwt_issuer: layers.one(&settings::JWT_ISSUER)?,
            kafka_advertise: optional(layers, &settings::KAFKA_ADVERTISE, value::host_port)?,
            allow_origins: each(layers, &settings::ALLOW_ORIGIN, value::origin)?,
            protects_metrics: switch(layers, &settings::PROTECT_METRICS)?,
            starts_at_latest: parsed(layers, &settings::OFFSET_RESET, |text| {
                value::choice(text, &[("earliest", false), ("latest", true)])
            })?,
            waiting_timeout: parsed(layers, &settings::WAITING_TIMEOUT, value::duration)?,
            due_soon: parsed(layers, &settings::DUE_SOON, value::duration_or_off)?,
            durability: parsed(layers, &settings::DURABILITY, value::durability)?,
            dedup_window: window(layers, &settings::DEDUP_WINDOW)?,
            changes_keep: window(layers, &settings::CHANGES_KEEP)?,
            http_limits: http_limits(layers)?,
            is_rate_per_user_auto: required(layers, &settings::HTTP_RATE_PER_USER)? == AUTO,
            sessions_per_user_max: parsed(layers, &settings::SESSIONS_PER_USER_MAX, value::size)?,
            kafka_connections_max: parsed(layers, &settings::KAFKA_CONNECTIONS_MAX, value::size)?,
            kafka_port: kafka_port(layers)?,
        })
    }

    fn refuse_open_listeners(&self, allows_anonymous_kafka: bool) -> Result<(), ConfigError> {
        if let (true, Some(open)) = (self.is_development(), first_open(&self.http_listen)) {
            return Err(ConfigError::OpenHttp(open));
        }
        match first_open(&self.kafka_listen) {
            Some(open) if !allows_anonymous_kafka => Err(ConfigError::OpenKafka(open)),
            _ => Ok(()),
        }
    }

    /// Neither a secret nor a JWKS is configured: no token means user `dev`.
    pub const fn is_development(&self) -> bool {
        self.secret.is_none() && self.jwks.is_none()
    }

    /// What is allowed and still worth a word, one clause each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(secret) = &self.secret
            && secret.expose().len() < auth::SECRET_BYTES_MIN
        {
            let bytes = secret.expose().len();
            let min = auth::SECRET_BYTES_MIN;
            warnings.push(format!("the JWT secret has {bytes} bytes; use {min} or more"));
        }
        if let Some(source) = self.jwks.as_ref().filter(|source| source.is_in_the_clear()) {
            warnings.push(format!(
                "{source} is fetched without TLS: whoever can change the answer on its way can be \
                 any user; use https"
            ));
        }
        if let Some(open) = first_open(&self.kafka_listen) {
            warnings.push(format!(
                "the Kafka port {open} takes anyone without login: whoever reaches it may act for \
                 any user"
            ));
        }
        if self.stop_timeout <= self.drain_timeout {
            warnings.push("drain-timeout uses up all of stop-timeout".to_owned());
        }
        warnings
    }

    /// The secret that tokens are signed with, as a daemon has left it in development mode.
    ///
    /// # Errors
    /// It cannot be read, or there is none to sign with.
    pub fn existing_secret(&self) -> Result<Secret, ConfigError> {
        match (&self.secret, &self.jwks) {
            (Some(secret), _) => Ok(secret.clone()),
            (None, Some(_)) => Err(ConfigError::NoSigningKey),
            (None, None) => secret::existing(&self.data_dir),
        }
    }

    /// Options of authentication. In development mode the secret is made in the data directory
    /// (which must exist) if need be.
    ///
    /// # Errors
    /// The data directory refuses.
    pub fn auth_options(&self) -> Result<auth::Options, ConfigError> {
        let secret = match &self.secret {
            None if self.is_development() => Some(secret::development(&self.data_dir)?),
            configured => configured.clone(),
        };
        Ok(auth::Options {
            secret: secret.map(|secret| secret.expose().to_vec()).unwrap_or_default(),
            jwks: self.jwks.clone(),
            is_development: self.is_development(),
            audience: self.jwt_audience.clone(),
            issuer: self.jwt_issuer.clone(),
        })
    }

    /// What a token says that a daemon of this configuration takes.
    pub fn grant<'a>(&'a self, user_id: &'a UserId, ttl_s: u64) -> auth::Grant<'a> {
        auth::Grant {
            audience: self.jwt_audience.as_deref(),
            issuer: self.jwt_issuer.as_deref(),
            ..auth::Grant::new(user_id, ttl_s)
        }
    }

    /// Options of the broker.
    pub fn broker_options(&self) -> broker::Options {
        broker::Options {
            data_dir: self.data_dir.clone(),
            durability: self.durability,
            advertise: self.kafka_advertise.clone(),
            partitions_default: 1,
            message_bytes_max: MESSAGE_BYTES_MAX,
            connections_max: self.kafka_connections_max,
            port: self.kafka_port,
            reserved_topics: vec![self.topic.clone(), self.dead_letter_topic()],
            closed_topics: vec![self.dead_letter_topic()],
            reserved_group: GROUP.to_owned(),
        }
    }

    /// Options of the store.
    pub fn store_options(&self) -> store::redb::Options {
        store::redb::Options {
            dedup_window: self.dedup_window,
            changes_keep: self.changes_keep,
            cache_bytes: STORE_CACHE_BYTES,
            is_log_synced: self.durability == Durability::Commit,
        }
    }

    /// Options of apply.
    pub fn apply_options(&self) -> apply::Options {
        apply::Options {
            topic: self.topic.clone(),
            starts_at_latest: self.starts_at_latest,
            waiting_timeout: self.waiting_timeout,
            due_soon: self.due_soon,
            checkpoint_records: CHECKPOINT_RECORDS,
            checkpoint_interval: CHECKPOINT_INTERVAL,
        }
    }

    /// Options of the hub.
    pub fn hub_options(&self) -> hub::Options {
        hub::Options {
            recent_changes_max: RECENT_CHANGES_MAX,
            recent_bytes_max: RECENT_BYTES_MAX,
            sessions_per_user_max: self.sessions_per_user_max,
            sessions_max: self.http_limits.connections_max,
        }
    }

    /// Options of HTTP.
    pub fn http_options(&self) -> http::Options {
        let mut limits = self.http_limits.clone();
        if self.is_development() && self.is_rate_per_user_auto {
            // Whoever asks is at this machine, and mostly one user.
            limits.rate_per_user = None;
        }
        http::Options {
            topic: self.topic.clone(),
            write_timeout: WRITE_TIMEOUT,
            limits,
            allow_origins: self.allow_origins.clone(),
            protects_metrics: self.protects_metrics,
        }
    }

    fn dead_letter_topic(&self) -> TopicName {
        self.topic.dead_letters().expect("checked by `topic`")
    }
}

/// Kafka's default of `message.max.bytes`.
const MESSAGE_BYTES_MAX: u32 = 1_048_588;
/// Twice the largest request, so that one is not its own limit.
const PORT_MEMORY_BYTES_MIN: usize = 32 << 20;
/// As docs/rest.md says; the longest description, escaped throughout, is 120 kB of it.
const BODY_BYTES_MAX: usize = 1024 * 1024;
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// `http-rate-per-user` by itself; in development mode it is off then.
const AUTO: &str = "auto";
/// A tenth of what two cores can write, so that one user leaves most of it to the others.
const RATE_PER_USER: &str = "2000/s,10000";
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PONG_TIMEOUT: Duration = Duration::from_secs(20);
const SOCKET_WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A restart reads the log again from the last checkpoint: 20,000 records are half a second.
const CHECKPOINT_RECORDS: u64 = 20_000;
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
const STORE_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Disk that is kept back for what was accepted already: the store wants half of its cache and
/// 32 MiB free before it begins a commit, and the log needs some for dead letters.
pub const RESERVE_BYTES: u64 = 80 * 1024 * 1024;
const RECENT_CHANGES_MAX: usize = 256;
const RECENT_BYTES_MAX: usize = 256 * 1024;

fn http_limits(layers: &Layers) -> Result<http::Limits, ConfigError> {
    let duration = |setting| parsed(layers, setting, value::duration);
    let rate = |setting| parsed(layers, setting, |text| value::or_off(text, value::rate));
    Ok(http::Limits {
        body_bytes_max: BODY_BYTES_MAX,
        header_timeout: duration(&settings::HTTP_HEADER_TIMEOUT)?,
        body_timeout: duration(&settings::HTTP_BODY_TIMEOUT)?,
        answer_timeout: duration(&settings::HTTP_ANSWER_TIMEOUT)?,
        connections_max: parsed(layers, &settings::HTTP_CONNECTIONS_MAX, value::size)?,
        connections_per_address_max: parsed(
            layers,
            &settings::HTTP_CONNECTIONS_PER_ADDRESS_MAX,
            |text| value::or_off(text, value::size),
        )?,
        rate_per_user: parsed(layers, &settings::HTTP_RATE_PER_USER, |text| {
            let text = if text == AUTO { RATE_PER_USER } else { text };
            value::or_off(text, value::rate)
        })?,
        rate_per_address: rate(&settings::HTTP_RATE_PER_ADDRESS)?,
        auth_failures_per_address: rate(&settings::AUTH_FAILURES_PER_ADDRESS)?,
        socket: http::SocketLimits {
            rate: rate(&settings::SOCKET_RATE)?,
            ping_interval: PING_INTERVAL,
            pong_timeout: PONG_TIMEOUT,
            write_timeout: SOCKET_WRITE_TIMEOUT,
            close_timeout: CLOSE_TIMEOUT,
            lag_max: parsed(layers, &settings::SESSION_LAG_MAX, |text| {
                let count = value::or_off(text, value::size)?;
                Ok(count.map(|count| u64::try_from(count).unwrap_or(u64::MAX)))
            })?,
        },
    })
}

fn did_you_mean(suggestion: &Option<String>) -> String {
    match suggestion {
        Some(name) => format!("; did you mean {name}?"),
        None => "; `taskwire config default` lists all settings".to_owned(),
    }
}

/// The first address that other machines can reach.
fn first_open(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let is_loopback = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
        }
    };
    addresses.iter().copied().find(|address| !is_loopback(address.ip()))
}

/// systemd's `StateDirectory=`; of several, the first.
fn state_directory(environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let (_, value) = environment.iter().find(|(name, _)| name == "STATE_DIRECTORY")?;
    let first = value.to_str()?.split(':').next()?;
    (!first.is_empty()).then(|| PathBuf::from(first))
}

fn parsed<T>(
    layers: &Layers,
    setting: &Setting,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    parse(&required(layers, setting)?).map_err(|problem| layers.refuse(setting, problem))
}

fn optional<T>(
    layers: &Layers,
    setting: &Setting,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    match layers.one(setting)? {
        Some(text) => parse(&text).map(Some).map_err(|problem| layers.refuse(setting, problem)),
        None => Ok(None),
    }
}

fn each<T>(
    layers: &Layers,
    setting: &Setting,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ConfigError> {
    let texts = layers.many(setting);
    texts
        .iter()
        .map(|text| parse(text).map_err(|problem| layers.refuse(setting, problem)))
        .collect()
}

fn required(layers: &Layers, setting: &Setting) -> Result<String, ConfigError> {
    layers.one(setting)?.ok_or_else(|| {
        layers.refuse(setting, format!("must not be empty; allowed is {}", setting.form))
    })
}

fn switch(layers: &Layers, setting: &Setting) -> Result<bool, ConfigError> {
    parsed(layers, setting, |text| {
        value::choice(text, &[("true", true), ("false", false), ("1", true), ("0", false)])
    })
}

/// Whether a part may have no port at all.
#[derive(Clone, Copy, PartialEq)]
enum Portless {
    Allowed,
    Refused,
}

fn listen(
    layers: &Layers,
    setting: &Setting,
    portless: Portless,
) -> Result<Vec<SocketAddr>, ConfigError> {
    let texts = layers.many(setting);
    if portless == Portless::Allowed && texts == ["none"] {
        return Ok(Vec::new());
    }
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for text in &texts {
        let found = value::listen(text).map_err(|problem| layers.refuse(setting, problem))?;
        for address in found {
            if address.port() != 0 && addresses.contains(&address) {
                return Err(layers.refuse(setting, format!("{address} is given twice")));
            }
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(layers.refuse(setting, format!("is empty; allowed is {}", setting.form)));
    }
    Ok(addresses)
}

fn logging(layers: &Layers) -> Result<Logging, ConfigError> {
    let format = parsed(layers, &settings::LOG_FORMAT, |text| {
        let formats =
            [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
        value::choice(text, &formats)
    })?;
    let filter = parsed(layers, &settings::LOG, |text| match text
        .parse::<tracing_subscriber::filter::Targets>()
    {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{text:?} is no filter ({error}); allowed are off, error, warn, info, debug, \
                 trace, and lists such as info,taskwire::http=debug"
        )),
    })?;
    Ok(Logging { filter, format })
}

fn topic(text: &str) -> Result<TopicName, String> {
    TopicName::new(text).filter(|topic| topic.dead_letters().is_some()).ok_or_else(|| {
        format!(
            "{text:?} is no topic name; allowed are up to 245 of letters, digits, `.`, `_`, `-`"
        )
    })
}

fn kafka_port(layers: &Layers) -> Result<PortOptions, ConfigError> {
    let per_address = &settings::KAFKA_CONNECTIONS_PER_ADDRESS_MAX;
    Ok(PortOptions {
        connections_per_address_max: parsed(layers, per_address, value::size)?,
        memory_bytes_max: parsed(layers, &settings::KAFKA_MEMORY_MAX, |text| {
            value::bytes(text, PORT_MEMORY_BYTES_MIN)
        })?,
        frame_timeout: parsed(layers, &settings::KAFKA_FRAME_TIMEOUT, value::duration)?,
        idle_timeout: parsed(layers, &settings::KAFKA_IDLE_TIMEOUT, value::duration)?,
    })
}

fn window(layers: &Layers, setting: &Setting) -> Result<(Duration, u64), ConfigError> {
    let none = (Duration::ZERO, 0);
    let default =
        value::window(setting.default, none).map_err(|problem| layers.refuse(setting, problem))?;
    parsed(layers, setting, |text| value::window(text, default))
}

fn secret(layers: &Layers) -> Result<Option<Secret>, ConfigError> {
    let file = layers.one(&settings::JWT_SECRET_FILE)?;
    let variable = layers.one(&settings::JWT_SECRET)?;
    match (file, variable) {
        (Some(_), Some(_)) => {
            let problem = "is given beside jwt-secret-file; give one of them".to_owned();
            Err(layers.refuse(&settings::JWT_SECRET, problem))
        }
        (Some(path), None) => Secret::of_file(Path::new(&path)).map(Some),
        (None, Some(text)) => Secret::of_variable(&text)
            .map(Some)
            .ok_or_else(|| layers.refuse(&settings::JWT_SECRET, "is blank".to_owned())),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
