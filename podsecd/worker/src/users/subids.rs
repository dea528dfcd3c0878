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
        taken.extend(accounts::ranges(&etc(file)?).map(|(_, first, count)| (first, count)));
    }
    for file in ["passwd", "group"] {
        let ids = etc(file)?;
        taken.extend(ids.lines().filter_map(|line| Some((line.split(':').nth(2)?.parse().ok()?, 1))));
    }
    first_gap(taken, &config.users).ok_or_else(|| Reason::SubidRange.into())
}

/// All sums in 64 bits: a crafted line must not wrap around into somebody else's ids (CVE-2018-7169 and its like).
fn first_gap(mut taken: Vec<(u32, u32)>, users: &Users) -> Option<u32> {
    taken.sort_unstable();
    let count = u64::from(users.subids);
    let mut candidate = u64::from(users.first_subid);
    for (first, length) in taken {
        let (first, end) = (u64::from(first), u64::from(first) + u64::from(length));
        if first >= candidate + count {
            break;
        }
        candidate = candidate.max(end);
    }
    (candidate + count - 1 <= u64::from(users.last_subid)).then(|| u32::try_from(candidate).ok())?
}

/// The ranges of a user, one for uids and one for gids; `None` where he lacks one.
///
/// # Errors
/// when a file cannot be read; `SubidRange` when one of his overlaps with somebody else's
pub fn of(name: &str) -> Result<Option<[(u32, u32); 2]>, Failure> {
    let mut found = [None; 2];
    for (file, found) in RANGES.iter().zip(&mut found) {
        let text = etc(file)?;
        *found = accounts::ranges(&text)
            .find(|(owner, ..)| *owner == name)
            .map(|(_, first, count)| (first, count));
        let Some((first, count)) = *found else { continue };
        let end = u64::from(first) + u64::from(count);
        let other = accounts::ranges(&text).find(|&(owner, other, length)| {
            owner != name && u64::from(other) < end && u64::from(first) < u64::from(other) + u64::from(length)
        });
        if let Some((owner, ..)) = other {
            let text = format!("subordinate ids of {name} and {owner} overlap in /etc/{file}");
            return Err(Failure::new(Reason::SubidRange, text));
        }
    }
    let [uids, gids] = found;
    Ok(uids.zip(gids).map(<[_; 2]>::from))
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
        assert_eq!(first_gap(vec![(100, u32::MAX), (u32::MAX, u32::MAX)], &users), None);
        assert_eq!(first_gap(vec![(100, 0)], &users), Some(100));
    }

    #[test]
    fn a_thousand_users_overlap_with_nobody() {
        let users = USERS(100_000, 600_100_000, 65_536);
        let mut taken: Vec<(u32, u32)> = (0..300).map(|n| (100_000 + n * 777_777, 1 + n * 1000)).collect();
        for _ in 0..1000 {
            let first = first_gap(taken.clone(), &users).unwrap();
            let clash = taken.iter().any(|&(other, length)| {
                u64::from(other) < u64::from(first) + 65_536
                    && u64::from(first) < u64::from(other) + u64::from(length)
            });
            assert!(!clash, "{first}");
            taken.push((first, 65_536));
        }
    }
}
