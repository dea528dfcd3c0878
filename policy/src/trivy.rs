//! trivy, as podsec uses it: its arguments, its report on an image, and what of that report counts.
//!
//! Owns the typed form of the report (`--format json`, schema 2), limits and exceptions. Its texts are as they came, cut to
//! a length: whoever shows them escapes them. Must not: start anything, or take part of a report for the whole.

mod limits;

pub use limits::{Day, DayError, Exception, Excess, Limits, judge};

use crate::audit::parse_time;
use crate::finding::Severity;
use limits::DAY;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// The form of reports that is understood.
const SCHEMA: u64 = 2;
/// Vulnerabilities of one image that are kept, the worst first; the rest is counted.
pub const MOST: usize = 5_000;
/// Bytes of a name or a version that are kept.
const LONGEST: usize = 128;

/// How bad, as trivy says it, from the least to the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Nobody has said yet.
    #[default]
    Unknown,
    /// `LOW`
    Low,
    /// `MEDIUM`
    Medium,
    /// `HIGH`
    High,
    /// `CRITICAL`
    Critical,
}

impl Level {
    /// From the worst to the least.
    pub const ALL: [Self; 5] = [Self::Critical, Self::High, Self::Medium, Self::Low, Self::Unknown];

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The reverse.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Of a finding.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::Unknown => Severity::Debug,
            Self::Low => Severity::Low,
            Self::Medium => Severity::Medium,
            Self::High => Severity::High,
            Self::Critical => Severity::Critical,
        }
    }
}

/// One vulnerability of one package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Vulnerability {
    /// How bad.
    pub level: Level,
    /// CVE-2026-0001, GHSA-…
    pub id: String,
    /// Which has it.
    pub package: String,
    /// Its version.
    pub installed: String,
    /// The version that has it no more; empty: there is none yet.
    pub fixed: String,
}

impl std::fmt::Display for Vulnerability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {} {}", self.id, self.package, self.installed)?;
        if self.fixed.is_empty() { Ok(()) } else { write!(f, " (fixed in {})", self.fixed) }
    }
}

/// What trivy knows of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// The worst first, each once.
    pub vulnerabilities: Vec<Vulnerability>,
    /// How many more there were no room for; none of them worse.
    pub more: u64,
    /// The distribution, `alpine 3.19.1`; empty where trivy knows none.
    pub distribution: String,
    /// It gets no fixes any more, so nobody says what is wrong with it.
    pub is_out_of_support: bool,
    /// Packages that trivy found, of the distribution and of programming languages.
    pub packages: u64,
}

impl Scan {
    /// Has trivy found anything that it could know something of? If not, an empty list says nothing.
    #[must_use]
    pub fn says_something(&self) -> bool {
        self.packages > 0
    }

    /// Forgets what these limits do not ask for.
    pub fn keep(&mut self, limits: &Limits) {
        let asked = |level: Level| limits.of(level).is_some();
        if self.vulnerabilities.last().is_some_and(|last| !asked(last.level)) {
            self.more = 0;
        }
        self.vulnerabilities.retain(|one| asked(one.level));
    }
}

/// Why a report is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Not JSON, or not of that form.
    #[error("what trivy printed is no report: {0}")]
    Syntax(String),
    /// Another trivy.
    #[error(
        "trivy's report has the schema {0}, and only {SCHEMA} is known here: use a trivy of 0.20 to 0.6x"
    )]
    Schema(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    schema_version: u64,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    results: Option<Vec<Outcome>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(rename = "OS")]
    os: Option<System>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct System {
    family: String,
    name: String,
    #[serde(rename = "EOSL")]
    eosl: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    #[serde(default)]
    packages: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    vulnerabilities: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "VulnerabilityID")]
    id: String,
    pkg_name: String,
    #[serde(default)]
    installed_version: String,
    #[serde(default)]
    fixed_version: String,
    #[serde(default)]
    severity: Level,
}

impl From<Entry> for Vulnerability {
    fn from(entry: Entry) -> Self {
        Self {
            level: entry.severity,
            id: cut(entry.id),
            package: cut(entry.pkg_name),
            installed: cut(entry.installed_version),
            fixed: cut(entry.fixed_version),
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

/// Reads a report.
///
/// # Errors
/// [`ScanError`]
pub fn read(report: &[u8]) -> Result<Scan, ScanError> {
    let report: Report =
        serde_json::from_slice(report).map_err(|error| ScanError::Syntax(error.to_string()))?;
    if report.schema_version != SCHEMA {
        return Err(ScanError::Schema(report.schema_version));
    }
    let system = report.metadata.os.unwrap_or_default();
    let distribution = cut(format!("{} {}", system.family, system.name).trim().to_owned());
    let mut scan = Scan { distribution, is_out_of_support: system.eosl, ..Scan::default() };
    for outcome in report.results.unwrap_or_default() {
        scan.packages += outcome.packages.unwrap_or_default().len() as u64;
        scan.vulnerabilities.extend(outcome.vulnerabilities.unwrap_or_default().into_iter().map(Into::into));
    }
    scan.vulnerabilities.sort_by(|one, other| other.level.cmp(&one.level).then_with(|| one.cmp(other)));
    scan.vulnerabilities.dedup();
    scan.more = scan.vulnerabilities.len().saturating_sub(MOST) as u64;
    scan.vulnerabilities.truncate(MOST);
    Ok(scan)
}

/// How trivy is told what to look at.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The image, as an archive or an OCI layout: a path of ours, never a name of the image's.
    pub input: &'a str,
    /// Directory of its databases: `db/trivy.db` and `db/metadata.json` are in it.
    pub cache: &'a str,
    /// A trivy that runs as server and has the database.
    pub server: Option<&'a str>,
    /// Seconds that it may take.
    pub seconds: u64,
}

impl Ask<'_> {
    /// One argument after the other. Values are joined to their options, so that none is taken for an option itself.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "image",
            "--format=json",
            "--quiet",
            "--scanners=vuln",
            "--list-all-pkgs",
            // What others know of the image: nobody is asked but the database.
            "--offline-scan",
            "--skip-java-db-update",
            // Nothing of it is kept for the next image, and no other trivy is waited for.
            "--cache-backend=memory",
        ]
        .map(str::to_owned)
        .into();
        arguments.push(format!("--input={}", self.input));
        arguments.push(format!("--cache-dir={}", self.cache));
        arguments.push(format!("--timeout={}s", self.seconds));
        arguments.push(
            self.server.map_or_else(|| "--skip-db-update".to_owned(), |server| format!("--server={server}")),
        );
        arguments
    }
}

/// What trivy says of its database, `db/metadata.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Database {
    /// When it was put together; RFC 3339.
    pub updated_at: String,
    /// When there will be a newer one.
    #[serde(default)]
    pub next_update: String,
}

impl Database {
    /// # Errors
    /// says what is wrong with it
    pub fn read(metadata: &[u8]) -> Result<Self, String> {
        let database: Self = serde_json::from_slice(metadata).map_err(|error| error.to_string())?;
        seconds(&database.updated_at).map(|_| database).ok_or_else(|| "UpdatedAt is no time".to_owned())
    }

    /// So many days old, so many seconds after 1970-01-01.
    #[must_use]
    pub fn days_old(&self, now: u64) -> u64 {
        now.saturating_sub(seconds(&self.updated_at).unwrap_or(0)) / DAY
    }

    /// Is there a newer one by now?
    #[must_use]
    pub fn is_due(&self, now: u64) -> bool {
        seconds(&self.next_update).is_none_or(|next| next <= now)
    }
}

/// Since 1970, of `2026-01-31T08:00:00…`: in UTC, as trivy writes it; to within a day where it does not.
fn seconds(time: &str) -> Option<u64> {
    parse_time(&format!("{}.000000Z", time.get(..19)?)).map(|micros| micros / 1_000_000)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// 2026-11-27
    pub const NOW: u64 = 1_795_737_600;

    fn entry(id: &str, package: &str, severity: &str) -> serde_json::Value {
        json!({
            "VulnerabilityID": id, "PkgID": "x", "PkgName": package, "InstalledVersion": "1-r0", "FixedVersion": "9-r0",
            "Status": "fixed", "Title": "\u{1b}[2J", "Severity": severity, "CVSS": { "nvd": { "V3Score": 9.8 } },
        })
    }

    fn report(entries: &[serde_json::Value]) -> Vec<u8> {
        let value = json!({
            "SchemaVersion": 2, "CreatedAt": "2026-11-27T00:00:00Z", "ArtifactName": "x", "ArtifactType": "container_image",
            "Metadata": { "OS": { "Family": "alpine", "Name": "3.19.1", "EOSL": true }, "ImageConfig": {} },
            "Results": [
                { "Target": "x (alpine 3.19.1)", "Class": "os-pkgs", "Packages": [{}, {}], "Vulnerabilities": entries },
                { "Target": "app", "Class": "lang-pkgs" },
            ],
        });
        value.to_string().into_bytes()
    }

    pub fn scan(entries: &[(&str, &str)]) -> Scan {
        let entries: Vec<_> = entries.iter().map(|(id, severity)| entry(id, "musl", severity)).collect();
        read(&report(&entries)).unwrap()
    }

    #[test]
    fn a_report_is_read() {
        let scan =
            scan(&[("CVE-1", "LOW"), ("CVE-3", "CRITICAL"), ("CVE-2", "CRITICAL"), ("CVE-3", "CRITICAL")]);
        let ids: Vec<_> = scan.vulnerabilities.iter().map(|one| (one.level, one.id.as_str())).collect();
        assert_eq!(ids, [(Level::Critical, "CVE-2"), (Level::Critical, "CVE-3"), (Level::Low, "CVE-1")]);
        assert_eq!(
            (scan.distribution.as_str(), scan.is_out_of_support, scan.packages),
            ("alpine 3.19.1", true, 2)
        );
        assert_eq!(scan.vulnerabilities[0].to_string(), "CVE-2 in musl 1-r0 (fixed in 9-r0)");
        let nothing = read(br#"{"SchemaVersion":2,"Results":null}"#).unwrap();
        assert!(nothing == Scan::default() && !nothing.says_something());
    }

    #[test]
    fn what_is_no_report() {
        for bad in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"SchemaVersion":"2"}"#,
            r#"{"SchemaVersion":2,"Results":{}}"#,
            r#"{"SchemaVersion":2,"Results":[{"Vulnerabilities":[{}]}]}"#,
            r#"{"SchemaVersion":2,"Results":[{"Vulnerabilities":[{"VulnerabilityID":1,"PkgName":"x"}]}]}"#,
            r#"{"SchemaVersion":2,"Results":[{"Vulnerabilities":[{"VulnerabilityID":"x"}]}]}"#,
            r#"{"SchemaVersion":2,"Results":[{"Vulnerabilities":[{"VulnerabilityID":"x","PkgName":"y","Severity":"AWFUL"}]}]}"#,
            r#"{"SchemaVersion":2,"SchemaVersion":2}"#,
            r#"{"SchemaVersion":2} {}"#,
            r#"{"SchemaVersion":2,"#,
        ] {
            assert!(matches!(read(bad.as_bytes()), Err(ScanError::Syntax(_))), "{bad}");
        }
        for version in [0, 1, 3, u64::MAX] {
            let bad = json!({ "SchemaVersion": version }).to_string();
            assert_eq!(read(bad.as_bytes()), Err(ScanError::Schema(version)));
        }
        assert!(read("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn hostile_names_stay_names_and_become_short() {
        let long = "ä".repeat(1 << 19);
        for name in ["$(touch /x)\"'`", "--server=x", "\n\u{1b}[2J\u{202e}", "../..", "", &long] {
            let scan = read(&report(&[entry(name, name, "HIGH")])).unwrap();
            let one = &scan.vulnerabilities[0];
            assert!(
                one.package.len() <= LONGEST + 3 && name.starts_with(one.package.trim_end_matches('…')),
                "{name}"
            );
            let text = crate::finding::Text::of(judge(&scan, &[], &Limits::default(), &[], NOW)[0].list());
            assert!(!text.as_str().chars().any(char::is_control), "{text}");
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_and_counts() {
        let entries: Vec<_> =
            (0..MOST + 7).map(|number| entry(&format!("CVE-{number}"), "x", "HIGH")).collect();
        let scan = read(&report(&entries)).unwrap();
        assert_eq!((scan.vulnerabilities.len(), scan.more), (MOST, 7));
        let excess = judge(&scan, &[], &Limits::default(), &[], NOW);
        assert!(excess[0].list().starts_with(&format!("{}: CVE-", MOST + 7)));
        assert!(excess[0].list().len() < 1000 && excess[0].list().ends_with(" more"));
    }

    #[test]
    fn a_database_has_an_age() {
        let text = br#"{"Version":2,"NextUpdate":"2026-11-28T00:00:00.123456789Z","UpdatedAt":"2026-11-20T01:02:03.5Z"}"#;
        let database = Database::read(text).unwrap();
        assert_eq!(
            (database.days_old(NOW), database.is_due(NOW), database.is_due(NOW + 2 * DAY)),
            (6, false, true)
        );
        for bad in ["", "{}", r#"{"UpdatedAt":""}"#, r#"{"UpdatedAt":"yesterday, at noon, or so"}"#] {
            assert!(Database::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_value_is_an_option() {
        let ask = Ask { input: "--x", cache: "-y", server: Some("-z"), seconds: 7 };
        let arguments = ask.arguments();
        assert!(arguments[1..].iter().all(|argument| argument.starts_with("--")));
        assert!(
            ["--input=--x", "--cache-dir=-y", "--server=-z", "--timeout=7s"]
                .iter()
                .all(|one| arguments.iter().any(|argument| argument == one))
        );
        assert!(!arguments.contains(&"--skip-db-update".to_owned()));
        assert!(Ask { server: None, ..ask }.arguments().contains(&"--skip-db-update".to_owned()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = Database::read(&bytes);
        }
    }
}
