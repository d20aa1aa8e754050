//! Sizes as the command line takes them.

/// Reads `0`, `512KiB`, `64MiB`, `4GiB` or a number of bytes.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no size; write 512MiB or 4GiB"))?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(format!("unknown unit {unit:?}; write 512MiB or 4GiB")),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_in_powers_of_two() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("64MiB", 64 << 20),
            ("4GiB", 4 << 30),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for wrong in ["", "GiB", "4GB", "-1", "1.5GiB", "99999999999TiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
