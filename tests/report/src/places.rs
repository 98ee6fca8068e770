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
    fn the_engine_has_places() {
        let (all, missed) = missed(&crate::root().join("src"), &BTreeSet::new());
        assert!(all > 100 && missed.len() as u64 == all, "{all}, {missed:?}");
        let first = missed[0].split(": ").next().unwrap().to_owned();
        let (_, fewer) = self::missed(&crate::root().join("src"), &BTreeSet::from([first]));
        assert_eq!(fewer.len() + 1, missed.len());
    }
}
