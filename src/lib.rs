//! Taskwire: a Kafka broker, the consumer of its own `task-events` topic, a task store, a REST API
//! and a WebSocket push server in one daemon.
//!
//! The modules in the order in which a record meets them, which is also the import order that
//! `tests/tidy.rs` keeps (a module imports only from modules above it):
//!
//! | module | job |
//! |---|---|
//! | [`shutdown`], [`clock`], [`metrics`], [`position`] | signals, time, metrics, places in a log |
//! | [`disk`] | the disk under logs and databases: real, or a simulated one |
//! | `budget`, `places`, [`causes`] | what connections of a port share; an error with its causes |
//! | [`redb_file`] | what both redb files have in common |
//! | [`task`] | the domain: a task, its events, the one function that changes it |
//! | [`auth`] | a JWT becomes a principal |
//! | [`wire`] | the Kafka protocol: bytes to values and back |
//! | [`log`] | one partition on disk |
//! | [`store`] | tasks, changes and processed offsets in one transaction |
//! | [`broker`] | port 9092 |
//! | [`feed`] | where ordered events come from and go to |
//! | [`hub`] | who listens, and from which position |
//! | [`apply`] | events become changes, exactly once |
//! | [`http`] | port 8000 |
//! | [`archive`] | backups, restores, and what is verified in a directory at rest |
//! | [`config`], [`daemon`], [`cli`] | options, start and stop order, sub-commands |

pub mod apply;
pub mod archive;
pub mod auth;
pub mod broker;
mod budget;
pub mod causes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod disk;
pub mod feed;
pub mod http;
pub mod hub;
pub mod log;
pub mod metrics;
mod places;
pub mod position;
pub mod redb_file;
pub mod shutdown;
pub mod store;
pub mod systemd;
pub mod task;
pub mod wire;
