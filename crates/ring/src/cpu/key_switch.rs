//! Key switching: prime-outer, digit-inner, limb by limb from decomposition to ModDown.

use super::{Cpu, CpuKey, convert::Scaled};
use crate::backend::{Pair, PairRef};
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::error::{Result, RingError};
use crate::galois::Permutation;
use crate::kernels::KeyRows;
use crate::poly::{Form, RnsPoly};

/// A polynomial cut into digits, ready to be converted to any prime.
struct Decomposed<'a> {
    poly: &'a RnsPoly,
    /// `(index of the digit in the key, its scaled residues)`.
    digits: Vec<(usize, Basis, Scaled)>,
}

/// One output pair of the engine: what is added and which products are summed.
struct Job<'a> {
    /// `(c0, its permutation)` and c1.
    add0: Option<(&'a RnsPoly, Option<&'a Permutation>)>,
    add1: Option<&'a RnsPoly>,
    /// `(index of the decomposed polynomial, key)`.
    terms: Vec<(usize, &'a CpuKey)>,
}

/// The primes of one key switch.
#[derive(Clone, Copy)]
struct Shape {
    basis: Basis,
    special: Basis,
    drop: Basis,
}

const OP: &str = "key_switch_sum";

impl Cpu {
    pub(super) fn switch_sum(
        &self,
        add: Option<PairRef<'_, RnsPoly>>,
        terms: &[(&RnsPoly, &CpuKey)],
        drop: Basis,
    ) -> Result<Pair<RnsPoly>> {
        let Some((first, key)) = terms.first() else {
            return Err(RingError::Empty { op: OP });
        };
        if let Some((a0, a1)) = add {
            first.require_like(OP, a0)?;
            first.require_like(OP, a1)?;
        }
        let shape = self.check_terms(first, key, terms, drop)?;
        let polys: Vec<(&RnsPoly, &CpuKey)> = terms.to_vec();
        let job = Job {
            add0: add.map(|(a0, _)| (a0, None)),
            add1: add.map(|(_, a1)| a1),
            terms: terms
                .iter()
                .enumerate()
                .map(|(i, (_, k))| (i, *k))
                .collect(),
        };
        self.run(&polys, &[job], shape)?
            .pop()
            .ok_or(RingError::Empty { op: OP })
    }

    pub(super) fn rotate_hoisted(
        &self,
        c: PairRef<'_, RnsPoly>,
        keys: &[&CpuKey],
    ) -> Result<Vec<Pair<RnsPoly>>> {
        let Some(key) = keys.first() else {
            return Ok(Vec::new());
        };
        c.0.require_like("rotate_many", c.1)?;
        let terms: Vec<(&RnsPoly, &CpuKey)> = keys.iter().map(|k| (c.1, *k)).collect();
        let shape = self.check_terms(c.1, key, &terms, Basis::empty())?;
        if keys.iter().any(|k| k.digits != key.digits) {
            // Digits of another partition cannot be shared: one switch each.
            return keys
                .iter()
                .map(|k| {
                    self.rotate_hoisted(c, &[k])?
                        .pop()
                        .ok_or(RingError::Empty { op: OP })
                })
                .collect();
        }
        let jobs: Vec<Job<'_>> = keys
            .iter()
            .map(|k| Job {
                add0: Some((c.0, (!k.galois.is_identity()).then_some(&k.permutation))),
                add1: None,
                terms: vec![(0, *k)],
            })
            .collect();
        self.run(&[(c.1, *key)], &jobs, shape)
    }

    fn check_terms(
        &self,
        first: &RnsPoly,
        key: &CpuKey,
        terms: &[(&RnsPoly, &CpuKey)],
        drop: Basis,
    ) -> Result<Shape> {
        let (basis, special) = (first.basis(), key.special);
        self.chain.check_same(OP, first.chain())?;
        first.require_form(OP, Form::Ntt)?;
        for (p, k) in terms {
            first.require_like(OP, p)?;
            if k.special != special {
                return Err(RingError::BadKey("keys of one sum must share P".into()));
            }
            let covered = k.digits.iter().fold(Basis::empty(), |a, &d| a.union(d));
            if !covered.contains_all(basis) || !k.basis.contains_all(basis.union(special)) {
                return Err(RingError::BasisMismatch {
                    op: OP,
                    expected: k.basis,
                    found: basis.union(special),
                });
            }
        }
        if !basis.contains_all(drop) || basis == drop {
            return Err(RingError::BadBasis {
                op: OP,
                basis: drop,
                reason: "drop must be a proper subset of the polynomials' basis",
            });
        }
        Ok(Shape {
            basis,
            special,
            drop,
        })
    }

    fn decompose<'a>(&self, poly: &'a RnsPoly, key: &CpuKey) -> Decomposed<'a> {
        let digits = key
            .digits
            .iter()
            .enumerate()
            .map(|(d, digit)| (d, digit.intersect(poly.basis())))
            .filter(|(_, own)| !own.is_empty())
            .map(|(d, own)| (d, own, self.scale_source(own, self.coefficients(poly, own))))
            .collect();
        Decomposed { poly, digits }
    }

    /// The engine behind every coarse operation. First the primes that are divided away, then the
    /// others, each finished before the next begins.
    fn run(
        &self,
        polys: &[(&RnsPoly, &CpuKey)],
        jobs: &[Job<'_>],
        shape: Shape,
    ) -> Result<Vec<Pair<RnsPoly>>> {
        let n = self.chain.n();
        let divisor = shape.special.union(shape.drop);
        let keep = shape.basis.minus(shape.drop);
        let sources: Vec<Decomposed<'_>> =
            polys.iter().map(|(p, k)| self.decompose(p, k)).collect();
        let most = sources.iter().map(|s| s.digits.len()).max().unwrap_or(0);
        let mut scratch = Buffer::dirty((most + 2) * n);

        let mut divided: Vec<(Buffer, Buffer)> = jobs
            .iter()
            .map(|_| {
                (
                    Buffer::dirty(divisor.len() * n),
                    Buffer::dirty(divisor.len() * n),
                )
            })
            .collect();
        for (pos, j) in divisor.iter().enumerate() {
            let range = pos * n..(pos + 1) * n;
            let outs: Vec<_> = divided
                .iter_mut()
                .map(|(a, b)| (&mut a[range.clone()], &mut b[range.clone()]))
                .collect();
            self.products(&sources, jobs, (shape, j), outs, &mut scratch);
        }
        let divided: Vec<(Scaled, Scaled)> = divided
            .into_iter()
            .map(|(a, b)| {
                let finish = |mut x: Buffer| {
                    for (j, limb) in divisor.iter().zip(x.chunks_exact_mut(n)) {
                        self.kernels.inverse(self.chain.table(j), limb);
                    }
                    self.scale_source(divisor, x)
                };
                (finish(a), finish(b))
            })
            .collect();

        let mut results: Vec<Pair<RnsPoly>> = jobs
            .iter()
            .map(|_| {
                let new = || RnsPoly::dirty(&self.chain, keep, Form::Ntt);
                (new(), new())
            })
            .collect();
        let mut product = Buffer::dirty(jobs.len() * 2 * n);
        for (pos, j) in keep.iter().enumerate() {
            let m = self.chain.modulus(j);
            let outs: Vec<_> = product
                .chunks_exact_mut(2 * n)
                .map(|c| c.split_at_mut(n))
                .collect();
            self.products(&sources, jobs, (shape, j), outs, &mut scratch);
            let inverse = m.shoup(self.chain.product_inverse_mod(divisor, j));
            for (((r0, r1), (s0, s1)), x) in results
                .iter_mut()
                .zip(&divided)
                .zip(product.chunks_exact(2 * n))
            {
                let (x0, x1) = x.split_at(n);
                for (r, s, x) in [(r0, s0, x0), (r1, s1, x1)] {
                    let out = r.limb_mut(pos);
                    self.convert_to(s, j, out);
                    self.kernels.forward(self.chain.table(j), out);
                    self.kernels.sub_from_scaled(m, out, x, inverse);
                }
            }
        }
        Ok(results)
    }

    /// For one prime `j`: `P add + sum sigma(sum_d digit_d key_d)` of every job.
    fn products(
        &self,
        sources: &[Decomposed<'_>],
        jobs: &[Job<'_>],
        (shape, j): (Shape, usize),
        mut outs: Vec<(&mut [u64], &mut [u64])>,
        scratch: &mut Buffer,
    ) {
        let n = self.chain.n();
        let m = self.chain.modulus(j);
        let (temp, digit_space) = scratch.split_at_mut(2 * n);
        let (temp0, temp1) = temp.split_at_mut(n);
        let p = m.shoup(self.chain.product_mod(shape.special, j));
        for (job, (out0, out1)) in jobs.iter().zip(&mut outs) {
            match job
                .add0
                .and_then(|(a, perm)| a.limb_of(j).map(|x| (x, perm)))
            {
                Some((x, Some(perm))) => {
                    self.kernels.permute(out0, x, perm);
                    self.kernels.scale(m, out0, p);
                }
                Some((x, None)) => self.kernels.mul_const(m, out0, x, p),
                None => out0.fill(0),
            }
            match job.add1.and_then(|a| a.limb_of(j)) {
                Some(x) => self.kernels.mul_const(m, out1, x, p),
                None => out1.fill(0),
            }
        }
        for (index, source) in sources.iter().enumerate() {
            let own_limb = source.poly.limb_of(j);
            let mut digits: Vec<&[u64]> = Vec::with_capacity(source.digits.len());
            for ((_, own, scaled), space) in
                source.digits.iter().zip(digit_space.chunks_exact_mut(n))
            {
                match own_limb {
                    Some(x) if own.contains(j) => digits.push(x),
                    _ => {
                        self.convert_to(scaled, j, space);
                        self.kernels.forward(self.chain.table(j), space);
                        digits.push(space);
                    }
                }
            }
            for (job, (out0, out1)) in jobs.iter().zip(&mut outs) {
                for (_, key) in job.terms.iter().filter(|(i, _)| *i == index) {
                    let Some(rows) = key.basis.position_of(j).and_then(|pos| key.rows.get(pos))
                    else {
                        continue;
                    };
                    self.multiply(m, source, &digits, rows, (temp0, temp1));
                    self.kernels.permute_acc(m, out0, temp0, &key.permutation);
                    self.kernels.permute_acc(m, out1, temp1, &key.permutation);
                }
            }
        }
    }

    /// The inner product of the digits that are present with their key rows.
    fn multiply(
        &self,
        m: &crate::Modulus,
        source: &Decomposed<'_>,
        digits: &[&[u64]],
        rows: &Buffer,
        (out0, out1): (&mut [u64], &mut [u64]),
    ) {
        let n = self.chain.n();
        let offsets: Vec<usize> = source.digits.iter().map(|(d, ..)| 2 * d * n).collect();
        self.kernels.inner_product(
            m,
            out0,
            out1,
            digits,
            &KeyRows {
                words: rows,
                offsets: &offsets,
                stride: n,
            },
        );
    }
}
