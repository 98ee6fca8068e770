//! A list for each key; F6.3: its value, and the merge operator that appends to it.
//!
//! ```text
//! list:  ( length varint ‖ element )*
//! ```
//! Such sequences are joined by writing one behind the other, so appending is a merge that reads
//! nothing. A list without elements has no value at all: whoever clears a list deletes its key.

use crate::MergeOperator;
use crate::base::coding::Decoder;
use crate::base::coding::put_prefixed;
use crate::base::error::Result;
use crate::base::format::Layout;
use crate::base::format::field;
use crate::base::limits::COMBINE_BYTES_MAX;
use crate::base::sync::Arc;
use crate::state::cell::Cell;
use crate::state::serializer::Serializer;
use crate::state::serializer::put_delimited;
use crate::state::snapshot::StateSnapshot;
use crate::state::ttl::Ttl;

/// F6.3.
pub const LAYOUTS: &[Layout] = &[Layout {
    id: "F6.3",
    title: "Value of a list state; the fields repeat up to the end",
    fields: &[
        field("0", "v", "length", "bytes of the element"),
        field("", "n", "element", "the serialized element"),
    ],
}];

/// The elements of a list given as its base value and operands, oldest first.
///
/// Yields `Corruption` once where the bytes are no list, and nothing after that.
#[derive(Clone, Debug)]
pub struct Elements<'a, P> {
    current: Decoder<'a>,
    parts: P,
}

impl<'a, P: Iterator<Item = &'a [u8]>> Elements<'a, P> {
    /// Goes through the parts in order. No element may stretch over two of them.
    pub fn new(parts: impl IntoIterator<IntoIter = P>) -> Elements<'a, P> {
        Elements { current: Decoder::new(&[]), parts: parts.into_iter() }
    }
}

impl<'a, P: Iterator<Item = &'a [u8]>> Iterator for Elements<'a, P> {
    type Item = Result<&'a [u8]>;

    fn next(&mut self) -> Option<Result<&'a [u8]>> {
        while self.current.is_empty() {
            self.current = Decoder::new(self.parts.next()?);
        }
        let element = self.current.prefixed();
        if element.is_err() {
            self.current = Decoder::new(&[]);
            self.parts.by_ref().for_each(drop);
        }
        Some(element)
    }
}

/// The merge operator of list states: operands follow the base in the order they were written.
///
/// It copies and does not look inside: `Elements` checks when the list is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListAppend;

/// The operator's name in the manifest.
pub const LIST_APPEND: &str = "alluvium.list-append";

impl MergeOperator for ListAppend {
    fn name(&self) -> &str {
        LIST_APPEND
    }

    fn merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let parts = || base.into_iter().chain(operands.iter().copied());
        out.reserve(parts().map(<[u8]>::len).sum());
        parts().for_each(|part| out.extend_from_slice(part));
        Ok(())
    }

    fn combine(&self, _key: &[u8], older: &[u8], newer: &[u8], out: &mut Vec<u8>) -> bool {
        let small = older.len() + newer.len() <= COMBINE_BYTES_MAX;
        if small {
            out.extend_from_slice(older);
            out.extend_from_slice(newer);
        }
        small
    }

    fn concatenates(&self) -> bool {
        true
    }
}

/// The elements of a list, each rewritten, as operands of a good size, whatever the size of the parts.
pub fn repack<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    mut rewrite: impl FnMut(&[u8], &mut Vec<u8>) -> Result<()>,
    operands: &mut Vec<Vec<u8>>,
) -> Result<()> {
    let (mut operand, mut bytes) = (Vec::new(), Vec::new());
    for element in Elements::new(parts) {
        bytes.clear();
        rewrite(element?, &mut bytes)?;
        put_prefixed(&mut operand, &bytes);
        if operand.len() >= COMBINE_BYTES_MAX {
            operands.push(std::mem::take(&mut operand));
        }
    }
    if !operand.is_empty() {
        operands.push(operand);
    }
    Ok(())
}

/// A list for each key and namespace: Flink's `ListState`. Appending reads nothing.
///
/// All calls concern the backend's current key and this handle's current namespace. They return
/// `InvalidArgument` if there is no current key or namespace, or the backend is closed; otherwise
/// the errors of the database. A list that was never written, or was cleared, is an empty `Vec`.
///
/// The elements of one write take at most 32 MiB together, unless the database's `value_bytes_max`
/// says otherwise; beyond it the write is refused with `InvalidArgument`. The whole list may be longer.
pub struct ListState<T, N = ()> {
    pub(in crate::state) cell: Cell<N>,
    pub(in crate::state) serializer: Arc<dyn Serializer<Value = T>>,
    buffer: Vec<u8>,
}

impl<T: 'static, N: 'static> ListState<T, N> {
    pub(in crate::state) fn new(
        cell: Cell<N>,
        serializer: Arc<dyn Serializer<Value = T>>,
    ) -> ListState<T, N> {
        ListState { cell, serializer, buffer: Vec::new() }
    }

    /// The state's name.
    pub fn name(&self) -> &str {
        self.cell.name()
    }

    /// The same state as a snapshot shows it, under the snapshot's current key: a handle that cannot
    /// write.
    ///
    /// # Errors
    /// `InvalidArgument`: a snapshot of another backend, or from before a rollback. `Incompatible`: the
    /// state was migrated since.
    pub fn at<K: 'static>(&self, snapshot: &StateSnapshot<K>) -> Result<ListState<T, N>> {
        let cell = self.cell.at(snapshot.view())?;
        Ok(ListState::new(cell, Arc::clone(&self.serializer)))
    }

    /// Goes to another namespace, which stays current, whatever the key, until the next call: Flink's
    /// `setCurrentNamespace`. Serializes it; touches no data.
    pub fn set_current_namespace(&mut self, namespace: &N) {
        self.cell.set_namespace(namespace);
    }

    /// The elements in the order in which they were added: Flink's `get()`. A copy; changing it
    /// changes no state. One lookup, which gathers what was appended.
    ///
    /// With a time to live, elements expire one by one, and the list is removed when all have. Where
    /// reading makes them live longer, each element carries its new time: the first read at a time of
    /// the clock writes the whole list, as in Flink.
    pub fn get(&mut self) -> Result<Vec<T>> {
        let serializer = &*self.serializer;
        if let Some(ttl) = self.cell.ttl().cloned() {
            return self.get_unexpired(&ttl);
        }
        self.cell.operands(|base, operands| {
            Elements::new(base.into_iter().chain(operands.iter().copied()))
                .map(|element| serializer.decode(element?))
                .collect()
        })
    }

    fn get_unexpired(&mut self, ttl: &Ttl) -> Result<Vec<T>> {
        let (serializer, now) = (&*self.serializer, ttl.now());
        let (shown, after) = self.cell.operands(|base, operands| {
            let elements = Elements::new(base.into_iter().chain(operands.iter().copied()));
            let elements: Vec<&[u8]> = elements.collect::<Result<_>>()?;
            let shown = elements.iter().filter(|element| ttl.shows(element, now));
            let shown: Vec<T> = shown.map(|e| serializer.decode(e)).collect::<Result<_>>()?;
            Ok((shown, ttl.after_list(&elements, now, COMBINE_BYTES_MAX)))
        })?;
        if let Some(parts) = after.filter(|_| !self.cell.is_pinned()) {
            self.cell.replace(&parts)?;
        }
        Ok(shown)
    }

    /// Appends an element: Flink's `add(T)`. One write, reads nothing.
    pub fn add(&mut self, element: &T) -> Result<()> {
        self.encode([element]);
        self.cell.merge(&self.buffer)
    }

    /// Appends all elements, or none of them: Flink's `addAll`. One write, reads nothing; without
    /// elements nothing happens.
    pub fn add_all<'a>(&mut self, elements: impl IntoIterator<Item = &'a T>) -> Result<()>
    where
        T: 'a,
    {
        self.encode(elements);
        if self.buffer.is_empty() { self.cell.check() } else { self.cell.merge(&self.buffer) }
    }

    /// Replaces the list: Flink's `update(List)`. One write, reads nothing; without elements the same
    /// as [`clear`](ListState::clear).
    pub fn update<'a>(&mut self, elements: impl IntoIterator<Item = &'a T>) -> Result<()>
    where
        T: 'a,
    {
        self.encode(elements);
        if self.buffer.is_empty() { self.cell.delete() } else { self.cell.put(&self.buffer) }
    }

    /// Removes the list: Flink's `clear()`. One write; no error if there is none.
    pub fn clear(&mut self) -> Result<()> {
        self.cell.delete()
    }

    /// Moves the lists of the current key in these namespaces behind the list in `target`, in their
    /// order, all or nothing: Flink's `mergeNamespaces`, for windows that become one. The current
    /// namespace stays. Reads all of them; one write, which does not read the target.
    ///
    /// # Errors
    /// `InvalidArgument` besides, if the lists exceed 128 MiB together.
    pub fn merge_namespaces<'a>(
        &mut self,
        target: &N,
        sources: impl IntoIterator<Item = &'a N>,
    ) -> Result<()>
    where
        N: 'a,
    {
        let (target, sources) = self.cell.cells(target, sources)?;
        let (mut emptied, mut operands) = (Vec::new(), Vec::new());
        for source in sources.into_iter().filter(|source| *source != target) {
            let before = operands.len();
            self.cell.operands_at(&source, |base, parts| {
                let copy = |element: &[u8], out: &mut Vec<u8>| {
                    out.extend_from_slice(element);
                    Ok(())
                };
                repack(base.into_iter().chain(parts.iter().copied()), copy, &mut operands)
            })?;
            if operands.len() > before {
                emptied.push(source);
            }
        }
        if emptied.is_empty() {
            return Ok(());
        }
        self.cell.write(|batch, family| {
            emptied.iter().for_each(|source| batch.delete(family, source));
            operands.iter().for_each(|operand| batch.merge(family, &target, operand));
        })
    }

    fn encode<'a>(&mut self, elements: impl IntoIterator<Item = &'a T>)
    where
        T: 'a,
    {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.encode_into(elements, &mut buffer);
        self.buffer = buffer;
    }

    /// Appends elements as they are stored.
    pub(in crate::state) fn encode_into<'a>(
        &self,
        elements: impl IntoIterator<Item = &'a T>,
        out: &mut Vec<u8>,
    ) where
        T: 'a,
    {
        for element in elements {
            put_delimited(None, out, |out| self.serializer.encode(element, out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::quickcheck;

    fn list(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        elements.iter().for_each(|element| put_prefixed(&mut out, element));
        out
    }

    fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>> {
        Elements::new(parts).map(|element| element.map(<[u8]>::to_vec)).collect()
    }

    quickcheck! {
        fn appended_is_what_was_appended(base: Option<Vec<Vec<u8>>>, more: Vec<Vec<Vec<u8>>>) -> bool {
            let want: Vec<Vec<u8>> = base.iter().flatten().chain(more.iter().flatten()).cloned().collect();
            let base = base.map(|elements| list(&elements));
            let operands: Vec<_> = more.iter().map(|elements| list(elements)).collect();
            let operands: Vec<&[u8]> = operands.iter().map(Vec::as_slice).collect();
            let mut out = Vec::new();
            ListAppend.merge(b"k", base.as_deref(), &operands, &mut out).unwrap();
            let parts = base.as_deref().into_iter().chain(operands.iter().copied());
            read([&out[..]]).unwrap() == want && read(parts).unwrap() == want
        }

        fn combining_first_changes_nothing(a: Vec<u8>, b: Vec<u8>, c: Vec<u8>) -> bool {
            let (mut at_once, mut bc, mut later) = (Vec::new(), Vec::new(), Vec::new());
            ListAppend.merge(b"k", Some(&a), &[&b, &c], &mut at_once).unwrap();
            let combined = ListAppend.combine(b"k", &b, &c, &mut bc);
            ListAppend.merge(b"k", Some(&a), &[&bc], &mut later).unwrap();
            combined && at_once == later
        }

        fn reading_anything_ends(parts: Vec<Vec<u8>>) -> bool {
            let mut errors = 0;
            let mut elements = Elements::new(parts.iter().map(Vec::as_slice));
            for element in elements.by_ref() {
                assert_eq!(errors, 0, "an element after an error");
                errors += usize::from(element.is_err());
            }
            elements.next().is_none()
        }
    }

    #[test]
    fn pinned() {
        assert_eq!(list(&[b"a,b".to_vec(), vec![], b"c".to_vec()]), b"\x03a,b\0\x01c");
    }

    #[test]
    fn large_operands_are_not_combined() {
        let (half, mut out) = (vec![0; COMBINE_BYTES_MAX / 2], Vec::new());
        assert!(!ListAppend.combine(b"k", &half, &[&half[..], &[0]].concat(), &mut out));
        assert!(out.is_empty());
        assert!(ListAppend.combine(b"k", &half, &half, &mut out));
    }

    #[test]
    fn damage_is_found() {
        let mut elements = Elements::new([&b"\x01a"[..], b"\x05bc", b"\x01d"]);
        assert_eq!(elements.next().unwrap().unwrap(), b"a");
        assert_eq!(elements.next().unwrap().unwrap_err().kind(), ErrorKind::Corruption);
        assert!(elements.next().is_none());
    }
}
