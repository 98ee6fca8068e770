//! Values to bytes and back.
//!
//! One encoding serves keys, namespaces, map keys and values. It is *canonical* (equal values, equal
//! bytes), because bytes decide which cell a key means, and *order-preserving* for every scalar,
//! because the entries of a map are visited in the order of their bytes:
//!
//! | type | bytes |
//! |---|---|
//! | unsigned integers | big-endian |
//! | signed integers | big-endian, sign bit flipped |
//! | floats | IEEE bits big-endian; sign bit flipped if positive, all bits if negative; one NaN |
//! | `bool` | 0 or 1 |
//! | `char` | the code point, big-endian in 4 bytes |
//! | `()` | nothing |
//! | `String`, `Vec<u8>` | themselves |
//! | tuples | each but the last *delimited*, the last as it is |
//! | `Option` | 0, or 1 and the value |
//! | lists | each element delimited |
//!
//! *Delimited*: as it is if the width is fixed, else after its length as a varint. The order of a
//! tuple is therefore that of its elements up to the first of variable width, which sorts by length
//! first. (The elements of a list are told apart even if they have no bytes: a length each.)
//!
//! Any type of serde has a serializer too, `PostcardSerializer`, with the feature `serde`: for values.
//!
//! These bytes are not those of Flink's serializers, and need not be: only the assignment of keys to
//! key groups is shared, and that follows the Java hash.

use crate::base::coding::Decoder;
use crate::base::coding::put_prefixed;
use crate::base::coding::put_varint;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::evolution::Compatibility;
use crate::state::evolution::SerializerSnapshot;
use crate::state::evolution::Whole;
use crate::state::evolution::stored_len;

/// Turns values of one type into bytes and back.
///
/// A checkpoint records a [`snapshot`](Serializer::snapshot) of every state's serializers: name,
/// version and configuration. When the state is asked for again, the serializer of the day is asked
/// what it makes of that: [`compatibility`](Serializer::compatibility).
///
/// ```
/// use alluvium::serializer::{U32Serializer, U64Serializer};
/// use alluvium::{Compatibility, Error, Serializer, SerializerSnapshot};
///
/// /// A counter, which had 32 bits in version 1.
/// struct Counter;
///
/// /// Reads version 1.
/// struct CounterV1;
///
/// impl Serializer for Counter {
///     type Value = u64;
///
///     fn name(&self) -> &str {
///         "counter"
///     }
///     fn version(&self) -> u32 {
///         2
///     }
///     fn fixed_len(&self) -> Option<usize> {
///         Some(8)
///     }
///     fn encode(&self, value: &u64, out: &mut Vec<u8>) {
///         U64Serializer.encode(value, out)
///     }
///     fn decode(&self, bytes: &[u8]) -> Result<u64, Error> {
///         U64Serializer.decode(bytes)
///     }
///     fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<u64> {
///         match (stored.name.as_str(), stored.version) {
///             ("counter", 1) => Compatibility::AfterMigration(std::sync::Arc::new(CounterV1)),
///             _ => Compatibility::if_equal(&self.snapshot(), stored),
///         }
///     }
/// }
///
/// impl Serializer for CounterV1 {
///     type Value = u64;
///
///     fn name(&self) -> &str {
///         "counter"
///     }
///     fn fixed_len(&self) -> Option<usize> {
///         Some(4)
///     }
///     fn encode(&self, value: &u64, out: &mut Vec<u8>) {
///         U32Serializer.encode(&(*value as u32), out)
///     }
///     fn decode(&self, bytes: &[u8]) -> Result<u64, Error> {
///         U32Serializer.decode(bytes).map(u64::from)
///     }
/// }
/// ```
pub trait Serializer: Send + Sync + 'static {
    /// The type.
    type Value: 'static;

    /// What the encoding is called, for ever.
    fn name(&self) -> &str;

    /// Version of the encoding.
    fn version(&self) -> u32 {
        1
    }

    /// What else is to be found again when the state is asked for; empty by default.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The number of bytes of every value, if they all have the same.
    fn fixed_len(&self) -> Option<usize>;

    /// Appends the value's bytes to `out`, and touches nothing before them.
    fn encode(&self, value: &Self::Value, out: &mut Vec<u8>);

    /// The value that exactly these bytes encode.
    ///
    /// # Errors
    /// `Corruption` if they encode none, or bytes are left over.
    fn decode(&self, bytes: &[u8]) -> Result<Self::Value>;

    /// What is stored of this serializer. Not to be overridden.
    fn snapshot(&self) -> SerializerSnapshot {
        SerializerSnapshot {
            name: self.name().to_owned(),
            version: self.version(),
            fixed_len: self.fixed_len().map(stored_len),
            config: self.config(),
        }
    }

    /// What this serializer makes of bytes whose serializer left this snapshot. By default it reads
    /// them if the snapshot is its own, and else they are incompatible.
    fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<Self::Value> {
        Compatibility::if_equal(&self.snapshot(), stored)
    }
}

/// Shared serializers are serializers.
impl<V: 'static> Serializer for Arc<dyn Serializer<Value = V>> {
    type Value = V;

    fn name(&self) -> &str {
        (**self).name()
    }

    fn version(&self) -> u32 {
        (**self).version()
    }

    fn config(&self) -> Vec<u8> {
        (**self).config()
    }

    fn fixed_len(&self) -> Option<usize> {
        (**self).fixed_len()
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) {
        (**self).encode(value, out);
    }

    fn decode(&self, bytes: &[u8]) -> Result<V> {
        (**self).decode(bytes)
    }

    fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<V> {
        (**self).compatibility(stored)
    }
}

/// A type that has a serializer of this module.
pub trait Builtin: Sized + 'static {
    /// The serializer.
    type Serializer: Serializer<Value = Self> + Default + Clone;
}

/// The serializer of a built-in type, such as `builtin::<(u64, String)>()`.
pub fn builtin<T: Builtin>() -> T::Serializer {
    T::Serializer::default()
}

/// Appends a varint length and what `encode` appends, or only the latter if the width is fixed.
///
/// # Panics
/// If a serializer of fixed width appends another number of bytes.
#[inline]
pub fn put_delimited(
    fixed_len: Option<usize>,
    out: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    let Some(fixed) = fixed_len else { return put_after_length(out, encode) };
    encode(out);
    assert_eq!(out.len() - start, fixed, "a serializer broke its fixed width");
}

/// Nearly all lengths take one byte: there is room for that, and where it is not enough all moves.
#[inline]
fn put_after_length(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(0);
    encode(out);
    let len = out.len() - start - 1;
    match u8::try_from(len) {
        Ok(short @ ..0x80) => out[start] = short,
        _ => {
            out.remove(start);
            put_varint(out, len as u64);
            let prefix = out.len() - start - len;
            out[start..].rotate_right(prefix);
        }
    }
}

/// The bytes of the next delimited value.
#[inline]
pub fn read_delimited<'a>(fixed_len: Option<usize>, d: &mut Decoder<'a>) -> Result<&'a [u8]> {
    match fixed_len {
        Some(fixed) => d.bytes(fixed),
        None => d.prefixed(),
    }
}

/// The configuration of a serializer that is made of others: their snapshots.
fn parts_config(parts: &[SerializerSnapshot]) -> Vec<u8> {
    let mut config = Vec::new();
    parts.iter().for_each(|part| put_prefixed(&mut config, &part.encode()));
    config
}

#[cold]
fn bad(name: &str, bytes: &[u8]) -> Error {
    Error::corruption(format!("{} bytes are no {name}", bytes.len()))
}

macro_rules! scalars {
    ($($serializer:ident, $type:ty, $name:literal, $encode:expr, $decode:expr;)*) => {$(
        #[doc = concat!("The serializer of `", stringify!($type), "`.")]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $serializer;

        impl Serializer for $serializer {
            type Value = $type;

            fn name(&self) -> &str {
                $name
            }

            fn fixed_len(&self) -> Option<usize> {
                Some(size_of::<$type>())
            }

            #[inline]
            fn encode(&self, value: &$type, out: &mut Vec<u8>) {
                out.extend_from_slice(&$encode(*value).to_be_bytes());
            }

            #[inline]
            fn decode(&self, bytes: &[u8]) -> Result<$type> {
                let array = bytes.try_into().map_err(|_| bad($name, bytes))?;
                $decode(array).ok_or_else(|| bad($name, bytes))
            }
        }

        impl Builtin for $type {
            type Serializer = $serializer;
        }
    )*};
}

scalars! {
    U8Serializer, u8, "u8", |v| v, |b| Some(u8::from_be_bytes(b));
    U16Serializer, u16, "u16", |v| v, |b| Some(u16::from_be_bytes(b));
    U32Serializer, u32, "u32", |v| v, |b| Some(u32::from_be_bytes(b));
    U64Serializer, u64, "u64", |v| v, |b| Some(u64::from_be_bytes(b));
    U128Serializer, u128, "u128", |v| v, |b| Some(u128::from_be_bytes(b));
    I8Serializer, i8, "i8", |v| v ^ i8::MIN, |b| Some(i8::from_be_bytes(b) ^ i8::MIN);
    I16Serializer, i16, "i16", |v| v ^ i16::MIN, |b| Some(i16::from_be_bytes(b) ^ i16::MIN);
    I32Serializer, i32, "i32", |v| v ^ i32::MIN, |b| Some(i32::from_be_bytes(b) ^ i32::MIN);
    I64Serializer, i64, "i64", |v| v ^ i64::MIN, |b| Some(i64::from_be_bytes(b) ^ i64::MIN);
    I128Serializer, i128, "i128", |v| v ^ i128::MIN, |b| Some(i128::from_be_bytes(b) ^ i128::MIN);
    F32Serializer, f32, "f32", order_f32, |b| value_f32(u32::from_be_bytes(b));
    F64Serializer, f64, "f64", order_f64, |b| value_f64(u64::from_be_bytes(b));
    CharSerializer, char, "char", u32::from, |b| char::from_u32(u32::from_be_bytes(b));
    BoolSerializer, bool, "bool", u8::from, |b| match u8::from_be_bytes(b) {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    };
}

fn order_f32(value: f32) -> u32 {
    let bits = if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() };
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn value_f32(order: u32) -> Option<f32> {
    let value = f32::from_bits(if order >> 31 == 1 { order ^ 1 << 31 } else { !order });
    (order_f32(value) == order).then_some(value)
}

fn order_f64(value: f64) -> u64 {
    let bits = if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() };
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

fn value_f64(order: u64) -> Option<f64> {
    let value = f64::from_bits(if order >> 63 == 1 { order ^ 1 << 63 } else { !order });
    (order_f64(value) == order).then_some(value)
}

/// The serializer of `()`: no bytes. As a namespace it is Flink's `VoidNamespace`.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnitSerializer;

impl Serializer for UnitSerializer {
    type Value = ();

    fn name(&self) -> &str {
        "unit"
    }

    fn fixed_len(&self) -> Option<usize> {
        Some(0)
    }

    fn encode(&self, _: &(), _: &mut Vec<u8>) {}

    fn decode(&self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() { Ok(()) } else { Err(bad("unit", bytes)) }
    }
}

/// The serializer of `String`: its UTF-8.
#[derive(Clone, Copy, Debug, Default)]
pub struct StringSerializer;

impl Serializer for StringSerializer {
    type Value = String;

    fn name(&self) -> &str {
        "string"
    }

    fn fixed_len(&self) -> Option<usize> {
        None
    }

    #[inline]
    fn encode(&self, value: &String, out: &mut Vec<u8>) {
        out.extend_from_slice(value.as_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<String> {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| bad("string", bytes))
    }
}

/// The serializer of `Vec<u8>`: the bytes themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct BytesSerializer;

impl Serializer for BytesSerializer {
    type Value = Vec<u8>;

    fn name(&self) -> &str {
        "bytes"
    }

    fn fixed_len(&self) -> Option<usize> {
        None
    }

    #[inline]
    fn encode(&self, value: &Vec<u8>, out: &mut Vec<u8>) {
        out.extend_from_slice(value);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
}

macro_rules! tuples {
    ($($serializer:ident, $name:literal, $count:literal:
       ($($part:ident $at:tt),*), $last:ident $last_at:tt;)*) => {$(
        #[doc = concat!("The serializer of a tuple of ", $count, ", from those of its elements.")]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $serializer<$($part,)* $last>($(pub $part,)* pub $last);

        impl<$($part,)* $last> Serializer for $serializer<$($part,)* $last>
        where
            $($part: Serializer + Clone,)*
            $last: Serializer + Clone,
        {
            type Value = ($($part::Value,)* $last::Value);

            fn name(&self) -> &str {
                $name
            }

            fn config(&self) -> Vec<u8> {
                parts_config(&[$(self.$at.snapshot(),)* self.$last_at.snapshot()])
            }

            fn fixed_len(&self) -> Option<usize> {
                Some($(self.$at.fixed_len()? +)* self.$last_at.fixed_len()?)
            }

            fn encode(&self, value: &Self::Value, out: &mut Vec<u8>) {
                $(put_delimited(self.$at.fixed_len(), out, |out| {
                    self.$at.encode(&value.$at, out)
                });)*
                self.$last_at.encode(&value.$last_at, out);
            }

            fn decode(&self, bytes: &[u8]) -> Result<Self::Value> {
                let mut d = Decoder::new(bytes);
                Ok((
                    $(self.$at.decode(read_delimited(self.$at.fixed_len(), &mut d)?)?,)*
                    self.$last_at.decode(d.rest())?,
                ))
            }

            fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<Self::Value> {
                let Some(parts) = stored.parts::<$count>($name) else {
                    return Compatibility::if_equal(&self.snapshot(), stored);
                };
                let mut whole = Whole::default();
                let reader = $serializer(
                    $(whole.part(&self.$at, &parts[$at]),)*
                    whole.part(&self.$last_at, &parts[$last_at]),
                );
                whole.outcome(reader)
            }
        }

        impl<$($part: Builtin,)* $last: Builtin> Builtin for ($($part,)* $last) {
            type Serializer = $serializer<$($part::Serializer,)* $last::Serializer>;
        }
    )*};
}

tuples! {
    PairSerializer, "tuple2", 2: (A 0), B 1;
    TripleSerializer, "tuple3", 3: (A 0, B 1), C 2;
    QuadSerializer, "tuple4", 4: (A 0, B 1, C 2), D 3;
}

/// The serializer of `Option`, from that of its value. `None` sorts first.
#[derive(Clone, Copy, Debug, Default)]
pub struct OptionSerializer<S>(pub S);

impl<S: Serializer + Clone> Serializer for OptionSerializer<S> {
    type Value = Option<S::Value>;

    fn name(&self) -> &str {
        "option"
    }

    fn config(&self) -> Vec<u8> {
        parts_config(&[self.0.snapshot()])
    }

    fn fixed_len(&self) -> Option<usize> {
        (self.0.fixed_len() == Some(0)).then_some(1)
    }

    fn encode(&self, value: &Self::Value, out: &mut Vec<u8>) {
        out.push(u8::from(value.is_some()));
        if let Some(value) = value {
            self.0.encode(value, out);
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Value> {
        match bytes.split_first() {
            Some((0, [])) => Ok(None),
            Some((1, value)) => Ok(Some(self.0.decode(value)?)),
            _ => Err(bad("option", bytes)),
        }
    }

    fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<Self::Value> {
        let Some([part]) = stored.parts("option") else {
            return Compatibility::if_equal(&self.snapshot(), stored);
        };
        let mut whole = Whole::default();
        let reader = OptionSerializer(whole.part(&self.0, &part));
        whole.outcome(reader)
    }
}

/// The serializer of `Vec`, from that of its elements.
#[derive(Clone, Copy, Debug, Default)]
pub struct VecSerializer<S>(pub S);

impl<S: Serializer> VecSerializer<S> {
    /// Elements without bytes could not be counted.
    fn element_len(&self) -> Option<usize> {
        self.0.fixed_len().filter(|&len| len > 0)
    }
}

impl<S: Serializer + Clone> Serializer for VecSerializer<S> {
    type Value = Vec<S::Value>;

    fn name(&self) -> &str {
        "list"
    }

    fn config(&self) -> Vec<u8> {
        parts_config(&[self.0.snapshot()])
    }

    fn fixed_len(&self) -> Option<usize> {
        None
    }

    fn encode(&self, value: &Self::Value, out: &mut Vec<u8>) {
        for element in value {
            put_delimited(self.element_len(), out, |out| self.0.encode(element, out));
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Value> {
        let mut d = Decoder::new(bytes);
        let mut list = Vec::new();
        while !d.is_empty() {
            list.push(self.0.decode(read_delimited(self.element_len(), &mut d)?)?);
        }
        Ok(list)
    }

    fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<Self::Value> {
        let Some([part]) = stored.parts("list") else {
            return Compatibility::if_equal(&self.snapshot(), stored);
        };
        let mut whole = Whole::default();
        let reader = VecSerializer(whole.part(&self.0, &part));
        whole.outcome(reader)
    }
}

impl Builtin for () {
    type Serializer = UnitSerializer;
}

impl Builtin for String {
    type Serializer = StringSerializer;
}

impl<T: Builtin> Builtin for Option<T> {
    type Serializer = OptionSerializer<T::Serializer>;
}

/// `Vec<u8>` is a list of one-byte elements like any other: the same bytes as [`BytesSerializer`]
/// writes, under another name.
impl<T: Builtin> Builtin for Vec<T> {
    type Serializer = VecSerializer<T::Serializer>;
}

#[cfg(test)]
mod tests;
