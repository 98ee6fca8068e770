//! Targets that are pieces of files: each a decoder, asked for what it cannot vouch for.

use crate::base::bytes::Bytes;
use crate::base::error::{Error, ErrorKind};
use crate::base::id::FileId;
use crate::checkpoint::store::{ObjectName, SharedName};
use crate::db::options::ColumnFamilyOptions;
use crate::fuzz::repair;
use crate::table::Properties;
use crate::table::filter::{Filter, FilterBuilder, key_hash};
use crate::table::format::open_block;
use crate::version::names::FileName;

/// Most that a block may unpack to here.
const UNPACKED_MAX: usize = 1 << 16;

/// A refusal: of pieces, whoever asked knows the place.
fn expected(e: &Error) {
    assert!(matches!(e.kind(), ErrorKind::Corruption | ErrorKind::Unsupported), "{e}");
}

/// F3.5. A filter of any bytes answers; one that was made of these bytes as keys never denies them.
pub(super) fn filter(bytes: &[u8]) {
    match Filter::parse(bytes) {
        Ok(Some(filter)) => {
            assert!(filter.bytes() <= bytes.len() + 64);
            for hash in [0, 1, u64::MAX, key_hash(bytes)] {
                filter.may_contain(hash);
            }
        }
        Ok(None) => {}
        Err(e) => expected(&e),
    }
    let Some((&bits, keys)) = bytes.split_first() else { return };
    let mut builder = FilterBuilder::new(u32::from(bits % 32));
    let keys: Vec<&[u8]> = keys.chunks(usize::from(bits) % 7 + 1).take(1000).collect();
    keys.iter().for_each(|key| builder.add(key_hash(key)));
    if let Some(block) = builder.finish() {
        let filter = Filter::parse(&block).expect("our own").expect("our own form");
        assert!(keys.iter().all(|key| filter.may_contain(key_hash(key))), "a key is denied");
    }
}

/// F3.6.
pub(super) fn properties(bytes: &[u8]) {
    match Properties::decode(bytes, 0) {
        Ok(found) => {
            let again = found.encode();
            let again = Properties::decode(&again, 0).expect("our own encoding");
            assert_eq!(again.encode(), found.encode(), "what was read is what is written");
        }
        Err(e) => expected(&e),
    }
}

/// F3.1: unpacked to the length that it says, or refused; never more than was allowed.
pub(super) fn packed(bytes: &[u8]) {
    let (id, offset) = (FileId::from_bytes([7; 16]), 64);
    for bytes in [bytes.to_vec(), repair::stored_block(bytes, &id, offset)] {
        match open_block(Bytes::from(&*bytes), &id, offset, UNPACKED_MAX) {
            Ok(raw) => assert!(raw.len() <= UNPACKED_MAX.max(bytes.len())),
            Err(e) => expected(&e),
        }
    }
}

/// Names of files and of objects: what is accepted is what would be written, and no path.
pub(super) fn name(bytes: &[u8]) {
    let name = String::from_utf8_lossy(bytes);
    if let Some(file) = FileName::parse(&name) {
        assert_eq!(file.to_string(), name);
        assert!(file.number().is_none_or(|number| number.epoch() > 0 && number.counter() > 0));
    }
    if let Some(object) = ObjectName::parse(&name) {
        assert_eq!(object.to_string(), name);
    }
    if let Ok(shared) = SharedName::new(&name) {
        assert_eq!(shared.as_str(), name);
        let path = std::path::Path::new(shared.as_str());
        assert_eq!(path.file_name(), Some(path.as_os_str()), "a name, and no path");
    }
}

/// Options of a family, as the manifest keeps them.
pub(super) fn options(bytes: &[u8]) {
    match ColumnFamilyOptions::decode(bytes) {
        Ok(options) => {
            let again = ColumnFamilyOptions::decode(&options.encode()).expect("our own encoding");
            assert_eq!(again.encode(), options.encode(), "what was read is what is written");
        }
        Err(e) => expected(&e),
    }
}
