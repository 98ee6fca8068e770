//! Damaged files: the process died at some moment of a life, and then bytes of one file are not what
//! was written. Whatever happens, the answer is right, or an error that names the file.
//!
//! Of a log or a manifest single bytes are changed: more at its very end could be what a power cut
//! left, and is nobody's fault. Of tables anything is changed, also by what stands at the same place
//! of another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium::limits::LEVELS;
use alluvium::{Codec, Db, Error, ErrorKind, Fs, Keep, MemFs, Options, inspect};
use alluvium_report::Rng;

use crate::case::{Case, DAMAGE};
use crate::crash::{Violation, caught, directly, live};
use crate::model::{Check, History, Phase, Promise, State, ensure};
use crate::ops::{WORKLOADS, Workload, family_options};
use crate::read::{Trouble, read};
use crate::world::{DIR, all_families, env};

/// Moments of a life, and damages of each.
const MOMENTS: u64 = 8;
const DAMAGES: u64 = 24;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Damages one life, or two databases that are alike. Returns how many images were judged.
pub fn run(seed: u64) -> Result<u64, Violation> {
    let wrong = |text| Violation::new(&Case::other(DAMAGE, seed), text);
    match seed % 4 {
        0 => caught(|| alike(seed)),
        _ => caught(|| lived(seed)),
    }
    .map_err(wrong)
}

fn lived(seed: u64) -> Check<u64> {
    let mut rng = Rng::of(seed, 17);
    let able: Vec<&Workload> = WORKLOADS.iter().filter(|w| !w.is_keyed()).collect();
    let workload = Workload::named(rng.pick(&able).name).expect("one of them");
    let life = live(&Case::new(workload, seed), directly)?;
    let effects = life.recording.effects().len();
    let mut replay = life.recording.replay();
    let mut points: Vec<usize> =
        (0..MOMENTS).map(|_| rng.below(effects as u64 + 1) as usize).collect();
    points.sort_unstable();
    let mut images = 0;
    for point in points {
        replay.seek(point);
        let whole = replay.disk().crash_image(Keep::All, 0);
        let subject = Subject {
            workload,
            seed,
            history: &life.history,
            promise: life.history.at(point),
            files: files(&whole),
        };
        for _ in 0..DAMAGES {
            images += u64::from(subject.damage(&mut rng)?);
        }
    }
    Ok(images)
}

/// A database at a moment.
struct Subject<'a> {
    workload: &'static Workload,
    seed: u64,
    history: &'a History,
    promise: &'a Promise,
    files: Files,
}

fn files(fs: &MemFs) -> Files {
    let listed = fs.list(Path::new(DIR)).unwrap_or_default().into_iter();
    listed
        .map(|file| Path::new(DIR).join(file.name))
        .map(|path| (path.clone(), fs.read(&path)))
        .collect()
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sst")
}

/// What is changed, in words. `None`: nothing could be.
fn change(rng: &mut Rng, files: &mut Files) -> Option<(PathBuf, String)> {
    let path = files.keys().nth(rng.below(files.len().max(1) as u64) as usize)?.clone();
    let others: Vec<PathBuf> =
        files.keys().filter(|other| is_table(other) && **other != path).cloned().collect();
    let other = (!others.is_empty())
        .then(|| files[&others[rng.below(others.len() as u64) as usize]].clone());
    let bytes = files.get_mut(&path)?;
    let before = bytes.clone();
    if bytes.is_empty() {
        return None;
    }
    let at = rng.below(bytes.len() as u64) as usize;
    let kind = if is_table(&path) { rng.below(8) } else { rng.below(3) };
    let what = match kind {
        0 | 1 => {
            bytes[at] ^= 1 << rng.below(8);
            format!("byte {at}: a bit")
        }
        2 => {
            bytes[at] = rng.pick(&[0, 0xff]);
            format!("byte {at}: {:#x}", bytes[at])
        }
        3 => {
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
            format!("bytes {at} to {end}: zeros")
        }
        4 => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
        5 => {
            *bytes = other?;
            "another table in its place".to_owned()
        }
        6 => {
            let end = at.min(other.as_ref()?.len());
            bytes[..end].copy_from_slice(&other?[..end]);
            format!("bytes 0 to {end}: another table's")
        }
        _ => {
            files.remove(&path);
            return Some((path, "removed".to_owned()));
        }
    };
    (*bytes != before).then_some((path, what))
}

impl Subject<'_> {
    fn damage(&self, rng: &mut Rng) -> Check<bool> {
        let mut files = self.files.clone();
        let Some((path, what)) = change(rng, &mut files) else { return Ok(false) };
        let point = self.promise.at;
        let name = path.display();
        self.judge(&files, &path)
            .map_err(|text| format!("{} {name}, {what}, at {point}: {text}", self.workload.name))?;
        Ok(true)
    }

    fn judge(&self, files: &Files, damaged: &Path) -> Check {
        let fs = MemFs::new();
        files.iter().for_each(|(path, bytes)| fs.write(path, bytes));
        match self.found(&fs) {
            Err(Trouble::Wrong(text)) => Err(text),
            Err(Trouble::Refused(e)) => {
                let off = !self.promise.log && e.kind() == ErrorKind::Halted;
                if off && self.promise.phase != Phase::Closed { Ok(()) } else { named(&e) }
            }
            Ok((found, verified)) => {
                // Behind the last sync, a damaged log or manifest looks torn.
                let least = match is_table(damaged) {
                    true => self.promise.acked,
                    false => self.promise.durable,
                };
                self.history.find(&found, self.promise, least)?;
                // Where it is still there it is in use.
                let used = is_table(damaged) && fs.open(damaged).is_ok();
                ensure!(!used || verified.is_err(), "nobody notices");
                verified.or_else(|e| named(&e))
            }
        }
    }

    fn found(&self, fs: &MemFs) -> Result<(State, alluvium::Result<()>), Trouble> {
        let options = self.workload.options(self.seed, self.promise.log);
        let db = Db::open(Path::new(DIR), options, env(Arc::new(fs.clone()), self.seed))?;
        let families = all_families(&db, self.seed)?;
        let found = read(&db, &families, None)?;
        Ok((found, db.verify()))
    }
}

/// An error about damaged bytes names the file.
fn named(e: &Error) -> Check {
    let kind = matches!(e.kind(), ErrorKind::Corruption | ErrorKind::Unsupported);
    ensure!(kind && e.path().is_some(), "an error that does not help: {e}");
    Ok(())
}

/// Tables with the same keys and values of the same lengths: any block could stand in for that of
/// another table, and none does.
fn alike(seed: u64) -> Check<u64> {
    let failed = |e: Error| e.to_string();
    let fs = MemFs::new();
    let open = || Db::open(Path::new(DIR), Options::default(), env(Arc::new(fs.clone()), seed));
    let mut options = family_options(seed, "a");
    options.codecs = [Codec::None; LEVELS];
    options.l0_depth_trigger = 100;
    let db = open().map_err(failed)?;
    let family = db.column_family("a", options.clone()).map_err(failed)?;
    let generations = 3u8;
    for generation in 0..generations {
        for i in 0..12u8 {
            let value = vec![b'a' + generation; 20 + usize::from(i)];
            db.put(&family, &[0, 1, b'k', i], &value).map_err(failed)?;
        }
        db.flush(&family).map_err(failed)?;
    }
    drop(family);
    db.close().map_err(failed)?;
    let good = files(&fs);
    let tables: Vec<&PathBuf> = good.keys().filter(|path| is_table(path)).collect();
    let mut images = 0;
    for (to, from) in tables.iter().flat_map(|to| tables.iter().map(move |from| (to, from))) {
        let (starts, others) = (places(&good[*to]), places(&good[*from]));
        for range in
            starts.windows(2).filter(|range| to != from && others.windows(2).any(|r| r == *range))
        {
            let (start, end) = (range[0], range[1]);
            let mut bytes = good[*to].clone();
            bytes[start..end].copy_from_slice(&good[*from][start..end]);
            if bytes == good[*to] {
                continue;
            }
            fs.write(to, &bytes);
            let found = look(&open, &options);
            fs.write(to, &good[*to]);
            images += 1;
            let noticed = found.is_err_and(|e| e.kind() == ErrorKind::Corruption);
            ensure!(noticed, "bytes {start} to {end} of {} in {}", from.display(), to.display());
        }
    }
    Ok(images)
}

/// Reads everything, but leaves the digests of whole files alone.
fn look(
    open: &dyn Fn() -> alluvium::Result<Db>,
    options: &alluvium::ColumnFamilyOptions,
) -> alluvium::Result<()> {
    let db = open()?;
    let family = db.column_family("a", options.clone())?;
    let mut scan = db.scan(&family, ..)?;
    while scan.next()? {}
    Ok(())
}

/// Where the parts of a table begin, and where it ends.
fn places(table: &[u8]) -> Vec<usize> {
    let report = inspect::inspect(table, Some("000001-000001.sst")).expect("a table");
    let place = |line: &str| line.split_once('@')?.1.split(' ').next()?.parse().ok();
    let mut places: Vec<usize> = report.lines().filter_map(place).collect();
    places.push(table.len());
    places.sort_unstable();
    places.dedup();
    places
}
