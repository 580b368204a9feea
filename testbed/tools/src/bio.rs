//! A small O_DIRECT block bench.

fn main() {}
