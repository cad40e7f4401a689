//! The `unmasq` command.
fn main() {}
