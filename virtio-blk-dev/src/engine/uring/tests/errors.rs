//! What an errno of the kernel comes to.

use std::io::Read;
use std::os::fd::OwnedFd;

use super::direct::{bouncing, direct};
use super::*;
use crate::image::Flusher;

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

/// A file of which a write-back error hasn't been reported here.
struct Lost;

impl Flusher for Lost {
    fn flush(&self) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }
}

#[test]
fn a_durable_write_without_room_is_told_from_one_whose_data_was_lost() {
    let ram = Ram::new(4096);
    let (_file, image) = disk(64);
    let write = |durable| ram.io(1, Command::Write, durable, 0, &[(0, 512)]);
    let Some(mut engine) = engine(&image, &configs(4)[0]) else { return };
    for errno in [libc::ENOSPC, libc::EDQUOT, libc::EFBIG] {
        let done = answered(&mut engine, write(true), errno).expect("an answer");
        assert!(!done.io.loses_durability(), "the data was never taken");
        assert_eq!(results(&[done]), [(1, Some(errno))]);
    }
    let done = answered(&mut engine, write(true), libc::EIO).expect("an answer");
    assert!(done.io.loses_durability());

    // The other open file description tells, too.
    engine.sync_engine.flusher = Some(Box::new(Lost));
    let done = answered(&mut engine, write(true), libc::ENOSPC).expect("an answer");
    assert!(done.io.loses_durability());
    assert_eq!(results(&[done]), [(1, Some(libc::EIO))]);

    // Where there is only one, it can't be known.
    engine.sync_engine.flusher = None;
    let done = answered(&mut engine, write(true), libc::ENOSPC).expect("an answer");
    assert!(done.io.loses_durability());
}

#[test]
fn what_lies_beyond_the_image_is_refused_and_nothing_is_lost() {
    let ram = Ram::new(4096);
    let (_file, image) = disk(64);
    let Some(mut engine) = engine(&image, &configs(4)[0]) else { return };
    let io = || ram.io(1, Command::Write, true, 64 * SECTOR, &[(0, 512)]);
    for done in [engine.submit(io()), engine.submit_alone(io())] {
        let done = done.expect("at once");
        assert!(!done.io.loses_durability());
        assert_eq!(results(&[done]), [(1, Some(libc::ENOSPC))]);
    }
}

#[test]
fn engines_of_one_image_have_open_file_descriptions_of_their_own() {
    let (_file, image) = disk(64);
    let Some(first) = engine(&image, &configs(4)[0]) else { return };
    let Some(second) = engine(&image, &configs(4)[0]) else { return };
    let file = |engine: &UringEngine| engine.target.file.0;
    assert!(file(&first) != file(&second) && file(&first) != image.as_fd().as_raw_fd());
}
