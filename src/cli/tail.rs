//! stub
use super::Failure;
use crate::config::Flags;
use clap::Args;
/// Arguments of `tail`.
#[derive(Debug, Args)]
pub(super) struct TailArgs {}
pub(super) async fn run(args: TailArgs, outer: &Flags) -> Result<(), Failure> {
    let _ = (args, outer);
    Ok(())
}
