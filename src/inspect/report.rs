//! The lines that an inspection writes, and how keys, values and digests look in them.

use std::fmt;
use std::fmt::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::base::error::Error;
use crate::base::key::KeyRange;

/// The text stays below this many times the length of the file, and a constant.
const TEXT_PER_BYTE: usize = 16;
const TEXT_BYTES_MIN: usize = 64 << 10;

/// Most bytes of a key, and of a value, that are shown.
const KEY_BYTES_SHOWN: usize = 64;
const VALUE_BYTES_SHOWN: usize = 32;

/// What a file says. `Display` gives the whole text.
#[derive(Clone, Debug)]
pub struct Report {
    text: String,
    damage: Vec<Error>,
    path: Option<PathBuf>,
    text_max: usize,
    hidden: u64,
}

impl Report {
    pub(in crate::inspect) fn new(file_len: usize, path: Option<&Path>) -> Report {
        Report {
            text: String::new(),
            damage: Vec::new(),
            path: path.map(Path::to_owned),
            text_max: file_len.saturating_mul(TEXT_PER_BYTE).saturating_add(TEXT_BYTES_MIN),
            hidden: 0,
        }
    }

    /// The text, line by line.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }

    /// What is not as it was written, each with its offset. Also in the text.
    pub fn damage(&self) -> &[Error] {
        &self.damage
    }

    /// Adds a line, while there is room: a file cannot make the text grow out of proportion.
    pub(in crate::inspect) fn line(&mut self, indent: usize, line: fmt::Arguments<'_>) {
        if self.text.len() > self.text_max {
            self.hidden += 1;
            return;
        }
        let written = writeln!(self.text, "{:1$}{line}", "", 2 * indent);
        written.expect("writing to a string");
    }

    /// Adds a line about damage, always.
    pub(in crate::inspect) fn damaged(&mut self, indent: usize, error: Error) {
        let written = writeln!(self.text, "{:1$}damage: {error}", "", 2 * indent);
        written.expect("writing to a string");
        self.damage.push(match &self.path {
            Some(path) => error.in_file(path),
            None => error,
        });
    }

    pub(in crate::inspect) fn finish(mut self) -> Report {
        if self.hidden > 0 {
            let written = writeln!(self.text, "{} more lines, not shown", self.hidden);
            written.expect("writing to a string");
        }
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Bytes in quotes, those that are not printable ASCII escaped, cut at a number of bytes.
pub(in crate::inspect) struct Quoted<'a>(&'a [u8], usize);

/// A key as it is shown.
pub(in crate::inspect) fn key(bytes: &[u8]) -> Quoted<'_> {
    Quoted(bytes, KEY_BYTES_SHOWN)
}

/// A value as it is shown.
pub(in crate::inspect) fn value(bytes: &[u8]) -> Quoted<'_> {
    Quoted(bytes, VALUE_BYTES_SHOWN)
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(self.1)];
        f.write_char('"')?;
        for &byte in shown {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", byte as char)?,
                b' '..=b'~' => f.write_char(byte as char)?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        f.write_char('"')?;
        match self.0.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more bytes"),
        }
    }
}

/// Bytes as hexadecimal digits.
pub(in crate::inspect) struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A half-open range of keys as it is shown.
pub(in crate::inspect) struct Range<'a>(pub &'a KeyRange);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} ..", key(&self.0.start))?;
        match &self.0.end {
            Some(end) => write!(f, " {})", key(end)),
            None => f.write_str(")"),
        }
    }
}
