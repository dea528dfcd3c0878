//! Points at which a test may end or fail this process: every step boundary of every change calls [`point`], so a new
//! step is tested without hand work. Only with the feature `faults`, which no release has.

use crate::Failure;

/// Somewhere that a crash may come.
#[cfg(not(feature = "faults"))]
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it fails")]
pub fn point(_name: &str) -> Result<(), Failure> {
    Ok(())
}

/// Notes that it was reached, and does what the test asked for here: `NAME kill` ends this process, `NAME crash` podsecd
/// too, `NAME fail` is an error.
#[cfg(feature = "faults")]
pub fn point(name: &str) -> Result<(), Failure> {
    use podsec_policy::reason::Reason;
    use podsec_sys::nix::sys::signal::{Signal, kill, raise};
    use std::io::Write as _;
    const FAULT: &str = "/run/podsec-tests/fault";
    const REACHED: &str = "/run/podsec-tests/fault-points";
    if let Ok(mut reached) = std::fs::OpenOptions::new().append(true).open(REACHED) {
        let _ = writeln!(reached, "{name}");
    }
    let fault = std::fs::read_to_string(FAULT).unwrap_or_default();
    let Some(mode) = fault.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')) else {
        return Ok(());
    };
    let _ = std::fs::remove_file(FAULT);
    if mode == "fail" {
        return Err(Failure::new(Reason::Resources, format!("a test made {name} fail")));
    }
    if mode == "crash" {
        let _ = kill(podsec_sys::nix::unistd::getppid(), Signal::SIGKILL);
    }
    let _ = raise(Signal::SIGKILL);
    Ok(())
}
