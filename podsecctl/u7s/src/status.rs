//! `status`: ready, starting or down, and why.

use podsec_u7s::cli;
use podsec_u7s::config::Config;
use podsec_u7s::ports::{self, Store};
use podsec_u7s::rootlesskit::{Phase, StateDir};
use std::process::ExitCode;

/// As `systemctl is-active` has it: 3 is "not running".
const DOWN: u8 = 3;

/// Prints the state; exit status 0 means ready.
pub(crate) fn status(config: &Config, arguments: &cli::Status) -> ExitCode {
    let state = StateDir::new(config.state_dir.as_path());
    let status = state.status();
    let listing = ports::list(&state.api(), &Store::new(config.home.as_path()));
    if arguments.json {
        let ports = listing.as_ref().ok();
        let error = listing.as_ref().err().map(ToString::to_string);
        println!("{}", serde_json::json!({ "status": status, "ports": ports, "ports_error": error }));
    } else {
        let phase = match status.phase {
            Phase::Ready => "ready",
            Phase::Starting => "starting",
            Phase::Down => "down",
        };
        println!("{phase}: {}", status.why.escape_debug());
        for (name, pid) in [("rootlesskit", status.parent), ("first process inside", status.child)] {
            if let Some(pid) = pid {
                println!("{name}: process {pid}");
            }
        }
        match listing {
            Ok(listing) => {
                for port in listing.ports {
                    let state = match (port.id, port.kept, config.ports.contains(&port.spec)) {
                        (Some(_), _, true) => "published, configured",
                        (Some(_), true, _) => "published, kept",
                        (Some(_), false, _) => "published until the next restart",
                        (None, ..) => "kept, not published now",
                    };
                    println!("port {}: {state}", port.spec);
                }
                for foreign in listing.foreign {
                    let spec = serde_json::json!(foreign.spec);
                    println!("port published by another program: {}", spec.to_string().escape_debug());
                }
            }
            Err(error) => println!("ports: {}", error.to_string().escape_debug()),
        }
    }
    if status.phase == Phase::Ready { ExitCode::SUCCESS } else { ExitCode::from(DOWN) }
}
