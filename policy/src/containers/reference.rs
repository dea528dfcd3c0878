//! Names of images, as containers/image reads them (distribution/reference; containers-policy.json(5)).
//!
//! Owns their full form and where a policy is looked up for them. Must not do: guess what else a text may mean.

use crate::trust::is_tag;
use crate::user::Scope;

/// `host[:port]/path` with a tag or a digest, in full.
pub(super) struct Reference {
    name: String,
    /// With its `:` or `@`.
    version: Option<String>,
}

impl Reference {
    /// Short forms are those of docker.io. Of a tag and a digest, the digest counts. An IPv6 address as host is not read.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(is_hex) {
            return None; // the id of an image
        }
        let (host, rest) = match text.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => ("docker.io", text),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let (rest, digest) = split(rest, '@');
        let (path, tag) = split(rest, ':');
        let library = if host == "docker.io" && !path.contains('/') { "library/" } else { "" };
        let name = format!("{host}/{library}{path}");
        let is_path = path.split('/').all(is_component);
        let good = is_domain(host) && is_path && name.len() <= 255;
        let good = good && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
        let version = digest.map(|digest| format!("@{digest}")).or_else(|| tag.map(|tag| format!(":{tag}")));
        good.then_some(Self { name, version })
    }

    /// Has it a tag or a digest?
    pub(super) fn is_exact(&self) -> bool {
        self.version.is_some()
    }

    /// Where a policy is looked up, the most exact first; "" is the whole transport.
    pub(super) fn scopes(&self) -> Vec<String> {
        let mut scopes = vec![format!("{}{}", self.name, self.version.as_deref().unwrap_or(":latest"))];
        let mut name = self.name.as_str();
        scopes.push(name.to_owned());
        while let Some((parent, _)) = name.rsplit_once('/') {
            scopes.push(parent.to_owned());
            name = parent;
        }
        let (mut host, _) = split(name, ':');
        while let Some((_, domain)) = host.split_once('.') {
            scopes.push(format!("*.{domain}"));
            host = domain;
        }
        scopes.push(String::new());
        scopes
    }
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(first, rest)| (first, Some(rest)))
}

/// `host[:port]`
pub(super) fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let (host, port) = split(text, ':');
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    host.split('.').all(label) && port.is_none_or(digits)
}

/// `host[:port][/path]`
pub(super) fn is_name(text: &str) -> bool {
    let (host, path) = split(text, '/');
    is_domain(host) && path.is_none_or(|path| path.split('/').all(is_component))
}

fn is_component(part: &str) -> bool {
    !part.contains('/') && Scope::new(format!("a.b/{part}")).is_ok()
}

fn is_digest(digest: &str) -> bool {
    let digits = match split(digest, ':') {
        ("sha256", Some(digits)) if digits.len() == 64 => digits,
        ("sha384", Some(digits)) if digits.len() == 96 => digits,
        ("sha512", Some(digits)) if digits.len() == 128 => digits,
        _ => return false,
    };
    digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn scopes_from_the_image_to_the_transport() {
        let scopes = |text: &str| Reference::parse(text).unwrap().scopes();
        assert_eq!(
            scopes("a.b.local:5000/team/app:1"),
            [
                "a.b.local:5000/team/app:1",
                "a.b.local:5000/team/app",
                "a.b.local:5000/team",
                "a.b.local:5000",
                "*.b.local",
                "*.local",
                ""
            ]
        );
        let alpine =
            ["docker.io/library/alpine:latest", "docker.io/library/alpine", "docker.io/library", "docker.io"];
        for short in ["alpine", "library/alpine", "docker.io/alpine", "index.docker.io/alpine"] {
            assert_eq!(scopes(short)[..4], alpine, "{short}");
        }
        let both = format!("a.b/c:1@{DIGEST}");
        assert_eq!(scopes(&both)[..2], [format!("a.b/c@{DIGEST}"), "a.b/c".to_owned()]);
    }

    #[test]
    fn what_is_no_image() {
        for good in ["a.b/c", "localhost/c", "A.b/c", "a-b.c:5/x__y/z.z:_T-1.x", &"a".repeat(63), "a:b"] {
            assert!(Reference::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "a.b/",
            "/a",
            "a.b//c",
            "a.b/C",
            "a.b/c:",
            "a.b/c:-t",
            "a.b/c@",
            "a.b/c:t:t",
            "a.b/../c",
            "a.b/c\n",
            " a.b/c",
            "a.b:x/c",
            "-a.b/c",
            "a.b/c@sha256:00",
            "a.b/c:1/d",
            &format!("a.b/c@{}", DIGEST.to_uppercase()),
            &format!("a.b/c:{}", "t".repeat(129)),
            &format!("a.b/{}", "x".repeat(252)),
            &format!("a.b{}", "/xyz".repeat(64)),
            &"a".repeat(64),
            "[::1]:5000/c",
        ] {
            assert!(Reference::parse(bad).is_none(), "{bad}");
        }
    }
}
