//! No file handles, no file size, no space: every answer is right or an error, what was acknowledged
//! is there when the limit is gone, and nothing that was refused is.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use alluvium::{Background, Error, WriteOptions};

use crate::Settings;
use crate::child::Word;
use crate::kill::{Heard, command};
use crate::oracle::{self, Batch, Model};
use crate::stats::Stats;

/// A limit, as a shell sets it.
struct Limit {
    name: &'static str,
    shell: String,
}

/// Sizes of files in KiB, the last one only for tables and manifests; and numbers of open files.
fn limits() -> Vec<Limit> {
    let size = |kib: u64| Limit {
        name: "file_size",
        // The unit is 512 bytes by POSIX and in dash, 1,024 in bash. SIGXFSZ would kill; ignored, it
        // is EFBIG.
        shell: format!("trap '' XFSZ; ulimit -f {}", kib * 2),
    };
    let files = |n: u64| Limit { name: "open_files", shell: format!("ulimit -n {n}") };
    let mut limits: Vec<Limit> = [4, 16, 48, 90, 150].map(size).into();
    limits.extend([6, 9, 12, 16, 20, 26, 34, 44].map(files));
    limits
}

#[expect(clippy::disallowed_methods, reason = "measures; makes directories")]
pub fn run(settings: &Settings, stats: &mut Stats) -> Result<(), String> {
    let dir = settings.dir.join("limited");
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let mut model = Model::new(settings.seed, 1);
    for limit in limits() {
        let heard = live(&dir, settings.seed, Some(&limit.shell))?;
        let done = judge(&dir, &heard, &mut model, stats);
        done.map_err(|text| format!("{} ({}): {text}", limit.name, limit.shell))?;
        stats.add(limit.name, 1);
    }
    space(settings, stats)?;
    Ok(())
}

/// Runs a limited child to its end.
fn live(dir: &Path, seed: u64, limits: Option<&str>) -> Result<Heard, String> {
    let (path, seed) = (dir.to_string_lossy(), seed.to_string());
    let words = ["limited", &*path, &*seed, "1"];
    // What it says of its end is expected.
    let child = command(limits, &words).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|e| e.to_string())?;
    let mut said = Vec::new();
    let mut pipe = child.stdout.take().expect("it was asked for");
    pipe.read_to_end(&mut said).map_err(|e| e.to_string())?;
    let status = child.wait().map_err(|e| e.to_string())?;
    let words = said.as_chunks().0.iter().map(Word::parse).collect();
    match status.code() {
        // 0: it lived to its end; 1: it could not be opened; 127: not even the program could start.
        Some(0 | 1 | 126 | 127) => Ok(Heard { words }),
        _ => Err(format!("the child ended with {status}: it panicked or was killed")),
    }
}

/// The limit is gone: a prefix, all that was acknowledged, nothing that was refused; and it goes on.
fn judge(dir: &Path, heard: &Heard, model: &mut Model, stats: &mut Stats) -> Result<(), String> {
    let told = |e: Error| e.to_string();
    let before = model.written[0];
    let acked = heard.last(Word::ACK, 0).unwrap_or(before);
    let unknown = heard.last(Word::UNKNOWN, 0);
    let (db, families) = oracle::open(dir, Background::Inline).map_err(told)?;
    let found = oracle::number(&db, &families, 0).map_err(told)?;
    let most = if unknown == Some(acked + 1) { acked + 1 } else { acked };
    if !(acked..=most).contains(&found) {
        return Err(format!("{acked} acknowledged, {unknown:?} unknown, {found} found"));
    }
    model.advance(0, found);
    model.compare(&db, &families)?;
    db.verify().map_err(told)?;
    for n in found + 1..=found + 20 {
        let batch = Batch::new(model.seed(), 0, n);
        db.write(&batch.encode(&families), WriteOptions { sync: batch.sync }).map_err(told)?;
    }
    model.advance(0, found + 20);
    model.compare(&db, &families)?;
    stats.add("batches_acknowledged", acked - before);
    for (name, kind) in
        [("refused", Word::REFUSED), ("unknown", Word::UNKNOWN), ("failed", Word::FAILED)]
    {
        let count = heard.words.iter().filter(|word| word.kind == kind).count();
        stats.add(name, count as u64);
    }
    Ok(())
}

/// A file system in memory of a given size; unmounted when it is dropped.
struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    #[expect(clippy::disallowed_methods, reason = "makes a directory")]
    fn new(dir: &Path, kib: u64) -> Result<Mounted<'_>, String> {
        std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
        mount(dir, &format!("size={kib}k"))?;
        Ok(Mounted(dir))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

fn mount(dir: &Path, options: &str) -> Result<(), String> {
    let done = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(dir)
        .output()
        .map_err(|e| format!("mount: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
    }
}

/// A full disk. Where nothing may be mounted, the limits of the file size above are all there is, and
/// the report says so.
#[expect(clippy::disallowed_methods, reason = "makes files")]
fn space(settings: &Settings, stats: &mut Stats) -> Result<(), String> {
    let dir = settings.dir.join("small");
    for (round, kib) in [260u64, 400, 600].into_iter().enumerate() {
        let disk = match Mounted::new(&dir, kib) {
            Ok(disk) => disk,
            Err(e) => {
                println!("no small disk: {e}; space is limited by the size of files only");
                stats.add("full_disks", 0);
                return Ok(());
            }
        };
        let mut model = Model::new(settings.seed + round as u64, 1);
        let inside = dir.join("db");
        std::fs::create_dir_all(&inside).map_err(|e| e.to_string())?;
        for life in 0..3 {
            // What is taken away first, so that writing must resume.
            let ballast = vec![0x55u8; (kib << 10) as usize / 3];
            let _ = std::fs::write(inside.join("ballast"), ballast);
            let heard = live(&inside, settings.seed + round as u64, None)?;
            let _ = std::fs::remove_file(inside.join("ballast"));
            let refused = heard.last(Word::REFUSED, 0).is_some();
            stats.add("lives_on_a_full_disk", u64::from(refused));
            stats.add("resumed", u64::from(heard.last(Word::RESUMED, 0).is_some()));
            mount(&dir, "remount,size=64m")?;
            let judged = judge(&inside, &heard, &mut model, stats);
            judged.map_err(|text| format!("a disk of {kib} KiB, life {life}: {text}"))?;
            // As small as it was, if what is there fits.
            let _ = mount(&dir, &format!("remount,size={kib}k"));
        }
        stats.add("full_disks", 1);
        drop(disk);
    }
    Ok(())
}
