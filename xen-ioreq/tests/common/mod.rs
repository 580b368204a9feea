//! A guest and its server, for the tests.
#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use xen_evtchn::fake::FakeEvtchn;
use xen_foreignmem::fake::FakeForeignMemory;
use xen_ioreq::fake::{FakeDeviceModel, FakeDomain};
use xen_ioreq::{IoreqServer, RequestKind};

pub type Server = IoreqServer<FakeDeviceModel, FakeForeignMemory, FakeEvtchn>;

/// Where the tests have a device.
pub const BASE: u64 = 0x0200_0000;

pub fn guest(vcpus: u32) -> FakeDomain {
    FakeDomain::builder().vcpus(vcpus).build()
}

/// A guest whose vCPUs are impatient, for what must hang.
pub fn hasty_guest(vcpus: u32) -> FakeDomain {
    FakeDomain::builder().vcpus(vcpus).vcpu_timeout(Duration::from_millis(50)).build()
}

pub fn new_server(domain: &FakeDomain) -> Server {
    let server = IoreqServer::create(
        domain.device_model(),
        domain.foreign_memory(),
        domain.event_channel().unwrap(),
    );
    server.unwrap()
}

/// An enabled server with a device of 0x200 bytes at `BASE`.
pub fn server(domain: &FakeDomain) -> Server {
    let mut server = new_server(domain);
    server.map_range(BASE..=BASE + 0x1ff).unwrap();
    server.enable().unwrap();
    server
}

/// Serves what waits: reads give `answer(addr)`.
pub fn serve(server: &mut Server, answer: impl Fn(u64) -> u64) {
    while let Some(request) = server.next_request().unwrap() {
        match request.kind() {
            RequestKind::Read { addr, .. } => request.complete_read(answer(addr)),
            _ => request.complete(),
        }
    }
}

/// Serves until the vCPUs are done, sleeping in between as a real server does.
pub fn serve_while(server: &mut Server, busy: &AtomicBool, answer: impl Fn(u64) -> u64) {
    while busy.load(Ordering::Acquire) {
        serve(server, &answer);
        poll(server, 1);
    }
}

/// Whether the server's descriptor is readable within so many milliseconds.
pub fn poll(server: &Server, milliseconds: i32) -> bool {
    use std::os::fd::AsRawFd;
    let mut fd = libc::pollfd { fd: server.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, which is borrowed for the call.
    let ready = unsafe { libc::poll(&raw mut fd, 1, milliseconds) };
    ready > 0
}

/// Runs vCPU threads against a server that answers reads with `answer(addr)`.
pub fn run(
    server: &mut Server,
    vcpus: impl IntoIterator<Item = Box<dyn FnOnce() + Send>>,
    answer: impl Fn(u64) -> u64,
) {
    let busy = Arc::new(AtomicBool::new(true));
    let threads: Vec<_> = vcpus.into_iter().map(thread::spawn).collect();
    let joiner = {
        let busy = Arc::clone(&busy);
        thread::spawn(move || {
            let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            busy.store(false, Ordering::Release);
            results.into_iter().for_each(|result| result.unwrap());
        })
    };
    serve_while(server, &busy, answer);
    joiner.join().unwrap();
}
