//! Writes the seeds of each target into `DIR/TARGET/`: `seeds GOLDEN DIR`.

use std::path::PathBuf;
use std::{env, fs, io};

use ocifs_fuzz::seeds::TARGETS;

fn main() -> io::Result<()> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [golden, dir] = &arguments[..] else {
        return Err(io::Error::other("usage: seeds GOLDEN DIR"));
    };
    for target in TARGETS {
        let dir = dir.join(target.name);
        fs::create_dir_all(&dir)?;
        for (number, seed) in target.seeds(golden)?.iter().enumerate() {
            fs::write(dir.join(format!("seed-{number:03}")), seed)?;
        }
    }
    Ok(())
}
