//! The `ocifs` command.

fn main() {}
