//! The shape of a family's tree, whatever stands for a file in it: a description or a live handle.
//!
//! Level 0 is newest first: by greatest sequence number, then by number. An import keeps each
//! source's order, since its files never overlap another source's. Levels 1 and up are sorted by
//! their bounds, which are disjoint (I2).

use std::collections::BTreeMap;

use crate::base::error::{Error, Result};
use crate::base::id::FileNumber;
use crate::base::key::KeyRange;
use crate::base::limits::LEVELS;
use crate::base::sync::Arc;
use crate::version::edit::FamilyEdit;
use crate::version::meta::FileMeta;

/// Something that stands for a table file.
pub trait Described {
    /// What it stands for.
    fn meta(&self) -> &FileMeta;
}

impl Described for FileMeta {
    fn meta(&self) -> &FileMeta {
        self
    }
}

/// The files of one level in their order. Shared by all versions that have the same level.
pub type Level<F> = Arc<[Arc<F>]>;

/// All levels of a family.
pub type Levels<F> = [Level<F>; LEVELS];

/// A tree without files.
pub fn empty<F>() -> Levels<F> {
    std::array::from_fn(|_| Arc::from(Vec::new()))
}

/// A level from 1 on: the only file whose bounds may hold `key`, by binary search.
#[inline]
pub fn find<'a, F: Described>(level: &'a [Arc<F>], key: &[u8]) -> Option<&'a Arc<F>> {
    let file = level.get(first_ending_after(level, key))?;
    (file.meta().bounds.start.as_slice() <= key).then_some(file)
}

/// A level from 1 on: the place of the first file whose bounds end after `key`.
#[inline]
pub fn first_ending_after<F: Described>(level: &[Arc<F>], key: &[u8]) -> usize {
    level.partition_point(|file| file.meta().bounds.end.as_deref().is_some_and(|end| end <= key))
}

/// A level from 1 on: the places of the files that overlap `range`.
pub fn overlapping<F: Described>(level: &[Arc<F>], range: &KeyRange) -> std::ops::Range<usize> {
    if range.is_empty() {
        return 0..0;
    }
    let from = first_ending_after(level, &range.start);
    let to = match &range.end {
        Some(end) => level.partition_point(|file| file.meta().bounds.start < *end),
        None => level.len(),
    };
    from..to.max(from)
}

/// Level 0 as sorted runs: each is in order and disjoint, as a level from 1 on is. A file is in the first
/// run behind all those with newer files that it overlaps, so that runs are newest first, and about as many
/// as the most files that overlap in one place. Quadratic in the files.
pub fn runs<F: Described>(files: &[Arc<F>]) -> Vec<Level<F>> {
    let mut runs: Vec<Vec<Arc<F>>> = Vec::new();
    for file in files {
        let bounds = &file.meta().bounds;
        let overlaps = |other: &Arc<F>| other.meta().bounds.overlaps(bounds);
        let behind = runs.iter().rposition(|run| run.iter().any(overlaps));
        let place = behind.map_or(0, |behind| behind + 1);
        if place == runs.len() {
            runs.push(Vec::new());
        }
        let run = &mut runs[place];
        let at = run.partition_point(|other| other.meta().bounds.start < bounds.start);
        run.insert(at, Arc::clone(file));
    }
    runs.into_iter().map(Level::from).collect()
}

/// What an edit makes of a tree: the new levels (untouched ones shared), and the files that are gone.
/// A file that moves to another level stays the same handle; `make` makes handles of new ones.
///
/// # Errors
/// `Corruption` if the edit does not fit the tree or breaks its order. Nothing is changed.
pub fn edited<F: Described>(
    levels: &Levels<F>,
    edit: &FamilyEdit,
    mut make: impl FnMut(&Arc<FileMeta>) -> Arc<F>,
) -> Result<(Levels<F>, Vec<Arc<F>>)> {
    let mut touched: [Option<Vec<Arc<F>>>; LEVELS] = std::array::from_fn(|_| None);
    let mut open = |level: u8| {
        let level = usize::from(level);
        assert!(level < LEVELS, "no level {level}");
        touched[level].get_or_insert_with(|| levels[level].to_vec());
    };
    edit.removed.iter().for_each(|(level, _)| open(*level));
    edit.added.iter().for_each(|(level, _)| open(*level));

    let mut leaving = BTreeMap::new();
    for &(level, number) in &edit.removed {
        if leaving.insert(number, level).is_some() {
            return Err(Error::corruption(format!("file {number} is removed twice")));
        }
    }
    let mut gone: BTreeMap<FileNumber, Arc<F>> = BTreeMap::new();
    for (level, files) in touched.iter_mut().enumerate() {
        for file in files.iter_mut().flat_map(|files| {
            files.extract_if(.., |f| leaving.get(&f.meta().number) == Some(&(level as u8)))
        }) {
            gone.insert(file.meta().number, file);
        }
    }
    if let Some((number, level)) = leaving.iter().find(|(number, _)| !gone.contains_key(number)) {
        return Err(Error::corruption(format!("file {number} is not in level {level}")));
    }
    for (level, meta) in &edit.added {
        let file = match gone.remove(&meta.number) {
            Some(file) if file.meta() == &**meta => file,
            Some(_) => {
                let text = format!("file {} moves, but changes on its way", meta.number);
                return Err(Error::corruption(text));
            }
            None => make(meta),
        };
        if let Some(files) = &mut touched[usize::from(*level)] {
            files.push(file);
        }
    }
    let mut after = levels.clone();
    for (level, files) in touched.into_iter().enumerate() {
        if let Some(mut files) = files {
            sort(level, &mut files);
            check(level, &files)?;
            after[level] = files.into();
        }
    }
    Ok((after, gone.into_values().collect()))
}

fn sort<F: Described>(level: usize, files: &mut [Arc<F>]) {
    if level == 0 {
        files.sort_by(|a, b| {
            let (a, b) = (a.meta(), b.meta());
            (b.seqno_max, b.number).cmp(&(a.seqno_max, a.number))
        });
    } else {
        files.sort_by(|a, b| a.meta().bounds.start.cmp(&b.meta().bounds.start));
    }
}

/// Checks the order of one level (I2, I3). Linear in its files, quadratic in level 0's.
///
/// # Errors
/// `Corruption` naming two files that stand against it.
pub fn check<F: Described>(level: usize, files: &[Arc<F>]) -> Result<()> {
    let against = |a: &FileMeta, b: &FileMeta, text: &str| {
        Err(Error::corruption(format!("level {level}: files {} and {} {text}", a.number, b.number)))
    };
    if level > 0 {
        for (a, b) in files.iter().zip(files.iter().skip(1)).map(|(a, b)| (a.meta(), b.meta())) {
            if a.bounds.end.as_ref().is_none_or(|end| *end > b.bounds.start) {
                return against(a, b, "overlap");
            }
        }
        return Ok(());
    }
    for (i, newer) in files.iter().map(|f| f.meta()).enumerate() {
        for older in files[i + 1..].iter().map(|f| f.meta()) {
            if (newer.seqno_max, newer.number) <= (older.seqno_max, older.number) {
                return against(newer, older, "are not in order");
            }
            if newer.seqno_min <= older.seqno_max && newer.bounds.overlaps(&older.bounds) {
                return against(newer, older, "overlap in keys and in sequence numbers");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::meta::tests::meta;

    fn number(n: u32) -> FileNumber {
        FileNumber::new(1, n)
    }

    fn file(n: u32, range: (&str, &str), seqnos: (u64, u64)) -> Arc<FileMeta> {
        Arc::new(meta(number(n), (range.0.as_bytes(), range.1.as_bytes()), seqnos))
    }

    fn apply(levels: &Levels<FileMeta>, edit: &FamilyEdit) -> Result<Levels<FileMeta>> {
        edited(levels, edit, Arc::clone).map(|(levels, _)| levels)
    }

    fn adding(added: &[(u8, Arc<FileMeta>)]) -> FamilyEdit {
        FamilyEdit { added: added.to_vec(), ..FamilyEdit::default() }
    }

    #[test]
    fn levels_keep_their_order_and_refuse_overlap() {
        let good = adding(&[
            (1, file(3, ("m", "p"), (1, 9))),
            (1, file(2, ("a", "m"), (1, 9))),
            (0, file(5, ("a", "z"), (10, 12))),
            (0, file(4, ("a", "z"), (20, 22))),
        ]);
        let levels = apply(&empty(), &good).unwrap();
        let numbers = |level: usize| levels[level].iter().map(|f| f.number.counter());
        assert_eq!(numbers(0).collect::<Vec<_>>(), [4, 5], "newest first");
        assert_eq!(numbers(1).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(find(&levels[1], b"m").unwrap().number, number(3));
        assert_eq!(find(&levels[1], b"lzz").unwrap().number, number(2));
        assert!(find(&levels[1], b"p").is_none() && find(&levels[1], b"").is_none());
        let range = |a: &str, b: &str| KeyRange::new(a, Some(b));
        assert_eq!(overlapping(&levels[1], &range("b", "m")), 0..1);
        assert_eq!(overlapping(&levels[1], &range("b", "m\0")), 0..2);
        assert_eq!(overlapping(&levels[1], &range("p", "q")), 2..2);
        assert_eq!(overlapping(&levels[1], &KeyRange::all()), 0..2);

        for bad in [
            (1, file(9, ("l", "m"), (1, 1))),
            (1, file(9, ("o", "q"), (1, 1))),
            (0, file(9, ("b", "c"), (5, 11))),
            (0, file(9, ("b", "c"), (21, 30))),
        ] {
            let message = apply(&levels, &adding(std::slice::from_ref(&bad))).unwrap_err();
            assert!(message.to_string().contains("overlap"), "{message}");
        }
        apply(&levels, &adding(&[(0, file(9, ("z", "zz"), (5, 30)))])).unwrap();
    }

    #[test]
    fn level_0_is_as_many_runs_as_files_overlap() {
        let files = [
            file(9, ("m", "z"), (30, 39)),
            file(8, ("a", "m"), (30, 38)),
            file(7, ("f", "g"), (20, 29)),
            file(6, ("n", "z"), (20, 28)),
            file(5, ("a", "c"), (20, 27)),
            file(4, ("g", "h"), (10, 19)),
            file(3, ("b", "n"), (1, 9)),
        ];
        let runs = runs(&files);
        let numbers = |run: &Level<FileMeta>| run.iter().map(|f| f.number.counter()).collect();
        let numbers: Vec<Vec<u32>> = runs.iter().map(numbers).collect();
        assert_eq!(numbers, [vec![8, 9], vec![5, 7, 4, 6], vec![3]], "older ones are behind");
        for run in runs {
            check(1, &run).unwrap();
        }
    }

    #[test]
    fn a_moved_file_keeps_its_handle() {
        let a = file(2, ("a", "m"), (1, 9));
        let levels = apply(&empty(), &adding(&[(1, a.clone())])).unwrap();
        let mut edit = adding(&[(2, a.clone())]);
        edit.removed.push((1, a.number));
        let (moved, gone) =
            edited(&levels, &edit, |_| panic!("a moved file is not opened again")).unwrap();
        assert!(gone.is_empty() && moved[1].is_empty() && Arc::ptr_eq(&moved[2][0], &a));
        assert!(Arc::ptr_eq(&moved[0], &levels[0]), "untouched levels are shared");
        edit.added[0].1 = file(2, ("a", "b"), (1, 9));
        assert!(apply(&levels, &edit).is_err(), "it may not change on its way");
        edit.added.clear();
        let (_, gone) = edited(&levels, &edit, Arc::clone).unwrap();
        assert_eq!(gone.len(), 1);
        assert!(apply(&moved, &edit).is_err(), "it is not there any more");
        edit.removed.push((1, a.number));
        assert!(apply(&levels, &edit).is_err(), "once is enough");
    }
}
