//! The command line of `podsecctl check`.

use crate::check::range::{Range, RangeError};
use crate::time;
use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use podsec_policy::finding::{self, Severity};

/// See what the monitors found, and have them look
///
/// For administrators and the group podsec-monitor.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Check {
    /// Look now
    ///
    /// Exit status 0: all was looked at, and nothing found; 1: something was found, or could not be looked at.
    Run {
        /// At what; by default at all three
        #[arg(value_name = "CHECK")]
        checks: Vec<Looking>,
    },
    /// List what was found, the worst first, and how each check went
    List(ListFindings),
    /// Show all about a finding, and what to do
    Show {
        /// Which, as `check list` prints it; the first digits will do
        #[arg(value_parser = id)]
        id: String,
    },
    /// Print what was found, and then what is new and what is gone as it comes
    Watch {
        /// Of this check; by default of all
        #[arg(value_name = "CHECK")]
        check: Option<CheckName>,
    },
    /// Say what can be found, what it means and what to do; podsecd is not asked
    Explain {
        /// One of them; by default all are listed
        #[arg(value_parser = codes(), hide_possible_values = true)]
        code: Option<String>,
    },
    /// Report to Nagios, Icinga or NRPE: a plugin
    Nagios(Nagios),
}

/// Which findings. All that are given must fit.
#[derive(Debug, Default, Args)]
pub struct ListFindings {
    /// Of this check; by default of all
    #[arg(value_name = "CHECK")]
    pub check: Option<CheckName>,
    /// Not less severe; the first letter will do, and a for crash
    #[arg(long, value_name = "SEVERITY")]
    pub severity: Option<SeverityName>,
    /// Found in this user's images, files or processes
    #[arg(long, value_name = "USER", value_hint = clap::ValueHint::Username)]
    pub owner: Option<String>,
    /// Of this kind, see `check explain`
    #[arg(long, value_name = "CODE", value_parser = codes(), hide_possible_values = true)]
    pub code: Option<String>,
}

/// Report to Nagios, Icinga or NRPE: a plugin
///
/// By the Monitoring Plugins Development Guidelines: a line of text and performance data, then the worst findings; exit
/// status 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. UNKNOWN is whatever is not known: podsecd does not answer, the check never
/// looked or too long ago, it could say nothing, or this command line is wrong. Where somebody's files could not be looked
/// at, it is WARNING at least.
///
/// A RANGE is [@][~|START:]END, and a value outside alerts: 10 (below 0 or above 10), 10: (below 10), ~:10 (above 10), 10:20
/// (below 10 or above 20), @10:20 (from 10 to 20). Without -w and -c whatever was found is a WARNING; a sum of weights above
/// 100, or with --metric critical anything at all, is CRITICAL.
#[derive(Clone, Debug, Args)]
pub struct Nagios {
    /// Which check
    #[arg(value_name = "CHECK")]
    pub check: CheckName,
    /// WARNING where the value is in this range's alarm
    #[arg(short, long, value_name = "RANGE", value_parser = range, allow_hyphen_values = true)]
    pub warning: Option<Range>,
    /// CRITICAL where it is in this one's
    #[arg(short, long, value_name = "RANGE", value_parser = range, allow_hyphen_values = true)]
    pub critical: Option<Range>,
    /// The value
    #[arg(long, value_name = "METRIC", default_value = "weight")]
    pub metric: Metric,
    /// UNKNOWN where it looked longer ago: 45s, 10m, 2h; by default 3h, and 10m for containers and kubeapi, which look all
    /// the time
    #[arg(long, value_name = "DURATION", value_parser = time::duration)]
    pub max_age: Option<u64>,
    /// UNKNOWN where podsecd has not answered after so many seconds
    #[arg(
        short, long, value_name = "SECONDS", default_value = "10",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub timeout: u64,
}

/// What is compared with the ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Metric {
    /// The sum of the findings' weights
    Weight,
    /// How many findings
    Findings,
    /// How many of them are critical or worse
    Critical,
    /// Seconds since it looked
    Age,
}

/// A check, for the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckName(pub finding::Check);

impl ValueEnum for CheckName {
    fn value_variants<'a>() -> &'a [Self] {
        use finding::Check::{Containers, Images, KubeApi, Policy, Vulnerabilities};
        &[Self(Policy), Self(Images), Self(Containers), Self(KubeApi), Self(Vulnerabilities)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()).help(about(self.0)))
    }
}

/// A check that looks when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looking(pub finding::Check);

impl ValueEnum for Looking {
    fn value_variants<'a>() -> &'a [Self] {
        use finding::Check::{Images, Policy, Vulnerabilities};
        &[Self(Policy), Self(Images), Self(Vulnerabilities)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()).help(about(self.0)))
    }
}

fn about(check: finding::Check) -> &'static str {
    match check {
        finding::Check::Policy => "what decides which images run",
        finding::Check::Images => "the images that are there",
        finding::Check::Containers => "files that containers write",
        finding::Check::KubeApi => "the audit of the Kubernetes API",
        finding::Check::Vulnerabilities => "known vulnerabilities of images",
    }
}

/// How bad, for the command line; the letters are those of the old monitors' options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeverityName(pub Severity);

impl ValueEnum for SeverityName {
    fn value_variants<'a>() -> &'a [Self] {
        use Severity::{Crash, Critical, Debug, Fatal, High, Low, Medium, Warning};
        &[
            Self(Crash),
            Self(Fatal),
            Self(Critical),
            Self(High),
            Self(Medium),
            Self(Warning),
            Self(Low),
            Self(Debug),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()).alias(self.0.letter()))
    }
}

fn codes() -> clap::builder::PossibleValuesParser {
    finding::kinds().map(|kind| PossibleValue::new(kind.code).help(kind.title)).collect::<Vec<_>>().into()
}

fn range(text: &str) -> Result<Range, RangeError> {
    Range::new(text)
}

fn id(text: &str) -> Result<String, &'static str> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let good = (1..=16).contains(&text.len()) && text.bytes().all(is_hex);
    good.then(|| text.to_owned()).ok_or("not an id: 1 to 16 of 0-9 and a-f, as check list prints them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn parse(line: &str) -> Result<Check, clap::error::ErrorKind> {
        let words = ["podsecctl", "check"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.kind())?;
        let Command::Check(command) = cli.command else { panic!("{line}") };
        Ok(*command)
    }

    #[test]
    fn what_is_asked_of_the_monitors() {
        for line in [
            "run",
            "run policy images vulnerabilities --json",
            "list",
            "list kubeapi --severity high --owner carol --code image-unsigned",
            "show 3f2a",
            "show 0123456789abcdef",
            "watch",
            "watch containers",
            "explain",
            "explain image-unsigned",
            "nagios policy",
            "nagios images -w 10 -c @~:10.5 -t 3 --metric critical --max-age 90m",
            "nagios policy -w -10:10 --critical=-5:",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
        for line in [
            "",
            "run containers",
            "run kubeapi",
            "list all",
            "list --severity x",
            "list --code x",
            "show",
            "show 3F2A",
            "show 0123456789abcdef0",
            "show ../x",
            "explain x",
            "nagios",
            "nagios all",
            "nagios policy -w",
            "nagios policy -w 20:10",
            "nagios policy -c 20-100",
            "nagios policy -t 0",
            "nagios policy --max-age 1",
            "nagios policy -a 1",
            "nagios policy images",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn names_are_policys() {
        let checks: Vec<_> = CheckName::value_variants().iter().map(|name| name.0).collect();
        assert_eq!(checks, finding::Check::ALL);
        let looking: Vec<_> = Looking::value_variants().iter().map(|name| name.0).collect();
        assert_eq!(looking, checks.iter().copied().filter(|check| check.looks()).collect::<Vec<_>>());
        let mut severities: Vec<_> = SeverityName::value_variants().iter().map(|name| name.0).collect();
        severities.reverse();
        assert_eq!(severities, Severity::ALL);
        for severity in Severity::ALL {
            for name in [severity.name(), severity.letter()] {
                let Ok(Check::List(list)) = parse(&format!("list --severity {name}")) else {
                    panic!("{name}")
                };
                assert_eq!(list.severity, Some(SeverityName(severity)));
            }
        }
    }
}
