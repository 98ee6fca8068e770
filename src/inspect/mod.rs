//! What the engine's files say, for people: any one file byte for byte, and a whole closed database.
//!
//! The question this folder answers: *what is in this file, and what is wrong with it?* Nothing here
//! writes anything, and no bytes, whatever they are, make it panic.

mod closed;
mod envelope;
mod layouts;
mod log;
mod manifest;
mod report;
mod table;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::format::FileKind;
use crate::base::format::VERSION;
use crate::base::format::VERSION_OLDEST;
use crate::base::format::kind_of_file;
use crate::version::current;
use crate::version::names::FileName;

/// The versions of the on-disk formats that this build reads; it writes the last. 0: unreleased.
pub const FORMAT_VERSIONS: std::ops::RangeInclusive<u16> = VERSION_OLDEST..=VERSION;

pub use crate::base::format::Field;
pub use crate::base::format::Layout;
pub use crate::inspect::closed::ClosedDb;
pub use crate::inspect::closed::ClosedFamily;
pub use crate::inspect::closed::Verified;
pub use crate::inspect::layouts::layouts;
pub use crate::inspect::layouts::layouts_markdown;
pub use crate::inspect::report::Report;

/// Describes the bytes of one whole file: a log segment, a manifest, `CURRENT`, a table or an
/// envelope, told apart by the preamble at its front or end. Goes on behind damage where that is
/// possible; what is damaged stands in the text and in [`Report::damage`].
///
/// `name`, the file's name or path, goes into errors; where the preamble is damaged, it says what the
/// file should have been.
///
/// Allocates in the order of the length of `bytes`, and one unpacked block of a table at a time.
///
/// # Errors
/// `Corruption` if the file is none of the engine's, or is damaged where nothing can be told without
/// it (the footer of a table, the header of a log); `Unsupported` if a newer build wrote it.
pub fn inspect(bytes: &[u8], name: Option<&str>) -> Result<Report> {
    let path = name.map(Path::new);
    let mut report = Report::new(bytes.len(), path);
    let file_name = path.and_then(Path::file_name).and_then(|name| name.to_str());
    let named = file_name.and_then(FileName::parse);
    let described = match kind_of_file(bytes).or_else(|| kind_by_name(named?)) {
        Some(FileKind::Log) => log::describe(&mut report, bytes, FileKind::Log, named),
        Some(FileKind::Manifest) => log::describe(&mut report, bytes, FileKind::Manifest, named),
        Some(FileKind::Current) => describe_current(&mut report, bytes),
        Some(FileKind::Table) => table::describe(&mut report, bytes),
        Some(FileKind::Envelope) => envelope::describe(&mut report, bytes),
        None => Err(Error::corruption("not a file of this engine").at(0)),
    };
    match (described, path) {
        (Ok(()), _) => Ok(report.finish()),
        (Err(e), Some(path)) => Err(e.in_file(path)),
        (Err(e), None) => Err(e),
    }
}

fn kind_by_name(name: FileName) -> Option<FileKind> {
    match name {
        FileName::Table(_) => Some(FileKind::Table),
        FileName::Log(_) | FileName::LogTemporary(_) => Some(FileKind::Log),
        FileName::Manifest(_) => Some(FileKind::Manifest),
        FileName::Current => Some(FileKind::Current),
        FileName::CurrentTemporary(_) => None,
    }
}

fn describe_current(report: &mut Report, bytes: &[u8]) -> Result<()> {
    let manifest = current::decode(bytes)?;
    report.line(0, format_args!("pointer to the current manifest, {} bytes", bytes.len()));
    report.line(1, format_args!("manifest {}", FileName::Manifest(manifest)));
    Ok(())
}
