//! A log as whole lines, however it comes in, and which of them can matter.
//!
//! Of a hundred events two are worth a look, and most of the work is to find that out. What [`suspects`] leaves out is
//! proven to have no code of 400 and above, whatever strings of others are in it; all else is parsed.

use memchr::memmem;

/// Bytes of a line: an event of level RequestResponse has two objects of at most 1.5 MiB each (etcd's limit), and every byte
/// may be escaped. A longer one is counted, and not kept in memory.
pub const LONGEST: usize = 8 << 20;
/// Bytes that are read at once: they stay in the processor's cache.
const CHUNK: usize = 256 * 1024;

/// What comes out of a log.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Whole lines, each with its newline.
    Lines(&'a [u8]),
    /// A line of more than [`LONGEST`] bytes.
    TooLong,
}

/// Cuts bytes into lines.
#[derive(Debug)]
pub struct Splitter {
    buffer: Vec<u8>,
    /// Bytes of a line that is not complete yet, at the beginning of the buffer.
    held: usize,
    /// In the middle of a line that is too long.
    skipping: bool,
    /// Where in the log the next byte is read.
    read: u64,
    /// Where the first line begins that has not come out.
    done: u64,
}

impl Splitter {
    /// From there on, where a line begins.
    pub fn at(offset: u64) -> Self {
        Self { buffer: vec![0; CHUNK], held: 0, skipping: false, read: offset, done: offset }
    }

    /// Where to read next.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Everything before this came out.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Where to put it.
    pub fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.held..).unwrap_or_default()
    }

    /// So many bytes were put there.
    pub fn took(&mut self, count: usize, give: &mut impl FnMut(Piece<'_>)) {
        self.read += count as u64;
        let end = (self.held + count).min(self.buffer.len());
        let mut start = 0;
        if self.skipping {
            let new = self.buffer.get(..end).unwrap_or_default();
            let Some(newline) = memchr::memchr(b'\n', new) else { return };
            start = newline + 1;
            (self.skipping, self.held) = (false, 0);
            give(Piece::TooLong);
        }
        let new = self.buffer.get(start.max(self.held)..end).unwrap_or_default();
        if let Some(newline) = memchr::memrchr(b'\n', new) {
            let after = start.max(self.held) + newline + 1;
            give(Piece::Lines(self.buffer.get(start..after).unwrap_or_default()));
            start = after;
        }
        // Where a log was emptied under its writer, the kernel fills up with zeros what is before the next line.
        let rest = self.buffer.get(start..end).unwrap_or_default();
        start += rest.iter().position(|&byte| byte != 0).unwrap_or(rest.len());
        self.buffer.copy_within(start..end, 0);
        self.held = end - start;
        self.done = self.read - self.held as u64;
        if self.held < self.buffer.len() {
            return;
        }
        if self.held < LONGEST {
            self.buffer.resize((2 * self.held).min(LONGEST), 0);
        } else {
            (self.skipping, self.held) = (true, 0);
            self.buffer = vec![0; CHUNK];
        }
    }

    /// There will be no more: gives what is left as a line without newline.
    pub fn finish(&mut self, give: &mut impl FnMut(Piece<'_>)) {
        if self.skipping {
            give(Piece::TooLong);
        } else if self.held > 0 {
            give(Piece::Lines(self.buffer.get(..self.held).unwrap_or_default()));
        }
        *self = Self::at(self.read);
    }
}

/// How every event begins that kube-apiserver writes.
const BEGIN: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;

/// Gives each line, without its newline, that may be an event with a code of `lowest` and above, or no event at all; and
/// counts all lines that are not empty.
///
/// Left out is a line of which all this is true. It begins and ends like an event, and no other begins in it: it is not two
/// torn ones. Wherever it has the bytes `"code"`, a number of three digits that is too low follows, and its end. It has no
/// `\u006`. A member whose name is `code` either has these bytes as its name, and then a number that is too low; or its name
/// is escaped, and JSON (RFC 8259, section 7) has only one way to escape one of these four letters: `\u0063`, `\u006f`,
/// `\u0064`, `\u0065`. Bytes of the same look within a string of a client's can only bring a line in, not out.
pub fn suspects(block: &[u8], lowest: i32, mut give: impl FnMut(&[u8])) -> u64 {
    let all = |needle: &'static [u8]| memmem::find_iter(block, needle).chain([usize::MAX]).peekable();
    let (mut begins, mut codes, mut escapes) = (all(BEGIN), all(br#""code""#), all(br"\u006"));
    let mut lines = 0;
    let mut start = 0;
    for newline in memchr::memchr_iter(b'\n', block).chain([block.len()]) {
        let line = block.get(start..newline).unwrap_or_default();
        let (first, after) = (start, newline);
        start = newline + 1;
        let begin = begins.next_if(|&at| at < after);
        let mut clean = begin == Some(first) && line.ends_with(b"}");
        while begins.next_if(|&at| at < after).is_some() || escapes.next_if(|&at| at < after).is_some() {
            clean = false;
        }
        while let Some(at) = codes.next_if(|&at| at < after) {
            clean &= block.get(at..after).is_some_and(|member| is_below(member, lowest));
        }
        if clean || !line.is_empty() {
            lines += 1;
        }
        // Zeros: see `Splitter::took`; what is nothing but these is no line.
        if !clean && let Some(at) = line.iter().position(|&byte| byte != 0) {
            give(line.get(at..).unwrap_or_default());
        }
    }
    lines
}

/// `"code":200,`: is it so, and below?
fn is_below(member: &[u8], lowest: i32) -> bool {
    let Some(&[b':', a, b, c, b',' | b'}']) = member.get(6..11) else { return false };
    let digits = [a, b, c];
    digits.iter().all(u8::is_ascii_digit)
        && digits.iter().fold(0, |number, digit| 10 * number + i32::from(digit - b'0')) < lowest
}

#[cfg(test)]
mod tests {
    use super::super::event::{Event, tests::event};
    use super::*;
    use proptest::prelude::*;

    /// All that comes out of a log that comes in these portions.
    fn split(log: &[u8], portions: &[usize]) -> (Vec<Vec<u8>>, usize, u64) {
        let mut splitter = Splitter::at(0);
        let (mut lines, mut too_long) = (Vec::new(), 0);
        let mut give = |piece: Piece<'_>| match piece {
            Piece::Lines(block) => _ = suspects(block, 0, |line| lines.push(line.to_vec())),
            Piece::TooLong => too_long += 1,
        };
        let mut rest = log;
        let mut portions = portions.iter().copied().filter(|&size| size > 0).cycle();
        while !rest.is_empty() {
            let room = splitter.room();
            let count = portions.next().unwrap_or(usize::MAX).min(room.len()).min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            splitter.took(count, &mut give);
            assert!(splitter.done() <= splitter.read());
            assert_eq!(splitter.read(), (log.len() - rest.len()) as u64);
        }
        let done = splitter.done();
        splitter.finish(&mut give);
        assert_eq!(splitter.done(), log.len() as u64);
        (lines, too_long, done)
    }

    fn texts(log: &[u8]) -> Vec<String> {
        split(log, &[]).0.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn lines_come_out_whole() {
        assert_eq!(texts(b"a\n\nbc\n"), ["a", "bc"]);
        assert_eq!(texts(b"a\ntorn"), ["a", "torn"]);
        assert_eq!(split(b"a\ntorn", &[]).2, 2);
        assert_eq!(texts(b"\0\0\0a\n\0\0b\0\n\0\0"), ["a", "b\0"]);
    }

    #[test]
    fn a_long_line_is_passed_over_and_the_next_is_not() {
        for length in [CHUNK - 1, CHUNK, CHUNK + 1, LONGEST - 1] {
            let mut log = vec![b'x'; length];
            log.extend(b"\nnext\n");
            let (lines, too_long, done) = split(&log, &[]);
            assert_eq!((lines.len(), too_long, done), (2, 0, log.len() as u64), "{length}");
            assert_eq!(lines[0].len(), length);
        }
        for length in [LONGEST, LONGEST + 1, 3 * LONGEST] {
            let mut log = b"before\n".to_vec();
            log.extend(vec![b'x'; length]);
            let start = log.len();
            log.extend(b"\nnext\n");
            let (lines, too_long, _) = split(&log, &[]);
            assert_eq!((lines, too_long), (vec![b"before".to_vec(), b"next".to_vec()], 1), "{length}");
            // Until its end it has not come out.
            assert_eq!(split(&log[..start], &[]).2, 7);
        }
    }

    #[test]
    fn a_hole_is_no_long_line() {
        let mut log = vec![0; 3 * LONGEST];
        log.extend(b"{}\n");
        assert_eq!(split(&log, &[]), (vec![b"{}".to_vec()], 0, log.len() as u64));
    }

    fn left_out(line: &str) -> bool {
        let mut given = 0;
        let block = format!("{line}\n");
        suspects(block.as_bytes(), 400, |_| given += 1);
        given == 0
    }

    #[test]
    fn what_went_well_is_left_out() {
        let good = event("bob", "get", "secrets", 200).to_string();
        // serde_json sorts; the API server does not.
        let good = format!(r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1",{}"#, &good[1..]);
        let good =
            good.replacen(r#","kind":"Event""#, "", 1).replacen(r#""apiVersion":"audit.k8s.io/v1","#, "", 2);
        let good = format!(r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1",{}"#, &good[1..]);
        assert!(left_out(&good), "{good}");
        assert!(left_out(&good.replace("bob", "\\u0026code\\n")));
        for bad in [
            good.replace("200", "403"),
            good.replace("200", "4030"),
            good.replace("200", "20"),
            good.replace("200", "2e9"),
            good.replace("200", "200.5"),
            good.replace("200", "+20"),
            good.replace(":200", ": 200"),
            good.replace(r#""code":"#, r#""code" :"#),
            good.replace(r#""code""#, r#""c\u006fde""#),
            good.replace(r#""code""#, r#""\u0063ode""#),
            good.replace(r#""code":200"#, r#""code":200,"code":403"#),
            good.replace(r#""code":200"#, r#""code":200,"c\u006Fde":403"#),
            good.replace("bob", r#"bo\"code"#),
            good.replace(r#""code":200"#, r#""code""#),
            good[..good.len() - 1].to_owned(),
            good[1..].to_owned(),
            format!("{}{good}", &good[..100]),
            format!(" {good}"),
            String::from("x"),
        ] {
            assert!(!left_out(&bad), "{bad}");
        }
        assert_eq!(suspects(format!("{good}\n\n{good}\n").as_bytes(), 400, |line| panic!("{line:?}")), 2);
        let mut count = 0;
        suspects(format!("{good}\n").as_bytes(), 200, |_| count += 1);
        assert_eq!(count, 1);
    }

    /// Lines of what could lead the filter astray.
    fn hostile() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            r#""code":200"#,
            r#""code":403"#,
            r#""code":404,"#,
            r#""code" : 403"#,
            r#""c\u006fde":403"#,
            r#""\u0063\u006F\u0064\u0065":500"#,
            r#"\"code\":403"#,
            r#""userAgent":"x\"code""#,
            r#""userAgent":"\"code\":200,""#,
            r#""verb":"\\","#,
            r#""responseStatus":{"#,
            r#""responseStatus":{"code":200}"#,
            r#""responseStatus":{"code":403}"#,
            r#""response\u0053tatus":{"code":403}"#,
            r#""responseStatus":{"c\u006fde":403}"#,
            r#""requestObject":{"kind":"Event","apiVersion":"audit.k8s.io/v1","code":200}"#,
            r#""stage":"ResponseComplete""#,
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#,
            "{",
            "}",
            ",",
            "\"",
            "\\",
            "\n",
            " ",
        ]);
        (any::<bool>(), prop::collection::vec(part, 0..12), any::<bool>()).prop_map(|(begin, parts, end)| {
            let begin = if begin { String::from_utf8_lossy(BEGIN).into_owned() } else { String::new() };
            begin + &parts.join(if end { "," } else { "" }) + if end { "}" } else { "" }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn nothing_bad_is_left_out(text in hostile()) {
            let mut given = Vec::new();
            suspects(text.as_bytes(), 400, |line| given.push(line.to_vec()));
            for line in text.split('\n') {
                if let Ok(event) = Event::parse(line.as_bytes()) && event.code() >= 400 {
                    prop_assert!(given.iter().any(|given| given == line.as_bytes()), "{}", line);
                }
            }
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            suspects(&bytes, 400, |line| _ = Event::parse(line));
            split(&bytes, &[1, 7]);
        }
    }

    proptest! {
        #[test]
        fn the_portions_do_not_matter(
            text in hostile(),
            bytes in prop::collection::vec(prop::sample::select(b"\0\n\nab\xff".to_vec()), 0..100),
            portions in prop::collection::vec(1..40_usize, 1..20),
        ) {
            let log = [text.as_bytes(), b"\n", &bytes].concat();
            prop_assert_eq!(split(&log, &portions), split(&log, &[]));
        }
    }
}
