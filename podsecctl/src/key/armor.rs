//! ASCII armor of OpenPGP (RFC 9580 §6.2), with the checksum that readers of before it want (§6.1.1).

/// Binary keys as text.
#[must_use]
pub fn armor(keys: &[u8]) -> String {
    let [_, checksum @ ..] = crc24(keys).to_be_bytes();
    let body: String =
        keys.chunks(LINE).map(|line| base64(line).chain(std::iter::once('\n')).collect::<String>()).collect();
    let checksum: String = base64(&checksum).collect();
    format!("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{body}={checksum}\n-----END PGP PUBLIC KEY BLOCK-----\n")
}

/// Bytes in a line of 64 characters.
const LINE: usize = 48;

/// RFC 4648 §4
fn base64(bytes: &[u8]) -> impl Iterator<Item = char> {
    bytes.chunks(3).flat_map(|chunk| {
        let bits =
            chunk.iter().zip([16, 8, 0]).fold(0, |bits, (&byte, shift)| bits | u32::from(byte) << shift);
        let digits = chunk.len() + 1;
        [18, 12, 6, 0].into_iter().enumerate().map(move |(index, shift)| {
            if index < digits { digit((bits >> shift).to_le_bytes()[0] & 63) } else { '=' }
        })
    })
}

fn digit(six_bits: u8) -> char {
    char::from(match six_bits {
        0..=25 => b'A' + six_bits,
        26..=51 => b'a' + (six_bits - 26),
        52..=61 => b'0' + (six_bits - 52),
        62 => b'+',
        _ => b'/',
    })
}

/// RFC 9580 §6.1
fn crc24(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc << 1) ^ if crc & 0x0080_0000 == 0 { 0 } else { 0x0186_4cfb };
    bytes.iter().fold(0x00b7_04ce, |crc, &byte| (0..8).fold(crc ^ u32::from(byte) << 16, bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(bytes.as_bytes()).collect::<String>(), text);
        }
        assert_eq!(base64(&[0, 0x10, 0x83, 0xfb, 0xff, 0xbf]).collect::<String>(), "ABCD+/+/");
    }

    #[test]
    fn the_checksum_is_openpgps() {
        assert_eq!(crc24(b""), 0x00b7_04ce);
        assert_eq!(crc24(b"123456789"), 0x0021_cf02);
    }

    #[test]
    fn lines_are_short() {
        let text = armor(&[0; 100]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["-----BEGIN PGP PUBLIC KEY BLOCK-----", ""]);
        assert_eq!(lines[2..5].iter().map(|line| line.len()).collect::<Vec<_>>(), [64, 64, 8]);
        assert!(lines[5].starts_with('=') && lines[5].len() == 5 && lines.len() == 7);
    }
}
