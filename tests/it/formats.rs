//! DESIGN.md describes every on-disk structure as the code does.
#![allow(clippy::disallowed_methods, reason = "reads and writes DESIGN.md, reads the sources")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use alluvium::inspect::layouts;
use alluvium::inspect::layouts_markdown;

const BEGIN: &str = "<!-- layouts -->\n";
const END: &str = "<!-- /layouts -->";
const BLESS: &str = "ALLUVIUM_BLESS";

#[test]
fn design_tables_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("DESIGN.md");
    let design = fs::read_to_string(&path).expect("DESIGN.md");
    let start = design.find(BEGIN).expect("DESIGN.md has a mark where the layouts begin");
    let start = start + BEGIN.len();
    let len = design[start..].find(END).expect("DESIGN.md has a mark where the layouts end");
    let (before, after) = (&design[..start], &design[start + len..]);
    let written = &design[start..start + len];
    let wanted = format!("{}\n", layouts_markdown());
    if written == wanted {
        return;
    }
    if std::env::var_os(BLESS).is_some() {
        fs::write(&path, format!("{before}{wanted}{after}")).expect("writing DESIGN.md");
        return;
    }
    let (line, old, new) = first_difference(written, &wanted);
    panic!(
        "the formats in DESIGN.md are not those of the code; line {line} of the section:\n\
         DESIGN.md: {old}\n\
         the code:  {new}\n\
         `{BLESS}=1 cargo test --test it formats` rewrites the section"
    );
}

fn first_difference<'a>(old: &'a str, new: &'a str) -> (usize, &'a str, &'a str) {
    let (mut old, mut new) = (old.lines(), new.lines());
    let mut line = 0;
    loop {
        line += 1;
        match (old.next(), new.next()) {
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return (line, "(line ends)", "(line ends)"),
            (a, b) => return (line, a.unwrap_or("(nothing)"), b.unwrap_or("(nothing)")),
        }
    }
}

/// An owner of a format that `inspect::layouts` does not know would be missing in DESIGN.md too.
#[test]
fn every_layout_in_the_sources_is_listed() {
    let listed: BTreeSet<String> = layouts().iter().map(|layout| layout.id.to_owned()).collect();
    assert_eq!(listed.len(), layouts().len(), "two layouts have one id");
    let mut written = BTreeSet::new();
    ids_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut written);
    let missing: Vec<_> = written.difference(&listed).collect();
    assert!(missing.is_empty(), "add the owner of {missing:?} to src/inspect/layouts.rs");
    assert_eq!(written, listed, "a layout's id does not stand as `id: \"F…\"` in its file");
}

#[test]
fn layouts_stand_in_the_order_of_their_sections() {
    let number = |id: &str| -> Vec<u32> {
        id.trim_start_matches('F').split('.').map(|part| part.parse().expect(id)).collect()
    };
    let ids: Vec<_> = layouts().iter().map(|layout| layout.id).collect();
    assert!(ids.is_sorted_by_key(|id| number(id)), "{ids:?}");
}

fn ids_below(dir: &Path, ids: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("src") {
        let path = entry.expect("src").path();
        if path.is_dir() {
            ids_below(&path, ids);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let ends = text.split("id: \"F").skip(1).filter_map(|rest| rest.split_once('"'));
            ids.extend(ends.map(|(id, _)| format!("F{id}")));
        }
    }
}
