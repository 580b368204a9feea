/// The options for opening a [`RawImage`](crate::RawImage).
///
/// ```no_run
/// use virtio_blk_dev::RawOptions;
///
/// let image = RawOptions::new().direct(true).open("/dev/vg0/guest")?;
/// # Ok::<(), virtio_blk_dev::OpenError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawOptions {
    pub(super) read_only: bool,
    pub(super) direct: bool,
    pub(super) logical_block_size: Option<u32>,
    pub(super) spares: u16,
}

impl RawOptions {
    /// The default: writable, through the host's page cache, with the storage's logical block size, which
    /// is 512 bytes for a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Open for reading only. An image can have any number of readers.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Bypass the host's page cache (`O_DIRECT`, open(2)). Data that isn't aligned as the kernel demands is
    /// copied through a buffer.
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// Set the logical block size that the image's contents were made for. Partition tables depend on it.
    pub fn logical_block_size(mut self, bytes: u32) -> Self {
        self.logical_block_size = Some(bytes);
        self
    }

    /// Open a writable image so many further times, for engines in a process that can't open files. Linux
    /// reports a write-back error once for each open file description, so each queue needs its own:
    /// [`SyncEngine::DESCRIPTIONS`](crate::SyncEngine::DESCRIPTIONS) or
    /// [`UringEngine::DESCRIPTIONS`](crate::UringEngine::DESCRIPTIONS) of them. Without spares an engine opens
    /// the image again by /proc. Where that fails, queues share a description, and only the first of them
    /// that flushes gets an error.
    pub fn spares(mut self, descriptions: u16) -> Self {
        self.spares = descriptions;
        self
    }
}
