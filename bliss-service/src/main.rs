//! The BLISS daemon.

use std::process::ExitCode;

use bliss_service::cli;
use clap::Parser;

fn main() -> ExitCode {
    cli::exit_code(cli::Service::parse().run())
}
