//! Files and whole databases, looked at without opening them.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use alluvium::DiskFs;
use alluvium::Error;
use alluvium::ErrorKind;
use alluvium::Fs;
use alluvium::inspect::ClosedDb;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::Failure;
use crate::Outcome;
use crate::text::bytes;

/// Nothing of ours is longer.
const FILE_BYTES_MAX: u64 = 4 << 30;

pub fn disk() -> Arc<dyn Fs> {
    Arc::new(DiskFs::new())
}

/// Prints what a file is, and tells on standard error what is wrong with it.
pub fn inspect(path: &Path, out: &mut dyn Write) -> Outcome {
    let file = disk().open(path)?;
    if file.len() > FILE_BYTES_MAX {
        let text = format!("{} is more than any file of this engine has", bytes(file.len()));
        return Err(Error::new(ErrorKind::InvalidArgument, text).in_file(path).into());
    }
    let content = file.read_at(0, file.len() as usize)?;
    let report = alluvium::inspect::inspect(&content, Some(&path.to_string_lossy()))?;
    write!(out, "{report}")?;
    out.flush()?;
    tell(report.damage())
}

/// Fails if something is wrong.
fn tell(damage: &[Error]) -> Outcome {
    damage.iter().for_each(|e| eprintln!("alluvium: {e}"));
    if damage.is_empty() { Ok(()) } else { Err(Failure::Told) }
}

pub fn stats(dir: &Path, out: &mut dyn Write) -> Outcome {
    Ok(write!(out, "{}", ClosedDb::open(&disk(), dir)?)?)
}

pub fn verify(dir: &Path, out: &mut dyn Write) -> Outcome {
    let db = ClosedDb::open(&disk(), dir)?;
    let bar = progress_bar();
    let found = db.verify(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let (tables, logs, read) = (found.tables, found.logs, bytes(found.bytes));
    let what = format!("{tables} tables, {logs} log segments and the manifest, {read}");
    match found.damage.len() {
        0 => writeln!(out, "verified: {what}")?,
        1 => writeln!(out, "damaged: 1 finding in {what}")?,
        n => writeln!(out, "damaged: {n} findings in {what}")?,
    }
    out.flush()?;
    tell(&found.damage)
}

/// On standard error, and only if that is a terminal.
pub fn progress_bar() -> ProgressBar {
    let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template).expect("a template of known keys");
    ProgressBar::new(0).with_style(style)
}
