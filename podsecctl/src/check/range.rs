//! Ranges of the Monitoring Plugins Development Guidelines, "Threshold and Ranges": `[@][~|start:]end`. A value outside
//! alerts, with `@` one inside; both ends belong to the range.

/// When a value alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    text: String,
    alerts_inside: bool,
    /// Negative infinity for `~`.
    start: f64,
    /// Infinity where none is given.
    end: f64,
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not digits, with a point between them, perhaps a minus before.
    #[error("not a range: no number at position {0}; write 10, 10:, ~:10, 10:20 or @10:20")]
    Number(usize),
    /// Nothing could be in it.
    #[error("not a range: its start is greater than its end")]
    Backwards,
}

impl Range {
    /// # Errors
    /// [`RangeError`]
    pub fn new(text: &str) -> Result<Self, RangeError> {
        let (alerts_inside, rest) = match text.strip_prefix('@') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // `part` is always a slice of `text`, so its start is where it stands.
        let number = |part: &str| {
            let at = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
            number(part).ok_or(RangeError::Number(at + 1))
        };
        let (start, end) = match rest.split_once(':') {
            None => (0.0, number(rest)?),
            Some(("~", "")) => (f64::NEG_INFINITY, f64::INFINITY),
            Some(("~", end)) => (f64::NEG_INFINITY, number(end)?),
            Some((start, "")) => (number(start)?, f64::INFINITY),
            // "start and : is not required if start=0"
            Some(("", end)) => (0.0, number(end)?),
            Some((start, end)) => (number(start)?, number(end)?),
        };
        if start > end {
            return Err(RangeError::Backwards);
        }
        Ok(Self { text: text.to_owned(), alerts_inside, start, end })
    }

    /// Does this value alert?
    #[must_use]
    pub fn alerts(&self, value: f64) -> bool {
        let is_inside = self.start <= value && value <= self.end;
        is_inside == self.alerts_inside
    }

    /// As it was written, for performance data.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// `str::parse` would take `inf`, `NaN`, a '+' and an exponent.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = match digits.split_once('.') {
        Some((whole, fraction)) => is_digits(whole) && is_digits(fraction),
        None => is_digits(digits),
    };
    text.parse().ok().filter(|number: &f64| is_number && number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alerts(range: &str, value: f64) -> bool {
        Range::new(range).unwrap().alerts(value)
    }

    #[test]
    fn the_guidelines_table() {
        // "10: < 0 or > 10"
        let ten = [(-0.1, true), (0.0, false), (10.0, false), (10.1, true)];
        // "10:: < 10"
        let from_ten = [(9.9, true), (10.0, false), (1e300, false), (-11.0, true)];
        // "~:10: > 10"
        let to_ten = [(-1e300, false), (10.0, false), (10.1, true)];
        // "10:20: < 10 or > 20"
        let between = [(9.9, true), (10.0, false), (20.0, false), (20.1, true)];
        // "@10:20: ≥ 10 and ≤ 20"
        let inside = [(9.9, false), (10.0, true), (15.0, true), (20.0, true), (20.1, false)];
        for (range, rows) in [
            ("10", &ten[..]),
            ("10:", &from_ten),
            ("~:10", &to_ten),
            ("10:20", &between),
            ("@10:20", &inside),
        ] {
            for &(value, expected) in rows {
                assert_eq!(alerts(range, value), expected, "{range} with {value}");
            }
        }
    }

    #[test]
    fn what_the_table_does_not_show() {
        for (range, value, expected) in [
            ("0", 0.0, false),
            ("0", 0.1, true),
            ("@0", 0.0, true),
            ("@0", 1.0, false),
            (":10", -1.0, true),
            (":10", 10.0, false),
            ("-10:10", -10.0, false),
            ("-10:-5", 0.0, true),
            ("1.5:2.25", 2.25, false),
            ("1.5:2.25", 1.49, true),
            ("~:", 1e300, false),
            ("@~:", -1e300, true),
            ("@10:", 10.0, true),
            ("@~:10", 10.1, false),
            ("10:10", 10.0, false),
        ] {
            assert_eq!(alerts(range, value), expected, "{range} with {value}");
        }
        assert_eq!(Range::new("@0:1.50").unwrap().as_str(), "@0:1.50");
    }

    #[test]
    fn the_rest_is_refused() {
        use RangeError::{Backwards, Number};
        let long = "9".repeat(400);
        for (text, error) in [
            ("", Number(1)),
            ("@", Number(2)),
            (":", Number(1)),
            ("@:", Number(2)),
            ("~", Number(1)),
            ("10:~", Number(4)),
            ("~~:10", Number(1)),
            ("@@10", Number(2)),
            ("10:@20", Number(4)),
            ("1:2:3", Number(3)),
            ("20-100", Number(1)),
            ("10%", Number(1)),
            ("inf", Number(1)),
            ("0:infinity", Number(3)),
            ("NaN", Number(1)),
            ("1e3", Number(1)),
            ("+1", Number(1)),
            ("0x10", Number(1)),
            (".5", Number(1)),
            ("5.", Number(1)),
            ("1.5.2", Number(1)),
            ("--1", Number(1)),
            (" 1", Number(1)),
            ("1;2", Number(1)),
            ("1 'x'=2", Number(1)),
            ("1|2", Number(1)),
            ("1\n2", Number(1)),
            ("٣", Number(1)),
            (&long, Number(1)),
            ("20:10", Backwards),
            ("@20:10", Backwards),
            ("0:-1", Backwards),
            ("-1", Backwards),
            (":-1", Backwards),
        ] {
            assert_eq!(Range::new(text), Err(error), "{text:?}");
        }
    }

    /// The guidelines' words over whole numbers; `None` is infinite.
    fn model(inside: bool, start: Option<i32>, end: Option<i32>, value: i32) -> bool {
        let below = matches!(start, Some(start) if value < start);
        let above = matches!(end, Some(end) if value > end);
        if inside { !below && !above } else { below || above }
    }

    proptest! {
        #[test]
        fn agrees_with_a_model_of_whole_tenths(
            inside: bool,
            start in proptest::option::of(-50..50_i32),
            end in proptest::option::of(-50..50_i32),
            value in -60..60_i32,
        ) {
            let tenths = |number: i32| {
                format!("{}{}.{}", if number < 0 { "-" } else { "" }, number.abs() / 10, number.abs() % 10)
            };
            let at = if inside { "@" } else { "" };
            let from = start.map_or("~".to_owned(), tenths);
            let to = end.map(tenths).unwrap_or_default();
            let range = Range::new(&format!("{at}{from}:{to}"));
            if start.zip(end).is_some_and(|(start, end)| start > end) {
                prop_assert_eq!(range, Err(RangeError::Backwards));
            } else {
                // the same decimal digits, so the same number
                let shown: f64 = tenths(value).parse().unwrap();
                prop_assert_eq!(range.unwrap().alerts(shown), model(inside, start, end, value));
            }
        }

        #[test]
        fn what_is_taken_can_stand_in_performance_data(text in "[-@~:.0-9e; '|=]{0,8}") {
            if let Ok(range) = Range::new(&text) {
                prop_assert!(range.as_str().chars().all(|c| c.is_ascii_digit() || "@~:.-".contains(c)));
            }
        }
    }
}
