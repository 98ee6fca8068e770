//! The source: the rows of a file, from any position that it once gave.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use crate::Outcome;
use crate::event::HEADER;
use crate::event::ROW_BYTES_MAX;

/// How a file that zstd has compressed begins.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Where a source stands: what a checkpoint remembers of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Rows read so far, the header not among them.
    pub row: u64,
    /// Bytes behind the header read so far, after decompression.
    pub offset: u64,
}

/// A table in a file, compressed with zstd or not.
pub struct Source {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    position: Position,
    row: Vec<u8>,
}

impl Source {
    /// Opens the table and goes to a position, at the price of decompressing what lies before.
    pub fn open(path: &Path, position: Position) -> Outcome<Source> {
        let told = |e| format!("cannot read {}: {e}", path.display());
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(told)?);
        let reader: Box<dyn BufRead> = if file.fill_buf().map_err(told)?.starts_with(&ZSTD_MAGIC) {
            let decoder = zstd::Decoder::with_buffer(file).map_err(told)?;
            Box::new(BufReader::with_capacity(1 << 16, decoder))
        } else {
            Box::new(file)
        };
        let (path, row) = (path.to_owned(), Vec::new());
        let mut source = Source { path, reader, position: Position::default(), row };
        if source.next()? != Some(HEADER.as_bytes()) {
            let path = source.path.display();
            return Err(
                format!("{path} is not a table of flights: its first line is another").into()
            );
        }
        source.skip(position.offset)?;
        source.position = position;
        Ok(source)
    }

    /// Where the next row begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next row without its line end, or `None` at the end of the file. Of a row over
    /// `ROW_BYTES_MAX` it gives one byte more than that.
    pub fn next(&mut self) -> Outcome<Option<&[u8]>> {
        let failed = |e: std::io::Error, path: &Path, row: u64| {
            format!("cannot read {} behind row {row}: {e}", path.display())
        };
        self.row.clear();
        let mut any = false;
        loop {
            let bytes = self.reader.fill_buf();
            let bytes = bytes.map_err(|e| failed(e, &self.path, self.position.row))?;
            if bytes.is_empty() {
                break;
            }
            any = true;
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let line = &bytes[..end.unwrap_or(bytes.len())];
            let kept = line.len().min(ROW_BYTES_MAX + 1 - self.row.len());
            self.row.extend_from_slice(&line[..kept]);
            let used = line.len() + usize::from(end.is_some());
            self.reader.consume(used);
            self.position.offset += used as u64;
            if end.is_some() {
                break;
            }
        }
        self.position.row += u64::from(any);
        let row = self.row.strip_suffix(b"\r").unwrap_or(&self.row);
        Ok(any.then_some(row))
    }

    fn skip(&mut self, bytes: u64) -> Outcome<()> {
        let skipped = std::io::copy(&mut self.reader.by_ref().take(bytes), &mut std::io::sink());
        match skipped {
            Ok(skipped) if skipped == bytes => Ok(()),
            Ok(_) => Err(format!("{} ends before the position", self.path.display()).into()),
            Err(e) => Err(format!("cannot read {}: {e}", self.path.display()).into()),
        }
    }
}

/// Number of rows of the table. Reads all of it.
pub fn count_rows(path: &Path) -> Outcome<u64> {
    let mut source = Source::open(path, Position::default())?;
    while source.next()?.is_some() {}
    Ok(source.position().row)
}
