//! Foreign bytes for every decoder: the fuzz targets, with mutations of their seeds, and with an eye on
//! what they allocate.

use alluvium::fuzz;
use alluvium::limits::DECODE_BYTES_MAX;
use alluvium_report::Rng;

use crate::allocation;
use crate::case::{Case, HOSTILE};
use crate::crash::{Violation, caught};

/// Inputs of one run.
const INPUTS: u64 = 200;
/// Most bytes that may be allocated at once.
const ALLOCATION_MAX: usize = DECODE_BYTES_MAX + (1 << 20);

/// Numbers that lengths and counts are often checked badly against.
const TRICKS: [u64; 8] = [0, 1, 0x7f, 0xffff, (1 << 31) - 1, u32::MAX as u64, 1 << 63, u64::MAX];

/// Hands inputs to one target. Returns how many.
pub fn run(seed: u64) -> Result<u64, Violation> {
    let mut rng = Rng::of(seed, 13);
    // The programs of the model have a harness of their own.
    let targets: Vec<&str> = fuzz::TARGETS.into_iter().filter(|name| *name != "model").collect();
    let target = rng.pick(&targets);
    let seeds = fuzz::seeds(target);
    for i in 0..INPUTS {
        let input = mutated(&mut rng, &seeds);
        let outcome = caught(|| {
            let most = allocation::largest(|| fuzz::target(target, &input));
            match most <= ALLOCATION_MAX {
                true => Ok(()),
                false => Err(format!("{most} bytes allocated at once")),
            }
        });
        outcome.map_err(|text| {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            let text = format!("target {target}, input {i}: {text}\n{hex}");
            Violation::new(&Case::other(HOSTILE, seed), text)
        })?;
    }
    Ok(INPUTS)
}

fn mutated(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[rng.below(seeds.len() as u64) as usize].clone();
    for _ in 0..1 + rng.below(3) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = rng.below(bytes.len() as u64) as usize;
        match rng.below(6) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next_u64() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + rng.below(16) as usize).min(bytes.len()))),
            _ => {
                let width = rng.pick(&[1, 2, 4, 4, 8]).min(bytes.len() - at);
                let trick = rng.pick(&TRICKS).wrapping_add(rng.below(3));
                bytes[at..at + width].copy_from_slice(&trick.to_le_bytes()[..width]);
            }
        }
    }
    bytes
}
