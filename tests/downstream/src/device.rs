//! A device that is served.

use std::ops::Range;

use virtio_dev::{Queues, Transport, WriteOutcome};
use xen_virtio_backend::{Device, DeviceTransport, Host, Parts, Refusal, RegisterAddress};

use crate::{digest::Digest, queues::DigestQueues};

/// One device of one guest: its registers and its queues.
pub struct DigestDevice<H: Host> {
    transport: DeviceTransport<Digest>,
    queues: DigestQueues<H>,
}

impl<H: Host> DigestDevice<H> {
    pub(crate) fn new(seed: u64, parts: Parts<H>) -> Result<Self, Refusal> {
        let Parts { memory, transport, filters, .. } = parts;
        let transport = transport.build(Digest::new(seed), || ())?;
        let queues = DigestQueues::new(memory, filters).map_err(Refusal::new)?;
        Ok(Self { transport, queues })
    }
}

impl<H: Host> Device for DigestDevice<H> {
    type Figures = u64;
    type Order = ();

    fn read(&mut self, register: RegisterAddress, data: &mut [u8]) {
        self.transport.read(register, data);
    }

    fn write(&mut self, register: RegisterAddress, data: &[u8]) -> WriteOutcome {
        self.transport.write(register, data, &mut self.queues)
    }

    fn bar(&self) -> Option<Range<u64>> {
        self.transport.bar()
    }

    fn kick(&mut self, queue: u16) {
        self.queues.notify(queue);
    }

    fn figures(&self) -> u64 {
        self.queues.answered()
    }
}
