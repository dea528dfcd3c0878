//! nginx: its configuration, its own judgement of that, and asking it by its socket for status.

use super::{PRIVATE, PUBLIC, Services, certificate, registry};
use crate::Failure;
use crate::store::at;
use podsec_policy::audit::hex;
use podsec_policy::reason::Reason;
use podsec_policy::trust::ServiceKind;
use podsec_sys::file;
use podsec_sys::program::{Run, find_roots, run_with};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Its configuration, as podsec-web.service has it.
pub const FILE: &str = "/etc/podsec/services/nginx.conf";
/// As whom it runs, from the start: nothing of it is root.
pub const USER: &str = "podsec-web";
/// Its own directory while it runs.
const RUN: &str = "/run/podsec-web";
/// Where it answers about itself, and as on its ports.
const SOCKET: &str = "/run/podsec-web/status.sock";
/// Answered by the server of signatures when it can reach them.
pub const ALIVE: &str = "/podsec-alive";

/// nginx.
///
/// # Errors
/// `Unsupported`
pub fn program() -> Result<PathBuf, Failure> {
    find_roots("nginx").map_err(|error| Failure::new(Reason::Unsupported, error))
}

/// Where a configuration shall work.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// On the host.
    Here,
    /// In a directory to try it: with sockets in it in place of ports, so that it takes no network, no right to bind and
    /// no free port; and with one certificate for all.
    Scratch(&'a Path),
}

/// One `server` of nginx's: a name on some sockets. Both kinds are one where trust calls both the same.
struct Block<'a> {
    host: &'a str,
    sockets: Vec<SocketAddr>,
    kinds: Vec<ServiceKind>,
}

impl Block<'_> {
    /// Clients name no host that is an address (RFC 6066 §3), so whoever names none means this one.
    fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

fn blocks(services: &Services) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    for &kind in services.servers.keys() {
        let (host, sockets) = (services.endpoint(kind).host(), services.sockets(kind));
        match blocks.iter_mut().find(|block| block.host == host && block.sockets == sockets) {
            Some(block) => block.kinds.push(kind),
            None => blocks.push(Block { host, sockets, kinds: vec![kind] }),
        }
    }
    blocks
}

/// Tells configurations apart, certificates included; nginx says which it runs with.
pub fn fingerprint(services: &Services) -> String {
    let text = with_fingerprint(services, Place::Here, "");
    let mut hash = Sha256::new_with_prefix(text.as_bytes());
    for server in services.servers.values() {
        hash.update(server.certificate.as_deref().unwrap_or("none"));
    }
    hex(&hash.finalize())
}

/// The whole of nginx.conf.
pub fn render(services: &Services, place: Place<'_>) -> String {
    with_fingerprint(services, place, &fingerprint(services))
}

fn with_fingerprint(services: &Services, place: Place<'_>, fingerprint: &str) -> String {
    let (run, status) = match place {
        Place::Here => (RUN.to_owned(), SOCKET.to_owned()),
        Place::Scratch(scratch) => {
            (scratch.display().to_string(), scratch.join("status.sock").display().to_string())
        }
    };
    let blocks = blocks(services);
    let mut sockets: Vec<SocketAddr> = blocks.iter().flat_map(|block| block.sockets.clone()).collect();
    sockets.sort_unstable();
    sockets.dedup();
    let tls = !services.settings.plain_http;
    let listen = |socket: &SocketAddr, default: bool| {
        let address = match place {
            Place::Here => socket.to_string(),
            Place::Scratch(scratch) => {
                let index = sockets.iter().position(|other| other == socket).unwrap_or_default();
                format!("unix:{}", scratch.join(format!("{index}.sock")).display())
            }
        };
        let (default, tls) = (if default { " default_server" } else { "" }, if tls { " ssl" } else { "" });
        format!("        listen {address}{default}{tls};\n")
    };
    let mut text = format!(
        r#"# Written by podsec; changes are shown by `podsecctl service status` and undone by the next deploy.
worker_processes auto;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
    error_log stderr warn;
    server_tokens off;
    default_type application/octet-stream;
    types {{ }}
    client_body_temp_path {run}/body;
    proxy_temp_path {run}/proxy;
    fastcgi_temp_path {run}/fastcgi;
    uwsgi_temp_path {run}/uwsgi;
    scgi_temp_path {run}/scgi;
    client_header_timeout 15s;
    client_body_timeout 60s;
    send_timeout 60s;
    keepalive_timeout 30s;
    client_max_body_size 1k;
    ssl_protocols TLSv1.2 TLSv1.3;
    add_header X-Content-Type-Options nosniff;

    # For podsecd: which configuration is this?
    server {{
        listen unix:{status} default_server;
        location = /configuration {{
            return 200 "{fingerprint}";
        }}
        location / {{
            return 404;
        }}
    }}
"#
    );
    // Whoever asks for another name gets no certificate, and no answer.
    for socket in &sockets {
        if blocks.iter().any(|block| block.is_address() && block.sockets.contains(socket)) {
            continue;
        }
        let reject = if tls { "        ssl_reject_handshake on;\n" } else { "" };
        text.push_str(&format!(
            "    server {{\n{}{reject}        return 444;\n    }}\n",
            listen(socket, true)
        ));
    }
    if services.server(ServiceKind::Registry).is_some() {
        text.push_str(&format!(
            r#"
    upstream registry {{
        server unix:{};
        keepalive 16;
    }}
    # Clients send a password only where they were asked for one, and pull without: so those who bring none are asked and
    # let in, and those who bring one have it checked. "Basic Og==" is what podman sends when it has none.
    map $http_authorization $realm {{
        ""           off;
        "Basic Og==" off;
        default      "podsec registry";
    }}
"#,
            registry::SOCKET
        ));
    }
    // Two addresses that stand for themselves on one socket: nginx wants one default.
    let mut defaults: Vec<SocketAddr> = Vec::new();
    for block in &blocks {
        text.push_str("\n    server {\n");
        for socket in &block.sockets {
            let default = block.is_address() && !defaults.contains(socket);
            defaults.extend(default.then_some(*socket));
            text.push_str(&listen(socket, default));
        }
        text.push_str(&format!("        listen unix:{status};\n        server_name {};\n", block.host));
        if let (true, Some(&kind)) = (tls, block.kinds.first()) {
            let pem = match place {
                Place::Here => certificate::path(kind),
                Place::Scratch(scratch) => scratch.join("server.pem"),
            };
            let pem = pem.display();
            text.push_str(&format!("        ssl_certificate {pem};\n        ssl_certificate_key {pem};\n"));
        }
        for &kind in &block.kinds {
            text.push_str(&match kind {
                ServiceKind::Registry => registry_locations(),
                ServiceKind::Signatures => signature_locations(),
            });
        }
        text.push_str("        location / {\n            return 404;\n        }\n    }\n");
    }
    text.push_str("}\n");
    text
}

/// Everybody reads, creators write. What a client sent to prove who he is ends here.
fn registry_locations() -> String {
    const PROXY: &str = r#"            proxy_pass http://registry;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header Authorization "";
"#;
    let passwords = format!("auth_basic_user_file {PRIVATE}/htpasswd;");
    format!(
        r#"        location = /v2/ {{
            limit_except GET {{
                deny all;
            }}
            auth_basic $realm;
            {passwords}
            add_header WWW-Authenticate 'Basic realm="podsec registry"';
{PROXY}        }}
        location /v2/ {{
            limit_except GET {{
                auth_basic "podsec registry";
                {passwords}
            }}
            client_max_body_size 0;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 900s;
            proxy_send_timeout 900s;
{PROXY}        }}
"#
    )
}

/// Only what podsec puts there, by its name; no link is followed, whoever made it. GET stands for HEAD, too.
fn signature_locations() -> String {
    let only_read = "limit_except GET {\n                deny all;\n            }";
    let mut text =
        format!("        root {PUBLIC};\n        disable_symlinks on;\n        log_not_found off;\n");
    for location in [
        r#"~ "^/sigstore/.+@sha256=[0-9a-f]{64}/signature-[0-9]+$""#,
        r#"~ "^/keys/[a-z_][a-z0-9_-]*\.pgp$""#,
        r#"~ "^/trust/[a-z0-9-]+$""#,
        "= /ca.crt",
    ] {
        text.push_str(&format!("        location {location} {{\n            {only_read}\n        }}\n"));
    }
    text.push_str(&format!(
        "        location = {ALIVE} {{
            if (!-d $document_root/sigstore) {{
                return 503;
            }}
            return 204;
        }}\n"
    ));
    text
}

/// Has it read a configuration, with all in it that matters.
///
/// # Errors
/// `ServiceConfig` with what it said
pub fn try_out(services: &Services, scratch: &Path) -> Result<(), Failure> {
    let file = scratch.join("nginx.conf");
    file::replace(&file, render(services, Place::Scratch(scratch)).as_bytes(), 0o600).map_err(at(&file))?;
    if !services.settings.plain_http {
        certificate::make_for_trial(&scratch.join("server.pem"))?;
    }
    let (file, pid) = (file.display().to_string(), format!("pid {}/nginx.pid;", scratch.display()));
    let tried = run_with(&program()?, &["-t", "-q", "-e", "stderr", "-c", &file, "-g", &pid], Run::default());
    tried.map(drop).map_err(|error| Failure::new(Reason::ServiceConfig, error))
}

/// The fingerprint of what it runs with; `None`: it does not run.
pub fn configuration() -> Option<String> {
    let (status, body) = get("podsec", "/configuration").ok()?;
    (status == 200).then(|| String::from_utf8_lossy(&body).into_owned())
}

/// Asks by its socket (HTTP/1.0, RFC 1945): status and body, of which the first 64 KiB.
///
/// # Errors
/// connect(2), read(2); `InvalidData`
pub fn get(host: &str, path: &str) -> io::Result<(u16, Vec<u8>)> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = (answer.get(..end)?, answer.get(end + 4..)?);
    let head = str::from_utf8(head).ok()?.strip_prefix("HTTP/1.")?;
    Some((head.get(2..5)?.parse().ok()?, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::tests::services;

    #[test]
    fn everything_follows_from_typed_values() {
        insta::assert_snapshot!(
            "nginx-tls",
            render(&services("registry.local", "sigstore.local", false), Place::Here)
        );
        insta::assert_snapshot!(
            "nginx-plain",
            render(&services("registry.local:5000", "sigstore.local", true), Place::Here)
        );
    }

    #[test]
    fn one_name_is_one_server() {
        let text = render(&services("both.local", "both.local", false), Place::Here);
        assert_eq!(text.matches("server_name both.local;").count(), 1);
        let text = render(&services("both.local:1", "both.local:2", false), Place::Here);
        assert_eq!(text.matches("server_name both.local;").count(), 2);
    }

    #[test]
    fn a_trial_takes_no_port() {
        let text =
            render(&services("registry.local", "10.0.0.1", false), Place::Scratch(Path::new("/tmp/x")));
        let listening: Vec<&str> = text.lines().filter(|line| line.trim().starts_with("listen ")).collect();
        assert!(
            listening.iter().all(|line| line.trim().starts_with("listen unix:/tmp/x/")),
            "{listening:#?}"
        );
        assert!(!text.contains("/run/podsec-web") && !text.contains("private/registry.pem"), "{text}");
    }

    #[test]
    fn a_renewed_certificate_is_another_configuration() {
        let (mut one, other) = (services("a.b", "c.d", false), services("a.b", "c.d", false));
        assert_eq!(fingerprint(&one), fingerprint(&other));
        for server in one.servers.values_mut() {
            server.certificate = Some("ff".into());
        }
        assert_ne!(fingerprint(&one), fingerprint(&other));
    }

    #[test]
    fn answers() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"), Some((200, b"body".to_vec())));
        assert_eq!(parse(b"HTTP/1.0 204 No Content\r\n\r\n"), Some((204, Vec::new())));
        for bad in
            [&b""[..], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 \r\n\r\n", b"\r\n\r\n\r\n"]
        {
            assert_eq!(parse(bad), None);
        }
    }
}
