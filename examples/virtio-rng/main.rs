//! An entropy device (virtio 1.2 §5.4) for one guest on Xen: the worked example of the guide
//! `docs/write-your-own-backend.md`, which walks through it from top to bottom.
//!
//! `virtio-rng`, started in dom0, waits for a guest with this line in its `xl.cfg`, and ends when the guest goes:
//!
//! ```text
//! virtio = [ "backend=0,type=virtio,device4,transport=mmio,grant_usage=0" ]
//! ```

use std::sync::Arc;

use anyhow::Result;
use backend_process::{output, signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_mmio_dev::vm_memory::GuestAddressSpace;
use virtio_mmio_dev::{Chain, InlineDevice, MmioTransport, VirtioDevice, WINDOW_SIZE};
use xen_evtchn::{EventChannel, Evtchn};
use xen_foreignmem::{DomainMemory, ForeignMemory, Gntdev, GrantTable, Layout, Privcmd};
use xen_ioreq::{DeviceModel, DomId, IoreqServer, RequestKind, XenDeviceModel};
use xen_store::{Store, StoreExt, XenStore, XenbusState};

/// What the guest reads of the device: its type, one queue, no features of its own, no configuration.
struct Entropy;

impl VirtioDevice for Entropy {
    fn device_type(&self) -> u32 {
        4
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[16]
    }
    fn features(&self) -> u64 {
        0
    }
    fn config(&self) -> &[u8] {
        &[]
    }
}

/// Answers one request, which is nothing but room; gives how much of it was filled. It may be less than there
/// is (§5.4.6.1), and the host's generator gives up to 256 bytes at once.
fn fill<M: GuestAddressSpace>(request: &Chain<M>, bytes: &mut u64) -> u32 {
    let mut random = [0; 256];
    let ready = getrandom(&mut random, GetRandomFlags::empty()).unwrap_or(0);
    let filled = request.copy_to(0, &random[..ready]).unwrap_or(0) as u32;
    *bytes += u64::from(filled);
    filled
}

/// The device as the toolstack describes it in xenstore.
pub(crate) struct Nodes {
    pub(crate) dir: String,
    domid: DomId,
    base: u64,
    irq: u32,
    grants: bool,
}

/// Waits for an entropy device that no backend has taken yet.
pub(crate) fn find(store: &dyn Store) -> Result<Nodes> {
    // Relative: below this domain's own directory, /local/domain/0.
    let devices = "backend/virtio";
    store.watch(devices, "devices")?;
    loop {
        while store.next_event()?.is_some() {}
        for domid in store.children(None, devices)? {
            for devid in store.children(None, &format!("{devices}/{domid}"))? {
                let dir = format!("{devices}/{domid}/{devid}");
                let kind = store.lookup(None, &format!("{dir}/type"))?;
                let new = store.xenbus_state(None, &dir)? == Some(XenbusState::Initialising);
                if new && kind.as_deref() == Some("virtio,device4") {
                    let number = |node| store.read_number(None, &format!("{dir}/{node}"));
                    let (base, irq) = (number("base")?, number("irq")?.try_into()?);
                    let grants = number("grant_usage")? != 0;
                    store.unwatch(devices, "devices")?;
                    return Ok(Nodes { domid: domid.parse()?, dir, base, irq, grants });
                }
            }
        }
        sleep(&[store.as_fd()])?;
    }
}

/// Serves the device until its guest goes; gives how many bytes the guest got.
pub(crate) fn serve<M: DeviceModel, F: ForeignMemory, G: GrantTable, E: EventChannel>(
    store: &dyn Store,
    nodes: &Nodes,
    (model, foreign, grants, events): (Arc<M>, Arc<F>, Arc<G>, Arc<E>),
) -> Result<u64> {
    // First in, last out: whoever still waits for an answer gets one when all else has ended.
    let mut server = IoreqServer::create(Arc::clone(&model), Arc::clone(&foreign), events)?;
    let memory = match nodes.grants {
        false => DomainMemory::new(Some(foreign), None, Layout::arm()),
        true => DomainMemory::new(None, Some(grants), Layout::arm()),
    };
    let (line, irq) = (Arc::clone(&model), nodes.irq);
    let transport = MmioTransport::builder(Entropy, move || {
        // Refused only while the guest is being destroyed.
        let _ = line.set_irq_level(irq, true);
    })
    .access_platform(nodes.grants)
    .build()?;
    let mut device = Some(InlineDevice::new(transport, memory.rings(), memory.requests()));

    // The guest may run as soon as the state says InitWait: its window answers from here on.
    server.map_range(nodes.base..=nodes.base + (WINDOW_SIZE - 1))?;
    server.enable()?;
    store.watch(&nodes.dir, "device")?;
    store.watch("@releaseDomain", "guest")?;
    store.change_xenbus_state(&nodes.dir, XenbusState::Initialising, XenbusState::InitWait)?;

    let (liveness, mut bytes) = (server.liveness(), 0);
    loop {
        // One trap a turn: a guest that never stops asking keeps us from nothing else.
        let mut busy = false;
        if let Some(request) = server.next_request()? {
            busy = true;
            match (request.kind(), &mut device) {
                // An address before the window is, wrapped, one far behind it: nothing is there.
                (RequestKind::Read { addr, size }, Some(device)) => {
                    let mut data = [0; 8];
                    device.read(addr.wrapping_sub(nodes.base), &mut data[..size.into()]);
                    request.complete_read(u64::from_le_bytes(data));
                }
                (RequestKind::Write { addr, size, data }, Some(device)) => {
                    let data = &data.to_le_bytes()[..size.into()];
                    device.write(addr.wrapping_sub(nodes.base), data);
                }
                // Dropped in this order: answered, and then unmapped, which takes its time.
                (RequestKind::Invalidate, _) => drop((request, memory.invalidate())),
                _ => {}
            }
        }
        if let Some(device) = &mut device {
            busy |= device.process(|_, _, request| Some(fill(request, &mut bytes)));
        }
        while store.next_event()?.is_some() {
            if matches!(liveness.is_alive(), Ok(false)) {
                return Ok(bytes);
            }
            if store.xenbus_state(None, &nodes.dir)? != Some(XenbusState::InitWait) {
                // All is let go of but the window: the guest may go on. The toolstack waits for this word.
                drop((device.take(), memory.invalidate()));
                store.change_xenbus_state(&nodes.dir, XenbusState::Closing, XenbusState::Closed)?;
            }
        }
        if !busy {
            sleep(&[server.as_fd(), store.as_fd()])?;
        }
    }
}

/// Sleeps until one of the descriptors has something to be read.
fn sleep(fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    retry_on_intr(|| poll(&mut fds, None))?;
    Ok(())
}

fn main() -> Result<()> {
    let store = XenStore::open()?;
    let nodes = find(&store)?;
    // SIGTERM must not take the device from a guest that runs; the guest's end is ours. A second one does.
    signals::end_at_the_second(&[signals::SIGTERM, signals::SIGINT])?;

    // Descriptors for this guest alone, confined to it before anything is done with them.
    let foreign = Privcmd::open(nodes.domid)?;
    foreign.restrict()?;
    let events = Evtchn::open()?;
    events.restrict(nodes.domid)?;
    let foreign = Arc::new(foreign);
    let model = Arc::new(XenDeviceModel::new(Arc::clone(&foreign)));
    let grants = Arc::new(Gntdev::open(nodes.domid)?);

    // Nobody need read it.
    let _ = output::line(format_args!(
        "serving {}: window {:#x}, interrupt {}",
        nodes.dir, nodes.base, nodes.irq
    ));
    let bytes = serve(&store, &nodes, (model, foreign, grants, Arc::new(events)))?;
    let _ = output::line(format_args!("the guest got {bytes} bytes"));
    Ok(())
}
