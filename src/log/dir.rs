//! The door to the disk: real, in memory, or faulty.

use std::fmt;

/// One directory that holds one log.
pub trait Dir: fmt::Debug + Send + Sync + 'static {}
