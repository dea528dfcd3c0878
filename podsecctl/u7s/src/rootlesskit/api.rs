//! Client of rootlesskit's HTTP API on `api.sock`.
//!
//! Owns: one request, one connection, one deadline. Must not: retry, or trust an answer beyond its size and form.
//! Source: pkg/api/openapi.yaml of rootlesskit, API 1.1.1, the same in 1.1.0 and 2.0.2.

use super::Pid;
use super::http::{self, HttpError};
use podsec_policy::port::{PortSpec, Protocol};
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one request may take, connecting and reading included.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// rootlesskit's own words are passed on up to this length.
const TEXT_LIMIT: usize = 400;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody listens.
    #[error("rootlesskit is not running; start it with: systemctl start podsec-u7s")]
    NotRunning,
    /// The host address and port are taken, by another program or by an earlier publication.
    #[error("the port is in use on the host ({text}); choose another, or stop what has it")]
    PortInUse {
        /// What rootlesskit said.
        text: String,
    },
    /// Any other refusal.
    #[error("rootlesskit refuses: {text}")]
    Refused {
        /// What rootlesskit said.
        text: String,
    },
    /// The answer is not one of this API.
    #[error("whoever listens on rootlesskit's socket does not speak its API: {0}")]
    Protocol(ProtocolError),
    /// No answer in time.
    #[error("rootlesskit does not answer within {}s; it may be stopped or overloaded", DEADLINE.as_secs())]
    Timeout,
    /// The connection failed otherwise.
    #[error("cannot ask rootlesskit on {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// How an answer is not one of this API.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// Not HTTP.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Not the JSON expected.
    #[error("unexpected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Endless.
    #[error("the answer is longer than {} bytes", http::LIMIT)]
    Long,
}

/// `GET /v1/info`. What later versions add is passed over. The texts are the cluster user's word: escape them before
/// they reach a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// rootlesskit's version.
    pub version: String,
    /// Its state directory, as its parent sees it.
    pub state_dir: PathBuf,
    /// The first process inside, as the host sees it.
    #[serde(rename = "childPID")]
    pub child_pid: Pid,
    /// Absent with the host's network.
    pub network_driver: Option<NetworkInfo>,
    /// Absent where no ports can be published.
    pub port_driver: Option<PortInfo>,
}

/// The network driver's part of [`Info`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// Its name.
    pub driver: String,
    /// The resolvers inside.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// The address inside.
    #[serde(rename = "childIP")]
    pub child_ip: Option<IpAddr>,
}

/// The port driver's part of [`Info`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortInfo {
    /// Its name.
    pub driver: String,
    /// What it can publish, `tcp4` for one.
    #[serde(default)]
    pub protos: Vec<String>,
}

/// A port that is published now, in rootlesskit's words: others than we may have published it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// To remove it by.
    pub id: u64,
    /// What is published.
    pub spec: PublishedSpec,
}

/// See [`Published`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedSpec {
    /// `tcp`, `tcp4`, `tcp6`, `udp` …
    pub proto: String,
    /// Empty is all addresses.
    #[serde(rename = "parentIP", default, skip_serializing_if = "String::is_empty")]
    pub parent_ip: String,
    /// Port on the host.
    pub parent_port: u16,
    /// Empty is the driver's choice.
    #[serde(rename = "childIP", default, skip_serializing_if = "String::is_empty")]
    pub child_ip: String,
    /// Port inside.
    pub child_port: u16,
}

impl From<&PortSpec> for PublishedSpec {
    /// With the family in the protocol: plain `tcp` on 0.0.0.0 would listen on every IPv6 address as well.
    fn from(spec: &PortSpec) -> Self {
        let family = if spec.host_address().is_ipv4() { '4' } else { '6' };
        Self {
            proto: format!("{}{family}", spec.protocol()),
            parent_ip: spec.host_address().to_string(),
            parent_port: spec.host_port(),
            child_ip: String::new(),
            child_port: spec.child_port(),
        }
    }
}

impl PublishedSpec {
    /// As one of our own kind, if [`PublishedSpec::from`] could have made it.
    #[must_use]
    pub fn ours(&self) -> Option<PortSpec> {
        let protocol = match self.proto.get(..3)? {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        let address = self.parent_ip.parse().ok()?;
        let spec = PortSpec::new(protocol, address, self.parent_port.into(), self.child_port.into()).ok()?;
        (Self::from(&spec) == *self).then_some(spec)
    }
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

/// The API behind one socket. Holds no connection.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
    deadline: Duration,
}

impl Api {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, deadline: DEADLINE }
    }

    /// What runs.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn info(&self) -> Result<Info, ApiError> {
        self.ask("GET", "/v1/info", &[])
    }

    /// What is published. rootlesskit says `null` for nothing.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn ports(&self) -> Result<Vec<Published>, ApiError> {
        Ok(self.ask::<Option<_>>("GET", "/v1/ports", &[])?.unwrap_or_default())
    }

    /// Publishes a port.
    ///
    /// # Errors
    /// [`ApiError`]; the port is then not published, unless the answer was lost ([`ApiError::Timeout`]).
    pub fn publish(&self, spec: &PortSpec) -> Result<Published, ApiError> {
        let body = serde_json::to_vec(&PublishedSpec::from(spec)).map_err(json)?;
        self.ask("POST", "/v1/ports", &body)
    }

    /// Takes a publication back.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn withdraw(&self, id: u64) -> Result<(), ApiError> {
        let answer = self.exchange("DELETE", &format!("/v1/ports/{id}"), &[])?;
        accepted(&answer).map(|_| ())
    }

    fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<T, ApiError> {
        let answer = self.exchange(method, path, body)?;
        serde_json::from_slice(accepted(&answer)?).map_err(json)
    }

    /// Sends a request, returns all that comes back.
    fn exchange(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
        let end = Instant::now() + self.deadline;
        let mut stream = self.connect(end)?;
        let mut request = format!(
            "{method} {path} HTTP/1.0\r\nHost: rootlesskit\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let mut answer = Vec::new();
        let result = send(&mut stream, &request, end).and_then(|()| receive(&mut stream, &mut answer, end));
        match result {
            Ok(true) => Ok(answer),
            Ok(false) => Err(ApiError::Protocol(ProtocolError::Long)),
            Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                Err(ApiError::Timeout)
            }
            Err(source) => Err(self.io(source)),
        }
    }

    /// Connects without waiting longer than `end`: a listener that never accepts would hold a plain connect for ever.
    fn connect(&self, end: Instant) -> Result<UnixStream, ApiError> {
        let address = SocketAddrUnix::new(&self.socket).map_err(|error| self.io(error.into()))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|error| self.io(error.into()))?;
        loop {
            match connect(&socket, &address) {
                Ok(()) => break,
                // unix(7): the backlog is full.
                Err(Errno::AGAIN) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                Err(Errno::AGAIN) => return Err(ApiError::Timeout),
                Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(ApiError::NotRunning),
                Err(error) => return Err(self.io(error.into())),
            }
        }
        Ok(UnixStream::from(socket))
    }

    fn io(&self, source: io::Error) -> ApiError {
        ApiError::Io { path: self.socket.clone(), source }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Waits until the socket is ready for `events`, or the time is over.
fn wait(stream: &UnixStream, events: rustix::event::PollFlags, end: Instant) -> io::Result<()> {
    use rustix::event::{PollFd, poll};
    loop {
        let left = end.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?;
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::TimedOut)?;
        match poll(&mut [PollFd::new(stream, events)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn send(stream: &mut UnixStream, mut request: &[u8], end: Instant) -> io::Result<()> {
    while !request.is_empty() {
        wait(stream, rustix::event::PollFlags::OUT, end)?;
        match stream.write(request) {
            Ok(written) => request = request.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads to the end; false when the answer would grow beyond the limit.
fn receive(stream: &mut UnixStream, answer: &mut Vec<u8>, end: Instant) -> io::Result<bool> {
    let mut chunk = [0; 4096];
    loop {
        wait(stream, rustix::event::PollFlags::IN, end)?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(true),
            Ok(count) => answer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if answer.len() > http::LIMIT {
            return Ok(false);
        }
    }
}

/// The body of an answer that is not a refusal.
fn accepted(answer: &[u8]) -> Result<&[u8], ApiError> {
    let response = http::parse(answer).map_err(|error| ApiError::Protocol(error.into()))?;
    if (200..300).contains(&response.status) {
        return Ok(response.body);
    }
    let text = match serde_json::from_slice(response.body) {
        Ok(Message { message }) => message,
        Err(_) => String::from_utf8_lossy(response.body).trim().to_owned(),
    };
    // What comes from the socket ends on an administrator's terminal and in logs.
    let text: String = text
        .chars()
        .take(TEXT_LIMIT)
        .flat_map(|c| {
            let quoted = c.is_control();
            quoted.then(|| c.escape_default()).into_iter().flatten().chain((!quoted).then_some(c))
        })
        .collect();
    // Go's net.Listen, and rootlesskit's own list (pkg/port/portutil).
    if text.contains("address already in use") || text.starts_with("conflict with ID") {
        return Err(ApiError::PortInUse { text });
    }
    // The slirp4netns port driver has one word for every failed bind.
    if text.contains("slirp_add_hostfwd failed") {
        let text = "slirp4netns cannot bind it, or the address is not this host's".to_owned();
        return Err(ApiError::PortInUse { text });
    }
    Err(ApiError::Refused {
        text: if text.is_empty() { format!("status {}", response.status) } else { text },
    })
}

fn json(error: serde_json::Error) -> ApiError {
    ApiError::Protocol(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Scratch;
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    /// Answers one request with `answer` and gives back what was asked.
    fn serve(scratch: &Scratch, answer: Vec<u8>) -> (Api, JoinHandle<String>) {
        let socket = scratch.0.join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let text = String::from_utf8(request).unwrap();
            let length = text.split("Content-Length: ").nth(1).unwrap().split('\r').next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            // The client may have turned away from an endless answer.
            let _ = stream.write_all(&answer);
            text + std::str::from_utf8(&body).unwrap()
        });
        (Api { socket, deadline: Duration::from_millis(300) }, server)
    }

    fn ok(body: &str) -> Vec<u8> {
        format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn refusal(body: &str) -> ApiError {
        let scratch = Scratch::new();
        let (api, server) = serve(&scratch, format!("HTTP/1.0 400 Bad Request\r\n\r\n{body}").into_bytes());
        let error = api.info().unwrap_err();
        server.join().unwrap();
        error
    }

    fn spec(text: &str) -> PortSpec {
        let words: Vec<_> = text.split(' ').collect();
        let protocol = if words[0] == "tcp" { Protocol::Tcp } else { Protocol::Udp };
        PortSpec::new(
            protocol,
            words[1].parse().unwrap(),
            words[2].parse().unwrap(),
            words[3].parse().unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn reads_the_answers_of_both_versions() {
        let scratch = Scratch::new();
        // As 1.1.0 with slirp4netns gives it; 2.0.2 differs only in the version.
        let body = r#"{"apiVersion":"1.1.1","version":"1.1.0","stateDir":"/run/podsec-u7s/rootlesskit","childPID":27,
            "networkDriver":{"driver":"slirp4netns","dns":["10.0.2.3"],"childIP":"10.0.2.100"},
            "portDriver":{"driver":"builtin","protos":["tcp","tcp4","tcp6","udp","udp4","udp6"]}}"#;
        let (api, server) = serve(&scratch, ok(body));
        let info = api.info().unwrap();
        assert!(server.join().unwrap().starts_with("GET /v1/info HTTP/1.0\r\n"));
        assert_eq!((info.version.as_str(), info.child_pid.get()), ("1.1.0", 27));
        assert_eq!(info.network_driver.unwrap().child_ip, Some("10.0.2.100".parse().unwrap()));
        assert_eq!(info.port_driver.unwrap().driver, "builtin");
    }

    #[test]
    fn publishes_in_one_family_only() {
        let scratch = Scratch::new();
        let body =
            r#"{"id":1,"spec":{"proto":"tcp4","parentIP":"0.0.0.0","parentPort":8080,"childPort":80}}"#;
        let (api, server) = serve(&scratch, ok(body));
        let published = api.publish(&spec("tcp 0.0.0.0 8080 80")).unwrap();
        assert_eq!((published.id, published.spec.ours()), (1, Some(spec("tcp 0.0.0.0 8080 80"))));
        let request = server.join().unwrap();
        let json = r#"{"proto":"tcp4","parentIP":"0.0.0.0","parentPort":8080,"childPort":80}"#;
        assert!(request.starts_with("POST /v1/ports HTTP/1.0\r\n") && request.ends_with(json), "{request}");
        assert_eq!(PublishedSpec::from(&spec("udp ::1 5000 53")).proto, "udp6");
    }

    #[test]
    fn no_ports_is_null_and_foreign_ones_are_listed() {
        let scratch = Scratch::new();
        let (api, server) = serve(&scratch, ok("null"));
        assert_eq!(api.ports().unwrap(), []);
        server.join().unwrap();
        let scratch = Scratch::new();
        let foreign =
            r#"[{"id":7,"spec":{"proto":"tcp","parentPort":2379,"childPort":2379,"childIP":"10.0.2.100"}}]"#;
        let (api, server) = serve(&scratch, ok(foreign));
        let listed = api.ports().unwrap();
        server.join().unwrap();
        assert_eq!((listed.len(), listed[0].id, listed[0].spec.ours()), (1, 7, None));
    }

    #[test]
    fn withdraws_by_number() {
        let scratch = Scratch::new();
        let (api, server) = serve(&scratch, ok(""));
        api.withdraw(12).unwrap();
        assert!(server.join().unwrap().starts_with("DELETE /v1/ports/12 HTTP/1.0\r\n"));
    }

    #[test]
    fn tells_a_busy_port_from_other_refusals() {
        for text in ["listen tcp4 0.0.0.0:8080: bind: address already in use", "conflict with ID 3"] {
            let error = refusal(&serde_json::json!({ "message": text }).to_string());
            assert!(matches!(&error, ApiError::PortInUse { text: said } if said == text), "{error}");
        }
        let slirp =
            r#"{"message":"reply.Error: map[desc:bad request: add_hostfwd: slirp_add_hostfwd failed]"}"#;
        assert!(
            matches!(refusal(slirp), ApiError::PortInUse { text } if text.contains("slirp4netns cannot bind"))
        );
        let error = refusal(r#"{"message":"cannot expose privileged port 80\u001b[2J"}"#);
        assert_eq!(error.to_string(), r"rootlesskit refuses: cannot expose privileged port 80\u{1b}[2J");
        assert_eq!(refusal("404 page not found\n").to_string(), "rootlesskit refuses: 404 page not found");
        assert_eq!(refusal("").to_string(), "rootlesskit refuses: status 400");
        assert!(refusal(&"x".repeat(5000)).to_string().len() < 500);
    }

    #[test]
    fn foreign_listeners_are_refused() {
        for answer in
            [&b"SSH-2.0-OpenSSH\r\n"[..], b"", b"HTTP/1.0 200 OK\r\n\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n[1"]
        {
            let scratch = Scratch::new();
            let (api, server) = serve(&scratch, answer.to_vec());
            let error = api.info().unwrap_err();
            server.join().unwrap();
            assert!(matches!(error, ApiError::Protocol(_)), "{error}");
        }
        let scratch = Scratch::new();
        let mut endless = ok("");
        endless.resize(http::LIMIT + 8192, b' ');
        let (api, server) = serve(&scratch, endless);
        assert!(matches!(api.info(), Err(ApiError::Protocol(ProtocolError::Long))));
        server.join().unwrap();
    }

    #[test]
    fn nobody_listens() {
        let scratch = Scratch::new();
        let socket = scratch.0.join("api.sock");
        assert!(matches!(Api::new(socket.clone()).info(), Err(ApiError::NotRunning)));
        // What a SIGKILL leaves: the socket without its listener.
        drop(UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        assert!(matches!(Api::new(socket).info(), Err(ApiError::NotRunning)));
        assert!(matches!(Api::new("/x".repeat(80).into()).info(), Err(ApiError::Io { .. })));
    }

    #[test]
    fn silence_has_an_end() {
        let scratch = Scratch::new();
        let socket = scratch.0.join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let api = Api { socket: socket.clone(), deadline: Duration::from_millis(100) };
        // First accepted into the backlog and never answered, then with the backlog full.
        let _filler = UnixStream::connect(&socket).unwrap();
        for _ in 0..2 {
            let start = Instant::now();
            assert!(matches!(api.info(), Err(ApiError::Timeout)));
            assert!(start.elapsed() < Duration::from_secs(2));
        }
    }

    #[test]
    fn a_slow_drip_does_not_stretch_the_deadline() {
        let scratch = Scratch::new();
        let socket = scratch.0.join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(b"H").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let start = Instant::now();
        let api = Api { socket, deadline: Duration::from_millis(200) };
        assert!(matches!(api.info(), Err(ApiError::Timeout)));
        assert!(start.elapsed() < Duration::from_secs(2));
        server.join().unwrap();
    }
}
