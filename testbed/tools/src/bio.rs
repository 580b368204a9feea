//! `bio`: exercises a block device with O_DIRECT, verifies what it reads, and measures.
//!
//! Every subcommand prints one line of `key=value` words and fails if a byte is wrong.

mod aio;
mod bench;
mod disk;
mod hammer;
mod load;
mod pattern;
mod sequential;
mod series;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Exercises a block device with O_DIRECT.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Times requests of one size.
    Bench(bench::Bench),
    /// Reads from several disks at once, from when a line comes on the standard input.
    Load(load::Load),
    /// Writes a pattern that depends on the seed and on each sector's number, and flushes.
    Fill(sequential::Span),
    /// Reads back what `fill` wrote with the same seed.
    Verify(sequential::Span),
    /// Reads and writes at random from several threads, and verifies.
    Hammer(hammer::Hammer),
    /// Fails unless writing is refused: for a read-only disk.
    Refuse {
        /// The device.
        dev: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let words = match Cli::parse().command {
        Command::Bench(bench) => bench.run()?,
        Command::Load(load) => load.run(&mut std::io::stdin().lock())?,
        Command::Fill(span) => span.fill()?,
        Command::Verify(span) => span.verify()?,
        Command::Hammer(hammer) => hammer.run()?,
        Command::Refuse { dev } => disk::refuses_writes(&dev)?,
    };
    println!("bio {words}");
    Ok(())
}

/// A number with an optional `k`, `M` or `G` (powers of 1024), or in hexadecimal after `0x`.
fn number(text: &str) -> Result<u64, String> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).map_err(|error| error.to_string());
    }
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text}: not a number with k, M or G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text}: too large"))
}

/// A whole number of sectors.
fn sectors(text: &str) -> Result<u64, String> {
    match number(text)? {
        bytes if bytes > 0 && bytes.is_multiple_of(disk::SECTOR) => Ok(bytes),
        _ => Err(format!("{text}: not a multiple of {}", disk::SECTOR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(sectors("4M"), Ok(4 << 20));
        assert_eq!(number("0x200000000"), Ok(0x2_0000_0000));
        assert!(sectors("100").is_err());
        assert!(number("17179869184G").is_err());
        assert!(number("x").is_err());
    }
}
