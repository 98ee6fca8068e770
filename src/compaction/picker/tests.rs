//! Simulated trees: files are descriptions, and a compaction's outputs are made up.

use super::*;
use crate::base::id::FileId;
use crate::base::id::FileNumber;
use crate::base::key::SEQNO_MAX;
use crate::base::rng::Rng;
use crate::compaction::busy::ClaimId;
use crate::compaction::manual::Next;
use crate::compaction::manual::RangeCompaction;
use crate::version::meta::FileMeta;
use quickcheck::quickcheck;

fn options() -> PickerOptions {
    PickerOptions {
        l0_trigger: 3,
        l0_depth_max: 6,
        base_level_bytes: 400,
        level_multiplier: 3,
        file_bytes: 100,
        compaction_bytes_max: 1000,
        ..PickerOptions::default()
    }
}

fn key(k: u64) -> Vec<u8> {
    (k as u16).to_be_bytes().to_vec()
}

/// A tree, what runs on it, and where everything random comes from.
struct Sim {
    levels: Levels<FileMeta>,
    options: PickerOptions,
    busy: Busy,
    running: Vec<(ClaimId, Compaction<FileMeta>)>,
    rng: Rng,
    counter: u32,
    seqno: SeqNo,
    picks: usize,
    /// What scans have asked, since level 0 was last merged; and what was merged for their sake.
    asked: u64,
    merged: u64,
}

impl Sim {
    fn new(seed: u64, options: PickerOptions) -> Sim {
        Sim {
            levels: levels::empty(),
            options,
            busy: Busy::new(),
            running: Vec::new(),
            rng: Rng::new(seed),
            counter: 0,
            seqno: 0,
            picks: 0,
            asked: 0,
            merged: 0,
        }
    }

    fn file(&mut self, start: u64, end: u64, len: u64, seqnos: (SeqNo, SeqNo)) -> Arc<FileMeta> {
        self.counter += 1;
        let number = FileNumber::new(1, self.counter);
        let tombstones = if self.rng.below(4) == 0 { 5 } else { 0 };
        Arc::new(FileMeta {
            number,
            id: FileId::new(1, number),
            len: len.max(1),
            digest: [0; 32],
            checksum: 0,
            bounds: KeyRange::new(key(start), Some(key(end))),
            clipped: self.rng.below(10) == 0,
            seqno_min: seqnos.0,
            seqno_max: seqnos.1,
            entries: 10,
            deletes: tombstones,
            range_deletes: 0,
            timestamps: None,
            timestamp_extractor: None,
        })
    }

    fn apply(&mut self, edit: &FamilyEdit) {
        self.levels = levels::edited(&self.levels, edit, Arc::clone).unwrap().0;
        if edit.removed.iter().any(|&(level, _)| level == 0) {
            self.asked = 0;
        }
    }

    fn scan(&mut self, times: u64) {
        self.asked += (levels::runs(&self.levels[0]).len() as u64).saturating_sub(1) * times;
    }

    fn flush(&mut self) {
        let start = self.rng.below(1000);
        let wide = self.rng.below(3) == 0;
        let end = start + 1 + self.rng.below(if wide { 1000 } else { 50 });
        let seqnos = (self.seqno + 1, self.seqno + 10);
        self.seqno += 10;
        let len = 1 + self.rng.below(150);
        let file = self.file(start, end, len, seqnos);
        self.apply(&FamilyEdit { added: vec![(0, file)], ..FamilyEdit::default() });
    }

    fn oldest_snapshot(&mut self) -> SeqNo {
        if self.rng.below(2) == 0 { SEQNO_MAX } else { self.rng.below(self.seqno + 1) }
    }

    /// Picks one compaction, checks the plan, and lets it run.
    fn pick(&mut self, oldest_snapshot: SeqNo) -> bool {
        let plan = pick(&self.levels, &self.options, &self.busy, oldest_snapshot, self.asked);
        let Some(plan) = plan else { return false };
        if plan.reason == Reason::Scans {
            let above: u64 = plan.inputs[0].1.iter().map(|file| file.len).sum();
            assert!(above <= self.asked * self.options.l0_scan_bytes, "not paid");
            assert!(plan.bytes() <= 2 * above, "each byte makes no more than one rewritten");
            assert!(depth(&plan.inputs[0].1) >= 2);
            if plan.output_level == 0 {
                let runs = levels::runs(&plan.inputs[0].1);
                let older: u64 = runs[1..].iter().map(|run| bytes(run)).sum();
                let last = bytes(&runs[runs.len() - 1]);
                assert!(last <= 2 * (above - last) && older > 0, "it grows by half");
            }
            self.merged += above;
        }
        self.start(plan);
        true
    }

    fn start(&mut self, plan: Compaction<FileMeta>) {
        self.check(&plan);
        self.picks += 1;
        if let Some(edit) = plan.moved() {
            return self.apply(&edit);
        }
        self.running.push((self.busy.claim(&plan), plan));
    }

    fn check(&self, plan: &Compaction<FileMeta>) {
        let inputs: Vec<&FileMeta> = plan.files().map(|(_, file)| &**file).collect();
        assert!(!inputs.is_empty());
        for meta in &inputs {
            assert!(!self.busy.holds(meta.number), "a busy file was picked");
            assert!(plan.range.covers(&meta.bounds));
        }
        let is_input = |file: &FileMeta| inputs.iter().any(|input| input.number == file.number);
        // I3: nothing that stays above the outputs or beside them is older than an input.
        if plan.level == 0 {
            let stays = self.levels[0].iter().filter(|file| !is_input(file));
            for file in stays {
                for input in inputs.iter().filter(|input| input.bounds.overlaps(&file.bounds)) {
                    let older = file.seqno_max < input.seqno_min;
                    assert!(!older || plan.output_level == 0, "an older file of level 0 stays");
                }
            }
        }
        // What lies deeper and overlaps is below; nothing that overlaps is passed.
        let passed = plan.level.max(1)..=plan.output_level;
        for (level, files) in self.levels.iter().enumerate().skip(1) {
            for file in files.iter().filter(|f| f.bounds.overlaps(&plan.range) && !is_input(f)) {
                if level > plan.output_level {
                    assert!(plan.below.may_hold(&file.bounds.intersect(&plan.range).start));
                } else if plan.output_level > plan.level && level > plan.level {
                    assert!(!passed.contains(&level), "a file of a level on the way is left out");
                }
            }
        }
        assert!(!plan.trivial_move || (inputs.len() == 1 && !inputs[0].clipped));
    }

    /// Ends a running compaction: disjoint outputs inside its range, somewhat smaller than the inputs.
    fn complete(&mut self) {
        let at = self.rng.below(self.running.len() as u64) as usize;
        let (claim, plan) = self.running.swap_remove(at);
        let bytes = plan.bytes() * (6 + self.rng.below(5)) / 10;
        let number = |key: &[u8]| u64::from(u16::from_be_bytes([key[0], key[1]]));
        let (start, end) = (number(&plan.range.start), number(plan.range.end.as_ref().unwrap()));
        let metas = || plan.files().map(|(_, file)| file);
        let low = metas().map(|file| file.seqno_min).min().unwrap();
        let high = metas().map(|file| file.seqno_max).max().unwrap();
        let pieces = (bytes / self.options.file_bytes + 1).min(end - start);
        let mut edit = plan.removal();
        for i in 0..pieces {
            let from = start + (end - start) * i / pieces;
            let to = start + (end - start) * (i + 1) / pieces;
            let mut file = (*self.file(from, to, bytes / pieces, (low, high))).clone();
            file.clipped = false;
            if plan.below.is_empty() {
                file.deletes = 0;
            }
            edit.added.push((plan.output_level as u8, Arc::new(file)));
        }
        self.apply(&edit);
        self.busy.release(claim);
    }

    /// Ends the running compaction with one output that has all bytes of its inputs, or `most`.
    fn complete_as_one(&mut self, most: u64) {
        let (claim, plan) = self.running.pop().unwrap();
        let seqnos = |file: &FileMeta| (file.seqno_min, file.seqno_max);
        let seqnos = plan.files().map(|(_, file)| seqnos(file));
        let seqnos = seqnos.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap();
        let file = (*self.file(0, 1, plan.bytes().min(most), seqnos)).clone();
        let bounds = plan.range.clone();
        let file = FileMeta { bounds, clipped: false, deletes: 0, ..file };
        let mut edit = plan.removal();
        edit.added.push((plan.output_level as u8, Arc::new(file)));
        self.apply(&edit);
        self.busy.release(claim);
    }

    /// Until there is nothing more to do.
    fn settle(&mut self) {
        let begin = self.picks;
        loop {
            while self.running.len() < 3 && self.pick(SEQNO_MAX) {}
            if self.running.is_empty() {
                break;
            }
            self.complete();
            assert!(self.picks - begin < 5000, "the picker never ends");
        }
        assert!(self.busy.is_empty());
        assert!(score_max(&self.levels, &self.options) < FULL, "something is still due");
        self.check_level0();
    }

    /// Nothing runs, and nothing is due: level 0 is not deep, and what is deeper than the trigger would
    /// make the base rewrite more than it brings.
    fn check_level0(&self) {
        let files = &self.levels[0];
        assert!(files.len() < 4 * self.options.l0_trigger, "many files");
        let base = &self.levels[Targets::new(&self.levels, &self.options).base];
        for cluster in clusters(files) {
            assert!(cluster.depth < self.options.l0_depth_max, "depth {}", cluster.depth);
            let above: u64 = cluster.files.iter().map(|&i| files[i].len).sum();
            let below = bytes(&base[levels::overlapping(base, &cluster.range)]);
            assert!(cluster.depth < self.options.l0_trigger || below > above, "it pays");
        }
    }
}

quickcheck! {
    fn every_tree_settles(seed: u64, dynamic: bool, scan_bytes: u8) -> bool {
        let l0_scan_bytes = u64::from(scan_bytes % 50);
        let options = PickerOptions { dynamic_levels: dynamic, l0_scan_bytes, ..options() };
        let mut sim = Sim::new(seed, options);
        for _ in 0..200 {
            match sim.rng.below(5) {
                0 | 1 => sim.flush(),
                4 => sim.scan(seed % 7),
                2 if sim.running.len() < 3 => {
                    let oldest = sim.oldest_snapshot();
                    sim.pick(oldest);
                }
                _ if !sim.running.is_empty() => sim.complete(),
                _ => {}
            }
        }
        sim.settle();
        let dead = |file: &Arc<FileMeta>| file.clipped;
        sim.levels[1..].iter().all(|level| !level.iter().any(dead))
    }

    /// A state that is overwritten again and again, in flushes of all sizes: level 0 is never deeper than
    /// it may be, and it costs the base no more than an equal part, unless it was as deep as that.
    fn level_0_waits_until_it_pays_or_is_deep(seed: u64, size: u64, whole: u64) -> bool {
        let options = PickerOptions { base_level_bytes: 1 << 30, ..options() };
        let mut sim = Sim::new(seed, options);
        let (size, whole) = (1 + size % 100, 1 + whole % 5000);
        for _ in 0..100 {
            sim.seqno += 1;
            let len = 1 + sim.rng.below(size);
            let file = (*sim.file(0, 1, len, (sim.seqno, sim.seqno))).clone();
            let file = Arc::new(FileMeta { clipped: false, deletes: 0, ..file });
            sim.apply(&FamilyEdit { added: vec![(0, file)], ..FamilyEdit::default() });
            while let Some(plan) = picked(&sim) {
                let depth = sim.levels[0].len();
                assert!(plan.files().count() >= 2 && depth >= sim.options.l0_trigger);
                if plan.reason == Reason::Level0 {
                    let above: u64 = bytes(&sim.levels[0]);
                    assert_eq!(plan.inputs[0].1.len(), depth, "all of it");
                    assert!(plan.bytes() <= 2 * above || depth == sim.options.l0_depth_max);
                }
                sim.start(plan);
                sim.complete_as_one(whole);
            }
            sim.check_level0();
        }
        true
    }

    /// What is written once, in pieces that overlap nothing, ends in few files, and no byte is
    /// rewritten for their sake more often than its file can double.
    fn small_files_do_not_stay(seed: u64, dynamic: bool) -> bool {
        let small = 4096 / SMALL_PART;
        let options = PickerOptions {
            dynamic_levels: dynamic,
            file_bytes: 4096,
            base_level_bytes: 1 << 20,
            compaction_bytes_max: 1 << 20,
            ..options()
        };
        let mut sim = Sim::new(seed, options);
        let mut order: Vec<u64> = (0..500).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, sim.rng.below(i as u64 + 1) as usize);
        }
        let mut rewritten = 0;
        for k in order {
            sim.seqno += 1;
            let file = (*sim.file(k, k + 1, 1 + k % 7, (sim.seqno, sim.seqno))).clone();
            let file = Arc::new(FileMeta { clipped: false, deletes: 0, ..file });
            sim.apply(&FamilyEdit { added: vec![(0, file)], ..FamilyEdit::default() });
            loop {
                let plan = picked(&sim);
                let Some(plan) = plan else { break };
                if plan.reason == Reason::SmallFiles && plan.level > 0 {
                    rewritten += plan.bytes();
                }
                sim.start(plan);
                if !sim.running.is_empty() {
                    sim.complete_as_one(u64::MAX);
                }
            }
        }
        let all = || sim.levels.iter().flat_map(|level| level.iter());
        let sum: u64 = all().map(|file| file.meta().len).sum();
        assert!(rewritten <= sum * u64::from(small.ilog2() + 1), "{rewritten} of {sum}");
        let runs = sim.levels[1..].iter().all(|level| {
            level.windows(SMALL_RUN).all(|run| {
                let largest = run.iter().map(|f| f.meta().len).max().unwrap();
                largest > small || largest > bytes(run) / 2
            })
        });
        runs && all().count() < 100
    }

    /// Where nothing else is due, files of about one size are merged when scans have paid for level 0, and
    /// never before.
    fn scans_pay_for_a_shallow_level_0(seed: u64, times: u8, scan_bytes: u8) -> bool {
        let (times, l0_scan_bytes) = (u64::from(times), u64::from(scan_bytes));
        let mut sim = Sim::new(seed, PickerOptions {
            l0_trigger: 100,
            l0_depth_max: 100,
            l0_scan_bytes,
            base_level_bytes: 1 << 30,
            ..options()
        });
        let mut paid = 0;
        for i in 0..60 {
            let (level, most) = if i == 0 { (6, 2000) } else { (0, 30) };
            let len = sim.rng.below(most);
            let file = (*sim.file(0, 10, len, (i, i))).clone();
            let file = Arc::new(FileMeta { clipped: false, deletes: 0, ..file });
            sim.apply(&FamilyEdit { added: vec![(level, file)], ..FamilyEdit::default() });
            let before = sim.asked;
            sim.scan(times);
            paid += (sim.asked - before) * l0_scan_bytes;
            let lens: Vec<u64> = sim.levels[0].iter().map(|file| file.len).collect();
            let pays = lens.iter().sum::<u64>() <= sim.asked * l0_scan_bytes;
            let alike = lens.len() > 1 && lens[1] <= 2 * lens[0];
            let grown = lens.iter().sum::<u64>() >= bytes(&sim.levels[6]);
            assert_eq!(sim.pick(SEQNO_MAX), pays && lens.len() > 1 && (alike || grown));
            if !sim.running.is_empty() {
                sim.complete_as_one(u64::MAX);
                assert!(sim.levels[0].len() < lens.len() && sim.asked == 0);
            }
            assert!(sim.merged <= paid);
        }
        true
    }

    fn a_range_goes_down_to_the_bottom(seed: u64, start: u16, len: u16) -> bool {
        let mut sim = Sim::new(seed, options());
        for _ in 0..60 {
            sim.flush();
            if sim.rng.below(3) == 0 {
                sim.pick(SEQNO_MAX);
            }
            if sim.rng.below(3) == 0 && !sim.running.is_empty() {
                sim.complete();
            }
        }
        let start = u64::from(start % 1000);
        let range = KeyRange::new(key(start), Some(key(start + 1 + u64::from(len % 500))));
        let mut walk = RangeCompaction::new(&sim.levels, range.clone(), true);
        let newest = sim.levels.iter().flat_map(|l| l.iter()).map(|f| f.number).max();
        for _ in 0..2000 {
            match walk.next(&sim.levels, &sim.options, &sim.busy) {
                Next::Run(plan) => sim.start(plan),
                Next::Wait => sim.complete(),
                Next::Done => {
                    while !sim.running.is_empty() {
                        sim.complete();
                    }
                    let holds = |level: &levels::Level<FileMeta>| {
                        level.iter().any(|f| f.bounds.overlaps(&range))
                    };
                    let old = |f: &Arc<FileMeta>| f.bounds.overlaps(&range) && Some(f.number) <= newest;
                    let levels = sim.levels.iter().filter(|level| holds(level)).count();
                    return levels <= 1 && !sim.levels.iter().any(|level| level.iter().any(old));
                }
            }
            if sim.running.len() > 1 {
                sim.complete();
            }
        }
        false
    }
}

fn tree(files: &[(u8, u64, u64, u64)]) -> Sim {
    let mut sim = Sim::new(1, options());
    for (i, &(level, start, end, len)) in files.iter().enumerate() {
        let seqno = 1000 - i as SeqNo;
        let mut file = (*sim.file(start, end, len, (seqno, seqno))).clone();
        (file.clipped, file.deletes) = (false, 0);
        let edit = FamilyEdit { added: vec![(level, Arc::new(file))], ..FamilyEdit::default() };
        sim.apply(&edit);
    }
    sim
}

fn picked(sim: &Sim) -> Option<Compaction<FileMeta>> {
    pick(&sim.levels, &sim.options, &sim.busy, SEQNO_MAX, sim.asked)
}

#[test]
fn depth_counts_not_files() {
    let apart: Vec<_> = (0..8).map(|i| (0, i * 10, i * 10 + 10, 50)).collect();
    assert!(picked(&tree(&apart)).is_none(), "eight files side by side are no depth");
    let sim = tree(&[(0, 0, 50, 50), (0, 40, 90, 50), (0, 45, 47, 50), (0, 200, 210, 50)]);
    let plan = picked(&sim).unwrap();
    assert_eq!((plan.level, plan.output_level, plan.files().count()), (0, LEVELS - 1, 3));
    assert_eq!(plan.range, KeyRange::new(key(0), Some(key(90))));
    assert!(plan.below.is_empty());
}

#[test]
fn scans_merge_runs_not_files_and_the_deepest_cluster_that_can_be() {
    let asked = |mut sim: Sim| {
        (sim.options.l0_trigger, sim.options.l0_depth_max) = (100, 100);
        sim.options.base_level_bytes = 1 << 30;
        sim.asked = 1 << 30;
        sim
    };
    let base = (6, 0, 1000, 5000);
    // A run of four pieces is not of the size of one piece.
    let pieces = [(0, 0, 10, 60), (0, 10, 20, 60), (0, 20, 30, 60), (0, 30, 40, 60)];
    let small = (0, 0, 40, 40);
    let mut files = vec![small];
    files.extend(pieces);
    files.push(base);
    assert!(picked(&asked(tree(&files))).is_none());
    files[0] = (0, 0, 40, 120);
    let plan = picked(&asked(tree(&files))).unwrap();
    assert_eq!((plan.reason, plan.output_level, plan.files().count()), (Reason::Scans, 0, 5));
    let newest_first = plan.inputs[0].1.is_sorted_by(|a, b| a.seqno_max > b.seqno_max);
    assert!(newest_first);

    // A deeper cluster that cannot be merged does not hide another.
    let deep = [(0, 500, 510, 1), (0, 500, 510, 50), (0, 500, 510, 200)];
    files.splice(5..5, deep);
    let plan = picked(&asked(tree(&files))).unwrap();
    assert_eq!(plan.range, KeyRange::new(key(0), Some(key(40))));
    let mut sim = asked(tree(&files));
    sim.options.l0_scan_bytes = 0;
    assert!(picked(&sim).is_none(), "never");
}

#[test]
fn pieces_as_large_as_outputs_are_not_merged_for_their_number() {
    // Sixteen side by side, above a base that is much larger than any: as many would come out again.
    let mut files: Vec<_> = (0..16).map(|i| (0, i * 10, i * 10 + 10, 100)).collect();
    files.push((6, 0, 1000, 100_000));
    let mut sim = tree(&files);
    sim.options.compaction_bytes_max = 1 << 20;
    sim.options.base_level_bytes = 1 << 30;
    let plan = picked(&sim).unwrap();
    assert_eq!((plan.reason, plan.output_level), (Reason::Level0, 6));
}

#[test]
fn small_files_wait_for_each_other_instead_of_rewriting_the_base() {
    let base = [(6, 0, 500, 200), (6, 500, 1000, 200)];
    let small = [(0, 0, 999, 3), (0, 0, 999, 3), (0, 0, 999, 3)];
    let plan = picked(&tree(&[&small[..], &base].concat())).unwrap();
    assert_eq!((plan.reason, plan.output_level), (Reason::SmallFiles, 0));
    assert!(plan.below.may_hold(&key(700)) && !plan.trivial_move);
    let large = small.map(|f| (f.0, f.1, f.2, 140));
    let plan = picked(&tree(&[&large[..], &base].concat())).unwrap();
    assert_eq!((plan.reason, plan.output_level, plan.files().count()), (Reason::Level0, 6, 5));
}

#[test]
fn what_is_neither_small_nor_as_large_as_the_base_waits_until_it_is_deep() {
    let base = [(6, 0, 500, 200), (6, 500, 1000, 200)];
    let of = |depth: usize, len| tree(&[&vec![(0, 0, 999, len); depth][..], &base].concat());
    assert!((3..6).all(|depth| picked(&of(depth, 60)).is_none()), "300 bytes would rewrite 400");
    let plan = picked(&of(6, 60)).unwrap();
    assert_eq!((plan.reason, plan.files().count()), (Reason::Level0, 8), "360, but deep");
    let plan = picked(&of(5, 80)).unwrap();
    assert_eq!((plan.reason, plan.files().count()), (Reason::Level0, 7), "as much as the base");
    // Writers are held up from another depth on.
    let mut sim = of(4, 60);
    sim.options.l0_depth_max = 4;
    assert_eq!(picked(&sim).unwrap().reason, Reason::Level0);
    sim.options.l0_depth_max = 2;
    assert_eq!(picked(&sim).unwrap().files().count(), 6);
    // Small ones above a large one have nothing to be merged with: the base is not rewritten for them.
    let mixed = [(0, 0, 999, 1), (0, 0, 999, 9), (0, 0, 999, 60)];
    assert!(picked(&tree(&[&mixed[..], &base].concat())).is_none());
}

#[test]
fn the_files_of_one_flush_are_not_merged_for_nothing() {
    let base = [(6, 0, 1000, 400)];
    let older = [(0, 0, 999, 40), (0, 0, 999, 40)];
    let flush = [(0, 0, 500, 4), (0, 500, 999, 4)];
    assert!(picked(&tree(&[&flush[..], &older, &base].concat())).is_none(), "two side by side");
    let plan = picked(&tree(&[&flush[..], &flush, &older, &base].concat())).unwrap();
    assert_eq!((plan.reason, plan.files().count()), (Reason::SmallFiles, 4), "two flushes");
}

#[test]
fn level_0_goes_first_when_it_is_more_urgent() {
    let files = |depth: usize, len| {
        let above = vec![(0, 0, 999, 100); depth];
        picked(&tree(&[&above[..], &[(5, 0, 999, len), (6, 0, 999, 1200)]].concat())).unwrap()
    };
    assert_eq!((files(6, 790).level, files(6, 810).level), (0, 5), "twice the trigger, the target");
    assert_eq!(files(3, 450).level, 5, "not due: the base alone is");
}

#[test]
fn a_level_opens_above_a_full_base() {
    let targets = |len| Targets::new(&tree(&[(6, 0, 10, len)]).levels, &options());
    assert_eq!(targets(400).base, 6);
    let larger = targets(1100);
    assert_eq!((larger.base, larger.bytes[5]), (5, 400));
    assert_eq!(targets(5000).base, 3);
    let fixed = PickerOptions { dynamic_levels: false, ..options() };
    let fixed = Targets::new(&tree(&[(6, 0, 10, 400)]).levels, &fixed);
    assert_eq!((fixed.base, fixed.bytes[1], fixed.bytes[2]), (1, 400, 1200));
}

#[test]
fn moves_what_overlaps_nothing() {
    let mut sim = tree(&[(5, 0, 10, 450), (6, 20, 30, 1300)]);
    let plan = picked(&sim).unwrap();
    assert!(plan.trivial_move);
    let edit = plan.moved().unwrap();
    sim.apply(&edit);
    assert_eq!((sim.levels[5].len(), sim.levels[6].len()), (0, 2));
}

#[test]
fn outputs_of_running_jobs_are_kept_clear() {
    // The first job's inputs leave a gap that its output spans.
    let mut sim = tree(&[(5, 0, 10, 450), (5, 40, 50, 450), (6, 0, 100, 900), (6, 100, 110, 1300)]);
    let plan = picked(&sim).unwrap();
    assert_eq!((plan.level, plan.range.clone()), (5, KeyRange::new(key(0), Some(key(100)))));
    sim.start(plan);
    let gap = Arc::clone(&tree(&[(5, 20, 30, 9)]).levels[5][0]);
    let gap = Arc::new(FileMeta { number: FileNumber::new(1, 99), ..(*gap).clone() });
    sim.apply(&FamilyEdit { added: vec![(5, gap)], ..FamilyEdit::default() });
    let picker = Picker {
        levels: &sim.levels,
        options: &sim.options,
        busy: &Busy::new(),
        targets: Targets::new(&sim.levels, &sim.options),
    };
    let cross = picker.plan(Reason::Manual, 5, 6, vec![Arc::clone(&sim.levels[5][1])]);
    assert!(!sim.busy.allows(&cross));
}

#[test]
fn dead_weight_is_rewritten_once_and_only_when_it_goes() {
    let mut sim = tree(&[(6, 0, 10, 50)]);
    let with = |sim: &mut Sim, clipped, deletes| {
        let file = FileMeta { clipped, deletes, ..(*sim.levels[6][0]).clone() };
        sim.levels[6] = Arc::from(vec![Arc::new(file)]);
    };
    assert!(picked(&sim).is_none());
    with(&mut sim, true, 0);
    let plan = picked(&sim).unwrap();
    assert_eq!((plan.reason, plan.level, plan.output_level), (Reason::Clipped, 6, 6));
    with(&mut sim, false, 5);
    assert_eq!(picked(&sim).unwrap().reason, Reason::Tombstones);
    let beside = pick(&sim.levels, &sim.options, &sim.busy, 3, 0);
    assert!(beside.is_none(), "a snapshot needs them");
}
