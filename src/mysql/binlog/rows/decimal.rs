//! DECIMAL as it is stored (`bin2decimal`, `strings/decimal.cc`): groups of nine digits in four
//! bytes, what is left in fewer, high byte first, the first bit inverted, negative ones all inverted.

use std::fmt::Write as _;

/// The bytes for so many digits beside whole groups.
const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
/// The most digits that a DECIMAL has.
const DIGITS_MAX: usize = 65;

/// Whole digits and digits behind the point.
fn digits(meta: u16) -> Option<(usize, usize)> {
    let (precision, scale) = (usize::from(meta >> 8), usize::from(meta & 0xff));
    let whole = precision.checked_sub(scale)?;
    (precision <= DIGITS_MAX).then_some((whole, scale))
}

/// The bytes of a value; `None` for digits that no column has.
pub(super) fn length(meta: u16) -> Option<usize> {
    let (whole, scale) = digits(meta)?;
    let bytes = |digits: usize| digits / 9 * 4 + BYTES[digits % 9];
    Some(bytes(whole) + bytes(scale))
}

/// The value as text, of so many digits (the high byte) with so many behind the point (the low
/// one); `None` if the bytes are none.
#[must_use]
pub fn text(meta: u16, bytes: &[u8]) -> Option<String> {
    let (whole, scale) = digits(meta)?;
    if bytes.len() != length(meta)? || bytes.is_empty() {
        return None;
    }
    let negative = bytes[0] & 0x80 == 0;
    let mut plain: Vec<u8> = bytes.to_vec();
    plain[0] ^= 0x80;
    if negative {
        plain.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut rest = &plain[..];
    let mut take = |digits: usize, out: &mut String| -> Option<()> {
        let (group, tail) = rest.split_at_checked(BYTES[digits])?;
        rest = tail;
        let number = group
            .iter()
            .fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        let before = out.len();
        write!(out, "{number:0digits$}").ok()?;
        (out.len() - before == digits).then_some(())
    };
    let mut digits = String::new();
    if whole % 9 > 0 {
        take(whole % 9, &mut digits)?;
    }
    for _ in 0..whole / 9 {
        take(9, &mut digits)?;
    }
    let trimmed = digits.trim_start_matches('0');
    let mut text = String::with_capacity(bytes.len() * 3);
    if negative {
        text.push('-');
    }
    text.push_str(if trimmed.is_empty() { "0" } else { trimmed });
    if scale > 0 {
        text.push('.');
        for _ in 0..scale / 9 {
            take(9, &mut text)?;
        }
        if scale % 9 > 0 {
            take(scale % 9, &mut text)?;
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_as_they_are_stored() {
        // The example of `decimal2bin`: 1234567890.1234 as DECIMAL(14,4).
        let bytes = [0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2];
        let meta = 14 << 8 | 4;
        assert_eq!(text(meta, &bytes).as_deref(), Some("1234567890.1234"));
        let negative: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        assert_eq!(text(meta, &negative).as_deref(), Some("-1234567890.1234"));
        assert_eq!(text(5 << 8 | 5, &[0x80, 0, 7]).as_deref(), Some("0.00007"));
        assert_eq!(text(1 << 8, &[0x80]).as_deref(), Some("0"));
        assert_eq!(length(65 << 8 | 30), Some(30));
    }

    #[test]
    fn what_is_no_decimal_is_refused() {
        assert_eq!(length(4 << 8 | 5), None);
        assert_eq!(length(66 << 8), None);
        assert_eq!(text(1 << 8, &[0xff]), None);
        assert_eq!(text(9 << 8, &[0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(text(9 << 8, &[]), None);
    }
}
