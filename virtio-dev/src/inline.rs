//! A device whose queues are served by whoever answers its registers.

use vm_memory::GuestAddressSpace;

use crate::{
    Chain, Ignored, Interrupt, LiveQueue, Progress, QueueConfig, Queues, Stop, Transport,
    VirtioDevice as _, WriteOutcome, process_queue_while,
};

/// A device whose requests are answered on the thread that answers its registers: a transport and its
/// live queues. Each request is answered at once (an entropy source, a clock, a bus), or left in its
/// queue until the host has what it needs (the input of a console).
///
/// A device whose requests take long, as a disk's do, implements [`Queues`] instead and gives
/// each queue to a worker: no vCPU should wait for the request of another.
///
/// Over virtio-mmio, for a `transport` that was just built and a `register` at an offset:
/// ```text
/// let mut device = InlineDevice::new(transport, memory, memory);
/// // As traps bring them:
/// device.write(offset, &data);
/// // When the trap is answered; and again while it says so, between other things:
/// let more = device.process(|_device, _queue, chain| Some(chain.copy_to(0, &[0; 4]).map_or(0, |_| 4)));
/// ```
pub struct InlineDevice<T, R: GuestAddressSpace, Q: GuestAddressSpace> {
    transport: T,
    queues: InlineQueues<R, Q>,
}

struct InlineQueues<R: GuestAddressSpace, Q: GuestAddressSpace> {
    rings: R,
    requests: Q,
    queues: Vec<InlineQueue<R, Q>>,
}

struct InlineQueue<R: GuestAddressSpace, Q: GuestAddressSpace> {
    live: Option<LiveQueue<R, Q>>,
    /// What is known of its chains.
    progress: Progress,
}

impl<D, R: GuestAddressSpace, Q: GuestAddressSpace> Queues<D> for InlineQueues<R, Q> {
    fn start(&mut self, _device: &D, config: &QueueConfig, interrupt: Interrupt) {
        if let Some(queue) = self.queues.get_mut(usize::from(config.index)) {
            let requests = self.requests.clone();
            // Failing, it has set `DEVICE_NEEDS_RESET`: the rings are not there.
            queue.live = LiveQueue::new(config, &self.rings, requests, interrupt).ok();
            // The driver may have notified it before.
            queue.progress = Progress::More;
        }
    }

    fn notify(&mut self, queue: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(queue)) {
            queue.progress = Progress::More;
        }
    }

    fn stop(&mut self, queue: u16) -> Stop {
        if let Some(queue) = self.queues.get_mut(usize::from(queue)) {
            queue.live = None;
            queue.progress = Progress::Idle;
        }
        Stop::Done
    }
}

impl<T: Transport, R: GuestAddressSpace, Q: GuestAddressSpace> InlineDevice<T, R, Q> {
    /// A device behind `transport`, whose rings and whose requests' buffers are in these memories.
    pub fn new(mut transport: T, rings: R, requests: Q) -> Self {
        let none = || InlineQueue { live: None, progress: Progress::Idle };
        let queues =
            transport.control().device().queue_max_sizes().iter().map(|_| none()).collect();
        let mut queues = InlineQueues { rings, requests, queues };
        // It may be a restored one.
        transport.resume(&mut queues);
        Self { transport, queues }
    }

    /// Answers a read, see [`Transport::read`].
    pub fn read(&mut self, address: T::Address, data: &mut [u8]) {
        self.transport.read(address, data);
    }

    /// Takes a write, see [`Transport::write`]. When this returns it may be answered: queues that
    /// the driver took back have let go of their rings. `Some` says why the write changed nothing.
    pub fn write(&mut self, address: T::Address, data: &[u8]) -> Option<Ignored> {
        match self.transport.write(address, data, &mut self.queues) {
            WriteOutcome::Notify(queue) => Queues::<T::Device>::notify(&mut self.queues, queue),
            WriteOutcome::Ignored(why) => return Some(why),
            // No queue drains: each request was answered when it was taken.
            WriteOutcome::Done | WriteOutcome::Pending(_) => {}
        }
        None
    }

    /// Serves what the driver has made available in the queues it has notified: `serve` is given the
    /// device, the queue's index and a chain, and gives the number of bytes it wrote. With `None` the
    /// chain stays the next one of its queue, which is [blocked](Self::blocked) then.
    ///
    /// True if it stopped with more to do, see [`process_queue`](crate::process_queue): call it again,
    /// after a look at whatever else there is to do.
    pub fn process(
        &mut self,
        mut serve: impl FnMut(&mut T::Device, u16, &Chain<Q>) -> Option<u32>,
    ) -> bool {
        let device = self.transport.device_mut();
        let mut more = false;
        for (index, queue) in (0..).zip(&mut self.queues.queues) {
            if let (Some(live), Progress::More) = (&mut queue.live, queue.progress) {
                queue.progress = process_queue_while(live, |chain| serve(device, index, chain));
                more |= queue.progress == Progress::More;
            }
        }
        more
    }

    /// The queues whose next chain could not be answered yet. Each is served again after
    /// [`resume`](Self::resume), or when the driver notifies it.
    pub fn blocked(&self) -> impl Iterator<Item = u16> {
        let queues = (0..).zip(&self.queues.queues);
        queues.filter(|(_, queue)| queue.progress == Progress::Blocked).map(|(index, _)| index)
    }

    /// What a [blocked](Self::blocked) queue waits for may be there: the next
    /// [`process`](Self::process) serves it.
    pub fn resume(&mut self, queue: u16) {
        if let Some(queue) = self.queues.queues.get_mut(usize::from(queue))
            && queue.progress == Progress::Blocked
        {
            queue.progress = Progress::More;
        }
    }

    /// The transport.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The device. After a change of its configuration call [`config_changed`](Self::config_changed).
    pub fn device_mut(&mut self) -> &mut T::Device {
        self.transport.device_mut()
    }

    /// The device changed its configuration space, see [`ControlPlane::config_changed`](crate::ControlPlane::config_changed).
    pub fn config_changed(&mut self) {
        self.transport.control().config_changed();
    }
}
