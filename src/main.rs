//! The `taskwire` binary: arguments, runtime, exit code.

use std::{io::Write, process::ExitCode, thread::available_parallelism};
use taskwire::cli::{Command, Failure};

fn main() -> ExitCode {
    let command = Command::from_args();
    let workers = available_parallelism().map_or(1, usize::from);
    let built =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let outcome = match built {
        Ok(runtime) => {
            let outcome = runtime.block_on(command.run());
            // A blocking call that hangs must not hold up the exit code.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::Failed(format!("cannot start the runtime: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // With stderr closed there is nobody to tell; the exit code still speaks.
            drop(writeln!(std::io::stderr(), "taskwire: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}
