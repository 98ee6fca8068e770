//! Read-modify-writes of serialized values, and values of several namespaces that become one.

use crate::Update;
use crate::base::error::Result;
use crate::state::cell::Cell;
use crate::state::serializer::Serializer;

/// A read-modify-write of one serialized value: `f` gets the value, fills the buffer and says what is
/// to become of it. For [`Cell::update`] and [`Cell::update_entry`], through `run`.
pub fn rewrite<V: 'static>(
    serializer: &dyn Serializer<Value = V>,
    mut f: impl FnMut(Option<V>, &mut Vec<u8>) -> Update,
    run: impl FnOnce(&mut dyn FnMut(Option<&[u8]>, &mut Vec<u8>) -> Update) -> Result<()>,
) -> Result<()> {
    let mut failure = None;
    run(&mut |old, out| match old.map(|bytes| serializer.decode(bytes)).transpose() {
        Ok(old) => f(old, out),
        Err(e) => {
            failure = Some(e);
            Update::Keep
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// [`rewrite`] by a function of values, where `None` is no value.
pub fn modify<V: 'static>(
    serializer: &dyn Serializer<Value = V>,
    mut f: impl FnMut(Option<V>) -> Option<V>,
    run: impl FnOnce(&mut dyn FnMut(Option<&[u8]>, &mut Vec<u8>) -> Update) -> Result<()>,
) -> Result<()> {
    let change = |old: Option<V>, out: &mut Vec<u8>| {
        let was_there = old.is_some();
        match f(old) {
            Some(new) => {
                serializer.encode(&new, out);
                Update::Put
            }
            None if was_there => Update::Delete,
            None => Update::Keep,
        }
    };
    rewrite(serializer, change, run)
}

/// Makes one value of those in several namespaces of the current key: the sources in their order,
/// then the target, which is where it is put. If the sources have none, nothing changes.
pub fn merge_values<'a, V: 'static, N: 'static>(
    cell: &mut Cell<N>,
    serializer: &dyn Serializer<Value = V>,
    target: &N,
    sources: impl IntoIterator<Item = &'a N>,
    merge: impl Fn(V, V) -> V,
) -> Result<()> {
    let (target, mut cells) = cell.cells(target, sources)?;
    let (mut merged, mut emptied) = (None, Vec::new());
    let sources = cells.len();
    if !cells.contains(&target) {
        cells.push(target.clone());
    }
    for (i, key) in cells.into_iter().enumerate() {
        if i == sources && merged.is_none() {
            return Ok(());
        }
        let decode = |bytes: Option<&[u8]>| bytes.map(|b| serializer.decode(b)).transpose();
        let Some(value) = cell.read_at(&key, decode)? else { continue };
        merged = Some(match merged {
            Some(merged) => merge(merged, value),
            None => value,
        });
        emptied.push(key);
    }
    let Some(merged) = merged else { return Ok(()) };
    let mut bytes = Vec::new();
    serializer.encode(&merged, &mut bytes);
    cell.write(|batch, family| {
        emptied.iter().for_each(|key| batch.delete(family, key));
        batch.put(family, &target, &bytes);
    })
}
