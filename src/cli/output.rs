//! Lines for standard output.

use super::Failure;
use std::io::{self, Write};

/// Writes one line.
pub(super) fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
