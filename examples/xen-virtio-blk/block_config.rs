//! What a disk's registers say, as its nodes and settings have it.

use virtio_blk_dev::{BlockConfig, Limits, Serial};

use xen_virtio_backend::{
    Refusal,
    node::{DeviceNode, Sharing},
};

use crate::{
    nodes::DiskNodes,
    settings::{Cache, DiskSettings},
    storage::Storage,
};

/// The most entries that a queue gets for requests without tables of their buffers, unless more were asked for:
/// some 27 KiB, of pages that the guest has to find side by side.
const ENTRIES: u16 = 1024;

/// What the registers are to say.
pub(crate) fn block_config(
    node: &DeviceNode,
    nodes: &DiskNodes,
    settings: &DiskSettings,
    storage: &Storage,
) -> Result<BlockConfig, Refusal> {
    let by_number = || Serial::new(&node.id.devid.to_string()).map_err(Refusal::new);
    let mut config = BlockConfig {
        read_only: nodes.read_only,
        serial: settings.serial.map_or_else(by_number, Ok)?,
        num_queues: settings.queues,
        queue_size: settings.queue_size,
        write_back: settings.cache == Cache::Writeback,
        ..BlockConfig::for_image(storage.image())
    };
    if node.sharing == Sharing::Grant {
        // A table of a request's buffers would be one more page for the guest to grant, and to be copied from it:
        // some 7000 instructions a request. Without one a request takes an entry for each of its buffers.
        config.indirect = false;
        config.seg_max = Some(u32::from(settings.queue_size.saturating_sub(2)));
        let entries = settings.queue_size.saturating_mul(4).min(ENTRIES);
        config.queue_size = entries.max(settings.queue_size);
    }
    if !(nodes.discard && settings.discard) {
        config.limits = Limits { discard: None, write_zeroes: None, ..config.limits };
    }
    Ok(config)
}
