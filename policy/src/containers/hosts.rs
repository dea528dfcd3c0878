//! podsec's block in /etc/hosts (hosts(5)).
//!
//! Owns the lines between two markers, and which addresses may be in them. Must not do: touch a byte outside of them, or put
//! right what is wrong with the markers: somebody else wrote there, and has to look at it.

use crate::trust::HostName;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

const BEGIN: &str = "# BEGIN podsec";
const END: &str = "# END podsec";

/// Names and the address that they all have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// See [`usable_address`].
    pub address: IpAddr,
    /// One at least, each of them a [`HostName`].
    pub names: Vec<String>,
}

/// Why something is no address for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither of IPv4 nor of IPv6.
    #[error("not an IP address: four numbers without zeros in front, or IPv6")]
    Text,
    /// 0.0.0.0/8 (RFC 1122 §3.2.1.3), `::`.
    #[error("the address is that of no host")]
    Unspecified,
    /// RFC 5771, RFC 4291 §2.7.
    #[error("the address is that of a group of hosts")]
    Multicast,
    /// 255.255.255.255
    #[error("the address is that of all hosts")]
    Broadcast,
    /// RFC 3927, RFC 4291 §2.5.6: which host that is depends on the interface.
    #[error("the address is valid on one link only")]
    LinkLocal,
    /// Every host has it, and it is another one on each.
    #[error("the address is that of every host itself")]
    Loopback,
}

/// Why a hosts file stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// It would be up to the reader which of the addresses counts.
    #[error("line {line} gives {name} the address {address}: remove it there, or choose another name")]
    Bound {
        /// From 1.
        line: usize,
        /// Of the block.
        name: String,
        /// As it is there, escaped.
        address: String,
    },
    /// A second beginning, after the end or before.
    #[error("line {0} begins a second block of podsec's: remove one")]
    TwoBlocks(usize),
    /// A beginning only.
    #[error("line {0} begins podsec's block, and nothing ends it: remove that line and what belongs to it")]
    NoEnd(usize),
    /// An end only.
    #[error("line {0} ends podsec's block, and nothing begins it: remove that line and what belongs to it")]
    NoBegin(usize),
    /// Somebody changed what is between the markers.
    #[error("line {0} in podsec's block was not written by podsec")]
    Altered(usize),
    /// Nothing to bind.
    #[error("a block has one name at least")]
    NoNames,
    /// See [`HostName`].
    #[error("{0:?} is no name of a host with a dot in it, in lower case")]
    Name(String),
    /// See [`usable_address`].
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// # Errors
/// [`AddressError::Text`]
pub fn address(text: &str) -> Result<IpAddr, AddressError> {
    text.parse().map_err(|_| AddressError::Text)
}

/// Is it an address that other programs can find a server at? `loopback`: one that only this host finds will do.
///
/// # Errors
/// [`AddressError`]
pub fn usable_address(address: IpAddr, loopback: bool) -> Result<(), AddressError> {
    match address.to_canonical() {
        ip if ip.is_unspecified() => Err(AddressError::Unspecified),
        IpAddr::V4(ip) if ip.octets().starts_with(&[0]) => Err(AddressError::Unspecified),
        ip if ip.is_multicast() => Err(AddressError::Multicast),
        IpAddr::V4(ip) if ip.is_broadcast() => Err(AddressError::Broadcast),
        IpAddr::V4(ip) if ip.is_link_local() => Err(AddressError::LinkLocal),
        IpAddr::V6(ip) if Ipv6Addr::is_unicast_link_local(&ip) => Err(AddressError::LinkLocal),
        ip if ip.is_loopback() && !loopback => Err(AddressError::Loopback),
        _ => Ok(()),
    }
}

/// The file with this block instead of the one that it has, whatever is in that; `None`: without. A new block comes first:
/// that needs no newline after what is there.
///
/// # Errors
/// [`HostsError`]
pub fn with_block(text: &[u8], block: Option<&Block>) -> Result<Vec<u8>, HostsError> {
    let old = find(text)?.map_or(0..0, |found| found.bytes);
    let before = text.get(..old.start).unwrap_or_default();
    let after = text.get(old.end..).unwrap_or_default();
    let mut new = before.to_vec();
    if let Some(block) = block {
        block.check()?;
        let gone = text.get(old).unwrap_or_default();
        let line_after = lines(before).count() + lines(gone).count();
        block.free_in(before, 0)?;
        block.free_in(after, line_after)?;
        new.extend_from_slice(block.render().as_bytes());
    }
    new.extend_from_slice(after);
    Ok(new)
}

/// The block that is there.
///
/// # Errors
/// [`HostsError`]; [`HostsError::Altered`] if podsec would write it in another way.
pub fn block_of(text: &[u8]) -> Result<Option<Block>, HostsError> {
    let Some(found) = find(text)? else { return Ok(None) };
    let there = text.get(found.bytes).unwrap_or_default();
    let mut block: Option<Block> = None;
    let count = lines(there).count();
    for (index, line) in lines(there).enumerate().take(count.saturating_sub(1)).skip(1) {
        let altered = HostsError::Altered(found.line + index);
        let line =
            std::str::from_utf8(line).ok().and_then(|line| line.trim_end_matches('\n').split_once(' '));
        let Some((Ok(ip), name)) = line.map(|(ip, name)| (address(ip), name.to_owned())) else {
            return Err(altered);
        };
        let block = block.get_or_insert_with(|| Block { address: ip, names: Vec::new() });
        if block.address != ip {
            return Err(altered);
        }
        block.names.push(name);
    }
    match block {
        Some(block) if block.check().is_ok() && block.render().as_bytes() == there => Ok(Some(block)),
        _ => Err(HostsError::Altered(found.line)),
    }
}

impl Block {
    fn check(&self) -> Result<(), HostsError> {
        usable_address(self.address, true)?;
        let wrong = self.names.iter().find(|name| HostName::new(name.as_str()).is_err());
        match (wrong, self.names.is_empty()) {
            (Some(name), _) => Err(HostsError::Name(name.clone())),
            (None, true) => Err(HostsError::NoNames),
            (None, false) => Ok(()),
        }
    }

    /// A line for each name, so that each is the official one of its own.
    fn render(&self) -> String {
        let lines: String = self.names.iter().map(|name| format!("{} {name}\n", self.address)).collect();
        format!("{BEGIN} (podsecctl trust writes this)\n{lines}{END}\n")
    }

    /// Is none of the names bound to another address? `line`: how many there are before this text.
    fn free_in(&self, text: &[u8], line: usize) -> Result<(), HostsError> {
        for (index, found) in lines(text).enumerate() {
            let mut words = words(found);
            let Some(first) = words.next() else { continue };
            let same = address(&first).is_ok_and(|address| address == self.address);
            // Names of hosts have no case, and perhaps a dot at the end.
            let ours = |word: &String| {
                let word = word.trim_end_matches('.');
                self.names.iter().find(|name| name.eq_ignore_ascii_case(word)).cloned()
            };
            if let (false, Some(name)) = (same, words.find_map(|word| ours(&word))) {
                let address = first.escape_debug().collect();
                return Err(HostsError::Bound { line: line + index + 1, name, address });
            }
        }
        Ok(())
    }
}

/// Each with its newline, if it has one.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&byte| byte == b'\n')
}

/// An address and its names. Readers differ over what a NUL ends; here it ends a word, so that no name is missed.
fn words(line: &[u8]) -> impl Iterator<Item = String> {
    let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
    let words = line.split(|byte| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b));
    words.filter(|word| !word.is_empty()).map(|word| String::from_utf8_lossy(word).into_owned())
}

struct Found {
    /// From the beginning of the first marker to the end of the line of the second.
    bytes: Range<usize>,
    /// Of the first marker, from 1.
    line: usize,
}

fn find(text: &[u8]) -> Result<Option<Found>, HostsError> {
    let (mut begin, mut found, mut at) = (None, None, 0);
    for (index, line) in lines(text).enumerate() {
        let number = index + 1;
        let next = at + line.len();
        if is_marker(line, BEGIN) {
            if begin.is_some() || found.is_some() {
                return Err(HostsError::TwoBlocks(number));
            }
            begin = Some((at, number));
        } else if is_marker(line, END) {
            let (start, line) = begin.take().ok_or(HostsError::NoBegin(number))?;
            found = Some(Found { bytes: start..next, line });
        }
        at = next;
    }
    match begin {
        Some((_, line)) => Err(HostsError::NoEnd(line)),
        None => Ok(found),
    }
}

/// Blanks before and after do not matter, nor what follows after one.
fn is_marker(line: &[u8], marker: &str) -> bool {
    line.trim_ascii()
        .strip_prefix(marker.as_bytes())
        .is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(ip: &str, names: &[&str]) -> Block {
        Block { address: address(ip).unwrap(), names: names.iter().map(|&name| name.to_owned()).collect() }
    }

    const TEXT: &str = "# BEGIN podsec (podsecctl trust writes this)\n192.168.1.1 registry.local\n\
                        192.168.1.1 sigstore.local\n# END podsec\n";

    #[test]
    fn written_and_read() {
        let two = block("192.168.1.1", &["registry.local", "sigstore.local"]);
        let text = with_block(b"127.0.0.1 localhost", Some(&two)).unwrap();
        assert_eq!(String::from_utf8(text.clone()).unwrap(), format!("{TEXT}127.0.0.1 localhost"));
        assert_eq!(block_of(&text), Ok(Some(two)));
        let other = block("fd00::1", &["registry.local"]);
        let moved = [b"# first\r\n", &text[..], b"\n\0\xff\r"].concat();
        let changed = with_block(&moved, Some(&other)).unwrap();
        assert_eq!(block_of(&changed), Ok(Some(other)));
        assert!(
            changed.starts_with(b"# first\r\n# BEGIN podsec") && changed.ends_with(b"localhost\n\0\xff\r")
        );
        assert_eq!(with_block(&changed, None).unwrap(), b"# first\r\n127.0.0.1 localhost\n\0\xff\r");
        assert_eq!((block_of(b""), block_of(b"# BEGIN podsecurity\n")), (Ok(None), Ok(None)));
    }

    #[test]
    fn a_name_has_one_address() {
        let ours = block("10.0.0.1", &["registry.local", "sigstore.local"]);
        for (text, line, name, at) in [
            ("10.0.0.2 registry.local", 1, "registry.local", "10.0.0.2"),
            ("\n# x\n::1\tlocalhost  REGISTRY.Local.\r\n", 3, "registry.local", "::1"),
            ("10.0.0.2 a\0sigstore.local", 1, "sigstore.local", "10.0.0.2"),
            ("10.0.0.2 a\u{b}sigstore.local", 1, "sigstore.local", "10.0.0.2"),
            ("10.1 x sigstore.local", 1, "sigstore.local", "10.1"),
            ("010.0.0.1 sigstore.local", 1, "sigstore.local", "010.0.0.1"),
            ("\u{1b}[2J sigstore.local#", 1, "sigstore.local", "\\u{1b}[2J"),
        ] {
            let error = HostsError::Bound { line, name: name.to_owned(), address: at.to_owned() };
            assert_eq!(with_block(text.as_bytes(), Some(&ours)), Err(error), "{text:?}");
        }
        let around = format!("\n{TEXT}10.0.0.2 registry.local\n");
        let error = with_block(around.as_bytes(), Some(&ours)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 6 gives registry.local the address 10.0.0.2: remove it there, or choose another name"
        );
        let before = format!("10.0.0.2 registry.local\n{TEXT}");
        assert!(
            with_block(before.as_bytes(), Some(&ours)).unwrap_err().to_string().starts_with("line 1 gives")
        );
        // A comment, the beginning of another name, the same address.
        let text = "10.0.0.2 x # registry.local\n10.0.0.2 registry.local.b\n10.0.0.1 registry.local\n";
        assert!(with_block(text.as_bytes(), Some(&ours)).is_ok());
        // What is removed is in nobody's way.
        assert!(with_block(around.as_bytes(), None).is_ok());
    }

    #[test]
    fn markers_are_not_repaired() {
        let (begin, end) = ("# BEGIN podsec\n", "# END podsec\n");
        for (text, error) in [
            (format!("{begin}{end}{begin}{end}"), HostsError::TwoBlocks(3)),
            (format!("{begin}x\n  {begin}{end}{end}"), HostsError::TwoBlocks(3)),
            (format!("x\n{begin}"), HostsError::NoEnd(2)),
            (format!("x\n{end}"), HostsError::NoBegin(2)),
            (format!("{end}{begin}"), HostsError::NoBegin(1)),
            (format!("{begin}{end}\t{end}"), HostsError::NoBegin(3)),
        ] {
            assert_eq!(block_of(text.as_bytes()), Err(error.clone()), "{text:?}");
            let ours = block("10.0.0.1", &["registry.local"]);
            for block in [Some(&ours), None] {
                assert_eq!(with_block(text.as_bytes(), block), Err(error.clone()), "{text:?}");
            }
        }
    }

    #[test]
    fn what_somebody_changed_is_told() {
        assert!(block_of(TEXT.as_bytes()).unwrap().is_some());
        for (from, to, line) in [
            ("# END", "10.0.0.9 x.local\n# END", 4),
            ("# END", "# note\n# END", 4),
            ("192.168.1.1 sig", "192.168.1.1  sig", 1),
            ("192.168.1.1 sig", "192.168.001.1 sig", 3),
            ("sigstore.local", "Sigstore.local", 1),
            ("sigstore.local", "sigstore.local x.local", 1),
            ("sigstore.local\n", "sigstore.local\r\n", 1),
            ("writes this", "wrote this", 1),
        ] {
            let text = TEXT.replace(from, to);
            assert_ne!(text, TEXT);
            assert_eq!(block_of(text.as_bytes()), Err(HostsError::Altered(line)), "{text}");
        }
        assert_eq!(block_of(b"# BEGIN podsec\n# END podsec\n"), Err(HostsError::Altered(1)));
        // Whoever asks for it gets it as it should be.
        let ours = block("10.0.0.1", &["registry.local"]);
        let text = with_block(b"# BEGIN podsec\nx\n# END podsec", Some(&ours)).unwrap();
        assert_eq!(block_of(&text), Ok(Some(ours)));
    }

    #[test]
    fn only_names_and_addresses_get_in() {
        let wrong = |ip, names: &[&str]| with_block(b"", Some(&block(ip, names))).unwrap_err();
        assert_eq!(wrong("10.0.0.1", &[]), HostsError::NoNames);
        for name in
            ["", "localhost", "a.b\n6.6.6.6 c.d", "a.b c.d", "a.b#", "A.b", "а.b", "a.b:1", "a.b/c", "*.b"]
        {
            assert_eq!(wrong("10.0.0.1", &["x.y", name]), HostsError::Name(name.to_owned()));
        }
        assert_eq!(wrong("224.0.0.1", &["a.b"]), HostsError::Address(AddressError::Multicast));
        assert!(with_block(b"", Some(&block("127.0.0.1", &["a.b"]))).is_ok());
    }

    #[test]
    fn addresses() {
        for bad in [
            "",
            "010.1.1.1",
            "1.2.3",
            "1.2.3.4 ",
            "1.2.3.4\n6.6.6.6",
            "1.2.3.evil",
            "0x1.2.3.4",
            "1.2.3.256",
            "16909060",
            "fe80::1%eth0",
            "[::1]",
            "1.2.3.4:80",
            "::1::",
            "１.2.3.4",
        ] {
            assert_eq!(address(bad), Err(AddressError::Text), "{bad:?}");
        }
        for (text, error) in [
            ("0.0.0.0", AddressError::Unspecified),
            ("0.1.2.3", AddressError::Unspecified),
            ("::", AddressError::Unspecified),
            ("::ffff:0.0.0.0", AddressError::Unspecified),
            ("239.1.1.1", AddressError::Multicast),
            ("ff02::1", AddressError::Multicast),
            ("255.255.255.255", AddressError::Broadcast),
            ("169.254.1.1", AddressError::LinkLocal),
            ("fe80::1", AddressError::LinkLocal),
            ("febf::1", AddressError::LinkLocal),
        ] {
            let ip = address(text).unwrap();
            assert_eq!(
                (usable_address(ip, false), usable_address(ip, true)),
                (Err(error), Err(error)),
                "{text}"
            );
        }
        for text in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            let ip = address(text).unwrap();
            assert_eq!(
                (usable_address(ip, false), usable_address(ip, true)),
                (Err(AddressError::Loopback), Ok(()))
            );
        }
        for text in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            assert_eq!(usable_address(address(text).unwrap(), false), Ok(()), "{text}");
        }
    }

    /// Files with all that may be in them, and with markers now and then.
    fn file() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            Just(b"\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"127.0.0.1 localhost\n".to_vec()),
            Just(b"10.0.0.2 registry.local".to_vec()),
            Just(b"\n# BEGIN podsec x\n".to_vec()),
            Just(b"\n# END podsec\n".to_vec()),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_byte_outside_changes(before in file(), after in file(), last in 1..250u8) {
            let ours = block("10.0.0.1", &["registry.local"]);
            let mut before = before;
            before.push(b'\n');
            let text = [&before[..], b"# BEGIN podsec\n# END podsec\n", &after].concat();
            let other = Block { address: [10, 0, 1, last].into(), ..ours.clone() };
            if let Ok(with) = with_block(&text, Some(&ours)) {
                prop_assert!(with.starts_with(&before) && with.ends_with(&after));
                prop_assert_eq!(&with_block(&with, Some(&ours)).unwrap(), &with);
                prop_assert_eq!(block_of(&with), Ok(Some(ours)));
                prop_assert_eq!(with_block(&with, None).unwrap(), [before, after].concat());
                if let Ok(changed) = with_block(&with, Some(&other)) {
                    prop_assert_eq!(with_block(&changed, None), with_block(&with, None));
                }
            }
        }

        #[test]
        fn removing_gives_back_what_was(text in file()) {
            let ours = block("10.0.0.1", &["registry.local"]);
            if let (Ok(None), Ok(with)) = (block_of(&text), with_block(&text, Some(&ours))) {
                prop_assert_eq!(with_block(&with, None).unwrap(), text);
            }
        }
    }
}
