//! Time stamps, read from RFC 3339.

use std::str::FromStr;

use super::Error;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// A point in time, counted from 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds, rounded down; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds behind them, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// 0001-01-01T00:00:00Z, which Go writes for a time that was never set.
    pub const GO_ZERO: Self = Self {
        seconds: -62_135_596_800,
        nanoseconds: 0,
    };
}

/// Reads a time stamp of RFC 3339 section 5.6. Digits behind the nanoseconds are cut; a
/// leap second counts as the first second of the next minute, as POSIX has no name for it.
impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text.as_bytes()).ok_or_else(|| Error::Timestamp {
            text: text.chars().take(40).collect(),
        })
    }
}

fn parse(text: &[u8]) -> Option<Timestamp> {
    let mut rest = text;
    let year = number(&mut rest, 4, 0..=9999)?;
    separator(&mut rest, b"-")?;
    let month = number(&mut rest, 2, 1..=12)?;
    separator(&mut rest, b"-")?;
    let day = number(&mut rest, 2, 1..=days_of(year, month))?;
    separator(&mut rest, b"Tt ")?;
    let hour = number(&mut rest, 2, 0..=23)?;
    separator(&mut rest, b":")?;
    let minute = number(&mut rest, 2, 0..=59)?;
    separator(&mut rest, b":")?;
    let second = number(&mut rest, 2, 0..=60)?;
    let nanoseconds = fraction(&mut rest)?;
    let offset = offset(&mut rest)?;
    rest.is_empty().then(|| Timestamp {
        seconds: days_since_epoch(year, month, day) * DAY + hour * 3_600 + minute * 60 + second
            - offset,
        nanoseconds,
    })
}

/// Takes exactly `len` digits whose value lies in `range`.
fn number(rest: &mut &[u8], len: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let (digits, behind) = rest.split_at_checked(len)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    *rest = behind;
    let value = digits
        .iter()
        .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    range.contains(&value).then_some(value)
}

/// Takes one of `allowed`.
fn separator(rest: &mut &[u8], allowed: &[u8]) -> Option<u8> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    allowed.contains(first).then_some(*first)
}

/// Takes the fraction of a second, if there is one, in nanoseconds.
fn fraction(rest: &mut &[u8]) -> Option<u32> {
    let Some(behind) = rest.strip_prefix(b".") else {
        return Some(0);
    };
    let len = behind.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, behind) = behind.split_at(len);
    *rest = behind;
    let digit = |place| digits.get(place).map_or(0, |digit| u32::from(digit - b'0'));
    (len > 0).then(|| (0..9).fold(0, |value, place| value * 10 + digit(place)))
}

/// Takes the offset of local time from UTC, in seconds.
fn offset(rest: &mut &[u8]) -> Option<i64> {
    let sign = match separator(rest, b"Zz+-")? {
        b'+' => 1,
        b'-' => -1,
        _ => return Some(0),
    };
    let hours = number(rest, 2, 0..=23)?;
    separator(rest, b":")?;
    let minutes = number(rest, 2, 0..=59)?;
    Some(sign * (hours * 3_600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    // Leap days from the year 0 to the end of the year before, which is -1 for year 0.
    let last = year - 1;
    let leaps = last.div_euclid(4) - last.div_euclid(100) + last.div_euclid(400);
    let before: i64 = (1..month).map(|month| days_of(year, month)).sum();
    // 719,162 days lie between 0001-01-01 and 1970-01-01.
    last * 365 + leaps + before + day - 1 - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps() {
        let rows = [
            ("1970-01-01T00:00:00Z", Some((0, 0))),
            ("1969-12-31T23:59:59.5Z", Some((-1, 500_000_000))),
            ("2000-02-29T12:00:00Z", Some((951_825_600, 0))),
            ("2000-03-01T00:00:00Z", Some((951_868_800, 0))),
            (
                "2024-01-27T00:30:48.743965523Z",
                Some((1_706_315_448, 743_965_523)),
            ),
            ("2024-01-27T01:30:48+01:00", Some((1_706_315_448, 0))),
            ("2024-01-26t19:00:48-05:30", Some((1_706_315_448, 0))),
            ("2024-01-27 00:30:48z", Some((1_706_315_448, 0))),
            (
                "2024-01-27T00:30:48.1234567891Z",
                Some((1_706_315_448, 123_456_789)),
            ),
            ("2016-12-31T23:59:60Z", Some((1_483_228_800, 0))),
            ("0001-01-01T00:00:00Z", Some((-62_135_596_800, 0))),
            ("0000-01-01T00:00:00Z", Some((-62_167_219_200, 0))),
            ("9999-12-31T23:59:59Z", Some((253_402_300_799, 0))),
            ("1900-02-29T00:00:00Z", None),
            ("2023-02-29T00:00:00Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("2024-00-01T00:00:00Z", None),
            ("2024-01-00T00:00:00Z", None),
            ("2024-01-01T24:00:00Z", None),
            ("2024-01-01T00:00:00", None),
            ("2024-01-01T00:00:00.Z", None),
            ("2024-01-01T00:00:00+0100", None),
            ("2024-01-01T00:00:00Zx", None),
            ("2024-01-01", None),
            ("+024-01-01T00:00:00Z", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let expected = expected.map(|(seconds, nanoseconds)| Timestamp {
                seconds,
                nanoseconds,
            });
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
        assert_eq!(
            "0001-01-01T00:00:00Z".parse().ok(),
            Some(Timestamp::GO_ZERO)
        );
    }
}
