//! Another host's bundle, fetched by curl in a process without rights: it and the server that it talks to read what
//! strangers send, and whoever calls `podsecctl trust sync` may be root.
//!
//! Must not believe what it gets: podsecd checks whose it is.

use crate::failure::Failure;
use crate::output::clean;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
};
use podsec_policy::trust::{Bundle, BundleUrl};
use podsec_sys::credentials::{self, Account};
use podsec_sys::nix::sys::resource::{Resource, setrlimit};
use podsec_sys::nix::unistd::geteuid;
use podsec_sys::process::in_child;
use podsec_sys::program::{CURL, Run, find, run_with};
use std::path::Path;
use std::time::Duration;

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name look-ups go this way too, where an answer is long.
const DNS: u16 = 53;
/// `nobody` of every distribution; owns nothing.
const NOBODY: u32 = 65_534;

/// What curl, its libraries and the look-up of names read.
const READABLE: [&str; 9] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc",
    "/run/systemd/resolve",
    "/dev/null",
    "/dev/urandom",
    "/dev/zero",
];

/// What the server has at that address, of at most [`Bundle::LONGEST`] bytes.
///
/// # Errors
/// [`Failure::Program`]
pub fn get(url: &BundleUrl, authority: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let said = |text: &dyn std::fmt::Display| Failure::Program("curl", text.to_string());
    let curl =
        find("curl").ok_or_else(|| said(&"is not installed on this host, and it fetches the bundle"))?;
    let authority =
        authority.map(|path| path.canonicalize().map_err(|error| Failure::File(path.into(), error)));
    let authority = authority.transpose()?;
    let answer = in_child(PATIENCE + Duration::from_secs(5), || {
        let fetched = shut(port(url.as_str()), authority.as_deref())
            .and_then(|()| fetch(&curl, url.as_str(), authority.as_deref()));
        match fetched {
            Ok(bytes) => [&b"+"[..], &bytes].concat(),
            Err(text) => [b"-", text.as_bytes()].concat(),
        }
    });
    match answer.map_err(|error| said(&format!("gave nothing: {error}")))?.split_first() {
        Some((b'+', bytes)) => Ok(bytes.to_vec()),
        Some((_, text)) => Err(said(&clean(&String::from_utf8_lossy(text)))),
        None => Err(said(&"gave nothing")),
    }
}

/// Of the server.
fn port(url: &str) -> u16 {
    let usual = if url.starts_with("https:") { 443 } else { 80 };
    let server = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    server.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(usual)
}

/// No user's rights, nothing to write, no server but that one; for good.
fn shut(port: u16, authority: Option<&Path>) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("was not started, since its cage could not be built: {error}")
    };
    if geteuid().is_root() {
        credentials::empty_bounding_set()
            .and_then(|()| Account { uid: NOBODY, gid: NOBODY, groups: Vec::new() }.become_it())
            .and_then(|()| credentials::keep_only(&[]))
            .map_err(|error| failed(&error))?;
    }
    credentials::no_new_privileges().map_err(|error| failed(&error))?;
    for (resource, most) in [
        (Resource::RLIMIT_CPU, 20),
        (Resource::RLIMIT_FSIZE, 1 << 20),
        (Resource::RLIMIT_NOFILE, 64),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, most, most).map_err(|error| failed(&error))?;
    }
    close(port, authority).map_err(|error| failed(&error))
}

fn close(port: u16, authority: Option<&Path>) -> Result<(), RulesetError> {
    const NEWEST: ABI = ABI::V10;
    let readable = READABLE.iter().map(Path::new).chain(authority);
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        // TCP only: names are looked up by UDP.
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(readable, AccessFs::from_read(NEWEST)))?
        .add_rules([port, DNS].map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp))))?
        .restrict_self()
        .map(drop)
}

/// By [`CURL`]; what is longer than a bundle is not even read.
fn fetch(curl: &Path, url: &str, authority: Option<&Path>) -> Result<Vec<u8>, String> {
    let seconds = PATIENCE.as_secs().to_string();
    // One more than podsecd takes, so that too long is told from just fitting.
    let most = Bundle::LONGEST.to_string();
    let mut arguments = [CURL, &["--max-time", &seconds, "--max-filesize", &most]].concat();
    let path = authority.map(|path| path.to_string_lossy().into_owned());
    if let Some(path) = &path {
        arguments.extend(["--cacert", path]);
    }
    arguments.extend(["--url", url]);
    let run = Run { deadline: PATIENCE, ..Run::default() };
    let bytes = run_with(curl, &arguments, run).map_err(|error| complaint(&error.to_string()))?;
    // A server that does not say how long it is (curl before 8.4 then reads on).
    if bytes.len() > Bundle::LONGEST {
        return Err(format!("says: more than {} bytes, which is no bundle", Bundle::LONGEST));
    }
    Ok(bytes)
}

/// `curl: (7) Failed to connect …`
fn complaint(error: &str) -> String {
    match error.rsplit_once("curl: ") {
        Some((_, said)) => format!("says: {said}"),
        None => format!("failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// A server that gives this answer to each who asks.
    fn server(answer: Vec<u8>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(&answer);
            }
        });
        port
    }

    fn from(port: u16) -> Result<Vec<u8>, Failure> {
        get(&BundleUrl::new(format!("http://127.0.0.1:{port}/trust/bundle")).unwrap(), None)
    }

    fn ok(body: &[u8]) -> Vec<u8> {
        [format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    }

    #[test]
    fn fetches_what_is_there() {
        assert_eq!(from(server(ok(b"\0bundle\xff"))).unwrap(), b"\0bundle\xff");
    }

    #[test]
    fn and_nothing_else() {
        let elsewhere = server(ok(b"elsewhere"));
        let redirect = format!("HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:{elsewhere}/x\r\n\r\n");
        for (answer, why) in [
            (ok(&vec![0; Bundle::LONGEST + 1]), "aximum file size exceeded"),
            ([&b"HTTP/1.0 200 OK\r\n\r\n"[..], &vec![0; Bundle::LONGEST + 1]].concat(), "bytes"),
            (redirect.into_bytes(), "redirects"),
            (b"HTTP/1.0 404 Not Found\r\n\r\n".to_vec(), "404"),
        ] {
            let failure = from(server(answer)).unwrap_err();
            assert!(failure.to_string().contains(why), "{failure}");
            assert_eq!((failure.reason(), failure.exit_status()), ("curl", 74));
        }
        assert!(from(1).unwrap_err().to_string().contains("says: (7)"));
    }

    /// In a copy of this process that is shut.
    fn shut_in(port: u16, try_it: impl FnOnce() -> bool) -> bool {
        let said = in_child(Duration::from_secs(10), || {
            shut(port, None).unwrap();
            vec![u8::from(try_it()) + 1]
        });
        said.unwrap() == [2]
    }

    #[test]
    fn it_has_no_rights() {
        let (port, other) = (server(Vec::new()), server(Vec::new()));
        let connect = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port));
        assert!(shut_in(port, || connect(port).is_ok()));
        assert!(shut_in(port, || connect(other).is_err()));
        assert!(shut_in(port, || TcpListener::bind("127.0.0.1:0").is_err()));
        assert!(shut_in(port, || !geteuid().is_root()));
        assert!(shut_in(port, || std::fs::File::create("/tmp/podsecctl-fetch").is_err()));
        assert!(shut_in(port, || std::fs::read_dir("/home").is_err()));
        assert!(shut_in(port, || std::fs::read("/etc/shadow").is_err()));
    }

    #[test]
    fn the_port_is_the_urls() {
        assert_eq!(port("http://a.b/trust/bundle"), 80);
        assert_eq!(port("https://a.b/trust/bundle"), 443);
        assert_eq!(port("https://a.b:8443/x:1"), 8443);
    }
}
