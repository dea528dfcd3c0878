//! `podsecctl check`: what the monitors found, for people, for programs and for Nagios.
//!
//! Must not: look at anything itself; that is podsecd's monitors'.

mod explain;
pub mod known;
mod list;
pub mod nagios;
pub mod range;
mod run;
mod watch;

use crate::Context;
use crate::cli::Check as Command;
use crate::failure::Failure;

pub fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run { checks } => run::run(context, &checks),
        Command::List(arguments) => list::list(context, &arguments),
        Command::Show { id } => list::show(context, &id),
        Command::Watch { check } => watch::run(context, check.map(|name| name.0)),
        Command::Explain { code } => explain::run(&context.output, code.as_deref()),
        Command::Nagios(arguments) => Ok(nagios::run(context, arguments)),
    }
}
