//! Writes the seed files into `corpus/TARGET/`: run it in this folder before fuzzing.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    for (number, (target, bytes)) in veilformer_fuzz::seeds::all()?.into_iter().enumerate() {
        let folder = Path::new("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("seed-{number}")), bytes)?;
    }
    Ok(())
}
