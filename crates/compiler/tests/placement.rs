//! Placement of bootstraps: never worse than simpler ways, and the optimum where everything can be
//! tried.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use veilformer_compiler::placement::{
    Block, Flow, Loops, Machine, Node, Packing, Read, Value, exhaustive, greedy, in_turn,
    per_layer, place,
};

/// A node that may start from `0..=levels`, one second and a tenth for each level, times `weight`.
fn node(reads: &[usize], depth: usize, (levels, weight): (usize, f64), value: Value) -> Node {
    let seconds = |level: usize| weight * (1.0 + level as f64 / 10.0);
    Node {
        name: format!("of {reads:?}"),
        reads: reads.iter().map(|v| Read::first(*v)).collect(),
        depth,
        seconds: (0..=levels).map(seconds).collect(),
        value,
    }
}

fn real(ciphertexts: usize) -> Value {
    Value {
        ciphertexts,
        packing: Packing::Real,
    }
}

fn machine(levels: usize) -> Machine {
    Machine {
        levels,
        complex: 10.0,
        real: 7.0,
        sparse: 4.0,
    }
}

/// Seconds and bootstraps of a placement, counted again from its steps.
fn replayed(
    flow: &Flow,
    machine: &Machine,
    placement: &veilformer_compiler::placement::Placement,
) -> (f64, usize) {
    let (mut seconds, mut bootstraps) = (0.0, 0);
    let mut entry = flow.entry.clone();
    for (block, runs) in flow.blocks.iter().zip(&placement.blocks) {
        assert_eq!(runs.iter().map(|r| r.0).sum::<usize>(), block.times);
        for (times, run) in runs {
            for _ in 0..*times {
                assert!(
                    entry
                        .iter()
                        .zip(&run.entry)
                        .all(|(has, needs)| has >= needs)
                );
                let mut levels = run.entry.clone();
                let kind = |v: &usize| match v.checked_sub(block.inputs.len()) {
                    None => block.inputs[*v],
                    Some(made) => block.nodes[made].value,
                };
                for (node, (set, level)) in block.nodes.iter().zip(&run.steps) {
                    set.iter().for_each(|v| levels[*v] = machine.levels);
                    let cost = machine.bootstraps(&set.iter().map(kind).collect::<Vec<_>>());
                    bootstraps += cost.0;
                    seconds += cost.1 + node.seconds[*level];
                    assert!(*level <= machine.levels && *level >= node.depth);
                    assert!(
                        node.reads
                            .iter()
                            .all(|r| levels[r.value] + r.late >= *level)
                    );
                    levels.push(level - node.depth);
                }
                let exit: Vec<usize> = block.outputs.iter().map(|o| levels[*o]).collect();
                assert!(exit.iter().zip(&run.exit).all(|(has, says)| has >= says));
                entry.clone_from(&run.exit);
            }
        }
    }
    (seconds, bootstraps)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9 * a.abs().max(1.0)
}

/// A residual layer: a branch of some depth over a wide value joins what went around it.
fn layer(levels: usize, times: usize) -> Block {
    let n =
        |reads: &[usize], depth, weight, width| node(reads, depth, (levels, weight), real(width));
    Block {
        inputs: vec![real(4)],
        nodes: vec![
            n(&[0], 1, 1.0, 12),
            n(&[1], 2, 5.0, 2),
            n(&[2], 3, 0.5, 2),
            n(&[1, 3], 1, 4.0, 4),
            n(&[0, 4], 0, 0.1, 4),
            n(&[5], 2, 1.0, 16),
            n(&[6], 1, 3.0, 4),
            n(&[5, 7], 0, 0.1, 4),
        ],
        outputs: vec![8],
        times,
    }
}

fn encoder(levels: usize, layers: usize) -> Flow {
    Flow {
        entry: vec![levels],
        blocks: vec![layer(levels, layers)],
    }
}

#[test]
fn a_residual_network_needs_fewer_bootstraps_than_by_simpler_ways() {
    let machine = machine(7);
    let flow = encoder(7, 12);
    let best = place(&flow, &machine, Loops::Free).unwrap();
    let (seconds, bootstraps) = replayed(&flow, &machine, &best);
    assert!(close(seconds, best.seconds) && bootstraps == best.bootstraps);
    let alike = place(&flow, &machine, Loops::Alike).unwrap();
    assert!(close(replayed(&flow, &machine, &alike).0, alike.seconds));
    // The first may differ from the rest.
    assert!(alike.blocks[0].len() <= 2, "{alike:?}");
    let greedy = greedy(&flow, &machine).unwrap();
    let layers = per_layer(&flow, &machine).unwrap();
    let turns = in_turn(&flow, &machine).unwrap();
    for other in [&greedy, &layers, &turns] {
        assert!(close(replayed(&flow, &machine, other).0, other.seconds));
    }
    eprintln!(
        "best {:.1} s, {}; alike {:.1}, {}; greedy {:.1}, {}; in turn {:.1}, {}; at one level {:.1}, {}",
        best.seconds,
        best.bootstraps,
        alike.seconds,
        alike.bootstraps,
        greedy.seconds,
        greedy.bootstraps,
        turns.seconds,
        turns.bootstraps,
        layers.seconds,
        layers.bootstraps
    );
    assert!(best.seconds <= alike.seconds && alike.seconds <= layers.seconds + 1e-9);
    assert!(best.seconds < greedy.seconds && best.seconds <= turns.seconds + 1e-9);
    assert!(best.bootstraps * 4 <= greedy.bootstraps * 3);
}

/// What compiling takes does not grow with the number of layers.
#[test]
fn loops_stay_loops() {
    let machine = machine(9);
    for loops in [Loops::Free, Loops::Alike] {
        let few = place(&encoder(9, 12), &machine, loops).unwrap();
        let many = place(&encoder(9, 1200), &machine, loops).unwrap();
        assert!(
            few.solved <= 10 && many.solved == few.solved,
            "{}",
            many.solved
        );
        let versions = many.blocks[0].iter().map(|r| &r.1.entry);
        let versions: std::collections::BTreeSet<_> = versions.collect();
        assert!(versions.len() <= 10);
        let per_layer = many.seconds / 1200.0;
        assert!((per_layer * 12.0 / few.seconds - 1.0).abs() < 0.3);
    }
}

#[test]
fn real_ciphertexts_share_bootstraps() {
    // Two branches that both run out of levels before they join.
    let machine = machine(3);
    let n = |reads: &[usize], depth| node(reads, depth, (3, 1.0), real(1));
    let flow = Flow {
        entry: vec![3],
        blocks: vec![Block {
            inputs: vec![real(1)],
            nodes: vec![
                n(&[0], 3),
                n(&[0], 3),
                n(&[1], 2),
                n(&[2], 2),
                n(&[3, 4], 1),
            ],
            outputs: vec![5],
            times: 1,
        }],
    };
    let best = place(&flow, &machine, Loops::Free).unwrap();
    assert_eq!(best.bootstraps, 1);
    assert_eq!(best.blocks[0][0].1.steps[2].0, [1, 2]);
    assert!(close(exhaustive(&flow, &machine).unwrap(), best.seconds));
    assert_eq!(greedy(&flow, &machine).unwrap().bootstraps, 2);
    let odd = [
        real(3),
        Value {
            ciphertexts: 2,
            packing: Packing::Complex,
        },
    ];
    assert_eq!(machine.bootstraps(&odd), (4, 37.0));
    let sparse = [Value {
        ciphertexts: 3,
        packing: Packing::Sparse,
    }];
    assert_eq!(machine.bootstraps(&sparse), (3, 12.0));
}

#[test]
fn what_does_not_fit_is_refused() {
    let machine = machine(3);
    let good = encoder(3, 2);
    type Change = fn(&mut Flow);
    let changes: [(Change, &str); 9] = [
        (
            |f| f.blocks[0].nodes[2].reads[0].late = 5,
            "after its last level",
        ),
        (|f| f.entry[0] = 4, "above the level"),
        (|f| f.entry.push(0), "other values"),
        (|f| f.blocks[0].nodes[2].depth = 4, "cut it into several"),
        (
            |f| f.blocks[0].nodes[2].reads.push(Read::first(3)),
            "reads value 3",
        ),
        (
            |f| f.blocks[0].nodes[2].seconds.truncate(3),
            "a time for each level",
        ),
        (
            |f| f.blocks[0].nodes[2].seconds[3] = f64::NAN,
            "a time for each level",
        ),
        (|f| f.blocks[0].outputs = vec![9], "output 9"),
        (|f| f.blocks[0].outputs = vec![1], "a block that repeats"),
    ];
    for (change, message) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let error = place(&bad, &machine, Loops::Free).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(greedy(&bad, &machine).is_err() && per_layer(&bad, &machine).is_err());
        assert!(in_turn(&bad, &machine).is_err());
    }
    let mut blocks = good.clone();
    blocks.blocks.push(Block {
        inputs: vec![real(1)],
        times: 1,
        ..Block::default()
    });
    assert!(place(&blocks, &machine, Loops::Free).is_err());
    assert!(
        place(
            &good,
            &Machine {
                real: f64::NAN,
                ..machine
            },
            Loops::Free
        )
        .is_err()
    );
}

/// Random small programs: a block or two, the first perhaps twice.
fn flows() -> impl Strategy<Value = (Flow, Machine)> {
    let value = (1usize..4, 0usize..3).prop_map(|(ciphertexts, packing)| Value {
        ciphertexts,
        packing: [Packing::Real, Packing::Complex, Packing::Sparse][packing],
    });
    let nodes = prop::collection::vec(
        (value, 0usize..4, 0.1f64..8.0, any::<[u8; 2]>(), 0usize..3),
        1..5,
    );
    let input = prop::bool::ANY;
    (2usize..4, nodes, input, 1usize..3, 0usize..4, 1.0f64..12.0).prop_map(
        |(levels, nodes, two, times, entry, boot)| {
            let machine = Machine {
                levels,
                complex: boot,
                real: 0.7 * boot,
                sparse: 0.5 * boot,
            };
            let inputs = if two {
                vec![real(1), real(2)]
            } else {
                vec![real(2)]
            };
            let k = inputs.len();
            let count = nodes.len();
            let mut made = Vec::new();
            for (index, (value, depth, weight, reads, late)) in nodes.into_iter().enumerate() {
                let of = |byte: u8| byte as usize % (k + index);
                let mut reads: Vec<usize> = reads.iter().map(|b| of(*b)).collect();
                if index % 2 == 0 {
                    reads.truncate(1);
                }
                let mut new = node(&reads, depth.min(levels), (levels, weight), value);
                if let Some(read) = new.reads.last_mut() {
                    read.late = late.min(new.depth);
                }
                made.push(new);
            }
            // What comes out is what goes in, by its kind.
            made[count - 1].value = inputs[k - 1];
            let mut outputs: Vec<usize> = (0..k).collect();
            outputs[k - 1] = k + count - 1;
            let flow = Flow {
                entry: vec![entry.min(levels); k],
                blocks: vec![Block {
                    inputs,
                    nodes: made,
                    outputs,
                    times,
                }],
            };
            (flow, machine)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_placement_is_the_optimum((flow, machine) in flows()) {
        let best = place(&flow, &machine, Loops::Free).unwrap();
        let (seconds, bootstraps) = replayed(&flow, &machine, &best);
        prop_assert!(close(seconds, best.seconds) && bootstraps == best.bootstraps);
        let exact = exhaustive(&flow, &machine).unwrap();
        prop_assert!(close(exact, best.seconds), "{exact} {}", best.seconds);
    }

    #[test]
    fn nothing_simpler_is_better((flow, machine) in flows(), times in 1usize..6) {
        let mut flow = flow;
        flow.blocks[0].times = times;
        let mut last = flow.blocks[0].clone();
        last.times = 1;
        flow.blocks.push(last);
        let best = place(&flow, &machine, Loops::Free).unwrap();
        let alike = place(&flow, &machine, Loops::Alike).unwrap();
        prop_assert!(close(replayed(&flow, &machine, &alike).0, alike.seconds));
        let greedy = greedy(&flow, &machine).unwrap();
        prop_assert!(close(replayed(&flow, &machine, &greedy).0, greedy.seconds));
        let turns = in_turn(&flow, &machine).unwrap();
        prop_assert!(close(replayed(&flow, &machine, &turns).0, turns.seconds));
        let mut others = vec![alike.seconds, greedy.seconds, turns.seconds];
        if let Ok(layers) = per_layer(&flow, &machine) {
            prop_assert!(close(replayed(&flow, &machine, &layers).0, layers.seconds));
            others.push(layers.seconds);
        }
        for other in others {
            prop_assert!(best.seconds <= other + 1e-9, "{} {other}", best.seconds);
        }
    }
}
