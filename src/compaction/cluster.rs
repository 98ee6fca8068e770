//! Tables of level 0 that hang together.

use crate::base::key::KeyRange;
use crate::base::sync::Arc;
use crate::version::levels::Described;

/// The smallest range that holds the bounds of all these files.
pub(super) fn hull<'a, F: Described + 'a>(files: impl Iterator<Item = &'a Arc<F>>) -> KeyRange {
    files.fold(KeyRange::new(vec![], Some(vec![])), |hull, file| join(hull, &file.meta().bounds))
}

/// The smallest range that holds both.
pub(super) fn join(a: KeyRange, b: &KeyRange) -> KeyRange {
    if a.is_empty() || b.is_empty() {
        return if a.is_empty() { b.clone() } else { a };
    }
    let end = match (a.end, &b.end) {
        (Some(a), Some(b)) => Some(a.max(b.clone())),
        _ => None,
    };
    KeyRange { start: a.start.min(b.start.clone()), end }
}

/// Files of level 0 whose bounds hang together.
pub(super) struct Cluster {
    /// Their places in level 0, newest first.
    pub(super) files: Vec<usize>,
    pub(super) range: KeyRange,
    /// The most files that overlap in one key.
    pub(super) depth: usize,
}

/// Level 0 in clusters, ascending by key. No file of one overlaps the range of another. O(n²).
pub(super) fn clusters<F: Described>(files: &[Arc<F>]) -> Vec<Cluster> {
    let mut order: Vec<usize> =
        (0..files.len()).filter(|&i| !files[i].meta().bounds.is_empty()).collect();
    order.sort_by(|&a, &b| files[a].meta().bounds.start.cmp(&files[b].meta().bounds.start));
    let mut out: Vec<Cluster> = Vec::new();
    for i in order {
        let bounds = &files[i].meta().bounds;
        match out.last_mut().filter(|cluster| cluster.range.overlaps(bounds)) {
            Some(cluster) => {
                cluster.files.push(i);
                cluster.range = join(std::mem::take(&mut cluster.range), bounds);
                let holds = |j: &&usize| files[**j].meta().bounds.contains(&bounds.start);
                cluster.depth = cluster.depth.max(cluster.files.iter().filter(holds).count());
            }
            None => out.push(Cluster { files: vec![i], range: bounds.clone(), depth: 1 }),
        }
    }
    out.iter_mut().for_each(|cluster| cluster.files.sort_unstable());
    out
}

/// The most of these files that overlap in one key.
pub(super) fn depth<F: Described>(files: &[Arc<F>]) -> usize {
    clusters(files).iter().map(|cluster| cluster.depth).max().unwrap_or(0)
}
