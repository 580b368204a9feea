//! A console backend (virtio 1.2 §5.3) for guests on Xen: each guest's console is a pseudoterminal, which the log names
//! (`screen /dev/pts/5`). In the guest it is `/dev/hvc0`, or the next free one. Started in dom0, it serves each guest
//! whose `xl.cfg` has `virtio = [ "backend=0,type=virtio,device3,transport=mmio,grant_usage=0" ]`. The guest follows the
//! terminal's size when it is told to: `stty -F /dev/pts/5 rows 50 cols 132`, then SIGHUP.

mod pty;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::ExitCode;

use pty::Pty;
use virtio_dev::{Chain, VirtioDevice, vm_memory::GuestAddressSpace};
use xen_virtio_backend::{
    Inline, InlineDevices, Refusal,
    node::{DeviceId, DeviceNode, DeviceType},
};

/// The queue of what is typed; the other one is of what the guest prints (§5.3.2).
const RECEIVE: u16 = 0;
/// `VIRTIO_CONSOLE_F_SIZE`
const F_SIZE: u64 = 1;

/// One guest's console.
pub(crate) struct Console {
    pty: Pty,
    /// `cols`, `rows`, `max_nr_ports`, `emerg_wr` (§5.3.4).
    config: [u8; 12],
}

impl VirtioDevice for Console {
    fn device_type(&self) -> u32 {
        Self::DEVICE_TYPE.0
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[64, 64]
    }
    fn features(&self) -> u64 {
        F_SIZE
    }
    fn config(&self) -> &[u8] {
        &self.config
    }
}

impl Inline for Console {
    const NAME: &'static str = "virtio-console";
    const DEVICE_TYPE: DeviceType = DeviceType(3);

    fn open(node: &DeviceNode) -> Result<Vec<OwnedFd>, Refusal> {
        pty::open(node.id).map_err(Refusal::new)
    }
    fn build(files: Vec<OwnedFd>) -> Self {
        let mut console = Self { pty: Pty::new(files), config: [0; 12] };
        console.refresh();
        console
    }
    fn request<M: GuestAddressSpace>(&mut self, queue: u16, request: &Chain<M>) -> Option<u32> {
        match queue {
            RECEIVE => self.pty.read(request),
            // Never left in the queue: Linux waits for the answer with a spin lock held.
            _ => Some(self.pty.print(request)),
        }
    }
    fn ready(&self, queue: u16) -> Option<BorrowedFd<'_>> {
        (queue == RECEIVE).then(|| self.pty.input())
    }
    fn refresh(&mut self) -> bool {
        let before = self.config;
        let (cols, rows) = self.pty.size();
        self.config[..4].copy_from_slice(&(u32::from(cols) | u32::from(rows) << 16).to_le_bytes());
        self.config != before
    }
    fn report(&self, id: DeviceId) {
        tracing::info!(%id, lost = self.pty.lost(), "bytes of console output that the terminal had no room for");
    }
}

fn main() -> ExitCode {
    xen_virtio_backend::main(InlineDevices::<Console>::new())
}
