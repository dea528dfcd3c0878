//! Names that stand for many: patterns of administrators, in settings.

/// Is that the text? `*` stands for any text.
#[must_use]
pub fn stars(pattern: &str, text: &str) -> bool {
    fits(pattern.as_bytes(), text.as_bytes(), false)
}

/// The same, and `?` stands for any one character.
#[must_use]
pub fn stars_and_questions(pattern: &str, text: &str) -> bool {
    fits(pattern.as_bytes(), text.as_bytes(), true)
}

/// In time of at most the product of both lengths: back to the last `*` only, which is enough since what came before it fits
/// already.
fn fits(pattern: &[u8], text: &[u8], questions: bool) -> bool {
    let (mut at, mut here) = (0, 0);
    let mut last_star = None;
    while let Some(&byte) = text.get(here) {
        match pattern.get(at) {
            Some(b'*') => {
                last_star = Some((at, here));
                at += 1;
            }
            // One character, however many bytes it has.
            Some(b'?') if questions => {
                at += 1;
                here += 1;
                while text.get(here).is_some_and(|byte| byte & 0xc0 == 0x80) {
                    here += 1;
                }
            }
            Some(&wanted) if wanted == byte => {
                at += 1;
                here += 1;
            }
            _ => {
                let Some((star, from)) = last_star else { return false };
                last_star = Some((star, from + 1));
                (at, here) = (star + 1, from + 1);
            }
        }
    }
    pattern.iter().skip(at).all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("a?c", "aüc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("**", "x", true),
            ("A", "a", false),
        ] {
            assert_eq!(stars_and_questions(pattern, text), expected, "{pattern} {text}");
        }
        let start = std::time::Instant::now();
        assert!(!stars_and_questions(&"a*".repeat(200), &"a".repeat(199)));
        assert!(!stars_and_questions(&format!("{}b", "*a".repeat(100)), &"a".repeat(100_000)));
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn stars_alone() {
        for (pattern, text) in
            [("", ""), ("*", ""), ("*", "ab"), ("a*c", "abbc"), ("*b*", "abc"), ("a**", "a"), ("*ab", "aab")]
        {
            assert!(stars(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("a", "ab"),
            ("a*c", "ab"),
            ("a.c", "abc"),
            ("a*b*c", "acb"),
            ("a?c", "abc"),
        ] {
            assert!(!stars(pattern, text), "{pattern} {text}");
        }
        assert!(stars("a?c", "a?c"));
        // In less than the age of the universe.
        assert!(!stars(&format!("{}c", "a*".repeat(1000)), &"a".repeat(10_000)));
    }

    #[test]
    fn stars_do_not_overlap() {
        for (pattern, name, wanted) in [
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("*b", "ab", true),
            ("*b", "ba", false),
        ] {
            assert_eq!(stars(pattern, name), wanted, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn patterns_fit_as_by_definition(pattern in "[ab*?]{0,7}", text in "[abü]{0,7}") {
            fn by_definition(pattern: &[char], text: &[char]) -> bool {
                match (pattern, text) {
                    ([], _) => text.is_empty(),
                    (['*', rest @ ..], _) => (0..=text.len()).any(|skip| by_definition(rest, &text[skip..])),
                    (['?', rest @ ..], [_, after @ ..]) => by_definition(rest, after),
                    ([one, rest @ ..], [other, after @ ..]) => one == other && by_definition(rest, after),
                    _ => false,
                }
            }
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(stars_and_questions(&pattern, &text), by_definition(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn a_text_fits_itself_with_a_hole(text in "[ab]{0,8}", from in 0_usize..9, to in 0_usize..9) {
            let (from, to) = (from.min(text.len()), to.min(text.len()));
            let pattern = format!("{}*{}", &text[..from.min(to)], &text[to.max(from)..]);
            prop_assert!(stars(&pattern, &text));
        }

        #[test]
        fn stars_stand_for_any_text(parts in proptest::collection::vec("[a-b/:*]{0,4}", 1..5), fill in "[a-c*]{0,4}") {
            let pattern = parts.join("*");
            prop_assert!(stars(&pattern, &pattern.replace('*', &fill)), "{pattern} {fill}");
        }
    }
}
