//! Encodings: round trips, one for each value, in order where they say so, and their bytes pinned.

use super::*;
use crate::base::error::ErrorKind;
use quickcheck::quickcheck;

fn bytes<S: Serializer>(serializer: &S, value: &S::Value) -> Vec<u8> {
    let mut out = vec![0xee];
    serializer.encode(value, &mut out);
    assert_eq!(out.remove(0), 0xee);
    assert!(serializer.fixed_len().is_none_or(|len| len == out.len()));
    out
}

/// Comes back, and differs from every encoding that is shorter or longer by a byte.
fn round_trips<S: Serializer<Value: PartialEq>>(serializer: &S, value: &S::Value) -> bool {
    let out = bytes(serializer, value);
    let same = |bytes: &[u8]| serializer.decode(bytes).is_ok_and(|v| v == *value);
    same(&out)
        && !same(&[&out[..], &[0]].concat())
        && out.split_last().is_none_or(|(_, shorter)| !same(shorter))
}

/// Whatever decodes has exactly these bytes.
fn canonical<S: Serializer>(serializer: &S, input: &[u8]) -> bool {
    match serializer.decode(input) {
        Ok(value) => bytes(serializer, &value) == input,
        Err(e) => e.kind() == ErrorKind::Corruption,
    }
}

fn ordered<S: Serializer<Value: PartialOrd>>(s: &S, a: &S::Value, b: &S::Value) -> bool {
    a.partial_cmp(b).is_none_or(|order| bytes(s, a).cmp(&bytes(s, b)) == order)
}

quickcheck! {
    fn scalars_round_trip(v: (u8, u16, u32, u64), w: (i8, i16, i32, i64), x: bool) -> bool {
        round_trips(&U8Serializer, &v.0) && round_trips(&U16Serializer, &v.1)
            && round_trips(&U32Serializer, &v.2) && round_trips(&U64Serializer, &v.3)
            && round_trips(&I8Serializer, &w.0) && round_trips(&I16Serializer, &w.1)
            && round_trips(&I32Serializer, &w.2) && round_trips(&I64Serializer, &w.3)
            && round_trips(&BoolSerializer, &x) && round_trips(&UnitSerializer, &())
    }

    fn scalars_keep_their_order(a: (u64, i16, i64, f32, f64), b: (u64, i16, i64, f32, f64)) -> bool {
        ordered(&U64Serializer, &a.0, &b.0) && ordered(&I16Serializer, &a.1, &b.1)
            && ordered(&I64Serializer, &a.2, &b.2)
            && (a.3 == b.3 || ordered(&F32Serializer, &a.3, &b.3))
            && (a.4 == b.4 || ordered(&F64Serializer, &a.4, &b.4))
    }

    fn floats_keep_their_bits(a: u32, b: u64) -> bool {
        let (a, b) = (f32::from_bits(a), f64::from_bits(b));
        let c = F32Serializer.decode(&bytes(&F32Serializer, &a)).unwrap();
        let d = F64Serializer.decode(&bytes(&F64Serializer, &b)).unwrap();
        (a.is_nan() && c.is_nan() || a.to_bits() == c.to_bits())
            && (b.is_nan() && d.is_nan() || b.to_bits() == d.to_bits())
    }

    fn composites_round_trip(
        a: (String, u16), b: (i32, String, Vec<u8>), c: Option<Vec<u8>>, d: Vec<(String, bool)>
    ) -> bool {
        round_trips(&builtin::<(String, u16)>(), &a)
            && round_trips(&builtin::<(i32, String, Vec<u8>)>(), &b)
            && round_trips(&OptionSerializer(BytesSerializer), &c)
            && round_trips(&builtin::<Vec<(String, bool)>>(), &d)
    }

    fn strings_and_leading_numbers_keep_their_order(a: (i8, String), b: (i8, String)) -> bool {
        ordered(&StringSerializer, &a.1, &b.1) && ordered(&builtin::<(i8, String)>(), &a, &b)
    }

    fn one_value_one_encoding(input: Vec<u8>, float: u32) -> bool {
        canonical(&BoolSerializer, &input[..input.len().min(1)])
            && canonical(&F32Serializer, &float.to_be_bytes())
            && canonical(&F32Serializer, &(float | 0xff80_0000).to_be_bytes())
            && canonical(&StringSerializer, &input)
            && canonical(&builtin::<(String, u8)>(), &input)
            && canonical(&builtin::<((), Vec<u8>)>(), &input)
            && canonical(&builtin::<(bool, String, Option<u8>)>(), &input)
            && canonical(&builtin::<Vec<String>>(), &input)
            && canonical(&builtin::<Vec<()>>(), &input)
            && canonical(&builtin::<Option<(bool, bool)>>(), &input)
    }
}

#[test]
fn pinned() {
    assert_eq!(bytes(&I32Serializer, &1), [0x80, 0, 0, 1]);
    assert_eq!(bytes(&I32Serializer, &-1), [0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(bytes(&U16Serializer, &258), [1, 2]);
    assert_eq!(bytes(&F64Serializer, &1.5), [0xbf, 0xf8, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes(&F32Serializer, &-1.5), [0x40, 0x3f, 0xff, 0xff]);
    assert_eq!(bytes(&StringSerializer, &"käse".into()), "käse".as_bytes());
    assert_eq!(bytes(&builtin::<(String, String)>(), &("ab".into(), "c".into())), b"\x02abc");
    assert_eq!(bytes(&builtin::<(u8, (), String)>(), &(7, (), "x".into())), b"\x07x");
    assert_eq!(bytes(&builtin::<Option<u8>>(), &Some(9)), [1, 9]);
    assert_eq!(bytes(&builtin::<Vec<u16>>(), &vec![1, 2]), [0, 1, 0, 2]);
    assert_eq!(bytes(&builtin::<Vec<()>>(), &vec![(), ()]), [0, 0]);
    let snapshot = builtin::<(i64, Option<u8>)>().snapshot();
    assert_eq!(
        snapshot.encode(),
        b"\x03\x06tuple2\x05\x01\x01\x09\x25\
          \x0b\x03\x03i64\x05\x01\x01\x07\x01\x08\
          \x18\x03\x06option\x05\x01\x01\x09\x0b\x0a\x03\x02u8\x05\x01\x01\x07\x01\x01"
    );
}

#[test]
fn special_floats_are_ordered() {
    let floats = [f64::NEG_INFINITY, -1.0, -f64::MIN_POSITIVE, -0.0, 0.0, 1.0, f64::INFINITY];
    let encoded: Vec<_> = floats.iter().map(|f| bytes(&F64Serializer, f)).collect();
    assert!(encoded.is_sorted_by(|a, b| a < b));
    assert!(encoded.last().unwrap() < &bytes(&F64Serializer, &f64::NAN));
    assert_eq!(bytes(&F64Serializer, &-f64::NAN), bytes(&F64Serializer, &f64::NAN));
}

#[test]
#[should_panic(expected = "broke its fixed width")]
fn a_lying_width_is_a_bug() {
    put_delimited(Some(4), &mut Vec::new(), |out| out.push(1));
}
