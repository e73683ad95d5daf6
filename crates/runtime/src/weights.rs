//! The values of a large program's plaintexts, beside the program in a server bundle: 32-bit numbers
//! where they are such, real or complex.
//!
//! A model's weights are almost all of its file. In the program itself a value takes 16 bytes, here 4
//! or 8.

use serde::{Deserialize, Serialize};
use veilformer_ckks::{Complex, SlotVector};
use veilformer_ir::ciphertext::{
    CiphertextProgram, Instruction, PlainPattern, PlainSpec, ValueId, ValueInfo,
};

/// Fewest values that are worth sections of their own; older files have none.
const FEWEST: usize = 1 << 14;

/// Where the values of one plaintext are: they follow those of the entry before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Number of the plaintext.
    plain: u32,
    /// Its period.
    values: u32,
    /// Whether imaginary parts follow the real ones.
    complex: bool,
}

/// The serialized form of a [`CiphertextProgram`] with other plaintexts: its fields, in their order.
#[derive(Serialize)]
pub(crate) struct WithPlains<'a> {
    params_digest: &'a [u8; 32],
    slots: usize,
    batch: usize,
    sections: &'a [String],
    inputs: &'a [ValueInfo],
    plains: Vec<PlainSpec>,
    instructions: &'a [Instruction],
    values: &'a [ValueInfo],
    outputs: &'a [ValueId],
}

/// What a program is stored as.
pub(crate) struct Taken<'a> {
    pub(crate) program: WithPlains<'a>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) values: Vec<u8>,
}

fn as_stored(plain: &PlainSpec) -> Option<&[Complex]> {
    let PlainPattern::Slots(SlotVector::Periodic(values)) = &plain.pattern else {
        return None;
    };
    let single = |x: f64| f64::from(x as f32).to_bits() == x.to_bits();
    values
        .iter()
        .all(|z| single(z.re) && single(z.im))
        .then_some(values)
}

/// Takes the values out of a program that has enough of them; none of one without bootstraps, which
/// is stored as it always was.
pub(crate) fn take(program: &CiphertextProgram) -> Option<Taken<'_>> {
    let all = program.plains.iter().filter_map(as_stored);
    if program.bootstraps.is_empty() || all.map(<[Complex]>::len).sum::<usize>() < FEWEST {
        return None;
    }
    let (mut entries, mut values) = (Vec::new(), Vec::new());
    let mut plains = Vec::with_capacity(program.plains.len());
    for (number, plain) in program.plains.iter().enumerate() {
        let Some(taken) = as_stored(plain) else {
            plains.push(plain.clone());
            continue;
        };
        let complex = taken.iter().any(|z| z.im != 0.0);
        for z in taken {
            values.extend((z.re as f32).to_le_bytes());
            if complex {
                values.extend((z.im as f32).to_le_bytes());
            }
        }
        entries.push(Entry {
            plain: number as u32,
            values: taken.len() as u32,
            complex,
        });
        plains.push(PlainSpec {
            pattern: PlainPattern::Constant(Complex::default()),
            ..*plain
        });
    }
    let program = WithPlains {
        params_digest: &program.params_digest,
        slots: program.slots,
        batch: program.batch,
        sections: &program.sections,
        inputs: &program.inputs,
        plains,
        instructions: &program.instructions,
        values: &program.values,
        outputs: &program.outputs,
    };
    Some(Taken {
        program,
        entries,
        values,
    })
}

/// Puts values back.
///
/// # Errors
/// Entries that do not fit the program or the values, as half a sentence.
pub(crate) fn put(
    program: &mut CiphertextProgram,
    entries: &[Entry],
    bytes: &[u8],
) -> Result<(), String> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    let mut numbers = numbers.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
    let length = |e: &Entry| e.values as usize * if e.complex { 2 } else { 1 };
    let expected: usize = entries.iter().map(length).sum();
    if expected != numbers.len() || !rest.is_empty() {
        return Err(format!(
            "its plaintexts have {} bytes of values; {expected} numbers of 4 are expected",
            bytes.len()
        ));
    }
    for entry in entries {
        let Some(plain) = program.plains.get_mut(entry.plain as usize) else {
            return Err(format!("there is no plaintext {} for values", entry.plain));
        };
        let mut next = || numbers.next().unwrap_or_default();
        let values = (0..entry.values).map(|_| {
            let re = next();
            Complex::new(re, if entry.complex { next() } else { 0.0 })
        });
        plain.pattern = PlainPattern::Slots(SlotVector::Periodic(values.collect()));
    }
    Ok(())
}
