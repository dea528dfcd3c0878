//! podsecd, the gate: the one process of podsec that keeps root. One thread, one poll loop.
//!
//! It owns the listening sockets, so it alone can ask the kernel who is calling ([`identify`]). It decides by
//! `podsec-policy`, records ([`audit`]), and hands the rest to others: bytes of strangers to a front without any
//! authority, permitted operations to a worker with only that operation's capabilities ([`child`]). [`gate`] is
//! the loop.
//!
//! Must not: parse what a caller sent, wait for anything but its poll, look names up, read below a user's home, or
//! link an async runtime, HTTP/2 or protobuf (a test holds it to that).

#![forbid(unsafe_code)]

mod accounts;
mod audit;
mod child;
mod gate;
mod identify;

use gate::Listeners;
use podsec_policy::config::{CONFIG_PATH, Config};
use podsec_sys::credentials::{Cap, keep_only_and_pass_on};
use podsec_sys::nix;
use podsec_sys::process;
use podsec_sys::socket::{self, Kind};
use podsec_sys::systemd;
use std::path::Path;
use std::process::ExitCode;

/// Why podsecd does not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("podsecd must run as root; systemctl start podsecd.socket does that")]
    NotRoot,
    #[error(
        "usage: podsecd [--check]\n  --check  read the configuration, say what is wrong with it, and end"
    )]
    Usage,
    #[error("{CONFIG_PATH}: {0}")]
    Config(String),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> StartError {
    |source| StartError::Io { what: what.into(), source }
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Usage) => {
            eprintln!("{}", StartError::Usage);
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("podsecd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), StartError> {
    process::forbid_inspection().map_err(io("prctl"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let arguments: Vec<_> = std::env::args_os().collect();
    let check = match arguments.get(1..) {
        Some([]) => false,
        Some([flag]) if flag == "--check" => true,
        // No argument at all, not even a name, is how CVE-2021-4034 began.
        _ => return Err(StartError::Usage),
    };
    if !nix::unistd::geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    let config = read_config(Path::new(CONFIG_PATH))?;
    if check {
        println!("{CONFIG_PATH}: good");
        return Ok(());
    }
    // For itself KILL alone, to end workers that have become somebody else. What it starts may have that, the other
    // capabilities of all rows of the table, and SETPCAP to give up the rest of it.
    let pass_on = [
        Cap::CAP_SETUID,
        Cap::CAP_SETGID,
        Cap::CAP_CHOWN,
        Cap::CAP_DAC_OVERRIDE,
        Cap::CAP_FOWNER,
        Cap::CAP_AUDIT_WRITE,
        Cap::CAP_LINUX_IMMUTABLE,
        Cap::CAP_SETPCAP,
    ];
    keep_only_and_pass_on(&[Cap::CAP_KILL], &pass_on).map_err(io("giving up capabilities"))?;

    let passed = systemd::passed().and_then(|passed| passed.map(Listeners::from_systemd).transpose());
    let passed = passed.map_err(io("sockets from systemd"))?;
    let activated = passed.is_some();
    let listeners = match passed {
        Some(listeners) => listeners,
        None => bind(&config)?,
    };
    let mut gate = gate::Gate::new(config, listeners, activated).map_err(io("starting"))?;
    // Recovery comes before the first answer.
    gate.recover().map_err(io("reading what the last podsecd left open"))?;
    tell("READY=1");
    let result = gate.run().map_err(io("waiting for events"));
    tell("STOPPING=1");
    result
}

fn tell(state: &str) {
    if let Err(error) = systemd::tell(state) {
        eprintln!("podsecd: systemd could not be told {state:?}: {error}");
    }
}

fn bind(config: &Config) -> Result<Listeners, StartError> {
    let listen = |path: &Path, kind| {
        if let Some(directory) = path.parent() {
            process::make_root_owned(directory, 0o755).map_err(io(directory.display().to_string()))?;
        }
        socket::listen(path, kind, config.socket.mode).map_err(io(path.display().to_string()))
    };
    let requests = listen(&config.socket.path, Kind::Stream)?;
    Ok(Listeners { requests: Some(requests), attach: listen(&config.socket.attach, Kind::Packet)? })
}

/// A configuration that is not there is the default one; one that somebody else than root can write is none.
fn read_config(path: &Path) -> Result<Config, StartError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(error) => return Err(io(path.display().to_string())(error)),
    };
    process::require_root_owned(path).map_err(io("refusing to read the configuration"))?;
    let config: Config = toml::from_str(&text).map_err(|error| StartError::Config(error.to_string()))?;
    config.check().map_err(|error| StartError::Config(error.to_string()))?;
    Ok(config)
}
