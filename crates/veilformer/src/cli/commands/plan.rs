//! `plan`: what a run will take.

use crate::cli::error::{Failure, Result};
use crate::cli::{Context, args, load};

pub fn run(_context: &Context, args: &args::Plan) -> Result<()> {
    let _bundle = load::server_bundle(&args.server)?;
    Err(Failure::input("plan is not part of this version"))
}
