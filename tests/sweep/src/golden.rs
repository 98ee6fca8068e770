//! The golden files: small databases and a checkpoint store, written from a fixed seed, kept under
//! `tests/golden/v<version>`, and read by every build.
//!
//! `files.txt` lists all files with their BLAKE3 digests; the digest of that list stands in
//! CHANGELOG.md. `expected/` holds what is in the databases, in plain text.
//!
//! What the current version's encoders write must be those files, byte for byte, except for what zstd
//! has packed. As long as that version is 0, the files may be made anew, on purpose:
//! `ALLUVIUM_BLESS=1 cargo test -p alluvium-sweep golden`. From version 1 on they are never written
//! again once they are there.
#![allow(clippy::disallowed_methods, reason = "reads and writes the golden files")]

mod content;
mod make;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub use content::{
    Counts, History, State, disk, env, is_refusal, read_anything, read_database, read_store,
};
pub use make::make;

/// Files by their paths below the directory of the golden files, with `/`.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A database that was stopped with its log on, the last part of which was never synced.
pub const UNCLEAN: &str = "unclean";
/// A database that was closed in order, with tables in several levels.
pub const CLEAN: &str = "clean";
/// One that was closed in order, packed by zstd. Not pinned: another zstd may pack better.
pub const PACKED: &str = "packed";
/// A store with two checkpoints of keyed state that share tables.
pub const STORE: &str = "store";

/// Golden files of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Golden {
    /// The files themselves.
    pub files: Files,
    /// What is in them, as text, by name.
    pub expected: BTreeMap<String, String>,
}

impl Golden {
    /// The files of one of the databases, or of the store, by path below it.
    pub fn part(&self, name: &str) -> Files {
        let prefix = format!("{name}/");
        let files = self.files.iter().filter_map(|(path, bytes)| {
            Some((path.strip_prefix(&prefix)?.to_owned(), bytes.clone()))
        });
        files.collect()
    }

    /// The list of all files with lengths and digests.
    pub fn list(&self) -> String {
        let mut list = String::new();
        for (path, bytes) in &self.files {
            writeln!(list, "{} {:>6} {path}", blake3::hash(bytes).to_hex(), bytes.len())
                .expect("a string");
        }
        for (name, text) in &self.expected {
            let digest = blake3::hash(text.as_bytes()).to_hex();
            writeln!(list, "{digest} {:>6} expected/{name}.txt", text.len()).expect("a string");
        }
        list
    }

    /// Stands for all of them: the beginning of the digest of the list.
    pub fn digest(&self) -> String {
        blake3::hash(self.list().as_bytes()).to_hex()[..16].to_owned()
    }

    /// Reads the files below a directory.
    pub fn load(dir: &Path) -> std::io::Result<Golden> {
        let mut golden = Golden { files: Files::new(), expected: BTreeMap::new() };
        for (path, bytes) in walk(dir, "")? {
            if path == "files.txt" {
                continue;
            }
            match path.strip_prefix("expected/").and_then(|name| name.strip_suffix(".txt")) {
                Some(name) => {
                    let text = String::from_utf8(bytes).map_err(std::io::Error::other)?;
                    golden.expected.insert(name.to_owned(), text);
                }
                None => drop(golden.files.insert(path, bytes)),
            }
        }
        Ok(golden)
    }
}

fn walk(dir: &Path, prefix: &str) -> std::io::Result<Files> {
    let mut files = Files::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files.extend(walk(&entry.path(), &format!("{path}/"))?);
        } else {
            files.insert(path, std::fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// The golden files of all versions.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden")
}

/// Those of one version.
pub fn dir_of(root: &Path, version: u16) -> PathBuf {
    root.join(format!("v{version}"))
}

/// Where the files that this build writes differ from golden ones that it should write.
pub fn differences(made: &Golden, golden: &Golden) -> Vec<String> {
    let mut differences = Vec::new();
    let is_pinned = |path: &&String| !path.starts_with(PACKED);
    let paths: BTreeSet<&String> = made.files.keys().chain(golden.files.keys()).collect();
    for path in paths.into_iter().filter(is_pinned) {
        match (made.files.get(path), golden.files.get(path)) {
            (Some(made), Some(golden)) if made == golden => {}
            (Some(made), Some(golden)) => {
                let same = made.iter().zip(golden).take_while(|(a, b)| a == b).count();
                differences.push(format!("{path} differs from byte {same} on"));
            }
            (made, _) => {
                let which = if made.is_some() { "new" } else { "not written any more" };
                differences.push(format!("{path} is {which}"));
            }
        }
    }
    if made.expected != golden.expected {
        differences.push("what is in them is different".to_owned());
    }
    differences
}

/// What is wrong with the golden files below `root` for a build that reads these versions and writes
/// the last: those of a version are missing, or are not what `files.txt` and the changelog say, or
/// there are some that the build does not read any more.
pub fn check(root: &Path, versions: std::ops::RangeInclusive<u16>, changelog: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for version in versions.clone() {
        let dir = dir_of(root, version);
        let golden = match Golden::load(&dir) {
            Ok(golden) => golden,
            Err(e) => {
                wrong.push(format!("no golden files of version {version}: {e}"));
                continue;
            }
        };
        let list = std::fs::read_to_string(dir.join("files.txt")).unwrap_or_default();
        if list != golden.list() {
            wrong.push(format!("the golden files of version {version} are not those of files.txt"));
        }
        let line = changelog_line(version, &golden.digest());
        if !changelog.contains(&line) {
            wrong.push(format!("CHANGELOG.md does not say: {line}"));
        }
    }
    let others = std::fs::read_dir(root).into_iter().flatten().flatten();
    for other in others.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let version = other.strip_prefix('v').and_then(|version| version.parse::<u16>().ok());
        if version.is_none_or(|version| !versions.contains(&version)) {
            wrong.push(format!("{other} is of no version that this build reads"));
        }
    }
    wrong
}

/// How the changelog names golden files.
pub fn changelog_line(version: u16, digest: &str) -> String {
    format!("golden files v{version}: {digest}")
}
