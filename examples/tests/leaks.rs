//! What is left in the process when guests and disks have gone. The one test of its file, as it counts
//! what belongs to the whole process.

mod common;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use common::{host::Host, virtio_driver::probe};
use xen_virtio_backend::fake::{DeviceConfig, GuestKernel, Sharing};

/// Descriptors, threads, and mappings of guests' memory.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

fn held() -> Held {
    let entries = |dir| fs::read_dir(dir).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    Held {
        descriptors: entries("/proc/self/fd"),
        threads: entries("/proc/self/task"),
        mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
    }
}

/// A thread that has told of its end is there a moment longer.
fn held_at_rest() -> Held {
    let (mut last, mut since) = (held(), Instant::now());
    while since.elapsed() < Duration::from_millis(200) {
        thread::sleep(Duration::from_millis(5));
        let now = held();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

fn one_life(host: &mut Host, sharing: Sharing, destroyed: bool) {
    let domain = host.create_guest(1);
    let kernel = GuestKernel::new(&domain, sharing);
    let good = DeviceConfig::disk(1, 0, host.image("good.img", 1 << 16)).sharing(sharing);
    let bad = DeviceConfig::disk(1, 1, host.image("bad.img", 0)).sharing(sharing);
    host.serve(&good);
    host.add_device(&bad);
    host.settle();
    assert!(host.error(&bad).is_some());
    let window = host.window(&good);
    let mut driver = probe(window.clone(), &kernel).unwrap();
    driver.write_blocks(0, &[1; 8192]).unwrap();
    if destroyed {
        // With its rings mapped.
        host.destroy_guest(1);
        host.settle();
        window.power_off();
        drop(driver);
    } else {
        drop(driver);
        host.close_device(&good);
        host.close_device(&bad);
        host.settle();
        host.destroy_guest(1);
    }
    host.settle();
    for disk in [good, bad] {
        host.remove_device(&disk);
    }
    host.settle();
}

#[test]
fn nothing_is_left_when_guests_have_gone() {
    let mut host = Host::new();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        for destroyed in [false, true] {
            // Once for what is made at its first use and stays.
            one_life(&mut host, sharing, destroyed);
            let before = held_at_rest();
            for _ in 0..5 {
                one_life(&mut host, sharing, destroyed);
            }
            assert_eq!(held_at_rest(), before, "{sharing:?}, destroyed {destroyed}");
        }
    }
}
