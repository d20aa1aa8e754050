//! Dates and times as they are stored (`sql-common/my_time.cc`), as text.

use chrono::DateTime;

/// A number of at most eight bytes, high byte first.
fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Microseconds out of the bytes of a fraction with so many digits.
fn micros(bytes: &[u8]) -> i64 {
    let scale = match bytes.len() {
        1 => 10_000,
        2 => 100,
        _ => 1,
    };
    i64::try_from(big_endian(bytes)).unwrap_or(0) * scale
}

/// `.123` for three digits; nothing for none.
fn fraction(micros: i64, digits: u16) -> String {
    let digits = usize::from(digits.min(6));
    if digits == 0 {
        return String::new();
    }
    let all = format!("{:06}", micros.clamp(0, 999_999));
    format!(".{}", &all[..digits])
}

/// A DATE of three bytes.
pub(super) fn date(bytes: &[u8]) -> String {
    let mut wide = [0; 4];
    wide[..bytes.len().min(3)].copy_from_slice(&bytes[..bytes.len().min(3)]);
    let packed = u32::from_le_bytes(wide);
    format!(
        "{:04}-{:02}-{:02}",
        packed >> 9,
        packed >> 5 & 15,
        packed & 31
    )
}

/// A DATETIME with a fraction of `digits` digits: 5 bytes and those of the fraction.
pub(super) fn datetime2(bytes: &[u8], digits: u16) -> String {
    let (head, tail) = bytes.split_at(bytes.len().min(5));
    let packed = big_endian(head).wrapping_sub(0x80_0000_0000) & 0x7f_ffff_ffff;
    let (days, clock) = (packed >> 17, packed & 0x1_ffff);
    let months = days >> 5;
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{}",
        months / 13,
        months % 13,
        days & 31,
        clock >> 12,
        clock >> 6 & 63,
        clock & 63,
        fraction(micros(tail), digits)
    )
}

/// A TIME with a fraction of `digits` digits: 3 bytes and those of the fraction.
pub(super) fn time2(bytes: &[u8], digits: u16) -> String {
    let bits = bytes.len() as u32 * 8;
    let tail = bytes.len().saturating_sub(3) as u32 * 8;
    if bits == 0 {
        return "00:00:00".to_owned();
    }
    // One number of all bytes, so that the fraction borrows for negative times.
    let stored = i64::try_from(big_endian(bytes)).unwrap_or(0) - (1_i64 << (bits - 1));
    let sign = if stored < 0 { "-" } else { "" };
    let size = stored.unsigned_abs();
    let (clock, part) = (size >> tail, size & ((1 << tail) - 1));
    let scale = match tail {
        8 => 10_000,
        16 => 100,
        _ => 1,
    };
    let micros = i64::try_from(part * scale).unwrap_or(0);
    format!(
        "{sign}{:02}:{:02}:{:02}{}",
        clock >> 12 & 1023,
        clock >> 6 & 63,
        clock & 63,
        fraction(micros, digits)
    )
}

/// A TIMESTAMP with a fraction of `digits` digits: 4 bytes and those of the fraction. In UTC.
pub(super) fn timestamp2(bytes: &[u8], digits: u16) -> String {
    let (head, tail) = bytes.split_at(bytes.len().min(4));
    timestamp(
        i64::try_from(big_endian(head)).unwrap_or(0),
        micros(tail),
        digits,
    )
}

/// So many seconds since the epoch, in UTC.
pub(super) fn timestamp(seconds: i64, micros: i64, digits: u16) -> String {
    if seconds == 0 && micros == 0 {
        return format!("0000-00-00 00:00:00{}", fraction(0, digits));
    }
    match DateTime::from_timestamp(seconds, 0) {
        Some(moment) => format!(
            "{}{}+00:00",
            moment.format("%Y-%m-%d %H:%M:%S"),
            fraction(micros, digits)
        ),
        None => seconds.to_string(),
    }
}

/// A TIME of servers before 5.6: three bytes, decimal.
pub(super) fn old_time(bytes: &[u8]) -> String {
    let mut wide = [0; 4];
    wide[..bytes.len().min(3)].copy_from_slice(&bytes[..bytes.len().min(3)]);
    let packed = u32::from_le_bytes(wide);
    format!(
        "{:02}:{:02}:{:02}",
        packed / 10_000,
        packed / 100 % 100,
        packed % 100
    )
}

/// A DATETIME of servers before 5.6: eight bytes, decimal.
pub(super) fn old_datetime(packed: u64) -> String {
    let (date, clock) = (packed / 1_000_000, packed % 1_000_000);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        date / 10_000,
        date / 100 % 100,
        date % 100,
        clock / 10_000,
        clock / 100 % 100,
        clock % 100
    )
}

/// A date and time inside JSON: `TIME_to_longlong_packed`, eight bytes, low byte first.
pub(super) fn packed(kind: u8, number: i64) -> String {
    let (size, sign) = (number.unsigned_abs(), if number < 0 { "-" } else { "" });
    let (whole, micros) = (size >> 24, i64::try_from(size & 0xff_ffff).unwrap_or(0));
    let (days, clock) = (whole >> 17, whole & 0x1_ffff);
    if kind == super::column::kind::TIME {
        return format!(
            "{sign}{:02}:{:02}:{:02}{}",
            whole >> 12 & 1023,
            whole >> 6 & 63,
            whole & 63,
            fraction(micros, 6)
        );
    }
    let months = days >> 5;
    let date = format!("{:04}-{:02}-{:02}", months / 13, months % 13, days & 31);
    if kind == super::column::kind::DATE {
        return date;
    }
    format!(
        "{date} {:02}:{:02}:{:02}{}",
        clock >> 12,
        clock >> 6 & 63,
        clock & 63,
        fraction(micros, 6)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_stored() {
        // 2026-11-20 14:30:05, as `my_datetime_packed_to_binary` writes it.
        let months = 2026_u64 * 13 + 11;
        let whole = (months << 5 | 20) << 17 | 14 << 12 | 30 << 6 | 5;
        let mut bytes = (whole + 0x80_0000_0000).to_be_bytes()[3..].to_vec();
        assert_eq!(datetime2(&bytes, 0), "2026-11-20 14:30:05");
        bytes.extend_from_slice(&123_456_u32.to_be_bytes()[1..]);
        assert_eq!(datetime2(&bytes, 6), "2026-11-20 14:30:05.123456");
        assert_eq!(date(&[(26 << 5 | 5) as u8, 0, 0][..]).len(), 10);
        // -00:00:00.01 borrows from the seconds (the comment in `my_time_packed_to_binary`).
        assert_eq!(time2(&[0x7f, 0xff, 0xff, 0xff], 2), "-00:00:00.01");
        assert_eq!(time2(&[0x7f, 0xff, 0xff, 0x9d], 2), "-00:00:00.99");
        assert_eq!(time2(&[0x80, 0x00, 0x01], 0), "00:00:01");
        assert_eq!(time2(&[0x7f, 0xff, 0xff], 0), "-00:00:01");
        assert_eq!(
            timestamp2(&[0, 0, 0, 1, 50], 2),
            "1970-01-01 00:00:01.50+00:00"
        );
        assert_eq!(timestamp2(&[0, 0, 0, 0], 0), "0000-00-00 00:00:00");
    }
}
