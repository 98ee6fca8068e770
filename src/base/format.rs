//! F0: the preamble that every file carries, and how formats are described.
//!
//! ```text
//! offset size
//! 0      8    magic: 89 41 4C 56 kk 0D 0A 1A   ("ALV"; kk = kind of file)
//! 8      2    version     who wrote it
//! 10     2    min_reader  who may read it
//! 12     4    zero
//! ```
//! The magic is PNG's trick: its high bit, line ending and end-of-file byte catch transfers that
//! mangle binary files. Tables carry the preamble at their end, all others at their beginning.

use crate::base::coding::{Decoder, put_u16, put_u32};
use crate::base::error::{Error, Result};

/// Bytes of a preamble.
pub const PREAMBLE_BYTES: usize = 16;

/// The version this build writes. 0 until the first release: formats may still change. A release
/// writes 1 or greater, and every version that a release has written stays as it is: the golden
/// databases of `tests/golden` are of these versions, and only those of version 0 are ever made anew.
pub const VERSION: u16 = 0;

/// The oldest version this build reads.
pub const VERSION_OLDEST: u16 = 0;

/// What this build writes and reads.
const THIS_BUILD: Build = Build { writes: VERSION, reads_from: VERSION_OLDEST };

const _: () = assert!(THIS_BUILD.is_permitted(), "a release reads nothing that is unreleased");

/// The versions that a build of the engine writes and reads; another than this one only in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Build {
    writes: u16,
    reads_from: u16,
}

impl Build {
    /// Files of version 0 may be anything: no release reads them.
    const fn is_permitted(self) -> bool {
        self.reads_from <= self.writes && (self.writes == 0 || self.reads_from >= 1)
    }

    fn put_preamble(self, out: &mut Vec<u8>, kind: FileKind) {
        out.extend_from_slice(&[0x89, b'A', b'L', b'V', kind as u8, 0x0d, 0x0a, 0x1a]);
        put_u16(out, self.writes);
        put_u16(out, self.writes);
        put_u32(out, 0);
    }

    /// Does it read what a writer of `version` says that a reader of `min_reader` can read?
    fn check(self, version: u16, min_reader: u16) -> Result<()> {
        if min_reader > self.writes || version < self.reads_from {
            let Build { writes, reads_from } = self;
            return Err(Error::unsupported(format!(
                "format {version} needs a reader of {min_reader} or newer; this build reads \
                 {reads_from} to {writes}"
            )));
        }
        Ok(())
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FileKind {
    /// A segment of the write-ahead log.
    Log = b'L',
    /// A manifest: the log of version edits.
    Manifest = b'M',
    /// The pointer to the current manifest.
    Current = b'C',
    /// A sorted table.
    Table = b'T',
    /// A checkpoint's envelope.
    Envelope = b'E',
}

impl FileKind {
    /// All kinds.
    pub const ALL: [FileKind; 5] =
        [FileKind::Log, FileKind::Manifest, FileKind::Current, FileKind::Table, FileKind::Envelope];
}

/// Appends the preamble of a file of this kind.
pub fn put_preamble(out: &mut Vec<u8>, kind: FileKind) {
    THIS_BUILD.put_preamble(out, kind);
}

/// Reads a preamble and checks that this build can read a file of this kind and version.
///
/// # Errors
/// `Corruption` if it is no preamble or another kind of file; `Unsupported` if a newer or a retired
/// version is needed to read it.
pub fn read_preamble(d: &mut Decoder<'_>, kind: FileKind) -> Result<()> {
    read_preamble_by(THIS_BUILD, d, kind)
}

fn read_preamble_by(build: Build, d: &mut Decoder<'_>, kind: FileKind) -> Result<()> {
    let start = d.clone();
    let magic = d.fixed::<8>()?;
    if magic[..4] != [0x89, b'A', b'L', b'V'] || magic[5..] != [0x0d, 0x0a, 0x1a] {
        return Err(start.error("not a file of this engine"));
    }
    if magic[4] != kind as u8 {
        return Err(start.error(&format!("not a {kind:?} file (kind {:#04x})", magic[4])));
    }
    let (version, min_reader) = (d.u16()?, d.u16()?);
    build.check(version, min_reader).map_err(|e| e.at(start.offset()))?;
    if d.u32()? != 0 {
        return Err(start.error("reserved bytes are not zero"));
    }
    Ok(())
}

/// What `bytes` are a whole file of, as their preamble at either end says. Only the magic is looked at.
pub fn kind_of_file(bytes: &[u8]) -> Option<FileKind> {
    let kind_at = |offset: usize| {
        let magic = bytes.get(offset..)?.first_chunk::<8>()?;
        let of =
            |kind: &FileKind| *magic == [0x89, b'A', b'L', b'V', *kind as u8, 0x0d, 0x0a, 0x1a];
        FileKind::ALL.into_iter().find(of)
    };
    let front = kind_at(0).filter(|&kind| kind != FileKind::Table);
    let end = || kind_at(bytes.len().checked_sub(PREAMBLE_BYTES)?);
    front.or_else(|| end().filter(|&kind| kind == FileKind::Table))
}

/// One field of an on-disk structure, for the tables of DESIGN.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Offset from the start of the structure; `""` where it follows the field above.
    pub offset: &'static str,
    /// Size in bytes; `v` = varint, `n` = as many as a length says.
    pub size: &'static str,
    /// Name of the field.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// One on-disk structure. Its owner's file is the only one that knows an offset; DESIGN.md repeats
/// the table, and a test compares the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Section, such as `F2.1`.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Its fields in order.
    pub fields: &'static [Field],
}

/// Shorthand for a [`Field`].
pub const fn field(
    offset: &'static str,
    size: &'static str,
    name: &'static str,
    meaning: &'static str,
) -> Field {
    Field { offset, size, name, meaning }
}

/// F0.
pub const LAYOUTS: &[Layout] = &[Layout {
    id: "F0",
    title: "Preamble",
    fields: &[
        field(
            "0",
            "8",
            "magic",
            "89 41 4C 56 kk 0D 0A 1A; kk: L log, M manifest, C current, T table, E envelope",
        ),
        field("8", "2", "version", "format version of the writer; 0 = unreleased"),
        field("10", "2", "min_reader", "oldest version that may read the file"),
        field("12", "4", "reserved", "zero"),
    ],
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;

    #[test]
    fn pinned() {
        let mut out = Vec::new();
        put_preamble(&mut out, FileKind::Table);
        assert_eq!(out, b"\x89ALVT\r\n\x1a\0\0\0\0\0\0\0\0");
        assert_eq!(out.len(), PREAMBLE_BYTES);
        read_preamble(&mut Decoder::new(&out), FileKind::Table).unwrap();
    }

    /// What becomes of a file that one build wrote and another one reads.
    fn handed_over(writer: Build, reader: Build) -> Result<()> {
        let mut out = Vec::new();
        writer.put_preamble(&mut out, FileKind::Table);
        read_preamble_by(reader, &mut Decoder::new(&out), FileKind::Table)
    }

    #[test]
    fn releases_read_what_releases_before_them_wrote() {
        let build = |reads_from, writes| Build { writes, reads_from };
        let unreleased = build(0, 0);
        let (first, second, third) = (build(1, 1), build(1, 2), build(2, 3));
        for build in [unreleased, first, second, third] {
            assert!(build.is_permitted());
            handed_over(build, build).unwrap();
        }
        handed_over(first, second).unwrap();
        handed_over(second, third).unwrap();
        for (writer, reader) in [
            (unreleased, first), // version 0 may have been anything
            (unreleased, second),
            (first, unreleased),
            (second, first),
            (first, third), // retired
        ] {
            let e = handed_over(writer, reader).unwrap_err();
            assert_eq!((e.kind(), e.offset()), (ErrorKind::Unsupported, Some(0)), "{e}");
        }
        assert!(!build(0, 1).is_permitted(), "a release that reads what is unreleased");
        assert!(!build(2, 1).is_permitted(), "a build that cannot read what it writes");
    }

    #[test]
    fn files_are_told_apart_by_either_end() {
        for kind in FileKind::ALL {
            let mut front = Vec::new();
            put_preamble(&mut front, kind);
            front.push(7);
            let mut end = vec![7; 3];
            put_preamble(&mut end, kind);
            let is_table = kind == FileKind::Table;
            assert_eq!(kind_of_file(&front), (!is_table).then_some(kind));
            assert_eq!(kind_of_file(&end), is_table.then_some(kind));
            assert_eq!(kind_of_file(&front[..7]), None);
        }
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        let mut good = Vec::new();
        put_preamble(&mut good, FileKind::Log);
        let kind = |bytes: &[u8]| {
            read_preamble(&mut Decoder::new(bytes), FileKind::Log).map_err(|e| e.kind())
        };
        assert_eq!(kind(&good), Ok(()));
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x40;
            let want = match i {
                8 | 9 => Ok(()), // a newer writer that says we may read it
                10 | 11 => Err(ErrorKind::Unsupported),
                _ => Err(ErrorKind::Corruption),
            };
            assert_eq!(kind(&bad), want, "byte {i}");
        }
        assert_eq!(kind(&good[..15]), Err(ErrorKind::Corruption));
    }
}
