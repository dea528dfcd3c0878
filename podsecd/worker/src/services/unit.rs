//! The two units, by systemctl(1), where systemd runs.

use super::{ServiceKind, Services, web};
use crate::Failure;
use crate::account::systemctl;
use podsec_policy::reason::Reason;
use podsec_sys::systemd;
use std::time::{Duration, Instant};

/// nginx.
pub const WEB: &str = "podsec-web.service";
const REGISTRY: &str = "podsec-registry.service";
/// Until a server that was started answers.
const PATIENCE: Duration = Duration::from_secs(15);

/// Of starting, stopping and asking.
const SOON: Duration = Duration::from_secs(40);

/// Of what a kind of server is.
pub fn name(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Registry => REGISTRY,
        ServiceKind::Signatures => WEB,
    }
}

/// In the order in which they start: the web server stands before the registry.
pub fn names(kinds: &[ServiceKind]) -> Vec<&'static str> {
    let registry = kinds.contains(&ServiceKind::Registry).then_some(REGISTRY);
    registry.into_iter().chain([WEB]).collect()
}

fn needed(services: &Services) -> Vec<&'static str> {
    names(&services.servers.keys().copied().collect::<Vec<_>>())
}

fn is(what: &str, unit: &str) -> bool {
    systemctl(&[what, "--quiet", unit], SOON).is_ok()
}

/// Do they run, with this configuration, and will they after the next boot?
fn runs(services: &Services) -> bool {
    web::configuration().is_some_and(|loaded| loaded == web::fingerprint(services))
        && needed(services).iter().all(|unit| is("is-active", unit) && is("is-enabled", unit))
}

/// What is to be done so that they do.
pub fn todo(services: &Services) -> Option<String> {
    let todo = systemd::runs() && !runs(services);
    todo.then(|| {
        format!("have {} run with this configuration, now and at boot", needed(services).join(" and "))
    })
}

/// Does it, and waits until they answer.
///
/// # Errors
/// `Program` with what systemctl said, or where to read why one does not answer
pub fn run(services: &Services) -> Result<(), Failure> {
    let units = needed(services);
    systemctl(&[&["enable", "--quiet", "--"], &units[..]].concat(), SOON)?;
    // Its own configuration never changes, but with podsec.
    if units.contains(&REGISTRY) {
        systemctl(&["start", "--", REGISTRY], SOON)?;
    }
    systemctl(&["reload-or-restart", "--", WEB], SOON)?;
    let end = Instant::now() + PATIENCE;
    while !runs(services) {
        if Instant::now() > end {
            let text =
                format!("{WEB} does not come up with its configuration; journalctl --unit {WEB} says why");
            return Err(Failure::new(Reason::Program, text));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn up(kinds: &[ServiceKind]) -> Vec<&'static str> {
    let units = if kinds.is_empty() {
        Vec::new()
    } else {
        // The web server ends only where nobody needs it, which is with both.
        let web = kinds.contains(&ServiceKind::Signatures).then_some(WEB);
        web.into_iter().chain(kinds.contains(&ServiceKind::Registry).then_some(REGISTRY)).collect()
    };
    units.into_iter().filter(|unit| is("is-active", unit) || is("is-enabled", unit)).collect()
}

/// What is to be done so that these do not run.
pub fn stop_todo(kinds: &[ServiceKind]) -> Option<String> {
    let up = if systemd::runs() { up(kinds) } else { Vec::new() };
    (!up.is_empty()).then(|| format!("stop {}, now and at boot", up.join(" and ")))
}

/// Does it.
///
/// # Errors
/// `Program` with what systemctl said
pub fn stop(kinds: &[ServiceKind]) -> Result<(), Failure> {
    let up = if systemd::runs() { up(kinds) } else { Vec::new() };
    if up.is_empty() {
        return Ok(());
    }
    systemctl(&[&["disable", "--now", "--quiet", "--"], &up[..]].concat(), SOON)
}
