//! The one table of settings. Flags, variables, file keys, `config default` and the spelling
//! suggestions are all made from it, so that they cannot drift apart.

/// How many values a setting takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// One.
    One,
    /// Several: a flag may be repeated, and all forms may separate by commas.
    Many,
    /// On or off; a flag alone means on.
    Switch,
}

/// Where a setting may be given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// By flag, variable and file.
    Everywhere,
    /// Only by variable: a secret, which has no place on a command line.
    VariableOnly,
    /// Known, and refused with this reason.
    NotBuilt(&'static str),
}

/// One setting: `--<key>`, `TASKWIRE_<KEY>` and `<key> = ...` in the file.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The name in its form for flags and files.
    pub(crate) key: &'static str,
    /// How many values.
    pub(crate) kind: Kind,
    /// Where from.
    pub(crate) reach: Reach,
    /// The form of a value.
    pub(crate) form: &'static str,
    /// The default in that form; empty for none.
    pub(crate) default: &'static str,
    /// One sentence.
    pub(crate) help: &'static str,
}

impl Setting {
    /// The variable's name.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.replace('-', "_").to_ascii_uppercase())
    }

    /// Whether `config default` and the help show it.
    pub(crate) const fn is_offered(&self) -> bool {
        matches!(self.reach, Everywhere)
    }
}

/// What every variable of ours begins with.
pub(crate) const VARIABLE_PREFIX: &str = "TASKWIRE_";
/// The variable that names the file; `--config` as a flag.
pub(crate) const FILE_VARIABLE: &str = "TASKWIRE_CONFIG";

macro_rules! settings {
    ($($(#[doc = $help:literal])+
        $name:ident: $kind:ident $reach:expr, $key:literal = $form:literal,
        $default:literal;)*) => {
        $(
            $(#[doc = $help])+
            pub(crate) const $name: Setting = Setting {
                key: $key,
                kind: Kind::$kind,
                reach: $reach,
                form: $form,
                default: $default,
                help: concat!($($help),+),
            };
        )*
        /// Every setting, in the order in which they are shown.
        pub(crate) const ALL: &[Setting] = &[$($name),*];
    };
}

use Reach::{Everywhere, NotBuilt, VariableOnly};

settings! {
    /// Directory of the log, the store and the development secret
    DATA_DIR: One Everywhere, "data-dir" = "DIR", "./taskwire-data";
    /// Addresses for REST, WebSocket, page and metrics
    HTTP_LISTEN: Many Everywhere, "http-listen" = "IP:PORT", "127.0.0.1:8000,[::1]:8000";
    /// Addresses of the embedded Kafka broker; `none` switches its port off
    KAFKA_LISTEN: Many Everywhere, "kafka-listen" = "IP:PORT|none", "127.0.0.1:9092,[::1]:9092";
    /// Address that Kafka clients are told to connect to; without it, the one they reached
    KAFKA_ADVERTISE: One Everywhere, "kafka-advertise" = "HOST:PORT", "";
    /// Lets a Kafka listener that is not loopback go without login
    KAFKA_ALLOW_ANONYMOUS: Switch Everywhere, "kafka-allow-anonymous" = "true|false", "false";
    /// File with the HS256 secret of the tokens; without one: development mode, loopback only
    JWT_SECRET_FILE: One Everywhere, "jwt-secret-file" = "FILE", "";
    /// The HS256 secret itself
    JWT_SECRET: One VariableOnly, "jwt-secret" = "SECRET", "";
    /// Public keys of the tokens (RS256, ES256, EdDSA): a JWKS file, or the URL of one
    JWT_JWKS: One Everywhere, "jwt-jwks" = "FILE|URL", "";
    /// `aud` that tokens must have
    JWT_AUDIENCE: One Everywhere, "jwt-audience" = "TEXT", "";
    /// `iss` that tokens must have
    JWT_ISSUER: One Everywhere, "jwt-issuer" = "TEXT", "";
    /// Origins beside our own that browsers may use the daemon from
    ALLOW_ORIGIN: Many Everywhere, "allow-origin" = "SCHEME://HOST[:PORT]", "";
    /// Asks for a token on /metrics and /ws/stats too
    PROTECT_METRICS: Switch Everywhere, "protect-metrics" = "true|false", "false";
    /// Topic that is applied; `<topic>.dlq` holds dead letters
    TOPIC: One Everywhere, "topic" = "NAME", "task-events";
    /// Where a store without a position starts to read the topic
    OFFSET_RESET: One Everywhere, "offset-reset" = "earliest|latest", "earliest";
    /// How long an event waits for its task before it is a dead letter
    WAITING_TIMEOUT: One Everywhere, "waiting-timeout" = "DURATION", "10m";
    /// How long before a task is due its owner is told
    DUE_SOON: One Everywhere, "due-soon" = "DURATION|off", "1h";
    /// When a record is acknowledged: after a sync, or after the write with a sync at intervals
    DURABILITY: One Everywhere, "durability" = "commit|interval:50ms|os", "commit";
    /// How far back duplicate events are known: a time, a number of event ids, whichever is more
    DEDUP_WINDOW: One Everywhere, "dedup-window" = "DURATION,COUNT", "7d,10000000";
    /// How far back clients can resume: a time, a number of changes, whichever is more
    CHANGES_KEEP: One Everywhere, "changes-keep" = "DURATION,COUNT", "7d,1000000";
    /// Most connections on the HTTP port, WebSockets among them
    HTTP_CONNECTIONS_MAX: One Everywhere, "http-connections-max" = "COUNT", "20000";
    /// Most connections of one address on the HTTP port; loopback is not limited
    HTTP_CONNECTIONS_PER_ADDRESS_MAX: One Everywhere,
        "http-connections-per-address-max" = "COUNT|off", "1000";
    /// Time for the headers of a request; an idle connection is closed after it too
    HTTP_HEADER_TIMEOUT: One Everywhere, "http-header-timeout" = "DURATION", "10s";
    /// Time for the whole body of a request
    HTTP_BODY_TIMEOUT: One Everywhere, "http-body-timeout" = "DURATION", "30s";
    /// Time that a client may let its answer wait before the connection is cut
    HTTP_ANSWER_TIMEOUT: One Everywhere, "http-answer-timeout" = "DURATION", "60s";
    /// Requests of one user, and how many at once; `auto` is 2000/s,10000, in development mode off
    HTTP_RATE_PER_USER: One Everywhere, "http-rate-per-user" = "auto|COUNT/s,BURST|off", "auto";
    /// Requests from one address, and how many at once; loopback is not limited
    HTTP_RATE_PER_ADDRESS: One Everywhere,
        "http-rate-per-address" = "COUNT/s,BURST|off", "4000/s,20000";
    /// Refused tokens from one address, and how many at once; loopback is not limited
    AUTH_FAILURES_PER_ADDRESS: One Everywhere,
        "auth-failures-per-address" = "COUNT/m,BURST|off", "60/m,60";
    /// Frames from one WebSocket, pings among them, and how many at once
    SOCKET_RATE: One Everywhere, "socket-rate" = "COUNT/s,BURST|off", "20/s,200";
    /// Most WebSockets of one user
    SESSIONS_PER_USER_MAX: One Everywhere, "sessions-per-user-max" = "COUNT", "1000";
    /// Changes of all users that a session may fall behind before it is closed (4508)
    SESSION_LAG_MAX: One Everywhere, "session-lag-max" = "COUNT|off", "off";
    /// Most connections on the Kafka port
    KAFKA_CONNECTIONS_MAX: One Everywhere, "kafka-connections-max" = "COUNT", "2000";
    /// Most connections of one address on the Kafka port; loopback is not limited
    KAFKA_CONNECTIONS_PER_ADDRESS_MAX: One Everywhere,
        "kafka-connections-per-address-max" = "COUNT", "500";
    /// Memory for requests on the Kafka port that have not come whole, and as much for answers that
    /// are not read
    KAFKA_MEMORY_MAX: One Everywhere, "kafka-memory-max" = "BYTES", "64MiB";
    /// Time for a request on the Kafka port to come whole, and for the first one to begin
    KAFKA_FRAME_TIMEOUT: One Everywhere, "kafka-frame-timeout" = "DURATION", "30s";
    /// Time after which a Kafka connection is closed on which nothing happens
    KAFKA_IDLE_TIMEOUT: One Everywhere, "kafka-idle-timeout" = "DURATION", "10m";
    /// Time over which open connections are ended at a stop
    DRAIN_TIMEOUT: One Everywhere, "drain-timeout" = "DURATION", "5s";
    /// Time that the whole stop may take
    STOP_TIMEOUT: One Everywhere, "stop-timeout" = "DURATION", "25s";
    /// What is logged: off, error, warn, info, debug, trace,
    /// or a list like `info,taskwire::http=debug`
    LOG: One Everywhere, "log" = "LEVEL", "info";
    /// How it is logged; `auto` is text on a terminal and JSON elsewhere
    LOG_FORMAT: One Everywhere, "log-format" = "auto|text|json", "auto";
    /// Bootstrap servers of a Kafka cluster
    KAFKA: One NotBuilt("this build has no Kafka cluster client: use its own broker"),
        "kafka" = "HOST:PORT", "";
    /// Where tasks are kept
    STORE: One NotBuilt("this build keeps tasks only in its data directory"),
        "store" = "URL", "";
    /// How instances tell each other of changes
    FANOUT: One NotBuilt("this build has no fan-out between instances"),
        "fanout" = "URL", "";
}
