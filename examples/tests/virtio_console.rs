//! The console backend `virtio-console`, and guests of the fake hypervisor that use it.

mod common;
#[path = "../virtio-console/main.rs"]
#[expect(dead_code, reason = "its main is for Xen")]
mod virtio_console;

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use common::log::Log;
use rustix::termios::{Winsize, tcsetwinsize};
use tracing::Level;
use virtio_console::Console;
use xen_ioreq::fake::FakeDomain;
use xen_virtio_backend::{
    Inline as _, InlineDevices,
    fake::{DeviceConfig, FakeDriver, FakeToolstack, Sharing, Watchdog, reg, until},
};

const F_SIZE: u64 = 1;

static NEXT_DOMID: AtomicU16 = AtomicU16::new(1);
static LOG: LazyLock<Log> = LazyLock::new(|| Log::start(Level::INFO));

/// A guest with a console, and a user at its terminal.
struct Guest {
    domain: FakeDomain,
    device: DeviceConfig,
    receive: FakeDriver,
    transmit: FakeDriver,
    terminal: File,
}

struct Setup {
    toolstack: FakeToolstack<InlineDevices<Console>>,
    _watchdog: Watchdog,
}

impl Setup {
    fn new() -> Self {
        let toolstack = FakeToolstack::new(InlineDevices::new);
        Self { toolstack, _watchdog: Watchdog::start() }
    }

    /// A guest with a number that no other test has: they share the log.
    fn guest(&mut self, sharing: Sharing) -> Guest {
        let domid = NEXT_DOMID.fetch_add(1, Ordering::Relaxed);
        LazyLock::force(&LOG);
        let domain = self.toolstack.create_guest(domid);
        let device = DeviceConfig::generic(domid, 0, Console::DEVICE_TYPE).sharing(sharing);
        self.toolstack.serve(&device);
        let lines = LOG.lines(&format!("id=virtio/{domid}/"));
        let name =
            lines.iter().find_map(|line| line.split("terminal=").nth(1)).expect("it is logged");
        let terminal = OpenOptions::new().read(true).write(true).open(name).expect(name);
        let [receive, transmit] = self.toolstack.drivers(&device, F_SIZE);
        Guest { domain, device, receive, transmit, terminal }
    }
}

impl Guest {
    fn print(&mut self, bytes: &[u8]) {
        let buffer = self.transmit.filled(bytes);
        assert_eq!(self.transmit.submit(&[buffer.readable()]), 0);
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
        guest.receive.chain(0, &[buffer.writable()]);
        guest.receive.offer(0);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!guest.receive.is_answered());
        let rings = if sharing == Sharing::Grant { 6 } else { 0 };
        assert_eq!(guest.domain.grants().live_mappings(), rings);
        guest.terminal.write_all(b"root\n").unwrap();
        assert_eq!(guest.receive.used().len, 5);
        assert_eq!(&guest.receive.get::<5>(buffer.guest), b"root\n");
        assert!(guest.domain.irq_count(guest.device.irq()) > 0);
    }
}

#[test]
fn input_waits_for_a_guest_that_offers_no_buffer() {
    let mut setup = Setup::new();
    let mut guest = setup.guest(Sharing::Foreign);
    guest.terminal.write_all(b"early").unwrap();
    guest.print(b"out");
    guest.see(b"out");
    let buffer = guest.receive.buffer(2);
    for expected in ["ea", "rl", "y"] {
        assert_eq!(guest.receive.submit(&[buffer.writable()]) as usize, expected.len());
        let got = guest.receive.get::<2>(buffer.guest);
        assert_eq!(&got[..expected.len()], expected.as_bytes());
    }
}

#[test]
fn a_resized_terminal_is_a_configuration_change() {
    let mut setup = Setup::new();
    let guest = setup.guest(Sharing::Foreign);
    let window = setup.toolstack.window(&guest.device);
    let before = window.read(reg::CONFIG_GENERATION);
    let size = Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&guest.terminal, size).unwrap();
    setup.toolstack.refresh();
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
    guests[0].transmit.chain(0, &[buffer.readable()]);
    guests[0].transmit.offer(0);
    setup.toolstack.destroy_guest(guests[0].device.domid());
    setup.toolstack.settle();
    assert_eq!(guests[0].domain.foreign_memory().live_mappings(), 0);
    guests[1].print(b"and now");
    guests[1].see(b"and now");
}
