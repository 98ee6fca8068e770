//! Random lives of a log, over many crashes.

use super::*;
use crate::base::error::ErrorKind;
use crate::base::rng::Rng;
use crate::fs::memory::image::Keep;
use quickcheck::quickcheck;

/// A database reduced to its log: it appends, syncs and rotates, the power or the process dies at any
/// operation, also during recovery, and it comes back.
struct Machine {
    fs: MemFs,
    rng: Rng,
    /// All payloads that may be in the log, in order.
    history: Vec<Vec<u8>>,
    /// So many of them must be.
    durable: usize,
    appended: u64,
    epoch: u32,
    /// Where the log starts, once one was created.
    from: Option<LogPosition>,
    /// Segments that were left without a sync.
    unsynced: Vec<PathBuf>,
}

impl Machine {
    /// Recovers, then works until something fails. `Err` is what a real caller would have seen.
    fn live(&mut self, steps: u64) -> Result<()> {
        let fs = shared(&self.fs);
        self.epoch += 1;
        self.unsynced.clear();
        let mut reader = open(&fs, self.from).expect("a crash is never corruption");
        let got = drain(&mut reader);
        assert!(got.len() >= self.durable, "lost {} of {}", got.len(), self.durable);
        assert_eq!(got, self.history[..got.len()]);
        reader.make_durable(Path::new(DIR))?;
        self.history.truncate(got.len());
        self.durable = got.len();
        let synced = reader.end().unwrap_or_default();
        let mut counter = 1;
        let mut number = FileNumber::new(self.epoch, counter);
        let mut writer = self.begin(&fs, number, reader.end(), synced)?;
        self.from.get_or_insert(LogPosition::new(number, 0));
        for _ in 0..steps {
            match self.rng.below(10) {
                0..=5 => {
                    self.appended += 1;
                    let len =
                        self.rng.below(if self.appended.is_multiple_of(8) { 900 } else { 60 });
                    let mut payload = self.appended.to_le_bytes().to_vec();
                    payload.resize(8 + len as usize, self.appended as u8);
                    let full = self.rng.below(16) == 0;
                    if full {
                        let room = self.rng.below(payload.len() as u64 + 32);
                        self.fs.set_capacity(Some(self.fs.total_bytes() + room));
                    }
                    let done = writer.append(&payload);
                    self.fs.set_capacity(None);
                    match done {
                        Err(e) if e.kind() == ErrorKind::NoSpace => {
                            self.unsynced.push(writer.path().to_owned());
                            counter += 1;
                            number = FileNumber::new(self.epoch, counter);
                            let (prev, synced) = (writer.position(), writer.synced());
                            writer = self.begin(&fs, number, Some(prev), synced)?;
                        }
                        done => {
                            self.history.push(payload);
                            done?;
                        }
                    }
                }
                6 | 7 => {
                    for path in self.unsynced.drain(..) {
                        fs.sync_file(&path)?;
                    }
                    writer.predecessors_are_durable();
                    let all = self.history.len();
                    writer.sync()?;
                    self.durable = all;
                }
                8 => {
                    let synced = writer.synced();
                    self.unsynced.push(writer.path().to_owned());
                    let prev = writer.position();
                    counter += 1 + self.rng.below(2) as u32;
                    number = FileNumber::new(self.epoch, counter);
                    writer = self.begin(&fs, number, Some(prev), synced)?;
                }
                _ => {
                    for path in self.unsynced.drain(..) {
                        fs.sync_file(&path)?;
                    }
                    writer.predecessors_are_durable();
                    let all = self.history.len();
                    let prev = writer.close()?;
                    self.durable = all;
                    counter += 1;
                    number = FileNumber::new(self.epoch, counter);
                    writer = self.begin(&fs, number, Some(prev), prev)?;
                }
            }
        }
        Ok(())
    }

    /// A segment that reserves space, or does not.
    fn begin(
        &mut self,
        fs: &Arc<dyn Fs>,
        number: FileNumber,
        prev: Option<LogPosition>,
        synced: LogPosition,
    ) -> Result<LogWriter> {
        let mut writer = create(fs, number, prev, synced)?;
        writer.reserve_up_to(self.rng.below(2) * 3000);
        Ok(writer)
    }
}

fn many_lives(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut machine = Machine {
        fs: disk(),
        rng: Rng::new(seed ^ 1),
        history: Vec::new(),
        durable: 0,
        appended: 0,
        epoch: 0,
        from: None,
        unsynced: Vec::new(),
    };
    for _ in 0..6 {
        if rng.below(3) > 0 {
            machine.fs.crash_after(Some(machine.fs.ops() + rng.below(40)));
        }
        let steps = rng.below(30);
        let _ = machine.live(steps);
        // The process dies alone (the disk goes on, unsynced as it is), or the power goes.
        machine.fs.crash_after(None);
        let kept = [None, Some(Keep::Nothing), Some(Keep::Torn), Some(Keep::Sectors)];
        if let Some(keep) = kept[rng.below(4) as usize] {
            machine.fs = machine.fs.crash_image(keep, rng.next_u64());
        }
    }
    let _ = machine.live(0);
}

quickcheck! {
    fn no_crash_loses_what_was_synced_or_is_taken_for_corruption(seed: u64) -> bool {
        (0..10).for_each(|n| many_lives(seed.wrapping_add(n)));
        true
    }
}
