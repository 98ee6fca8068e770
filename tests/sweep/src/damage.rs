//! What is done to the golden files: every byte changed in four ways, and the log torn everywhere
//! behind what a sync is proved to have covered.

use std::collections::BTreeMap;
use std::path::Path;

use alluvium::inspect::inspect;

use crate::golden::{Files, Golden};

/// Four ways to change a byte, none of which leaves it as it is.
pub const PATTERNS: [&str; 4] = ["^0x01", "^0x80", "0x00", "0xff"];

/// The changed byte.
pub fn changed(byte: u8, pattern: usize) -> u8 {
    let other = match pattern {
        0 => byte ^ 0x01,
        1 => byte ^ 0x80,
        2 => 0x00,
        _ => 0xff,
    };
    if other == byte { byte.rotate_left(4) ^ 0x5a } else { other }
}

/// A place in the log.
pub type Place = (String, usize);

/// A record of the log as an inspection tells it.
#[derive(Clone, Debug)]
pub struct Record {
    pub segment: String,
    pub start: usize,
    pub end: usize,
    pub is_batch: bool,
    /// What a sync had covered when it was written.
    pub durable: Place,
}

/// The log of the golden database that was not closed.
pub struct Log {
    pub records: Vec<Record>,
    /// Segments in their order, with their lengths.
    pub segments: BTreeMap<String, usize>,
    /// What the manifest says that a sync had covered.
    recorded: Place,
}

/// Bytes of a segment's header, and of a record's.
pub const SEGMENT_HEADER: usize = 60;
const RECORD_HEADER: usize = 32;

impl Log {
    /// Reads what `inspect` says of each segment.
    pub fn of(files: &Files) -> Log {
        let segments = BTreeMap::new();
        let mut log = Log { records: Vec::new(), segments, recorded: Place::default() };
        for (name, bytes) in files.iter().filter(|(name, _)| is(name, "manifest")) {
            let report = inspect(bytes, Some(name)).expect("a golden file");
            let lines = report.lines();
            let places = lines.filter_map(|line| place(line.split("log durable up to ").nth(1)?));
            log.recorded = places.max().unwrap_or_default().max(log.recorded);
        }
        for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".log")) {
            log.segments.insert(name.clone(), bytes.len());
            let report = inspect(bytes, Some(name)).expect("a golden file");
            log.records.extend(report.lines().filter_map(|line| record(name, line)));
        }
        log
    }

    /// The record at this place, if one stands there.
    pub fn record_at(&self, segment: &str, offset: usize) -> Option<&Record> {
        let mut here = self.records.iter().filter(|record| record.segment == segment);
        here.find(|record| (record.start..record.end).contains(&offset))
    }

    /// How far the records other than those that begin at `except` prove that the log was durable.
    pub fn proved(&self, except: Option<(&str, usize)>) -> Place {
        let others = self.records.iter().filter(|r| except != Some((&r.segment, r.start)));
        let proved = others.map(|record| record.durable.clone()).max().unwrap_or_default();
        proved.max(self.recorded.clone())
    }

    /// Where a segment that is torn at `at` ends, and how far what is left proves that the log was
    /// durable.
    pub fn torn(&self, segment: &str, at: usize) -> (usize, Place) {
        let here = |r: &&Record| r.segment == segment;
        let left = |r: &&Record| !here(r) || r.end <= at;
        let end = self.records.iter().filter(here).filter(left).map(|r| r.end).max();
        let proved = self.records.iter().filter(left).map(|r| r.durable.clone()).max();
        (end.unwrap_or(SEGMENT_HEADER), proved.unwrap_or_default().max(self.recorded.clone()))
    }

    /// How many batches it holds.
    pub fn batches(&self) -> usize {
        self.records.iter().filter(|record| record.is_batch).count()
    }

    /// How many batches end at or before this place.
    pub fn batches_before(&self, segment: &str, offset: usize) -> usize {
        let before = |r: &&Record| (r.segment.as_str(), r.end) <= (segment, offset);
        self.records.iter().filter(before).filter(|record| record.is_batch).count()
    }
}

/// Reads a line such as `  @60 batch of 30 bytes, durable up to 000001-000004@60`.
fn record(segment: &str, line: &str) -> Option<Record> {
    let (start, rest) = line.trim_start().strip_prefix('@')?.split_once(' ')?;
    let (what, durable) = rest.split_once("durable up to ")?;
    let len = what.strip_prefix("batch of ").and_then(|len| len.split(' ').next());
    let (start, len) = (start.parse().ok()?, len.map_or(Some(0), |len| len.parse().ok())?);
    Some(Record {
        segment: segment.to_owned(),
        start,
        end: start + RECORD_HEADER + len,
        is_batch: what.starts_with("batch"),
        durable: place(durable)?,
    })
}

/// A place as inspections write it.
fn place(text: &str) -> Option<Place> {
    let (number, offset) = text.split_once('@')?;
    Some((format!("{number}.log"), offset.parse().ok()?))
}

/// One changed byte.
#[derive(Clone, Debug)]
pub struct Flip {
    /// The database or store it belongs to.
    pub part: &'static str,
    /// The file, by its path below that.
    pub file: String,
    pub at: usize,
    pub pattern: usize,
}

/// Every byte of every golden file, in every way; as (part, file, length).
pub fn files(golden: &Golden, parts: &[&'static str]) -> Vec<(&'static str, String, usize)> {
    let mut all = Vec::new();
    for &part in parts {
        all.extend(golden.part(part).into_iter().map(|(file, bytes)| (part, file, bytes.len())));
    }
    all
}

/// How the end of a segment is torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    Cut,
    Zeros,
    Garbage,
}

impl Tear {
    pub const ALL: [Tear; 3] = [Tear::Cut, Tear::Zeros, Tear::Garbage];

    /// The bytes of a segment, torn from `at` on.
    pub fn tear(self, bytes: &[u8], at: usize) -> Vec<u8> {
        let mut torn = bytes[..at].to_vec();
        match self {
            Tear::Cut => {}
            Tear::Zeros => torn.resize(bytes.len(), 0),
            Tear::Garbage => torn.resize(bytes.len(), 0xa5),
        }
        torn
    }
}

/// Is this a file of that kind?
pub fn is(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|found| found == extension)
}
