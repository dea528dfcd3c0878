//! containers-registries.conf(5), version 2, as a drop-in (containers-registries.conf.d(5)): how registries are reached.
//!
//! Owns what podsec says there, as types. Must not do: mirrors, aliases or credentials.

use super::quoted;
#[cfg(feature = "parse")]
use super::{
    DocumentError,
    reference::is_domain,
    tree::{Node, Tree},
};

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    /// Where names without a registry are looked for; `None`: as other files say.
    pub unqualified_search_registries: Option<Vec<String>>,
    /// `[[registry]]`
    pub registries: Vec<Registry>,
}

/// One `[[registry]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Beginning of the names that it is for; `None`: the location.
    pub prefix: Option<String>,
    /// `host[:port]`, perhaps with a path.
    pub location: String,
    /// HTTP, or TLS by whomever, will do.
    pub insecure: bool,
    /// Nothing is pulled.
    pub blocked: bool,
}

impl RegistriesConf {
    /// The document, always the same for the same value.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = String::new();
        if let Some(registries) = &self.unqualified_search_registries {
            let list: Vec<_> = registries.iter().map(|registry| quoted(registry)).collect();
            text += &format!("unqualified-search-registries = [{}]\n", list.join(", "));
        }
        for Registry { prefix, location, insecure, blocked } in &self.registries {
            let gap = if text.is_empty() { "" } else { "\n" };
            let prefix =
                prefix.iter().map(|prefix| format!("prefix = {}\n", quoted(prefix))).collect::<String>();
            text += &format!(
                "{gap}[[registry]]\n{prefix}location = {}\ninsecure = {insecure}\nblocked = {blocked}\n",
                quoted(location)
            );
        }
        text.into_bytes()
    }

    /// # Errors
    /// [`DocumentError`]. Stricter than containers/image, which passes over keys that it does not know and takes the first of
    /// several registries with one prefix.
    #[cfg(feature = "parse")]
    pub fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        let syntax = |problem: &str| DocumentError::Syntax(problem.to_owned());
        let text = std::str::from_utf8(text).map_err(|error| syntax(&error.to_string()))?;
        let tree: Tree = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            syntax(&format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
        })?;
        let mut members = Node::top("registries.conf", tree).members()?;
        let search = members.take("unqualified-search-registries");
        let search =
            search.map(|node| node.each(|node| node.text_if(is_domain, "is not host[:port]"))).transpose()?;
        let mut registries: Vec<Registry> = Vec::new();
        if let Some(node) = members.take("registry") {
            registries = node.each(Registry::read)?;
        }
        for (index, one) in registries.iter().enumerate() {
            let problem = registries.iter().take(index).find_map(|other| one.conflict(other));
            if let Some(problem) = problem {
                return Err(DocumentError::Content {
                    place: format!("registries.conf.registry[{index}]"),
                    problem,
                });
            }
        }
        members.end()?;
        Ok(Self { unqualified_search_registries: search, registries })
    }
}

#[cfg(feature = "parse")]
impl Registry {
    fn read(node: Node) -> Result<Self, DocumentError> {
        let mut members = node.members()?;
        let name = "is not host[:port], perhaps with a path";
        let flag = |node: Option<Node>| node.map_or(Ok(false), |node| node.flag());
        let found = Self {
            prefix: members.take("prefix").map(|node| node.text_if(is_prefix, name)).transpose()?,
            location: members.need("location")?.text_if(is_location, name)?,
            insecure: flag(members.take("insecure"))?,
            blocked: flag(members.take("blocked"))?,
        };
        members.end()?;
        Ok(found)
    }

    fn conflict(&self, other: &Self) -> Option<&'static str> {
        let of = |registry: &Self| registry.prefix.clone().unwrap_or_else(|| registry.location.clone());
        if of(self) == of(other) {
            Some("has the prefix of another")
        } else if self.location == other.location
            && (self.insecure, self.blocked) != (other.insecure, other.blocked)
        {
            Some("has the location of another, which is insecure or blocked where this is not")
        } else {
            None
        }
    }
}

#[cfg(feature = "parse")]
fn is_location(text: &str) -> bool {
    let (name, _) = text.split_once('@').unwrap_or((text, ""));
    super::reference::is_name(name)
}

/// `*.host` too.
#[cfg(feature = "parse")]
fn is_prefix(text: &str) -> bool {
    text.strip_prefix("*.").map_or_else(|| is_location(text), |host| !host.contains(':') && is_domain(host))
}

#[cfg(all(test, feature = "parse"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<RegistriesConf, DocumentError> {
        RegistriesConf::parse(text.as_bytes())
    }

    #[test]
    fn as_it_is_written() {
        let registry = |prefix: Option<&str>, insecure| Registry {
            prefix: prefix.map(str::to_owned),
            location: "registry.local:5000".to_owned(),
            insecure,
            blocked: false,
        };
        let found = RegistriesConf {
            unqualified_search_registries: Some(vec!["registry.local:5000".to_owned()]),
            registries: vec![registry(None, true), registry(Some("*.a.b"), true)],
        };
        let text = "unqualified-search-registries = [\"registry.local:5000\"]\n\n\
                    [[registry]]\nlocation = \"registry.local:5000\"\ninsecure = true\nblocked = false\n\n\
                    [[registry]]\nprefix = \"*.a.b\"\nlocation = \"registry.local:5000\"\ninsecure = true\nblocked = false\n";
        assert_eq!(String::from_utf8(found.render()).unwrap(), text);
        assert_eq!(parse(text), Ok(found));
        assert_eq!(parse(""), Ok(RegistriesConf::default()));
        let search = |list| RegistriesConf { unqualified_search_registries: list, registries: Vec::new() };
        assert_eq!(parse("unqualified-search-registries = []"), Ok(search(Some(Vec::new()))));
    }

    #[test]
    fn what_is_wrong() {
        for bad in [
            "[[registry]]\n",
            "[[registry]]\nlocation = ''\n",
            "[[registry]]\nlocation = 'http://a.b'\n",
            "[[registry]]\nlocation = 'a.b/'\n",
            "[[registry]]\nlocation = 'a.b'\nprefix = ''\n",
            "[[registry]]\nlocation = 'a.b'\nprefix = '*.a.b/c'\n",
            "[[registry]]\nlocation = 'a.b'\nprefix = 'a.*.b'\n",
            "[[registry]]\nlocation = 'a.b'\ninsecure = 'true'\n",
            "[[registry]]\nlocation = 'a.b'\ninsecure = 1\n",
            "[[registry]]\nlocation = 'a.b'\nlocation = 'a.b'\n",
            "[[registry]]\nlocation = 'a.b'\n[[registry]]\nlocation = 'a.b'\n",
            "[[registry]]\nlocation = 'a.b'\n[[registry]]\nlocation = 'a.b'\nprefix = 'c.d'\nblocked = true\n",
            "[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\nlocation = 'c.d'\n",
            "[registry]\nlocation = 'a.b'\n",
            "unqualified-search-registries = 'a.b'\n",
            "unqualified-search-registries = ['a.b/c']\n",
            "unqualified-search-registries = ['']\n",
            "unqualified-search-registry = []\n",
            "[registries.search]\nregistries = ['a.b']\n",
            "[aliases]\n",
            "when = 1979-05-27\n",
            "[[registry]\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse("\n[aliases]\n[aliases]\n").unwrap_err().to_string(), "line 3: duplicate key");
        assert_eq!(
            parse("[[registry]]\nlocation = 'a.b/'\n").unwrap_err().to_string(),
            "registries.conf.registry[0].location: is not host[:port], perhaps with a path"
        );
    }

    fn registry() -> impl Strategy<Value = Registry> {
        let prefix = prop::option::of("\\*\\.[a-z]{1,9}\\.x|[a-z]{1,9}\\.x(:[1-9]{1,4})?(/[a-z]{1,9})?");
        let location = "[a-z]{1,9}\\.y(:[1-9]{1,4})?(/[a-z]{1,9})?";
        (prefix, location, any::<bool>(), any::<bool>()).prop_map(|(prefix, location, insecure, blocked)| {
            Registry { prefix, location, insecure, blocked }
        })
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_render(
            search in prop::option::of(prop::collection::vec("[a-z]{1,9}(\\.[a-z]{1,9})?(:[1-9]{1,4})?", 0..3)),
            mut registries in prop::collection::vec(registry(), 0..4),
        ) {
            let mut seen = Vec::new();
            registries.retain(|one| {
                let is_new = seen.iter().all(|other| one.conflict(other).is_none());
                seen.push(one.clone());
                is_new
            });
            let found = RegistriesConf { unqualified_search_registries: search, registries };
            prop_assert_eq!(RegistriesConf::parse(&found.render()), Ok(found));
        }

        #[test]
        fn nothing_gets_out_of_a_string(location in "\\PC{1,20}|[\\x00-\\xff]{1,20}") {
            let registry = Registry { prefix: None, location: location.clone(), insecure: false, blocked: true };
            let text = RegistriesConf { registries: vec![registry], ..Default::default() }.render();
            let read: toml::Table = toml::from_str(&String::from_utf8(text).unwrap()).unwrap();
            prop_assert_eq!(read["registry"][0]["location"].as_str(), Some(location.as_str()));
            prop_assert_eq!(read["registry"][0].as_table().unwrap().len(), 3);
        }
    }
}
