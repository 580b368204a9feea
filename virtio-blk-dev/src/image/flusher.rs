use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

/// Flushes an image for one queue: see [`Image::flusher`](super::Image::flusher).
pub trait Flusher: Send + Sync {
    /// As [`Image::flush`](super::Image::flush), but also reports errors since the flusher was made that
    /// other flushers have reported.
    ///
    /// # Errors
    /// The host's.
    fn flush(&self) -> io::Result<()>;
}

/// An open file description that only one queue uses.
impl Flusher for File {
    fn flush(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl<F: Flusher + ?Sized> Flusher for Arc<F> {
    fn flush(&self) -> io::Result<()> {
        (**self).flush()
    }
}

/// Opens `file` again, even if its path has changed.
///
/// The locks belong to the first description (`F_OFD_SETLK`, fcntl(2)), and so does the exclusive use of a
/// block device (`O_EXCL`), which a second one couldn't have.
///
/// # Errors
/// There is no /proc, or this process may no longer open the file.
pub(super) fn reopen(file: &File, direct: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(if direct { libc::O_DIRECT } else { 0 })
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::super::RawOptions;
    use super::*;

    #[test]
    fn a_file_is_reopened_as_another_description_of_the_same_even_if_it_has_no_name() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let mut file = named.reopen().unwrap();
        named.close().unwrap();
        file.write_all(b"data").unwrap();
        let mut other = reopen(&file, false).unwrap();
        assert_eq!(other.stream_position().unwrap(), 0, "a duplicate would share the position");
        assert_eq!(other.seek(SeekFrom::End(0)).unwrap(), 4);
    }

    #[test]
    fn a_lock_stays_with_the_image_when_its_flushers_go() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let image = RawOptions::new().open(file.path()).unwrap();
        let flusher = super::super::Image::flusher(&image).expect("/proc");
        flusher.flush().unwrap();
        drop(flusher);
        RawOptions::new().open(file.path()).expect_err("the image is in use");
        drop(image);
        RawOptions::new().open(file.path()).expect("nobody has it");
    }

    #[test]
    fn spare_descriptions_are_used_before_the_file_is_opened_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let image = RawOptions::new().spares(2).open(file.path()).unwrap();
        let spares = [image.reopen().unwrap(), image.reopen().unwrap()];
        assert!(!Arc::ptr_eq(&spares[0], &spares[1]));
        let opened = image.reopen().expect("/proc");
        assert!(spares.iter().all(|spare| !Arc::ptr_eq(spare, &opened)));
        drop(spares);
        let descriptors = |file: &Arc<File>| file.as_raw_fd();
        let again = [image.reopen().unwrap(), image.reopen().unwrap()];
        assert!(again.iter().all(|spare| descriptors(spare) != descriptors(&opened)));
        assert_eq!(again.map(|spare| Arc::strong_count(&spare)), [2; 2], "the image's own");
    }

    #[test]
    fn an_image_that_is_only_read_has_no_flusher() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let image = RawOptions::new().read_only(true).open(file.path()).unwrap();
        assert!(super::super::Image::flusher(&image).is_none());
    }
}
