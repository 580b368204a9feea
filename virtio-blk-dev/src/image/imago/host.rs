use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};

use super::super::sys;
#[cfg(all(test, not(miri)))]
use super::tests::Recorder;

/// Bytes that are read at an offset. Those beyond the end are zeroes.
pub(super) trait ReadAt {
    /// Fills `bytes`.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

/// A file of an image, open and locked.
#[derive(Debug)]
pub(super) struct HostFile {
    file: File,
    #[cfg(all(test, not(miri)))]
    recorder: Option<Recorder>,
}

impl HostFile {
    pub(super) fn new(file: File) -> Self {
        Self {
            #[cfg(all(test, not(miri)))]
            recorder: Recorder::for_this_thread(&file),
            file,
        }
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        if metadata.file_type().is_block_device() {
            return sys::device_size(&self.file);
        }
        Ok(metadata.len())
    }

    pub(super) fn is_deleted(&self) -> bool {
        sys::is_deleted(&self.file)
    }

    /// Whether a part of the file reads as zeroes and has no storage, as far as that is known.
    pub(super) fn is_hole(&self, offset: u64, len: u64) -> bool {
        sys::is_hole(&self.file, offset, len)
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(all(test, not(miri)))]
        if let Some(recorder) = &self.recorder {
            recorder.write(bytes, offset)?;
        }
        self.file.write_all_at(bytes, offset)
    }

    /// Has a range read as zeroes, and the file reach to its end.
    pub(super) fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        #[cfg(all(test, not(miri)))]
        let is_recorded = self.recorder.is_some();
        #[cfg(not(all(test, not(miri))))]
        let is_recorded = false;
        if !is_recorded
            && sys::fallocate(&self.file, libc::FALLOC_FL_ZERO_RANGE, offset, len).is_ok()
        {
            return Ok(());
        }
        let zeroes = [0; 64 << 10];
        let end = offset.saturating_add(len);
        for offset in (offset..end).step_by(zeroes.len()) {
            let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.write(zeroes.get(..left).unwrap_or(&zeroes), offset)?;
        }
        Ok(())
    }

    /// Brings what was written to stable storage.
    pub(super) fn sync(&self) -> io::Result<()> {
        #[cfg(all(test, not(miri)))]
        if let Some(recorder) = &self.recorder {
            recorder.sync()?;
        }
        self.file.sync_data()
    }
}

impl ReadAt for HostFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        ReadAt::read_at(&self.file, bytes, offset)
    }
}

impl ReadAt for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset.saturating_add(done as u64)) {
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(n) => done = done.saturating_add(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An offset beyond what a file can have.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    rest.fill(0);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
