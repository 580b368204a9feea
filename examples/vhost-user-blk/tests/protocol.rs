//! The program and a frontend that does everything right.

mod common;

use common::{Backend, driver::*};
use vhost::{VhostBackend, vhost_user::VhostUserFrontend};
use vm_memory::{Bytes, GuestAddress};

#[test]
fn a_frontend_reads_writes_flushes_and_learns_where_the_queue_stands() {
    for features in [BASIC, BASIC | EVENT_IDX] {
        let backend = Backend::start(64, &[]);
        let mut vmm = Vmm::connect(&backend, features);
        let mut queue = vmm.queue(0, 0, features);
        let (status, data) = queue.request(&vmm, &backend, (IN, 5), &[0; 1024]);
        assert_eq!((status, &data[..512], &data[512..]), (0, &[5; 512][..], &[6; 512][..]));
        let (status, _) = queue.request(&vmm, &backend, (OUT, 9), &[0xab; 512]);
        assert_eq!((status, backend.sector(9)), (0, [0xab; 512]));
        assert_eq!(queue.request(&vmm, &backend, (FLUSH, 0), &[]).0, 0);
        assert_eq!(queue.request(&vmm, &backend, (IN, 64), &[0; 512]).0, 1, "beyond the end");
        assert_eq!(vmm.frontend.get_vring_base(0).unwrap(), 4);

        // Stopped: what comes now waits until the queue is set up again. The interrupts of before
        // have all been sent, and may not have been waited for.
        let _ = queue.call.read();
        queue.submit(&vmm, IN, 7, &[0; 512]);
        assert!(!readable(&queue.call) && queue.used_index(&vmm) == 4, "served while stopped");
        queue.set_up(&mut vmm, 4).unwrap();
        queue.wait(&vmm, &backend);
        assert_eq!(queue.request(&vmm, &backend, (IN, 9), &[0; 512]).1, [0xab; 512]);
    }
}

#[test]
fn what_is_offered_is_what_the_block_device_has() {
    let options = ["--queues", "2", "--read-only", "--serial", "disk-1"];
    let backend = Backend::start(64, &options);
    let mut vmm = Vmm::connect(&backend, BASIC | EVENT_IDX);
    let offered = vmm.frontend.get_features().unwrap();
    for (bit, name) in [
        (2, "SEG_MAX"),
        (5, "RO"),
        (6, "BLK_SIZE"),
        (9, "FLUSH"),
        (12, "MQ"),
        (28, "INDIRECT_DESC"),
        (29, "EVENT_IDX"),
        (30, "PROTOCOL_FEATURES"),
        (32, "VERSION_1"),
    ] {
        assert_ne!(offered & 1 << bit, 0, "{name}");
    }
    assert_eq!(vmm.frontend.get_queue_num().unwrap(), 2);
    assert!(vmm.frontend.get_max_mem_slots().unwrap() >= 8);
    // QEMU asks for more than the fields that this device has.
    let config = vmm.config(0, 60);
    assert_eq!(config[..8], 64_u64.to_le_bytes(), "capacity");
    assert_eq!(config[12..16], 126_u32.to_le_bytes(), "seg_max fits QEMU's queues of 128");
    assert_eq!(config[34..36], 2_u16.to_le_bytes(), "num_queues");
    assert_eq!(config.len(), 60);
    assert_eq!(vmm.config(34, 2), [2, 0]);

    let mut queue = vmm.queue(0, 0, BASIC);
    let (status, serial) = queue.request(&vmm, &backend, (GET_ID, 0), &[0xff; 20]);
    assert_eq!((status, &serial[..7]), (0, &b"disk-1\0"[..]));
    assert_eq!(queue.request(&vmm, &backend, (OUT, 0), &[1; 512]).0, 1, "read-only");
    assert_eq!(backend.sector(0), [0; 512]);
}

#[test]
fn no_kick_is_lost_while_the_thread_polls_or_sleeps() {
    for poll in ["0", "50"] {
        for features in [BASIC, BASIC | EVENT_IDX] {
            let backend = Backend::start(64, &["--poll-us", poll]);
            let mut vmm = Vmm::connect(&backend, features);
            let mut queue = vmm.queue(0, 0, features);
            for round in 0..500_u64 {
                let sector = round % 64;
                let (status, data) = queue.request(&vmm, &backend, (IN, sector), &[0xff; 512]);
                assert_eq!((status, data), (0, vec![sector as u8; 512]), "round {round}");
                // Now within the time that is polled, now beyond.
                if round % 50 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        }
    }
}

#[test]
fn queues_are_served_side_by_side_and_disabled_one_by_one() {
    let features = BASIC | EVENT_IDX | 1 << 12;
    let backend = Backend::start(64, &["--queues", "2", "--cpus", "0"]);
    let mut vmm = Vmm::connect(&backend, features);
    let mut first = vmm.queue(0, 0, features);
    let mut second = vmm.queue(1, 0, features);
    vmm.frontend.set_vring_enable(0, false).unwrap();
    first.submit(&vmm, IN, 1, &[0; 512]);
    assert_eq!(second.request(&vmm, &backend, (IN, 2), &[0; 512]).1, [2; 512]);
    assert_eq!(first.used_index(&vmm), 0, "a disabled queue was served");
    vmm.frontend.set_vring_enable(0, true).unwrap();
    first.wait(&vmm, &backend);
    assert_eq!(second.request(&vmm, &backend, (IN, 3), &[0; 512]).1, [3; 512]);
}

#[test]
fn memory_changes_under_a_running_queue() {
    let features = BASIC | EVENT_IDX;
    let backend = Backend::start(64, &[]);
    let mut vmm = Vmm::connect(&backend, features);
    let mut queue = vmm.queue(0, 0, features);
    assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).1, [1; 512]);

    // The same content elsewhere in this process and in another file: a new table, no new rings.
    let elsewhere = memory();
    let mut all = vec![0; LEN];
    vmm.memory.read_slice(&mut all, GuestAddress(BASE)).unwrap();
    elsewhere.write_slice(&all, GuestAddress(BASE)).unwrap();
    let old = std::mem::replace(&mut vmm.memory, elsewhere);
    let mut regions = vmm.regions();
    // Rings keep the addresses that the frontend gave them.
    regions[0].userspace_addr = user(&old, BASE);
    vmm.frontend.set_mem_table(&regions).unwrap();
    assert_eq!(queue.request(&vmm, &backend, (IN, 2), &[0; 512]).1, [2; 512]);

    // More of it, and less.
    let mut added = vmm.regions()[0];
    added.guest_phys_addr = BASE * 2;
    added.userspace_addr = 0x1000;
    vmm.frontend.add_mem_region(&added).unwrap();
    assert_eq!(queue.request(&vmm, &backend, (IN, 3), &[0; 512]).1, [3; 512]);
    vmm.frontend.remove_mem_region(&added).unwrap();
    assert_eq!(queue.request(&vmm, &backend, (IN, 4), &[0; 512]).1, [4; 512]);
    assert_eq!(vmm.frontend.get_vring_base(0).unwrap(), 4);
}

#[test]
fn another_frontend_goes_on_where_the_last_one_left() {
    let features = BASIC | EVENT_IDX;
    let backend = Backend::start(64, &[]);
    let mut vmm = Vmm::connect(&backend, features);
    let mut queue = vmm.queue(0, 0, features);
    assert_eq!(queue.request(&vmm, &backend, (OUT, 3), &[0x77; 512]).0, 0);
    // It vanishes with the queue running, as a VMM that is killed.
    let memory = vmm.memory.clone();
    drop(vmm);
    backend.logs("the frontend has disconnected", 2);

    // The guest's memory and rings are as they were: a VMM that reconnects.
    let mut vmm = Vmm::with_memory(&backend, features, memory);
    queue.set_up(&mut vmm, 1).unwrap();
    assert_eq!(queue.request(&vmm, &backend, (IN, 3), &[0; 512]).1, [0x77; 512]);
    drop(vmm);

    // Other memory and rings from the start: a guest that booted again.
    let mut vmm = Vmm::connect(&backend, features);
    let mut queue = vmm.queue(0, 0, features);
    assert_eq!(queue.request(&vmm, &backend, (IN, 3), &[0; 512]).1, [0x77; 512]);
}
