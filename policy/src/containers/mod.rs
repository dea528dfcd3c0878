//! The documents by which containers/image (podman, skopeo, CRI-O) decides whom to trust and where signatures are, and
//! podsec's lines of /etc/hosts.
//!
//! Owns their types, their text, and readers that are as strict as containers/image or stricter: an unknown key, a key that
//! is there twice or a value of the wrong type is an error that names its place. Must not do: repair what is wrong, or keep
//! what it does not understand; both would end in a policy that says something else than its reader thinks.

pub mod hosts;
pub mod policy_json;
mod reference;
pub mod registries_conf;
pub mod registries_d;
mod tree;

/// Why bytes are not the document that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, YAML or TOML, or a key is there twice.
    #[error("{0}")]
    Syntax(String),
    /// Well formed, but it does not say what the format wants.
    #[error("{place}: {problem}")]
    Content {
        /// Keys and indices from the top, escaped.
        place: String,
        /// What is wrong there.
        problem: &'static str,
    },
}

/// A string between quotes, as YAML (1.2.2 §5.7, §7.3.1) and TOML (1.0 "String") both read it, whatever is in it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match (c, u32::from(c)) {
            ('"' | '\\', _) => quoted.extend(['\\', c]),
            (' '..='~', _) => quoted.push(c),
            (_, code @ ..=0xffff) => quoted += &format!("\\u{code:04x}"),
            (_, code) => quoted += &format!("\\U{code:08x}"),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn nothing_gets_out_of_quotes() {
        assert_eq!(quoted("a \"b\\\n#"), "\"a \\\"b\\\\\\u000a#\"");
        assert_eq!(quoted("ä\u{7f}\u{2028}𝄞"), "\"\\u00e4\\u007f\\u2028\\U0001d11e\"");
    }
}
