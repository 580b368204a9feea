//! What an errno of the kernel comes to.

use std::io::Read;
use std::os::fd::OwnedFd;

use super::direct::{bouncing, direct};
use super::*;

const RANGES: [Command; 3] =
    [Command::Discard, Command::WriteZeroes { unmap: true }, Command::WriteZeroes { unmap: false }];

/// Has the kernel answer `io` with `errno`; what the engine makes of that.
fn answered(engine: &mut UringEngine, io: Io, errno: i32) -> Option<Completion> {
    let index = engine.slots.insert(io, false);
    let completion = engine.complete(index, -errno);
    assert!(engine.waiting.is_empty(), "errno {errno}: it is tried once more");
    completion.or_else(|| engine.done.pop())
}

#[test]
fn a_range_that_the_ring_cannot_do_is_done_as_by_the_synchronous_engine() {
    let ram = Ram::new(4096);
    for (nth, open) in [|| Some(disk(64)), || direct(64)].into_iter().enumerate() {
        let Some((file, image)) = open() else { return };
        let Some(mut engine) = engine(&image, &bouncing(false)) else { return };
        for errno in [libc::EINVAL, libc::ENOSYS, libc::ENOTTY, libc::EOPNOTSUPP] {
            for command in RANGES {
                std::fs::write(file.path(), contents(64)).unwrap();
                let io = ram.command(1, command, false, (8 * SECTOR, 8 * SECTOR));
                let done = answered(&mut engine, io, errno).expect("an answer");
                assert_eq!(results(&[done]), [(1, None)], "{command:?}, {errno}, image {nth}");
                let mut expected = contents(64);
                expected[8 * 512..16 * 512].fill(0);
                assert!(std::fs::read(file.path()).unwrap() == expected, "{command:?}, {errno}");
            }
        }
    }
}

#[test]
fn an_error_of_a_range_or_a_flush_is_its_answer() {
    let ram = Ram::new(4096);
    let Some((file, image)) = direct(64) else { return };
    let Some(mut engine) = engine(&image, &bouncing(false)) else { return };
    for command in RANGES {
        for errno in [libc::EFAULT, libc::EIO, libc::ENOSPC, libc::EPERM] {
            let io = ram.command(1, command, false, (8 * SECTOR, 8 * SECTOR));
            let done = answered(&mut engine, io, errno).expect("an answer");
            assert_eq!(results(&[done]), [(1, Some(errno))], "{command:?}");
        }
    }
    for errno in [libc::EFAULT, libc::EINVAL, libc::ENOSYS, libc::EIO] {
        let io = ram.command(1, Command::Flush, false, (0, 0));
        let done = answered(&mut engine, io, errno).expect("an answer");
        assert_eq!(results(&[done]), [(1, Some(errno))]);
    }
    assert!(std::fs::read(file.path()).unwrap() == contents(64));
}

#[test]
fn a_flush_that_the_kernel_finds_invalid_writes_nothing() {
    let ram = Ram::new(4096);
    let Some((_file, image)) = direct(64) else { return };
    let Some(mut engine) = engine(&image, &bouncing(false)) else { return };
    // fsync(2): EINVAL, as a pipe can't be synchronised.
    let (mut reader, writer) = io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    engine.target.file = types::Fd(writer.as_raw_fd());
    engine.submit(ram.command(1, Command::Flush, false, (0, 0)));
    assert_eq!(results(&finish(&mut engine)), [(1, Some(libc::EINVAL))]);
    drop((engine, writer));
    let mut written = Vec::new();
    reader.read_to_end(&mut written).unwrap();
    assert!(written.is_empty(), "{} bytes of a buffer were written", written.len());
}
