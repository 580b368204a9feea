use super::Engine;

/// A proof that an engine [completes in order](Engine::completes_in_order), which a device needs to
/// offer `VIRTIO_F_IN_ORDER`.
///
/// ```
/// use virtio_blk_dev::{BlockConfig, InOrder, RawImage, SyncEngine};
///
/// # let file = tempfile::NamedTempFile::new()?;
/// # file.as_file().set_len(1 << 20)?;
/// let image = std::sync::Arc::new(RawImage::open(file.path(), false)?);
/// let engine = SyncEngine::new(std::sync::Arc::clone(&image));
/// let config = BlockConfig { in_order: InOrder::of(&engine), ..BlockConfig::for_image(&*image) };
/// assert!(config.in_order.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InOrder(());

impl InOrder {
    /// What is offered is tested without an engine.
    #[cfg(test)]
    pub(crate) const KEPT: Self = Self(());

    /// `None` if `engine` doesn't.
    pub fn of(engine: &(impl Engine + ?Sized)) -> Option<Self> {
        engine.completes_in_order().then_some(Self(()))
    }
}
