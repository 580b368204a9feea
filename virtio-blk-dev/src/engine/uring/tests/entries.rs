use io_uring::{opcode, squeue};

use super::*;
use crate::engine::uring::slots::{Slot, Stage};

const NONE: Target = Target {
    file: types::Fd(0),
    flags: squeue::Flags::empty(),
    discard: false,
    write_zeroes: false,
    unmap: false,
};
const ALL: Target = Target { discard: true, write_zeroes: true, unmap: true, ..NONE };

fn slot(io: Io) -> Slot {
    let stage = Stage::Operation;
    Slot {
        io,
        stage,
        try_inline: true,
        force_async: false,
        needs_bounce: false,
        buffer: None,
        position: None,
    }
}

/// `rw_flags` of `struct io_uring_sqe` (linux/io_uring.h), which `fsync_flags` shares its place with.
fn flags(entry: &squeue::Entry) -> u32 {
    // SAFETY: an entry is the 64 bytes of that structure.
    let bytes = unsafe { std::ptr::from_ref(entry).cast::<[u8; 64]>().read() };
    u32::from_ne_bytes(bytes[28..32].try_into().unwrap())
}

#[test]
fn a_write_that_must_be_durable_says_so_in_its_entry() {
    let ram = Ram::new(8192);
    for parts in [&[(0, 512)][..], &[(0, 512), (4096, 512)][..]] {
        for (durable, expected) in [(true, libc::RWF_DSYNC), (false, 0)] {
            let write = slot(ram.io(1, Command::Write, durable, 0, parts));
            let entry = sqe::entry(&write, ALL).unwrap();
            assert_eq!(flags(&entry), expected as u32);
            let code = if parts.len() == 1 { opcode::Write::CODE } else { opcode::Writev::CODE };
            assert_eq!(entry.get_opcode(), u32::from(code));
            let read = slot(ram.io(1, Command::Read, durable, 0, parts));
            assert_eq!(flags(&sqe::entry(&read, ALL).unwrap()), 0);
        }
    }
}

#[test]
fn a_flush_leaves_metadata_that_no_read_needs() {
    let ram = Ram::new(4096);
    let flush = slot(ram.command(1, Command::Flush, false, (0, 0)));
    let entry = sqe::entry(&flush, ALL).unwrap();
    assert_eq!(entry.get_opcode(), u32::from(opcode::Fsync::CODE));
    assert_eq!(flags(&entry), 1, "IORING_FSYNC_DATASYNC");
}

#[test]
fn what_a_file_can_be_told_goes_through_the_ring() {
    let ram = Ram::new(4096);
    for command in [
        Command::Discard,
        Command::WriteZeroes { unmap: true },
        Command::WriteZeroes { unmap: false },
    ] {
        let slot = slot(ram.command(1, command, true, (512, 1024)));
        let entry = sqe::entry(&slot, ALL).unwrap();
        assert_eq!(entry.get_opcode(), u32::from(opcode::Fallocate::CODE));
        assert!(sqe::entry(&slot, NONE).is_none());
    }
    let erase = slot(ram.command(1, Command::SecureErase, true, (512, 1024)));
    assert!(sqe::entry(&erase, ALL).is_none());
}

#[test]
fn ranges_are_punched_and_zeroed_and_made_durable() {
    let ram = Ram::new(4096);
    for config in configs(4) {
        let (file, image) = disk(64);
        let Some(mut engine) = engine(&image, &config) else { return };
        engine.target = Target { file: engine.target.file, flags: engine.target.flags, ..ALL };
        for (n, command) in [
            Command::Discard,
            Command::WriteZeroes { unmap: true },
            Command::WriteZeroes { unmap: false },
        ]
        .into_iter()
        .enumerate()
        {
            let at = (8 + n as u64 * 8) * SECTOR;
            engine.submit(ram.command(n as u64, command, n % 2 == 0, (at, 8 * SECTOR)));
        }
        assert_eq!(results(&finish(&mut engine)), [(0, None), (1, None), (2, None)]);
        let contents = std::fs::read(file.path()).unwrap();
        assert_eq!(contents.len(), 64 * 512);
        assert_eq!(contents[7 * 512..8 * 512], [7; 512]);
        assert!(contents[8 * 512..32 * 512].iter().all(|byte| *byte == 0));
        assert_eq!(contents[32 * 512..33 * 512], [32; 512]);
    }
}
