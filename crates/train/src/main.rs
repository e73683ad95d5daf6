//! Training.
use std::path::PathBuf;
use veilformer_train::{corpus::Corpus, error::Result, features::Features, recipe::Recipe, trainer::*};
fn main() -> Result<()> {
    let a: Vec<PathBuf> = std::env::args().skip(1).map(Into::into).collect();
    let recipe = Recipe::load(&a[0])?;
    let features = Features::load(&a[2])?;
    let corpus = Corpus::load(&recipe, &a[1], features)?;
    eprintln!("train {} dev {} test {} excluded {}", corpus.train.len(), corpus.dev.len(), corpus.test.len(), corpus.excluded);
    let mut t = Trainer::new(&recipe, &corpus)?;
    for e in 0..recipe.optimizer.epochs {
        let s = std::time::Instant::now();
        let r = t.epoch(e, |_| ())?;
        let w = t.parameters.averaged()?;
        let table = t.token_table(&w)?;
        let mut ranges = veilformer_train::network::Ranges::default();
        let test = evaluate(&t.config, &w, &table, &corpus.test)?;
        let mut it = Vec::new();
        for c in corpus.dev.chunks(128) {
            let b: Vec<&[u32]> = c.iter().map(|i| i.ids.as_slice()).collect();
            let b = veilformer_train::network::Batch::new(&b);
            it.push(b.width);
            let ids = candle_core::Tensor::from_slice(&b.ids, b.ids.len(), &candle_core::Device::Cpu)?;
            let x = table.index_select(&ids, 0)?.reshape((c.len(), b.width, 64))?;
            veilformer_train::network::Network::new(&t.config, &w).forward(&x, &b, veilformer_train::network::Mode::Observe(&mut ranges))?;
        }
        let s1: Vec<String> = ranges.entries.iter().map(|(n, l, h)| format!("{n}[{l:.1},{h:.1}]")).collect();
        eprintln!("{e} loss {:.4} range {:.5} dev {:.4} test {:.4} {:.1}s {}", r.loss, r.range_loss, r.dev_accuracy, accuracy(&test, &corpus.test), s.elapsed().as_secs_f64(), s1.join(" "));
    }
    Ok(())
}
