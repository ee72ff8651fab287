//! The messages that are not changes, and the close codes: one table.
