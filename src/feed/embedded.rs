//! The feed on the embedded broker, in process.
