//! Ranges of subordinate ids (subuid(5)) that overlap with nothing: no other range, and no id that somebody has.

use super::etc;
use crate::Failure;
use podsec_policy::accounts;
use podsec_policy::config::{Config, Users};
use podsec_policy::reason::Reason;

/// Files with ranges, and those with the ids of users and groups.
const RANGES: [&str; 2] = ["subuid", "subgid"];

/// The first id of a range that is free for uids and gids alike.
///
/// # Errors
/// `SubidRange`
pub fn free(config: &Config) -> Result<u32, Failure> {
    let mut taken = Vec::new();
    for file in RANGES {
        taken.extend(ranges(&etc(file)?).map(|(_, first, count)| (first, count)));
    }
    for file in ["passwd", "group"] {
        let ids = etc(file)?;
        taken.extend(ids.lines().filter_map(|line| Some((number(line.split(':').nth(2)?)?, 1))));
    }
    first_gap(taken, &config.users).ok_or_else(|| Reason::SubidRange.into())
}

/// Whose, first, count. Whatever may be read as numbers is, since newuidmap(1) will.
fn ranges(file: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, number(fields.next()?)?, number(fields.next()?)?))
    })
}

/// As strtoul(3) reads it for shadow's tools, hexadecimal and octal too; the largest where it is too large.
fn number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    let number = digits.chars().try_fold(0_u64, |number, digit| {
        let digit = u64::from(digit.to_digit(radix)?);
        Some(number.saturating_mul(u64::from(radix)).saturating_add(digit))
    });
    number.filter(|_| !digits.is_empty())
}

/// No sum wraps around: a crafted line must not lead into somebody else's ids (CVE-2018-7169 and its like).
fn first_gap(mut taken: Vec<(u64, u64)>, users: &Users) -> Option<u32> {
    taken.sort_unstable();
    let count = u64::from(users.subids);
    let mut candidate = u64::from(users.first_subid);
    for (first, length) in taken {
        if first >= candidate.saturating_add(count) {
            break;
        }
        candidate = candidate.max(first.saturating_add(length));
    }
    let last = candidate.saturating_add(count - 1);
    (last <= u64::from(users.last_subid)).then(|| u32::try_from(candidate).ok())?
}

/// The ranges of a user, for uids and for gids; `None` where he has none.
///
/// # Errors
/// when a file cannot be read; `SubidRange` when one of his overlaps with somebody else's
pub fn of(name: &str) -> Result<[Option<(u32, u32)>; 2], Failure> {
    let mut found = [None; 2];
    for (file, found) in RANGES.iter().zip(&mut found) {
        let text = etc(file)?;
        *found = accounts::ranges(&text)
            .find(|(owner, ..)| *owner == name)
            .map(|(_, first, count)| (first, count));
        let Some((first, count)) = *found else { continue };
        let (first, end) = (u64::from(first), u64::from(first) + u64::from(count));
        let other = ranges(&text).find(|&(owner, other, length)| {
            owner != name && other < end && first < other.saturating_add(length)
        });
        if let Some((owner, ..)) = other {
            let text = format!("subordinate ids of {name} and {owner} overlap in /etc/{file}");
            return Err(Failure::new(Reason::SubidRange, text));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: fn(u32, u32, u32) -> Users =
        |first_subid, last_subid, subids| Users { first_subid, last_subid, subids, ..Users::default() };

    #[test]
    fn the_first_gap() {
        let users = USERS(100, 199, 10);
        assert_eq!(first_gap(vec![], &users), Some(100));
        assert_eq!(first_gap(vec![(0, 50)], &users), Some(100));
        assert_eq!(first_gap(vec![(95, 10), (120, 10)], &users), Some(105));
        assert_eq!(first_gap(vec![(105, 1)], &users), Some(106));
        assert_eq!(first_gap(vec![(110, 10)], &users), Some(100));
        assert_eq!(first_gap(vec![(100, 91)], &users), None);
        assert_eq!(first_gap(vec![(100, 90)], &users), Some(190));
        assert_eq!(first_gap(vec![(100, u64::MAX), (u64::MAX, u64::MAX)], &users), None);
        assert_eq!(first_gap(vec![(100, 0)], &users), Some(100));
    }

    #[test]
    fn lines_as_others_read_them() {
        let file = "a:100000:65536\nb:0x186a0: 0200000\nc:+5:99999999999999999999\nd:-1:1\ne:1:\n#\n\nf:1:0x";
        let expected = [("a", 100_000, 65_536), ("b", 100_000, 65_536), ("c", 5, u64::MAX)];
        assert_eq!(ranges(file).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_thousand_users_overlap_with_nobody() {
        let users = USERS(100_000, 600_100_000, 65_536);
        let mut taken: Vec<(u64, u64)> = (0..300).map(|n| (100_000 + n * 777_777, 1 + n * 1000)).collect();
        for _ in 0..1000 {
            let first = first_gap(taken.clone(), &users).unwrap();
            let from = u64::from(first);
            let clash = taken.iter().any(|&(other, length)| other < from + 65_536 && from < other + length);
            assert!(!clash, "{first}");
            taken.push((from, 65_536));
        }
    }
}
