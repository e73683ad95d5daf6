//! How a set of polynomials is evaluated: decided once, without ciphertexts.
//!
//! The run walks the plan, the compiler counts from it, and the noise model of the bootstrap
//! follows it, so the three cannot disagree.
//!
//! Paterson-Stockmeyer in the Chebyshev basis: `p = q T_g + r` with `g` a power of two and
//! `deg q, deg r < g` (division from `T_(g+j) = 2 T_g T_j - T_(g-j)`), down to linear
//! combinations of a few `T_k`. Two facts give depth `ceil(log2(degree + 1))`, the least there
//! is (after Bossuat, Mouchet, Troncoso-Pastoriza, Hubaux, ePrint 2020/1203, section 5):
//! * where a quotient has all the levels it wants (a *slack* part), it stops at degree
//!   `< baby` as a linear combination, whose constants cost one level;
//! * where it has none to spare (only the leading quotients), it is divided on down to degree 1.

use super::{Chebyshev, MAX_DEGREE, PolynomialError};

/// Cost of one relinearized product with its rescale, the unit of [`Counts::cost`].
const RELINEARIZED_PRODUCT: f64 = 1.0;
/// Cost of a further tensor product under the same relinearization.
const FURTHER_PRODUCT: f64 = 0.1;
/// Cost of a rescale on its own (5 of 31 ms in design figures at N=2^16, 24 limbs).
const RESCALE: f64 = 0.16;
/// Cost of a product with a constant.
const PLAIN_PRODUCT: f64 = 0.04;

/// `T_index = 2 T_left T_right - T_(left - right)`, with `index = left + right`, `left >= right`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasisStep {
    /// Index of the polynomial that is made.
    pub index: usize,
    /// The larger factor.
    pub left: usize,
    /// The smaller factor.
    pub right: usize,
}

impl BasisStep {
    /// Index of the polynomial that is subtracted; 0 means the constant 1.
    #[must_use]
    pub fn subtrahend(&self) -> usize {
        self.left - self.right
    }
}

/// `constant + sum c_k T_k + sum Q_g T_g`, made at `depth` levels below the input.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Levels below the normalized input at which the value comes out.
    pub depth: usize,
    /// Coefficient of `T_0`.
    pub constant: f64,
    /// `(k, c_k)`, `k >= 1`, `c_k != 0`: products with constants, then one rescale.
    pub linear: Vec<(usize, f64)>,
    /// `(Q, g)`: quotients one level above this node, times `T_g`; one relinearization for all.
    pub products: Vec<(Node, usize)>,
}

impl Node {
    /// A bound on the value for a normalized input in `[-1, 1]`, and on all values below it.
    fn bound(&self) -> (f64, f64) {
        let mut value = self.constant.abs();
        let mut largest: f64 = 0.0;
        for (_, c) in &self.linear {
            value += c.abs();
        }
        for (quotient, _) in &self.products {
            let (q, below) = quotient.bound();
            value += q;
            largest = largest.max(below);
        }
        (value, largest.max(value))
    }

    fn visit(&self, f: &mut dyn FnMut(&Node)) {
        f(self);
        for (quotient, _) in &self.products {
            quotient.visit(f);
        }
    }
}

/// What the evaluation brings to `[-1, 1]` before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum InputMap {
    /// The input holds `x` in the polynomial's interval: `t = (2x - a - b)/(b - a)` is computed,
    /// which costs one level unless the interval is `[-1, 1]` itself.
    #[default]
    Affine,
    /// The input already holds `t` in `[-1, 1]`: the map was absorbed by what came before.
    Absorbed,
}

/// `t = factor x + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Factor.
    pub factor: f64,
    /// Offset.
    pub offset: f64,
}

/// Operations of one evaluation, exactly as the run performs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Relinearizations: key switches, each followed by its rescale.
    pub relinearizations: usize,
    /// Products of two ciphertexts, several of which may share a relinearization.
    pub products: usize,
    /// Products with a constant.
    pub plain_products: usize,
    /// Rescales outside of relinearized products.
    pub rescales: usize,
}

impl Counts {
    /// One figure to compare plans by, in relinearized products.
    #[must_use]
    pub fn cost(&self) -> f64 {
        RELINEARIZED_PRODUCT * self.relinearizations as f64
            + FURTHER_PRODUCT * self.products.saturating_sub(self.relinearizations) as f64
            + RESCALE * self.rescales as f64
            + PLAIN_PRODUCT * self.plain_products as f64
    }
}

/// A plan for polynomials on the same interval and one power basis. See the module's text.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationPlan {
    affine: Option<Affine>,
    baby: usize,
    basis: Vec<BasisStep>,
    outputs: Vec<Node>,
    depth: usize,
    counts: Counts,
}

/// `ceil(log2(degree + 1))`: levels that a polynomial of this degree needs at least.
#[must_use]
pub fn optimal_depth(degree: usize) -> usize {
    (usize::BITS - degree.leading_zeros()) as usize
}

/// Levels below the input at which `T_index` can be had: `ceil(log2(index))`.
#[must_use]
pub fn basis_depth(index: usize) -> usize {
    optimal_depth(index.saturating_sub(1))
}

impl EvaluationPlan {
    /// The cheapest plan at the least possible depth.
    ///
    /// # Errors
    /// No polynomial, or polynomials on different intervals.
    pub fn new(polynomials: &[Chebyshev], input: InputMap) -> Result<Self, PolynomialError> {
        Self::with_depth(polynomials, input, None)
    }

    /// The cheapest plan whose outputs come `depth` levels below the input (the map to
    /// `[-1, 1]` included; the least possible depth when `None`). A level to spare saves the
    /// divisions of the leading quotients.
    ///
    /// # Errors
    /// As [`EvaluationPlan::new`], and when `depth` is too small.
    pub fn with_depth(
        polynomials: &[Chebyshev],
        input: InputMap,
        depth: Option<usize>,
    ) -> Result<Self, PolynomialError> {
        let first = polynomials.first().ok_or(PolynomialError::Empty)?;
        if let Some(index) = polynomials
            .iter()
            .position(|p| p.interval() != first.interval())
        {
            return Err(PolynomialError::Intervals { index });
        }
        let degree = polynomials
            .iter()
            .map(Chebyshev::degree)
            .max()
            .unwrap_or(0)
            .min(MAX_DEGREE);
        let affine = affine_map(first.interval(), input).filter(|_| degree > 0);
        let map = usize::from(affine.is_some());
        let needed = optimal_depth(degree) + map;
        let depth = depth.unwrap_or(needed);
        if depth < needed {
            return Err(PolynomialError::Depth {
                given: depth,
                needed,
            });
        }
        let inner = depth - map;
        let mut best: Option<Self> = None;
        for log_baby in 0..=optimal_depth(degree) {
            let baby = 1 << log_baby;
            let outputs: Vec<Node> = polynomials
                .iter()
                .map(|p| build(p.coefficients(), inner, baby))
                .collect();
            let basis = power_basis(&outputs);
            let counts = count(affine, &basis, &outputs);
            if best
                .as_ref()
                .is_none_or(|b| counts.cost() < b.counts.cost())
            {
                best = Some(Self {
                    affine,
                    baby,
                    basis,
                    outputs,
                    depth,
                    counts,
                });
            }
        }
        best.ok_or(PolynomialError::Empty)
    }

    /// Levels consumed, the map to `[-1, 1]` included. All outputs come out at this depth.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The map to `[-1, 1]` that the run performs first, if any.
    #[must_use]
    pub fn affine(&self) -> Option<Affine> {
        self.affine
    }

    /// Degrees below this are linear combinations where levels allow.
    #[must_use]
    pub fn baby(&self) -> usize {
        self.baby
    }

    /// The Chebyshev polynomials that are computed, each after those that it needs.
    #[must_use]
    pub fn basis(&self) -> &[BasisStep] {
        &self.basis
    }

    /// One tree per polynomial, in the caller's order.
    #[must_use]
    pub fn outputs(&self) -> &[Node] {
        &self.outputs
    }

    /// No intermediate value exceeds this while slots stay in the polynomials' interval: the
    /// headroom that the modulus must leave above the scale. Quotients can be larger than the
    /// polynomial; the doubled factor of the power basis accounts for 2.
    #[must_use]
    pub fn magnitude_bound(&self) -> f64 {
        let offset = self.affine.map_or(0.0, |a| 1.0 + a.offset.abs());
        self.outputs
            .iter()
            .map(|node| node.bound().1)
            .fold(2f64.max(offset), f64::max)
    }

    /// What the run performs.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn affine_map((a, b): (f64, f64), input: InputMap) -> Option<Affine> {
    if input == InputMap::Absorbed || (a == -1.0 && b == 1.0) {
        return None;
    }
    let half = (b - a) / 2.0;
    Some(Affine {
        factor: 1.0 / half,
        offset: -(a + half) / half,
    })
}

/// The tree of `sum coefficients[k] T_k` at `depth`; needs `degree < 2^depth`.
fn build(coefficients: &[f64], depth: usize, baby: usize) -> Node {
    let mut rest = coefficients.to_vec();
    let mut node = Node {
        depth,
        constant: 0.0,
        linear: Vec::new(),
        products: Vec::new(),
    };
    loop {
        while rest.len() > 1 && rest.last() == Some(&0.0) {
            rest.pop();
        }
        let degree = rest.len().saturating_sub(1);
        // T_degree is to be multiplied by a constant: it must be there one level earlier.
        let direct = degree == 0 || (degree < baby && basis_depth(degree) < depth);
        if direct {
            break;
        }
        let g = 1usize << degree.ilog2();
        let (quotient, remainder) = divide(&rest, g);
        if quotient.len() == 1 {
            node.linear.extend(quotient.first().map(|c| (g, *c)));
        } else {
            node.products
                .push((build(&quotient, depth.saturating_sub(1), baby), g));
        }
        rest = remainder;
    }
    let mut terms = rest.into_iter().enumerate();
    node.constant = terms.next().map_or(0.0, |(_, c)| c);
    node.linear.extend(terms.filter(|(_, c)| *c != 0.0));
    node.linear.sort_unstable_by_key(|(k, _)| *k);
    node
}

/// `p = q T_g + r` for `g <= degree < 2g`: `q_0 = c_g`, `q_j = 2 c_(g+j)`, `r_(g-j) -= c_(g+j)`.
/// Both keep the parity of `p` when `g` is even.
fn divide(coefficients: &[f64], g: usize) -> (Vec<f64>, Vec<f64>) {
    let (low, high) = coefficients.split_at(g.min(coefficients.len()));
    let mut remainder = low.to_vec();
    let mut quotient = Vec::with_capacity(high.len());
    for (j, &c) in high.iter().enumerate() {
        if j == 0 {
            quotient.push(c);
        } else {
            quotient.push(2.0 * c);
            if let Some(r) = remainder.get_mut(g - j) {
                *r -= c;
            }
        }
    }
    (quotient, remainder)
}

/// Steps for all `T_k` that the trees use and those that these need, in order of index.
fn power_basis(outputs: &[Node]) -> Vec<BasisStep> {
    let mut wanted = vec![false; 2];
    for output in outputs {
        output.visit(&mut |node| {
            let linear = node.linear.iter().map(|(k, _)| *k);
            for k in linear.chain(node.products.iter().map(|(_, g)| *g)) {
                if wanted.len() <= k {
                    wanted.resize(k + 1, false);
                }
                wanted[k] = true;
            }
        });
    }
    // The input and the constant are there already.
    wanted[0] = true;
    wanted[1] = true;
    let mut steps = Vec::new();
    for index in (2..wanted.len()).rev().filter(|k| *k >= 2) {
        if !wanted[index] {
            continue;
        }
        let step = best_step(index, &wanted);
        for k in [step.left, step.right, step.subtrahend()] {
            wanted[k] = true;
        }
        steps.push(step);
    }
    steps.reverse();
    steps
}

/// The split of `index` that adds the fewest new polynomials, then the one without a
/// subtrahend (it would need its own rescale), then the most balanced one.
fn best_step(index: usize, wanted: &[bool]) -> BasisStep {
    // Neither factor may be deeper than one level above the product.
    let limit = 1usize << basis_depth(index).saturating_sub(1);
    let split = |left: usize| BasisStep {
        index,
        left,
        right: index - left,
    };
    (index.div_ceil(2)..=limit.min(index - 1))
        .map(split)
        .min_by_key(|step| {
            let mut new = [step.left, step.right, step.subtrahend()];
            new.sort_unstable();
            let fresh = (0..3)
                .filter(|&i| !wanted[new[i]] && (i == 0 || new[i - 1] != new[i]))
                .count();
            (fresh, step.subtrahend())
        })
        .unwrap_or_else(|| split(index.div_ceil(2)))
}

fn count(affine: Option<Affine>, basis: &[BasisStep], outputs: &[Node]) -> Counts {
    let mut c = Counts::default();
    if affine.is_some() {
        c.plain_products += 1;
        c.rescales += 1;
    }
    for step in basis {
        c.products += 1;
        c.relinearizations += 1;
        if step.subtrahend() > 0 {
            c.plain_products += 1;
            c.rescales += 1;
        }
    }
    for output in outputs {
        output.visit(&mut |node| {
            c.products += node.products.len();
            c.relinearizations += usize::from(!node.products.is_empty());
            c.plain_products += node.linear.len();
            c.rescales += usize::from(!node.linear.is_empty());
            // A constant alone rides on an encryption of zero that is brought to its level.
            let alone = node.linear.is_empty() && node.products.is_empty() && node.depth > 0;
            c.plain_products += usize::from(alone);
            c.rescales += usize::from(alone);
        });
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Coefficients without relations among them, which division would turn into zeros.
    fn irregular(k: usize) -> f64 {
        ((k + 1) as f64).sqrt().fract() + 0.1
    }

    /// Every node's inputs are at least one level above it, and every step's factors too.
    fn check(plan: &EvaluationPlan) {
        for s in plan.basis() {
            assert_eq!(s.left + s.right, s.index);
            assert!(basis_depth(s.left) < basis_depth(s.index));
            for k in [s.left, s.right, s.subtrahend()] {
                assert!(k < 2 || plan.basis().iter().any(|t| t.index == k && k < s.index));
            }
        }
        for o in plan.outputs() {
            o.visit(&mut |n| {
                for (k, c) in &n.linear {
                    assert!(basis_depth(*k) < n.depth && *c != 0.0);
                }
                for (q, g) in &n.products {
                    assert!(q.depth + 1 == n.depth && basis_depth(*g) < n.depth);
                }
            });
        }
    }

    /// A plan walked in plain numbers.
    fn value(node: &Node, t: &dyn Fn(usize) -> f64) -> f64 {
        let linear: f64 = node.linear.iter().map(|(k, c)| c * t(*k)).sum();
        let products: f64 = node.products.iter().map(|(q, g)| value(q, t) * t(*g)).sum();
        node.constant + linear + products
    }

    #[test]
    fn every_degree_has_optimal_depth_and_the_right_value() {
        for degree in 0..=200usize {
            let c: Vec<f64> = (0..=degree).map(irregular).collect();
            let p = Chebyshev::new(c, (-1.0, 1.0)).unwrap();
            let plan = EvaluationPlan::new(std::slice::from_ref(&p), InputMap::Affine).unwrap();
            let depth = (degree as f64 + 1.0).log2().ceil() as usize;
            assert_eq!(plan.depth(), depth, "degree {degree}");
            check(&plan);
            let x: f64 = 0.37;
            let t = |k: usize| (k as f64 * x.acos()).cos();
            let got = value(&plan.outputs()[0], &t);
            assert!((got - p.evaluate(x)).abs() < 1e-10, "degree {degree}");
            assert!(plan.magnitude_bound() >= got.abs());
            // A division turns high coefficients of sum h into 2h of quotient and h of remainder.
            let growth = 3f64.powi(depth as i32);
            assert!(plan.magnitude_bound() <= 2.0 + growth * p.magnitude_bound());
            let slack =
                EvaluationPlan::with_depth(&[p], InputMap::Affine, Some(depth + 1)).unwrap();
            check(&slack);
            assert!(degree == 0 || slack.counts().cost() <= plan.counts().cost());
        }
    }

    #[test]
    fn counts_of_the_degrees_in_use() {
        let dense = |d: usize| {
            let p = Chebyshev::new((0..=d).map(irregular).collect(), (-1.0, 1.0)).unwrap();
            EvaluationPlan::new(&[p], InputMap::Affine)
                .unwrap()
                .counts()
        };
        // For degree 31 also what the cost model of the design counts: ten.
        for (degree, most) in [(1, 0), (2, 1), (3, 2), (7, 4), (15, 7), (31, 10), (63, 15)] {
            let c = dense(degree);
            assert!(c.relinearizations <= most, "degree {degree}: {c:?}");
        }
    }

    #[test]
    fn odd_and_even_polynomials_are_cheaper() {
        for degree in [9usize, 15, 21, 31, 63] {
            let cost = |keep: &dyn Fn(usize) -> bool| {
                let c = (0..=degree)
                    .map(|k| if keep(k) { irregular(k) } else { 0.0 })
                    .collect();
                let p = Chebyshev::new(c, (-1.0, 1.0)).unwrap();
                let plan = EvaluationPlan::new(&[p], InputMap::Affine).unwrap();
                check(&plan);
                plan.counts().cost()
            };
            let mixed = cost(&|_| true);
            let (odd, even) = (cost(&|k| k % 2 == 1), cost(&|k| k % 2 == 0));
            assert!(odd < mixed, "odd {degree}");
            assert!(even < mixed, "even {degree}");
        }
    }

    #[test]
    fn one_basis_serves_several_polynomials() {
        let p = |s: f64| {
            Chebyshev::new((0..32).map(|k| s + irregular(k)).collect(), (-2.0, 2.0)).unwrap()
        };
        let one = EvaluationPlan::new(&[p(0.5)], InputMap::Affine).unwrap();
        let two = EvaluationPlan::new(&[p(0.5), p(0.7)], InputMap::Affine).unwrap();
        assert_eq!(two.depth(), 6);
        assert!(two.counts().cost() < 1.8 * one.counts().cost());
        let absorbed = EvaluationPlan::new(&[p(0.5)], InputMap::Absorbed).unwrap();
        assert_eq!(absorbed.depth(), 5);
    }

    #[test]
    fn bad_input_is_refused() {
        let p = Chebyshev::new(vec![0.0, 1.0, 1.0], (-1.0, 1.0)).unwrap();
        let q = Chebyshev::new(vec![0.0, 1.0, 1.0], (-2.0, 1.0)).unwrap();
        assert!(EvaluationPlan::new(&[], InputMap::Affine).is_err());
        assert!(EvaluationPlan::new(&[p.clone(), q], InputMap::Affine).is_err());
        assert!(EvaluationPlan::with_depth(&[p], InputMap::Affine, Some(1)).is_err());
    }
}
