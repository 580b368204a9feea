//! A machine with one disk on its PCI bus.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Mutex},
};

use virtio_blk_dev::{BlockConfig, BlockDevice, Image, SyncEngine, Worker, fake::FakeImage};
use virtio_dev::{Interrupt, IrqLine, LiveQueue, QueueConfig, Queues, Stop, WriteOutcome};
use virtio_drivers::transport::pci::bus::{
    Command, ConfigurationAccess, DeviceFunction, MemoryBarType, PciRoot,
};
use virtio_pci_dev::PciTransport;

use super::memory::{Ram, new_guest};

/// Where the BAR is placed.
pub(crate) const BAR: u32 = 0x2300_0000;
/// Where messages go.
pub(crate) const DOORBELL: u64 = 0x0220_0040;
/// The slot of the disk.
pub(crate) const SLOT: DeviceFunction = DeviceFunction { bus: 0, device: 3, function: 0 };
/// Sectors of the disk.
pub(crate) const SECTORS: usize = 64;

type DiskWorker = Worker<Arc<Ram>, Arc<Ram>, SyncEngine<FakeImage>>;

/// The disk's queue, served where the registers are answered.
struct DiskQueue {
    ram: Arc<Ram>,
    image: Arc<FakeImage>,
    worker: Option<DiskWorker>,
}

impl Queues<BlockDevice> for DiskQueue {
    fn start(&mut self, device: &BlockDevice, config: &QueueConfig, interrupt: Interrupt) {
        let queue = LiveQueue::new(config, &self.ram, Arc::clone(&self.ram), interrupt).unwrap();
        let engine = SyncEngine::new(Arc::clone(&self.image));
        self.worker = Some(Worker::new(queue, engine, &device.params()));
        Queues::<BlockDevice>::notify(self, config.index);
    }
    fn notify(&mut self, _: u16) {
        if let Some(worker) = &mut self.worker {
            while worker.run().more {}
        }
    }
    fn stop(&mut self, _: u16) -> Stop {
        self.worker = None;
        Stop::Done
    }
}

/// The bus, as whoever traps its accesses sees it. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Machine {
    function: Rc<RefCell<(PciTransport<BlockDevice>, DiskQueue)>>,
    pub(crate) image: Arc<FakeImage>,
    /// Data of the messages that the interrupt controller got.
    messages: Arc<Mutex<Vec<u32>>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let ram = new_guest();
        let contents = (0..SECTORS).flat_map(sector_pattern).collect();
        let image = Arc::new(FakeImage::new(contents, false));
        let config = BlockConfig::for_image(&image);
        let device = BlockDevice::new(image.capacity(), &config).unwrap();
        let messages = Arc::<Mutex<Vec<u32>>>::default();
        let its = Arc::clone(&messages);
        let lines = move |address, data| {
            let messages = Arc::clone(&its);
            let line = move || messages.lock().unwrap().push(data);
            (address == DOORBELL).then(|| Arc::new(line) as Arc<dyn IrqLine>)
        };
        let transport = PciTransport::new(device, lines).unwrap();
        let queue = DiskQueue { ram, image: Arc::clone(&image), worker: None };
        Self { function: Rc::new(RefCell::new((transport, queue))), image, messages }
    }

    /// Data of the messages since the last call.
    pub(crate) fn messages(&self) -> Vec<u32> {
        std::mem::take(&mut self.messages.lock().unwrap())
    }

    /// Places the BAR and enables the function, as a firmware or a kernel does, by the driver's code.
    pub(crate) fn place(&self) -> PciRoot<Self> {
        let mut root = PciRoot::new(self.clone());
        let found: Vec<_> = root.enumerate_bus(0).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, SLOT);
        let bars = root.bars(SLOT).unwrap();
        let bar = bars[0].clone().expect("a BAR");
        let (address, size) = bar.memory_address_size().expect("of memory");
        assert_eq!((address, size), (0, 0x4000));
        assert!(matches!(
            bar,
            virtio_drivers::transport::pci::bus::BarInfo::Memory {
                address_type: MemoryBarType::Width32,
                prefetchable: false,
                ..
            }
        ));
        assert!(bars[1..].iter().all(Option::is_none));
        root.set_bar_32(SLOT, 0, BAR);
        root.set_command(SLOT, Command::MEMORY_SPACE | Command::BUS_MASTER);
        root
    }

    /// Takes the BAR's address back, and disables the function and its messages.
    pub(crate) fn place_nothing(&self) {
        let mut machine = self.clone();
        for (offset, data) in [(0x04, 0), (0x10, 0), (0x40, 0)] {
            machine.write_word(SLOT, offset, data);
        }
    }

    /// A load of the guest's, at an address of the bus.
    pub(crate) fn load<const N: usize>(&self, address: u64) -> [u8; N] {
        let (transport, _) = &mut *self.function.borrow_mut();
        let bar = transport.bar().filter(|bar| bar.contains(&address)).expect("a device");
        let mut data = [0xaa; N];
        transport.bar_read(address - bar.start, &mut data);
        data
    }

    /// A store of the guest's.
    pub(crate) fn store(&self, address: u64, data: &[u8]) {
        let (transport, queue) = &mut *self.function.borrow_mut();
        let bar = transport.bar().filter(|bar| bar.contains(&address)).expect("a device");
        match transport.bar_write(address - bar.start, data, queue) {
            WriteOutcome::Done => {}
            WriteOutcome::Notify(index) => Queues::<BlockDevice>::notify(queue, index),
            other => panic!("{other:?} of {data:x?} at {address:#x}"),
        }
    }
}

impl ConfigurationAccess for Machine {
    fn read_word(&self, slot: DeviceFunction, offset: u8) -> u32 {
        if slot != SLOT {
            return u32::MAX;
        }
        let mut data = [0; 4];
        self.function.borrow_mut().0.config_read(offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    fn write_word(&mut self, slot: DeviceFunction, offset: u8, data: u32) {
        assert_eq!(slot, SLOT);
        let (transport, queue) = &mut *self.function.borrow_mut();
        let outcome = transport.config_write(offset.into(), &data.to_le_bytes(), queue);
        assert_eq!(outcome, WriteOutcome::Done);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}

/// What is in a sector at first.
pub(crate) fn sector_pattern(number: usize) -> [u8; 512] {
    std::array::from_fn(|at| (at * 7 + number * 13) as u8)
}
