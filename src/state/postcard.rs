//! Any type of serde, by way of postcard. Behind the feature `serde`.

use std::fmt;
use std::marker::PhantomData;

use ::postcard::take_from_bytes;
use ::postcard::to_extend;
use ::serde::Serialize;
use ::serde::de::DeserializeOwned;

use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::evolution::Compatibility;
use crate::state::evolution::SerializerSnapshot;
use crate::state::serializer::Serializer;

/// Reads what an older version wrote.
type Upgrade<T> = Arc<dyn Fn(&[u8]) -> Result<T> + Send + Sync>;

/// The serializer of any type that serde knows: postcard's bytes. They have no names and no types in
/// them, so that every change of the type is another version, and a version is read by its own type.
///
/// Meant for values and elements. As keys, namespaces and user keys only types are of use of which
/// equal values have equal bytes, which excludes hash maps, and their order is postcard's.
///
/// ```
/// use alluvium::PostcardSerializer;
/// # let fs = std::sync::Arc::new(alluvium::MemFs::new());
/// # let env = alluvium::Env::new(alluvium::MemoryBudget::new(64 << 20)).with_fs(fs);
/// # let options = alluvium::BackendOptions::new(128, alluvium::KeyGroupRange::new(0, 127)?);
/// # let dir = std::path::Path::new("state");
/// # let mut backend = alluvium::StateBackend::<String>::open(dir, options, env)?;
/// // Version 1 had no second number.
/// type Version1 = (u32,);
/// type Delays = (u32, u64);
/// let delays = PostcardSerializer::<Delays>::new("delays", 2)
///     .from_version(1, |old: Version1| (old.0, 0));
/// let unit = alluvium::serializer::UnitSerializer;
/// let mut state = backend.value_state_with("delays", unit, delays)?;
/// backend.set_current_key(&"N328AA".into())?;
/// state.update(&(3, 140))?;
/// # assert_eq!(state.value()?, Some((3, 140)));
/// # Ok::<(), alluvium::Error>(())
/// ```
pub struct PostcardSerializer<T> {
    name: &'static str,
    version: u32,
    older: Vec<(u32, Upgrade<T>)>,
    of: PhantomData<fn(T) -> T>,
}

impl<T> PostcardSerializer<T> {
    /// The serializer of a type that is called so for ever, in this version.
    pub fn new(name: &'static str, version: u32) -> PostcardSerializer<T> {
        PostcardSerializer { name, version, older: Vec::new(), of: PhantomData }
    }

    /// The same, which migrates what an older version wrote: read as an `O`, made into a `T`.
    pub fn from_version<O: DeserializeOwned + 'static>(
        mut self,
        version: u32,
        upgrade: impl Fn(O) -> T + Send + Sync + 'static,
    ) -> PostcardSerializer<T> {
        let name = self.name;
        let upgrade: Upgrade<T> = Arc::new(move |bytes| read(name, bytes).map(&upgrade));
        self.older.push((version, upgrade));
        self
    }
}

impl<T> Clone for PostcardSerializer<T> {
    fn clone(&self) -> PostcardSerializer<T> {
        PostcardSerializer { older: self.older.clone(), ..*self }
    }
}

impl<T> fmt::Debug for PostcardSerializer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostcardSerializer({}@{})", self.name, self.version)
    }
}

fn read<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    match take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(Error::corruption(format!("bytes behind a {name}"))),
        Err(e) => Err(Error::corruption(format!("no {name}: {e}"))),
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Serializer for PostcardSerializer<T> {
    type Value = T;

    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn fixed_len(&self) -> Option<usize> {
        None
    }

    /// # Panics
    /// If postcard cannot express the value, such as a sequence that does not know its length.
    fn encode(&self, value: &T, out: &mut Vec<u8>) {
        let bytes = std::mem::take(out);
        *out = to_extend(value, bytes).expect("postcard expresses the type");
    }

    fn decode(&self, bytes: &[u8]) -> Result<T> {
        read(self.name, bytes)
    }

    fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<T> {
        let older = self.older.iter().find(|(version, _)| *version == stored.version);
        match older {
            Some((version, upgrade)) if stored.name == self.name => {
                let (version, upgrade) = (*version, Arc::clone(upgrade));
                Compatibility::AfterMigration(Arc::new(Older { name: self.name, version, upgrade }))
            }
            _ => Compatibility::if_equal(&self.snapshot(), stored),
        }
    }
}

/// Reads an older version.
struct Older<T> {
    name: &'static str,
    version: u32,
    upgrade: Upgrade<T>,
}

impl<T: 'static> Serializer for Older<T> {
    type Value = T;

    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn fixed_len(&self) -> Option<usize> {
        None
    }

    fn encode(&self, _: &T, _: &mut Vec<u8>) {
        unreachable!("what is migrated is only read");
    }

    fn decode(&self, bytes: &[u8]) -> Result<T> {
        (self.upgrade)(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::quickcheck;

    type Value = (u32, Option<String>, BTreeMap<u8, Vec<i64>>);

    fn serializer() -> PostcardSerializer<Value> {
        PostcardSerializer::new("value", 3)
            .from_version(1, |old: u32| (old, None, BTreeMap::new()))
            .from_version(2, |old: (u32, String)| (old.0, Some(old.1), BTreeMap::new()))
    }

    fn bytes<T: Serialize + DeserializeOwned + 'static>(value: &T) -> Vec<u8> {
        let mut out = vec![0xee];
        PostcardSerializer::new("value", 1).encode(value, &mut out);
        assert_eq!(out.remove(0), 0xee);
        out
    }

    quickcheck! {
        fn values_come_back(value: Value) -> bool {
            let out = bytes(&value);
            let longer = [&out[..], &[0]].concat();
            serializer().decode(&out).unwrap() == value
                && serializer().decode(&longer).unwrap_err().kind() == ErrorKind::Corruption
                && out.is_empty() == serializer().decode(&out[..out.len() - 1]).is_ok()
        }

        fn decoding_anything_returns(input: Vec<u8>) -> bool {
            serializer().decode(&input).map_or_else(|e| e.kind() == ErrorKind::Corruption, |_| true)
        }

        fn older_versions_are_read(number: u32, text: String) -> bool {
            let read = |version, bytes: &[u8]| {
                let stored = SerializerSnapshot {
                    name: "value".into(), version, fixed_len: None, config: vec![]
                };
                match serializer().compatibility(&stored) {
                    Compatibility::AfterMigration(reader) => reader.decode(bytes).unwrap(),
                    said => panic!("{said:?}"),
                }
            };
            read(1, &bytes(&number)) == (number, None, BTreeMap::new())
                && read(2, &bytes(&(number, text.clone()))) == (number, Some(text), BTreeMap::new())
        }
    }

    #[test]
    fn other_names_and_versions_are_incompatible() {
        let own = serializer().snapshot();
        assert!(matches!(serializer().compatibility(&own), Compatibility::AsIs));
        for (name, version) in [("value", 4), ("other", 1), ("other", 3)] {
            let stored = SerializerSnapshot { name: name.into(), version, ..own.clone() };
            let said = serializer().compatibility(&stored);
            assert!(matches!(said, Compatibility::Incompatible(_)), "{said:?}");
        }
    }
}
