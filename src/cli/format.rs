//! Numbers, times and modes as people read them.

use std::time::{Duration, SystemTime};

use ocifs::vfs::{Attr, FileKind, Time};

/// A number of bytes in the largest unit of which there is at least one: `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(unit) = (bytes.checked_ilog2().unwrap_or(0) / 10).checked_sub(1) else {
        return format!("{bytes} B");
    };
    // Rounded down to tenths, so that 1023.99 KiB never becomes 1024.0 KiB.
    let shift = 10 * (unit + 1);
    let tenths = (u128::from(bytes) * 10) >> shift;
    let unit = UNITS[unit as usize];
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// How long something is ago or took, in the largest unit of which there is at least one.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.2} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The second of a point in time, counted from the epoch.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => whole(after),
        Err(before) => -whole(before.duration()),
    }
}

/// A point in time in RFC 3339, in UTC.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let (year, month, day) = date(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let second = second % 60;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A point in time in RFC 3339, in UTC, with nanoseconds where there are any.
pub(crate) fn exact(time: Time) -> String {
    let mut text = rfc3339(time.seconds);
    if time.nanoseconds > 0 {
        let nanoseconds = format!(".{:09}", time.nanoseconds);
        text.insert_str(text.len() - 1, &nanoseconds);
    }
    text
}

/// A point in time for a listing: to the minute, in UTC.
pub(crate) fn minute(seconds: i64) -> String {
    let text = rfc3339(seconds);
    let end = text.rfind(':').unwrap_or(text.len());
    text[..end].replace('T', " ")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Counted in years that begin in March, so that the leap day is the last of its year.
fn date(day: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(ERA), day.rem_euclid(ERA));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

/// Kind and permissions as `ls -l` shows them.
pub(crate) fn mode(kind: FileKind, mode: u16) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        FileKind::Directory => 'd',
        FileKind::Regular => '-',
        FileKind::Symlink => 'l',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
    });
    // For each class: its three bits, the special bit and its letters.
    for (shift, special, letters) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push_str(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => "x",
            (false, false) => "-",
            (true, true) => &letters[..1],
            (false, true) => &letters[1..],
        });
    }
    text
}

/// The size of a node as `ls -l` shows it: of devices, their numbers.
pub(crate) fn size_or_device(attr: &Attr) -> String {
    match attr.kind {
        FileKind::CharDevice | FileKind::BlockDevice => {
            format!("{}, {}", attr.device.major, attr.device.minor)
        }
        _ => attr.size.to_string(),
    }
}

/// The word for a kind of node.
pub(crate) fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Directory => "directory",
        FileKind::Regular => "file",
        FileKind::Symlink => "symlink",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

/// Rows as lines, each column as wide as its widest cell; the last is left as it is.
pub(crate) fn table<const N: usize>(rows: &[[String; N]], align: [Align; N]) -> String {
    let len = |cell: &String| cell.chars().count();
    let width = |column: usize| rows.iter().map(|row| len(&row[column])).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let room = " ".repeat(widths[column] - len(cell));
            match align[column] {
                _ if column + 1 == N => text.push_str(cell),
                Align::Left => text.extend([cell, &room, "  "]),
                Align::Right => text.extend([&room, cell, "  "]),
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// On which side a column is even.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let rows = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1535, "1.4 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, expected) in rows {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn durations() {
        let rows = [
            (0, "0.00 s"),
            (1_234, "1.23 s"),
            (9_999, "10.00 s"),
            (10_000, "10 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (3_599_999, "59 min"),
            (3_600_000, "1 h"),
            (172_800_000, "2 days"),
        ];
        for (millis, expected) in rows {
            assert_eq!(
                duration(Duration::from_millis(millis)),
                expected,
                "{millis}"
            );
        }
    }

    #[test]
    fn times() {
        let rows = [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (-62_135_596_800, "0001-01-01T00:00:00Z"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(rfc3339(seconds), expected, "{seconds}");
        }
        assert_eq!(minute(951_827_696), "2000-02-29 12:34");
        let rows = [
            (-1, 0, "1969-12-31T23:59:59Z"),
            (-1, 5_000_000, "1969-12-31T23:59:59.005000000Z"),
            (0, 999_999_999, "1970-01-01T00:00:00.999999999Z"),
        ];
        for (seconds, nanoseconds, expected) in rows {
            let time = Time {
                seconds,
                nanoseconds,
            };
            assert_eq!(exact(time), expected, "{time:?}");
        }
    }

    #[test]
    fn modes() {
        let rows = [
            (FileKind::Regular, 0o444, "-r--r--r--"),
            (FileKind::Directory, 0o755, "drwxr-xr-x"),
            (FileKind::Symlink, 0o777, "lrwxrwxrwx"),
            (FileKind::Directory, 0o1777, "drwxrwxrwt"),
            (FileKind::Regular, 0o7640, "-rwSr-S--T"),
            (FileKind::Regular, 0o6711, "-rws--s--x"),
        ];
        for (kind, bits, expected) in rows {
            assert_eq!(mode(kind, bits), expected, "{bits:o}");
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let cells = |row: [&str; 3]| row.map(str::to_owned);
        let rows = [cells(["a", "1", "x"]), cells(["\u{e9}\u{e9}b", "10", ""])];
        let text = table(&rows, [Align::Left, Align::Right, Align::Left]);
        assert_eq!(text, "a     1  x\n\u{e9}\u{e9}b  10\n");
    }
}
