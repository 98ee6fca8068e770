use std::sync::OnceLock;

use alluvium::inspect::FORMAT_VERSIONS;

use super::*;
use crate::golden::content::{History, disk};

const BLESS: &str = "ALLUVIUM_BLESS";

fn changelog() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../CHANGELOG.md")
}

/// What this build writes; made the golden files first, if that is asked for: the one command that
/// makes those of an unreleased version anew, and names them in the changelog.
fn made() -> &'static Golden {
    static MADE: OnceLock<Golden> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = make().unwrap();
        if std::env::var_os(BLESS).is_some() {
            let version = *FORMAT_VERSIONS.end();
            bless(&made, &root(), version).unwrap();
            name_in_changelog(version, &made.digest());
        }
        made
    })
}

#[test]
fn golden_files_are_what_this_build_writes() {
    let made = made();
    let version = *FORMAT_VERSIONS.end();
    let stored = Golden::load(&dir_of(&root(), version)).unwrap();
    let differences = differences(made, &stored);
    let advice = format!("`{BLESS}=1 cargo test -p alluvium-sweep golden` makes them anew");
    assert!(differences.is_empty(), "{differences:#?}\n{advice}, if that is wanted");
}

/// Writes golden files, in place of what is there.
///
/// # Errors
/// Files of a released version that are there already are not replaced.
fn bless(golden: &Golden, root: &Path, version: u16) -> std::io::Result<()> {
    let dir = dir_of(root, version);
    if dir.exists() {
        if version > 0 {
            return Err(std::io::Error::other("what a release has written stays as it is"));
        }
        std::fs::remove_dir_all(&dir)?;
    }
    let texts = golden
        .expected
        .iter()
        .map(|(name, text)| (format!("expected/{name}.txt"), text.clone().into_bytes()));
    let list = ("files.txt".to_owned(), golden.list().into_bytes());
    for (path, bytes) in golden.files.clone().into_iter().chain(texts).chain([list]) {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().expect("below the directory"))?;
        std::fs::write(path, bytes)?;
    }
    Ok(())
}

/// Puts the line in the place of the one before.
fn name_in_changelog(version: u16, digest: &str) {
    let text = std::fs::read_to_string(changelog()).unwrap();
    let start = changelog_line(version, "");
    let at = text.find(&start).expect("the changelog names the golden files");
    let end = at + start.len() + digest.len();
    let text = format!("{}{}{}", &text[..at], changelog_line(version, digest), &text[end..]);
    std::fs::write(changelog(), text).unwrap();
}

#[test]
fn golden_files_are_named_in_the_changelog() {
    made();
    let changelog = std::fs::read_to_string(changelog()).unwrap();
    let wrong = check(&root(), FORMAT_VERSIONS, &changelog);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn golden_files_are_read() {
    made();
    for version in FORMAT_VERSIONS {
        let golden = Golden::load(&dir_of(&root(), version)).unwrap();
        assert!(golden.files.values().map(Vec::len).sum::<usize>() < 60 << 10);
        let expected = |name: &str| golden.expected[name].as_str();
        let history = History::parse(expected(UNCLEAN)).unwrap();
        assert_eq!(history.to_string(), expected(UNCLEAN));
        let found = read_database(&disk(&golden.part(UNCLEAN), "db"), true).unwrap();
        assert_eq!(Some(&found), history.states.last());
        for name in [CLEAN, PACKED] {
            let found = read_database(&disk(&golden.part(name), "db"), false).unwrap();
            assert_eq!(found.to_string(), expected(name));
        }
        let mut counts = Counts::default();
        assert_eq!(read_store(&golden.part(STORE), &mut counts).unwrap(), expected(STORE));
        assert_eq!(counts, Counts { checkpoints: 2, refused: 0 });
    }
}

/// A build of a later version, as far as the rules about golden files go.
#[test]
fn golden_files_of_a_release_are_frozen() {
    made();
    let temp = std::env::temp_dir().join(format!("alluvium-golden-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&temp);
    let golden = Golden::load(&dir_of(&root(), 0)).unwrap();
    let line = |version| changelog_line(version, &golden.digest());

    bless(&golden, &temp, 0).unwrap();
    bless(&golden, &temp, 0).unwrap();
    assert!(check(&temp, 0..=0, &line(0)).is_empty());
    assert_eq!(check(&temp, 0..=0, "another digest").len(), 1);

    // The first release: version 1 is written once, and version 0 is gone.
    bless(&golden, &temp, 1).unwrap();
    assert_eq!(check(&temp, 1..=1, &line(1)).len(), 1, "version 0 is still there");
    std::fs::remove_dir_all(dir_of(&temp, 0)).unwrap();
    assert!(check(&temp, 1..=1, &line(1)).is_empty());
    assert!(bless(&golden, &temp, 1).is_err(), "what is released was written anew");

    // Version 2 reads version 1, whose files must be there as they were.
    assert_eq!(check(&temp, 1..=2, &line(1)).len(), 1, "version 2 has no golden files");
    bless(&golden, &temp, 2).unwrap();
    let both = format!("{}\n{}", line(1), line(2));
    assert!(check(&temp, 1..=2, &both).is_empty());
    std::fs::write(dir_of(&temp, 1).join("clean/CURRENT"), b"another").unwrap();
    assert!(!check(&temp, 1..=2, &both).is_empty());
    std::fs::remove_dir_all(temp).unwrap();
}
