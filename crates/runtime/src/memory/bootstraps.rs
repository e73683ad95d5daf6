//! The scripts of bootstraps: their operations one after the other.

use veilformer_ckks::Params;
use veilformer_ir::ciphertext::{CiphertextProgram, Operation, ValueId};

use super::script::{Place, Poly, Script, Value, Writer};

/// Operands of these levels, whose buffers were taken for `words`, two for each.
pub(crate) fn operands(params: &Params, levels: &[usize], words: &[usize]) -> Vec<Value> {
    let value = |(number, level): (usize, &usize)| {
        let half = |half: usize| Poly {
            place: Place::Operand(2 * number + half),
            limbs: params.basis_at(*level).len(),
            whole: words.get(2 * number + half).copied().unwrap_or(0),
        };
        Value {
            level: *level,
            halves: [half(0), half(1)],
        }
    };
    levels.iter().enumerate().map(value).collect()
}

impl Writer<'_> {
    /// The script of an operation of `program`; `inside` are the circuits of its bootstraps, each with the
    /// seconds that its operations take.
    pub(crate) fn script(
        mut self,
        program: &CiphertextProgram,
        inside: &[(&CiphertextProgram, Vec<f64>)],
        (operation, operands): (&Operation, &[Value]),
    ) -> Script {
        let results = match operation {
            Operation::Bootstrap { which, .. } => match inside.get(*which as usize) {
                Some((circuit, seconds)) => self.bootstrap(circuit, operands, seconds),
                None => Vec::new(),
            },
            operation => self.operation(program, operation, operands),
        };
        self.finish(&results)
    }

    fn bootstrap(
        &mut self,
        circuit: &CiphertextProgram,
        operands: &[Value],
        seconds: &[f64],
    ) -> Vec<Value> {
        let low = circuit.inputs.first().map_or(0, |input| input.level);
        let mut inputs = Vec::with_capacity(operands.len());
        for operand in operands {
            inputs.push(self.adjust(*operand, low));
        }
        // A pair is one value where the circuit takes one.
        if let [first, _, ..] = inputs[..]
            && circuit.inputs.len() == 1
        {
            let both = self.like(first);
            self.give(inputs.iter().flat_map(|input| input.halves));
            inputs = vec![both];
        }
        // And one value goes the way of a pair where that is what is known.
        while inputs.len() < circuit.inputs.len()
            && let Some(&first) = inputs.first()
        {
            inputs.push(self.like(first));
        }
        let mut results = self.circuit(circuit, inputs, seconds);
        while results.len() < operands.len()
            && let Some(&first) = results.first()
        {
            results.push(self.like(first));
        }
        let more = results.split_off(operands.len().min(results.len()));
        self.give(more.iter().flat_map(|value| value.halves));
        results
    }

    /// All operations of a circuit, whose values live from where they are made to where they are read
    /// last.
    fn circuit(
        &mut self,
        circuit: &CiphertextProgram,
        inputs: Vec<Value>,
        seconds: &[f64],
    ) -> Vec<Value> {
        let mut last = vec![0; circuit.values.len()];
        for (index, instruction) in circuit.instructions.iter().enumerate() {
            let read = instruction.operation.operands().into_iter();
            for id in read.chain(instruction.results.iter().copied()) {
                if let Some(place) = last.get_mut(id.0 as usize) {
                    *place = index;
                }
            }
        }
        for id in &circuit.outputs {
            if let Some(place) = last.get_mut(id.0 as usize) {
                *place = usize::MAX;
            }
        }
        let mut values: Vec<Option<Value>> = vec![None; circuit.values.len()];
        for (index, instruction) in circuit.instructions.iter().enumerate() {
            let operation = &instruction.operation;
            let ids = operation.operands();
            let read = |id: &ValueId| values.get(id.0 as usize).copied().flatten();
            let operands: Vec<Value> = ids.iter().filter_map(read).collect();
            let results = match operation {
                Operation::Input { index } => inputs.get(*index).copied().into_iter().collect(),
                operation => self.operation(circuit, operation, &operands),
            };
            for (id, result) in instruction.results.iter().zip(results) {
                if let Some(place) = values.get_mut(id.0 as usize) {
                    *place = Some(result);
                }
            }
            for id in ids.iter().chain(&instruction.results) {
                let at = id.0 as usize;
                if last.get(at) == Some(&index)
                    && let Some(done) = values.get_mut(at).and_then(Option::take)
                {
                    self.give(done.halves);
                }
            }
            self.end_part(seconds.get(index).copied().unwrap_or(0.0));
        }
        let output = |id: &ValueId| values.get(id.0 as usize).copied().flatten();
        circuit.outputs.iter().filter_map(output).collect()
    }
}
