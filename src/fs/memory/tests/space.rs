//! Disks that are full, and space that is reserved.

use super::*;
use crate::fs::memory::image::SECTOR_BYTES;
use crate::fs::tests::put;

#[test]
fn a_full_disk_takes_what_fits_and_recovers() {
    let fs = disk();
    fs.set_capacity(Some(10));
    put(&fs, &path("a"), b"123456");
    assert_eq!(fs.free_space(dir()).unwrap(), 4);
    let mut file = fs.create(&path("b")).unwrap();
    assert_eq!(file.append(b"12345").unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!((fs.read(&path("b")), fs.free_space(dir()).unwrap()), (b"1234".to_vec(), 0));
    fs.remove(&path("a")).unwrap();
    file.append(b"567890").unwrap();
    assert_eq!(file.append(b"1").unwrap_err().kind(), ErrorKind::NoSpace);
    fs.set_capacity(None);
    file.append(b"1").unwrap();
}

#[test]
fn reserved_space_is_taken_from_a_full_disk_at_once() {
    let fs = disk();
    fs.set_capacity(Some(100));
    let mut file = fs.create(&path("a")).unwrap();
    file.append(b"1234").unwrap();
    assert_eq!(file.reserve(101).unwrap_err().kind(), ErrorKind::NoSpace);
    file.reserve(90).unwrap();
    assert_eq!(fs.free_space(dir()).unwrap(), 10);
    put(&fs, &path("b"), &[7; 10]);
    file.append(&[8; 86]).unwrap();
    assert_eq!(file.append(&[9]).unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(fs.read(&path("a")), [&b"1234"[..], &[8; 86]].concat());
}

#[test]
fn a_crash_leaves_zeros_or_any_sectors_of_what_was_reserved() {
    let fs = disk();
    let mut file = fs.create(&path("a")).unwrap();
    fs.sync_dir(dir()).unwrap();
    file.append(&[1; 100]).unwrap();
    file.sync().unwrap();
    file.reserve(8 * SECTOR_BYTES as u64).unwrap();
    let read = |keep, seed| fs.crash_image(keep, seed).read(&path("a"));
    let lengths = |keep| {
        let mut lengths: Vec<usize> = SEEDS.map(|seed| read(keep, seed).len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    };
    assert_eq!(read(Keep::Nothing, 0).len(), 100);
    for keep in [Keep::Torn, Keep::Bytes, Keep::Sectors, Keep::Prefix] {
        assert_eq!(lengths(keep), [100, 8 * SECTOR_BYTES], "{keep:?}");
    }
    file.sync().unwrap();
    file.append(&[2; 2 * SECTOR_BYTES]).unwrap();
    assert_eq!(lengths(Keep::Any), [8 * SECTOR_BYTES], "the length is durable");
    let tail = |bytes: &[u8]| bytes[3 * SECTOR_BYTES..].iter().all(|byte| *byte == 0);
    let images: Vec<Vec<u8>> = SEEDS.map(|seed| read(Keep::Sectors, seed)).collect();
    assert!(images.iter().all(|bytes| bytes[..100] == [1; 100] && tail(bytes)));
    let later_alone = |bytes: &Vec<u8>| bytes[100..512] == [0; 412] && bytes[512..600] == [2; 88];
    assert!(images.iter().any(later_alone), "sectors survive in any order");
    let nothing = [&[1; 100][..], &[0; 8 * SECTOR_BYTES - 100]].concat();
    assert_eq!(read(Keep::Nothing, 0), nothing);
    // Given back, but not yet for certain.
    file.reserve(0).unwrap();
    assert_eq!(fs.read(&path("a")).len(), 100 + 2 * SECTOR_BYTES);
    assert_eq!(read(Keep::Nothing, 0), nothing);
    file.sync().unwrap();
    assert_eq!(read(Keep::Nothing, 0).len(), 100 + 2 * SECTOR_BYTES);
}
