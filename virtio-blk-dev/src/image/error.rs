use std::io;
use std::path::PathBuf;

use super::format::ImageFormat;

/// A disk image that can't be opened. Every message names the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing at the path.
    #[error("disk image {path} does not exist: create it, or correct the path")]
    Missing {
        /// The image's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path names a directory, FIFO, socket or character device.
    #[error("{path} is a {found}: a disk image is a regular file or a block device")]
    Kind {
        /// The image's path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The file can't be opened for reading.
    #[error("disk image {path} can't be opened for reading: check its permissions and its storage")]
    Unreadable {
        /// The image's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file can be opened, if at all, only for reading.
    #[error(
        "disk image {path} can't be opened for writing: grant write access to it, or configure the \
         disk as read-only"
    )]
    Unwritable {
        /// The image's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another opener holds the image.
    #[error(
        "disk image {path} is in use by another disk or process, which `fuser -v {path}` shows: a \
         writable image has one user, a read-only one only read-only users"
    )]
    InUse {
        /// The image's path.
        path: PathBuf,
    },
    /// The lock that keeps a second opener out can't be taken.
    #[error("disk image {path} can't be locked: move it to a file system that supports file locks")]
    Lock {
        /// The image's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Direct I/O is not to be had.
    #[error(
        "disk image {path} can't be opened for direct I/O (O_DIRECT): serve it without direct I/O, \
         or move it to a file system that supports it"
    )]
    Direct {
        /// The image's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Direct I/O can't be done in blocks as small as the guest's.
    #[error(
        "direct I/O on disk image {path} takes blocks of {needed} bytes, but the guest's have \
         {logical}: open it without direct I/O, or, if its contents were made for such blocks, set \
         its logical_block_size to {needed}"
    )]
    DirectBlocks {
        /// The image's path.
        path: PathBuf,
        /// What the kernel demands, in bytes.
        needed: u32,
        /// The logical block size in bytes.
        logical: u32,
    },
    /// The logical block size asked for can't be had.
    #[error(
        "disk image {path} can't have logical blocks of {logical} bytes: set its logical_block_size \
         to a power of two from {storage}, which its storage has, to 65536"
    )]
    LogicalBlockSize {
        /// The image's path.
        path: PathBuf,
        /// The size asked for, in bytes.
        logical: u32,
        /// The size the storage has, in bytes.
        storage: u32,
    },
    /// The image holds not even one logical block.
    #[error(
        "disk image {path} has {size} bytes, and a disk has at least one block of {block}: give it \
         a size, as with `truncate -s`"
    )]
    TooSmall {
        /// The image's path.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The logical block size in bytes.
        block: u32,
    },
    /// The image's size or block size can't be asked for.
    #[error("the size of disk image {path} can't be read: check its storage")]
    Size {
        /// The image's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image can't be opened once more for a queue, which [`RawOptions::spares`](crate::RawOptions::spares)
    /// asks for.
    #[error(
        "disk image {path} can't be opened once more, as each queue needs it to get write errors: check that \
         /proc is mounted, and the limit of open files"
    )]
    Spare {
        /// The image's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image isn't of its format, uses what can't be served of it, or is damaged.
    #[error(
        "disk image {path} can't be opened as {format}: look at it with `qemu-img info` and \
         `qemu-img check`"
    )]
    Format {
        /// The image's path.
        path: PathBuf,
        /// The format it was said to have.
        format: ImageFormat,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Images of this format are only read.
    #[error(
        "disk image {path} can't be written: {format} images can only be read; configure the disk \
         as read-only, or convert it with `qemu-img convert`"
    )]
    ReadOnlyFormat {
        /// The image's path.
        path: PathBuf,
        /// Its format.
        format: ImageFormat,
    },
    /// The opener is not made for this format.
    #[error("disk image {path} can't be opened: {format} images can't be served here; {advice}")]
    FormatMissing {
        /// The image's path.
        path: PathBuf,
        /// Its format.
        format: ImageFormat,
        /// What to do.
        advice: &'static str,
    },
    /// The image says on which file it builds, but not what that is.
    #[error(
        "disk image {path} doesn't state the format of its backing file {backing}, which is not \
         guessed: state it, with `qemu-img rebase -u -b {backing} -F FORMAT`"
    )]
    BackingFormat {
        /// The image's path.
        path: PathBuf,
        /// Its backing file, as it names it.
        backing: String,
    },
    /// A file that the image builds on can't be opened.
    #[error("the backing file of disk image {path} can't be opened")]
    Layer {
        /// The image's path.
        path: PathBuf,
        /// What is wrong with the other.
        source: Box<OpenError>,
    },
    /// The image builds on more files than anybody has, or on itself.
    #[error(
        "disk image {path} is the last of a chain of {limit} backing files, and no more are opened: \
         merge some with `qemu-img commit`"
    )]
    Chain {
        /// The path of the image that was one too many.
        path: PathBuf,
        /// How many there may be.
        limit: usize,
    },
}
