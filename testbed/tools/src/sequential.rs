//! `fill` and `verify`: one request after the other.

use crate::disk::{self, SECTOR};
use crate::pattern;
use anyhow::{Result, bail};
use memmap2::MmapMut;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// Bytes of each request.
const CHUNK: usize = 256 << 10;

/// Which sectors, of what content.
#[derive(clap::Args)]
pub(crate) struct Span {
    /// The device.
    dev: PathBuf,
    /// The pattern.
    #[arg(value_parser = crate::number)]
    seed: u64,
    /// How many bytes.
    #[arg(value_parser = crate::sectors)]
    len: u64,
    /// The first byte.
    #[arg(long, default_value = "0", value_parser = crate::number)]
    offset: u64,
    /// Only a buffer that lies at physical addresses from here on will do; its lowest is printed.
    #[arg(long, value_parser = crate::number)]
    above: Option<u64>,
}

impl Span {
    pub(crate) fn fill(&self) -> Result<String> {
        let file = disk::open(&self.dev, true)?;
        let (mut buffer, place) = self.buffer()?;
        for (offset, len) in self.chunks() {
            pattern::fill(&mut buffer[..len], self.seed, offset / SECTOR);
            file.write_all_at(&buffer[..len], offset)?;
        }
        file.sync_data()?;
        Ok(format!("fill seed={} bytes={}{place}", self.seed, self.len))
    }

    pub(crate) fn verify(&self) -> Result<String> {
        let file = disk::open(&self.dev, false)?;
        let (mut buffer, place) = self.buffer()?;
        for (offset, len) in self.chunks() {
            buffer.fill(0xee);
            file.read_exact_at(&mut buffer[..len], offset)?;
            if let Some(sector) = pattern::mismatch(&buffer[..len], self.seed, offset / SECTOR) {
                bail!(
                    "{}: sector {sector} doesn't hold what seed {} wrote",
                    self.dev.display(),
                    self.seed
                );
            }
        }
        Ok(format!("verify seed={} bytes={}{place}", self.seed, self.len))
    }

    fn buffer(&self) -> Result<(MmapMut, String)> {
        match self.above {
            None => Ok((disk::buffer(CHUNK)?, String::new())),
            Some(above) => {
                let (buffer, lowest) = disk::buffer_above(CHUNK, above)?;
                Ok((buffer, format!(" buffer={lowest:#x}")))
            }
        }
    }

    /// Offset and length of each request.
    fn chunks(&self) -> impl Iterator<Item = (u64, usize)> {
        let end = self.offset + self.len;
        (self.offset..end).step_by(CHUNK).map(move |at| (at, CHUNK.min((end - at) as usize)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(dev: &std::path::Path, seed: u64) -> Span {
        Span { dev: dev.to_owned(), seed, len: (1 << 20) + 512, offset: 4096, above: None }
    }

    #[test]
    fn what_was_filled_verifies_and_one_wrong_sector_does_not() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
        file.as_file().set_len(2 << 20).expect("its size");
        span(file.path(), 1).fill().expect("filled");
        span(file.path(), 1).verify().expect("verified");
        assert!(span(file.path(), 2).verify().is_err());
        file.as_file().write_all_at(b"x", 4096 + (1 << 20) + 300).expect("one byte");
        let error = span(file.path(), 1).verify().expect_err("a wrong byte");
        assert!(error.to_string().contains("sector 2056 "), "{error}");
    }
}
