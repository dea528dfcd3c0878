//! `trust` and `service`

use super::{account, scope};
use clap::{Args, Subcommand, ValueEnum};
use podsec_policy::name::AccountName;
use podsec_policy::trust::{
    BundleUrl, BundleUrlError, Endpoint, EndpointError, HostName, HostNameError, Why, WhyError,
};
use podsec_policy::user::{Fingerprint, Scope};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

// A command's own page shows the comment of its arguments (see `Command`), so that one says all.

/// Say whose signed images run on this host
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Trust {
    /// Refuse every image that no creator of this host has signed, or change where images and signatures are
    Init(InitTrust),
    /// Show who signs where, by which keys, and whether the files that say so are as podsec wrote them
    Show {
        /// As it was in this revision
        #[arg(long, value_name = "NUMBER")]
        revision: Option<NonZeroU64>,
    },
    /// Show what somebody changed by hand in the files, or what differs between revisions
    ///
    /// Without a revision: what podsec wrote against what is there. With one: that one against the current. Exit status
    /// 0: no difference; 1: some.
    Diff {
        /// The older revision
        from: Option<NonZeroU64>,
        /// The newer one
        to: Option<NonZeroU64>,
    },
    /// List revisions, newest first: who, when, what and why
    History,
    /// Make a new revision as an old one was; what was revoked since stays revoked
    Rollback(RollbackTrust),
    /// Let a creator sign in scopes
    Grant(GrantSigner),
    /// Let a creator sign no more
    Revoke(RevokeSigner),
    /// Give out this host's trust, signed by its trust key, for `trust sync` on other hosts
    Export {
        /// Into this file
        #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Take over the trust of another host
    Sync(SyncTrust),
    /// Check that your own policy is strict, and whether images would run
    Check(CheckTrust),
}

/// Of every change of trust.
#[derive(Debug, Default, Args)]
pub struct Reason {
    /// For the history
    #[arg(long, value_name = "TEXT", value_parser = why)]
    pub why: Option<Why>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Write over what somebody changed by hand; it is kept in podsec's state directory
    #[arg(long)]
    pub overwrite: bool,
}

/// Refuse every image that no creator of this host has signed, or change where images and signatures are
///
/// The scopes and keys that creators have already are taken over. Asked again, it changes the settings to what it is
/// given, and keeps who signs where.
#[derive(Debug, Args)]
pub struct InitTrust {
    /// The registry
    #[arg(long, value_name = "HOST[:PORT]", default_value = "registry.local", value_parser = endpoint)]
    pub registry: Endpoint,
    /// The server of signatures
    #[arg(long, value_name = "HOST[:PORT]", default_value = "sigstore.local", value_parser = endpoint)]
    pub signatures: Endpoint,
    /// Give this address to their names in /etc/hosts; without it they are in the DNS
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// One more name for the address; trivy.local where none is given
    #[arg(long = "name", value_name = "HOST", value_parser = host, requires = "address")]
    pub names: Vec<HostName>,
    /// Plain HTTP for both
    #[arg(long)]
    pub http: bool,
    /// About the change.
    #[command(flatten)]
    pub reason: Reason,
}

/// Make a new revision as an old one was; what was revoked since stays revoked
#[derive(Debug, Args)]
pub struct RollbackTrust {
    /// The old one
    pub revision: NonZeroU64,
    /// About the change.
    #[command(flatten)]
    pub reason: Reason,
}

/// Let a creator sign in scopes
#[derive(Debug, Args)]
pub struct GrantSigner {
    /// Who
    #[arg(value_parser = account, value_hint = clap::ValueHint::Username)]
    pub creator: AccountName,
    /// Where: repositories such as registry.local/team
    #[arg(required = true, value_name = "SCOPE", value_parser = scope)]
    pub scopes: Vec<Scope>,
    /// By sigstore keys, instead of GPG's
    #[arg(long)]
    pub sigstore: bool,
    /// Beside those who sign there already
    #[arg(long)]
    pub shared: bool,
    /// About the change.
    #[command(flatten)]
    pub reason: Reason,
}

/// Let a creator sign no more
///
/// What he has signed stays trusted, unless asked otherwise; `podsecctl image signatures --creator NAME` lists it.
#[derive(Debug, Args)]
pub struct RevokeSigner {
    /// Who
    #[arg(value_parser = account, value_hint = clap::ValueHint::Username)]
    pub creator: AccountName,
    /// Where; by default wherever he does
    #[arg(value_name = "SCOPE", value_parser = scope)]
    pub scopes: Vec<Scope>,
    /// Nothing that he has signed is trusted any more either, from the next pull on
    #[arg(long)]
    pub distrust_existing: bool,
    /// About the change.
    #[command(flatten)]
    pub reason: Reason,
}

/// Take over the trust of another host
///
/// It is fetched by curl, which runs without rights. What comes has to be signed by the trust key of that host, whose
/// fingerprint is typed in at first and remembered from then on, and must not be older than what is here.
#[derive(Debug, Args)]
pub struct SyncTrust {
    /// Where it is: http://HOST/trust/bundle, the same with https, a file, or - for standard input; by default where it
    /// was fetched last
    #[arg(value_name = "URL|FILE|-", value_hint = clap::ValueHint::Url)]
    pub from: Option<String>,
    /// Of the other host's trust key, as `trust show` prints it there; needed the first time
    #[arg(long, value_name = "FINGERPRINT", value_parser = Fingerprint::new)]
    pub fingerprint: Option<Fingerprint>,
    /// Authority of the server's certificate, if not one of the system's
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
    /// About the change.
    #[command(flatten)]
    pub reason: Reason,
}

/// Check that your own policy is strict, and whether images would run
///
/// Needs no podsecd and no rights: it reads the policy that podman and skopeo take for you, and verifies images as they
/// do, by skopeo, in a temporary directory. Exit status 0: the policy is strict, and all images would run; 1 otherwise.
#[derive(Debug, Args)]
pub struct CheckTrust {
    /// Image in a registry, such as registry.local/team/app:1
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Run the registry and the server of signatures on this host
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Service {
    /// Configure and start a server; podsec's own files and units, beside the distribution's
    Deploy(DeployService),
    /// Stop a server and remove podsec's configuration of it; what it stores stays
    Remove(RemoveService),
    /// Show whether the servers answer, where, how much they store, and until when their certificates are valid
    ///
    /// Exit status 0: those that are deployed answer; 1: one does not.
    Status,
    /// Get a new password of your own for pushing to the registry; the old one ends
    Credential {
        /// Give it to skopeo, for podman and skopeo to push with, instead of printing it
        #[arg(long)]
        save: bool,
    },
}

/// Configure and start a server; podsec's own files and units, beside the distribution's
///
/// Its own test has to accept the configuration before it starts. A server that is not podsec's and listens on the port
/// is reported and left alone.
#[derive(Debug, Args)]
pub struct DeployService {
    /// Which
    pub service: ServiceName,
    /// Listen on this address only
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Listen on this port; by default the one that trust names, else 443, or 80 for plain HTTP
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// Stop a server and remove podsec's configuration of it; what it stores stays
#[derive(Debug, Args)]
pub struct RemoveService {
    /// Which
    pub service: ServiceName,
    /// Remove its images or signatures, too
    #[arg(long)]
    pub remove_data: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceName {
    /// Of images
    Registry,
    /// Of signatures, and of the bundle of trust
    Signatures,
}

fn endpoint(text: &str) -> Result<Endpoint, EndpointError> {
    Endpoint::new(text)
}

fn host(text: &str) -> Result<HostName, HostNameError> {
    HostName::new(text)
}

fn why(text: &str) -> Result<Why, WhyError> {
    Why::new(text)
}

/// `None`: not a URL at all, so a file.
///
/// # Errors
/// [`BundleUrlError`]
pub fn bundle_url(text: &str) -> Result<Option<BundleUrl>, BundleUrlError> {
    if text.contains("://") { BundleUrl::new(text).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn parse(line: &str) -> Result<Command, clap::error::ErrorKind> {
        let words = std::iter::once("podsecctl").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.kind())
    }

    #[test]
    fn what_is_done_to_trust() {
        for line in [
            "trust init",
            "trust init --registry r.local:5000 --signatures s.local:81 --address ::1 --name t.local --http --dry-run",
            "trust show --revision 3 --json",
            "trust diff",
            "trust diff 1 2",
            "trust history",
            "trust rollback 1 --why mistake --overwrite",
            "trust grant carol r.local/team r.local/other --sigstore --shared",
            "trust revoke carol --distrust-existing --dry-run",
            "trust export --output x",
            "trust sync",
            "trust sync http://a.b/trust/bundle --fingerprint 0123456789abcdef0123456789abcdef01234567",
            "trust check r.local/team/app:1",
            "service deploy registry --address 10.0.0.1 --port 5000 --dry-run",
            "service remove signatures --remove-data --yes",
            "service status",
            "service credential --save",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
        for line in [
            "trust init --registry registry",
            "trust init --registry https://registry.local",
            "trust init --registry r.local/x",
            "trust init --address host",
            "trust init --name trivy.local",
            "trust init --address 10.0.0.1 --name trivy\nlocal",
            "trust show --revision 0",
            "trust rollback",
            "trust rollback -1",
            "trust grant carol",
            "trust grant carol ../x",
            "trust grant Carol r.local/x",
            "trust sync --fingerprint DEADBEEF",
            "service deploy registry --port 0",
            "service deploy registry --port 65536",
            "service deploy database",
            "service credential --password x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let long = "x".repeat(201);
        assert!(parse(&format!("trust rollback 1 --why {long}")).is_err());
    }

    #[test]
    fn a_url_is_told_from_a_file() {
        assert!(super::bundle_url("http://a.b/trust/bundle").unwrap().is_some());
        assert_eq!(super::bundle_url("bundle").unwrap(), None);
        for odd in ["file:///etc/shadow", "http://a.b/x?y", "http://u@a.b/x", "https://a.b/../x"] {
            assert!(super::bundle_url(odd).is_err(), "{odd}");
        }
    }
}
