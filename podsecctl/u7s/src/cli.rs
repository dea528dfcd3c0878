//! The command line of `podsec-u7s`; manual page and completions are made from it.
//!
//! Owns: names and texts. Must not: do anything.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Brings up the rootless namespaces of the cluster user. Run it as that user, or start podsec-u7s.service.
#[derive(Debug, Parser)]
#[command(name = "podsec-u7s", version, max_term_width = 100)]
pub struct Cli {
    /// Configuration; without this option /etc/podsec/u7s.toml, if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the machine, then become rootlesskit with the namespaces around the payload.
    Up(Up),
    /// Set the namespaces up from inside; rootlesskit runs this.
    #[command(hide = true)]
    Child(Child),
    /// Say whether the namespaces are ready, starting or down, and why. Exits 0 only when they are ready.
    Status(Status),
    /// End the namespaces: SIGTERM to the payload through rootlesskit, and wait for the end.
    Stop(Stop),
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Print rootlesskit's command line, one word per line, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Program to run inside, by its path, instead of the configured one.
    #[arg(last = true, value_name = "PAYLOAD")]
    pub payload: Vec<String>,
}

/// Arguments of `child`.
#[derive(Debug, Args)]
pub struct Child {
    /// The namespaces outside, which these must not be.
    #[arg(long, value_name = "KIND=NUMBER,…")]
    pub outside: String,
    /// Program to run.
    #[arg(last = true, required = true, value_name = "PAYLOAD")]
    pub payload: Vec<String>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// One JSON object instead of a sentence.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Seconds to wait for the end.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    pub timeout: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
