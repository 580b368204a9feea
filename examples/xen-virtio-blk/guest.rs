//! One guest: its IOREQ server, and the thread that answers its traps.

use std::{
    collections::BTreeMap,
    io,
    ops::RangeInclusive,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, poll};
use tracing::{debug, error, warn};
use virtio_blk_dev::RawImage;
use xen_ioreq::{DeviceModel, DomId, IoreqServer, RequestKind};

use crate::{
    device_id::DeviceId,
    disk::{Disk, DiskSpec},
    guest_memory::GuestMemory,
    log_limit::LogLimit,
    platform::{Handles, Platform},
    wake::Wake,
};

/// Why a disk can't be attached to a guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The kernel's devices can't be opened for it.
    #[error(
        "domain {domid}: can't open /dev/xen/privcmd, evtchn or gntdev for it ({source}): \
         run `xen-virtio-blk check`"
    )]
    Open {
        /// The guest.
        domid: DomId,
        /// What the kernel said.
        source: io::Error,
    },
    /// The IOREQ server can't be made or told of the window.
    #[error(transparent)]
    Ioreq(#[from] xen_ioreq::Error),
    /// The disk's own settings are at odds.
    #[error("{id}: {message}")]
    Disk {
        /// The disk.
        id: DeviceId,
        /// What is wrong, and where.
        message: String,
    },
    /// No thread can be made, or the guest's thread has ended.
    #[error("domain {domid}: the thread that serves it is not there ({reason})")]
    Thread {
        /// The guest.
        domid: DomId,
        /// Why.
        reason: String,
    },
}

/// Failures in a row after which a guest's event channels are given up.
const MAX_FAILURES: u32 = 16;

enum Command {
    Attach(Box<(DiskSpec, RawImage)>, Sender<Result<(), GuestError>>),
    Reserve(DeviceId, RangeInclusive<u64>, Sender<Result<(), GuestError>>),
    Detach(DeviceId, Sender<()>),
    Report,
    Stop,
}

/// A guest being served. Dropping it stops its disks and destroys its IOREQ server.
pub struct Guest {
    domid: DomId,
    commands: Sender<Command>,
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    /// Creates the guest's IOREQ server and starts the thread that answers it.
    pub fn start<P: Platform>(domid: DomId, handles: Handles<P>) -> Result<Self, GuestError> {
        let server = IoreqServer::create(
            Arc::clone(&handles.model),
            Arc::clone(&handles.memory),
            Arc::clone(&handles.events),
        )?;
        let no_thread = |error: io::Error| GuestError::Thread { domid, reason: error.to_string() };
        let wake = Arc::new(Wake::new().map_err(no_thread)?);
        let (commands, inbox) = mpsc::channel();
        let service = Service {
            domid,
            server,
            memory: GuestMemory::new(&handles),
            handles,
            disks: BTreeMap::new(),
            reserved: BTreeMap::new(),
            limit: LogLimit::new(),
        };
        let waiter = Arc::clone(&wake);
        let thread = thread::Builder::new()
            .name(format!("guest-{domid}"))
            .spawn(move || service.run(&inbox, &waiter))
            .map_err(no_thread)?;
        Ok(Self { domid, commands, wake, thread: Some(thread) })
    }

    /// Attaches a disk: when this returns, the guest may touch its window.
    pub fn attach(&self, spec: DiskSpec, image: RawImage) -> Result<(), GuestError> {
        let (reply, answer) = mpsc::channel();
        self.send(Command::Attach(Box::new((spec, image)), reply))?;
        answer.recv().map_err(|_| self.ended())?
    }

    /// Answers a window without a device behind it: reads give all ones, which no driver takes for a
    /// virtio device. Unanswered, they would be an external abort in the guest.
    pub fn reserve(&self, id: DeviceId, window: RangeInclusive<u64>) -> Result<(), GuestError> {
        let (reply, answer) = mpsc::channel();
        self.send(Command::Reserve(id, window, reply))?;
        answer.recv().map_err(|_| self.ended())?
    }

    /// Lets go of a disk: when this returns, its image is closed.
    pub fn detach(&self, id: DeviceId) {
        let (reply, answer) = mpsc::channel();
        if self.send(Command::Detach(id, reply)).is_ok() {
            // A thread that ended meanwhile has let go of everything.
            let _ = answer.recv();
        }
    }

    /// Logs what each disk has done so far.
    pub fn report(&self) {
        let _ = self.send(Command::Report);
    }

    fn send(&self, command: Command) -> Result<(), GuestError> {
        self.commands.send(command).map_err(|_| self.ended())?;
        self.wake.wake();
        Ok(())
    }

    fn ended(&self) -> GuestError {
        GuestError::Thread { domid: self.domid, reason: "it ended early: see the log".into() }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(domid = self.domid, "the guest's thread panicked");
        }
    }
}

/// What the guest's thread owns.
struct Service<P: Platform> {
    domid: DomId,
    // Before the server: a disk's workers end before its server does.
    disks: BTreeMap<DeviceId, Disk<P>>,
    server: IoreqServer<P::Model, P::Memory, P::Events>,
    /// Windows without a device behind them.
    reserved: BTreeMap<DeviceId, RangeInclusive<u64>>,
    memory: GuestMemory<P>,
    handles: Handles<P>,
    limit: LogLimit,
}

impl<P: Platform> Service<P> {
    fn run(mut self, inbox: &Receiver<Command>, wake: &Wake) {
        let mut failures = 0;
        loop {
            match self.answer_requests() {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if failures == MAX_FAILURES || self.handles.model.nr_vcpus().is_err() {
                        // The guest is gone, or its event channels are: nothing more can be answered.
                        warn!(domid = self.domid, %error, "stopped serving the guest");
                        return;
                    }
                    warn!(domid = self.domid, %error, "a request may have gone unanswered");
                }
            }
            let mut fds = [
                PollFd::from_borrowed_fd(self.server.as_fd(), PollFlags::IN),
                PollFd::new(wake, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    error!(domid = self.domid, %error, "poll failed: stopped serving the guest");
                    return;
                }
            }
            if fds[1].revents().is_empty() {
                continue;
            }
            wake.wait();
            for command in inbox.try_iter() {
                match command {
                    Command::Attach(disk, reply) => {
                        let (spec, image) = *disk;
                        let _ = reply.send(self.attach(&spec, image));
                    }
                    Command::Reserve(id, window, reply) => {
                        let claimed = self.claim(window.clone());
                        if claimed.is_ok() {
                            self.reserved.insert(id, window);
                        }
                        let _ = reply.send(claimed);
                    }
                    Command::Detach(id, reply) => {
                        self.detach(id);
                        let _ = reply.send(());
                    }
                    Command::Report => self.disks.values().for_each(Disk::report),
                    Command::Stop => return,
                }
            }
        }
    }

    fn attach(&mut self, spec: &DiskSpec, image: RawImage) -> Result<(), GuestError> {
        let memory = self.memory.for_disk(spec.nodes.grants);
        let disk = Disk::new(spec, image, memory, Arc::clone(&self.handles.model))
            .map_err(|message| GuestError::Disk { id: spec.id, message })?;
        self.claim(spec.nodes.window())?;
        self.disks.insert(spec.id, disk);
        Ok(())
    }

    /// Has the guest's accesses to a window sent here.
    fn claim(&mut self, window: RangeInclusive<u64>) -> Result<(), GuestError> {
        self.server.map_range(window)?;
        Ok(self.server.enable()?)
    }

    fn detach(&mut self, id: DeviceId) {
        let disk = self.disks.remove(&id);
        let window = disk.as_ref().map(Disk::window).or_else(|| self.reserved.remove(&id));
        if let Some(window) = window
            && let Err(error) = self.server.unmap_range(window)
        {
            debug!(%id, %error, "the window could not be taken back: the guest may be gone");
        }
    }

    /// Answers every trap that waits now. No disk is waited for, but for a reset or a queue's end,
    /// whose answers mean that the device has let go of the guest's memory.
    fn answer_requests(&mut self) -> Result<(), xen_ioreq::Error> {
        while let Some(request) = self.server.next_request()? {
            match request.kind() {
                RequestKind::Read { addr, size } => {
                    let mut data = [0xff; 8];
                    if let Some(disk) = disk_at(&mut self.disks, addr, size) {
                        disk.read(addr, &mut data[..usize::from(size)]);
                    }
                    request.complete_read(u64::from_le_bytes(data));
                }
                RequestKind::Write { addr, size, data } => {
                    let data = &data.to_le_bytes()[..usize::from(size)];
                    match disk_at(&mut self.disks, addr, size) {
                        Some(disk) => {
                            let kick = disk.write(addr, data);
                            // The vCPU goes on before the disk is looked at.
                            request.complete();
                            if let Some(queue) = kick {
                                disk.kick(queue);
                            }
                        }
                        None => request.complete(),
                    }
                }
                RequestKind::Invalidate => {
                    self.memory.invalidate();
                    request.complete();
                }
                kind => {
                    if let Some(dropped) = self.limit.allow() {
                        warn!(domid = self.domid, ?kind, dropped, "no such request on virtio-mmio");
                    }
                    request.complete();
                }
            }
        }
        Ok(())
    }
}

fn disk_at<P: Platform>(
    disks: &mut BTreeMap<DeviceId, Disk<P>>,
    addr: u64,
    size: u8,
) -> Option<&mut Disk<P>> {
    let last = addr.checked_add(u64::from(size) - 1)?;
    disks.values_mut().find(|disk| {
        let window = disk.window();
        window.contains(&addr) && window.contains(&last)
    })
}
