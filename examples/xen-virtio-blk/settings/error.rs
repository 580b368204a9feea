//! What can be wrong with the settings.

use std::{io, path::PathBuf};

use virtio_blk_dev::{ImageFormat, UringError};
use virtio_worker::Cpu;

/// Why the settings are none.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file isn't there.
    #[error("the configuration file {} can't be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key or value is wrong.
    #[error("the configuration file {} is wrong", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A setting stands outside of the tables.
    #[error(
        "the configuration file {}: {key} stands outside of a table: write what holds for one disk below its \
         image's path, as in [\"/images/db.img\"], and what holds for all disks on the command line",
        path.display()
    )]
    NoTable {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: String,
    },
    /// A format that this program was built without.
    #[error(
        "the configuration file's table [{image:?}] has format = \"{format}\", which this xen-virtio-blk can't \
         serve: build it with `--features imago`, or convert the image with `qemu-img convert -O raw`"
    )]
    Format {
        /// The image.
        image: PathBuf,
        /// Its format.
        format: ImageFormat,
    },
    /// A table's name is no image's.
    #[error(
        "{}: table [{image:?}] should be named by the absolute path of an image, as xl.cfg has it",
        path.display()
    )]
    Relative {
        /// The file.
        path: PathBuf,
        /// The table.
        image: PathBuf,
    },
    /// Direct I/O on an image that isn't raw.
    #[error("{}: direct I/O is for raw images, this one is {format}: set direct = false for it", image.display())]
    Direct {
        /// The image.
        image: PathBuf,
        /// Its format.
        format: ImageFormat,
    },
    /// A logical block size for an image that isn't raw.
    #[error(
        "{}: a logical_block_size can be set for raw images, this one is {format}: leave it out",
        image.display()
    )]
    LogicalBlockSize {
        /// The image.
        image: PathBuf,
        /// Its format.
        format: ImageFormat,
    },
    /// io_uring was asked for.
    #[error(
        "the engine io_uring, which is asked for, can't be used: make it usable, or choose the engine sync"
    )]
    Uring(#[from] UringError),
    /// A thread could never run there.
    #[error("CPU {0} is not one that this process may run on: `taskset -cp $$` shows which are")]
    Cpu(Cpu),
}
