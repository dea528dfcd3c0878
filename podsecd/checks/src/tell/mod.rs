//! Telling people what the checks found: the log, mail, a webhook, Prometheus.
//!
//! Each channel remembers by itself what it has told ([`told`]), so none waits for another, and what one cannot deliver is
//! there when it can again. What was found is escaped already, and goes to no shell and into no header, name or label.
//!
//! Must not: run as root; look at anything but reports.

mod log;
mod mail;
mod metrics;
mod news;
mod told;
mod webhook;

use crate::report;
use news::{News, Now};
use podsec_policy::finding::{Check, Severity};
use podsec_sys::nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use told::Told;

/// `[tell]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The least that is logged.
    pub log_severity: Severity,
    /// Who gets mail; empty: nobody.
    pub mail: mail::Address,
    /// The least that is worth a mail.
    pub mail_severity: Severity,
    /// Seconds from one mail to the next.
    pub mail_every: u64,
    /// What takes mail, and is run as `sendmail -t -i`.
    pub sendmail: PathBuf,
    /// Where findings are posted to; empty: nowhere.
    pub webhook: webhook::Url,
    /// The least that is posted.
    pub webhook_severity: Severity,
    /// A file with lines `Name: value` to be sent along, such as a token; empty: none.
    pub webhook_headers: PathBuf,
    /// The directory where node_exporter's textfile collector looks; empty: none.
    pub prometheus: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log_severity: Severity::Debug,
            mail: mail::Address::default(),
            mail_severity: Severity::Warning,
            mail_every: 3600,
            sendmail: "/usr/sbin/sendmail".into(),
            webhook: webhook::Url::default(),
            webhook_severity: Severity::Warning,
            webhook_headers: PathBuf::new(),
            prometheus: PathBuf::new(),
        }
    }
}

/// A way to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Channel {
    Log,
    Mail,
    Webhook,
    Prometheus,
}

/// How often is looked for news.
const LOOK: Duration = Duration::from_secs(1);
/// A round takes at most that part of the time.
const SHARE: u32 = 10;

impl Channel {
    const ALL: [Self; 4] = [Self::Log, Self::Mail, Self::Webhook, Self::Prometheus];

    fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Mail => "mail",
            Self::Webhook => "webhook",
            Self::Prometheus => "prometheus",
        }
    }

    fn is_wanted(self, settings: &Settings) -> bool {
        match self {
            Self::Log => true,
            Self::Mail => settings.mail != mail::Address::default(),
            Self::Webhook => settings.webhook != webhook::Url::default(),
            Self::Prometheus => !settings.prometheus.as_os_str().is_empty(),
        }
    }

    fn least(self, settings: &Settings) -> Severity {
        match self {
            Self::Log | Self::Prometheus => settings.log_severity,
            Self::Mail => settings.mail_severity,
            Self::Webhook => settings.webhook_severity,
        }
    }

    /// Takes what it delivered out of the front of `news`.
    fn deliver(self, settings: &Settings, left_out: u64, news: &mut Vec<News>) -> Result<(), String> {
        match self {
            Self::Log => log::deliver(left_out, news),
            Self::Mail => mail::deliver(settings, left_out, news),
            Self::Webhook => webhook::deliver(settings, left_out, news),
            Self::Prometheus => Ok(()),
        }
    }

    /// Tells what is new, as far as it is time. Gives in how many seconds there is more to do.
    fn round(self, settings: &Settings, now: &Now) -> (Option<u64>, Result<(), String>) {
        let result = if self == Self::Prometheus {
            metrics::write(&settings.prometheus, now).map(|()| (None, Ok(())))
        } else {
            self.tell(settings, now)
        };
        result.unwrap_or_else(|error| (Some(told::FIRST_RETRY), Err(error)))
    }

    fn tell(self, settings: &Settings, now: &Now) -> Result<(Option<u64>, Result<(), String>), String> {
        let directory = Path::new(report::ROOT).join("tell");
        let _alone = report::alone(&directory.join(format!("{}.lock", self.name())))?;
        let path = directory.join(format!("{}.json", self.name()));
        let mut told = Told::load(&path);
        // Remembered before it is told: what is lost in between would be lost for ever.
        if told.learn(now, self.least(settings)) {
            told.save(&path)?;
        }
        if told.wait(now.time) != Some(0) {
            return Ok((told.wait(now.time), Ok(())));
        }
        let every = if self == Self::Mail { settings.mail_every } else { 0 };
        let result = told.deliver(now.time, every, |left_out, news| self.deliver(settings, left_out, news));
        told.save(&path)?;
        Ok((told.wait(now.time), result.map_err(|error| format!("{error}; {} wait", told.waiting()))))
    }
}

/// Tells what is new by all channels that are set up, or by those that are named, once; with `--follow` first, until it is
/// ended.
///
/// # Errors
/// says which channel could not, and why; that it runs as somebody who must not
pub fn run(settings: &Settings, arguments: &[&str]) -> Result<(), String> {
    become_it()?;
    let (follow, names) = match arguments {
        ["--follow", names @ ..] => (true, names),
        names => (false, names),
    };
    if let Some(name) = names.iter().find(|name| Channel::ALL.iter().all(|channel| channel.name() != **name))
    {
        return Err(format!("{name}: no way to tell people; there are log, mail, webhook and prometheus"));
    }
    let is_wanted = |channel: &Channel| {
        (names.is_empty() || names.contains(&channel.name())) && channel.is_wanted(settings)
    };
    let wanted: Vec<_> = Channel::ALL.into_iter().filter(is_wanted).collect();
    if follow {
        go_on(settings, &wanted);
    }
    let now = Now::look();
    let failed = wanted.iter().filter_map(|channel| {
        channel.round(settings, &now).1.err().map(|error| format!("{}: {error}", channel.name()))
    });
    let failed: Vec<_> = failed.chain(now.unreadable.values().cloned()).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\npodsec-monitor: ")) }
}

/// Whoever reads reports is the one whose they are: from cron it may be root who starts this.
fn become_it() -> Result<(), String> {
    let account = report::account()?;
    if geteuid().is_root() {
        account.become_it().map_err(|error| format!("becoming {}: {error}", report::USER))?;
    }
    let is_it = (geteuid().as_raw(), getegid().as_raw()) == (account.uid, account.gid);
    is_it.then_some(()).ok_or_else(|| format!("to be run as {} or root", report::USER))
}

/// Looks whether there are new reports, which costs next to nothing, and never ends.
fn go_on(settings: &Settings, channels: &[Channel]) -> ! {
    let mut seen = None;
    let mut next: BTreeMap<Channel, Instant> = BTreeMap::new();
    let mut wrong: BTreeMap<Channel, String> = BTreeMap::new();
    loop {
        let began = Instant::now();
        let there = Check::ALL.map(report::version);
        let is_due = |channel: &Channel| next.get(channel).is_some_and(|at| *at <= began);
        let work: Vec<_> = channels
            .iter()
            .copied()
            .filter(|channel| seen.as_ref() != Some(&there) || is_due(channel))
            .collect();
        if !work.is_empty() {
            // What is replaced from here on is seen next time.
            let now = Now::look();
            for channel in work {
                let (wait, result) = channel.round(settings, &now);
                next.remove(&channel);
                if let Some(at) = wait.and_then(|wait| Instant::now().checked_add(Duration::from_secs(wait)))
                {
                    next.insert(channel, at);
                }
                say(&mut wrong, channel, result.err());
            }
            seen = Some(there);
        }
        std::thread::sleep(LOOK.max(began.elapsed() * SHARE));
    }
}

/// When something begins to be wrong, and when it is over.
fn say(wrong: &mut BTreeMap<Channel, String>, channel: Channel, error: Option<String>) {
    match error {
        Some(error) if wrong.contains_key(&channel) => _ = wrong.insert(channel, error),
        Some(error) => {
            eprintln!("podsec-monitor: {}: {error}", channel.name());
            wrong.insert(channel, error);
        }
        None if wrong.remove(&channel).is_some() => {
            eprintln!("podsec-monitor: {}: works again", channel.name());
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    #[test]
    fn the_example_says_the_defaults() {
        let example = include_str!("../../../../systemd/etc/monitor.toml");
        assert_eq!(toml::from_str::<Settings>(example).unwrap(), Settings::default());
        // And still does when every key is uncommented, which shows that each is a key; none is left out but those that are
        // nothing by default.
        let uncomment = |line: &str| {
            line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned()
        };
        let keys: Vec<_> = example.lines().map(uncomment).collect();
        assert_eq!(toml::from_str::<Settings>(&keys.join("\n")).unwrap(), Settings::default());
        let default = serde_json::to_value(Settings::default()).unwrap();
        let is_said = |value: &serde_json::Value| {
            !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
        };
        let sections = default.as_object().unwrap().values();
        let count = sections
            .flat_map(|section| section.as_object().unwrap().values())
            .filter(|value| is_said(value))
            .count();
        assert_eq!(keys.iter().filter(|line| !line.starts_with('#') && line.contains(" = ")).count(), count);
        // Examples are examples of what can be said.
        let all: Vec<_> = keys
            .iter()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|rest| rest.contains(" = ") || rest.starts_with("[["))
                    .unwrap_or(line)
            })
            .collect();
        toml::from_str::<Settings>(&all.join("\n")).unwrap();
    }
}
