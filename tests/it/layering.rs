//! The rules about source text that no compiler checks: who may import whom, where `unsafe` and
//! features may stand, how long a file and a function may be.
#![allow(clippy::disallowed_methods, reason = "reads the sources")]

use std::path::{Path, PathBuf};

/// Bottom to top. A module imports lower rows only; those of one row never import each other.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["fs", "iter", "cache"],
    &["batch", "log", "memtable", "table"],
    &["version"],
    &["compaction"],
    &["db"],
    // The line.
    &["checkpoint"],
    &["state"],
    &["inspect"],
    // Compiled for tests only: hands bytes to every decoder.
    &["fuzz"],
];
/// These know the engine only as its users do: by what `lib.rs` exports, which is capitalised.
const ABOVE_THE_LINE: &[&str] = &["checkpoint", "state"];
const UNSAFE: &[&str] = &[
    "base/biased_mutex.rs",
    "fs/mmap.rs",
    "memtable/arena.rs",
    "memtable/entry.rs",
    "memtable/index.rs",
    "memtable/value_copy.rs",
];
const FEATURES: &[&str] =
    &["lib.rs", "base/canary.rs", "fs/mod.rs", "table/compression.rs", "state/mod.rs"];
const TESTING: &str = "#[cfg(any(test, feature = \"testing\"))]";
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn the_sources_keep_the_rules() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    assert!(files.len() > 20, "only {} files below {}", files.len(), src.display());
    let mut broken = Vec::new();
    for path in files {
        let file = path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
        broken.extend(check(&file, &std::fs::read_to_string(&path).unwrap()));
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// A bug that is listed and not planted would be missed by its harness, which proves nothing.
#[test]
fn every_canary_is_planted() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let list = std::fs::read_to_string(src.join("base/canary.rs")).unwrap();
    let list = list.split("\ncanaries! {\n").nth(1).unwrap().split("\n}\n").next().unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
    let names: Vec<&str> = names.map(|(name, _)| name).filter(|name| !name.contains(' ')).collect();
    assert!(names.len() >= 24, "{names:?}");
    let mut files = Vec::new();
    walk(&src, &mut files);
    let code: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for name in names {
        let planted = code.matches(&format!("Canary::{name}.is_planted()")).count();
        assert!((1..=2).contains(&planted), "{name} is planted {planted} times");
    }
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Everything wrong with one file, given by its path below `src/`.
fn check(file: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut product = without_tests(&code);
    if file.ends_with("/tests.rs") || file.contains("/tests/") {
        product.clear();
    }
    let mut broken = imports(file, &code);
    broken.extend(climbs(file, &product));
    broken.extend(unsafe_code(file, text, &code));
    broken.extend(features(file, text, &code));
    broken.extend(lengths(file, &product));
    broken
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The module that a file belongs to: the first part of its path.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

fn imports(file: &str, code: &str) -> Vec<String> {
    let module = module(file);
    if file == "lib.rs" {
        return Vec::new(); // names everything, and holds no logic
    }
    if module != "bin" && rank(module).is_none() {
        return vec![format!("{file}: {module} has no row in LAYERS")];
    }
    let mut broken = Vec::new();
    for (at, after) in words(code, "crate") {
        let line = line_of(code, at);
        let before = code[..at].trim_end();
        let Some(path) = after.trim_start().strip_prefix("::") else {
            if !before.ends_with('(') {
                broken.push(format!("{file}:{line}: `crate` stands alone"));
            }
            continue; // pub(crate)
        };
        let path = path.trim_start();
        let name = &path[..path.find(|c: char| !is_word(c)).unwrap_or(path.len())];
        if name.is_empty() {
            broken.push(format!("{file}:{line}: `use crate::` with a group or a star"));
            continue;
        }
        let capital = name.starts_with(char::is_uppercase);
        let ok = if module == "bin" {
            false
        } else if ABOVE_THE_LINE.contains(&module) {
            name == module || name == "base" || capital
        } else {
            name == module || rank(name).is_some_and(|below| Some(below) < rank(module))
        };
        if !ok {
            broken.push(format!("{file}:{line}: {module} may not import {name}"));
        }
    }
    for (at, after) in words(code, "alluvium") {
        if module != "bin" && after.trim_start().starts_with("::") {
            let line = line_of(code, at);
            broken.push(format!("{file}:{line}: the crate's own name gets around the ranks"));
        }
    }
    broken
}

/// `super` must not reach the crate root, where it would get around the ranks.
fn climbs(file: &str, product: &str) -> Vec<String> {
    let depth = file.split('/').count() - usize::from(file.ends_with("/mod.rs"));
    let mut broken = Vec::new();
    for (at, after) in words(product, "super") {
        let line = line_of(product, at);
        let path = after.trim_start().strip_prefix("::").unwrap_or("").trim_start();
        let twice = path.starts_with("super");
        let once_is_root = depth == 1 && file != "lib.rs" && !product[..at].ends_with('(');
        if twice || once_is_root {
            broken.push(format!("{file}:{line}: `super` may reach the crate root: use `crate::`"));
        }
    }
    broken
}

fn unsafe_code(file: &str, text: &str, code: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (at, after) in words(code, "unsafe") {
        let line = line_of(code, at);
        if !UNSAFE.contains(&file) {
            broken.push(format!("{file}:{line}: `unsafe` stands only in {UNSAFE:?}"));
            continue;
        }
        let after = after.trim_start();
        let cited = cites_a_claim(&lines[line.saturating_sub(7)..line]);
        if (after.starts_with('{') || after.starts_with("impl")) && !cited {
            broken.push(format!("{file}:{line}: this `unsafe` cites no claim"));
        }
    }
    for (at, _) in words(code, "unsafe_code") {
        if !UNSAFE.contains(&file) {
            broken.push(format!("{file}:{}: the lint against `unsafe` stays", line_of(code, at)));
        }
    }
    broken
}

/// Whether the last `SAFETY:` comment in these lines names a claim by number, or another block that
/// does.
fn cites_a_claim(lines: &[&str]) -> bool {
    let Some(start) = lines.iter().rposition(|line| line.contains("// SAFETY:")) else {
        return false;
    };
    let comments = lines[start..].iter().filter_map(|line| line.split_once("//"));
    comments
        .map(|(_, text)| text)
        .any(|text| text.contains(|c: char| c.is_ascii_digit()) || text.contains("SAFETY: as for "))
}

fn features(file: &str, text: &str, code: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (at, after) in words(code, "feature") {
        let line = line_of(code, at);
        let raw = text.lines().nth(line - 1).unwrap_or("").trim();
        let for_tests = raw.starts_with(TESTING);
        if after.trim_start().starts_with('=') && !for_tests && !FEATURES.contains(&file) {
            broken.push(format!("{file}:{line}: features are asked for only in {FEATURES:?}"));
        }
    }
    broken
}

fn lengths(file: &str, product: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let lines = product.trim_end().lines().count();
    if lines > FILE_LINES_MAX {
        broken.push(format!("{file}: {lines} lines without tests, at most {FILE_LINES_MAX}"));
    }
    for (at, after) in words(product, "fn") {
        let name: String = after.trim_start().chars().take_while(|c| is_word(*c)).collect();
        let Some(open) = body_start(after).filter(|_| !name.is_empty()) else { continue };
        let length = after[..body_end(after, open)].lines().count();
        if length > FUNCTION_LINES_MAX {
            let line = line_of(product, at);
            let text = format!("`{name}` has {length} lines, at most {FUNCTION_LINES_MAX}");
            broken.push(format!("{file}:{line}: {text}"));
        }
    }
    broken
}

/// Where a word stands in the code, and what follows it.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    code.match_indices(word).filter_map(move |(at, _)| {
        let after = &code[at + word.len()..];
        let whole = !code[..at].ends_with(is_word) && !after.starts_with(is_word);
        whole.then_some((at, after))
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Where the body of the item begins; nowhere if a semicolon ends it first.
fn body_start(item: &str) -> Option<usize> {
    let mut depth = 0; // within an array type a semicolon ends nothing
    for (i, c) in item.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' => return Some(i),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// One past the brace that closes the one at `open`.
fn body_end(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + i + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The code without what stands under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut left = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        left.push_str(&rest[..at]);
        let item = &rest[at..];
        let attribute = "#[cfg(test)]".len();
        let end = match body_start(&item[attribute..]) {
            Some(open) => body_end(item, attribute + open),
            None => item.find(';').map_or(item.len(), |semicolon| semicolon + 1),
        };
        rest = &item[end..];
    }
    left + rest
}

/// The text with comments and the insides of strings and characters left blank, line by line.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if is_word(c) && !code.ends_with(is_word) && string_start(rest).is_none() {
            let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            code.push_str(&rest[..word]);
            rest = &rest[word..];
            continue;
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some((quote, hashes, raw)) = string_start(rest) {
            string_end(rest, quote, hashes, raw)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        if skip == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        code.extend(rest[..skip].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[skip..];
    }
    code
}

/// Length of a comment that may hold others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// If a string starts here: where its quote is, how many `#` it has, whether it is raw.
fn string_start(text: &str) -> Option<(usize, usize, bool)> {
    let prefix = text.find(|c: char| !matches!(c, 'b' | 'c' | 'r'))?;
    let raw = text[..prefix].ends_with('r');
    let hashes = text[prefix..].bytes().take_while(|c| *c == b'#').count();
    let known = matches!(&text[..prefix], "" | "b" | "c" | "r" | "br" | "cr");
    let quoted = text[prefix + hashes..].starts_with('"');
    (known && quoted && (raw || hashes == 0)).then_some((prefix + hashes, hashes, raw))
}

fn string_end(text: &str, quote: usize, hashes: usize, raw: bool) -> usize {
    let end = format!("\"{}", "#".repeat(hashes));
    let mut at = quote + 1;
    while at < text.len() {
        if !raw && text[at..].starts_with('\\') {
            at += 1;
        } else if text[at..].starts_with(&end) {
            return at + end.len();
        }
        at += text[at..].chars().next().map_or(1, char::len_utf8);
    }
    text.len()
}

/// Length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text[1..].chars();
    match (inside.next(), inside.next()) {
        (Some('\\'), Some(_)) => text[3..].find('\'').map_or(0, |at| 3 + at + 1),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

#[test]
fn comments_and_strings_are_not_code() {
    let text = r###"a /* crate::x /* y */ z */ b // crate::x
"crate::\" x" c r#"un"safe"# d b'"' 'e' '"' '\'' '\u{41}' <'f> br"\" g cr#""# raw"###;
    let code = code_only(text);
    let left: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(left, ["a", "b", "c", "d", "b", "<'f>", "g", "raw"]);
    assert_eq!(code.lines().count(), 2);
    assert_eq!(code_only("for\"x\" r#type 'a: 'b' é 'é' \"\\\\\" y"), {
        format!("for    r#type 'a:     é     {} y", "    ")
    });
}

#[test]
fn imports_point_down() {
    for (file, text) in [
        ("iter/mod.rs", "use crate::base::key::SeqNo;"),
        ("iter/mod.rs", "use crate::iter::merging::X; pub(crate) fn f() {} pub(in crate::iter) x"),
        ("batch.rs", "use crate::base::x;\nuse crate::fs::Fs;"),
        ("db/get.rs", "use crate::compaction::pick;"),
        ("inspect.rs", "use crate::state::key::X;"),
        ("state/list.rs", "use crate::Db; use crate::base::x; use crate::state::key::Key;"),
        ("iter/mod.rs", "/// See [`crate::Db`].\n// use crate::db::Db;\nfn f() { \"crate::db\" }"),
        ("lib.rs", "pub use crate::db::Db; use crate::{db, fs};"),
        ("bin/tool.rs", "use alluvium::Db;"),
    ] {
        assert_eq!(check(file, text), [""; 0]);
    }
    for (file, text, error) in [
        ("iter/mod.rs", "use crate::memtable::MemTable;", "iter may not import memtable"),
        ("iter/mod.rs", "use crate::fs::Fs;", "iter may not import fs"),
        ("base/key.rs", "use crate::iter::X;", "base may not import iter"),
        ("log/reader.rs", "\n\nuse crate :: batch::X;", "log may not import batch"),
        ("log/reader.rs", "fn f() { crate::table::f() }", "log may not import table"),
        ("version/set.rs", "use crate::Db;", "version may not import Db"),
        ("version/set.rs", "use crate::nobody::X;", "version may not import nobody"),
        ("checkpoint/save.rs", "use crate::db::Db;", "checkpoint may not import db"),
        ("checkpoint/save.rs", "use crate::state::X;", "checkpoint may not import state"),
        ("state/list.rs", "use crate::checkpoint::x::X;", "state may not import checkpoint"),
        ("db/get.rs", "use crate::{base, fs};", "`use crate::` with a group or a star"),
        ("db/get.rs", "use crate::*;", "`use crate::` with a group or a star"),
        ("db/get.rs", "use crate as all;", "`crate` stands alone"),
        ("db/get.rs", "use {crate as all};", "`crate` stands alone"),
        ("fs/disk.rs", "use super::super::db::Db;", "`super` may reach the crate root"),
        ("fs/mod.rs", "use super::db::Db;", "`super` may reach the crate root"),
        ("batch.rs", "use super::log::X;", "`super` may reach the crate root"),
        ("fs/disk.rs", "use alluvium::Db;", "the crate's own name gets around the ranks"),
        ("bin/tool.rs", "use crate::db::Db;", "bin may not import db"),
        ("utils/mod.rs", "", "utils has no row in LAYERS"),
    ] {
        let found = check(file, text);
        assert!(found.len() == 1 && found[0].contains(error), "{file} {text}: {found:?}");
    }
    assert!(check("log/reader.rs", "\n\nuse crate::batch::X;")[0].starts_with("log/reader.rs:3:"));
}

#[test]
fn tests_may_use_their_parent() {
    let text = "fn f() {}\n#[cfg(test)]\nmod tests { use super::*; }\n";
    assert_eq!(check("batch.rs", text), [""; 0]);
    assert_eq!(check("batch/tests.rs", "use super::*;"), [""; 0]);
    assert_eq!(check("fs/tests/mod.rs", "use super::super::disk;"), [""; 0]);
    assert_eq!(check("fs/disk.rs", "pub(super) fn f() {} use super::Fs;"), [""; 0]);
    assert_eq!(check("fs/mod.rs", "pub(super) fn f() {}"), [""; 0]);
    assert_eq!(
        without_tests("a #[cfg(test)]\nmod tests; b #[cfg(test)] fn f() { {} } c"),
        "a  b  c"
    );
}

#[test]
fn unsafe_stands_in_its_files_and_cites_claims() {
    let block = "fn f() { unsafe { g() } }";
    assert!(check("fs/disk.rs", block)[0].contains("`unsafe` stands only in"));
    assert!(check("fs/disk.rs", "#![allow(unsafe_code)]")[0].contains("the lint"));
    assert!(check("fs/mmap.rs", block)[0].contains("cites no claim"));
    assert!(check("fs/mmap.rs", "unsafe impl Send for X {}")[0].contains("cites no claim"));
    let with = |comment: &str| check("fs/mmap.rs", &format!("{comment}\n{block}"));
    assert_eq!(with("#![allow(unsafe_code)]\n// SAFETY: claim 1."), [""; 0]);
    assert_eq!(with("// SAFETY: nobody else has it\n// (3)."), [""; 0]);
    assert_eq!(with("// SAFETY: as for the key."), [""; 0]);
    assert_eq!(with("// SAFETY: trust me.").len(), 1);
    assert_eq!(with("// claim 1\n// SAFETY: trust me.").len(), 1);
    assert_eq!(check("fs/disk.rs", "// unsafe { }\nlet x = \"unsafe\";"), [""; 0]);
}

#[test]
fn features_stand_in_their_files() {
    let ask = "#[cfg(feature = \"zstd\")]\nfn f() {}";
    assert!(check("db/get.rs", ask)[0].contains("features are asked for only in"));
    assert!(check("db/get.rs", "if cfg!(feature = \"zstd\") {}").len() == 1);
    assert_eq!(check("table/compression.rs", ask), [""; 0]);
    assert_eq!(check("lib.rs", ask), [""; 0]);
    let testing = "#[cfg(any(test, feature = \"testing\"))]\nfn f() {}\n#[cfg(test)]\nfn g() {}";
    assert_eq!(check("db/get.rs", testing), [""; 0]);
}

#[test]
fn files_and_functions_have_a_limit() {
    let lines = |n: usize| "    x();\n".repeat(n);
    assert_eq!(check("db/get.rs", &lines(600)), [""; 0]);
    assert!(check("db/get.rs", &lines(601))[0].contains("601 lines without tests"));
    let tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(600), lines(900));
    assert_eq!(check("db/get.rs", &tests), [""; 0]);
    assert_eq!(check("db/get/tests.rs", &lines(900)), [""; 0]);
    assert_eq!(check("db/tests/jobs.rs", &lines(900)), [""; 0]);
    let function = |n| format!("fn long(x: [u8; 2])\nwhere X: Y\n{{\n{}}}\n", lines(n));
    assert_eq!(check("db/get.rs", &function(66).replace("[u8; 2]", "u8")), [""; 0]);
    let found = check("db/get.rs", &function(67).replace("[u8; 2]", "u8"));
    assert!(found[0].contains("`long` has 71 lines"), "{found:?}");
    assert!(check("db/get.rs", &function(67)).len() == 1, "a semicolon in the signature");
}
