//! podsec-monitor: one check or one watcher, started by podsecd or by a unit of systemd. No options: what there is to be
//! chosen is in `/etc/podsec/monitor.toml`.
//!
//! ```text
//! podsec-monitor check policy|images|vulnerabilities    looks once; what podsecd knows comes on standard input
//! podsec-monitor watch containers|kubeapi               follows what happens
//! podsec-monitor tell [--follow] [CHANNEL…]             tells people what is new, once or for as long as it runs
//! ```

#![forbid(unsafe_code)]

use podsec_checks::known::Known;
use podsec_checks::settings::Settings;
use podsec_checks::{containers, images, kubeapi, policy, report, tell, vulnerabilities};
use podsec_policy::finding::Check;
use podsec_sys::process;
use std::io::Read as _;
use std::process::ExitCode;
use std::time::Instant;

/// Bytes of what podsecd says.
const LONGEST: u64 = 64 << 20;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_str().unwrap_or_default()).collect();
    let result = match *arguments {
        ["check", name] if Check::from_name(name).is_some_and(Check::looks) => {
            Check::from_name(name).map_or(Ok(()), check)
        }
        ["watch", "containers"] => {
            Settings::load().and_then(|settings| containers::run(&settings.containers))
        }
        ["watch", "kubeapi"] => Settings::load().and_then(|settings| kubeapi::run(&settings.kubeapi)),
        ["tell", ref named @ ..] => Settings::load().and_then(|settings| tell::run(&settings.tell, named)),
        _ => {
            eprintln!("podsec-monitor is started by podsecd and by systemd; for people: podsecctl check");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podsec-monitor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Looks, keeps what it found as the user podsec-monitor, and ends.
fn check(check: Check) -> Result<(), String> {
    process::forbid_inspection().map_err(|error| error.to_string())?;
    let began = Instant::now();
    let settings = Settings::load()?;
    let known = known()?;
    let account = report::account()?;
    let mut verified = None;
    let look = match check {
        Check::Policy => policy::look(&known, &settings.policy),
        Check::Images => {
            let (look, cache) = images::look(&known, &settings.images);
            verified = Some(cache);
            look
        }
        Check::Vulnerabilities => vulnerabilities::look(&known, &settings.vulnerabilities),
        Check::Containers | Check::KubeApi => return Err(format!("{} is watched, not run", check.name())),
    };
    // All that takes rights is done.
    account.become_it().map_err(|error| format!("becoming {}: {error}", report::USER))?;
    if let Some(Err(error)) = verified.map(images::Cache::save) {
        eprintln!("podsec-monitor: {error}; verified again next time");
    }
    report::replace(check, look, began.elapsed())
}

/// Nothing on standard input: started by a unit, of whose check podsecd need not know.
fn known() -> Result<Known, String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("standard input: {error}"))?;
    if bytes.is_empty() {
        return Ok(Known::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("standard input: {error}"))
}
