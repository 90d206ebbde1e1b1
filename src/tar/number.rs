//! Numbers as tar headers and pax records write them, read as Go's archive/tar does.

/// Reads a numeric header field: base-256 if its first bit is set, octal otherwise.
/// `None` if it is no number or does not fit.
///
/// Spec: GNU tar manual, "Extensions to the ustar format" (base-256).
pub(super) fn numeric(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

/// A two's complement number, most significant byte first, whose own first bit is lost
/// to the mark of the format: the second bit is the sign.
fn base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let mask = if negative { 0xff } else { 0 };
    let mut value: i64 = 0;
    for (at, byte) in field.iter().enumerate() {
        let mut byte = byte ^ mask;
        if at == 0 {
            byte &= 0x7f;
        }
        // Of a negative number this is the complement, which is never negative.
        value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
    }
    Some(if negative { !value } else { value })
}

/// An octal number between any spaces and NULs, none meaning 0; what follows a NUL
/// within it is ignored.
pub(super) fn octal(field: &[u8]) -> Option<i64> {
    let padding = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !padding(byte)) else {
        return Some(0);
    };
    let end = field
        .iter()
        .rposition(|byte| !padding(byte))
        .map_or(start, |last| last + 1);
    let mut value: i64 = 0;
    for byte in &field[start..end] {
        match byte {
            b'0'..=b'7' => {
                value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?;
            }
            0 => break,
            _ => return None,
        }
    }
    Some(value)
}

/// A decimal number, with a sign or without.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        value = value.checked_mul(10)?;
        value = if negative {
            value.checked_sub(digit)?
        } else {
            value.checked_add(digit)?
        };
    }
    Some(value)
}

/// A point in time, as seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
    /// Whether it was moved to where it can be represented.
    pub(super) clamped: bool,
}

/// The time of a pax record, such as `-1.5`; digits after the ninth are cut off.
///
/// Spec: POSIX pax, "pax Extended Header File Times".
pub(super) fn pax_time(text: &[u8]) -> Option<Time> {
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &[][..]),
    };
    let seconds = decimal(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().map(|digit| u32::from(digit - b'0'));
    let nanoseconds = digits
        .chain(std::iter::repeat(0))
        .take(9)
        .fold(0, |sum, digit| sum * 10 + digit);
    // "-1.5" is half a second before -1, and "-0.5" before 0.
    if nanoseconds == 0 || !whole.starts_with(b"-") {
        return Some(Time {
            seconds,
            nanoseconds,
            clamped: false,
        });
    }
    Some(match seconds.checked_sub(1) {
        Some(seconds) => Time {
            seconds,
            nanoseconds: 1_000_000_000 - nanoseconds,
            clamped: false,
        },
        None => Time {
            seconds,
            nanoseconds: 0,
            clamped: true,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_are_read_as_go_reads_them() {
        let rows: &[(&str, &[u8], Option<i64>)] = &[
            ("plain", b"0000644\0", Some(0o644)),
            ("T13' spaces around", b"  644 \0", Some(0o644)),
            ("T13' leading NULs", b"\0\x00644\0 ", Some(0o644)),
            ("T13' all NUL", b"\0\0\0\0\0\0\0\0", Some(0)),
            ("T13' all spaces", b"        ", Some(0)),
            ("T13' empty", b"", Some(0)),
            ("T13' full field", b"77777777", Some(0o7777_7777)),
            ("T13' text after a NUL", b"644\0abc\0", Some(0o644)),
            ("T13' trailing garbage", b"644abc\0\0", None),
            ("T13' space inside", b"6 44\0\0\0\0", None),
            ("T13' space before a NUL inside", b"644 \x001\0\0", None),
            ("T13' not octal", b"0000689\0", None),
            ("T13' minus", b"-0000644", None),
            ("T13' plus", b"+0000644", None),
            ("T12' small", b"\x80\0\0\0\0\0\x01\x02", Some(258)),
            ("T12' minus one", &[0xff; 12], Some(-1)),
            (
                "T12' minus 256",
                b"\xff\xff\xff\xff\xff\xff\xff\x00",
                Some(-256),
            ),
            (
                "T12' greatest",
                b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                Some(i64::MAX),
            ),
            ("T12' one more", b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (
                "T12' least",
                b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0",
                Some(i64::MIN),
            ),
            (
                "T12' one less",
                b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
                None,
            ),
            ("T12' far too great", b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
        ];
        for (name, field, expected) in rows {
            assert_eq!(numeric(field), *expected, "{name}");
        }
    }

    #[test]
    fn decimals_are_read_as_go_reads_them() {
        let rows: &[(&str, &[u8], Option<i64>)] = &[
            ("zero", b"0", Some(0)),
            ("plus", b"+12", Some(12)),
            ("minus", b"-12", Some(-12)),
            ("leading zeros", b"000000000000000000000000012", Some(12)),
            ("greatest", b"9223372036854775807", Some(i64::MAX)),
            ("one more", b"9223372036854775808", None),
            ("least", b"-9223372036854775808", Some(i64::MIN)),
            ("one less", b"-9223372036854775809", None),
            ("empty", b"", None),
            ("sign only", b"-", None),
            ("two signs", b"--1", None),
            ("space", b" 1", None),
            ("underscore", b"1_0", None),
            ("point", b"1.0", None),
            ("hexadecimal", b"0x1", None),
        ];
        for (name, text, expected) in rows {
            assert_eq!(decimal(text), *expected, "{name}");
        }
    }

    #[test]
    fn times_are_read_as_go_reads_them() {
        type Row = (&'static str, &'static [u8], Option<(i64, u32)>);
        let rows: &[Row] = &[
            ("whole", b"1350244992", Some((1_350_244_992, 0))),
            ("point at the end", b"12.", Some((12, 0))),
            ("nanoseconds", b"12.023960108", Some((12, 23_960_108))),
            (
                "T30' twelve digits",
                b"12.123456789999",
                Some((12, 123_456_789)),
            ),
            ("one digit", b"12.5", Some((12, 500_000_000))),
            ("before 1970", b"-1.5", Some((-2, 500_000_000))),
            ("just before 1970", b"-0.5", Some((-1, 500_000_000))),
            ("before 1970, whole", b"-1.0", Some((-1, 0))),
            ("least", b"-9223372036854775808.1", Some((i64::MIN, 0))),
            (
                "T30' greatest",
                b"9223372036854775807.9",
                Some((i64::MAX, 900_000_000)),
            ),
            ("T30' 2^63", b"9223372036854775808", None),
            ("T30' text", b"NaN", None),
            ("no whole part", b".5", None),
            ("sign in the fraction", b"1.-5", None),
            ("exponent", b"1e9", None),
            ("empty", b"", None),
        ];
        for (name, text, expected) in rows {
            let time = pax_time(text).map(|time| (time.seconds, time.nanoseconds));
            assert_eq!(time, *expected, "{name}");
        }
    }
}
