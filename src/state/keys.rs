//! Which keys have state, and in which namespaces?

use std::iter::FusedIterator;

use crate::Scan;
use crate::base::error::Result;
use crate::base::key::prefix_end;
use crate::base::sync::Arc;
use crate::state::key::KeyBuilder;
use crate::state::key::KeyShape;
use crate::state::serializer::Serializer;

/// The keys that have state of one name in one namespace, each once, by key group. As of the moment
/// at which it was made; borrows nothing. A seek or two a key, however many entries it has. After an
/// error it ends. The stream of Flink's `getKeys`.
pub struct Keys<K> {
    /// `None` after the end, or if there is no such state.
    scan: Option<Scan>,
    /// On the cell that was visited last.
    builder: KeyBuilder,
    serializer: Arc<dyn Serializer<Value = K>>,
    namespace: Vec<u8>,
}

impl<K: 'static> Keys<K> {
    pub(in crate::state) fn new<N: 'static>(
        scan: Option<Scan>,
        serializer: Arc<dyn Serializer<Value = K>>,
        namespaces: &dyn Serializer<Value = N>,
        namespace: &N,
    ) -> Keys<K> {
        let shape = KeyShape { key: serializer.fixed_len(), namespace: namespaces.fixed_len() };
        let mut bytes = Vec::new();
        namespaces.encode(namespace, &mut bytes);
        Keys { scan, builder: KeyBuilder::new(shape), serializer, namespace: bytes }
    }

    /// At most a few seeks a key, however many namespaces it has and entries a map has there.
    fn step(&mut self, scan: &mut Scan) -> Result<Option<K>> {
        let builder = &mut self.builder;
        let mut there = match builder.has_key() {
            true => leave(scan, builder.key_prefix())?,
            false => scan.next()?,
        };
        while there {
            let cell = builder.shape().parse(scan.key())?;
            builder.set_key(cell.group, |out| out.extend_from_slice(cell.key));
            builder.set_namespace(|out| out.extend_from_slice(&self.namespace));
            if scan.key().starts_with(builder.cell()) {
                return self.serializer.decode(cell.key).map(Some);
            }
            there = match scan.key() < builder.cell() {
                true => scan.seek(builder.cell())?,
                false => leave(scan, builder.key_prefix())?,
            };
        }
        Ok(None)
    }
}

/// The keys that have state of one name, with each namespace in which they have it, by key group. As
/// of the moment at which it was made; borrows nothing. After an error it ends. The stream of Flink's
/// `getKeysAndNamespaces`.
pub struct KeysAndNamespaces<K, N> {
    /// `None` after the end, or if there is no such state.
    scan: Option<Scan>,
    /// On the cell that was visited last.
    builder: KeyBuilder,
    keys: Arc<dyn Serializer<Value = K>>,
    namespaces: Arc<dyn Serializer<Value = N>>,
}

impl<K: 'static, N: 'static> KeysAndNamespaces<K, N> {
    pub(in crate::state) fn new(
        scan: Option<Scan>,
        keys: Arc<dyn Serializer<Value = K>>,
        namespaces: Arc<dyn Serializer<Value = N>>,
    ) -> KeysAndNamespaces<K, N> {
        let shape = KeyShape { key: keys.fixed_len(), namespace: namespaces.fixed_len() };
        KeysAndNamespaces { scan, builder: KeyBuilder::new(shape), keys, namespaces }
    }

    fn step(&mut self, scan: &mut Scan) -> Result<Option<(K, N)>> {
        let builder = &mut self.builder;
        let there = match builder.has_key() {
            true => leave(scan, builder.cell())?,
            false => scan.next()?,
        };
        if !there {
            return Ok(None);
        }
        let cell = builder.shape().parse(scan.key())?;
        builder.set_key(cell.group, |out| out.extend_from_slice(cell.key));
        builder.set_namespace(|out| out.extend_from_slice(cell.namespace));
        Ok(Some((self.keys.decode(cell.key)?, self.namespaces.decode(cell.namespace)?)))
    }
}

/// Moves on to the first key that does not begin with `prefix`, as that at which the scan stands
/// does or did. The next key is the usual case; many in a row are leapt over.
fn leave(scan: &mut Scan, prefix: &[u8]) -> Result<bool> {
    if !scan.next()? {
        return Ok(false);
    }
    if !scan.key().starts_with(prefix) {
        return Ok(true);
    }
    let end = prefix_end(prefix).expect("key groups are below 1 << 15");
    scan.seek(&end)
}

impl<K: 'static> Iterator for Keys<K> {
    type Item = Result<K>;

    fn next(&mut self) -> Option<Result<K>> {
        let mut scan = self.scan.take()?;
        let item = self.step(&mut scan).transpose()?;
        if item.is_ok() {
            self.scan = Some(scan);
        }
        Some(item)
    }
}

impl<K: 'static> FusedIterator for Keys<K> {}

impl<K: 'static, N: 'static> Iterator for KeysAndNamespaces<K, N> {
    type Item = Result<(K, N)>;

    fn next(&mut self) -> Option<Result<(K, N)>> {
        let mut scan = self.scan.take()?;
        let item = self.step(&mut scan).transpose()?;
        if item.is_ok() {
            self.scan = Some(scan);
        }
        Some(item)
    }
}

impl<K: 'static, N: 'static> FusedIterator for KeysAndNamespaces<K, N> {}
