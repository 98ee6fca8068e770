//! F4.3: `CURRENT`, which names the valid manifest, and the one way to change it.

use std::path::Path;

use crate::base::canary::Canary;
use crate::base::checksum::checksum;
use crate::base::coding::{Decoder, put_u32, put_u64};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::format::{FileKind, Layout, field, put_preamble, read_preamble};
use crate::base::id::FileNumber;
use crate::fs::Fs;
use crate::log::LogWriter;
use crate::version::file::path_of;
use crate::version::names::FileName;

/// Bytes of `CURRENT`.
const CURRENT_BYTES: usize = 28;

/// F4.3 as a table.
pub const LAYOUTS: &[Layout] = &[Layout {
    id: "F4.3",
    title: "CURRENT",
    fields: &[
        field("0", "16", "preamble", "kind C (F0)"),
        field("16", "8", "manifest", "file number of the valid manifest"),
        field("24", "4", "crc", "masked CRC-32 of bytes 0 to 24"),
    ],
}];

/// The bytes of `CURRENT`.
pub fn encode(manifest: FileNumber) -> Vec<u8> {
    let mut out = Vec::with_capacity(CURRENT_BYTES);
    put_preamble(&mut out, FileKind::Current);
    put_u64(&mut out, manifest.0);
    let crc = checksum(&[&out]);
    put_u32(&mut out, crc);
    out
}

/// The manifest that `CURRENT` names.
///
/// # Errors
/// `Corruption` if these are not its bytes; `Unsupported` if a newer build wrote them.
pub fn decode(bytes: &[u8]) -> Result<FileNumber> {
    let mut d = Decoder::new(bytes);
    read_preamble(&mut d, FileKind::Current)?;
    let at_number = d.clone();
    let number = FileNumber(d.u64()?);
    let before = d.clone();
    // The fields before have been read, so the bytes are there.
    if d.u32()? != checksum(&[&bytes[..CURRENT_BYTES - 4]]) {
        return Err(before.error("checksum mismatch"));
    }
    d.finish()?;
    if number.epoch() == 0 || number.counter() == 0 {
        return Err(at_number.error("bad file number"));
    }
    Ok(number)
}

/// Which manifest is valid; `None` if there is no `CURRENT`.
///
/// # Errors
/// `Corruption`, `Unsupported` or `Io`, naming the file.
pub fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<FileNumber>> {
    let path = path_of(dir, FileName::Current);
    let file = match fs.open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if file.len() != CURRENT_BYTES as u64 {
        let text = format!("CURRENT has {} bytes, not {CURRENT_BYTES}", file.len());
        return Err(Error::corruption(text).at(0).in_file(&path));
    }
    let bytes = file.read_at(0, CURRENT_BYTES)?;
    decode(&bytes).map(Some).map_err(|e| e.in_file(&path))
}

/// Why `CURRENT` was not changed.
pub struct NotSwitched {
    /// The failure.
    pub error: Error,
    /// It may have been changed all the same.
    pub perhaps: bool,
}

/// A sync, to be done together with others.
pub type SyncCall<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// Does all of these, in any order or at the same time. If one fails the others need not be done. It may
/// fail for a reason of its own: whatever `CURRENT` has to wait for.
pub type SyncAll<'a> = &'a mut dyn FnMut(Vec<SyncCall<'_>>) -> Result<()>;

/// One after the other.
pub fn in_turn(syncs: Vec<SyncCall<'_>>) -> Result<()> {
    syncs.into_iter().try_for_each(|sync| sync())
}

/// Makes `CURRENT` name this manifest, whose content is `log`. What it holds, its own name and all
/// other names in the directory become durable before `CURRENT` can name it, and in no order among
/// each other; the change is durable on return.
pub fn switch(
    fs: &dyn Fs,
    dir: &Path,
    manifest: FileNumber,
    log: &mut LogWriter,
    sync_all: SyncAll<'_>,
) -> std::result::Result<(), NotSwitched> {
    let temporary = path_of(dir, FileName::CurrentTemporary(manifest));
    let prepared = (|| {
        let mut file = fs.create(&temporary)?;
        file.append(&encode(manifest))?;
        sync_all(vec![
            Box::new(|| log.sync()),
            Box::new(|| file.sync()),
            Box::new(|| fs.sync_dir(dir)),
        ])
    })();
    if let Err(error) = prepared {
        let _ = fs.remove(&temporary); // only tidiness: its name is never used again
        return Err(NotSwitched { error, perhaps: false });
    }
    let switched = fs.rename(&temporary, &path_of(dir, FileName::Current));
    if Canary::CurrentIsNotDurable.is_planted() {
        return switched.map_err(|error| NotSwitched { error, perhaps: true });
    }
    switched.and_then(|()| fs.sync_dir(dir)).map_err(|error| NotSwitched { error, perhaps: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned() {
        let bytes = encode(FileNumber::new(3, 1));
        assert_eq!(bytes[..24], *b"\x89ALVC\r\n\x1a\0\0\0\0\0\0\0\0\x01\0\0\0\x03\0\0\0");
        assert_eq!(bytes[24..], checksum(&[&bytes[..24]]).to_le_bytes());
        assert_eq!(bytes.len(), CURRENT_BYTES);
        assert_eq!(decode(&bytes).unwrap(), FileNumber::new(3, 1));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let good = encode(FileNumber::new(3, 1));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "length {len}");
        }
        assert!(decode(&[good.as_slice(), &[0]].concat()).is_err());
        assert!(decode(&encode(FileNumber::new(0, 1))).is_err());
    }
}
