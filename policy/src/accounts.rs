//! Lines of the account files: passwd(5), group(5), shadow(5), subuid(5). The first line of a name counts, since that is
//! the one that everybody else's lookups find.

/// The fields of the first line of that name.
#[must_use]
pub fn entry<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let line = file.lines().find(|line| line.split(':').next() == Some(name))?;
    Some(line.split(':').collect())
}

/// A number in a field.
#[must_use]
pub fn number(fields: &[&str], index: usize) -> Option<u32> {
    fields.get(index)?.parse().ok()
}

/// The gid of a group.
#[must_use]
pub fn gid(group: &str, name: &str) -> Option<u32> {
    entry(group, name).and_then(|fields| number(&fields, 2))
}

/// The supplementary groups of a user.
#[must_use]
pub fn groups_of(group: &str, user: &str) -> Vec<u32> {
    let is_member = |line: &&str| {
        line.rsplit(':').next().is_some_and(|members| members.split(',').any(|member| member == user))
    };
    group.lines().filter(is_member).filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
}

/// A line of passwd(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account<'a> {
    /// Login name.
    pub name: &'a str,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: &'a str,
    /// Login shell.
    pub shell: &'a str,
}

/// The account of that name, if its line is one.
#[must_use]
pub fn account<'a>(passwd: &'a str, name: &str) -> Option<Account<'a>> {
    account_of(&entry(passwd, name)?)
}

/// All lines that are accounts.
pub fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| account_of(&line.split(':').collect::<Vec<_>>()))
}

fn account_of<'a>(fields: &[&'a str]) -> Option<Account<'a>> {
    let &[name, _, _, _, _, home, shell] = fields else { return None };
    Some(Account { name, uid: number(fields, 2)?, gid: number(fields, 3)?, home, shell })
}

/// Ranges of subordinate ids: whose, first, count. Lines that are none are left out.
pub fn ranges(file: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    file.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let &[owner, _, _] = &fields[..] else { return None };
        Some((owner, number(&fields, 1)?, number(&fields, 2)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_and_first_lines() {
        let group = "root:x:0:\nWheel:x:7:eve\nwheel :x:8:eve\nxwheel:x:9:\nwheel:x:10:alice\nwheel:x:11:eve\nbad:x:-1:\n";
        assert_eq!(gid(group, "wheel"), Some(10));
        assert_eq!(gid(group, "bad"), None);
        assert_eq!(gid(group, "none"), None);
    }

    #[test]
    fn accounts_and_their_groups() {
        let passwd = "x:x:1\nu7s-admin:x:990:989:cluster, user:/var/lib/u7s-admin:/bin/bash\n";
        let group = "a:x:1:u7s-admin2\nb:x:2:x,u7s-admin,y\nc:x:3:u7s-admin\nu7s-admin:x:989:\n";
        let user = account(passwd, "u7s-admin").unwrap();
        assert_eq!(
            (user.uid, user.gid, user.home, user.shell),
            (990, 989, "/var/lib/u7s-admin", "/bin/bash")
        );
        assert_eq!(groups_of(group, user.name), [2, 3]);
        assert_eq!(account(passwd, "x"), None);
        assert_eq!(accounts(passwd).collect::<Vec<_>>(), [user]);
    }

    #[test]
    fn ranges_of_subordinate_ids() {
        let file = "a:100000:65536\n\nb:x:1\nc:1:2:3\nd:165536:4294967296\ne:165536:65536";
        assert_eq!(ranges(file).collect::<Vec<_>>(), [("a", 100_000, 65_536), ("e", 165_536, 65_536)]);
    }
}
