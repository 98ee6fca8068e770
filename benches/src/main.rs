//! Times alluvium: against other engines ([`run`]), and against maps in memory ([`maps`]).
//!
//! Reading order: [`data`], [`ttl`], [`engine`] (the trait and who implements it), [`meter`], [`group`] (what is
//! timed), [`run`] (who is timed when), [`page_cache`], [`goals`],
//! [`table`] and `report`. [`hot`] is for `callgrind.sh`. `README.md` says how to run it,
//! `NOTES.md` what came out.

mod args;
mod data;
mod engine;
mod goals;
mod group;
mod hot;
mod maps;
mod meter;
mod page_cache;
#[cfg(feature = "report")]
mod report;
mod run;
mod table;
mod ttl;

use std::path::Path;
use std::process::ExitCode;

use crate::engine::Kind;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |i: usize| words.get(i).map(String::as_str);
    match word(0) {
        Some("run") if words.iter().any(|word| word == "--check") => maps::main(words.into_iter()),
        Some("profile") => maps::main(words.into_iter()),
        Some("hot") => {
            match word(1) {
                Some(path) => hot::run(path),
                None => hot::paths().for_each(|path| println!("{path}")),
            }
            ExitCode::SUCCESS
        }
        // The next two are started by this program itself.
        Some("serve") => match words.as_slice() {
            [_, kind, group, size, dir] => {
                run::serve(named(kind), group, size == "full", Path::new(dir));
                ExitCode::SUCCESS
            }
            _ => args::refuse("serve ENGINE GROUP SIZE DIRECTORY"),
        },
        Some("write-and-wait") => match words.as_slice() {
            [_, kind, count, dir] => {
                let count = count.parse().expect("a count");
                group::write_and_wait(named(kind), count, Path::new(dir));
                ExitCode::SUCCESS
            }
            _ => args::refuse("write-and-wait ENGINE COUNT DIRECTORY"),
        },
        _ => match args::Args::parse(words.into_iter()) {
            Ok(args) => run::main(&args),
            Err(text) => args::refuse(&text),
        },
    }
}

fn named(kind: &str) -> Kind {
    Kind::named(kind).expect("an engine")
}
