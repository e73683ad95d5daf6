//! Residues packed to the size of their prime.
//!
//! Each limb is a little-endian bit string, word after word, least significant bit first, padded
//! with zero bits to whole bytes.

use veilformer_ring::{Basis, Form, RnsPoly};

use super::{ContainerError, Tag, bad_section};
use crate::{CkksError, Params};

/// Bytes of `count` words of `bits` bits.
pub(crate) fn packed_len(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Appends `words`, each below 2^bits (`bits` at most 63).
pub(crate) fn pack(words: &[u64], bits: u32, out: &mut Vec<u8>) {
    out.reserve(packed_len(words.len(), bits));
    let mut pending = 0u128;
    let mut filled = 0;
    for &word in words {
        pending |= u128::from(word) << filled;
        filled += bits;
        if filled >= 64 {
            out.extend((pending as u64).to_le_bytes());
            pending >>= 64;
            filled -= 64;
        }
    }
    let rest = (pending as u64).to_le_bytes();
    out.extend(rest.iter().take((filled as usize).div_ceil(8)));
}

/// Reads `out.len()` words of `bits` bits from exactly as many bytes as they take. `None` if
/// the length differs or padding bits are not zero.
pub(crate) fn unpack(bytes: &[u8], bits: u32, out: &mut [u64]) -> Option<()> {
    if bytes.len() != packed_len(out.len(), bits) {
        return None;
    }
    let mask = (1u64 << bits) - 1;
    let mut chunks = bytes.chunks(8);
    let mut pending = 0u128;
    let mut filled = 0;
    for word in out {
        if filled < bits {
            let chunk = chunks.next()?;
            let mut padded = [0u8; 8];
            padded.get_mut(..chunk.len())?.copy_from_slice(chunk);
            pending |= u128::from(u64::from_le_bytes(padded)) << filled;
            filled += 8 * chunk.len() as u32;
        }
        if filled < bits {
            return None;
        }
        *word = pending as u64 & mask;
        pending >>= bits;
        filled -= bits;
    }
    (pending == 0).then_some(())
}

/// Number of bits that residues of a prime take.
fn prime_bits(prime: u64) -> u32 {
    u64::BITS - prime.leading_zeros()
}

/// Bytes of a polynomial on `basis`.
pub(crate) fn poly_len(params: &Params, basis: Basis) -> usize {
    params
        .moduli(basis)
        .iter()
        .map(|&q| packed_len(params.n(), prime_bits(q)))
        .sum()
}

/// Appends a polynomial, limb by limb in ascending order of prime index.
pub(crate) fn put_poly(params: &Params, poly: &RnsPoly, out: &mut Vec<u8>) {
    for (position, q) in params.moduli(poly.basis()).iter().enumerate() {
        pack(poly.limb(position), prime_bits(*q), out);
    }
}

/// Takes a polynomial in NTT form on `basis` off the front of `bytes`; every residue is checked
/// to be below its prime.
pub(crate) fn take_poly(
    params: &Params,
    basis: Basis,
    tag: Tag,
    bytes: &mut &[u8],
) -> Result<RnsPoly, CkksError> {
    let needed = poly_len(params, basis);
    let Some((mut mine, rest)) = bytes.split_at_checked(needed) else {
        return Err(bad_section(
            tag,
            format!("{} bytes left, a polynomial takes {needed}", bytes.len()),
        )
        .into());
    };
    *bytes = rest;
    let mut poly = RnsPoly::zero(params.chain(), basis, Form::Ntt)?;
    for (position, q) in params.moduli(basis).into_iter().enumerate() {
        let bits = prime_bits(q);
        let unpacked = mine
            .split_at_checked(packed_len(params.n(), bits))
            .and_then(|(limb, after)| {
                mine = after;
                unpack(limb, bits, poly.limb_mut(position))
            });
        if unpacked.is_none() {
            return Err(bad_section(tag, "padding bits are not zero").into());
        }
        if poly.limb(position).iter().any(|&residue| residue >= q) {
            return Err(bad_section(tag, format!("a residue is not below its prime {q}")).into());
        }
    }
    Ok(poly)
}

/// `Ok` if all bytes of a section were used.
pub(crate) fn expect_end(tag: Tag, rest: &[u8]) -> Result<(), ContainerError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(bad_section(tag, format!("{} bytes too many", rest.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(bits in 1u32..=50, words in proptest::collection::vec(any::<u64>(), 0..40)) {
            let words: Vec<u64> = words.iter().map(|w| w & ((1 << bits) - 1)).collect();
            let mut bytes = Vec::new();
            pack(&words, bits, &mut bytes);
            prop_assert_eq!(bytes.len(), packed_len(words.len(), bits));
            let mut back = vec![0; words.len()];
            prop_assert!(unpack(&bytes, bits, &mut back).is_some());
            prop_assert_eq!(back, words);
        }
    }

    #[test]
    fn refuses_wrong_length_and_padding() {
        let mut bytes = Vec::new();
        pack(&[5, 6, 7], 3, &mut bytes);
        assert_eq!(bytes, [0b1111_0101, 0b1]);
        let mut out = [0; 3];
        assert!(unpack(&bytes, 3, &mut out).is_some());
        assert!(unpack(&bytes[..1], 3, &mut out).is_none());
        bytes[1] |= 0x80;
        assert!(unpack(&bytes, 3, &mut out).is_none());
    }
}
