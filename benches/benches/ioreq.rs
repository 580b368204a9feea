//! What a guest's access to a register costs us, through an IOREQ server of the fake hypervisor, on one
//! thread: the request's way out and back, without the traps and switches of a real one.

use std::{cell::RefCell, hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use virtio_blk_dev::{BlockConfig, BlockDevice};
use virtio_dev::fake::NoQueues;
use virtio_mmio_dev::{MmioTransport, Register, WINDOW_SIZE};
use xen_ioreq::{
    DeviceModel, IoreqServer, RequestKind,
    fake::{FakeDomain, FakeVcpu},
};
use xen_virtio_benches::{Driver, QueueLayout, RAM};

const BASE: u64 = 0x0200_0000;
const IRQ: u32 = 33;

/// A guest and the registers of its disk.
struct Machine {
    vcpu: FakeVcpu,
    server: RefCell<Server>,
    transport: RefCell<MmioTransport<BlockDevice>>,
}

type Server = IoreqServer<
    xen_ioreq::fake::FakeDeviceModel,
    xen_foreignmem::fake::FakeForeignMemory,
    xen_evtchn::fake::FakeEvtchn,
>;

impl Machine {
    fn new() -> Self {
        let guest = FakeDomain::default();
        let model = guest.device_model();
        let line = Arc::clone(&model);
        let device = BlockDevice::new(1 << 20, &BlockConfig::default()).expect("a device");
        let transport = MmioTransport::new(device, move || {
            let _ = line.set_irq_level(IRQ, true);
        });
        let mut server =
            IoreqServer::create(model, guest.foreign_memory(), guest.event_channel().unwrap())
                .expect("a server");
        server.map_range(BASE..=BASE + (WINDOW_SIZE - 1)).expect("a range");
        server.enable().expect("event channels");
        let machine = Self {
            vcpu: guest.vcpu(0),
            server: RefCell::new(server),
            transport: RefCell::new(transport.expect("a transport")),
        };
        for (register, value) in Driver::handshake(&QueueLayout::new(32, 4096), RAM) {
            machine.write(register, value);
        }
        assert_eq!(machine.read(Register::Status), 15, "the device is live");
        machine
    }

    fn read(&self, register: Register) -> u64 {
        let address = BASE + register.offset();
        self.vcpu.read_with(address, 4, || self.serve()).expect("an answer")
    }

    fn write(&self, register: Register, value: u32) {
        let address = BASE + register.offset();
        self.vcpu.write_with(address, 4, value.into(), || self.serve()).expect("an answer");
    }

    fn serve(&self) {
        let mut server = self.server.borrow_mut();
        let mut transport = self.transport.borrow_mut();
        while let Some(request) = server.next_request().expect("the guest is there") {
            match request.kind() {
                RequestKind::Read { addr, size } => {
                    let mut data = [0; 8];
                    transport.read(addr - BASE, &mut data[..usize::from(size)]);
                    request.complete_read(u64::from_le_bytes(data));
                }
                RequestKind::Write { addr, size, data } => {
                    let data = &data.to_le_bytes()[..usize::from(size)];
                    let _ = black_box(transport.write(addr - BASE, data, &mut NoQueues));
                    request.complete();
                }
                _ => request.complete(),
            }
        }
    }
}

fn registers(c: &mut Criterion) {
    let machine = Machine::new();
    c.bench_function("ioreq/register_read", |b| b.iter(|| machine.read(Register::InterruptStatus)));
    c.bench_function("ioreq/register_write", |b| {
        b.iter(|| machine.write(Register::InterruptAck, 1))
    });
    c.bench_function("queue/notify", |b| b.iter(|| machine.write(Register::QueueNotify, 0)));
    // The same without Xen's part: what the registers themselves cost.
    let mut transport = machine.transport.borrow_mut();
    c.bench_function("register/read", |b| {
        b.iter(|| {
            let mut data = [0; 4];
            transport.read(black_box(Register::InterruptStatus.offset()), &mut data);
            data
        });
    });
    c.bench_function("register/notify", |b| {
        let offset = Register::QueueNotify.offset();
        b.iter(|| transport.write(black_box(offset), &[0; 4], &mut NoQueues));
    });
}

criterion_group!(benches, registers);
criterion_main!(benches);
