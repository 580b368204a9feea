//! Our device in the client's own thread: no other thread, no notification.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use virtio_blk_dev::{BlockConfig, BlockDevice, RawImage, SyncEngine, Worker};
use virtio_dev::fake::NoQueues;
use virtio_dev::{LiveQueue, WriteOutcome};
use virtio_mmio_dev::MmioTransport;
use vm_memory::GuestMemoryMmap;
use xen_virtio_benches::{Driver, QueueLayout, RAM};

use crate::client::Port;
use crate::session::SharedMemory;

type Memory<'m> = &'m GuestMemoryMmap<()>;

/// The device, which runs whenever the client has nothing else to do.
pub(crate) struct InProcess<'m> {
    worker: Worker<Memory<'m>, Memory<'m>, SyncEngine<RawImage>>,
    _transport: MmioTransport<BlockDevice>,
}

impl<'m> InProcess<'m> {
    pub(crate) fn new(
        path: &Path,
        image_len: u64,
        memory: &'m SharedMemory,
        layout: &QueueLayout,
    ) -> Result<Self> {
        let image = RawImage::open(path, false).context("opening the image")?;
        let config = BlockConfig { queue_size: layout.queue_size(), ..BlockConfig::default() };
        let device = BlockDevice::new(image_len, &config).context("making a device")?;
        let mut transport = MmioTransport::new(device, || {}).context("making a transport")?;
        for (register, value) in Driver::handshake(layout, RAM) {
            let (offset, data) = (register.offset(), value.to_le_bytes());
            let outcome = transport.write(offset, &data, &mut NoQueues);
            ensure!(
                outcome == WriteOutcome::Done,
                "the device doesn't take {register:?}: {outcome:?}"
            );
        }
        let config = transport.queue(0).context("the queue isn't ready")?;
        let memory = memory.memory();
        let queue = LiveQueue::new(&config, &memory, memory, transport.interrupt(0))
            .context("taking the queue into service")?;
        let params = transport.device().params();
        let worker = Worker::new(queue, SyncEngine::new(Arc::new(image)), &params);
        Ok(Self { worker, _transport: transport })
    }
}

impl Port for InProcess<'_> {
    #[inline]
    fn kick(&mut self, _queue: usize) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn pause(&mut self) {
        self.worker.run();
    }

    fn sleep(&mut self) -> Result<bool> {
        self.worker.run();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Cell, Client, Op};
    use crate::client;
    use crate::cpu::{Meter, Side};
    use crate::image::Image;
    use crate::verify::verify;
    use std::time::Duration;

    const IMAGE_LEN: u64 = 1 << 20;
    const LAYOUT: QueueLayout = QueueLayout::new(8, 8192);

    #[test]
    fn every_load_runs_and_what_is_written_is_read_back() {
        let image = Image::create(&std::env::temp_dir(), IMAGE_LEN).unwrap();
        let memory = SharedMemory::new(LAYOUT, 1).unwrap();
        let mut drivers = memory.drivers().unwrap();
        let mut device = InProcess::new(image.path(), IMAGE_LEN, &memory, &LAYOUT).unwrap();
        verify(&mut device, &mut drivers, image.file(), IMAGE_LEN).unwrap();
        let client = Side::this_thread(0);
        let meter = Meter { client, device: None };
        for op in [Op::Read, Op::Write, Op::Mix, Op::WriteFlush] {
            for (bytes, depth, client) in [(4096, 8, Client::Spins), (8192, 3, Client::Sleeps)] {
                let cell = Cell { op, bytes, depth, queues: 1, client };
                let (requests, time) = (cell.requests(IMAGE_LEN, 1), Duration::from_millis(5));
                let window =
                    client::run(&mut device, &mut drivers, &cell, requests, time, &meter).unwrap();
                assert!(window.elapsed >= time, "{cell}");
                assert_eq!(window.in_flight, depth);
                assert!(drivers.iter().all(|driver| driver.in_flight() == 0), "{cell}");
            }
        }
        verify(&mut device, &mut drivers, image.file(), IMAGE_LEN).unwrap();
    }

    #[test]
    fn a_disk_that_forgets_is_found_out() {
        let image = Image::create(&std::env::temp_dir(), IMAGE_LEN).unwrap();
        let other = Image::create(&std::env::temp_dir(), IMAGE_LEN).unwrap();
        let memory = SharedMemory::new(LAYOUT, 1).unwrap();
        let mut drivers = memory.drivers().unwrap();
        let mut device = InProcess::new(image.path(), IMAGE_LEN, &memory, &LAYOUT).unwrap();
        let error = verify(&mut device, &mut drivers, other.file(), IMAGE_LEN).unwrap_err();
        assert!(error.to_string().contains("is not in the image"), "{error}");
    }
}
