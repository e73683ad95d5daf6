//! What a product costs: operations counted, and milliseconds per operation.

use std::ops::AddAssign;

/// Products with plaintexts, by what the plaintext stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Products {
    /// All N words per prime.
    pub dense: usize,
    /// Two words per slot of a shorter period.
    pub periodic: usize,
    /// One word: a real constant.
    pub scalar: usize,
}

impl Products {
    /// All of them.
    #[must_use]
    pub fn total(self) -> usize {
        self.dense + self.periodic + self.scalar
    }

    /// The count of plaintexts with so many words per prime, of the `n` that a dense one has.
    pub fn of_words(&mut self, words: usize, n: usize) -> &mut usize {
        match words {
            1 => &mut self.scalar,
            words if words < n => &mut self.periodic,
            _ => &mut self.dense,
        }
    }
}

/// The operations of a circuit, or of what it does at one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ciphertexts in.
    pub inputs: usize,
    /// Ciphertexts out.
    pub outputs: usize,
    /// Levels from input to output.
    pub levels: usize,
    /// Ciphertexts cut into digits once for several rotations.
    pub decompositions: usize,
    /// Rotations that share a decomposition, each with a ModDown of its own.
    pub hoisted: usize,
    /// Rotations that share a decomposition and stay modulo the special primes: inner products.
    pub babies: usize,
    /// Rotations of sums of rotated inputs within a transform: ModDown of one polynomial,
    /// decomposition, inner product.
    pub giants: usize,
    /// The same of inputs that are not rotated: no ModDown of their own.
    pub plain_giants: usize,
    /// Rotations and conjugations by themselves.
    pub rotations: usize,
    /// Relinearizations, each with the rescale in it.
    pub relinearizations: usize,
    /// Products of two ciphertexts.
    pub products: usize,
    /// Products with plaintexts modulo the ciphertext's primes.
    pub plain: Products,
    /// Products with plaintexts modulo the special primes as well.
    pub extended: Products,
    /// Sums and differences of two ciphertexts; those within transforms come with the products.
    pub additions: usize,
    /// Rescales of a ciphertext, and ends of transforms without any rotation.
    pub rescales: usize,
    /// Ends of transforms with rotations: ModDown of a ciphertext with the rescale in it.
    pub divisions: usize,
    /// Words per prime that the plaintexts take.
    pub plain_words: usize,
    /// Different keys.
    pub keys: usize,
}

impl AddAssign for Products {
    fn add_assign(&mut self, other: Self) {
        self.dense += other.dense;
        self.periodic += other.periodic;
        self.scalar += other.scalar;
    }
}

/// Of two circuits side by side: levels, too, are added up.
impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.inputs += other.inputs;
        self.outputs += other.outputs;
        self.levels += other.levels;
        self.decompositions += other.decompositions;
        self.hoisted += other.hoisted;
        self.babies += other.babies;
        self.giants += other.giants;
        self.plain_giants += other.plain_giants;
        self.rotations += other.rotations;
        self.relinearizations += other.relinearizations;
        self.products += other.products;
        self.plain += other.plain;
        self.extended += other.extended;
        self.additions += other.additions;
        self.rescales += other.rescales;
        self.divisions += other.divisions;
        self.plain_words += other.plain_words;
        self.keys += other.keys;
    }
}

impl Counts {
    /// All inner products with a key.
    #[must_use]
    pub fn key_switches(&self) -> usize {
        let rotations = self.rotations + self.hoisted + self.babies;
        rotations + self.giants + self.plain_giants + self.relinearizations
    }

    /// Bytes of the keys: `digits` pairs of polynomials of `n` coefficients modulo `primes`
    /// primes, the special ones included.
    #[must_use]
    pub fn key_bytes(&self, n: usize, primes: usize, digits: usize) -> usize {
        self.keys * digits * 2 * primes * n * size_of::<u64>()
    }
}

/// Milliseconds of a product with a plaintext of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProductCosts {
    /// All N words per prime, which come from memory.
    pub dense: f64,
    /// A shorter period.
    pub periodic: f64,
    /// A real constant.
    pub scalar: f64,
}

impl ProductCosts {
    fn of(&self, products: &Products) -> f64 {
        self.dense * products.dense as f64
            + self.periodic * products.periodic as f64
            + self.scalar * products.scalar as f64
    }
}

/// Milliseconds per operation, as measured on some machine at the level of the inputs, or another unit;
/// the fields are those of [`Counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitCosts {
    /// See [`Counts::decompositions`].
    pub decomposition: f64,
    /// See [`Counts::hoisted`].
    pub hoisted: f64,
    /// See [`Counts::babies`].
    pub baby: f64,
    /// See [`Counts::giants`].
    pub giant: f64,
    /// See [`Counts::plain_giants`].
    pub plain_giant: f64,
    /// See [`Counts::rotations`]; one level below the inputs.
    pub rotation: f64,
    /// See [`Counts::relinearizations`].
    pub relinearization: f64,
    /// See [`Counts::products`].
    pub product: f64,
    /// See [`Counts::plain`].
    pub plain: ProductCosts,
    /// See [`Counts::extended`].
    pub extended: ProductCosts,
    /// See [`Counts::additions`].
    pub addition: f64,
    /// See [`Counts::rescales`].
    pub rescale: f64,
    /// See [`Counts::divisions`].
    pub division: f64,
}

impl UnitCosts {
    /// Milliseconds of a circuit, or whatever the unit is.
    #[must_use]
    pub fn of(&self, counts: &Counts) -> f64 {
        let terms = [
            (self.decomposition, counts.decompositions),
            (self.hoisted, counts.hoisted),
            (self.baby, counts.babies),
            (self.giant, counts.giants),
            (self.plain_giant, counts.plain_giants),
            (self.rotation, counts.rotations),
            (self.relinearization, counts.relinearizations),
            (self.product, counts.products),
            (self.addition, counts.additions),
            (self.rescale, counts.rescales),
            (self.division, counts.divisions),
        ];
        let operations: f64 = terms.iter().map(|(ms, times)| ms * *times as f64).sum();
        operations + self.plain.of(&counts.plain) + self.extended.of(&counts.extended)
    }
}
