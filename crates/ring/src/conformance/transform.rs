//! Linear transforms.

use super::{Bench, Check, Failure, Places};
use crate::backend::{Backend, DiagonalTerm, GiantStep, OutputPlan, TransformPlan};
use crate::{Basis, Form, GaloisElement, PlainPoly, Reference, Result};

/// The plaintexts of the transforms: three dense ones and one of every other kind, then one that
/// does not live on P.
fn transform_plains<B: Backend>(
    t: &mut Bench<B>,
    places: Places,
) -> std::result::Result<Vec<PlainPoly>, Failure> {
    let wide = t.chain.all();
    let mut plains = Vec::new();
    for _ in 0..3 {
        plains.push(PlainPoly::Dense(t.samples.poly(wide, Form::Ntt)?));
    }
    for period in [4, t.chain.n() / 2] {
        let values = t.samples.residues(wide, period);
        plains.push(PlainPoly::Periodic {
            period,
            basis: wide,
            values,
        });
    }
    plains.push(PlainPoly::Scalar {
        basis: wide,
        residues: t.samples.residues(wide, 1),
    });
    let narrow = t.samples.poly(places.of(Basis::range(0, 6)), Form::Ntt)?;
    plains.push(PlainPoly::Dense(narrow));
    Ok(plains)
}

fn term(input: usize, baby: Option<usize>, plain: usize) -> DiagonalTerm {
    DiagonalTerm { input, baby, plain }
}

fn giant(key: Option<usize>, terms: Vec<DiagonalTerm>) -> GiantStep {
    GiantStep { key, terms }
}

/// Outputs with every mixture of giant steps and terms, with and without a rotation.
fn transform_outputs() -> Vec<OutputPlan> {
    let mut outputs: Vec<OutputPlan> = sums_of_giants()
        .into_iter()
        .map(OutputPlan::beside)
        .collect();
    outputs.extend(nested_giants().into_iter().map(OutputPlan::nested));
    outputs
}

/// One key for all giant steps and several, the first step with a key and without, sums with and
/// without rotated inputs in each place, steps without terms.
fn nested_giants() -> Vec<Vec<GiantStep>> {
    let turned = |key| giant(key, vec![term(0, Some(1), 2), term(1, None, 6)]);
    let exact = |key| giant(key, vec![term(0, None, 6), term(1, None, 3)]);
    let empty = |key| giant(key, vec![]);
    vec![
        vec![
            turned(None),
            turned(Some(0)),
            turned(Some(0)),
            turned(Some(0)),
        ],
        vec![turned(Some(3)), exact(Some(1)), turned(Some(2))],
        vec![exact(None), exact(Some(4)), exact(Some(4))],
        vec![exact(Some(2)), turned(Some(5)), exact(Some(1))],
        vec![empty(None), empty(Some(0)), exact(Some(1))],
        vec![
            empty(Some(3)),
            turned(Some(2)),
            empty(Some(0)),
            turned(Some(3)),
        ],
        // One step alone.
        vec![turned(None)],
        vec![exact(None)],
        vec![turned(Some(4))],
        vec![exact(Some(4))],
        // More inputs than are worked on at a time.
        vec![
            exact(None),
            giant(
                Some(3),
                (0..40)
                    .map(|i| term(i % 2, (i > 1).then_some(i / 2), i % 6))
                    .collect(),
            ),
            giant(
                Some(3),
                (0..30).map(|i| term(i % 2, Some(i % 20), i % 6)).collect(),
            ),
        ],
    ]
}

fn sums_of_giants() -> Vec<Vec<GiantStep>> {
    vec![
        vec![
            giant(None, vec![term(0, None, 0), term(1, Some(0), 1)]),
            giant(Some(2), vec![term(0, Some(1), 2), term(0, Some(0), 3)]),
            giant(Some(1), vec![term(1, None, 6)]),
            giant(Some(1), vec![term(1, None, 6), term(0, Some(2), 5)]),
        ],
        // Baby steps alone, one input alone, one rotation twice with one product.
        vec![giant(
            None,
            vec![
                term(1, Some(2), 4),
                term(0, Some(0), 0),
                term(0, Some(0), 0),
            ],
        )],
        // A giant step alone, over rotated inputs and over one that is not.
        vec![giant(Some(0), vec![term(0, None, 3), term(0, Some(0), 0)])],
        vec![giant(Some(0), vec![term(0, None, 6), term(1, None, 3)])],
        // Nothing rotated.
        vec![giant(None, vec![term(0, None, 6), term(1, None, 5)])],
        // More inputs, rotated and not, than are worked on at a time.
        vec![
            giant(None, (0..20).map(|i| term(i % 2, Some(i), i % 6)).collect()),
            giant(
                Some(3),
                (0..40)
                    .map(|i| term(i % 2, (i > 1).then_some(i / 2), i % 6))
                    .collect(),
            ),
        ],
    ]
}

pub(super) fn linear_transforms<B: Backend>(t: &mut Bench<B>, places: Places) -> Check {
    let special = places.digits().1;
    let basis = Basis::range(0, 6);
    let mut keys = Vec::new();
    for by in 0..20 {
        let mut g = GaloisElement::rotation(by + 1, t.log_n);
        if by == 5 {
            g = g.compose(GaloisElement::conjugation(t.log_n), t.log_n);
        }
        // A key may have a partition of its own, or one that cuts some inputs like the others'.
        let parts = match by {
            2 => vec![Basis::range(0, 4), Basis::range(4, 6)],
            3 => vec![Basis::single(0), Basis::range(1, 4), Basis::range(4, 6)],
            _ => super::digits().0,
        };
        let parts: Vec<Basis> = parts.into_iter().map(|digit| places.of(digit)).collect();
        keys.push(t.samples.key(g, &parts, special)?);
    }
    let plains = transform_plains(t, places)?;
    let ours_keys = keys
        .iter()
        .map(|k| t.ours.prepare_key(k))
        .collect::<Result<Vec<_>>>()?;
    let ref_keys = keys
        .iter()
        .map(|k| t.reference.prepare_key(k))
        .collect::<Result<Vec<_>>>()?;
    let ours_plains = plains
        .iter()
        .map(|p| t.ours.prepare_plain(p))
        .collect::<Result<Vec<_>>>()?;
    // Those of one giant step and those without baby steps alone, and all at once.
    let all = transform_outputs();
    let unturned = |o: &OutputPlan| {
        let mut terms = o.giants.iter().flat_map(|g| &g.terms);
        terms.all(|t| t.baby.is_none())
    };
    let few = all.iter().filter(|o| o.giants.len() == 1 || unturned(o));
    let mut plans: Vec<Vec<OutputPlan>> = few.map(|o| vec![o.clone()]).collect();
    // Outputs with keys and without, all without rotated inputs.
    let plain = all.iter().filter(|o| unturned(o) && !o.nested);
    plans.push(plain.cloned().collect());
    plans.push(all);
    for outputs in plans {
        let mut plan: TransformPlan<'_, B> = TransformPlan {
            keys: ours_keys.iter().collect(),
            plains: ours_plains.iter().collect(),
            outputs: outputs.clone(),
        };
        let expected_plan: TransformPlan<'_, Reference> = TransformPlan {
            keys: ref_keys.iter().collect(),
            plains: plains.iter().collect(),
            outputs,
        };
        let small = Basis::from_indices(&[0, 2, 4]);
        for (basis, drop) in [
            (basis, Basis::empty()),
            (basis, Basis::from_indices(&[4, 5])),
            (small, Basis::single(4)),
        ] {
            let (basis, drop) = (places.of(basis), places.of(drop));
            compare_transforms(t, (&plan, &expected_plan), basis, drop)?;
        }
        if places.of(basis) == basis {
            refuse_transforms(t, &mut plan)?;
        }
    }
    Ok(())
}

fn compare_transforms<B: Backend>(
    t: &mut Bench<B>,
    (plan, expected): (&TransformPlan<'_, B>, &TransformPlan<'_, Reference>),
    basis: Basis,
    drop: Basis,
) -> Check {
    let mut inputs = Vec::new();
    for _ in 0..4 {
        inputs.push(t.samples.poly(basis, Form::Ntt)?);
    }
    let x = inputs
        .iter()
        .map(|p| t.ours.import(p.clone()))
        .collect::<Result<Vec<_>>>()?;
    let ours = [(&x[0], &x[1]), (&x[2], &x[3])];
    let out = t.ours.linear_transform(&ours, plan, drop)?;
    let pairs = [(&inputs[0], &inputs[1]), (&inputs[2], &inputs[3])];
    let expected = t.reference.linear_transform(&pairs, expected, drop)?;
    if out.len() != expected.len() {
        return Err(Failure::Differs {
            check: "number of outputs of linear_transform",
            log_n: t.log_n,
        });
    }
    for ((s0, s1), (r0, r1)) in out.iter().zip(&expected) {
        t.same("linear_transform", s0, r0)?;
        t.same("linear_transform", s1, r1)?;
    }
    Ok(())
}

fn refuse_transforms<B: Backend>(t: &mut Bench<B>, plan: &mut TransformPlan<'_, B>) -> Check {
    let basis = Basis::range(0, 6);
    let zero = t.ours.zero(basis, Form::Ntt)?;
    let other = t.ours.zero(Basis::range(0, 5), Form::Ntt)?;
    let inputs = [(&zero, &zero), (&zero, &zero)];
    let none = Basis::empty();
    t.refused(
        "linear_transform by all",
        t.ours.linear_transform(&inputs, plan, basis),
    )?;
    t.refused(
        "linear_transform on two bases",
        t.ours
            .linear_transform(&[inputs[0], (&zero, &other)], plan, none),
    )?;
    t.refused(
        "linear_transform without inputs",
        t.ours.linear_transform(&[], plan, none),
    )?;
    let giants = &mut plan.outputs[0].giants;
    let last = giants.len() - 1;
    let good = giants[last].terms[0];
    for (what, bad) in [
        ("a missing plaintext", term(0, None, 99)),
        ("a missing input", term(2, None, 0)),
        ("a missing key", term(0, Some(99), 0)),
        (
            "a rotated input and a plaintext without P",
            term(0, Some(0), 6),
        ),
    ] {
        plan.outputs[0].giants[last].terms[0] = bad;
        t.refused(what, t.ours.linear_transform(&inputs, plan, none))?;
    }
    plan.outputs[0].giants[last].terms[0] = good;
    let key = plan.outputs[0].giants[0].key.replace(99);
    t.refused(
        "a giant step with a missing key",
        t.ours.linear_transform(&inputs, plan, none),
    )?;
    plan.outputs[0].giants[0].key = key;
    plan.outputs.push(OutputPlan::beside(Vec::new()));
    t.refused(
        "an output without terms",
        t.ours.linear_transform(&inputs, plan, none),
    )?;
    plan.outputs.pop();
    let one = || vec![term(0, None, 6)];
    for (what, giants) in [
        ("nested steps without any", vec![]),
        (
            "a nested step without a key",
            vec![giant(None, one()), giant(None, one())],
        ),
        (
            "a last nested step without terms",
            vec![giant(None, one()), giant(Some(0), vec![])],
        ),
    ] {
        plan.outputs.push(OutputPlan::nested(giants));
        t.refused(what, t.ours.linear_transform(&inputs, plan, none))?;
        plan.outputs.pop();
    }
    Ok(())
}
