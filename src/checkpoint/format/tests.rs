use super::*;
use crate::base::error::ErrorKind;
use quickcheck::Arbitrary;
use quickcheck::Gen;
use quickcheck::quickcheck;

fn small() -> Envelope {
    Envelope {
        checkpoint: 7,
        max_parallelism: 128,
        prefix_bytes: 2,
        user: b"offsets".to_vec(),
        objects: vec![ObjectRef {
            name: SharedName::new("ab-1").unwrap(),
            len: 4096,
            digest: [0xcd; 32],
            checksum: 0xef,
        }],
        parts: vec![Part {
            first_group: 0,
            last_group: 127,
            seqno: 99,
            record: vec![],
            families: vec![PartFamily {
                name: "count".into(),
                merge_operator: Some("add".into()),
                options: vec![1],
                tables: vec![PartTable { object: 0, level: 6, meta: vec![2, 3] }],
                census: vec![7],
            }],
        }],
        operator_state: vec![("buffer".into(), vec![4])],
    }
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let mut envelope = small();
    envelope.user = vec![0; ENVELOPE_BYTES_MAX];
    assert_eq!(envelope.encode().unwrap_err().kind(), ErrorKind::InvalidArgument);
}

fn bytes_of(g: &mut Gen) -> Vec<u8> {
    let mut bytes = Vec::arbitrary(g);
    bytes.truncate(20);
    bytes
}

impl Arbitrary for Envelope {
    fn arbitrary(g: &mut Gen) -> Envelope {
        let max_parallelism = u32::arbitrary(g) % KEY_GROUPS_MAX + 1;
        let count = |g: &mut Gen| usize::arbitrary(g) % 4;
        let objects: Vec<_> = (0..count(g))
            .map(|i| ObjectRef {
                name: SharedName::new(&format!("{i}-{:x}", u64::arbitrary(g))).unwrap(),
                len: u64::arbitrary(g),
                digest: [u8::arbitrary(g); 32],
                checksum: u128::arbitrary(g),
            })
            .collect();
        let table = |g: &mut Gen| PartTable {
            object: u32::arbitrary(g) % objects.len() as u32,
            level: u8::arbitrary(g) % LEVELS as u8,
            meta: bytes_of(g),
        };
        let family = |g: &mut Gen, i: usize| PartFamily {
            name: format!("family {i}"),
            merge_operator: Option::arbitrary(g),
            options: bytes_of(g),
            tables: if objects.is_empty() { vec![] } else { vec![table(g), table(g)] },
            census: bytes_of(g),
        };
        let (mut parts, mut next) = (Vec::new(), 0);
        while next < max_parallelism && parts.len() < 3 {
            let first = next + u32::arbitrary(g) % (max_parallelism - next);
            let last = first + u32::arbitrary(g) % (max_parallelism - first);
            next = last + 1;
            parts.push(Part {
                first_group: first as u16,
                last_group: last as u16,
                seqno: u64::arbitrary(g) & SEQNO_MAX,
                record: bytes_of(g),
                families: (0..count(g)).map(|i| family(g, i)).collect(),
            });
        }
        Envelope {
            checkpoint: u64::arbitrary(g),
            max_parallelism,
            prefix_bytes: 2,
            user: bytes_of(g),
            objects,
            parts,
            operator_state: (0..count(g)).map(|i| (format!("state {i}"), bytes_of(g))).collect(),
        }
    }
}

/// Puts the right digest at the end, as someone would who forges an envelope.
fn seal(content: &[u8]) -> Vec<u8> {
    [content, blake3::hash(content).as_bytes()].concat()
}

fn kind(bytes: &[u8]) -> ErrorKind {
    Envelope::decode(bytes).unwrap_err().kind()
}

quickcheck! {
    fn round_trips(envelope: Envelope) -> bool {
        let (bytes, digest) = envelope.encode().unwrap();
        Envelope::decode(&bytes).unwrap() == (envelope, digest)
    }

    fn decoding_anything_returns(noise: Vec<u8>, envelope: Envelope, at: usize, byte: u8) -> bool {
        let mut content = Vec::new();
        put_preamble(&mut content, FileKind::Envelope);
        content.extend_from_slice(&noise);
        let random = Envelope::decode(&seal(&content));
        let (mut bytes, _) = envelope.encode().unwrap();
        bytes.truncate(bytes.len() - DIGEST_BYTES);
        let at = at % bytes.len();
        bytes[at] = byte;
        // What passes as another envelope must itself be one that could have been written.
        let forged = Envelope::decode(&seal(&bytes));
        random.is_err() && forged.map_or(true, |(e, _)| e.encode().is_ok())
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let (bytes, _) = small().encode().unwrap();
    for i in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[i] ^= 1 << bit;
            let kind = kind(&bad);
            let newer = (10..12).contains(&i) && kind == ErrorKind::Unsupported;
            assert!(newer || kind == ErrorKind::Corruption, "byte {i} bit {bit}: {kind:?}");
        }
        assert_eq!(kind(&bytes[..i]), ErrorKind::Corruption, "cut at {i}");
    }
    assert_eq!(kind(&[&bytes[..], &[0]].concat()), ErrorKind::Corruption);
}

#[test]
fn pinned() {
    let (bytes, digest) = small().encode().unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let want = concat!(
        "89414c56450d0a1a0000000000000000", // preamble
        "03080700000000000000",             // checkpoint 7
        "050480000000",                     // 128 key groups
        "070102",                           // 2 bytes of prefix
        "09076f666673657473",               // user
        "0b44",                             // object 0:
        "030461622d31",                     // its name,
        "05080010000000000000",             // length
        "0720cdcdcdcdcdcdcdcdcdcdcdcdcdcd", // digest
        "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
        "0910ef00000000000000", // and checksum
        "0000000000000000",
        "0d35",                             // part:
        "030400007f00",                     // groups 0 to 127,
        "05086300000000000000",             // sequence number 99,
        "0700",                             // no record
        "0921",                             // family:
        "0305636f756e74",                   // its name,
        "0503616464",                       // merge operator
        "070101",                           // and options
        "090d",                             // table:
        "030400000000",                     // of object 0,
        "050106",                           // on level 6,
        "07020203",                         // with this metadata
        "0b0107",                           // and this census
        "0f0b",                             // operator state:
        "0306627566666572",                 // its name
        "050104",                           // and bytes
        "95388edbe29c44728ce76f1399ad789f", // digest
        "975fe2cf0c8b723bc8682ce9e9cb0875",
    );
    assert_eq!(hex, want);
    assert_eq!(bytes[bytes.len() - 32..], digest);
}

#[test]
fn contradictions_are_refused_both_ways() {
    type Change = fn(&mut Envelope);
    let changes: &[(&str, Change)] = &[
        ("no key groups", |e| e.max_parallelism = 0),
        ("too many key groups", |e| e.max_parallelism = KEY_GROUPS_MAX + 1),
        ("a prefix of no bytes", |e| e.prefix_bytes = 0),
        ("a prefix too small", |e| (e.prefix_bytes, e.max_parallelism) = (1, 129)),
        ("an object twice", |e| e.objects.push(e.objects[0].clone())),
        ("a group too many", |e| e.parts[0].last_group = 128),
        ("groups backwards", |e| e.parts[0].first_group = 200),
        ("parts that overlap", |e| e.parts.push(e.parts[0].clone())),
        ("a sequence number too large", |e| e.parts[0].seqno = SEQNO_MAX + 1),
        ("a family twice", |e| {
            let family = e.parts[0].families[0].clone();
            e.parts[0].families.push(family);
        }),
        ("a family without name", |e| e.parts[0].families[0].name.clear()),
        ("a name too long", |e| e.parts[0].families[0].name = "x".repeat(256)),
        ("no such object", |e| e.parts[0].families[0].tables[0].object = 1),
        ("no such level", |e| e.parts[0].families[0].tables[0].level = 7),
        ("operator state twice", |e| e.operator_state.push(e.operator_state[0].clone())),
    ];
    for (name, change) in changes {
        let mut envelope = small();
        change(&mut envelope);
        assert_eq!(envelope.encode().unwrap_err().kind(), ErrorKind::InvalidArgument, "{name}");
        assert_eq!(kind(&encode_unchecked(&envelope)), ErrorKind::Corruption, "{name}");
    }
    let mut fine = small();
    fine.prefix_bytes = 1;
    // After a split and a join, one object is two tables with different clips.
    fine.parts[0].families[0].tables.push(PartTable { object: 0, level: 5, meta: vec![4] });
    let (bytes, _) = fine.encode().unwrap();
    assert_eq!(Envelope::decode(&bytes).unwrap().0, fine);
}

fn encode_unchecked(envelope: &Envelope) -> Vec<u8> {
    let mut content = envelope.encode_content();
    content.extend_from_slice(&blake3::hash(&content).as_bytes()[..]);
    content
}

#[test]
fn fields_are_checked() {
    let content = |edit: &dyn Fn(&mut Vec<u8>)| {
        let (mut bytes, _) = small().encode().unwrap();
        bytes.truncate(bytes.len() - DIGEST_BYTES);
        edit(&mut bytes);
        seal(&bytes)
    };
    let with = |tag, must| content(&|out: &mut Vec<u8>| put_field(out, tag, must, b"?"));
    assert!(Envelope::decode(&with(8, false)).is_ok(), "a field to skip");
    assert_eq!(kind(&with(8, true)), ErrorKind::Unsupported);
    assert_eq!(kind(&with(4, true)), ErrorKind::Corruption, "out of order");
    assert_eq!(kind(&with(7, true)), ErrorKind::Corruption, "not an operator state");
    // The first field, 1 + 1 + 8 bytes, is the checkpoint's id.
    let twice = content(&|out| {
        let first = out[16..26].to_vec();
        out.splice(16..16, first);
    });
    assert_eq!(kind(&twice), ErrorKind::Corruption, "twice");
    let missing = content(&|out| drop(out.drain(16..26)));
    assert_eq!(kind(&missing), ErrorKind::Corruption, "missing");
    let long = content(&|out| {
        out[17] = 9;
        out.insert(18, 0);
    });
    assert_eq!(kind(&long), ErrorKind::Corruption, "a number with a byte too many");
    let other = content(&|out| out[4] = b'L');
    assert_eq!(kind(&other), ErrorKind::Corruption, "another kind of file");
}
