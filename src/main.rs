//! The `ocifs` command: presents an OCI image layout as files.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    cli::logging::init(&arguments.global);
    cli::memory::give_back_large_buffers();
    match cli::run(arguments) {
        Ok(code) => code,
        Err(error) => cli::error::report(&error).into(),
    }
}
