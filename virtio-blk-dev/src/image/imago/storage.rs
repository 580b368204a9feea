use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imago::Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;

use super::host::{HostFile, ReadAt};
use super::journal::Journal;

/// A file of an image, as imago is given it.
#[derive(Debug)]
pub(super) struct Layer {
    file: Arc<HostFile>,
    path: PathBuf,
    role: Role,
    helper: CommonStorageHelper,
}

/// What imago does with a file. A qcow2 image that is written is given to it twice: once as that of
/// the tables, once as that of the data.
#[derive(Debug)]
enum Role {
    /// Reads it, or writes data that no table in it refers to.
    Plain,
    /// Writes its tables.
    Tables(Arc<Journal>),
    /// Writes data beside tables.
    Data(Arc<Journal>),
}

impl Layer {
    pub(super) fn plain(file: Arc<HostFile>, path: PathBuf) -> Self {
        Self { file, path, role: Role::Plain, helper: CommonStorageHelper::default() }
    }

    pub(super) fn tables(file: Arc<HostFile>, path: PathBuf, journal: Arc<Journal>) -> Self {
        Self { role: Role::Tables(journal), ..Self::plain(file, path) }
    }

    pub(super) fn data(file: Arc<HostFile>, path: PathBuf, journal: Arc<Journal>) -> Self {
        Self { role: Role::Data(journal), ..Self::plain(file, path) }
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.file.is_deleted()
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.role {
            Role::Tables(journal) => journal.read_at(bytes, offset),
            Role::Plain | Role::Data(_) => self.file.read_at(bytes, offset),
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match &self.role {
            Role::Plain => self.file.write(bytes, offset),
            Role::Tables(journal) => journal.write(bytes, offset),
            Role::Data(journal) => {
                journal.may_write_data(offset, bytes.len() as u64)?;
                self.file.write(bytes, offset)
            }
        }
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.role {
            Role::Plain => self.file.write_zeroes(offset, len),
            Role::Tables(_) => Err(io::ErrorKind::Unsupported.into()),
            Role::Data(journal) => {
                journal.may_write_data(offset, len)?;
                self.file.write_zeroes(offset, len)
            }
        }
    }
}

impl Display for Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// The methods are unsafe for what imago does around them, which is aligned and not concurrent;
/// here they are positional reads and writes of a file, and nothing of that matters.
impl Storage for Layer {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        let directory = self.path.parent().ok_or(io::ErrorKind::NotFound)?;
        Ok(directory.join(relative))
    }

    fn get_filename(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        for mut piece in bufv.into_inner() {
            self.read(&mut piece, offset)?;
            offset = offset.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, mut offset: u64) -> io::Result<()> {
        for piece in bufv.into_inner() {
            self.write(&piece, offset)?;
            offset = offset.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.zero(offset, length)
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.zero(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Tables are brought to stable storage by [`Journal::flush`], and data with them.
    fn sync(&self) -> io::Result<()> {
        match self.role {
            Role::Plain => self.file.sync(),
            Role::Tables(_) | Role::Data(_) => Ok(()),
        }
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }
}
