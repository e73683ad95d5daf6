//! What the kernels share: masks, sums over groups of slots, real and imaginary parts.

use veilformer_ckks::{Complex, Ops, OpsError, Scale, SlotVector};

use crate::CircuitError;

/// `Ok` if a circuit has the levels it takes.
pub(super) fn need_levels(
    circuit: &'static str,
    level: usize,
    needed: usize,
) -> Result<(), CircuitError> {
    if level >= needed {
        return Ok(());
    }
    Err(CircuitError::Levels {
        circuit,
        level,
        needed,
    })
}

/// A real vector of slots of this period, as a plaintext for factors at `level`.
pub(super) fn factor<O: Ops>(
    ops: &mut O,
    level: usize,
    period: usize,
    value: impl Fn(usize) -> f64,
) -> Result<O::Plain, OpsError> {
    let slots: Vec<Complex> = (0..period).map(|j| Complex::new(value(j), 0.0)).collect();
    let scale = ops.params().scale_at(level);
    ops.plain(&SlotVector::Periodic(slots).simplified(), level, scale)
}

/// The sum of some ciphertexts.
pub(super) fn sum<O: Ops>(
    ops: &mut O,
    circuit: &'static str,
    cts: &[O::Ct],
) -> Result<O::Ct, CircuitError> {
    let (first, others) = cts.split_first().ok_or_else(|| {
        CircuitError::shape(circuit, "no ciphertext given, at least one expected")
    })?;
    let mut sum = first.clone();
    for ct in others {
        sum = ops.add(&sum, ct)?;
    }
    Ok(sum)
}

/// `ct` and what each rotation of the sum so far adds: with steps 1, 2, 4 .. slot `j` gets the
/// slots from `j` on, with negative ones those up to `j`.
///
/// Two steps a and b at a time, as rotations by a, b and a + b of one sum: three inner products with a key
/// for two, but one decomposition and one ModDown, which take longer.
///
/// # Errors
/// What `ops` refuses.
pub fn fold<O: Ops>(ops: &mut O, ct: &O::Ct, steps: &[i64]) -> Result<O::Ct, OpsError> {
    let mut sum = ct.clone();
    for steps in steps.chunks(2) {
        let both = match steps {
            [a, b] => ops.rotate_sum(&sum, &[*a, *b, a + b]),
            steps => ops.rotate_sum(&sum, steps),
        };
        sum = both?;
    }
    Ok(sum)
}

/// `plain * ct`, rescaled.
pub(super) fn times<O: Ops>(ops: &mut O, ct: &O::Ct, plain: &O::Plain) -> Result<O::Ct, OpsError> {
    let product = ops.mul_plain(ct, plain)?;
    ops.rescale(&product)
}

/// Both at the lower one's level.
pub(super) fn meet<O: Ops>(ops: &mut O, a: &O::Ct, b: &O::Ct) -> Result<(O::Ct, O::Ct), OpsError> {
    let level = ops.level(a).min(ops.level(b));
    Ok((ops.adjust(a, level)?, ops.adjust(b, level)?))
}

/// A factor per slot that is known or encrypted: which tokens there are.
#[derive(Clone, Debug)]
pub enum Mask<Ct, Pl> {
    /// Known: a public number of tokens. Encoded by [`Mask::public`].
    Public(Pl),
    /// Encrypted, at the level of what it meets or above.
    Encrypted(Ct),
}

impl<Ct, Pl> Mask<Ct, Pl> {
    /// A known factor for operands of `level`.
    ///
    /// # Errors
    /// What `ops` refuses to encode.
    pub fn public<O: Ops<Ct = Ct, Plain = Pl>>(
        ops: &mut O,
        slots: &SlotVector,
        level: usize,
    ) -> Result<Self, OpsError> {
        let scale = ops.params().scale_at(level);
        Ok(Self::Public(ops.plain(slots, level, scale)?))
    }

    /// The product, one level below `ct`.
    ///
    /// # Errors
    /// A mask for a lower level; what `ops` refuses.
    pub fn apply<O: Ops<Ct = Ct, Plain = Pl>>(&self, ops: &mut O, ct: &Ct) -> Result<Ct, OpsError> {
        match self {
            Self::Public(plain) => times(ops, ct, plain),
            Self::Encrypted(mask) => {
                let mask = ops.adjust(mask, ops.level(ct))?;
                ops.mul(ct, &mask)
            }
        }
    }
}

/// Two real ciphertexts in one, as real and imaginary part.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts<Pl> {
    /// The imaginary unit and its negative, at scale one: monomials, exact, and no level.
    units: [Pl; 2],
}

impl<Pl> Parts<Pl> {
    /// For ciphertexts of `level` and below.
    ///
    /// # Errors
    /// What `ops` refuses to encode.
    pub fn new<O: Ops<Plain = Pl>>(ops: &mut O, level: usize) -> Result<Self, OpsError> {
        let mut unit = |im: f64| {
            let unit = SlotVector::Constant(Complex::new(0.0, im));
            ops.plain(&unit, level, Scale::power_of_two(0))
        };
        Ok(Self {
            units: [unit(1.0)?, unit(-1.0)?],
        })
    }

    /// `re + i im`.
    ///
    /// # Errors
    /// Operands of different levels or scales, or above those that this is for.
    pub fn join<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        re: &O::Ct,
        im: &O::Ct,
    ) -> Result<O::Ct, OpsError> {
        let turned = ops.mul_plain(im, &self.units[0])?;
        ops.add(re, &turned)
    }

    /// *Twice* the real part and twice the imaginary part, by one conjugation; whoever made `ct`
    /// has the factor one half in a plaintext already.
    ///
    /// # Errors
    /// What `ops` refuses.
    pub fn split<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
    ) -> Result<[O::Ct; 2], OpsError> {
        let mirrored = ops.conjugate(ct)?;
        let re = ops.add(ct, &mirrored)?;
        let im = ops.sub(ct, &mirrored)?;
        Ok([re, ops.mul_plain(&im, &self.units[1])?])
    }
}
