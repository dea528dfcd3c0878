//! Who is to be made: from the command line, or from a file. All of it is looked at before anything is asked of
//! podsecd, with the types that podsecd itself reads it with.

use crate::cli::{CategoryName, CreateUsers};
use crate::failure::Failure;
use crate::output::clean;
use podsec_policy::name::AccountName;
use podsec_policy::user::{Category, FullName, Scope, Scopes, ScopesError};
use serde::Deserialize;
use std::collections::HashSet;
use toml::Spanned;

/// Somebody to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Login name.
    pub name: AccountName,
    /// What he is.
    pub category: Category,
    /// May be empty.
    pub full_name: FullName,
    /// His processes outlive his login.
    pub linger: bool,
    /// With a signing key.
    pub key: bool,
}

/// Why somebody cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("only image creators have scopes")]
    Scopes,
    #[error("only image creators share scopes")]
    Shared,
    #[error("only image creators have signing keys")]
    Key,
    #[error("an image creator has 1 to {most} scopes, here are {0}", most = Scopes::MOST)]
    Count(usize),
    #[error("scope {1} overlaps with scope {0}")]
    Overlap(usize, usize),
    #[error("the name is there twice")]
    Name,
}

/// What somebody is, with what belongs to it and nothing else.
fn category(name: CategoryName, scopes: Vec<Scope>, shared: bool, key: bool) -> Result<Category, Unfit> {
    let other = match name {
        CategoryName::ImageCreator => {
            return match Scopes::new(scopes) {
                Ok(scopes) => Ok(Category::ImageCreator { scopes, shared }),
                Err(ScopesError::Count(count)) => Err(Unfit::Count(count)),
                Err(ScopesError::Overlap(one, other)) => Err(Unfit::Overlap(one + 1, other + 1)),
            };
        }
        CategoryName::ImageUser => Category::ImageUser,
        CategoryName::ClusterUser => Category::ClusterUser,
        CategoryName::ClusterAdmin => Category::ClusterAdmin,
    };
    match (scopes.is_empty(), shared, key) {
        (false, ..) => Err(Unfit::Scopes),
        (_, true, _) => Err(Unfit::Shared),
        (.., true) => Err(Unfit::Key),
        _ => Ok(other),
    }
}

/// Those of the command line.
///
/// # Errors
/// [`Failure::Usage`]
pub fn named(arguments: &CreateUsers) -> Result<Vec<Person>, Failure> {
    let unfit = |name: &AccountName, why: Unfit| Failure::Usage(format!("{name}: {why}"));
    if arguments.full_name.is_some() && arguments.names.len() > 1 {
        return Err(Failure::Usage(
            "--full-name is one person's; --from reads more of them from a file".into(),
        ));
    }
    // clap asks for it.
    let what = arguments.category.ok_or_else(|| Failure::Usage("--category is missing".into()))?;
    let mut seen = HashSet::new();
    let person = |name: &AccountName| {
        if !seen.insert(name.clone()) {
            return Err(unfit(name, Unfit::Name));
        }
        let category = category(what, arguments.scopes.clone(), arguments.shared, arguments.with_key);
        Ok(Person {
            name: name.clone(),
            category: category.map_err(|why| unfit(name, why))?,
            full_name: arguments.full_name.clone().unwrap_or_default(),
            linger: arguments.linger,
            key: arguments.with_key,
        })
    };
    arguments.names.iter().map(person).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct People {
    #[serde(default)]
    user: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<AccountName>,
    category: CategoryName,
    #[serde(default)]
    scopes: Vec<Scope>,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    full_name: FullName,
    #[serde(default)]
    linger: bool,
    #[serde(default)]
    key: bool,
}

/// Those of a file, as [`CreateUsers`] describes it.
///
/// # Errors
/// [`Failure::Usage`] says which line
pub fn listed(bytes: &[u8]) -> Result<Vec<Person>, Failure> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        at(&String::from_utf8_lossy(before), before.len(), "not UTF-8 text")
    })?;
    let read = toml::from_str(text);
    let People { user: entries } = read.map_err(|error: toml::de::Error| {
        let offset = error.span().map_or(text.len(), |span| span.start);
        at(text, offset, &clean(error.message()))
    })?;
    if entries.is_empty() {
        return Err(Failure::Usage("the file has no [[user]] in it".into()));
    }
    let mut seen = HashSet::new();
    let person = |entry: Entry| {
        let offset = entry.name.span().start;
        let name = entry.name.into_inner();
        let unfit = |why: Unfit| at(text, offset, &format!("{name}: {why}"));
        if !seen.insert(name.clone()) {
            return Err(unfit(Unfit::Name));
        }
        let category = category(entry.category, entry.scopes, entry.shared, entry.key).map_err(unfit)?;
        Ok(Person { name, category, full_name: entry.full_name, linger: entry.linger, key: entry.key })
    };
    entries.into_iter().map(person).collect()
}

fn at(text: &str, offset: usize, what: &str) -> Failure {
    let before = text.bytes().take(offset);
    let line = before.filter(|&byte| byte == b'\n').count() + 1;
    Failure::Usage(format!("line {line} of the file: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, User};
    use clap::Parser as _;

    fn from_line(line: &str) -> Result<Vec<Person>, Failure> {
        let words = ["podsecctl", "user", "create"].into_iter().chain(line.split_whitespace());
        let Command::User(command) = Cli::try_parse_from(words).unwrap().command else { panic!("{line}") };
        let User::Create(arguments) = *command else { panic!("{line}") };
        named(&arguments)
    }

    #[test]
    fn a_file_and_a_command_line_say_the_same() {
        let file = br#"
            [[user]]
            name = "carol"
            category = "image-creator"
            scopes = ["registry.local/team", "registry.local/app"]
            shared = true
            full_name = "Carol"
            linger = true
            key = true
        "#;
        let line = "carol --category image-creator --scope registry.local/team --scope registry.local/app --shared \
                    --full-name Carol --linger --with-key";
        assert_eq!(listed(file).unwrap(), from_line(line).unwrap());
        let file =
            b"user = [{ name = 'a', category = 'image-user' }, { name = 'b', category = 'image-user' }]";
        assert_eq!(listed(file).unwrap(), from_line("a b --category image-user").unwrap());
    }

    #[test]
    fn what_does_not_belong_together() {
        for (line, why) in [
            ("a --category image-user --scope a.b/c", "a: only image creators have scopes"),
            ("a --category cluster-user --shared", "a: only image creators share scopes"),
            ("a --category cluster-admin --with-key", "a: only image creators have signing keys"),
            ("a --category image-creator", "a: an image creator has 1 to 16 scopes, here are 0"),
            ("a --category image-creator --scope a.b/c --scope a.b", "a: scope 2 overlaps with scope 1"),
            ("a b a --category image-user", "a: the name is there twice"),
            (
                "a b --category image-user --full-name A",
                "--full-name is one person's; --from reads more of them from a file",
            ),
        ] {
            assert_eq!(from_line(line).unwrap_err().to_string(), why, "{line}");
        }
    }

    #[test]
    fn the_line_of_what_is_wrong() {
        let good = "[[user]]\nname = 'a'\ncategory = 'image-user'\n";
        for (bad, line, word) in [
            ("colour = 1\n", 4, "unknown field `colour`"),
            ("full_name = 'a:b'\n", 4, "character 2 of the full name"),
            ("[[user]]\ncategory = 'image-user'\n", 4, "missing field `name`"),
            ("[[user]]\nname = 'b'\ncategory = 'root'\n", 6, "unknown variant `root`"),
            ("[[user]]\nname = 'b c'\ncategory = 'image-user'\n", 5, "character 2 of the name"),
            ("[[user]]\nname = 'b'\ncategory = 'image-creator'\nscopes = ['a.b/c', 'team']\n", 7, "host"),
            ("[[user]]\nname = 'a'\ncategory = 'image-user'\n", 5, "a: the name is there twice"),
            ("[[user]]\nname = 'b'\nkey = true\ncategory = 'image-user'\n", 5, "b: only image creators"),
            ("[[user]]\nname = 'b'\nlinger = 'yes'\ncategory = 'image-user'\n", 6, "a boolean"),
            ("[[user\n", 4, ""),
            ("[people]\n", 4, "unknown field `people`"),
        ] {
            let said = listed(format!("{good}{bad}").as_bytes()).unwrap_err().to_string();
            assert!(
                said.starts_with(&format!("line {line} of the file: ")) && said.contains(word),
                "{bad}{said}"
            );
        }
        assert_eq!(listed(b"# a\n\xff").unwrap_err().to_string(), "line 2 of the file: not UTF-8 text");
        assert_eq!(listed(b"").unwrap_err().to_string(), "the file has no [[user]] in it");
        let said = listed(b"\"\\u001b[2J\" = 1").unwrap_err().to_string();
        assert!(!said.chars().any(char::is_control), "{said:?}");
    }
}
