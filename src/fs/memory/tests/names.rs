//! Names and bytes, synced or not, after a crash.

use super::*;
use crate::fs::memory::image::SECTOR_BYTES;
use crate::fs::tests::{get, put};

#[test]
fn a_synced_file_needs_a_synced_name() {
    let fs = disk();
    put(&fs, &path("a"), b"1");
    assert!(names(&fs.crash_image(Keep::Nothing, 0)).is_empty());
    assert_eq!(get(&fs.crash_image(Keep::All, 0), &path("a")), b"1");
    torn(&fs, &[&|image| names(image).is_empty(), &|image| names(image) == ["a"]]);
    fs.sync_dir(dir()).unwrap();
    assert_eq!(get(&fs.crash_image(Keep::Nothing, 0), &path("a")), b"1");
}

#[test]
fn a_synced_name_needs_synced_bytes() {
    let fs = disk();
    let mut file = fs.create(&path("a")).unwrap();
    fs.sync_dir(dir()).unwrap();
    file.append(b"12").unwrap();
    assert_eq!(fs.crash_image(Keep::Nothing, 0).read(&path("a")), b"");
    file.sync().unwrap();
    file.append(b"34").unwrap();
    assert_eq!(fs.crash_image(Keep::Nothing, 0).read(&path("a")), b"12");
    assert_eq!(fs.crash_image(Keep::All, 0).read(&path("a")), b"1234");
    torn(
        &fs,
        &[
            &|image| image.read(&path("a")) == b"12",
            &|image| image.read(&path("a")) == b"123",
            &|image| image.read(&path("a")) == b"1234",
            &|image| image.read(&path("a")) == b"12\0",
            &|image| image.read(&path("a")).starts_with(b"12"), // garbage
        ],
    );
}

#[test]
fn only_the_last_sector_is_garbage() {
    let fs = disk();
    let mut file = fs.create(&path("a")).unwrap();
    fs.sync_dir(dir()).unwrap();
    let bytes: Vec<u8> = (0..3000u32).map(|i| (i / 7) as u8).collect();
    file.append(&bytes).unwrap();
    let mut garbage = 0;
    for seed in SEEDS {
        let kept = fs.crash_image(Keep::Torn, seed).read(&path("a"));
        let whole = kept.len().saturating_sub(1) / SECTOR_BYTES * SECTOR_BYTES;
        assert_eq!(kept[..whole], bytes[..whole]);
        garbage += usize::from(kept != bytes[..kept.len()]);
    }
    assert!((10..54).contains(&garbage), "{garbage} of 64");
}

#[test]
fn a_removed_name_may_come_back() {
    let fs = disk();
    put(&fs, &path("a"), b"1");
    fs.sync_dir(dir()).unwrap();
    fs.remove(&path("a")).unwrap();
    assert_eq!(fs.crash_image(Keep::Nothing, 0).read(&path("a")), b"1");
    torn(&fs, &[&|image| names(image).is_empty(), &|image| names(image) == ["a"]]);
    fs.sync_dir(dir()).unwrap();
    assert!(names(&fs.crash_image(Keep::Nothing, 0)).is_empty());
}

#[test]
fn a_rename_happens_or_does_not() {
    let fs = disk();
    put(&fs, &path("current"), b"old");
    put(&fs, &path("new"), b"new");
    fs.sync_dir(dir()).unwrap();
    fs.rename(&path("new"), &path("current")).unwrap();
    let old = |image: &MemFs| {
        names(image) == ["current", "new"] && image.read(&path("current")) == b"old"
    };
    let new = |image: &MemFs| names(image) == ["current"] && image.read(&path("current")) == b"new";
    assert!(old(&fs.crash_image(Keep::Nothing, 0)));
    assert!(new(&fs.crash_image(Keep::All, 0)));
    torn(&fs, &[&old, &new]);
    fs.sync_dir(dir()).unwrap();
    assert!(new(&fs.crash_image(Keep::Nothing, 0)));
}

#[test]
fn a_rename_across_directories_never_loses_the_file() {
    let (a, b) = (PathBuf::from("x/a"), PathBuf::from("y/b"));
    let has = |fs: &MemFs, path: &Path| fs.open(path).is_ok();
    for synced in ["x", "y"] {
        let fs = MemFs::new();
        fs.create_dir(Path::new("x")).unwrap();
        fs.create_dir(Path::new("y")).unwrap();
        put(&fs, &a, b"1");
        fs.sync_dir(Path::new("x")).unwrap();
        put(&fs, &b, b"old");
        fs.rename(&b, &PathBuf::from("y/c")).unwrap();
        fs.rename(&a, &b).unwrap();
        fs.sync_dir(Path::new(synced)).unwrap();
        for seed in SEEDS {
            let image = fs.crash_image(Keep::Torn, seed);
            assert_eq!(image.read(&b), b"1");
            assert!(synced == "y" || !has(&image, &a));
        }
        let image = fs.crash_image(Keep::Nothing, 0);
        assert_eq!((has(&image, &a), has(&image, &b)), (synced == "y", true));
        assert_eq!(image.read(Path::new("y/c")), b"old");
    }
}

#[test]
fn links_are_one_file_after_the_crash_too() {
    let fs = disk();
    let mut file = fs.create(&path("a")).unwrap();
    file.append(&[7; 1000]).unwrap();
    fs.link(&path("a"), &path("b")).unwrap();
    fs.sync_dir(dir()).unwrap();
    assert_eq!(fs.total_bytes(), 1000);
    for seed in SEEDS {
        let image = fs.crash_image(Keep::Torn, seed);
        assert_eq!(image.read(&path("a")), image.read(&path("b")));
        assert_eq!(image.total_bytes(), image.read(&path("a")).len() as u64);
    }
}

#[test]
fn images_are_disks_of_their_own() {
    let fs = disk();
    let _lock = fs.lock(dir()).unwrap();
    let mut file = fs.create(&path("a")).unwrap();
    file.append(b"12").unwrap();
    fs.crash_after(Some(fs.ops()));
    let image = fs.crash_image(Keep::All, 0);
    assert_eq!(image.ops(), 0);
    drop(image.lock(dir()).unwrap());
    image.corrupt(&path("a"), 0, 0xff);
    put(&image, &path("b"), b"");
    assert_eq!(fs.read(&path("a")), b"12");
    assert_eq!(names(&fs), ["a"]);
    fs.crash_after(None);
    file.append(b"34").unwrap();
    assert_eq!(image.read(&path("a")), b"\xce2");
    let again = image.crash_image(Keep::Nothing, 0);
    assert_eq!(again.read(&path("a")), b"\xce2", "what outlived a crash is durable");
    assert_eq!(names(&again), ["a"]);
}

#[test]
fn a_shorter_image_can_be_written_on() {
    let fs = disk();
    put(&fs, &path("a"), b"12");
    fs.sync_dir(dir()).unwrap();
    let mut file = fs.create(&path("b")).unwrap();
    file.append(b"1").unwrap();
    file.sync().unwrap();
    fs.sync_dir(dir()).unwrap();
    file.append(b"lost").unwrap();
    let image = fs.crash_image(Keep::Nothing, 0);
    image.rename(&path("b"), &path("c")).unwrap();
    image.disk.tree.lock().now[&*path("c")].content.lock().append(0, b"2");
    assert_eq!(image.read(&path("c")), b"12");
    assert_eq!(fs.read(&path("b")), b"1lost");
}

#[test]
fn operations_after_the_crash_fail() {
    let run = |fs: &MemFs| -> Result<()> {
        let mut file = fs.create(&path("a"))?;
        file.append(b"1")?;
        file.sync()?;
        fs.sync_file(&path("a"))?;
        fs.link(&path("a"), &path("b"))?;
        fs.rename(&path("b"), &path("c"))?;
        fs.remove(&path("a"))?;
        fs.sync_dir(dir())
    };
    let fs = disk();
    let before = fs.ops();
    run(&fs).unwrap();
    let all = fs.ops();
    assert_eq!(all - before, 8);
    for n in before..all {
        let fs = disk();
        fs.crash_after(Some(n));
        let e = run(&fs).unwrap_err();
        assert_eq!((e.kind(), fs.ops()), (ErrorKind::Io, n));
        assert!(e.to_string().contains("crashed"));
        run(&fs).unwrap_err();
        assert!(fs.list(dir()).is_ok(), "reads go on");
    }
}

#[test]
fn the_helpers_write_durably() {
    let fs = MemFs::new();
    fs.write(&path("a"), b"123");
    fs.write(&path("a"), b"1234");
    put(&fs, &path("b"), b"old");
    fs.write(&path("b"), b"new");
    assert_eq!(fs.ops(), 3);
    let reader = fs.open(&path("a")).unwrap();
    fs.corrupt(&path("a"), 0, 1);
    fs.truncate(&path("a"), 2);
    assert_eq!(&*reader.read_at(0, 2).unwrap(), b"02");
    assert_eq!(reader.read_at(0, 3).unwrap_err().kind(), ErrorKind::Corruption);
    for keep in [Keep::Nothing, Keep::All, Keep::Torn] {
        let image = fs.crash_image(keep, 0);
        assert_eq!((image.read(&path("a")), image.read(&path("b"))), (b"02".into(), b"new".into()));
    }
}
