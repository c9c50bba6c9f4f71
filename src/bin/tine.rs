//! The operator's command line: `tine audit` certifies a table.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks after topologies.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Audit(tine::audit::command::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Audit(arguments) => arguments.run(),
    }
}
