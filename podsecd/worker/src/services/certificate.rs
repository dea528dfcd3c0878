//! TLS: a certificate authority of this host's own, and a certificate of each server, made by openssl.
//!
//! The authority can vouch for the names of trust and nothing else (name constraints, RFC 5280 §4.2.1.10), so who trusts
//! it does not trust it with the rest of the network. podman, skopeo and CRI-O find it in containers-certs.d(5) of the
//! registry, and use it for the signatures of its images as well. Must not: put a key where anybody but its server's
//! process, or root, reads it.

use super::{CONFIGURATION, PRIVATE, PUBLIC, Services, private, read_text};
use crate::Failure;
use crate::store::{at, public_directory, remove};
use podsec_policy::audit::{hex, parse_time};
use podsec_policy::reason::Reason;
use podsec_policy::secret::Secret;
use podsec_policy::trust::{Endpoint, ServiceKind, Settings};
use podsec_sys::file;
use podsec_sys::process;
use podsec_sys::program::{Run, find_roots, run_with};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Root's alone: the authority's key, its certificate, and what it was made from.
const AUTHORITY: &str = "/etc/podsec/ca";
/// For other hosts to fetch.
pub const PUBLISHED: &str = "/var/sigstore/ca.crt";
/// containers-certs.d(5): in it, for each registry, a directory of certificates that its clients trust.
const TRUSTED: &str = "/etc/containers/certs.d";
/// Beside what others may have put there.
const TRUSTED_NAME: &str = "podsec-ca.crt";
/// Of the authority, and of a server: as long as browsers accept (CA/Browser Forum, ballot SC22).
const DAYS_OF_AUTHORITY: u64 = 3650;
const DAYS: u64 = 397;
const DAY: u64 = 86_400;
/// A certificate that has less than this left, in seconds, is renewed by the next deploy.
pub const SOON: u64 = 30 * DAY;

fn authority(name: &str) -> PathBuf {
    Path::new(AUTHORITY).join(name)
}

/// Key and certificate of a server, in one file, so that they are replaced together.
pub fn path(kind: ServiceKind) -> PathBuf {
    Path::new(PRIVATE).join(format!("{}.pem", kind.name()))
}

/// What it was made from.
fn source(kind: ServiceKind) -> PathBuf {
    Path::new(CONFIGURATION).join(format!("{}.cnf", kind.name()))
}

/// SHA-256 of a server's file; `None`: there is none.
///
/// # Errors
/// read(2)
pub fn hash(kind: ServiceKind) -> Result<Option<String>, Failure> {
    Ok(read_text(&path(kind))?.map(|text| hex(&Sha256::digest(text.as_bytes()))))
}

// ---- openssl(1ssl)

fn openssl(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Failure> {
    let path = find_roots("openssl").map_err(|error| Failure::new(Reason::Unsupported, error))?;
    let run = Run { input, ..Run::default() };
    run_with(&path, arguments, run).map_err(|error| Failure::new(Reason::Program, error))
}

/// On P-256, in PEM.
fn new_key() -> Result<Secret, Failure> {
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], &[]).map(Secret::new)
}

/// 127 random bits, as RFC 5280 §4.1.2.2 likes them: positive.
fn serial() -> Result<String, Failure> {
    let random = process::random::<16>().map_err(|error| Failure::new(Reason::Resources, error))?;
    let digits = hex(&random);
    Ok(format!("0x7{}", digits.get(1..).unwrap_or_default()))
}

fn lasts(path: &Path, seconds: u64) -> bool {
    let (path, seconds) = (path.display().to_string(), seconds.to_string());
    openssl(&["x509", "-noout", "-in", &path, "-checkend", &seconds], &[]).is_ok()
}

/// When it expires, in seconds since 1970; `None`: it cannot be read.
pub fn expires(path: &Path) -> Option<u64> {
    let printed = openssl(&["x509", "-noout", "-enddate", "-in", &path.display().to_string()], &[]).ok()?;
    end_date(&String::from_utf8(printed).ok()?)
}

/// `notAfter=Nov  9 23:49:35 2027 GMT`
fn end_date(line: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = line.trim().strip_prefix("notAfter=")?.split_whitespace();
    let (month, day, time, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|&name| name == month)? + 1;
    Some(parse_time(&format!("{year}-{month:02}-{day:0>2}T{time}.000000Z"))? / 1_000_000)
}

// ---- what they are made from

/// Names and addresses of hosts.
fn names<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> (Vec<&'a str>, Vec<IpAddr>) {
    let (mut hosts, mut addresses) = (Vec::new(), Vec::new());
    for endpoint in endpoints {
        match endpoint.host().parse() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Err(_) if !hosts.contains(&endpoint.host()) => hosts.push(endpoint.host()),
            _ => {}
        }
    }
    (hosts, addresses)
}

/// A file for `openssl req` (config(5ssl), x509v3_config(5ssl)).
fn config_of(common_name: &str, extensions: &[String]) -> String {
    let lines: String = extensions.iter().flat_map(|line| [line, "\n"]).collect();
    format!(
        "# Written by podsec.
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = {common_name}
[extensions]
subjectKeyIdentifier = hash
{lines}"
    )
}

fn config_of_authority(settings: &Settings) -> String {
    let (hosts, addresses) = names([&settings.registry, &settings.signatures]);
    let mut extensions = vec![
        "basicConstraints = critical, CA:TRUE, pathlen:0".to_owned(),
        "keyUsage = critical, keyCertSign, cRLSign".into(),
        "nameConstraints = critical, @constraints".into(),
        "[constraints]".into(),
    ];
    // A kind of name that is not mentioned is not constrained. RFC 6761 §6.4: no host is called invalid.
    let hosts = if hosts.is_empty() { vec!["invalid"] } else { hosts };
    extensions
        .extend(hosts.iter().enumerate().map(|(index, host)| format!("permitted;DNS.{index} = {host}")));
    for (index, address) in addresses.iter().enumerate() {
        let mask = match address {
            IpAddr::V4(_) => "255.255.255.255",
            IpAddr::V6(_) => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        };
        extensions.push(format!("permitted;IP.{index} = {address}/{mask}"));
    }
    if addresses.is_empty() {
        extensions.push("excluded;IP.0 = 0.0.0.0/0.0.0.0".into());
        extensions.push("excluded;IP.1 = 0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0".into());
    }
    config_of("podsec CA", &extensions)
}

fn config_of_server(endpoint: &Endpoint) -> String {
    let (hosts, addresses) = names([endpoint]);
    let hosts = hosts.iter().map(|host| format!("DNS:{host}"));
    let all: Vec<String> = hosts.chain(addresses.iter().map(|address| format!("IP:{address}"))).collect();
    let extensions = [
        "basicConstraints = critical, CA:FALSE".to_owned(),
        "keyUsage = critical, digitalSignature".into(),
        "extendedKeyUsage = serverAuth".into(),
        format!("subjectAltName = {}", all.join(", ")),
    ];
    // X.520: a common name has at most 64 characters, and nobody reads it where there are alternative ones.
    config_of("podsec", &extensions)
}

// ---- are they as they should be, and making them

/// The authority outlives whatever it may sign before the next deploy.
fn has_authority(settings: &Settings) -> Result<bool, Failure> {
    Ok(read_text(&authority("ca.cnf"))?.as_ref() == Some(&config_of_authority(settings))
        && authority("ca.key").exists()
        && lasts(&authority("ca.crt"), DAYS * DAY + SOON))
}

fn has_certificate(services: &Services, kind: ServiceKind) -> Result<bool, Failure> {
    let (file, by) = (path(kind).display().to_string(), authority("ca.crt").display().to_string());
    Ok(read_text(&source(kind))?.as_ref() == Some(&config_of_server(services.endpoint(kind)))
        && lasts(&path(kind), SOON)
        && openssl(&["verify", "-CAfile", &by, &file], &[]).is_ok())
}

/// What is to be made, as a sentence.
///
/// # Errors
/// `Unsupported` without openssl
pub fn todo(services: &Services) -> Result<Option<String>, Failure> {
    if services.settings.plain_http {
        return Ok(None);
    }
    find_roots("openssl").map_err(|error| Failure::new(Reason::Unsupported, error))?;
    let mut todo = Vec::new();
    let authority = has_authority(&services.settings)?;
    if !authority {
        let again =
            if self::authority("ca.crt").exists() { "anew, for the names that trust has now" } else { "" };
        todo.push(format!("make the certificate authority {AUTHORITY} {again}").trim_end().to_owned());
    }
    for &kind in services.servers.keys() {
        if !authority || !has_certificate(services, kind)? {
            todo.push(format!("make a certificate of {} for {DAYS} days", services.endpoint(kind).host()));
        }
    }
    Ok((!todo.is_empty()).then(|| todo.join("; ")))
}

/// Makes it.
///
/// # Errors
/// `Program` with what openssl said
pub fn run(services: &Services, scratch: &Path) -> Result<(), Failure> {
    if !has_authority(&services.settings)? {
        make_authority(&services.settings)?;
    }
    for &kind in services.servers.keys() {
        if !has_certificate(services, kind)? {
            make_certificate(services, kind, scratch)?;
        }
    }
    Ok(())
}

fn make_authority(settings: &Settings) -> Result<(), Failure> {
    process::make_root_owned(Path::new(AUTHORITY), 0o700).map_err(at(Path::new(AUTHORITY)))?;
    let (source, key, certificate) = (authority("ca.cnf"), authority("ca.key"), authority("ca.crt"));
    // Whatever of it a crash leaves, without the certificate it is no authority.
    remove(&certificate)?;
    let secret = new_key()?;
    file::replace(&key, secret.expose(), 0o600).map_err(at(&key))?;
    file::replace(&source, config_of_authority(settings).as_bytes(), 0o644).map_err(at(&source))?;
    let (source, days, serial) = (source.display().to_string(), DAYS_OF_AUTHORITY.to_string(), serial()?);
    let arguments = [
        "req",
        "-new",
        "-x509",
        "-sha256",
        "-config",
        &source,
        "-key",
        "/dev/stdin",
        "-days",
        &days,
        "-set_serial",
        &serial,
    ];
    let made = openssl(&arguments, secret.expose())?;
    file::replace(&certificate, &made, 0o644).map_err(at(&certificate))
}

fn make_certificate(services: &Services, kind: ServiceKind, scratch: &Path) -> Result<(), Failure> {
    private()?;
    let text = config_of_server(services.endpoint(kind));
    let tried = scratch.join("server.cnf");
    file::replace(&tried, text.as_bytes(), 0o600).map_err(at(&tried))?;
    let tried = tried.display().to_string();
    let secret = new_key()?;
    let request =
        openssl(&["req", "-new", "-sha256", "-config", &tried, "-key", "/dev/stdin"], secret.expose())?;
    let (by, key) = (authority("ca.crt").display().to_string(), authority("ca.key").display().to_string());
    let (days, serial) = (DAYS.to_string(), serial()?);
    let arguments = [
        "x509",
        "-req",
        "-sha256",
        "-in",
        "/dev/stdin",
        "-CA",
        &by,
        "-CAkey",
        &key,
        "-set_serial",
        &serial,
        "-days",
        &days,
        "-extfile",
        &tried,
        "-extensions",
        "extensions",
    ];
    let made = openssl(&arguments, &request)?;
    let both = Secret::new([&made, secret.expose()].concat());
    file::replace(&path(kind), both.expose(), 0o640).map_err(at(&path(kind)))?;
    file::replace(&source(kind), text.as_bytes(), 0o644).map_err(at(&source(kind)))
}

/// A certificate for a moment, to try a configuration with.
///
/// # Errors
/// `Program`
pub fn make_for_trial(path: &Path) -> Result<(), Failure> {
    let text = config_of("podsec", &[]);
    let source = path.with_extension("cnf");
    file::replace(&source, text.as_bytes(), 0o600).map_err(at(&source))?;
    let (source, key) = (source.display().to_string(), new_key()?);
    let arguments = ["req", "-new", "-x509", "-config", &source, "-key", "/dev/stdin", "-days", "1"];
    let both = Secret::new([&openssl(&arguments, key.expose())?, key.expose()].concat());
    file::replace(path, both.expose(), 0o600).map_err(at(path))
}

// ---- whoever shall trust it

/// Where clients on this host look, for this registry.
fn trusted(endpoint: &Endpoint) -> PathBuf {
    Path::new(TRUSTED).join(endpoint.as_str()).join(TRUSTED_NAME)
}

/// Copies of the authority's certificate that podsec has put into directories of registries.
fn all_trusted() -> Vec<PathBuf> {
    let all = std::fs::read_dir(TRUSTED).into_iter().flatten().flatten();
    all.map(|entry| entry.path().join(TRUSTED_NAME)).filter(|path| path.exists()).collect()
}

fn copies(services: &Services) -> Vec<PathBuf> {
    if services.settings.plain_http {
        return Vec::new();
    }
    vec![PathBuf::from(PUBLISHED), trusted(&services.settings.registry)]
}

/// Is it where verifiers look?
///
/// # Errors
/// read(2)
pub fn public_todo(services: &Services) -> Result<Option<String>, Failure> {
    let own = read_text(&authority("ca.crt"))?;
    // What is to be made will have to be copied.
    let coming = todo(services)?.is_some_and(|todo| todo.contains(AUTHORITY));
    for path in copies(services) {
        if coming || read_text(&path)? != own {
            let registry = services.settings.registry.as_str();
            return Ok(Some(format!(
                "have podman, skopeo and CRI-O of this host trust {AUTHORITY} for {registry}"
            )));
        }
    }
    Ok(None)
}

/// Puts it there, and away from where it was for another registry.
///
/// # Errors
/// write(2)
pub fn public_run(services: &Services) -> Result<(), Failure> {
    let copies = copies(services);
    if !copies.is_empty() {
        let own = read_text(&authority("ca.crt"))?.ok_or(Reason::Bug)?;
        public_directory(Path::new(PUBLIC))?;
        for path in &copies {
            public_directory(path.parent().ok_or(Reason::Bug)?)?;
            file::replace(path, own.as_bytes(), 0o644).map_err(at(path))?;
        }
    }
    let old: Vec<PathBuf> = all_trusted().into_iter().filter(|path| !copies.contains(path)).collect();
    remove_all(&old)
}

// ---- removing

/// What is there of a server's, of the copies, and of the authority.
pub fn files(kind: ServiceKind, copies: bool, whole: bool) -> Vec<PathBuf> {
    let mut files = vec![path(kind), source(kind)];
    if copies {
        files.push(PUBLISHED.into());
        files.extend(all_trusted());
    }
    if whole {
        files.extend(["ca.crt", "ca.cnf", "ca.key"].map(authority));
    }
    files.retain(|path| path.exists());
    files
}

/// Removes them, and the directories of podsec's that are empty then.
///
/// # Errors
/// unlink(2)
pub fn remove_all(files: &[PathBuf]) -> Result<(), Failure> {
    for path in files {
        remove(path)?;
        if path.starts_with(TRUSTED) || path.starts_with(AUTHORITY) {
            // Not while somebody else's is in it.
            let _ = path.parent().map(std::fs::remove_dir);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::tests::services;

    #[test]
    fn made_for_these_names() {
        let all = services("registry.local:5000", "sigstore.local", false);
        insta::assert_snapshot!("ca-names", config_of_authority(&all.settings));
        insta::assert_snapshot!("server-name", config_of_server(all.endpoint(ServiceKind::Registry)));
        let all = services("10.0.0.1", "10.0.0.2:81", false);
        insta::assert_snapshot!("ca-addresses", config_of_authority(&all.settings));
        insta::assert_snapshot!("server-address", config_of_server(all.endpoint(ServiceKind::Signatures)));
    }

    #[test]
    fn end_dates() {
        assert_eq!(end_date("notAfter=Nov  9 23:49:35 2027 GMT\n"), Some(1_825_804_175));
        assert_eq!(end_date("notAfter=Jan 12 00:00:00 2030 GMT"), Some(1_894_406_400));
        for bad in ["", "notAfter=", "notAfter=Foo 9 23:49:35 2027 GMT", "notAfter=Nov 31 25:49:35 2027 GMT"]
        {
            assert_eq!(end_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn serials_are_positive_and_differ() {
        let (one, other) = (serial().unwrap(), serial().unwrap());
        assert!(one.starts_with("0x7") && one.len() == 34 && one != other, "{one} {other}");
    }
}
