//! Every instruction set of this machine against the reference.

use veilformer_ring::{Cpu, CpuConfig, Isa, Reference, conformance};

#[test]
fn every_isa_conforms() {
    for isa in Isa::available() {
        if let Err(e) = conformance::check_all(|chain| Cpu::new(chain, CpuConfig { isa })) {
            panic!("{isa:?}: {e}");
        }
    }
}

#[test]
fn the_reference_conforms() {
    if let Err(e) = conformance::check_all(|chain| Ok(Reference::new(chain))) {
        panic!("{e}");
    }
}
