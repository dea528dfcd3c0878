//! The little of HTTP that one answer on a unix socket takes.
//!
//! Owns: parsing a whole response. Must not: do input or output. Source: RFC 9112 sections 2 to 6. We ask with
//! HTTP/1.0, so the answer ends where the connection does and is never chunked.

/// Largest answer taken, head and body.
pub(super) const LIMIT: usize = 1024 * 1024;
const HEAD_LIMIT: usize = 16 * 1024;

/// Status and body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

/// Why an answer is not HTTP, with the position where it stops being so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No empty line.
    #[error("the answer's head does not end within {HEAD_LIMIT} bytes")]
    Head,
    /// Not `HTTP/1.x NNN`.
    #[error("the answer does not begin with a status line of HTTP/1")]
    Status,
    /// Not `name: value`.
    #[error("line {0} of the answer's head is not a header")]
    Header(usize),
    /// Two lengths, or none that is a number.
    #[error("line {0} of the answer's head is not one Content-Length")]
    Length(usize),
    /// Chunks were not asked for.
    #[error("the answer has a transfer encoding")]
    Encoding,
    /// Cut off, or more than was announced.
    #[error("the answer's body has {found} bytes where {announced} were announced")]
    Body {
        /// Content-Length.
        announced: usize,
        /// What came.
        found: usize,
    },
}

/// Takes a whole answer apart.
pub(super) fn parse(bytes: &[u8]) -> Result<Response<'_>, HttpError> {
    let window = bytes.get(..HEAD_LIMIT.min(bytes.len())).unwrap_or(bytes);
    let end = window.windows(4).position(|four| four == b"\r\n\r\n").ok_or(HttpError::Head)?;
    let (head, rest) = bytes.split_at_checked(end).ok_or(HttpError::Head)?;
    let body = rest.get(4..).ok_or(HttpError::Head)?;
    let head = str::from_utf8(head).map_err(|_| HttpError::Status)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(status).ok_or(HttpError::Status)?;
    let mut announced = None;
    for (line, number) in lines.zip(2..) {
        let (name, value) = line.split_once(':').ok_or(HttpError::Header(number))?;
        // RFC 9112 5.1: no blank before the colon, and no folded lines.
        if name.is_empty() || name.contains(|c: char| c.is_ascii_whitespace() || c.is_ascii_control()) {
            return Err(HttpError::Header(number));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(HttpError::Encoding);
        }
        if name.eq_ignore_ascii_case("content-length") {
            let digits = value.trim_matches([' ', '\t']);
            let length =
                digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
            if announced.is_some() || length.is_none() {
                return Err(HttpError::Length(number));
            }
            announced = length;
        }
    }
    match announced {
        Some(announced) if announced != body.len() => Err(HttpError::Body { announced, found: body.len() }),
        _ => Ok(Response { status, body }),
    }
}

/// `HTTP/1.0 200 OK` gives 200; the reason may be missing, not so the three digits.
fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.0 ").or_else(|| line.strip_prefix("HTTP/1.1 "))?;
    let (digits, reason) = rest.split_at_checked(3)?;
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
    ((reason.is_empty() || reason.starts_with(' ')) && (100..=599).contains(&number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> HttpError {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn takes_what_gos_server_sends() {
        let text = "HTTP/1.0 201 Created\r\nContent-Type: application/json\r\n\
                    Date: Sun, 22 Nov 2026 15:00:00 GMT\r\nContent-Length: 4\r\n\r\nnull";
        assert_eq!(parse(text.as_bytes()), Ok(Response { status: 201, body: b"null" }));
        let text = "HTTP/1.1 200\r\nConnection: close\r\n\r\nas much as comes";
        assert_eq!(parse(text.as_bytes()), Ok(Response { status: 200, body: b"as much as comes" }));
    }

    #[test]
    fn refuses_with_a_position() {
        assert_eq!(error(""), HttpError::Head);
        assert_eq!(error("HTTP/1.0 200 OK\r\n"), HttpError::Head);
        assert_eq!(
            error(&format!("HTTP/1.0 200 OK\r\nA: {}\r\n\r\n", "x".repeat(HEAD_LIMIT))),
            HttpError::Head
        );
        for line in
            ["HTTP/2 200 OK", "HTTP/1.0 2000", "HTTP/1.0 +20 OK", "HTTP/1.0 099 X", "http/1.0 200 OK", "x"]
        {
            assert_eq!(error(&format!("{line}\r\n\r\n")), HttpError::Status, "{line}");
        }
        assert_eq!(error("HTTP/1.0 200 OK\r\nA: b\r\n folded\r\n\r\n"), HttpError::Header(3));
        assert_eq!(error("HTTP/1.0 200 OK\r\nA : b\r\n\r\n"), HttpError::Header(2));
        assert_eq!(error("HTTP/1.0 200 OK\r\nContent-Length: +4\r\n\r\nnull"), HttpError::Length(2));
        assert_eq!(error("HTTP/1.0 200 OK\r\nContent-Length:\r\n\r\n"), HttpError::Length(2));
        let twice = "HTTP/1.0 200 OK\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\nx";
        assert_eq!(error(twice), HttpError::Length(3));
        assert_eq!(
            error("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            HttpError::Encoding
        );
        let short = HttpError::Body { announced: 9, found: 4 };
        assert_eq!(error("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nnull"), short);
    }

    proptest! {
        #[test]
        fn every_status_and_body_comes_back(status in 100u16..=599, body: Vec<u8>, length: bool) {
            let mut bytes = format!("HTTP/1.0 {status} Some Reason\r\nX-A: b\r\n").into_bytes();
            if length {
                bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
            }
            bytes.extend(b"\r\n");
            bytes.extend(&body);
            prop_assert_eq!(parse(&bytes), Ok(Response { status, body: &body }));
            // Cut anywhere, it is an error or, where no length was announced, a shorter body; never a panic.
            for cut in 0..bytes.len() {
                prop_assert!(parse(&bytes[..cut]).is_err() || !length);
            }
        }

        #[test]
        fn garbage_is_refused_quietly(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
