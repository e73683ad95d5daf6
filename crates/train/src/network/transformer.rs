//! The layer of a polynomial transformer.

use std::ops::Mul;

use candle_core::Tensor;
use veilformer_models::config::TransformerConfig;

use super::{Mode, Network, Pass};
use crate::error::Result;
use crate::family::TransformerLimits;

impl Network<'_> {
    /// A layer on `x`, B x T x d.
    pub(super) fn transformer(
        &self,
        shape: &TransformerConfig,
        layer: &str,
        x: Tensor,
        pass: &mut Pass<'_, '_>,
    ) -> Result<Tensor> {
        let attended = self.attention(shape, layer, &x, pass)?;
        let x = (x + pass.dropout(attended)?)?;
        pass.observe("y", &x)?;
        let fed = self.feed_forward(layer, &x, pass)?;
        Ok((x + pass.dropout(fed)?)?)
    }

    fn attention(
        &self,
        shape: &TransformerConfig,
        layer: &str,
        x: &Tensor,
        pass: &mut Pass<'_, '_>,
    ) -> Result<Tensor> {
        let (heads, width) = (shape.num_attention_heads, shape.head_dim);
        let limits = pass.transformer_limits();
        let (b, t, _) = x.dims3()?;
        let a = self.norm(&format!("{layer}.norm1"), x, pass)?;
        let project = |name: &str| self.linear(&format!("{layer}.attention.{name}"), &a);
        let (q, k, v) = (project("query")?, project("key")?, project("value")?);
        for (name, value) in [("q", &q), ("k", &k), ("v", &v)] {
            pass.limit(name, value, limits.map(|l| l.projections))?;
        }
        let split = |z: &Tensor| -> Result<Tensor> {
            Ok(z.reshape((b, t, heads, width))?
                .transpose(1, 2)?
                .contiguous()?)
        };
        // Padding is taken out on the value's side, where the length's inverse goes too: what a
        // padded position scores does not matter then.
        let v = split(
            &v.broadcast_mul(&pass.mask)?
                .broadcast_mul(&pass.inverse_length)?,
        )?;
        let scores = split(&q)?.matmul(&split(&k)?.t()?)?;
        let scores = (scores / (width as f64).sqrt())?;
        pass.limit_scores(&scores, limits)?;
        let o = scores.sqr()?.matmul(&v)?;
        let o = o
            .transpose(1, 2)?
            .contiguous()?
            .reshape((b, t, heads * width))?;
        pass.limit("o", &o, limits.map(|l| l.attention))?;
        self.linear(&format!("{layer}.attention.output"), &o)
    }

    fn feed_forward(&self, layer: &str, x: &Tensor, pass: &mut Pass<'_, '_>) -> Result<Tensor> {
        let normed = self.norm(&format!("{layer}.norm2"), x, pass)?;
        let u = self.linear(&format!("{layer}.ffn.up"), &normed)?;
        let limits = pass.transformer_limits();
        pass.limit("u", &u, limits.map(|l| l.activation))?;
        let beta = self.weight(&format!("{layer}.ffn.beta"))?;
        let act = (u.sqr()? + u.broadcast_mul(beta)?)?;
        let act = pass.dropout(act)?;
        self.linear(&format!("{layer}.ffn.down"), &act)
    }
}

impl Pass<'_, '_> {
    /// The scores' term runs over all pairs of real tokens of a sentence.
    fn limit_scores(&mut self, scores: &Tensor, limits: Option<TransformerLimits>) -> Result<()> {
        if matches!(self.mode, Mode::Eval) {
            return Ok(());
        }
        let rows = self.mask.unsqueeze(1)?;
        let columns = rows.transpose(2, 3)?;
        if let Some(limits) = limits {
            let over = ((scores - limits.scores_middle)?.abs()? - limits.scores)?.relu()?;
            // The sum over tokens u of a sentence is divided by its length, so that a long
            // sentence counts by its tokens and not by their square.
            let over = over
                .sqr()?
                .broadcast_mul(&rows)?
                .broadcast_mul(&columns)?
                .sum((1, 2, 3))?
                .mul(&self.inverse_length.flatten_all()?)?;
            let heads = scores.dim(1)? as f64;
            self.add_range_term((over.sum_all()? / (self.tokens * heads))?)?;
        }
        if let Mode::Observe(ranges) = self.mode {
            let real = rows.broadcast_mul(&columns)?.broadcast_as(scores.shape())?;
            ranges.add("S", scores, Some(&real))?;
        }
        Ok(())
    }
}
