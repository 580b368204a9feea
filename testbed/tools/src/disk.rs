//! A block device opened with O_DIRECT, and memory to hand it.

use anyhow::{Context as _, Result, bail};
use memmap2::MmapMut;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Bytes of a sector, the unit of a virtio disk (virtio 1.2, 5.2.4).
pub(crate) const SECTOR: u64 = 512;
/// Bytes of a page, the unit of /proc/self/pagemap here.
const PAGE: usize = 4096;

/// Opens `path` past the page cache.
pub(crate) fn open(path: &Path, write: bool) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}

/// Bytes of the device.
pub(crate) fn size(mut file: &File) -> Result<u64> {
    file.seek(SeekFrom::End(0)).context("asking the device's size")
}

/// Zeroed memory on pages of its own, as O_DIRECT wants it.
pub(crate) fn buffer(bytes: usize) -> Result<MmapMut> {
    MmapMut::map_anon(bytes).context("allocating a buffer")
}

/// How many pages are tried for a buffer that has to lie somewhere: 256 MiB of them.
const TRIED_PAGES: usize = 1 << 16;

/// A buffer all of whose pages lie at physical addresses from `above` on, and the lowest of them.
///
/// Where the kernel takes its pages from, one by one, nobody can tell: those that lie elsewhere are kept
/// meanwhile, or they would come again.
pub(crate) fn buffer_above(bytes: usize, above: u64) -> Result<(MmapMut, u64)> {
    let buffer = buffer(bytes)?;
    let mut elsewhere = Vec::new();
    let mut found = 0;
    for _ in 0..TRIED_PAGES {
        if found == bytes {
            let lowest = lowest_address(&buffer)?;
            return Ok((buffer, lowest));
        }
        let mut page = self::buffer(PAGE)?;
        page.fill(0xee);
        if lowest_address(&page)? < above {
            elsewhere.push(page);
            continue;
        }
        let place = buffer.as_ptr().wrapping_add(found).cast_mut();
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the page is ours and moves away from `page`, which is forgotten, to a place within
        // `buffer`, to which nobody holds a reference.
        let moved = unsafe { libc::mremap(page.as_mut_ptr().cast(), PAGE, PAGE, flags, place) };
        if moved == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("moving a page");
        }
        std::mem::forget(page);
        found += PAGE;
    }
    bail!("of {TRIED_PAGES} pages too few for {bytes} bytes lie from {above:#x} on");
}

/// The lowest physical address of a buffer whose pages are all present.
fn lowest_address(buffer: &[u8]) -> Result<u64> {
    let pagemap = File::open("/proc/self/pagemap").context("opening /proc/self/pagemap")?;
    let mut lowest = u64::MAX;
    for page in (0..buffer.len()).step_by(PAGE) {
        let mut entry = [0; 8];
        let index = (buffer.as_ptr() as usize + page) / PAGE;
        pagemap.read_exact_at(&mut entry, index as u64 * 8)?;
        // Bit 63 is "present", the low 55 bits the frame (Documentation/admin-guide/mm/pagemap.rst).
        let entry = u64::from_le_bytes(entry);
        let frame = entry & ((1 << 55) - 1);
        if entry >> 63 == 0 || frame == 0 {
            bail!("/proc/self/pagemap doesn't tell: not root?");
        }
        lowest = lowest.min(frame * PAGE as u64);
    }
    Ok(lowest)
}

/// Fails unless the device refuses both ways to write: a descriptor for it, and a request.
pub(crate) fn refuses_writes(path: &Path) -> Result<String> {
    let buffer = buffer(PAGE)?;
    match open(path, true) {
        Err(error) => Ok(format!("refuse open=\"{:#}\"", error.root_cause())),
        Ok(file) => match file.write_all_at(&buffer, 0).and_then(|()| file.sync_data()) {
            Err(error) => Ok(format!("refuse write=\"{error}\"")),
            Ok(()) => bail!("{} took a write", path.display()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_takes_writes_is_not_read_only() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(1 << 20).expect("its size");
        assert!(refuses_writes(file.path()).is_err());
        assert!(refuses_writes(Path::new("/nowhere")).is_ok());
    }
}
