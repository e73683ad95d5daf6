//! Inner products and sums of products: lazy sums, reduced once.

use std::arch::x86_64::*;
use std::ops::Range;

use super::packed::Unpack;
use super::uniform::{Groups, Halves};
use super::{LANES, Lanes, MIN_LOG, Quotients, load, montgomery, splat, steps_of, store};
use crate::basis::Basis;
use crate::kernels::scalar;
use crate::kernels::{
    ABREAST, Extra, Factor, KEY_AHEAD, KeyRows, MOST_PRODUCTS, ProductSum, Uniform, Values,
    packed_stride, packed_width, whole, words_met,
};
use crate::modulus::Modulus;
use crate::ntt::is_roomy;

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma,avx512vbmi,vaes")]
pub(in crate::kernels) fn inner_product(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    key: &KeyRows<'_>,
    extra: &Extra<'_>,
) {
    let n = out0.len();
    let fits = whole(m, key, n) && extra.tensors.len() <= MOST_PRODUCTS && extra.covers(n);
    if !n.is_multiple_of(LANES) || out1.len() != n || !fits || key.digits.len() > MOST_DIGITS {
        return scalar::inner_product(m, out0, out1, key, extra);
    }
    // Digits of at most 46 bits are below 12q, others below 4q, in any case below 2^52; keys, what is
    // added and its factor below q. A factor of a tensor product is lazy: below 2q, in two products.
    let digit = if is_roomy(m) { 12 } else { 4 };
    let others = 1 + 4 * extra.tensors.len();
    let one = steps_of(m, digit * key.digits.len() + others) <= 1;
    let end = match key.loose && stays_loose(m, n, digit * key.digits.len(), others) {
        true => LOOSE,
        false if one => ONE,
        false => MORE,
    };
    let outs = (out0, out1);
    // SAFETY: the lengths were checked.
    unsafe {
        match (packed_width(m).is_multiple_of(8), &key.uniform, end) {
            (true, None, LOOSE) => products_of::<false, LOOSE, false>(m, outs, key, extra),
            (true, None, ONE) => products_of::<false, ONE, false>(m, outs, key, extra),
            (true, None, _) => products_of::<false, MORE, false>(m, outs, key, extra),
            (false, None, LOOSE) => products_of::<true, LOOSE, false>(m, outs, key, extra),
            (false, None, ONE) => products_of::<true, ONE, false>(m, outs, key, extra),
            (false, None, _) => products_of::<true, MORE, false>(m, outs, key, extra),
            (true, Some(_), LOOSE) => products_of::<false, LOOSE, true>(m, outs, key, extra),
            (true, Some(_), ONE) => products_of::<false, ONE, true>(m, outs, key, extra),
            (true, Some(_), _) => products_of::<false, MORE, true>(m, outs, key, extra),
            (false, Some(_), LOOSE) => products_of::<true, LOOSE, true>(m, outs, key, extra),
            (false, Some(_), ONE) => products_of::<true, ONE, true>(m, outs, key, extra),
            (false, Some(_), _) => products_of::<true, MORE, true>(m, outs, key, extra),
        }
    }
}

/// What becomes of the values that `montgomery` gives.
type End = u8;
/// They stay as they are.
const LOOSE: End = 0;
/// They are brought below q, for which one step is enough where no uniform half is made.
const ONE: End = 1;
/// They are brought below q.
const MORE: End = 2;

/// Whether sums of digits, all together below `digits q`, times words below 2^52, and of `others` products of
/// canonical values may stay as `montgomery` leaves them where `divide_low` adds another 12q.
fn stays_loose(m: &Modulus, n: usize, digits: usize, others: usize) -> bool {
    let q = u128::from(m.value());
    let most = (digits as u128 + 1) * q + ((others as u128 * q * q) >> 52) + 1;
    n >= 1 << MIN_LOG && is_roomy(m) && most + 12 * q < 1 << 52
}

/// How many words before its use a digit is fetched: it comes from the last level of cache or from memory.
const DIGITS_AHEAD: usize = 128;

/// How many vectors of columns an inner product works on at a time. One by one its chains (ten rounds of AES,
/// three multiply-adds, two reductions) are longer than what a processor has under way at once.
const GROUPS: usize = 4;

/// The inner product; `HALF` as for [`Unpack::at`], `MADE` where the uniform halves are made here: of words
/// below 2^52, so that their sum is more than `ONE` says.
///
/// # Safety
/// The key is `whole` for the outputs' length, a multiple of eight, and the extras cover it.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi,vaes")]
unsafe fn products_of<const HALF: bool, const END: End, const MADE: bool>(
    m: &Modulus,
    (out0, out1): (&mut [u64], &mut [u64]),
    key: &KeyRows<'_>,
    extra: &Extra<'_>,
) {
    let n = out0.len();
    let (w, quot) = splat(m.shoup(extra.factor));
    let unpack = Unpack::new(m);
    let halves = Halves::new(key.uniform.unwrap_or_default());
    let mut terms = [Term::NONE; MOST_DIGITS];
    for ((term, digit), &first) in terms.iter_mut().zip(key.digits).zip(key.first) {
        let row = if MADE { first / 2 } else { first };
        *term = Term {
            digit: digit.as_ptr(),
            key: row * unpack.width,
            round_keys: halves.round_keys(row),
        };
    }
    let product = Product {
        l: Lanes::new(m),
        quotients: Quotients::new(m),
        inv: _mm512_set1_epi64(m.inv52() as i64),
        factor: _mm512_set1_epi64(extra.factor as i64),
        shoup: (w, quot),
        unpack,
        step: 8 * packed_stride(m, key.rows),
        halves,
        terms: &terms[..key.digits.len().min(MOST_DIGITS)],
        key,
        extra,
        n,
    };
    let outs = [out0.as_mut_ptr(), out1.as_mut_ptr()];
    let whole = n - n % (GROUPS * LANES);
    // SAFETY: the caller's promise.
    unsafe {
        for j in (0..whole).step_by(GROUPS * LANES) {
            product.columns::<GROUPS, HALF, END, MADE>(outs, j);
        }
        for j in (whole..n).step_by(LANES) {
            product.columns::<1, HALF, END, MADE>(outs, j);
        }
    }
    if let Some(uniform) = key.uniform.filter(|u| !u.refused.is_empty()) {
        mend(m, out1, key, &uniform);
    }
}

/// Adds to second results what first attempts at refused words lack. What is canonical stays so; others end no
/// larger than they were, or below q.
fn mend(m: &Modulus, out: &mut [u64], key: &KeyRows<'_>, uniform: &Uniform<'_>) {
    let (q, inv) = (m.value(), m.inv52());
    // Where each of eight columns goes, by order.
    let places = key
        .order
        .map(|order| order.lanes.map(|lanes| words_met(&lanes)));
    for r in uniform.refused {
        let column = (r.column as usize).wrapping_sub(8 * uniform.first);
        let mine = |&first: &usize| first / 2 == r.digit as usize;
        let digit = key
            .first
            .iter()
            .position(mine)
            .and_then(|d| key.digits.get(d));
        let Some(&x) = digit.and_then(|digit| digit.get(column)) else {
            continue;
        };
        let at = match (key.order, &places) {
            (Some(order), Some(places)) => {
                let b = order.blocks.get(column / 8).copied().unwrap_or(0);
                let place = places[(b & 7) as usize][column % 8] as usize;
                ((b >> 3) as usize).wrapping_sub(order.base) * 8 + place
            }
            _ => column,
        };
        if let Some(out) = out.get_mut(at) {
            let sum = *out + scalar::montgomery(x, r.more, q, inv);
            *out = sum.min(sum.wrapping_sub(q));
        }
    }
}

/// Most digits of an inner product: one for each prime that a basis can hold.
const MOST_DIGITS: usize = Basis::MAX;

/// A digit and its key.
#[derive(Clone, Copy)]
struct Term {
    digit: *const u64,
    /// Where the words of eight columns begin in theirs of all rows, in bytes.
    key: usize,
    /// What the uniform half is made from, if it is made.
    round_keys: *const u64,
}

impl Term {
    const NONE: Self = Self {
        digit: std::ptr::null(),
        key: 0,
        round_keys: std::ptr::null(),
    };
}

/// What an inner product reads, and its constants.
struct Product<'a> {
    l: Lanes,
    quotients: Quotients,
    inv: __m512i,
    /// What is added is multiplied by it.
    factor: __m512i,
    /// The same with its quotient.
    shoup: (__m512i, __m512i),
    unpack: Unpack,
    /// Bytes of eight columns.
    step: usize,
    halves: Halves<'a>,
    terms: &'a [Term],
    key: &'a KeyRows<'a>,
    extra: &'a Extra<'a>,
    /// Columns.
    n: usize,
}

/// A sum of products as a lazy pair.
type Lazy = (__m512i, __m512i);

/// The sum and one product more.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn add_product((lo, hi): Lazy, x: __m512i, y: __m512i) -> Lazy {
    (
        _mm512_madd52lo_epu64(lo, x, y),
        _mm512_madd52hi_epu64(hi, x, y),
    )
}

impl Product<'_> {
    /// `G` vectors of columns from column `j` on.
    ///
    /// # Safety
    /// As for [`products_of`], with `j + G * LANES` at most the number of columns, and a multiple of LANES;
    /// `outs` have as many words.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi,vaes")]
    unsafe fn columns<const G: usize, const HALF: bool, const END: End, const MADE: bool>(
        &self,
        outs: [*mut u64; 2],
        j: usize,
    ) {
        let (l, key, n) = (&self.l, self.key, self.n);
        let (mut sums0, mut sums1) = ([(l.zero, l.zero); G], [(l.zero, l.zero); G]);
        // Loops of constant length over arrays, and no closures over them: those stay in registers.
        // SAFETY: j + G * LANES <= n; digits, extras and outputs are as long, and an order has an entry for
        // every eight words. Of the key's rows there are `step` bytes for each eight columns, and behind
        // them what `at` reads beyond a row.
        unsafe {
            self.begin(j, &mut sums0, &mut sums1);
            // Keys come from memory.
            let later = key.later(j / LANES * self.step + KEY_AHEAD, n / LANES * self.step);
            for line in (0..G * self.step).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(later.wrapping_add(line).cast());
            }
            let at = key.words.as_ptr().cast::<u8>();
            let at = at.add(j / LANES * self.step);
            let groups: Groups<G> = match MADE {
                true => self.halves.groups(j / LANES),
                false => Groups::NONE,
            };
            for term in self.terms {
                let digit = term.digit.add(j);
                let made = match MADE {
                    true => self.halves.words(term.round_keys, &groups),
                    false => [l.zero; G],
                };
                for g in 0..G {
                    let later = digit.wrapping_add(DIGITS_AHEAD + g * LANES);
                    _mm_prefetch::<_MM_HINT_T0>(later.cast());
                    let x = load(digit.add(g * LANES));
                    let at = at.add(g * self.step + term.key);
                    let k1 = match MADE {
                        true => made[g],
                        false => self.unpack.at::<HALF>(at.add(self.unpack.width)),
                    };
                    sums0[g] = add_product(sums0[g], x, self.unpack.at::<HALF>(at));
                    sums1[g] = add_product(sums1[g], x, k1);
                }
            }
            let (mut r0, mut r1) = ([l.zero; G], [l.zero; G]);
            for g in 0..G {
                let value0 = montgomery(l, self.inv, sums0[g].0, sums0[g].1);
                let value1 = montgomery(l, self.inv, sums1[g].0, sums1[g].1);
                let q = &self.quotients;
                (r0[g], r1[g]) = match (END, MADE) {
                    (LOOSE, _) => (value0, value1),
                    (ONE, false) => (
                        q.canonical::<true>(l, value0),
                        q.canonical::<true>(l, value1),
                    ),
                    (ONE, true) => (
                        q.canonical::<true>(l, value0),
                        q.canonical::<false>(l, value1),
                    ),
                    _ => (
                        q.canonical::<false>(l, value0),
                        q.canonical::<false>(l, value1),
                    ),
                };
            }
            match key.order {
                None => {
                    for g in 0..G {
                        store(outs[0].add(j + g * LANES), r0[g]);
                        store(outs[1].add(j + g * LANES), r1[g]);
                    }
                }
                Some(order) => {
                    for g in 0..G {
                        // The mask keeps the block inside the outputs, whose blocks are a power of two.
                        let b = *order.blocks.get_unchecked(j / LANES + g);
                        let to = ((b >> 3) as usize).wrapping_sub(order.base) & (n / LANES - 1);
                        let lanes = load(order.lanes[(b & 7) as usize].as_ptr());
                        let r0 = _mm512_permutexvar_epi64(lanes, r0[g]);
                        let r1 = _mm512_permutexvar_epi64(lanes, r1[g]);
                        store(outs[0].add(to * LANES), r0);
                        store(outs[1].add(to * LANES), r1);
                    }
                }
            }
        }
    }

    /// Adds what there is besides the products, in the vectors from column `j` on.
    ///
    /// # Safety
    /// As for [`Product::columns`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    unsafe fn begin<const G: usize>(&self, j: usize, sums0: &mut [Lazy; G], sums1: &mut [Lazy; G]) {
        let (l, (w, quot)) = (&self.l, self.shoup);
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(x) = self.extra.x[0] {
                let x = x.as_ptr().add(j);
                for (g, sum) in sums0.iter_mut().enumerate() {
                    let later = x.wrapping_add(DIGITS_AHEAD + g * LANES);
                    _mm_prefetch::<_MM_HINT_T0>(later.cast());
                    *sum = add_product(*sum, load(x.add(g * LANES)), self.factor);
                }
            }
            if let Some(x) = self.extra.x[1] {
                let x = x.as_ptr().add(j);
                for (g, sum) in sums1.iter_mut().enumerate() {
                    *sum = add_product(*sum, load(x.add(g * LANES)), self.factor);
                }
            }
            for t in self.extra.tensors {
                for g in 0..G {
                    let j = j + g * LANES;
                    let a0 = l.shoup_lazy(load(t.a[0].as_ptr().add(j)), w, quot);
                    let a1 = l.shoup_lazy(load(t.a[1].as_ptr().add(j)), w, quot);
                    let (b0, b1) = (load(t.b[0].as_ptr().add(j)), load(t.b[1].as_ptr().add(j)));
                    sums0[g] = add_product(sums0[g], a0, b0);
                    sums1[g] = add_product(sums1[g], a0, b1);
                    sums1[g] = add_product(sums1[g], a1, b0);
                }
            }
        }
    }
}

/// How many words before its use a result's line is fetched: results are more than any cache holds.
const OUTPUTS_AHEAD: usize = 128;

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma,avx512vbmi")]
pub(in crate::kernels) fn sum_products(
    m: &Modulus,
    sums: &mut [ProductSum<'_>],
    x: &[[&[u64]; 2]],
) {
    let n = sums.first().map_or(0, |s| s.out[0].len());
    // Two vectors at a time where sums are few.
    let fits = n.is_multiple_of(2 * LANES)
        && x.len() <= MOST_PRODUCTS
        && x.iter().flatten().all(|x| x.len() >= n)
        && sums.iter().all(|s| s.fits(m, (n, x.len()), LANES));
    if !fits {
        return scalar::sum_products(m, sums, x);
    }
    // Both factors are canonical.
    let one = steps_of(m, x.len()) <= 1;
    let half = !packed_width(m).is_multiple_of(8);
    let long = |values: &usize| n.checked_div(*values).is_some_and(|run| run >= LONG_RUN);
    if let Some(values) = sparse_values(sums, x.len()).filter(long) {
        // SAFETY: the lengths were checked.
        return unsafe {
            match one {
                true => listed::<true>(m, sums, x, values),
                false => listed::<false>(m, sums, x, values),
            }
        };
    }
    for sums in sums.chunks_mut(ABREAST) {
        // SAFETY: the lengths were checked.
        unsafe {
            match sums {
                [a] if n.is_multiple_of(4 * LANES) => sums_of::<1, 4>(m, [a], x, (one, half)),
                [a] => sums_of::<1, 2>(m, [a], x, (one, half)),
                [a, b] => sums_of::<2, 2>(m, [a, b], x, (one, half)),
                [a, b, c] => sums_of::<3, 1>(m, [a, b, c], x, (one, half)),
                [a, b, c, d] => sums_of::<4, 1>(m, [a, b, c, d], x, (one, half)),
                _ => {}
            }
        }
    }
}

/// `SUMS` sums of products, `COLUMNS` vectors of them at a time; `one` as for [`Quotients::canonical`], `half` as
/// for [`Unpack::at`].
///
/// # Safety
/// The sums `fit` the length of their outputs, a multiple of `COLUMNS * LANES`, and the number of x,
/// of which each has as many words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
unsafe fn sums_of<const SUMS: usize, const COLUMNS: usize>(
    m: &Modulus,
    sums: [&mut ProductSum<'_>; SUMS],
    x: &[[&[u64]; 2]],
    (one, half): (bool, bool),
) {
    let n = sums[0].out[0].len();
    // How many values all factors have, if it is the same; none if they have one for every word, packed.
    let mut lengths = sums
        .iter()
        .flat_map(|s| s.factors)
        .filter_map(|f| match f.y {
            Values::Zero => None,
            Values::Runs(y) => Some(y.len()),
            Values::Packed(_) => Some(0),
        });
    let first = lengths.next().unwrap_or(n);
    let alike = lengths.all(|length| length == first);
    // SAFETY: the caller's promise.
    unsafe {
        match (first, n.checked_div(first).unwrap_or(0)) {
            (0, _) if alike && !half => match one {
                true => columns_of::<SUMS, COLUMNS, PACKED, true>(m, sums, x, n),
                false => columns_of::<SUMS, COLUMNS, PACKED, false>(m, sums, x, n),
            },
            (_, LONG_RUN..) if alike && x.len() <= TABLED => match one {
                true => tabled::<SUMS, COLUMNS, true>(m, sums, x, first),
                false => tabled::<SUMS, COLUMNS, false>(m, sums, x, first),
            },
            (_, run) if alike && run >= COLUMNS * LANES => match one {
                true => columns_of::<SUMS, COLUMNS, RUNS, true>(m, sums, x, first),
                false => columns_of::<SUMS, COLUMNS, RUNS, false>(m, sums, x, first),
            },
            _ => match one {
                true => columns_of::<SUMS, COLUMNS, ANY, true>(m, sums, x, n),
                false => columns_of::<SUMS, COLUMNS, ANY, false>(m, sums, x, n),
            },
        }
    }
}

/// What all factors of some sums that there are have.
type Kind = u8;
/// A value for every word, packed in whole bytes.
const PACKED: Kind = 0;
/// As many runs of equal words, of one or several whole vectors each.
const RUNS: Kind = 1;
/// Any of it.
const ANY: Kind = 2;

/// Words of a run from which on it pays to put the factors of all sums beside one another first.
const LONG_RUN: usize = 64;

/// Factors of each sum that have room there.
const TABLED: usize = 64;

/// Values of each factor there.
const ROW: usize = 8;

/// Of the factors that there are, as many values as `range` says: what has fewer ends in zeros.
#[inline]
fn row_of(f: &Factor<'_>, range: Range<usize>) -> [u64; ROW] {
    let mut row = [0; ROW];
    if let Values::Runs(y) = f.y {
        match y.get(range.clone()).and_then(|y| y.first_chunk()) {
            Some(whole) => row = *whole,
            None => {
                let words = y.iter().skip(range.start);
                row.iter_mut().zip(words).for_each(|(to, y)| *to = *y);
            }
        }
    }
    row
}

/// The sums where all factors have so many `values`, each for at least `LONG_RUN` words; `ONE` as for
/// [`Quotients::canonical`]. Between two loads of words there is nothing but products: no pointers, and no branches.
///
/// # Safety
/// As for [`sums_of`], with one or more values and at most `TABLED` x.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn tabled<const SUMS: usize, const COLUMNS: usize, const ONE: bool>(
    m: &Modulus,
    mut sums: [&mut ProductSum<'_>; SUMS],
    x: &[[&[u64]; 2]],
    values: usize,
) {
    let n = sums[0].out[0].len();
    let finish = Finish::new(m);
    let l = &finish.l;
    let run = n / values;
    let factors: [&[Factor<'_>]; SUMS] = sums.each_ref().map(|s| s.factors);
    let mut table = [[[0u64; ROW]; SUMS]; TABLED];
    for first in (0..values).step_by(ROW) {
        let rows = first..values.min(first + ROW);
        for (i, row) in table.iter_mut().enumerate().take(x.len()) {
            for (row, factors) in row.iter_mut().zip(&factors) {
                *row = row_of(&factors[i], rows.clone());
            }
        }
        for value in rows {
            fetch_ahead(factors.into_iter(), value, values);
            for j in (value * run..(value + 1) * run).step_by(COLUMNS * LANES) {
                for sum in &sums {
                    fetch_outputs::<COLUMNS>(sum, j);
                }
                let zero = [[[l.zero; COLUMNS]; 2]; SUMS];
                let (mut lo, mut hi) = (zero, zero);
                for (x, row) in x.iter().zip(&table) {
                    for part in 0..2 {
                        for k in 0..COLUMNS {
                            // SAFETY: j + COLUMNS * LANES <= n, and the caller's promise.
                            let x = unsafe { load(x[part].as_ptr().add(j + k * LANES)) };
                            for s in 0..SUMS {
                                let y = _mm512_set1_epi64(row[s][value % ROW] as i64);
                                lo[s][part][k] = _mm512_madd52lo_epu64(lo[s][part][k], x, y);
                                hi[s][part][k] = _mm512_madd52hi_epu64(hi[s][part][k], x, y);
                            }
                        }
                    }
                }
                for (s, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: j + COLUMNS * LANES <= n, the length of all outputs.
                    unsafe { finish.put::<COLUMNS, ONE>(sum, j, &lo[s], &hi[s]) };
                }
            }
        }
    }
}

/// A factor that is not zero, for [`listed`].
struct Listed<'a> {
    row: [u64; ROW],
    x: [*const u64; 2],
    factor: &'a Factor<'a>,
}

/// How many values the factors have that are not zero, if it is the same for all and an eighth or more of all sums'
/// factors, `count` of each, are zero: sums that lie abreast would often add nothing.
fn sparse_values(sums: &[ProductSum<'_>], count: usize) -> Option<usize> {
    let (mut present, mut alike) = (0, None);
    for f in sums.iter().flat_map(|s| s.factors) {
        match f.y {
            Values::Zero => {}
            Values::Runs(y) if *alike.get_or_insert(y.len()) == y.len() => present += 1,
            _ => return None,
        }
    }
    alike.filter(|_| 8 * present <= 7 * sums.len() * count)
}

/// The sums where those factors that are not zero have so many `values`, each for at least `LONG_RUN` words: one
/// after the other, by these factors, while the words are in the first cache. `ONE` as for [`Quotients::canonical`].
///
/// # Safety
/// The sums `fit` the x, each of which has as many words as the outputs.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn listed<const ONE: bool>(
    m: &Modulus,
    sums: &mut [ProductSum<'_>],
    x: &[[&[u64]; 2]],
    values: usize,
) {
    const COLUMNS: usize = 4;
    const { assert!(LONG_RUN.is_multiple_of(COLUMNS * LANES)) };
    let run = sums.first().map_or(0, |s| s.out[0].len()) / values;
    let finish = Finish::new(m);
    let mut terms = Vec::new();
    let mut ends = Vec::with_capacity(sums.len());
    for sum in sums.iter() {
        let present = sum.factors.iter().zip(x);
        let present = present.filter(|(f, _)| !matches!(f.y, Values::Zero));
        terms.extend(present.map(|(factor, x)| Listed {
            row: [0; ROW],
            x: x.map(<[u64]>::as_ptr),
            factor,
        }));
        ends.push(terms.len());
    }
    for first in (0..values).step_by(ROW) {
        let rows = first..values.min(first + ROW);
        for term in &mut terms {
            term.row = row_of(term.factor, rows.clone());
        }
        for value in rows {
            fetch_ahead(sums.iter().map(|s| s.factors), value, values);
            for j in (value * run..(value + 1) * run).step_by(COLUMNS * LANES) {
                let mut begin = 0;
                for (sum, &end) in sums.iter_mut().zip(&ends) {
                    fetch_outputs::<COLUMNS>(sum, j);
                    let zero = [[finish.l.zero; COLUMNS]; 2];
                    let (mut lo, mut hi) = (zero, zero);
                    for term in &terms[begin..end] {
                        let y = _mm512_set1_epi64(term.row[value % ROW] as i64);
                        for part in 0..2 {
                            for k in 0..COLUMNS {
                                // SAFETY: j + COLUMNS * LANES <= n, and the caller's promise.
                                let x = unsafe { load(term.x[part].add(j + k * LANES)) };
                                lo[part][k] = _mm512_madd52lo_epu64(lo[part][k], x, y);
                                hi[part][k] = _mm512_madd52hi_epu64(hi[part][k], x, y);
                            }
                        }
                    }
                    // SAFETY: j + COLUMNS * LANES <= n, the length of all outputs.
                    unsafe { finish.put::<COLUMNS, ONE>(sum, j, &lo, &hi) };
                    begin = end;
                }
            }
        }
    }
}

/// What reduces lazy sums and puts them where they go.
struct Finish {
    l: Lanes,
    quotients: Quotients,
    inv: __m512i,
}

impl Finish {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(m: &Modulus) -> Self {
        Self {
            l: Lanes::new(m),
            quotients: Quotients::new(m),
            inv: _mm512_set1_epi64(m.inv52() as i64),
        }
    }

    /// The canonical values of both parts of a sum in the vectors from word `j` on, beside or instead of what is
    /// there.
    ///
    /// # Safety
    /// `j + COLUMNS * LANES` is at most the outputs' length.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    unsafe fn put<const COLUMNS: usize, const ONE: bool>(
        &self,
        sum: &mut ProductSum<'_>,
        j: usize,
        lo: &[[__m512i; COLUMNS]; 2],
        hi: &[[__m512i; COLUMNS]; 2],
    ) {
        let l = &self.l;
        for part in 0..2 {
            let (to, fresh) = (sum.out[part].as_mut_ptr(), sum.fresh[part]);
            for k in 0..COLUMNS {
                let value = montgomery(l, self.inv, lo[part][k], hi[part][k]);
                let value = self.quotients.canonical::<ONE>(l, value);
                // SAFETY: the caller's promise.
                unsafe {
                    let to = to.add(j + k * LANES);
                    store(to, if fresh { value } else { l.add(load(to), value) });
                }
            }
        }
    }
}

/// Fetches what comes next, a share of it with each of the `values`.
#[inline]
fn fetch_ahead<'a>(factors: impl Iterator<Item = &'a [Factor<'a>]>, value: usize, values: usize) {
    for factors in factors {
        for f in factors.iter().skip(value).step_by(values) {
            for line in f.ahead.chunks(LANES) {
                // SAFETY: a prefetch reads nothing, and faults at no address.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
            }
        }
    }
}

/// Fetches what is read and written soon, from word `j` on, for so many vectors.
#[inline]
fn fetch_outputs<const COLUMNS: usize>(sum: &ProductSum<'_>, j: usize) {
    let outs = sum.out.each_ref();
    let [out0, out1] = outs.map(|out| out.as_ptr().wrapping_add(OUTPUTS_AHEAD));
    let first = sum.next.map_or(out0, <[u64]>::as_ptr);
    for later in [first, out1] {
        for k in 0..COLUMNS {
            // SAFETY: a prefetch reads nothing, and faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(later.wrapping_add(j + k * LANES).cast()) };
        }
    }
}

/// The sums; all factors that there are of a `KIND`, where runs are as many as `values`; `ONE` as for
/// [`Quotients::canonical`].
///
/// # Safety
/// As for [`sums_of`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
unsafe fn columns_of<const SUMS: usize, const COLUMNS: usize, const KIND: Kind, const ONE: bool>(
    m: &Modulus,
    mut sums: [&mut ProductSum<'_>; SUMS],
    x: &[[&[u64]; 2]],
    values: usize,
) {
    let n = sums[0].out[0].len();
    let (finish, unpack) = (Finish::new(m), Unpack::new(m));
    let l = &finish.l;
    let factors: [&[Factor<'_>]; SUMS] = sums.each_ref().map(|s| s.factors);
    let run = n.trailing_zeros() - values.trailing_zeros();
    for j in (0..n).step_by(COLUMNS * LANES) {
        if KIND == RUNS && j.is_multiple_of(1 << run) {
            fetch_ahead(factors.into_iter(), j >> run, values);
        }
        for sum in &sums {
            fetch_outputs::<COLUMNS>(sum, j);
        }
        let zero = [[[l.zero; COLUMNS]; 2]; SUMS];
        let (mut lo, mut hi) = (zero, zero);
        for (i, x) in x.iter().enumerate() {
            // SAFETY: j + COLUMNS * LANES <= n, and the caller's promise.
            unsafe {
                // Loops, and no closures: what those give is passed through memory.
                let mut words = [[l.zero; COLUMNS]; 2];
                for (words, x) in words.iter_mut().zip(x) {
                    for (k, word) in words.iter_mut().enumerate() {
                        *word = load(x.as_ptr().add(j + k * LANES));
                    }
                }
                const { assert!(SUMS <= ABREAST && ABREAST == 4) };
                // Written out, since a loop with a branch in it is not unrolled, and its sums leave registers.
                macro_rules! add {
                    ($($s:literal)*) => { $(
                        if $s < SUMS {
                            let f = factors[$s].get_unchecked(i);
                            if !matches!(f.y, Values::Zero) {
                                let y = factor_at::<COLUMNS, KIND>(f, &unpack, (j, n), run);
                                for part in 0..2 {
                                    for k in 0..COLUMNS {
                                        let (x, y) = (words[part][k], y[k]);
                                        lo[$s][part][k] = _mm512_madd52lo_epu64(lo[$s][part][k], x, y);
                                        hi[$s][part][k] = _mm512_madd52hi_epu64(hi[$s][part][k], x, y);
                                    }
                                }
                            }
                        }
                    )* };
                }
                add!(0 1 2 3);
            }
        }
        for (s, sum) in sums.iter_mut().enumerate() {
            // SAFETY: j + COLUMNS * LANES <= n, the length of all outputs.
            unsafe { finish.put::<COLUMNS, ONE>(sum, j, &lo[s], &hi[s]) };
        }
    }
}

/// The values of a factor for the vectors from word `j` of `n` on; of what comes next as many fetched, if not all
/// have runs of `1 << run` words.
///
/// # Safety
/// `j + COLUMNS * LANES <= n`; the factor is not zero, is of the `KIND`, and its sum `fits`.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
unsafe fn factor_at<const COLUMNS: usize, const KIND: Kind>(
    f: &Factor<'_>,
    unpack: &Unpack,
    (j, n): (usize, usize),
    run: u32,
) -> [__m512i; COLUMNS] {
    let mut values = [_mm512_setzero_si512(); COLUMNS];
    // SAFETY: the caller's promise.
    unsafe {
        match (KIND, f.y) {
            (RUNS, Values::Runs(y)) => {
                values = [_mm512_set1_epi64(*y.as_ptr().add(j >> run) as i64); COLUMNS];
            }
            (_, Values::Packed(y)) => {
                unpack.fetch::<COLUMNS>(f.ahead, j);
                for (k, value) in values.iter_mut().enumerate() {
                    *value = match KIND {
                        PACKED => unpack.columns::<false>(y, j + k * LANES),
                        _ => unpack.columns::<true>(y, j + k * LANES),
                    };
                }
            }
            (_, Values::Runs(y)) => {
                unpack.fetch::<COLUMNS>(f.ahead, j);
                let run = n.trailing_zeros() - y.len().trailing_zeros();
                for (k, value) in values.iter_mut().enumerate() {
                    let at = j + k * LANES;
                    *value = match y.len() < n {
                        true => _mm512_set1_epi64(*y.as_ptr().add(at >> run) as i64),
                        false => load(y.as_ptr().add(at)),
                    };
                }
            }
            (_, Values::Zero) => {}
        }
    }
    values
}
