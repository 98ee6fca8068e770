//! `ListState`: elements of 8 bytes, appended in turns, so that no list is written twice in a row.

use crate::data::{LONG_BYTES, Random, key, long};
use crate::group::{Group, Place, Store};
use crate::meter::{Measure, Meter, measure};

pub const STEPS: &[&str] = &["list-append", "list-get", "list-get-table"];

const ELEMENTS: u32 = 100;
/// The length in front of each element, as alluvium's list operator wants it.
const LENGTH: u8 = LONG_BYTES as u8;

/// Lists.
pub struct Lists {
    store: Store,
    order: Vec<u32>,
}

fn element(number: u32, version: u32) -> [u8; LONG_BYTES + 1] {
    let mut element = [LENGTH; LONG_BYTES + 1];
    element[1..].copy_from_slice(&long(number, version));
    element
}

impl Lists {
    pub fn new(place: Place) -> Lists {
        let mut store = Store::new(&place, 192 << 20);
        store.setup.lists = true;
        Lists { store, order: Random::new(5).permutation(place.size(2000, 5000)) }
    }

    fn append(&mut self) -> Measure {
        self.store.fresh();
        let engine = self.store.engine();
        let n = self.order.len();
        let mut meter = Meter::begin();
        meter.run(n * ELEMENTS as usize, |i| {
            let number = self.order[i % n];
            engine.append(&key(number), &element(number, (i / n) as u32));
        });
        meter.end()
    }

    fn get(&self) -> Measure {
        let engine = self.store.engine();
        measure(self.order.len(), |i| {
            let number = self.order[i];
            engine.get(&key(number), &mut |list| {
                let elements = list.expect("the list is there").chunks_exact(LONG_BYTES + 1);
                let mut count = 0;
                for (wanted, element) in (0..).zip(elements) {
                    assert_eq!(element[5..], u32::to_le_bytes(wanted));
                    count += 1;
                }
                assert_eq!(count, ELEMENTS);
            });
        })
    }
}

impl Group for Lists {
    fn step(&mut self, name: &str) -> Option<Measure> {
        match name {
            "list-append" => Some(self.append()),
            "list-get" => Some(self.get()),
            "list-get-table" => self.store.engine().settle().map(|_| {
                self.store.engine().compact();
                self.get()
            }),
            _ => unreachable!("{name}"),
        }
    }
}
