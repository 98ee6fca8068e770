//! Judges one damaged image: right, or refused with file and place, and never anything else.

use std::path::Path;

use alluvium::{Db, ErrorKind, Fs, MemFs, Salvaged};

use crate::damage::{Flip, Log, SEGMENT_HEADER, Tear, is};
use crate::golden::{
    CLEAN, Counts, Files, Golden, STORE, State, UNCLEAN, read_database, read_store,
};
use crate::golden::{History, disk, env, is_refusal};

/// What is right, and what was counted.
pub struct Judge {
    parts: Vec<(&'static str, Files)>,
    expected: Vec<(&'static str, String)>,
    /// All states that the database had, of which the last ones are by batches of its log.
    history: History,
    pub log: Log,
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Census {
    pub flips: u64,
    pub tears: u64,
    pub cuts: u64,
    pub salvages: u64,
    /// Salvages that are proved to be a state that was.
    pub salvages_proved: u64,
    pub refused_to_open: u64,
    pub refused_to_read: u64,
    /// The log was cut off where nothing proves that it had been synced.
    pub cut: u64,
    /// Refused, since the log had been durable behind the damage: each of them was to be.
    pub below_durable: u64,
    /// Nothing was wrong: the byte decides nothing.
    pub right: u64,
}

impl Census {
    pub fn add(&mut self, other: &Census) {
        for (mine, others) in [
            (&mut self.flips, other.flips),
            (&mut self.tears, other.tears),
            (&mut self.cuts, other.cuts),
            (&mut self.salvages, other.salvages),
            (&mut self.salvages_proved, other.salvages_proved),
            (&mut self.refused_to_open, other.refused_to_open),
            (&mut self.refused_to_read, other.refused_to_read),
            (&mut self.cut, other.cut),
            (&mut self.below_durable, other.below_durable),
            (&mut self.right, other.right),
        ] {
            *mine += others;
        }
    }
}

/// What a log with one damage must lead to.
enum Verdict {
    /// A refusal in this file, at this offset.
    Refuse(String, u64),
    /// The state after so many batches.
    Batches(usize),
}

impl Judge {
    pub fn new(golden: &Golden, parts: &[&'static str]) -> Judge {
        let history = History::parse(&golden.expected[UNCLEAN]).expect("a golden file");
        Judge {
            parts: parts.iter().map(|&part| (part, golden.part(part))).collect(),
            expected: parts.iter().map(|&part| (part, golden.expected[part].clone())).collect(),
            history,
            log: Log::of(&golden.part(UNCLEAN)),
        }
    }

    fn files(&self, part: &str) -> &Files {
        let found = self.parts.iter().find(|(name, _)| *name == part);
        &found.expect("a part that is judged").1
    }

    fn expected(&self, part: &str) -> &str {
        let found = self.expected.iter().find(|(name, _)| *name == part);
        &found.expect("a part that is judged").1
    }

    /// One changed byte.
    ///
    /// # Panics
    /// If the engine lies, or panics.
    pub fn flip(&self, flip: &Flip, census: &mut Census) {
        let mut files = self.files(flip.part).clone();
        let bytes = files.get_mut(&flip.file).expect("a golden file");
        bytes[flip.at] = crate::damage::changed(bytes[flip.at], flip.pattern);
        census.flips += 1;
        match flip.part {
            STORE => self.store(&files, flip, census),
            UNCLEAN if is(&flip.file, "log") => {
                self.log(&files, &self.verdict(flip), census);
                self.salvage(&files, flip, census);
            }
            part => {
                self.database(part, &files, flip, census);
                if part == UNCLEAN || (part == CLEAN && flip.pattern == 0) {
                    self.salvage(&files, flip, census);
                }
            }
        }
    }

    /// The place of the state in the history to which the log's batches add.
    fn before_the_log(&self) -> usize {
        self.history.states.len() - 1 - self.log.batches()
    }

    /// What a byte of the log decides.
    fn verdict(&self, flip: &Flip) -> Verdict {
        let (file, at) = (flip.file.as_str(), flip.at);
        let all = Verdict::Batches(self.log.batches());
        if at < SEGMENT_HEADER {
            // It was durable before anything was written behind it.
            let is_empty = !self.log.records.iter().any(|record| record.segment == file);
            return if is_empty { all } else { Verdict::Refuse(file.to_owned(), 0) };
        }
        let Some(record) = self.log.record_at(file, at) else { return all };
        let start = (file.to_owned(), record.start);
        if self.log.proved(Some((file, record.start))) > start {
            return Verdict::Refuse(start.0, start.1 as u64);
        }
        Verdict::Batches(self.log.batches_before(file, record.start))
    }

    /// A segment of the log that is torn from `at` on. If what is left proves that a sync had covered
    /// more, it is refused; else it is recovered up to there, whatever the segments behind it hold.
    ///
    /// # Panics
    /// If it is not.
    pub fn tear(&self, file: &str, at: usize, tear: Tear, census: &mut Census) {
        let mut files = self.files(UNCLEAN).clone();
        let torn = tear.tear(&files[file], at);
        // Zeros in the place of zeros change nothing.
        let changed = torn.iter().zip(&files[file]).position(|(new, old)| new != old);
        let at = changed.unwrap_or(torn.len());
        files.insert(file.to_owned(), torn);
        census.tears += 1;
        let (end, proved) = self.log.torn(file, at);
        let verdict = match proved > (file.to_owned(), end) {
            true => Verdict::Refuse(file.to_owned(), end as u64),
            false => Verdict::Batches(self.log.batches_before(file, at)),
        };
        self.log(&files, &verdict, census);
    }

    /// A file that ends early.
    ///
    /// # Panics
    /// If the engine lies, or panics.
    pub fn cut(&self, part: &'static str, file: &str, len: usize, census: &mut Census) {
        let mut files = self.files(part).clone();
        files.get_mut(file).expect("a golden file").truncate(len);
        census.cuts += 1;
        let flip = Flip { part, file: file.to_owned(), at: len, pattern: 0 };
        match part {
            STORE => self.store(&files, &flip, census),
            _ => self.database(part, &files, &flip, census),
        }
    }

    fn log(&self, files: &Files, verdict: &Verdict, census: &mut Census) {
        let fs = disk(files, "db");
        match (read_database(&fs, true), verdict) {
            (Ok(found), Verdict::Batches(batches)) => {
                let states = &self.history.states[self.before_the_log()..];
                let which = states.iter().position(|state| *state == found);
                assert_eq!(found, states[*batches], "it is state {which:?}");
                census.cut += u64::from(*batches + 1 < states.len());
            }
            (Err(e), Verdict::Refuse(file, offset)) => {
                let place = (e.path(), e.offset());
                assert_eq!(e.kind(), ErrorKind::Corruption, "{e}");
                assert_eq!(place, (Some(&*Path::new("db").join(file)), Some(*offset)), "{e}");
                unchanged(&fs, files);
                census.refused_to_open += 1;
                census.below_durable += 1;
            }
            (Ok(_), Verdict::Refuse(file, offset)) => {
                panic!("opened, though {file} is damaged at {offset}, below what was durable")
            }
            (Err(e), Verdict::Batches(_)) => panic!("nothing proves a loss, but: {e}"),
        }
    }

    fn database(&self, part: &str, files: &Files, flip: &Flip, census: &mut Census) {
        let fs = disk(files, "db");
        let log = part == UNCLEAN;
        let right = match log {
            true => self.history.states.last().expect("there is a first").to_string(),
            false => self.expected(part).to_owned(),
        };
        match read_database(&fs, log) {
            Ok(found) => {
                assert_eq!(found.to_string(), right);
                assert!(!is(&flip.file, "sst"), "a changed byte of a table is not noticed");
                census.right += 1;
            }
            Err(e) => {
                // A manifest without its end, proofs and all, is one that was not closed.
                let is_open = e.kind() == ErrorKind::Halted && is(&flip.file, "manifest") && !log;
                assert!(is_open || is_refusal(&e) && e.path().is_some(), "{e}");
                let has_place = e.offset().is_some() || e.kind() == ErrorKind::Unsupported;
                assert!(is_open || has_place, "{e}");
                if fs.ops() <= 1 {
                    // It has not begun a new epoch.
                    census.refused_to_open += 1;
                    unchanged(&fs, files);
                } else {
                    census.refused_to_read += 1;
                }
            }
        }
    }

    fn store(&self, files: &Files, flip: &Flip, census: &mut Census) {
        let mut counts = Counts::default();
        let right = self.expected(STORE);
        match read_store(files, &mut counts) {
            Ok(found) => {
                // What is left are whole checkpoints, as they were.
                let rest = found.split("checkpoint ").skip(1);
                rest.for_each(|part| assert!(right.contains(part), "not as it was: {part}"));
            }
            // What is wrong with objects is told by their names, all in one error.
            Err(e) => assert!(is_refusal(&e) && e.to_string().contains(&flip.file), "{e}"),
        }
        assert!(counts.refused > 0, "a changed byte of {} is not noticed", flip.file);
        census.refused_to_read += 1;
    }

    /// What is saved of it was there; and if it is proved, it is a state that was.
    fn salvage(&self, files: &Files, flip: &Flip, census: &mut Census) {
        let fs = disk(files, "db");
        let saved = Db::salvage(Path::new("db"), Path::new("out"), None, env(&fs));
        unchanged(&fs, files);
        census.salvages += 1;
        let saved = match saved {
            Ok(saved) => saved,
            Err(e) => {
                assert!(is_refusal(&e), "{e}");
                let may_fail = !is(&flip.file, "log") && !is(&flip.file, "sst");
                assert!(may_fail, "salvage refuses a {}: {e}", flip.file);
                return;
            }
        };
        let found = self.read_salvaged(&fs, &saved);
        let states = &self.history.states; // what was closed has the same beginning
        if saved.doubts.is_empty() {
            census.salvages_proved += 1;
            assert!(states.contains(&found), "proved, but it never was: {saved:?}");
        }
        for (key, value) in &found.0 {
            let was = states.iter().any(|state| state.0.get(key) == Some(value));
            assert!(was, "{key} never had the value {value}: {saved:?}");
        }
        let last = states.last().expect("there is a first");
        if is(&flip.file, "sst") || is(&flip.file, "log") && found != *last {
            assert!(!saved.dropped.is_empty(), "nothing is told: {saved:?}");
        }
        for e in &saved.dropped {
            assert!(e.path().is_some() && e.offset().is_some(), "{e}");
        }
    }

    fn read_salvaged(&self, fs: &MemFs, saved: &Salvaged) -> State {
        let out = fs.list(Path::new("out")).expect("it was made");
        let moved: Files = out
            .into_iter()
            .map(|file| (file.name.clone(), fs.read(&Path::new("out").join(file.name))))
            .collect();
        match read_database(&disk(&moved, "db"), true) {
            Ok(found) => found,
            Err(e) => panic!("what was salvaged cannot be read: {e}; {saved:?}"),
        }
    }
}

fn unchanged(fs: &MemFs, files: &Files) {
    let listed = fs.list(Path::new("db")).expect("it is there");
    assert_eq!(listed.len(), files.len(), "files came or went");
    for (file, bytes) in files {
        assert!(fs.read(&Path::new("db").join(file)) == *bytes, "{file} was changed");
    }
}
