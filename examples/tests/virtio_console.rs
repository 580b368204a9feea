//! The console backend `virtio-console`, and guests of the fake hypervisor that use it.

mod common;
#[path = "../virtio-console/main.rs"]
#[expect(dead_code, reason = "its main is for Xen")]
mod virtio_console;

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use common::{
    guest_kernel::{GuestKernel, Sharing},
    host::{Disk as Nodes, Host},
    log::Log,
    ring_driver::{RingDriver, VERSION_1, WRITE, until},
    virtio_driver::ACCESS_PLATFORM,
    watchdog::{Watchdog, watchdog},
    window::{Window, reg},
};
use rustix::termios::{Winsize, tcsetwinsize};
use tracing::Level;
use virtio_console::Console;
use xen_ioreq::fake::FakeDomain;
use xen_virtio_backend::{InlineDevices, guest::MapBudget};

const F_SIZE: u64 = 1;

static NEXT_DOMID: AtomicU16 = AtomicU16::new(1);
static LOG: LazyLock<Log> = LazyLock::new(|| Log::start(Level::INFO));

/// A guest with a console, and a user at its terminal.
struct Guest {
    domain: FakeDomain,
    nodes: Nodes,
    receive: RingDriver,
    transmit: RingDriver,
    terminal: File,
}

struct Setup {
    host: Host<InlineDevices<Console>>,
    _watchdog: Watchdog,
}

impl Setup {
    fn new() -> Self {
        let host = Host::with_backend(MapBudget::Bytes(64 << 20), InlineDevices::new);
        Self { host, _watchdog: watchdog() }
    }

    /// A guest with a number that no other test has: they share the log.
    fn guest(&mut self, sharing: Sharing) -> Guest {
        let domid = NEXT_DOMID.fetch_add(1, Ordering::Relaxed);
        LazyLock::force(&LOG);
        let domain = self.host.create_guest(domid);
        let kernel = GuestKernel::new(&domain, sharing);
        let mut nodes = Nodes::new(domid, 0, Path::new(""));
        nodes.kind = "virtio";
        let nodes = nodes.with("type", "virtio,device3").without("params").sharing(sharing);
        self.host.serve(&nodes);
        let lines = LOG.lines(&format!("id=virtio/{domid}/"));
        let name =
            lines.iter().find_map(|line| line.split("terminal=").nth(1)).expect("it is logged");
        let terminal = OpenOptions::new().read(true).write(true).open(name).expect(name);
        let (receive, transmit) = start(self.host.window(&nodes), &kernel, sharing);
        Guest { domain, nodes, receive, transmit, terminal }
    }
}

fn start(window: Window, kernel: &Arc<GuestKernel>, sharing: Sharing) -> (RingDriver, RingDriver) {
    let platform = if sharing == Sharing::Grant { ACCESS_PLATFORM } else { 0 };
    let [receive, transmit] =
        RingDriver::start_queues(window, kernel, VERSION_1 | F_SIZE | platform);
    (receive, transmit)
}

impl Guest {
    fn print(&mut self, bytes: &[u8]) {
        let buffer = self.transmit.filled(bytes);
        self.transmit.chain(0, &[(buffer.device, bytes.len() as u32, 0)]);
        self.transmit.offer(0);
        assert_eq!(self.transmit.used().len, 0);
        self.transmit.release(buffer);
    }

    fn see(&mut self, bytes: &[u8]) {
        let mut seen = vec![0; bytes.len()];
        self.terminal.read_exact(&mut seen).unwrap();
        assert_eq!(seen, bytes);
    }
}

#[test]
fn what_is_typed_reaches_the_guest_and_what_it_prints_the_terminal() {
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let mut setup = Setup::new();
        let mut guest = setup.guest(sharing);
        guest.print(b"login: ");
        guest.see(b"login: ");
        // A buffer that waits for input is answered when there is some.
        let buffer = guest.receive.buffer(16);
        guest.receive.chain(0, &[(buffer.device, 16, WRITE)]);
        guest.receive.offer(0);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!guest.receive.is_answered());
        assert_eq!(guest.domain.grants().live_mappings(), if guest.nodes.grants { 6 } else { 0 });
        guest.terminal.write_all(b"root\n").unwrap();
        assert_eq!(guest.receive.used().len, 5);
        assert_eq!(&guest.receive.get::<5>(buffer.guest), b"root\n");
        assert!(guest.domain.irq_count(guest.nodes.irq) > 0);
    }
}

#[test]
fn input_waits_for_a_guest_that_offers_no_buffer() {
    let mut setup = Setup::new();
    let mut guest = setup.guest(Sharing::Foreign);
    guest.terminal.write_all(b"early").unwrap();
    guest.print(b"out");
    guest.see(b"out");
    let buffer = guest.receive.buffer(16);
    for expected in ["ea", "rl", "y"] {
        guest.receive.chain(0, &[(buffer.device, 2, WRITE)]);
        guest.receive.offer(0);
        assert_eq!(guest.receive.used().len as usize, expected.len());
        let got = guest.receive.get::<2>(buffer.guest);
        assert_eq!(&got[..expected.len()], expected.as_bytes());
    }
}

#[test]
fn a_resized_terminal_is_a_configuration_change() {
    let mut setup = Setup::new();
    let guest = setup.guest(Sharing::Foreign);
    let window = setup.host.window(&guest.nodes);
    let before = window.read(reg::CONFIG_GENERATION);
    let size = Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&guest.terminal, size).unwrap();
    setup.host.refresh_capacities();
    until("the new size", || window.read(reg::CONFIG) == 132 | 50 << 16);
    assert_ne!(window.read(reg::CONFIG_GENERATION), before);
    until("a configuration interrupt", || window.read(reg::INTERRUPT_STATUS) & 2 != 0);
}

#[test]
fn output_that_nobody_reads_holds_up_neither_its_guest_nor_another_nor_the_end() {
    let mut setup = Setup::new();
    let mut guests = [(); 2].map(|()| setup.guest(Sharing::Foreign));
    for _ in 0..64 {
        guests[0].print(&[b'x'; 4096]);
    }
    guests[1].print(b"still here");
    guests[1].see(b"still here");
    // Destroyed while it prints.
    let buffer = guests[0].transmit.filled(&[b'y'; 4096]);
    guests[0].transmit.chain(0, &[(buffer.device, 4096, 0)]);
    guests[0].transmit.offer(0);
    setup.host.destroy_guest(guests[0].nodes.domid);
    setup.host.settle();
    assert_eq!(guests[0].domain.foreign_memory().live_mappings(), 0);
    guests[1].print(b"and now");
    guests[1].see(b"and now");
}
