//! `tablecast keygen`: keys for CURVE.

use std::path::PathBuf;

use tablecast::Result;
use tablecast::drivers::zmq::KeyPair;

use crate::{args, output};

/// Make a pair of keys for encrypted connections over ZeroMQ (CURVE), and print the public key.
///
/// Writes the pair to FILE, for the option curve_secret_key_file, and the public key to FILE.pub. Files that exist are
/// not overwritten.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the pair to this file, which only this user may read.
    #[arg(long, value_name = "FILE", default_value = "tablecast.key", value_parser = args::path())]
    output: PathBuf,
}

/// Makes a pair.
pub(crate) fn run(args: &Args) -> Result<()> {
    let pair = KeyPair::generate()?;
    pair.save(&args.output)?;
    output::result(pair.public())
}
