//! One session's place in its user's changes.
