//! `podsec-u7s`: the rootless namespaces of the cluster user, brought up, set up from inside, watched and ended.
//!
//! Owns: the order of things. Must not: have or ask for privilege; whatever it does, the cluster user may do.
#![forbid(unsafe_code)]

mod child;
mod preflight;
mod status;
mod stop;
mod up;

use clap::Parser;
use podsec_u7s::cli::{Cli, Command};
use podsec_u7s::config::{Config, ConfigError};
use std::process::ExitCode;

/// Why the command ends without having done its work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Up(#[from] up::UpError),
    #[error("cannot set the namespaces up: {0}")]
    Child(#[from] child::ChildError),
    #[error(transparent)]
    Stop(#[from] stop::StopError),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(cli).unwrap_or_else(|failure| {
        say(&failure.to_string());
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let config = Config::load(cli.config.as_deref())?;
    match cli.command {
        // Both end by becoming another program, so they return only a failure.
        Command::Up(arguments) => up::up(config, cli.config.as_deref(), arguments).map_err(Into::into),
        Command::Child(arguments) => Err(child::child(&config, arguments).into()),
        Command::Status(arguments) => Ok(status::status(&config, &arguments)),
        Command::Stop(arguments) => Ok(stop::stop(&config, &arguments).map(|()| ExitCode::SUCCESS)?),
    }
}

/// One line for the journal or the terminal.
fn say(text: &str) {
    eprintln!("podsec-u7s: {text}");
}
