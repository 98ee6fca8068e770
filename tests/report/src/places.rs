//! Which places of the source make errors, and which of them were reached.

use std::collections::BTreeSet;
use std::path::Path;

/// Where an error that nobody has seen could hide: recovery, flush, compaction, checkpoint.
const DIRS: [&str; 5] = ["log", "version", "compaction", "checkpoint", "db"];

/// What makes an error: the constructors, and functions that stand for them, which are
/// `#[track_caller]`: the place is where they are called.
const CALLS: [&str; 16] = [
    "Error::new(",
    "Error::corruption(",
    "Error::invalid(",
    "Error::unsupported(",
    "Error::incompatible(",
    "Error::busy(",
    "Error::not_found(",
    "Error::io(",
    "Error::because(",
    ".corruption(",
    ".error(",
    "changed_table(",
    "missing_segment(",
    "no_family(",
    "commit_unknown(",
    "unknown_family(",
];

/// Guards: places that no test is to reach, by file and what stands there, and why. A place that is
/// neither reached nor named here fails the report.
const GUARDS: [(&str, &str, &str); 1] = [(
    "db/import.rs",
    "the directory holds a database\").in_file(dir));",
    "checked a moment before, under the lock: somebody has made it who does not care about locks",
)];

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
        if path.ends_with("tests") || path.ends_with("tests.rs") {
            continue;
        }
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Lines that make an error, above the tests and outside of functions that do it for others.
fn places(text: &str) -> Vec<(usize, &str)> {
    let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let (mut places, mut end) = (Vec::new(), None);
    for (line, code) in (1..).zip(product.lines()) {
        if end.is_none() && code.trim() == "#[track_caller]" {
            end = Some(code.replace("#[track_caller]", "}"));
        }
        let makes = |call: &&str| code.contains(*call);
        if end.is_none() && !code.trim().starts_with("//") && CALLS.iter().any(makes) {
            places.push((line, code.trim()));
        }
        end = end.filter(|end| end != code);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_calls_outside_of_tests_and_comments() {
        let text = "/// Error::new(x)\nlet e = Error::because(\nErrorKind::Io);\n    Err(Error::io(a))\n\
                    e.kind() == ErrorKind::new()\n    #[track_caller]\n    fn changed_table(x) {\n\
                    if y {\n}\nError::new(x)\n    }\nErr(changed_table(x))\nok_or_else(|| changed_table(x))\n\
                    #[cfg(test)]\nmod tests {\nError::busy(x)\n}";
        let found: Vec<_> = places(text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(found, [2, 4, 12, 13]);
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
        let guards = all.iter().filter(|place| guard(place).is_some()).count();
        assert!(guards <= 2 * GUARDS.len(), "{guards}");
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
