//! Encoders as circuits, in the clear: every stage within its bound, and the answer that of `poly`.
#![allow(clippy::unwrap_used)]

use veilformer_circuits::bootstrap::Content;
use veilformer_circuits::testing::{ClearCiphertext, ClearOps, Counting, IdealBootstrap};
use veilformer_ckks::{Params, ParamsSpec, SecurityLevel};
use veilformer_compiler::encoder::circuit::{
    Bootstraps, EncoderCircuit, Event, Layout, Plains, Times,
};
use veilformer_compiler::encoder::{Budget, Polynomials, Substitution, minimax, substitute};
use veilformer_compiler::placement::{Loops, Machine, greedy, place};
use veilformer_ir::encoder::{AttentionFunction, Encoder};
use veilformer_models::encoder::{
    EncoderFolder, Execution, RandomEncoder, calibrate, center_keys, write_random_folder,
};

fn params(log_n: u32) -> Params {
    let spec = ParamsSpec {
        log_n,
        first_bits: 50,
        scale_bits: 40,
        levels: 13,
        special_bits: 50,
        special_count: 3,
        digit_limbs: 3,
        security: SecurityLevel::Bits128,
    };
    spec.validate().unwrap()
}

/// How a model's scores are centred.
type Centre = fn(&mut Encoder, &[Vec<u32>]);

fn as_trained(_: &mut Encoder, _: &[Vec<u32>]) {}

fn by_fit(model: &mut Encoder, sentences: &[Vec<u32>]) {
    center_keys(model, sentences).unwrap();
}

/// Runs the random model of this shape in the clear, on sentences of these lengths; the largest
/// difference from `poly`.
fn run(shape: &RandomEncoder, sentences: (usize, &[usize]), centre: Centre) -> f64 {
    let budget = Budget {
        margin: 0.3,
        ..Budget::default()
    };
    run_with(shape, sentences, centre, (budget, 2, |_| ())).0
}

/// What is done to the polynomials that were chosen.
type Change = fn(&mut Substitution);

/// The same with a budget, with bootstraps that take this level, and with other polynomials; besides, how
/// many levels each sum of squares takes.
fn run_with(
    shape: &RandomEncoder,
    (tokens, lengths): (usize, &[usize]),
    centre: Centre,
    (budget, input_level, change): (Budget, usize, Change),
) -> (f64, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    write_random_folder(dir.path(), shape, 7).unwrap();
    let mut folder = EncoderFolder::load(dir.path(), tokens).unwrap();
    let sentence = |seed: usize, length: usize| -> Vec<u32> {
        let token = |i: usize| (5 + (i * i * 31 + i * 17 + seed * 101) % 90) as u32;
        (0..length).map(token).collect()
    };
    let all: Vec<Vec<u32>> = (0..lengths.len().max(40))
        .map(|seed| sentence(seed, lengths[seed % lengths.len()]))
        .collect();
    centre(&mut folder.encoder, &all);
    let execution = Execution::new(&folder.encoder).unwrap();
    let ranges = calibrate(&execution, &all).unwrap();
    let model = execution.model();
    let mut substitution = substitute(&ranges, model, &budget).unwrap();
    change(&mut substitution);
    let params = params(15);
    let layout = Layout::choose(model, tokens, params.slots()).unwrap();
    let [content, _] = layout.contents(params.slots());
    // Slots are checked against it: what fills half of them at most has to repeat everywhere.
    assert_eq!(
        matches!(content, Content::PeriodicComplex(_)),
        2 * layout.heads.period() <= params.slots()
    );
    eprintln!("{layout:?}, depth {}", substitution.depth());
    let circuit = EncoderCircuit::new(model, (&substitution, &ranges), layout).unwrap();
    // An ideal bootstrap is the same for every content.
    let bootstraps = Bootstraps {
        input_level,
        output_level: params.max_level(),
        complex: 0,
        real: 0,
    };
    let times = Times::estimated(&params);
    let flow = circuit.flow(&params, &bootstraps, &times).unwrap();
    let machine = Machine {
        levels: bootstraps.output_level - bootstraps.input_level,
        complex: 1.25,
        real: 1.25,
        sparse: 1.25,
    };
    let best = place(&flow, &machine, Loops::Free).unwrap();
    let simple = greedy(&flow, &machine).unwrap();
    assert!(best.bootstraps <= simple.bootstraps && best.seconds < simple.seconds);
    let mut plains = Plains::default();
    let mut worst = 0.0f64;
    for (at, ids) in all[..lengths.len()].iter().enumerate() {
        let placement = if at % 2 == 0 { &best } else { &simple };
        let rows = execution.embed(ids).unwrap();
        let mut poly = Polynomials::new(&substitution);
        let expected = execution.finish(execution.answer(&rows, &mut poly).unwrap());
        assert!(poly.violations().is_empty(), "{:?}", poly.violations());
        let mut ops = ClearOps::new(&params);
        ops.set_ideal_bootstraps(&[IdealBootstrap {
            content,
            input_level: bootstraps.input_level,
            output_level: bootstraps.output_level,
        }]);
        let inputs = circuit.encode(&rows).unwrap();
        let top = params.max_level();
        let inputs = inputs.map(|slots| ops.encrypt(slots, top)).unwrap();
        let mut ops = Counting::new(ops);
        #[allow(clippy::type_complexity)]
        let watch: &mut dyn FnMut(&mut Counting<ClearOps>, Event<'_, ClearCiphertext>) =
            &mut |ops, event| {
                let Event::Bound(name, cts, bound) = event else {
                    return;
                };
                for ct in cts {
                    let slots = ops.inner().decrypt(ct);
                    let largest = slots.iter().map(|z| z.re.abs().max(z.im.abs()));
                    let largest = largest.fold(0.0, f64::max);
                    assert!(largest <= 1.02 * bound, "{name}: {largest}");
                }
            };
        let (out, stages) = circuit
            .run(
                &mut ops,
                (&bootstraps, placement),
                (&inputs, &mut plains),
                watch,
            )
            .unwrap();
        let slots: Vec<_> = out.iter().map(|ct| ops.inner().decrypt(ct)).collect();
        let got = circuit.read(&slots);
        let scale = expected.iter().fold(1.0, |m, e| f64::max(m, e.abs()));
        for (a, b) in got.iter().zip(&expected) {
            worst = worst.max((a - b).abs() / scale);
        }
        let boots = stages.iter().map(|s| s.bootstraps + s.real_bootstraps);
        assert_eq!(boots.sum::<usize>(), placement.bootstraps);
        // Placed from stages that ran at the top, each of which was moved to its level as a whole.
        let ran = times.seconds(&ops.take()) + 1.25 * placement.bootstraps as f64;
        let off = ran / placement.seconds - 1.0;
        assert!(
            off.abs() < 0.02,
            "{ran:.3} s, placed as {:.3}",
            placement.seconds
        );
    }
    let stages = flow.blocks.iter().flat_map(|block| &block.nodes);
    let sums = stages.filter(|stage| stage.name.ends_with("variance"));
    (worst, sums.map(|stage| stage.depth).collect())
}

/// Three heads in four lanes, 48 tokens in 64.
fn shape() -> RandomEncoder {
    RandomEncoder {
        layers: 2,
        hidden: 192,
        heads: 3,
        intermediate: 384,
        activation: "gelu_pytorch_tanh".into(),
        attention: AttentionFunction::Softmax,
        positions: 64,
        vocabulary: 96,
        labels: 3,
        ranges: vec![(4.0, 4.0)],
    }
}

const LENGTHS: [usize; 4] = [48, 24, 5, 47];

#[test]
fn classifier_of_three_heads() {
    let error = run(&shape(), (48, &LENGTHS), as_trained);
    assert!(error < 1e-6, "{error:e}");
}

/// Few tokens repeat in the slots, and so does every value that is bootstrapped.
#[test]
fn short_sentences() {
    let error = run(&shape(), (7, &[7, 3, 5]), as_trained);
    assert!(error < 1e-6, "{error:e}");
}

/// Squares are summed without a mask where a token's slots have room for it and all tokens one scale, and
/// only there: in 128 slots of a token for up to 32 features, not in 64. Every slot is held to its bound, those of sums of some
/// squares as well.
#[test]
fn tokens_with_room() {
    let budget = Budget {
        margin: 0.3,
        ..Budget::default()
    };
    // The first token's variances divided by twice as much.
    let apart: Change = |substitution| {
        for layer in &mut substitution.layers {
            for norm in [&mut layer.attention_norm, &mut layer.output_norm] {
                let (low, high) = norm.root.interval();
                let root = minimax(|x| x.sqrt().recip(), f64::sqrt, 15, (low / 2.0, high));
                norm.root = root.unwrap();
                norm.scales[0] = 2.0 * norm.scales[1];
            }
        }
    };
    let as_chosen: Change = |_| ();
    for (hidden, intermediate, change, levels) in [
        (32, 128, as_chosen, 1),
        (24, 100, as_chosen, 1),
        (32, 64, as_chosen, 2),
        (32, 128, apart, 2),
    ] {
        let shape = RandomEncoder {
            hidden,
            heads: 2,
            intermediate,
            ..shape()
        };
        let with = (budget, 2, change);
        let (error, sums) = run_with(&shape, (16, &[16, 1, 9]), as_trained, with);
        assert!(error < 1e-6, "{hidden} of {intermediate}: {error:e}");
        assert_eq!(sums, [levels; 4], "{hidden} of {intermediate}");
    }
}

#[test]
fn centred_scores() {
    let error = run(&shape(), (48, &LENGTHS), by_fit);
    assert!(error < 1e-6, "{error:e}");
}

/// Powers of scores in place of exponentials, a square in place of the activation; every even power.
#[test]
fn powers_and_squares() {
    for (power, epsilon, labels) in [(4, 0.5, 3), (2, 2.0, 0), (6, 1.0, 2), (8, 1.0, 0)] {
        let shape = RandomEncoder {
            layers: 1 + usize::from(power == 4),
            activation: "quadratic".into(),
            attention: AttentionFunction::PowerSoftmax { power, epsilon },
            labels,
            ..shape()
        };
        let error = run(&shape, (48, &LENGTHS), by_fit);
        assert!(error < 1e-6, "power {power}: {error:e}");
    }
}

/// The mean of all tokens, of heads across two blocks, features in one and a half.
#[test]
fn embedding_of_several_blocks() {
    let shape = RandomEncoder {
        labels: 0,
        layers: 1,
        activation: "gelu".into(),
        ..shape()
    };
    let error = run(&shape, (64, &[64, 24, 5, 63]), by_fit);
    assert!(error < 1e-6, "{error:e}");
}

/// Much of the scores with the token before and the one behind is taken from all scores: the slots
/// of tokens that are not there have to see what a token sees that is there, or their sums leave the
/// range of the inverse. Every length, so also the ones without neighbours.
#[test]
fn neighbours_of_padding() {
    // With keys that are queries a token's score with itself is far above that with others.
    let centre: Centre = |model, sentences| {
        model.layers[0].key = model.layers[0].query.clone();
        by_fit(model, sentences);
        for head in model.layers[0].centering.iter_mut().flatten() {
            (head.previous, head.next) = (-0.6, 0.3);
        }
    };
    let shape = RandomEncoder {
        hidden: 32,
        heads: 2,
        intermediate: 64,
        positions: 16,
        ranges: vec![(5.0, 4.0)],
        ..shape()
    };
    for labels in [0, 2] {
        let shape = RandomEncoder {
            labels,
            ..shape.clone()
        };
        let lengths: Vec<usize> = (1..=16).collect();
        let error = run(&shape, (16, &lengths), centre);
        assert!(error < 1e-6, "{error:e}");
    }
}

/// An inverse of more steps than a bootstrap gives levels is interrupted within.
#[test]
fn a_long_inverse_is_interrupted() {
    let budget = Budget {
        margin: 0.3,
        inverse: 5e-4,
        ..Budget::default()
    };
    let shape = RandomEncoder {
        layers: 1,
        ranges: vec![(7.0, 4.0)],
        ..shape()
    };
    let (error, _) = run_with(&shape, (48, &LENGTHS), as_trained, (budget, 5, |_| ()));
    assert!(error < 1e-6, "{error:e}");
}
