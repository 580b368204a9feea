//! Disks in a confined process, which gets open files rather than paths.
//!
//! This program is both processes, as its own is to be confined while it has one thread: libtest would leave it none.

#[path = "../../../virtio-blk-dev/tests/common/mod.rs"]
mod driver;
#[path = "../../../virtio-blk-dev/tests/common/host.rs"]
mod host;

#[cfg(feature = "imago")]
mod chain;
mod channel;
mod child;
mod pattern;
mod process;

use std::{env, ffi::OsStr, fs, path::PathBuf, process::ExitCode};

use libtest_mimic::{Arguments, Trial};
use tempfile::TempDir;
use virtio_blk_dev::{OpenError, RawImage, RingPool};
use xen_virtio_blk::{engine_kind::EngineKind, settings::DiskSettings, storage::Storage};

use channel::{Answer, Request};
use driver::{IOERR, OK};
use host::{Loop, grow, skip, with_mount};
use pattern::{DISK_LEN, QUEUES, original, served};
use process::{Process, RINGS, wait_closed};

fn main() -> ExitCode {
    if let Ok(rings) = env::var(RINGS) {
        let rings = rings.parse().expect("a number of rings");
        return match child::run(rings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let sync = DiskSettings { queues: QUEUES, ..DiskSettings::default() };
    let uring = DiskSettings { engine: EngineKind::IoUring, ..sync.clone() };
    let direct = |settings: &DiskSettings| DiskSettings { direct: true, ..settings.clone() };
    let mut trials = Vec::new();
    for (name, settings) in [
        ("sync", sync.clone()),
        ("io_uring", uring.clone()),
        ("sync_direct", direct(&sync)),
        ("io_uring_direct", direct(&uring)),
    ] {
        let mut add = |what: &str, test: fn(&DiskSettings)| {
            let settings = settings.clone();
            let run = move || {
                if settings.engine == EngineKind::Sync || has_rings() {
                    test(&settings);
                }
                Ok(())
            };
            trials.push(Trial::test(format!("{what}::{name}"), run));
        };
        add(
            "a_confined_process_serves_one_image_after_another",
            a_confined_process_serves_one_image_after_another,
        );
        add(
            "a_confined_process_serves_an_image_that_is_only_read",
            a_confined_process_serves_an_image_that_is_only_read,
        );
        if !settings.direct {
            add(
                "a_write_error_reaches_each_queue_of_a_confined_process",
                a_write_error_reaches_each_queue_of_a_confined_process,
            );
        }
    }
    trials.push(Trial::test(
        "a_confined_process_without_io_urings_serves_a_disk_by_the_synchronous_engine",
        move || {
            a_confined_process_without_io_urings_serves_a_disk_by_the_synchronous_engine(&uring);
            Ok(())
        },
    ));
    #[cfg(feature = "imago")]
    for (name, test) in [("qcow2", chain::qcow2 as fn()), ("vmdk", chain::vmdk)] {
        let name = format!("a_confined_process_serves_an_image_of_several_files::{name}");
        trials.push(Trial::test(name, move || {
            test();
            Ok(())
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn has_rings() -> bool {
    RingPool::new(1, 1).inspect_err(|error| skip(&error.to_string())).is_ok()
}

/// A process with as many rings as the queues of one disk need.
fn process(settings: &DiskSettings) -> Process {
    Process::start(if settings.engine == EngineKind::IoUring { QUEUES } else { 0 })
}

/// A disk that the test's file system has direct I/O for, if that is needed.
fn raw(directory: &TempDir, settings: &DiskSettings) -> Option<PathBuf> {
    let path = directory.path().join("disk.img");
    fs::write(&path, original(0, DISK_LEN as usize / 512)).unwrap();
    match Storage::files(&path, true, settings) {
        Err(error @ OpenError::Direct { .. }) => {
            skip(&error.to_string());
            None
        }
        opened => opened.map(|_| Some(path.clone())).unwrap(),
    }
}

fn a_confined_process_serves_one_image_after_another(settings: &DiskSettings) {
    let mut process = process(settings);
    for _ in 0..3 {
        serve_raw(&mut process, settings);
    }
    process.end();
}

fn a_confined_process_without_io_urings_serves_a_disk_by_the_synchronous_engine(
    settings: &DiskSettings,
) {
    let mut process = Process::start(0);
    serve_raw(&mut process, settings);
    process.end();
}

fn serve_raw(process: &mut Process, settings: &DiskSettings) {
    let directory = TempDir::new().unwrap();
    let Some(path) = raw(&directory, settings) else { return };
    let files = Storage::files(&path, false, settings).unwrap();
    assert_eq!(process.attach(settings, files), DISK_LEN);
    process.does(&Request::Serve);
    grow(&path, 2 * DISK_LEN);
    assert_eq!(process.ask(&Request::Refresh, &[]), Answer::Capacity(2 * DISK_LEN));
    RawImage::open(&path, false).expect_err("the confined process has the lock");
    process.does(&Request::Detach);
    wait_closed(&path);
    assert!(fs::read(&path).unwrap()[..DISK_LEN as usize] == served());
}

fn a_confined_process_serves_an_image_that_is_only_read(settings: &DiskSettings) {
    let directory = TempDir::new().unwrap();
    let Some(path) = raw(&directory, settings) else { return };
    let mut process = process(settings);
    for _ in 0..2 {
        process.attach(settings, Storage::files(&path, true, settings).unwrap());
        process.does(&Request::Serve);
        process.does(&Request::Detach);
        wait_closed(&path);
    }
    process.end();
}

/// Of a device that takes writes into the page cache, and has no room for them.
fn a_write_error_reaches_each_queue_of_a_confined_process(settings: &DiskSettings) {
    let directory = TempDir::new().unwrap();
    let options = ["-t", "tmpfs", "-o", "size=1M", "none"].map(OsStr::new);
    with_mount(&[&options[..], &[directory.path().as_os_str()]].concat(), || {
        let file = directory.path().join("disk.img");
        fs::write(&file, []).unwrap();
        grow(&file, 8 << 20);
        let Some(device) = Loop::new(&file, 512) else { return };
        let mut process = process(settings);
        process.attach(settings, Storage::files(&device.0, false, settings).unwrap());
        let mut statuses = |request| match process.ask(&request, &[]) {
            Answer::Statuses(statuses) => statuses,
            other => panic!("{other:?}"),
        };
        assert_eq!(statuses(Request::Flush), [OK; QUEUES as usize]);
        assert_eq!(statuses(Request::Write(4 << 11)), [OK; QUEUES as usize]);
        assert_eq!(statuses(Request::Flush), [IOERR; QUEUES as usize]);
        process.does(&Request::Detach);
        process.end();
    });
}
