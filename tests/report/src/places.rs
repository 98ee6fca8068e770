//! Which places of the source make errors, and which of them were reached.

use std::collections::BTreeSet;
use std::path::Path;

/// Where an error that nobody has seen could hide: recovery, flush, compaction, checkpoint.
const DIRS: [&str; 5] = ["log", "version", "compaction", "checkpoint", "db"];

/// What makes an error.
const CONSTRUCTORS: [&str; 9] = [
    "new",
    "corruption",
    "invalid",
    "unsupported",
    "incompatible",
    "busy",
    "not_found",
    "io",
    "because",
];

/// Guards: places that no test is to reach, by file and what stands there, and why. The report names them
/// apart from those that tests have missed.
const GUARDS: [(&str, &str, &str); 16] = [
    (
        "log/reader.rs",
        "log record has changed since",
        "the bytes were checked when the log was opened",
    ),
    ("log/recovery.rs", "SEGMENT_BYTES_MAX).in_file", "takes a file of more than 4 GiB"),
    ("log/writer.rs", "append to the log failed", "a file system answers Io or NoSpace"),
    ("version/manifest.rs", "a change cannot go on", "the state refuses it before"),
    ("version/manifest.rs", "an edit has {} bytes", "takes an edit of more than 128 MiB"),
    ("compaction/iter.rs", "return Err(Error::corruption(", "takes forged tables"),
    ("checkpoint/format.rs", "an envelope of {} bytes", "takes an envelope of more than 256 MiB"),
    ("checkpoint/save.rs", "too many tables", "takes 2^32 tables"),
    ("checkpoint/save.rs", "objects are named", "takes a store with all names of one table"),
    (
        "db/import.rs",
        "the directory holds a database\").in_file(dir));",
        "checked before, under the lock",
    ),
    ("db/maintain.rs", "more than {FAMILIES_MAX}", "takes 4096 families; the edit checks it, too"),
    (
        "db/maintain.rs",
        "column family {:?}\", family.name",
        "the family is dropped by another thread",
    ),
    ("db/open.rs", "the sequence numbers are used up", "takes 2^55 writes"),
    ("db/stall.rs", "background work cannot go on", "who waits is halted, or there is work"),
    ("db/wal.rs", "ErrorKind::NoSpace, text, cause", "a planted bug"),
    ("db/salvage/evidence.rs", "an edit: {e}", "takes a forged edit"),
];

/// Why a place is not to be reached, if it is a guard.
pub fn guard(missed: &str) -> Option<&'static str> {
    let is = |(file, text, _): &&(&str, &str, &str)| {
        missed.starts_with(&format!("src/{file}:")) && missed.contains(text)
    };
    GUARDS.iter().find(is).map(|(_, _, why)| *why)
}

/// How many places make errors, and those that are not among `reached`: as `src/file:line: code`.
pub fn missed(src: &Path, reached: &BTreeSet<String>) -> (u64, Vec<String>) {
    let mut files = Vec::new();
    DIRS.iter().for_each(|dir| walk(&src.join(dir), &mut files));
    files.sort();
    let (mut all, mut missed) = (0, Vec::new());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let below = path.strip_prefix(src).expect("below it").display();
        for (line, code) in places(&text) {
            all += 1;
            let place = format!("src/{below}:{line}");
            if !reached.contains(&place) {
                missed.push(format!("{place}: {code}"));
            }
        }
    }
    (all, missed)
}

fn walk(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    let Ok(listing) = std::fs::read_dir(dir) else { return };
    for path in listing.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

/// Lines that call a constructor, above the tests.
fn places(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    product.lines().zip(1..).filter_map(|(code, line)| {
        let code = code.trim();
        let makes = |name: &&str| code.contains(&format!("Error::{name}("));
        let found = !code.starts_with("//") && CONSTRUCTORS.iter().any(makes);
        found.then_some((line, code))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_calls_outside_of_tests_and_comments() {
        let text = "/// Error::new(x)\nlet e = Error::because(\nErrorKind::Io);\n    Err(Error::io(a))\n\
                    e.kind() == ErrorKind::new()\n#[cfg(test)]\nmod tests {\nError::busy(x)\n}";
        let found: Vec<_> = places(text).map(|(line, _)| line).collect();
        assert_eq!(found, [2, 4]);
    }

    #[test]
    fn every_guard_is_a_place() {
        let (_, all) = missed(&crate::root().join("src"), &BTreeSet::new());
        for (file, text, _) in GUARDS {
            let is = |place: &&String| {
                place.starts_with(&format!("src/{file}:")) && place.contains(text)
            };
            assert!(all.iter().find(is).is_some_and(|place| guard(place).is_some()), "{text}");
        }
        assert!(all.iter().filter(|place| guard(place).is_some()).count() < 25);
    }

    #[test]
    fn the_engine_has_places() {
        let (all, missed) = missed(&crate::root().join("src"), &BTreeSet::new());
        assert!(all > 100 && missed.len() as u64 == all, "{all}, {missed:?}");
        let first = missed[0].split(": ").next().unwrap().to_owned();
        let (_, fewer) = self::missed(&crate::root().join("src"), &BTreeSet::from([first]));
        assert_eq!(fewer.len() + 1, missed.len());
    }
}
