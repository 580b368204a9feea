//! What operators ask by the control socket.

mod common;

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use common::{
    block::{BlockRequests, IN, OK},
    running::Running,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use tempfile::TempDir;
use virtio_blk_dev::{Rate, RateLimits};
use virtio_dev::{Chain, VirtioDevice, feature, vm_memory::GuestAddressSpace};
use xen_virtio_backend::{
    Inline, InlineDevices,
    control::{Client, ClientError, DeviceState, DeviceStatusOf},
    daemon::Extras,
    fake::{DeviceConfig, FakeDriver, GuestKernel, Sharing, Watchdog, until},
    node::DeviceType,
};
use xen_virtio_blk::{
    args::{Cli, Command},
    disk_state::DiskState,
    disks::Disks,
    operate::{Selection, Snapshot, rows, table},
    order::{Limit, LimitChange, Order},
};

/// A daemon that operators can ask.
struct Asked {
    daemon: Running,
    client: Client<Disks>,
    run_dir: TempDir,
}

impl Asked {
    fn new() -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        let control = Some(run_dir.path().to_owned());
        let daemon = Running::with(Extras { control, ..Extras::default() });
        Self { daemon, client: Client::new(run_dir.path()), run_dir }
    }

    /// A guest of this name with a disk that is served.
    fn guest(&mut self, domid: u16, name: &str) -> (FakeDriver, DeviceConfig) {
        let (domain, disk) = self.daemon.guest(domid);
        self.daemon.host.name_guest(domid, name, &format!("uuid-of-{name}"));
        let kernel = GuestKernel::new(&domain, Sharing::Foreign);
        let window = self.daemon.host.window(&disk);
        (FakeDriver::start(window, &kernel, feature::VERSION_1), disk)
    }

    fn devices(&self) -> Vec<DeviceStatusOf<Disks>> {
        self.client.status().unwrap().devices
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { at: Instant::now(), status: self.client.status().unwrap() }
    }
}

fn image(disk: &DeviceConfig) -> &Path {
    Path::new(std::str::from_utf8(disk.node("params").unwrap()).unwrap())
}

fn read(driver: &mut FakeDriver) {
    let page = driver.filled(&[0; 512]);
    assert_eq!(driver.request(IN, 0, Some((page.device, 512))).0, OK);
    driver.release(page);
}

#[test]
fn an_operator_sees_each_disk_and_what_it_does() {
    let _watchdog = Watchdog::start();
    let mut it = Asked::new();
    let (mut driver, disk) = it.guest(1, "mail");
    let refused = DeviceConfig::disk(1, 1, "/nowhere.img");
    it.daemon.host.add_device(&refused);
    until("it is refused", || it.daemon.host.error(&refused).is_some());
    let earlier = it.snapshot();
    read(&mut driver);
    let mut later = it.snapshot();
    until("the worker's own count", || {
        later = it.snapshot();
        later.status.devices[0].figures.as_ref().unwrap().stats.requests() == 1
    });
    let rows = rows(&earlier, &later);
    let [served, other] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(
        (served.guest.as_deref(), served.uuid.as_deref()),
        (Some("mail"), Some("uuid-of-mail"))
    );
    assert_eq!(
        (served.disk.as_str(), served.mode, served.mapping),
        ("xvda", Some("rw"), Some("foreign"))
    );
    assert_eq!(served.image.as_deref(), image(&disk).to_str());
    assert_eq!((served.state, served.reason.as_deref()), (DiskState::Active, None));
    assert_eq!((served.requests, served.errors, served.in_flight), (1, 0, 0));
    assert!(served.iops > 0.0 && served.bytes_per_second > served.iops, "{served:?}");
    assert!(served.p50_us > Some(0.0) && served.p99_us >= served.p50_us, "{served:?}");
    assert!(served.mapped_bytes > 0);
    assert_eq!((other.disk.as_str(), other.state), ("xvdb", DiskState::Refused));
    assert_eq!(other.image.as_deref(), Some("/nowhere.img"));
    let text = table(&rows, &[7]);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("GUEST  DISK  IMAGE"), "{text}");
    assert!(lines[1].starts_with("mail   xvda  /"), "{text}");
    assert!(
        lines[3].starts_with("mail xvdb: refused: ") && lines[3].contains("/nowhere.img"),
        "{text}"
    );
    assert!(lines[4].starts_with("domain 7: "), "{text}");
    // In an interval without requests there are none, whatever there was before.
    let idle = &self::rows(&later, &it.snapshot())[0];
    assert_eq!((idle.iops, idle.p50_us, idle.requests), (0.0, None, 1));
    it.daemon.stop_and_end();
}

#[test]
fn a_disk_takes_on_the_size_of_its_image_when_it_is_told_to() {
    let _watchdog = Watchdog::start();
    let mut it = Asked::new();
    let (_driver, disk) = it.guest(1, "mail");
    let (_other, untouched) = it.guest(2, "web");
    for disk in [&disk, &untouched] {
        fs::OpenOptions::new().write(true).open(image(disk)).unwrap().set_len(16384).unwrap();
    }
    assert_eq!(it.client.order(disk.id(), Order::Resize).unwrap(), "16384 bytes, 8192 before");
    assert_eq!(it.client.order(disk.id(), Order::Resize).unwrap(), "16384 bytes, as before");
    let sectors = |disk| it.daemon.host.window(disk).read(0x100);
    assert_eq!((sectors(&disk), sectors(&untouched)), (32, 16));
    it.daemon.stop_and_end();
}

#[test]
fn a_limit_holds_at_once_and_so_does_none() {
    let _watchdog = Watchdog::start();
    let mut it = Asked::new();
    let (mut driver, disk) = it.guest(1, "mail");
    read(&mut driver);
    let to = |change| it.client.order(disk.id(), Order::Limit(change)).unwrap();
    let slow = Rate { per_second: 1, burst: 1 };
    let unchanged = LimitChange::default();
    let text = to(LimitChange { ops: Some(Limit::To(slow)), ..unchanged });
    assert_eq!(text, "1 requests a second (1 at once), no limit of bytes");
    let limits = it.devices()[0].figures.as_ref().unwrap().limits;
    assert_eq!(limits, RateLimits { ops: Some(slow), bytes: None });
    // One at once, and the next one a second later.
    let begin = Instant::now();
    read(&mut driver);
    read(&mut driver);
    assert!(begin.elapsed() > Duration::from_millis(900), "{:?}", begin.elapsed());
    // What waits for the old limit doesn't wait for it any more.
    thread::scope(|scope| {
        let begin = Instant::now();
        let reads = scope.spawn(|| (0..60).for_each(|_| read(&mut driver)));
        thread::sleep(Duration::from_millis(50));
        to(LimitChange { ops: Some(Limit::Unlimited), ..unchanged });
        reads.join().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(20), "60 requests at one a second");
    });
    it.daemon.stop_and_end();
}

#[test]
fn a_disk_that_is_not_served_takes_no_orders() {
    let _watchdog = Watchdog::start();
    let mut it = Asked::new();
    let (_driver, disk) = it.guest(1, "mail");
    let gone = DeviceConfig::disk(2, 0, "/nowhere.img");
    it.daemon.host.close_device(&disk);
    until("it is closed", || it.daemon.host.state(&disk).as_deref() == Some("6"));
    for disk in [&disk, &gone] {
        let error = it.client.order(disk.id(), Order::Resize).unwrap_err();
        assert!(
            matches!(&error, ClientError::Failed(text) if text.contains("is not served")),
            "{error}"
        );
    }
    it.daemon.stop_and_end();
}

#[test]
fn disks_are_named_as_the_operator_knows_them() {
    let _watchdog = Watchdog::start();
    let mut it = Asked::new();
    let (_mail, mail) = it.guest(1, "mail");
    let (_web, _) = it.guest(2, "web");
    let (_twin, _) = it.guest(3, "web");
    let status = it.client.status().unwrap();
    let find = |guest, disk| {
        let found = Selection { guest, disk }.of(&status);
        found.map(|devices| devices.iter().map(|device| device.id.domid).collect::<Vec<_>>())
    };
    assert_eq!(find(None, None).unwrap(), [1, 2, 3]);
    for guest in ["mail", "1", "uuid-of-mail"] {
        for disk in [None, Some("xvda"), Some("51712"), image(&mail).to_str()] {
            assert_eq!(find(Some(guest), disk).unwrap(), [1], "{guest} {disk:?}");
        }
    }
    let text = |guest, disk| find(guest, disk).unwrap_err().to_string();
    assert!(text(Some("mial"), None).contains("there are mail, web"));
    assert!(text(Some("mail"), Some("xvdb")).contains("it has xvda"));
    assert!(text(Some("web"), None).contains("one of 2, 3"));
    it.daemon.stop_and_end();
}

#[test]
fn the_control_socket_is_the_superusers_and_a_dead_daemons_is_replaced() {
    let _watchdog = Watchdog::start();
    let mut it = Asked::new();
    let path = it.run_dir.path().join("control");
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    it.daemon.stop_and_end();
    until("nobody listens", || matches!(it.client.status(), Err(ClientError::NotRunning { .. })));
    assert!(path.exists(), "as after a crash");
    let text = it.client.status().unwrap_err().to_string();
    assert!(
        text.starts_with("xen-virtio-blk does not run") && text.contains("--run-dir"),
        "{text}"
    );
    let run_dir = it.run_dir;
    drop(it.daemon);
    let control = Some(run_dir.path().to_owned());
    let mut next = Running::with(Extras { control, ..Extras::default() });
    assert!(Client::<Disks>::new(run_dir.path()).status().unwrap().devices.is_empty());
    next.stop_and_end();
}

/// Connects and says nothing.
fn silent(run_dir: &Path) -> OwnedFd {
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(run_dir.join("control")).unwrap()).unwrap();
    socket
}

#[test]
fn an_operator_who_says_nothing_keeps_neither_guests_nor_other_operators() {
    let _watchdog = Watchdog::start();
    let mut it = Asked::new();
    let _silent = [silent(it.run_dir.path()), silent(it.run_dir.path())];
    let begin = Instant::now();
    let (mut driver, _) = it.guest(1, "mail");
    read(&mut driver);
    assert!(begin.elapsed() < Duration::from_millis(1900), "{:?}", begin.elapsed());
    assert_eq!(it.devices()[0].state, DeviceState::Serving);
    it.daemon.stop_and_end();
}

/// Another program.
struct Nothing;

impl VirtioDevice for Nothing {
    fn device_type(&self) -> u32 {
        Self::DEVICE_TYPE.0
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

impl Inline for Nothing {
    const NAME: &'static str = "nothing";
    const DEVICE_TYPE: DeviceType = DeviceType(4);

    fn build(_: Vec<OwnedFd>) -> Self {
        Self
    }
    fn request<M: GuestAddressSpace>(&mut self, _: u16, _: &Chain<M>) -> Option<u32> {
        None
    }
}

#[test]
fn a_program_of_another_version_is_told_so() {
    let _watchdog = Watchdog::start();
    let mut it = Asked::new();
    let other = Client::<InlineDevices<Nothing>>::new(it.run_dir.path());
    let error = other.status().unwrap_err();
    assert!(matches!(error, ClientError::OtherVersion { .. }), "{error}");
    assert!(error.to_string().contains("xen-virtio-blk"), "{error}");
    // It is heard all the same.
    assert!(it.devices().is_empty());
    it.daemon.stop_and_end();
}

#[test]
fn a_filter_that_is_none_is_refused() {
    let _watchdog = Watchdog::start();
    let mut it = Asked::new();
    let error = it.client.log_filter("louder=please=now").unwrap_err();
    assert!(error.to_string().contains("is no filter"), "{error}");
    it.daemon.stop_and_end();
}

#[test]
fn the_default_run_directory_is_that_of_run() {
    let run = |arguments: &[&str]| match Cli::parse_from(arguments).command {
        Command::Run(args) => args.run_dir,
        Command::Status(args) => args.daemon.run_dir,
        _ => unreachable!("one of these"),
    };
    assert_eq!(run(&["xen-virtio-blk", "run"]), run(&["xen-virtio-blk", "status"]));
}
