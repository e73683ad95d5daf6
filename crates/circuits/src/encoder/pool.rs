//! From all tokens to one vector.

use veilformer_ckks::{Complex, Ops, SlotVector};

use super::heads::doublings;
use super::slots::{Mask, fold};
use crate::CircuitError;

const CIRCUIT: &str = "pooling";

/// How tokens become one vector, in blocks of `width` slots per token; one level each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Padded number of tokens: a power of two.
    pub tokens: usize,
    /// Slots of a token: a power of two.
    pub width: usize,
}

impl Pool {
    /// The slots of a factor per token, for [`Mask`]: for the mean `1/n` at each of `n` tokens, and
    /// zero at the padded ones.
    ///
    /// # Errors
    /// Tokens or a width that are no powers of two.
    pub fn of_tokens(&self, token: impl Fn(usize) -> f64) -> Result<SlotVector, CircuitError> {
        self.check(usize::MAX)?;
        let slots = 0..self.tokens * self.width;
        let slots = slots.map(|slot| Complex::new(token(slot / self.width), 0.0));
        Ok(SlotVector::Periodic(slots.collect()))
    }

    /// `sum over tokens of mask * block`, in the slots of every token.
    ///
    /// # Errors
    /// A shape that does not fit; what `ops` refuses.
    pub fn sum<O: Ops>(
        &self,
        ops: &mut O,
        block: &O::Ct,
        mask: &Mask<O::Ct, O::Plain>,
    ) -> Result<O::Ct, CircuitError> {
        self.check(ops.params().slots())?;
        let masked = mask.apply(ops, block)?;
        Ok(fold(ops, &masked, &doublings(self.width, self.tokens))?)
    }

    /// One token, in its place; the slots of all others are zero.
    ///
    /// # Errors
    /// A shape that does not fit, or no such token; what `ops` refuses.
    pub fn token<O: Ops>(
        &self,
        ops: &mut O,
        block: &O::Ct,
        token: usize,
    ) -> Result<O::Ct, CircuitError> {
        self.check(ops.params().slots())?;
        if token >= self.tokens {
            let what = format!("token {token} of {}", self.tokens);
            return Err(CircuitError::shape(CIRCUIT, what));
        }
        let only = self.of_tokens(|t| f64::from(u8::from(t == token)))?;
        let mask = Mask::public(ops, &only, ops.level(block))?;
        Ok(mask.apply(ops, block)?)
    }

    fn check(&self, slots: usize) -> Result<(), CircuitError> {
        let powers = self.tokens.is_power_of_two() && self.width.is_power_of_two();
        let fits = self
            .tokens
            .checked_mul(self.width)
            .is_some_and(|n| n <= slots);
        if powers && fits {
            return Ok(());
        }
        let what = format!(
            "{} tokens of {} slots in {slots}; powers of two that fit are expected",
            self.tokens, self.width
        );
        Err(CircuitError::shape(CIRCUIT, what))
    }
}
