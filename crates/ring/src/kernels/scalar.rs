//! Portable kernels; inlined into wrappers that enable instruction-set features.

pub(super) use super::packed::pack_row;
use super::packed::packed_word;
use super::{
    Columns, ConvRow, ConvSource, Converted, Extra, Fraction, Keep, KeyRows, LOW_LOG, Layout,
    Minuend, Packed, PermutationPiece, ProductSum, ROUND_KEYS, Rest, Tile, Uniform, Values,
    tile_columns,
};
use crate::keystream::Keystream;
use crate::modulus::{Modulus, ShoupConst};
use crate::ntt::{InverseScale, NttTable};
pub(super) use forward_low as forward_digits;

const MASK52: u64 = (1 << 52) - 1;

/// `x - bound` if that is not negative.
#[inline(always)]
fn reduce_once(x: u64, bound: u64) -> u64 {
    x.min(x.wrapping_sub(bound))
}

/// Montgomery reduction with radix 2^52 of any `x` with `x / 2^52 + q < 2^64`: a value
/// congruent to `x / 2^52`, in `(0, x / 2^52 + q]`.
#[inline(always)]
fn montgomery_lazy(x: u128, q: u64, inv: u64) -> u64 {
    let m = (x as u64).wrapping_mul(inv) & MASK52;
    let high = ((u128::from(m) * u128::from(q)) >> 52) as u64;
    ((x >> 52) as u64).wrapping_sub(high).wrapping_add(q)
}

/// `x * y * 2^-52 mod q`, canonical, for a product below `2^52 q`.
#[inline(always)]
pub(super) fn montgomery(x: u64, y: u64, q: u64, inv: u64) -> u64 {
    reduce_once(montgomery_lazy(u128::from(x) * u128::from(y), q, inv), q)
}

#[inline(always)]
pub(super) fn forward(t: &NttTable, x: &mut [u64], _ahead: &[u64]) {
    forward_top(t, x, Layout::dense(x.len()));
    for (b, block) in x.chunks_exact_mut(1 << LOW_LOG.min(t.log_n)).enumerate() {
        forward_low(t, block, b, &[]);
    }
}

#[inline(always)]
fn forward_top(t: &NttTable, x: &mut [u64], layout: Layout) {
    let stages = t.log_n.saturating_sub(LOW_LOG);
    if layout.pitch == layout.width {
        return forward_stages(t, x, stages, (1, 0));
    }
    let rows = x.chunks_exact(layout.pitch);
    let mut dense: Vec<u64> = rows.flat_map(|row| &row[..layout.width]).copied().collect();
    forward_stages(t, &mut dense, stages, (1, 0));
    let rows = x.chunks_exact_mut(layout.pitch);
    for (row, dense) in rows.zip(dense.chunks_exact(layout.width)) {
        row[..layout.width].copy_from_slice(dense);
    }
}

#[inline(always)]
pub(super) fn forward_low(t: &NttTable, x: &mut [u64], block: usize, _ahead: &[u64]) {
    let len_log = LOW_LOG.min(t.log_n);
    forward_stages(t, x, len_log, (1 << (t.log_n - len_log), block));
    let q = t.modulus.value();
    x.iter_mut()
        .for_each(|x| *x = reduce_once(reduce_once(*x, 2 * q), q));
}

#[inline(always)]
pub(super) fn divide_low(
    t: &NttTable,
    x: &mut [u64],
    block: usize,
    ahead: &[u64],
    from: &Minuend<'_>,
) {
    forward_low(t, x, block, ahead);
    let m = &t.modulus;
    let Some(order) = from.order else {
        return sub_from_scaled(m, x, from.x, from.factor);
    };
    neg(m, x);
    permute_acc(m, x, from.x, order);
    scale(m, x, from.factor);
}

#[inline(always)]
pub(super) fn divide_rest(
    t: &NttTable,
    out: &mut [u64],
    _work: &mut [u64],
    rest: &Rest<'_>,
    from: &Minuend<'_>,
) {
    centre(&t.modulus, out, rest);
    forward(t, out, &[]);
    sub_from_scaled(&t.modulus, out, from.x, from.factor);
}

#[inline(always)]
pub(super) fn divide_converted(
    t: &NttTable,
    out: &mut [u64],
    work: &mut [u64],
    from: &Minuend<'_>,
) {
    for (b, block) in work.chunks_exact_mut(1 << LOW_LOG.min(t.log_n)).enumerate() {
        forward_low(t, block, b, &[]);
    }
    out.copy_from_slice(work);
    sub_from_scaled(&t.modulus, out, from.x, from.factor);
}

/// Residues of what a rest stands for, as a transform takes them: below 4q.
#[inline(always)]
pub(super) fn centre(m: &Modulus, out: &mut [u64], rest: &Rest<'_>) {
    let minus = m.neg(m.reduce(rest.prime / 2));
    let short = rest.prime <= 3 * m.value();
    let (width, columns) = (out.len().min(1 << LOW_LOG), tile_columns(out.len()));
    let rows = out.len() / width;
    let tiles = rest.words.chunks_exact(columns).take(out.len() / columns);
    for (i, words) in tiles.enumerate() {
        let at = i % rows * width + i / rows * columns;
        for (out, &x) in out[at..at + columns].iter_mut().zip(words) {
            *out = x + minus;
        }
        if !short {
            let out = &mut out[at..at + columns];
            out.iter_mut().for_each(|x| *x = m.reduce(*x));
        }
    }
}

/// The next `stages` stages of block `number` of `blocks`.
#[inline(always)]
fn forward_stages(
    t: &NttTable,
    x: &mut [u64],
    stages: u32,
    (mut blocks, mut number): (usize, usize),
) {
    let m = &t.modulus;
    let q = m.value();
    let twiddles = t.forward.shoup(m);
    let mut half = x.len() / 2;
    for _ in 0..stages {
        if half == 0 {
            return;
        }
        for (i, block) in x.chunks_exact_mut(2 * half).enumerate() {
            let w = twiddles.get(blocks, number + i);
            let (lo, hi) = block.split_at_mut(half);
            for (a, b) in lo.iter_mut().zip(hi) {
                let u = reduce_once(*a, 2 * q);
                let v = m.mul_shoup_lazy(*b, w);
                *a = u + v;
                *b = u + 2 * q - v;
            }
        }
        blocks *= 2;
        number *= 2;
        half /= 2;
    }
}

#[inline(always)]
pub(super) fn inverse_low(
    t: &NttTable,
    out: &mut [u64],
    x: &[u64],
    block: usize,
    c: &InverseScale,
) {
    let len_log = LOW_LOG.min(t.log_n);
    if out.len() != 1 << len_log || x.len() != out.len() {
        return;
    }
    out.copy_from_slice(x);
    inverse_stages(t, out, block, (t.log_n, t.log_n - len_log), c);
}

#[inline(always)]
pub(super) fn inverse_top(t: &NttTable, tile: &mut [u64], from: &Columns<'_>, c: &InverseScale) {
    gather(t, tile, from);
    inverse_stages(t, tile, 0, (t.log_n.saturating_sub(LOW_LOG), 0), c);
}

/// Copies columns of a limb to a tile.
#[inline(always)]
pub(super) fn gather(t: &NttTable, tile: &mut [u64], from: &Columns<'_>) {
    let Some(layout) = Layout::of(1 << t.log_n, from.x.len()) else {
        return;
    };
    let rows = from.x.chunks_exact(layout.pitch);
    for (to, row) in tile.chunks_exact_mut(from.range.len().max(1)).zip(rows) {
        if let Some(words) = row.get(from.range.clone()) {
            to.copy_from_slice(words);
        }
    }
}

#[inline(always)]
pub(super) fn inverse(
    t: &NttTable,
    out: &mut [u64],
    x: Option<&[u64]>,
    c: &InverseScale,
    _ahead: &[u64],
) {
    if let Some(x) = x.filter(|x| x.len() == out.len()) {
        out.copy_from_slice(x);
    }
    let len_log = LOW_LOG.min(t.log_n);
    for (b, block) in out.chunks_exact_mut(1 << len_log).enumerate() {
        inverse_stages(t, block, b, (t.log_n, t.log_n - len_log), c);
    }
    inverse_stages(t, out, 0, (t.log_n.saturating_sub(LOW_LOG), 0), c);
}

/// Inverse stages on block `number` of `2^to`, from where there were `2^from` in all.
#[inline(always)]
fn inverse_stages(
    t: &NttTable,
    x: &mut [u64],
    number: usize,
    (from, to): (u32, u32),
    c: &InverseScale,
) {
    let m = &t.modulus;
    let q = m.value();
    let twiddles = t.inverse.shoup(m);
    for log_blocks in (to.max(1)..from).rev() {
        let half = x.len() >> (log_blocks - to + 1);
        for (i, block) in x.chunks_exact_mut(2 * half).enumerate() {
            let w = twiddles.get(1 << log_blocks, (number << (log_blocks - to)) + i);
            let (lo, hi) = block.split_at_mut(half);
            for (a, b) in lo.iter_mut().zip(hi) {
                let (u, v) = (*a, *b);
                *a = reduce_once(u + v, 2 * q);
                *b = m.mul_shoup_lazy(u + 2 * q - v, w);
            }
        }
    }
    if to == 0 && from > 0 {
        let (lo, hi) = x.split_at_mut(x.len() / 2);
        for (a, b) in lo.iter_mut().zip(hi) {
            let (u, v) = (*a, *b);
            *a = m.mul_shoup(u + v, c.low);
            *b = m.mul_shoup(u + 2 * q - v, c.high);
        }
    }
}

#[inline(always)]
pub(super) fn add(m: &Modulus, out: &mut [u64], y: &[u64]) {
    out.iter_mut().zip(y).for_each(|(o, &y)| *o = m.add(*o, y));
}

#[inline(always)]
pub(super) fn sub(m: &Modulus, out: &mut [u64], y: &[u64]) {
    out.iter_mut().zip(y).for_each(|(o, &y)| *o = m.sub(*o, y));
}

#[inline(always)]
pub(super) fn sum(m: &Modulus, out: &mut [u64], x: &[u64], y: &[u64], _past: bool) {
    out.iter_mut()
        .zip(x.iter().zip(y))
        .for_each(|(o, (&x, &y))| *o = m.add(x, y));
}

#[inline(always)]
pub(super) fn difference(m: &Modulus, out: &mut [u64], x: &[u64], y: &[u64], _past: bool) {
    out.iter_mut()
        .zip(x.iter().zip(y))
        .for_each(|(o, (&x, &y))| *o = m.sub(x, y));
}

#[inline(always)]
pub(super) fn neg(m: &Modulus, out: &mut [u64]) {
    out.iter_mut().for_each(|o| *o = m.neg(*o));
}

#[inline(always)]
pub(super) fn mul(m: &Modulus, out: &mut [u64], x: &[u64], y: &[u64], _past: bool) {
    out.iter_mut()
        .zip(x.iter().zip(y))
        .for_each(|(o, (&x, &y))| *o = m.mul(x, y));
}

#[inline(always)]
pub(super) fn mul_acc(m: &Modulus, out: &mut [u64], x: &[u64], y: &[u64]) {
    out.iter_mut()
        .zip(x.iter().zip(y))
        .for_each(|(o, (&x, &y))| *o = m.add(*o, m.mul(x, y)));
}

#[inline(always)]
pub(super) fn mul_mont(m: &Modulus, out: &mut [u64], terms: &[(&[u64], Packed<'_>)], keep: Keep) {
    let (q, inv) = (m.value(), m.inv52());
    for (i, &(x, y)) in terms.iter().enumerate() {
        let add = i > 0 || keep == Keep::Added;
        for (j, (o, &x)) in out.iter_mut().zip(x).enumerate() {
            let product = montgomery(x, y.word(m, j), q, inv);
            *o = if add { m.add(*o, product) } else { product };
        }
    }
}

#[inline(always)]
pub(super) fn sum_mont(m: &Modulus, out: &mut [u64], x: &[u64], y: Packed<'_>, _past: bool) {
    let (q, inv) = (m.value(), m.inv52());
    for (j, (o, &x)) in out.iter_mut().zip(x).enumerate() {
        *o = m.add(x, montgomery(y.word(m, j), 1, q, inv));
    }
}

#[inline(always)]
pub(super) fn mul_const(m: &Modulus, out: &mut [u64], x: &[u64], c: ShoupConst) {
    out.iter_mut()
        .zip(x)
        .for_each(|(o, &x)| *o = m.mul_shoup(x, c));
}

#[inline(always)]
pub(super) fn mul_const_acc(m: &Modulus, out: &mut [u64], x: &[u64], c: ShoupConst) {
    out.iter_mut()
        .zip(x)
        .for_each(|(o, &x)| *o = m.add(*o, m.mul_shoup(x, c)));
}

#[inline(always)]
pub(super) fn scale(m: &Modulus, out: &mut [u64], c: ShoupConst) {
    out.iter_mut().for_each(|o| *o = m.mul_shoup(*o, c));
}

#[inline(always)]
pub(super) fn add_const(m: &Modulus, out: &mut [u64], c: u64) {
    out.iter_mut().for_each(|o| *o = m.add(*o, c));
}

#[inline(always)]
pub(super) fn sum_const(m: &Modulus, out: &mut [u64], x: &[u64], c: u64) {
    out.iter_mut().zip(x).for_each(|(o, &x)| *o = m.add(x, c));
}

#[inline(always)]
pub(super) fn sub_from_scaled(m: &Modulus, out: &mut [u64], x: &[u64], c: ShoupConst) {
    out.iter_mut()
        .zip(x)
        .for_each(|(o, &x)| *o = m.mul_shoup(m.sub(x, *o), c));
}

#[inline(always)]
pub(super) fn quotient(v: &mut [u8], ys: &[u64], fractions: &[Fraction]) {
    let n = v.len().max(1);
    if let [f] = fractions {
        v.iter_mut()
            .zip(ys)
            .for_each(|(v, &y)| *v = u8::from(y > f.half));
        return;
    }
    // Each term is below its real value by less than 2 units of 2^-51; adding half of the largest
    // total error centres what remains.
    let bias = (1u64 << 50) + fractions.len() as u64;
    for (j, v) in v.iter_mut().enumerate() {
        let sum: u64 = ys
            .chunks_exact(n)
            .zip(fractions)
            .map(|(y, f)| ((u128::from(y[j] << f.shift) * u128::from(f.inverse)) >> 52) as u64)
            .sum();
        *v = ((sum + bias) >> 51) as u8;
    }
}

#[inline(always)]
pub(super) fn convert(targets: &mut [Converted<'_>], source: &ConvSource<'_>) {
    for t in targets {
        convert_from(&t.table.modulus, t.out, 0, source, t.row);
    }
}

/// The conversion of consecutive words of a source from `first` on.
#[inline(always)]
fn convert_from(
    m: &Modulus,
    out: &mut [u64],
    first: usize,
    source: &ConvSource<'_>,
    row: &ConvRow,
) {
    let (q, inv) = (m.value(), m.inv52());
    let steps = steps_for(row.weights.len() / 4 + 1);
    let words = source.v.len().max(1);
    for (o, at) in out.iter_mut().zip(first..) {
        let v = source.v.get(at).copied().unwrap_or(0);
        let mut sum = u128::from(v) * u128::from(row.minus_d());
        for (y, &w) in source.ys.chunks_exact(words).zip(&row.weights) {
            sum += u128::from(y.get(at).copied().unwrap_or(0)) * u128::from(w);
        }
        *o = reduce_steps(montgomery_lazy(sum, q, inv), q, steps);
    }
}

#[inline(always)]
pub(super) fn convert_tile(targets: &mut [Converted<'_>], source: &ConvSource<'_>, tile: &Tile) {
    for t in targets {
        let Some(layout) = Layout::of(1 << t.table.log_n, t.out.len()) else {
            return;
        };
        for (r, columns) in t.out.chunks_exact_mut(layout.pitch).enumerate() {
            let Some(part) = columns.get_mut(tile.columns.clone()) else {
                return;
            };
            let first = r * tile.columns.len();
            convert_from(&t.table.modulus, part, first, source, t.row);
        }
        // Tiles are for the vector kernels' sake; here the stages wait for the last one.
        if tile.top && tile.columns.end == layout.width {
            forward_top(t.table, t.out, layout);
        }
    }
}

/// `ceil(log2(terms + 2))`: brings a Montgomery-reduced sum of `terms` products, each below
/// `2^52 q`, to canonical form.
pub(super) fn steps_for(terms: usize) -> u32 {
    (terms + 2).next_power_of_two().trailing_zeros()
}

/// Brings a value below `2^steps q` to canonical form.
#[inline(always)]
fn reduce_steps(mut x: u64, q: u64, steps: u32) -> u64 {
    for s in (0..steps).rev() {
        x = reduce_once(x, q << s);
    }
    x
}

#[inline(always)]
pub(super) fn inner_product(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    key: &KeyRows<'_>,
    extra: &Extra<'_>,
) {
    let (q, inv) = (m.value(), m.inv52());
    // A tensor product's terms are of canonical words.
    let steps = steps_for(key.digits.len() + 1 + extra.tensors.len());
    let factor = m.shoup(extra.factor);
    let n = out0.len();
    let uniform: Option<Vec<Vec<u64>>> = key.uniform.map(|u| {
        key.first
            .iter()
            .map(|first| halves(m, &u, first / 2, n))
            .collect()
    });
    for (part, out) in [out0, out1].into_iter().enumerate() {
        for j in 0..out.len() {
            let add = extra.x[part].and_then(|x| x.get(j).copied()).unwrap_or(0);
            let mut sum = u128::from(add) * u128::from(extra.factor);
            let word = |x: &[u64]| x.get(j).copied().unwrap_or(0);
            for t in extra.tensors {
                let [a0, a1] = t.a.map(|a| u128::from(m.mul_shoup(word(a), factor)));
                let [b0, b1] = t.b.map(|b| u128::from(word(b)));
                sum += if part == 0 {
                    a0 * b0
                } else {
                    a0 * b1 + a1 * b0
                };
            }
            for (d, (digit, &first)) in key.digits.iter().zip(key.first).enumerate() {
                let k = match &uniform {
                    None => packed_word(m, key.words, (first + part, key.rows), j),
                    Some(_) if part == 0 => packed_word(m, key.words, (first / 2, key.rows), j),
                    Some(halves) => halves.get(d).map_or(0, |half| word(half)),
                };
                sum += u128::from(digit.get(j).copied().unwrap_or(0)) * u128::from(k);
            }
            if let Some(o) = out.get_mut(place_of(key, j)) {
                *o = reduce_steps(montgomery_lazy(sum, q, inv), q, steps);
            }
        }
    }
}

/// The key alone: portable code expands it each time.
#[inline(always)]
pub(super) fn round_keys(key: &[u8; 16], out: &mut [u64]) {
    for (out, bytes) in out.iter_mut().zip(key.as_chunks::<8>().0) {
        *out = u64::from_le_bytes(*bytes);
    }
}

pub(super) fn refused(m: &Modulus, round_keys: &[u64], words: usize, out: &mut Vec<(u32, u64)>) {
    let stream = stream(m, round_keys);
    let (mut first, mut taken) = ([0; 2], [0; 2]);
    for j in (0..words as u64).step_by(2) {
        stream.first_attempts(j, &mut first);
        stream.words(j, &mut taken);
        for (j, (first, taken)) in (j..).zip(first.into_iter().zip(taken)) {
            if first != taken {
                out.push((j as u32, m.sub(m.reduce(taken), m.reduce(first))));
            }
        }
    }
}

pub(super) fn uniform(m: &Modulus, round_keys: &[u64], out: &mut [u64]) {
    stream(m, round_keys).residues(m, out);
}

/// What a uniform half is made from.
fn stream(m: &Modulus, round_keys: &[u64]) -> Keystream {
    let mut key = [0; 16];
    for (bytes, word) in key.chunks_exact_mut(8).zip(round_keys) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Keystream::new(key, m)
}

/// The words of one uniform half that `n` columns meet, canonical.
fn halves(m: &Modulus, uniform: &Uniform<'_>, digit: usize, n: usize) -> Vec<u64> {
    let keys = uniform.round_keys.get(digit * ROUND_KEYS..);
    let stream = stream(m, keys.unwrap_or(&[]));
    let mut out = vec![0; n];
    for (columns, out) in out.chunks_mut(8).enumerate() {
        let (group, places) = uniform.group(columns);
        let mut words = [0; 8];
        stream.words(8 * group as u64, &mut words);
        for (out, place) in out.iter_mut().zip(places) {
            *out = m.reduce(words[place as usize]);
        }
    }
    out
}

/// Where an inner product's result of column `j` goes.
#[inline(always)]
pub(super) fn place_of(key: &KeyRows<'_>, j: usize) -> usize {
    let Some(order) = key.order else {
        return j;
    };
    let b = order.blocks.get(j / 8).copied().unwrap_or(0);
    let from = |lane: &u64| *lane as usize == j % 8;
    let lane = order.lanes[(b & 7) as usize].iter().position(from);
    ((b >> 3) as usize).wrapping_sub(order.base) * 8 + lane.unwrap_or(0)
}

#[inline(always)]
pub(super) fn sum_products(m: &Modulus, sums: &mut [ProductSum<'_>], x: &[[&[u64]; 2]]) {
    let (q, inv) = (m.value(), m.inv52());
    // Both factors are canonical: each product is below 2^50 q.
    let steps = steps_for(x.len() / 4 + 1);
    for sum in sums {
        let n = sum.out[0].len();
        for j in 0..n {
            let mut sums = [0; 2];
            for (x, factor) in x.iter().zip(sum.factors) {
                let y = match factor.y {
                    Values::Zero => continue,
                    Values::Runs(y) => y.get(j / (n / y.len().max(1)).max(1)).copied().unwrap_or(0),
                    Values::Packed(y) => y.word(m, j),
                };
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum += u128::from(x.get(j).copied().unwrap_or(0)) * u128::from(y);
                }
            }
            for ((sum, out), fresh) in sums.into_iter().zip(&mut sum.out).zip(sum.fresh) {
                let sum = reduce_steps(montgomery_lazy(sum, q, inv), q, steps);
                if let Some(o) = out.get_mut(j) {
                    *o = if fresh { sum } else { m.add(*o, sum) };
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn copy(out: &mut [u64], x: &[u64], _ahead: &[u64]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = *x;
    }
}

#[inline(always)]
pub(super) fn spread(out: &mut [u64], x: &[u64]) {
    let run = (out.len() / x.len().max(1)).max(1);
    for (run, &x) in out.chunks_exact_mut(run).zip(x) {
        run.fill(x);
    }
}

#[inline(always)]
pub(super) fn permute(
    out: &mut [u64],
    x: &[u64],
    p: &PermutationPiece<'_>,
    _ahead: &[u64],
    _past: bool,
) {
    for (o, &b) in out.chunks_exact_mut(8).zip(p.blocks) {
        let source = ((b >> 3) as usize).wrapping_sub(p.base);
        let Some(src) = x.as_chunks::<8>().0.get(source) else {
            return;
        };
        let lanes = &p.lanes[(b & 7) as usize];
        o.iter_mut()
            .zip(lanes)
            .for_each(|(o, &l)| *o = src[(l & 7) as usize]);
    }
}

#[inline(always)]
pub(super) fn permute_acc(m: &Modulus, out: &mut [u64], x: &[u64], p: &PermutationPiece<'_>) {
    for (o, &b) in out.chunks_exact_mut(8).zip(p.blocks) {
        let source = ((b >> 3) as usize).wrapping_sub(p.base);
        let Some(src) = x.as_chunks::<8>().0.get(source) else {
            return;
        };
        let lanes = &p.lanes[(b & 7) as usize];
        o.iter_mut()
            .zip(lanes)
            .for_each(|(o, &l)| *o = m.add(*o, src[(l & 7) as usize]));
    }
}

#[inline(always)]
pub(super) fn permute_coefficients(m: &Modulus, out: &mut [u64], x: &[u64], g: u64) {
    let n = out.len();
    let mask = 2 * n as u64 - 1;
    let mut e = 0u64;
    for &c in x.iter().take(n) {
        let at = e as usize;
        if at < n {
            out[at] = c;
        } else {
            out[at - n] = m.neg(c);
        }
        e = (e + g) & mask;
    }
}
