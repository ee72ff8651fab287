//! See the table of files in docs/architecture.md.
