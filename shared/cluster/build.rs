//! Generates the types of `proto/plenary/v1`, without protoc.

use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", protos.display());
    let files = protox::compile(["plenary/v1/cluster.proto"], [&protos])?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]).bytes(["."]);
    config.compile_fds(files)?;
    Ok(())
}
