//! Device programs: the same computation, in buffers that suffice, with repeated blocks as loops.
#![allow(clippy::unwrap_used)]

use veilformer_ckks::SecurityLevel;
use veilformer_compiler::schedule::{schedule, unscheduled};
use veilformer_compiler::{Compiled, DEFAULT_MARGIN, Options, compile};
use veilformer_ir::device::{BufferId, Column, DeviceProgram, Node};
use veilformer_models::{ModelConfig, random_checkpoint};

fn compiled(tokens: usize, batch: usize) -> Compiled {
    let json = format!(
        r#"{{"model_type":"veilformer-poly","format_version":1,"hidden_size":12,
        "num_hidden_layers":1,"num_attention_heads":2,"head_dim":4,
        "intermediate_size":20,"max_position_embeddings":{tokens},"vocab_size":50,
        "attention":{{"kind":"power","power":2,"length_scaling":"1/n"}},
        "activation":{{"kind":"polynomial","degree":2}},"normalization":"batch","norm_eps":1e-5,
        "pooling":"mean","id2label":{{"0":"a","1":"b"}}}}"#
    );
    let model = random_checkpoint(&ModelConfig::from_json(json.as_bytes()).unwrap(), 3).unwrap();
    let ids: Vec<u32> = (0..tokens as u32).map(|i| i % 50).collect();
    let options = Options {
        security: SecurityLevel::Bits128,
        calibration: vec![model.rows(&ids).unwrap()],
        margin: DEFAULT_MARGIN,
        tokens: None,
        batch,
    };
    compile(&model.tensor_program("test"), &options).unwrap()
}

fn loops(nodes: &[Node]) -> usize {
    let one = |n: &Node| match n {
        Node::Step(_) => 0,
        Node::Loop { body, .. } => 1 + loops(body),
    };
    nodes.iter().map(one).sum()
}

#[test]
fn schedules_are_their_programs_in_less_memory() {
    for (tokens, batch) in [(17, 1), (32, 2), (2, 8)] {
        let compiled = compiled(tokens, batch);
        let (program, params) = (&compiled.program, &compiled.params);
        let loose = unscheduled(program, params, 1);
        loose.verify(program).unwrap();
        assert_eq!(loose.buffer_bytes(), loose.bytes_without_reuse(program));
        let mut before = 0;
        for threads in [1, 2, 8] {
            let device = schedule(program, params, threads);
            device.verify(program).unwrap();
            assert!(
                device.buffer_bytes() < loose.buffer_bytes(),
                "{tokens} {batch}"
            );
            assert!(
                device.buffer_bytes() >= before,
                "more threads, more buffers"
            );
            before = device.buffer_bytes();
            assert_eq!(device.steps().unwrap().len(), program.instructions.len());
            assert_eq!(device.keys.len(), compiled.keys.len());
            let text = device.print(program);
            assert!(text.contains("buffers:") && text.contains("keys, by first use"));
        }
    }
}

/// Attention repeats one block per pair of distances, and within it one per dimension.
#[test]
fn blocks_that_repeat_stay_loops() {
    let (short, long) = (compiled(16, 1), compiled(64, 1));
    let written = |c: &Compiled| {
        let device = unscheduled(&c.program, &c.params, 1);
        assert!(loops(&device.nodes) >= 2, "{}", device.print(&c.program));
        (device.written_steps(), c.program.instructions.len())
    };
    let (short, long) = (written(&short), written(&long));
    assert!(
        long.1 > 2 * short.1,
        "the program grows: {short:?} {long:?}"
    );
    assert!(
        long.0 < short.0 + 20,
        "what is written down does not: {short:?} {long:?}"
    );
}

#[test]
fn a_tampered_stream_does_not_verify() {
    let compiled = compiled(8, 1);
    let program = &compiled.program;
    let good = schedule(program, &compiled.params, 2);
    let tampered = |change: &dyn Fn(&mut DeviceProgram)| {
        let mut device = good.clone();
        change(&mut device);
        assert!(device.verify(program).is_err());
    };
    fn first_step(nodes: &mut [Node]) -> &mut veilformer_ir::device::Step {
        match nodes
            .iter_mut()
            .find(|n| matches!(n, Node::Step(s) if !s.reads.is_empty()))
        {
            Some(Node::Step(step)) => step,
            _ => unreachable!("a stream has steps outside of loops"),
        }
    }
    tampered(&|d| d.nodes.truncate(3));
    tampered(&|d| d.nodes.swap(0, 5));
    tampered(&|d| d.nodes.push(d.nodes[0].clone()));
    tampered(&|d| d.buffers.truncate(2));
    tampered(&|d| d.buffers.iter_mut().for_each(|b| b.level += 1));
    tampered(&|d| d.outputs[0] = BufferId(0));
    tampered(&|d| d.keys.reverse());
    tampered(&|d| d.plains.clear());
    tampered(&|d| first_step(&mut d.nodes).reads[0] = Column::Fixed(u32::MAX));
    tampered(&|d| first_step(&mut d.nodes).writes[0] = Column::Table(vec![]));
    tampered(&|d| first_step(&mut d.nodes).releases.push(Column::Fixed(0)));
    tampered(&|d| first_step(&mut d.nodes).instruction = Column::Fixed(u32::MAX));
    // Two buffers that live at the same time become one.
    tampered(&|d| {
        for node in &mut d.nodes {
            if let Node::Step(step) = node {
                step.writes.iter_mut().for_each(|w| *w = Column::Fixed(0));
            }
        }
    });
}
