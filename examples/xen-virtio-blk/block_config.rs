//! What a disk's registers say, as its nodes and settings have it.

use virtio_blk_dev::{BlockConfig, Limits, Serial};

use xen_virtio_backend::{Refusal, node::DeviceNode};

use crate::{
    nodes::DiskNodes,
    settings::{Cache, DiskSettings},
    storage::Storage,
};

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
    if !(nodes.discard && settings.discard) {
        config.limits = Limits { discard: None, write_zeroes: None, ..config.limits };
    }
    Ok(config)
}
