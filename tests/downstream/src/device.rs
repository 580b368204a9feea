//! A device that is served.

use tracing::debug;
use virtio_dev::{Queues, WriteOutcome};
use virtio_mmio_dev::MmioTransport;
use xen_virtio_backend::{
    Device, Host, Parts, Refusal,
    node::{DeviceNode, Sharing},
};

use crate::{digest::Digest, queues::DigestQueues};

/// One device of one guest: its registers and its queues.
pub struct DigestDevice<H: Host> {
    transport: MmioTransport<Digest>,
    queues: DigestQueues<H>,
}

impl<H: Host> DigestDevice<H> {
    pub(crate) fn new(node: &DeviceNode, seed: u64, parts: Parts<H>) -> Result<Self, Refusal> {
        let Parts { memory, interrupt, filters, .. } = parts;
        let line = move || {
            if let Err(error) = interrupt.raise() {
                // Happens once, while the guest is being destroyed.
                debug!(irq = interrupt.irq(), %error, "the interrupt can't be raised");
            }
        };
        let grants = node.sharing == Sharing::Grant;
        let transport = MmioTransport::builder(Digest::new(seed), line).access_platform(grants);
        let transport = transport.build().map_err(Refusal::new)?;
        let queues = DigestQueues::new(memory, filters).map_err(Refusal::new)?;
        Ok(Self { transport, queues })
    }
}

impl<H: Host> Device for DigestDevice<H> {
    type Figures = u64;
    type Order = ();

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.transport.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> WriteOutcome {
        self.transport.write(offset, data, &mut self.queues)
    }

    fn kick(&mut self, queue: u16) {
        self.queues.notify(queue);
    }

    fn figures(&self) -> u64 {
        self.queues.answered()
    }
}
