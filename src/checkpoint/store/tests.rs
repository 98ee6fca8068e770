use super::*;
use crate::Fault;
use crate::FaultEffect;
use crate::FaultFs;
use crate::FaultOp;
use crate::Keep;
use crate::MemFs;
use quickcheck::quickcheck;

fn store(fs: &MemFs) -> DirStore {
    DirStore::open(Arc::new(fs.clone()), "store/root").unwrap()
}

fn store_in(fs: &MemFs) -> DirStore {
    DirStore::open(Arc::new(fs.clone()), "store").unwrap()
}

fn shared(name: &str) -> ObjectName {
    ObjectName::Shared(SharedName::new(name).unwrap())
}

fn put(store: &DirStore, name: &ObjectName, pieces: &[&[u8]]) -> Result<()> {
    store.put_new(name, &mut pieces.iter().map(|&piece| Ok(Bytes::from(piece))))
}

fn get(store: &DirStore, name: &ObjectName) -> Result<Vec<u8>> {
    read_object(store, name, 1 << 20).map(|bytes| bytes.to_vec())
}

#[test]
fn what_was_put_is_there_once() {
    let fs = MemFs::new();
    let store = store(&fs);
    let (a, b, c) = (shared("a.sst"), ObjectName::Checkpoint(9), ObjectName::Checkpoint(10));
    put(&store, &a, &[b"one", b"", b"two"]).unwrap();
    put(&store, &c, &[]).unwrap();
    put(&store, &b, &[b"envelope"]).unwrap();
    assert_eq!(get(&store, &a).unwrap(), b"onetwo");
    assert_eq!(get(&store, &c).unwrap(), b"");
    let again = put(&store, &a, &[b"other"]).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InvalidArgument);
    assert_eq!(get(&store, &a).unwrap(), b"onetwo");
    let listed: Vec<_> = store.list().unwrap().into_iter().map(|s| (s.name, s.len)).collect();
    assert_eq!(listed, [(b.clone(), 8), (c, 0), (a.clone(), 6)]);
    store.delete(&b).unwrap();
    store.delete(&b).unwrap();
    assert_eq!(get(&store, &b).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(read_object(&store, &a, 5).unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn files_of_others_are_left_alone() {
    let fs = MemFs::new();
    let store = store(&fs);
    put(&store, &shared("a"), &[b"x"]).unwrap();
    for name in ["README.txt", "chk-007", "chk-1~0", "b~3"] {
        fs.write(&Path::new("store/root/checkpoints").join(name), b"foreign");
        fs.write(&Path::new("store/root/shared").join(name), b"foreign");
    }
    let names: Vec<_> = store.list().unwrap().iter().map(|s| s.name.to_string()).collect();
    assert_eq!(names, ["shared/a", "shared/chk-007"]);
    put(&store, &ObjectName::Checkpoint(1), &[b"beside what was left behind"]).unwrap();
    assert_eq!(store.remove_leftovers().unwrap(), 4);
    assert_eq!(store.remove_leftovers().unwrap(), 0);
    assert_eq!(fs.read(Path::new("store/root/checkpoints/README.txt")), b"foreign");
}

#[test]
fn a_failing_source_leaves_nothing() {
    let fs = MemFs::new();
    let store = store(&fs);
    let pieces = [Ok(Bytes::from(vec![1, 2])), Err(Error::busy("source"))];
    let error = store.put_new(&shared("a"), &mut pieces.into_iter()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(store.list().unwrap().is_empty());
    assert_eq!(store.remove_leftovers().unwrap(), 0);
    put(&store, &shared("a"), &[b"now"]).unwrap();
}

/// Wherever an operation fails: what is listed is whole, and a new attempt either succeeds or finds
/// the object there.
#[test]
fn every_failure_leaves_all_or_nothing() {
    let ops = [FaultOp::Create, FaultOp::Append, FaultOp::Sync, FaultOp::Rename, FaultOp::Open];
    for op in ops.into_iter().chain([FaultOp::SyncDir]) {
        for skip in 0..4 {
            let memory = MemFs::new();
            drop(store(&memory));
            let faults = Arc::new(FaultFs::new(Arc::new(memory.clone())));
            let store = DirStore::open(faults.clone(), "store/root").unwrap();
            faults.plan(Fault::new(op, skip));
            let result = put(&store, &shared("a"), &[b"one", b"two"]);
            faults.clear();
            let seen = get(&store, &shared("a"));
            assert!(seen.is_err() || seen.as_ref().unwrap() == b"onetwo", "{op:?} {skip}");
            assert!(result.is_err() || seen.is_ok(), "{op:?} {skip}");
            let retry = put(&store, &shared("a"), &[b"one", b"two"]);
            assert_eq!(retry.is_ok(), seen.is_err(), "{op:?} {skip}");
            assert_eq!(get(&store, &shared("a")).unwrap(), b"onetwo");
            assert_eq!(store.remove_leftovers().unwrap(), 0);
        }
    }
}

quickcheck! {
    fn after_a_crash_an_object_is_whole_or_absent(ops: u64, seed: u64) -> bool {
        let fs = MemFs::new();
        let before = store(&fs);
        put(&before, &shared("old"), &[b"safe"]).unwrap();
        fs.crash_after(Some(fs.ops() + ops % 9));
        let acknowledged = put(&before, &shared("new"), &[b"one", b"two"]).is_ok();
        [Keep::Nothing, Keep::All, Keep::Torn].into_iter().all(|keep| {
            let after = store(&fs.crash_image(keep, seed));
            let whole = match get(&after, &shared("new")) {
                Ok(bytes) => bytes == b"onetwo",
                Err(e) => e.kind() == ErrorKind::NotFound && !acknowledged,
            };
            after.remove_leftovers().unwrap();
            whole && get(&after, &shared("old")).unwrap() == b"safe"
                && (put(&after, &shared("new"), &[b"onetwo"]).is_ok()
                    || get(&after, &shared("new")).unwrap() == b"onetwo")
        })
    }

    fn only_names_are_names(name: String) -> bool {
        let good = SharedName::new(&name).is_ok();
        let plain = name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'));
        good == (plain && (1..=160).contains(&name.len()) && !name.starts_with('.'))
    }
}

#[test]
fn one_of_many_writers_wins() {
    let fs = MemFs::new();
    let store = store(&fs);
    let source = |i: u8| {
        // Another writer comes and goes between the pieces of this one.
        let mut step = 0;
        let (store, name) = (&store, shared("a"));
        std::iter::from_fn(move || {
            step += 1;
            match step {
                1 => Some(Ok(Bytes::from(vec![i]))),
                2 if i == 0 => Some(put(store, &name, &[b"rival"]).map(|()| Bytes::from(vec![i]))),
                _ => None,
            }
        })
    };
    let error = store.put_new(&shared("a"), &mut source(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(get(&store, &shared("a")).unwrap(), b"rival");
    assert_eq!(store.remove_leftovers().unwrap(), 0);
}

#[test]
fn names() {
    for bad in ["", ".", "..", ".a", "a/b", "A", "a~0", "a b", "ä", "a\0", &"x".repeat(161)] {
        let error = SharedName::new(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}");
    }
    SharedName::new(&"x".repeat(160)).unwrap();
    let table = SharedName::of_table(&[0xab; 32], FileNumber::new(3, 17));
    assert_eq!(table.as_str(), "ab".repeat(32) + "-000003-000017");
    assert_eq!(SharedName::new(table.as_str()).unwrap(), table);
    let largest = SharedName::of_table(&[0; 32], FileNumber::new(u32::MAX, u32::MAX));
    assert_eq!(SharedName::new(largest.as_str()).unwrap(), largest);
    for name in [ObjectName::Checkpoint(0), ObjectName::Checkpoint(u64::MAX), shared("a.b")] {
        assert_eq!(ObjectName::parse(&name.to_string()), Some(name));
    }
    for bad in ["chk-1", "checkpoints/chk-01", "checkpoints/chk-+1", "shared/", "shared/a/b", "x/a"]
    {
        assert_eq!(ObjectName::parse(bad), None, "{bad}");
    }
}

#[test]
fn an_envelope_that_another_process_left_is_durable_when_it_is_read() {
    let memory = MemFs::new();
    let name = ObjectName::Checkpoint(1);
    let fs = FaultFs::new(Arc::new(memory.clone()));
    let dead = DirStore::open(Arc::new(fs.clone()), "store").unwrap();
    put(&dead, &shared("table"), &[b"table"]).unwrap();
    fs.plan(Fault::new(FaultOp::SyncDir, 0)); // it dies before this
    put(&dead, &name, &[b"envelope"]).unwrap_err();
    let names = |image: MemFs| store_in(&image).list().unwrap().len();
    assert_eq!(names(memory.crash_image(Keep::Nothing, 0)), 1, "not durable yet");
    let next = store_in(&memory);
    assert_eq!(names(memory.crash_image(Keep::Nothing, 0)), 1, "opening syncs nothing");
    assert_eq!(get(&next, &name).unwrap(), b"envelope");
    assert_eq!(names(memory.crash_image(Keep::Nothing, 0)), 2);
}

#[test]
fn a_first_put_makes_the_directories_durable_or_fails() {
    for nth in 0..4 {
        let fs = FaultFs::new(Arc::new(MemFs::new()));
        fs.create_dir(Path::new("above")).unwrap();
        let store = DirStore::open(Arc::new(fs.clone()), "above/store").unwrap();
        fs.plan(Fault::new(FaultOp::SyncDir, nth));
        put(&store, &shared("a"), &[b"x"]).unwrap_err();
        assert_eq!(store.list().unwrap(), [], "nothing was put");
        put(&store, &shared("a"), &[b"x"]).unwrap();
    }
}

#[test]
fn what_is_seen_after_a_failed_put_is_durable() {
    // The name is there although the rename, or the sync of its directory, has failed.
    for op in [FaultOp::Rename, FaultOp::SyncDir] {
        let memory = MemFs::new();
        let fs = FaultFs::new(Arc::new(memory.clone()));
        let store = DirStore::open(Arc::new(fs.clone()), "store").unwrap();
        put(&store, &shared("first"), &[]).unwrap(); // the directories are synced by now
        let (name, path) = (ObjectName::Checkpoint(1), Path::new("store/checkpoints/chk-1"));
        let effect = if op == FaultOp::Rename { FaultEffect::Done } else { FaultEffect::Io };
        fs.plan(Fault::new(op, 0).effect(effect));
        put(&store, &name, &[b"envelope"]).unwrap_err();
        fs.plan(Fault::new(FaultOp::SyncDir, 0));
        get(&store, &name).expect_err("it cannot be made durable, so it is not shown");
        assert_eq!(get(&store, &name).unwrap(), b"envelope");
        assert_eq!(memory.crash_image(Keep::Nothing, 0).read(path), b"envelope", "{op:?}");
    }
}
