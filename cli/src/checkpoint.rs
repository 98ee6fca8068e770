//! The checkpoints of a directory store. Nothing here changes the store.

use std::io::Write;
use std::path::Path;

use alluvium::CheckpointStore;
use alluvium::DirStore;
use alluvium::Error;
use alluvium::ErrorKind;
use alluvium::ObjectName;
use alluvium::load_checkpoint;
use alluvium::verify_checkpoint;

use crate::Failure;
use crate::Outcome;
use crate::args::CheckpointCommand;
use crate::files;
use crate::text::bytes;

pub fn run(command: CheckpointCommand, out: &mut dyn Write) -> Outcome {
    match command {
        CheckpointCommand::List { store } => list(&store, out),
        CheckpointCommand::Show { store, id } => {
            open(&store)?;
            files::inspect(&store.join(ObjectName::Checkpoint(id).to_string()), out)
        }
        CheckpointCommand::Verify { store, id } => verify(&store, id, out),
    }
}

/// Opens a store that exists; none is created.
fn open(root: &Path) -> alluvium::Result<DirStore> {
    // Opening creates the directories of a new store.
    if !root.join("checkpoints").is_dir() || !root.join("shared").is_dir() {
        let text = "there is no checkpoint store here";
        return Err(Error::new(ErrorKind::NotFound, text).in_file(root));
    }
    DirStore::open(files::disk(), root)
}

fn ids(store: &DirStore) -> alluvium::Result<Vec<u64>> {
    let ids = store.list()?.into_iter().filter_map(|stored| match stored.name {
        ObjectName::Checkpoint(id) => Some(id),
        ObjectName::Shared(_) => None,
    });
    Ok(ids.collect())
}

fn list(root: &Path, out: &mut dyn Write) -> Outcome {
    let store = open(root)?;
    let mut failed = false;
    writeln!(
        out,
        "{:>10} {:>6} {:>8} {:>12}  identity",
        "checkpoint", "parts", "objects", "bytes"
    )?;
    for id in ids(&store)? {
        match load_checkpoint(&store, id) {
            Ok(saved) => {
                let envelope = &saved.envelope;
                let (parts, objects) = (envelope.parts.len(), envelope.objects.len());
                let identity: String = saved.identity.map(|byte| format!("{byte:02x}")).concat();
                let total = bytes(saved.bytes_total);
                writeln!(out, "{id:>10} {parts:>6} {objects:>8} {total:>12}  {identity}")?;
            }
            Err(e) => {
                failed = true;
                writeln!(out, "{id:>10} damaged")?;
                eprintln!("alluvium: {e}");
            }
        }
    }
    if failed { Err(Failure::Told) } else { Ok(()) }
}

fn verify(root: &Path, id: Option<u64>, out: &mut dyn Write) -> Outcome {
    let store = open(root)?;
    let wanted = match id {
        Some(id) => vec![id],
        None => ids(&store)?,
    };
    let bar = files::progress_bar();
    let mut failed = false;
    for id in wanted {
        let verified = load_checkpoint(&store, id).and_then(|saved| {
            bar.inc_length(saved.bytes_total);
            verify_checkpoint(&store, &saved)?;
            bar.inc(saved.bytes_total);
            Ok(saved)
        });
        match verified {
            Ok(saved) => {
                let (objects, total) = (saved.envelope.objects.len(), bytes(saved.bytes_total));
                writeln!(out, "verified: checkpoint {id}, {objects} objects, {total}")?;
            }
            Err(e) => {
                failed = true;
                writeln!(out, "damaged: checkpoint {id}")?;
                bar.suspend(|| eprintln!("alluvium: {e}"));
            }
        }
    }
    bar.finish_and_clear();
    if failed { Err(Failure::Told) } else { Ok(()) }
}
