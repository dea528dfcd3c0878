//! containers-registries.d(5): where the signatures of images are.
//!
//! Owns the document as types. Must not do: merge several files; of one scope or default in two of them, containers/image
//! makes an error.

use super::quoted;
#[cfg(feature = "parse")]
use super::{
    DocumentError,
    reference::is_domain,
    tree::{Members, Node, Tree, map},
};
#[cfg(feature = "parse")]
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::BTreeMap;

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesD {
    /// `default-docker`: for all that no scope is for. One file of the directory may have it.
    pub default_docker: Option<Lookaside>,
    /// By scope: `host[:port]`, perhaps with a path, perhaps with a tag or digest.
    pub docker: BTreeMap<String, Lookaside>,
}

/// Where the signatures of a scope are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookaside {
    /// `lookaside`: URL to read from, and to write to without the next; containers/image 5.22 and later (podman 4.3 has 5.23).
    pub lookaside: Option<String>,
    /// `lookaside-staging`: URL to write to; the same versions.
    pub lookaside_staging: Option<String>,
    /// `sigstore`: the old name of [`Self::lookaside`], which counts before it.
    pub sigstore: Option<String>,
    /// `sigstore-staging`: the old name of [`Self::lookaside_staging`], which counts before it.
    pub sigstore_staging: Option<String>,
    /// `use-sigstore-attachments`: sigstore signatures beside the image in its registry; as `lookaside`.
    pub use_sigstore_attachments: Option<bool>,
}

impl Lookaside {
    fn urls(&self) -> [(&'static str, Option<&String>); 4] {
        [
            ("lookaside", self.lookaside.as_ref()),
            ("lookaside-staging", self.lookaside_staging.as_ref()),
            ("sigstore", self.sigstore.as_ref()),
            ("sigstore-staging", self.sigstore_staging.as_ref()),
        ]
    }

    fn render(&self, text: &mut String, indent: &str) {
        for (key, url) in self.urls() {
            url.iter().for_each(|url| *text += &format!("{indent}{key}: {}\n", quoted(url)));
        }
        if let Some(flag) = self.use_sigstore_attachments {
            *text += &format!("{indent}use-sigstore-attachments: {flag}\n");
        }
        if *self == Self::default() {
            *text += &format!("{indent}{{}}\n");
        }
    }
}

impl RegistriesD {
    /// The document, always the same for the same value.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = String::new();
        if let Some(lookaside) = &self.default_docker {
            text += "default-docker:\n";
            lookaside.render(&mut text, "  ");
        }
        if !self.docker.is_empty() {
            text += "docker:\n";
        }
        for (scope, lookaside) in &self.docker {
            text += &format!("  {}:\n", quoted(scope));
            lookaside.render(&mut text, "    ");
        }
        if text.is_empty() {
            text += "{}\n";
        }
        text.into_bytes()
    }

    /// # Errors
    /// [`DocumentError`]. Stricter than containers/image, which passes over keys that it does not know, and looks at URLs when
    /// it needs them.
    #[cfg(feature = "parse")]
    pub fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        let mut found = Self::default();
        let top = Node::top("registries.d", yaml(text)?);
        if top.is_nothing() {
            return Ok(found);
        }
        let mut members = top.members()?;
        let section = |node: &Node| !node.is_nothing();
        found.default_docker =
            members.take("default-docker").filter(section).map(Lookaside::read).transpose()?;
        if let Some(node) = members.take("docker").filter(section) {
            for (scope, node) in node.members()?.rest() {
                if scope.is_empty() {
                    return Err(node.wrong("must not be empty"));
                }
                found.docker.insert(scope, Lookaside::read(node)?);
            }
        }
        members.end()?;
        Ok(found)
    }
}

#[cfg(feature = "parse")]
impl Lookaside {
    fn read(node: Node) -> Result<Self, DocumentError> {
        fn url(members: &mut Members, key: &str) -> Result<Option<String>, DocumentError> {
            let problem = "is no URL of http, https or file";
            members.take(key).map(|node| node.text_if(is_url, problem)).transpose()
        }
        let mut members = node.members()?;
        let found = Self {
            lookaside: url(&mut members, "lookaside")?,
            lookaside_staging: url(&mut members, "lookaside-staging")?,
            sigstore: url(&mut members, "sigstore")?,
            sigstore_staging: url(&mut members, "sigstore-staging")?,
            use_sigstore_attachments: members
                .take("use-sigstore-attachments")
                .map(|node| node.flag())
                .transpose()?,
        };
        members.end()?;
        Ok(found)
    }
}

/// No user, query or escape: nobody needs them here, and readers differ over them.
#[cfg(feature = "parse")]
fn is_url(text: &str) -> bool {
    let is_path =
        |path: &str| path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/:+,=@".contains(&byte));
    let on_a_server = |rest: &str| {
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        is_domain(domain) && is_path(path)
    };
    let server = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    server.is_some_and(on_a_server) || text.strip_prefix("file:///").is_some_and(is_path)
}

/// A mapping that has not ended.
#[cfg(feature = "parse")]
#[derive(Default)]
struct Open {
    members: Vec<(String, Tree)>,
    /// Waits for its value.
    key: Option<String>,
}

/// One document of mappings and scalars: no tags, no anchors, no merge keys, no lists; and no plain scalar that is a string
/// to one reader and a number or boolean to another (YAML 1.1 and 1.2).
#[cfg(feature = "parse")]
fn yaml(text: &[u8]) -> Result<Tree, DocumentError> {
    let text = std::str::from_utf8(text).map_err(|error| DocumentError::Syntax(error.to_string()))?;
    // Directives, and what is a line's end to YAML 1.1 alone.
    let odd = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    if let Some(index) = text.lines().position(|line| line.starts_with('%') || line.contains(odd)) {
        let problem = "a tab, another control character, or a directive";
        return Err(DocumentError::Syntax(format!("line {}: {problem}", index + 1)));
    }
    let mut parser = Parser::new_from_str(text);
    let mut next = || match parser.next() {
        Some(Ok((event, span))) => Ok((event, span.start.line())),
        Some(Err(error)) => Err(DocumentError::Syntax(error.to_string())),
        None => Ok((Event::StreamEnd, 0)),
    };
    let syntax = |line: usize, problem: &str| Err(DocumentError::Syntax(format!("line {line}: {problem}")));
    let mut open: Vec<Open> = Vec::new();
    let mut whole = None;
    loop {
        let (event, line) = next()?;
        let value = match event {
            Event::StreamEnd => return Ok(whole.unwrap_or(Tree::Nothing)),
            Event::DocumentStart(_) if whole.is_some() => return syntax(line, "a second document"),
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => continue,
            Event::MappingStart(0, None) => {
                open.push(Open::default());
                continue;
            }
            Event::MappingEnd => {
                let Open { members, .. } = open.pop().unwrap_or_default();
                map(members).or_else(|problem| syntax(line, &problem))?
            }
            Event::Scalar(text, style, 0, None) => scalar(&text, style),
            _ => return syntax(line, "something that the format does not have"),
        };
        match open.last_mut() {
            None => whole = Some(value),
            Some(Open { members, key }) => match (key.take(), value) {
                (Some(key), value) => members.push((key, value)),
                (None, Tree::Text(text)) => *key = Some(text),
                (None, _) => return syntax(line, "a key that is not a string"),
            },
        }
    }
}

#[cfg(feature = "parse")]
fn scalar(text: &str, style: ScalarStyle) -> Tree {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match text {
        text if style != ScalarStyle::Plain => Tree::Text(text.to_owned()),
        "true" => Tree::Flag(true),
        "false" => Tree::Flag(false),
        "" | "~" | "null" => Tree::Nothing,
        text if ["null", "true", "false", "yes", "no", "on", "off", "y", "n"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word)) =>
        {
            Tree::Other
        }
        // A scope, a URL or a key of the format.
        text if text.starts_with(|c: char| c.is_ascii_alphabetic())
            || (text.starts_with(is_word) && text.contains(['/', ':']))
            || text.matches('.').count() > 1 =>
        {
            Tree::Text(text.to_owned())
        }
        _ => Tree::Other,
    }
}

#[cfg(all(test, feature = "parse"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<RegistriesD, DocumentError> {
        RegistriesD::parse(text.as_bytes())
    }

    #[test]
    fn as_it_is_written() {
        let url = "https://sigstore.local/sigstore".to_owned();
        let lookaside =
            Lookaside { lookaside: Some(url), use_sigstore_attachments: Some(true), ..Default::default() };
        let found = RegistriesD { default_docker: None, docker: [("a.b:5000".to_owned(), lookaside)].into() };
        assert_eq!(
            String::from_utf8(found.render()).unwrap(),
            "docker:\n  \"a.b:5000\":\n    lookaside: \"https://sigstore.local/sigstore\"\n    \
             use-sigstore-attachments: true\n"
        );
        assert_eq!(RegistriesD::default().render(), b"{}\n");
    }

    #[test]
    fn as_people_write_it() {
        let debian = "# comment\ndefault-docker:\n#  lookaside: https://x.y\n  lookaside-staging: \
                      file:///var/lib/containers/sigstore\n";
        let staging = Some("file:///var/lib/containers/sigstore".to_owned());
        let lookaside = Lookaside { lookaside_staging: staging, ..Default::default() };
        let expected = RegistriesD { default_docker: Some(lookaside), docker: BTreeMap::new() };
        assert_eq!(parse(debian), Ok(expected));
        for empty in ["", "# nothing\n", "---\n", "{}", "docker:\n", "docker: {}\ndefault-docker: ~\n"] {
            assert_eq!(parse(empty), Ok(RegistriesD::default()), "{empty:?}");
        }
        let many = parse(
            "docker:\n  127.0.0.1:5000: {sigstore: 'http://a.b:80/x'}\n  a.b/c:\n    use-sigstore-attachments: false\n",
        );
        assert_eq!(many.unwrap().docker.into_keys().collect::<Vec<_>>(), ["127.0.0.1:5000", "a.b/c"]);
    }

    #[test]
    fn what_readers_differ_over() {
        for bad in [
            "docker:\n  a.b: {}\n  a.b: {}\n",
            "docker: {}\ndocker: {}\n",
            "dockers: {}\n",
            "docker: []\n",
            "docker: x\n",
            "docker: {a.b: {lookasides: x}}\n",
            "docker: {a.b: {lookaside: x}}\n",
            "docker: {a.b: {lookaside: }}\n",
            "docker: {a.b: {lookaside: 'http://u:p@a.b/'}}\n",
            "docker: {a.b: {lookaside: 'http://a.b/%2e'}}\n",
            "docker: {a.b: {lookaside: 'http://a.b/ x'}}\n",
            "docker: {a.b: {lookaside: 'http:///x'}}\n",
            "docker: {a.b: {lookaside: 'ftp://a.b/'}}\n",
            "docker: {a.b: {lookaside: 'file://a/b'}}\n",
            "docker: {a.b: {use-sigstore-attachments: yes}}\n",
            "docker: {a.b: {use-sigstore-attachments: 'true'}}\n",
            "docker: {a.b: {use-sigstore-attachments: True}}\n",
            "docker: {no: {}}\n",
            "docker: {5000: {}}\n",
            "docker: {'': {}}\n",
            "docker: {<<: {a.b: {}}}\n",
            "docker: {? {a: b} : {}}\n",
            "docker: {a.b: &x {}, c.d: *x}\n",
            "docker: {a.b: !!map {}}\n",
            "docker: {}\n---\ndocker: {}\n",
            "docker: {}\n...\n---\n{}\n",
            "docker: {\n",
            "\tdocker: {}\n",
            "%YAML 1.1\n---\ndocker: {}\n",
            "docker:\u{2028}  a.b: {}\n",
            "docker: {a.b\u{85}: {}}\n",
            "docker: {}\r# x\n",
            "\u{feff}docker: {}\n",
            "docker: {a.b}\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(RegistriesD::parse(b"docker: {\xff: {}}").is_err());
        assert!(parse(&("{a: ".repeat(200_000) + &"}".repeat(200_000))).is_err());
        assert_eq!(
            parse("docker:\n  a.b:\n    lookasides: http://a.b/\n").unwrap_err().to_string(),
            "registries.d.docker[\"a.b\"].lookasides: is no key that is known here"
        );
    }

    fn lookaside() -> impl Strategy<Value = Lookaside> {
        let url =
            || prop::option::of("(https?://[a-z]{1,5}\\.x(:[1-9]{1,4})?|file:///)[a-zA-Z0-9._~/:+,=@-]{0,9}");
        // Without a path, what follows the host has to begin with a slash.
        let url = move || url().prop_map(|url| url.filter(|url| is_url(url)));
        (url(), url(), url(), url(), any::<Option<bool>>()).prop_map(
            |(lookaside, staging, old, old_staging, flag)| Lookaside {
                lookaside,
                lookaside_staging: staging,
                sigstore: old,
                sigstore_staging: old_staging,
                use_sigstore_attachments: flag,
            },
        )
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_render(
            default_docker in prop::option::of(lookaside()),
            docker in prop::collection::btree_map("\\PC{1,9}|[\\x00-\\xff]{1,9}|true|null|1", lookaside(), 0..4),
        ) {
            let found = RegistriesD { default_docker, docker };
            prop_assert_eq!(RegistriesD::parse(&found.render()), Ok(found));
        }

        #[test]
        fn never_panics(text in "\\PC{0,60}|[-\\[\\]{}\"':&*!|>?# \n\ta-c]{0,60}") {
            let _ = parse(&text);
        }
    }
}
