//! The images that all devices serve.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

use crate::cell::Medium;
use crate::random::Random;

const CHUNK: usize = 1 << 20;

/// A file full of data, all of it in memory; removed when dropped.
pub(crate) struct Image {
    file: NamedTempFile,
    len: u64,
}

impl Image {
    /// `len` bytes, a multiple of a mebibyte, in `dir`.
    pub(crate) fn create(dir: &Path, len: u64) -> Result<Self> {
        let file = tempfile::Builder::new().prefix("compare-").tempfile_in(dir);
        let file = file.with_context(|| format!("making an image in {}", dir.display()))?;
        let mut random = Random::new(len);
        let chunk: Vec<u8> = (0..CHUNK).map(|_| random.below(256) as u8).collect();
        for at in (0..len).step_by(CHUNK) {
            file.as_file().write_all_at(&chunk, at).context("filling the image")?;
        }
        file.as_file().sync_all().context("writing the image back")?;
        Ok(Self { file, len })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The kind of the file system that it lies on, as /proc/self/mountinfo calls it (proc(5)).
    pub(crate) fn file_system(&self) -> String {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = text.lines().filter_map(|line| {
            let (mount, rest) = line.split_once(" - ")?;
            Some((mount.split(' ').nth(4)?, rest.split(' ').next()?))
        });
        let above = mounts.filter(|(point, _)| self.path().starts_with(point));
        // The innermost is the one that counts; of those over each other, the last.
        let innermost = above.max_by_key(|(point, _)| point.len());
        innermost.map_or("an unknown kind", |(_, kind)| kind).to_owned()
    }
}

/// The image of each medium, with the same content.
pub(crate) struct Images {
    page_cache: Image,
    memory: Image,
}

impl Images {
    pub(crate) fn create(disk: &Path, memory: &Path, len: u64) -> Result<Self> {
        Ok(Self { page_cache: Image::create(disk, len)?, memory: Image::create(memory, len)? })
    }

    pub(crate) fn on(&self, medium: Medium) -> &Image {
        match medium {
            Medium::PageCache => &self.page_cache,
            Medium::Memory => &self.memory,
        }
    }
}
