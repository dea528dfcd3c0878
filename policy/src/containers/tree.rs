//! What JSON, YAML and TOML have in common, read before anybody asks what it means.
//!
//! Owns the places that errors name, and that no key is there twice. Must not do: know a document.

use super::DocumentError;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use std::collections::BTreeSet;
use std::fmt;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    /// A string.
    Text(String),
    /// A boolean.
    Flag(bool),
    /// Null; YAML's empty value.
    Nothing,
    /// What no document of ours has: numbers.
    Other,
    /// An array.
    List(Vec<Tree>),
    /// An object: keys once each, in their order.
    Map(Vec<(String, Tree)>),
}

/// A map out of members, or the key that is there twice.
pub(super) fn map(members: Vec<(String, Tree)>) -> Result<Tree, String> {
    let mut seen = BTreeSet::new();
    match members.iter().find(|(key, _)| !seen.insert(key)) {
        Some((key, _)) => Err(format!("the key {key:?} is there twice")),
        None => Ok(Tree::Map(members)),
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element()? {
            list.push(value);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        map(members).map_err(A::Error::custom)
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Nothing | Self::Other => serializer.serialize_unit(),
            Self::List(list) => serializer.collect_seq(list),
            Self::Map(members) => serializer.collect_map(members.iter().map(|(key, value)| (key, value))),
        }
    }
}

/// A value and where it is.
pub(super) struct Node {
    place: String,
    tree: Tree,
}

impl Node {
    /// The whole document, by its name.
    pub(super) fn top(name: &str, tree: Tree) -> Self {
        Self { place: name.to_owned(), tree }
    }

    /// An error about this value.
    pub(super) fn wrong(&self, problem: &'static str) -> DocumentError {
        DocumentError::Content { place: self.place.clone(), problem }
    }

    /// Is it null?
    #[cfg(feature = "parse")]
    pub(super) fn is_nothing(&self) -> bool {
        self.tree == Tree::Nothing
    }

    /// A string that is not empty.
    pub(super) fn text(&self) -> Result<&str, DocumentError> {
        match &self.tree {
            Tree::Text(text) if !text.is_empty() => Ok(text),
            Tree::Text(_) => Err(self.wrong("must not be empty")),
            _ => Err(self.wrong("must be a string")),
        }
    }

    /// A string for which `is_good`.
    pub(super) fn text_if(
        &self,
        is_good: impl Fn(&str) -> bool,
        problem: &'static str,
    ) -> Result<String, DocumentError> {
        let text = self.text()?;
        if is_good(text) { Ok(text.to_owned()) } else { Err(self.wrong(problem)) }
    }

    /// A boolean.
    #[cfg(feature = "parse")]
    pub(super) fn flag(&self) -> Result<bool, DocumentError> {
        if let Tree::Flag(flag) = self.tree { Ok(flag) } else { Err(self.wrong("must be true or false")) }
    }

    /// What is made of each element.
    pub(super) fn each<T>(
        self,
        make: impl Fn(Self) -> Result<T, DocumentError>,
    ) -> Result<Vec<T>, DocumentError> {
        let Tree::List(list) = self.tree else { return Err(self.wrong("must be a list")) };
        let node = |(index, tree)| Self { place: format!("{}[{index}]", self.place), tree };
        list.into_iter().enumerate().map(|element| make(node(element))).collect()
    }

    /// The same of a list that must not be empty.
    pub(super) fn some<T>(
        self,
        make: impl Fn(Self) -> Result<T, DocumentError>,
    ) -> Result<Vec<T>, DocumentError> {
        if self.tree == Tree::List(Vec::new()) {
            return Err(self.wrong("must not be empty"));
        }
        self.each(make)
    }

    /// What is in a map.
    pub(super) fn members(self) -> Result<Members, DocumentError> {
        match self.tree {
            Tree::Map(left) => Ok(Members { place: self.place, left }),
            _ => Err(self.wrong("must be a mapping from keys to values")),
        }
    }
}

/// What of a map was not asked for yet.
pub(super) struct Members {
    place: String,
    left: Vec<(String, Tree)>,
}

impl Members {
    fn node(place: &str, key: &str, tree: Tree) -> Node {
        let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let place = if plain { format!("{place}.{key}") } else { format!("{place}[{key:?}]") };
        Node { place, tree }
    }

    /// The value of a key, if it is there.
    pub(super) fn take(&mut self, key: &str) -> Option<Node> {
        let index = self.left.iter().position(|(name, _)| name == key)?;
        let (_, tree) = self.left.remove(index);
        Some(Self::node(&self.place, key, tree))
    }

    /// The value of a key that has to be there.
    pub(super) fn need(&mut self, key: &str) -> Result<Node, DocumentError> {
        let missing = Self::node(&self.place, key, Tree::Nothing).wrong("is missing");
        self.take(key).ok_or(missing)
    }

    /// All the rest, whatever the keys are called.
    pub(super) fn rest(self) -> impl Iterator<Item = (String, Node)> {
        let Self { place, left } = self;
        left.into_iter().map(move |(key, tree)| {
            let node = Self::node(&place, &key, tree);
            (key, node)
        })
    }

    /// There is no more.
    pub(super) fn end(self) -> Result<(), DocumentError> {
        match self.rest().next() {
            Some((_, node)) => Err(node.wrong("is no key that is known here")),
            None => Ok(()),
        }
    }

    /// An error about the map.
    pub(super) fn wrong(&self, problem: &'static str) -> DocumentError {
        DocumentError::Content { place: self.place.clone(), problem }
    }
}
