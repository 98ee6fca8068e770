//! Keys and values as text: what is printed can be given back.

use std::fmt;
use std::fmt::Write;
use std::str::FromStr;

/// A key or a value from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub Vec<u8>);

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Text, String> {
        let Some(digits) = text.strip_prefix("0x") else { return Ok(Text(text.into())) };
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        let byte = |&[a, b]: &[u8; 2]| Some((digit(a)? << 4) | digit(b)?);
        match pairs.iter().map(byte).collect::<Option<Vec<u8>>>() {
            Some(bytes) if rest.is_empty() => Ok(Text(bytes)),
            _ => Err("0x begins pairs of hexadecimal digits".to_owned()),
        }
    }
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

/// Bytes as they are printed: as text if that is printable and does not look like hex, else as `0x`
/// and digits.
pub struct Shown<'a> {
    pub bytes: &'a [u8],
    pub hex: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &&str| !text.starts_with("0x") && !text.chars().any(char::is_control);
        match std::str::from_utf8(self.bytes).ok().filter(plain) {
            Some(text) if !self.hex => f.write_str(text),
            _ => {
                f.write_str("0x")?;
                self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// Bytes for people.
pub fn bytes(count: u64) -> String {
    let mut text = String::new();
    let written = match count {
        0..1024 => write!(text, "{count} B"),
        1024..1_048_576 => write!(text, "{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => write!(text, "{:.1} MiB", count as f64 / 1_048_576.0),
        _ => write!(text, "{:.2} GiB", count as f64 / 1_073_741_824.0),
    };
    written.expect("writing to a string");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_given_back() {
        let mut samples: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
        for text in ["", "0x", "0x00", "0xzz", "a\tb", "größe", "two words", "\u{7f}"] {
            samples.push(text.into());
        }
        for bytes in samples {
            for hex in [false, true] {
                let shown = Shown { bytes: &bytes, hex }.to_string();
                assert_eq!(shown.parse(), Ok(Text(bytes.clone())), "{shown}");
                assert!(!shown.contains(['\t', '\n']));
            }
        }
        assert_eq!("0xAbcD".parse(), Ok(Text(vec![0xab, 0xcd])));
        for bad in ["0x1", "0xgg", "0x+1", "0x 1"] {
            assert!(bad.parse::<Text>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.00 GiB");
    }
}
