use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;

use super::*;

#[test]
fn more_operations_than_depth_all_complete() {
    let ram = Ram::new(1 << 20);
    let (_file, image) = disk(256);
    for config in configs(4) {
        let Some(mut engine) = engine(&image, &config) else { return };
        for n in 0..200 {
            engine.submit(ram.io(n, Command::Read, false, n * SECTOR, &[(n * SECTOR, 512)]));
        }
        assert_eq!(engine.in_flight(), 200);
        let done = finish(&mut engine);
        assert_eq!(results(&done), (0..200).map(|n| (n, None)).collect::<Vec<_>>());
        for n in 0..200 {
            assert_eq!(ram.get(n * SECTOR, 512), [n as u8; 512]);
        }
    }
}

#[test]
fn nothing_goes_to_the_kernel_before_its_commit() {
    let ram = Ram::new(4096);
    let (_file, image) = disk(8);
    let Some(mut engine) = engine(&image, &configs(4)[1]) else { return };
    ram.fill(0, 512, 0xaa);
    engine.submit(ram.io(1, Command::Read, false, SECTOR, &[(0, 512)]));
    engine.poll_completions(&mut |_| panic!("not committed"));
    assert_eq!((engine.in_flight(), ram.get(0, 1)[0]), (1, 0xaa));
    assert_eq!(results(&finish(&mut engine)), [(1, None)]);
}

#[test]
fn a_lone_operation_needs_no_commit() {
    let ram = Ram::new(4096);
    let (_file, image) = disk(8);
    for config in configs(4) {
        let Some(mut engine) = engine(&image, &config) else { return };
        ram.fill(0, 512, 0xaa);
        for io in [
            ram.io(1, Command::Write, false, SECTOR, &[(0, 512)]),
            ram.io(2, Command::Read, false, SECTOR, &[(512, 512)]),
            ram.command(3, Command::Flush, false, (0, 0)),
        ] {
            let tag = io.tag();
            let mut done: Vec<_> = engine.submit_alone(io).into_iter().collect();
            if done.is_empty() {
                done = finish_committed(&mut engine);
            }
            assert_eq!((results(&done), engine.in_flight()), (vec![(tag, None)], 0));
        }
        assert_eq!(ram.get(512, 512), [0xaa; 512]);
        // The end of the file is found the long way.
        let io = ram.io(4, Command::Read, false, 8 * SECTOR, &[(0, 512)]);
        assert!(engine.submit_alone(io).is_none());
        assert_eq!(results(&finish_committed(&mut engine)), [(4, Some(-1))]);
        let io = ram.io(5, Command::Write, false, 8 * SECTOR, &[(0, 512)]);
        assert!(engine.submit_alone(io).unwrap().result.is_err(), "the image doesn't grow");
    }
}

#[test]
fn what_was_submitted_before_is_begun_with_a_lone_operation() {
    let ram = Ram::new(4096);
    let (_file, image) = disk(8);
    for config in configs(4) {
        let Some(mut engine) = engine(&image, &config) else { return };
        engine.submit(ram.command(1, Command::Flush, false, (0, 0)));
        let lone = ram.io(2, Command::Read, false, SECTOR, &[(0, 512)]);
        let mut done: Vec<_> = engine.submit_alone(lone).into_iter().collect();
        done.append(&mut finish_committed(&mut engine));
        done.sort_by_key(|completion| completion.io.tag());
        assert_eq!(results(&done), [(1, None), (2, None)]);

        // Nor does one that is refused at once keep it waiting.
        engine.submit(ram.command(1, Command::Flush, false, (0, 0)));
        let lone = ram.io(2, Command::Write, false, 8 * SECTOR, &[(0, 512)]);
        assert!(engine.submit_alone(lone).unwrap().result.is_err(), "beyond the end");
        assert_eq!(results(&finish_committed(&mut engine)), [(1, None)]);
    }
}

#[test]
fn what_is_in_memory_is_read_at_once_if_it_comes_alone() {
    let ram = Ram::new(4096);
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
    assert_ne!(fd, -1);
    // SAFETY: the descriptor was just opened, and nobody else has it.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(&contents(8)).unwrap();
    let image = Arc::new(RawImage::open(format!("/proc/self/fd/{fd}"), false).unwrap());
    let Some(mut engine) = engine(&image, &UringConfig::default()) else { return };
    let io = ram.io(1, Command::Read, false, SECTOR, &[(0, 512)]);
    let done = engine.submit_alone(io).expect("a file that is memory");
    assert_eq!(results(&[done]), [(1, None)]);
    assert_eq!(ram.get(0, 512), [1; 512]);
}

#[test]
fn what_a_system_call_has_no_room_for_is_continued() {
    let ram = Ram::new(1 << 20);
    let (_file, image) = disk(64);
    let parts: Vec<_> = (0..2048).map(|n| (n * 32, 8)).collect();
    for config in configs(4) {
        let Some(mut engine) = engine(&image, &config) else { return };
        engine.submit(ram.io(1, Command::Read, false, SECTOR, &parts));
        assert_eq!(results(&finish(&mut engine)), [(1, None)]);
        for (n, &(addr, len)) in parts.iter().enumerate() {
            assert_eq!(ram.get(addr, len), [1 + (n * 8 / 512) as u8; 8]);
        }
    }
}

#[test]
fn a_file_cut_short_fails_what_lies_beyond_its_end() {
    let ram = Ram::new(1 << 16);
    let (file, image) = disk(8);
    file.as_file().set_len(3 * SECTOR).unwrap();
    for config in configs(4) {
        let Some(mut engine) = engine(&image, &config) else { return };
        engine.submit(ram.io(1, Command::Read, false, 2 * SECTOR, &[(0, 512)]));
        engine.submit(ram.io(2, Command::Read, false, 2 * SECTOR, &[(0x1000, 1024)]));
        engine.submit(ram.io(3, Command::Read, false, 4 * SECTOR, &[(0x2000, 512), (0x3000, 9)]));
        let done = finish(&mut engine);
        assert_eq!(results(&done), [(1, None), (2, Some(-1)), (3, Some(-1))]);
        let kind = done[1].result.as_ref().unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_read_only_image_is_not_written() {
    let ram = Ram::new(4096);
    let (file, image) = disk(8);
    drop(image);
    let image = Arc::new(RawImage::open(file.path(), true).unwrap());
    for config in configs(4) {
        let Some(mut engine) = engine(&image, &config) else { return };
        for durable in [false, true] {
            let done = engine.submit(ram.io(1, Command::Write, durable, 0, &[(0, 512)]));
            let error = done.unwrap().result.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        }
    }
}

#[test]
fn memory_that_is_not_there_fails_the_one_operation() {
    let (ram, nothing) = (Ram::new(4096), Ram::forbidden(4096));
    let (_file, image) = disk(8);
    for config in configs(4) {
        let Some(mut engine) = engine(&image, &config) else { return };
        engine.submit(ram.io(1, Command::Read, false, SECTOR, &[(0, 512)]));
        engine.submit(nothing.io(2, Command::Read, false, SECTOR, &[(0, 512)]));
        engine.submit(nothing.io(3, Command::Write, true, SECTOR, &[(0, 256), (512, 256)]));
        engine.submit(ram.io(4, Command::Read, false, SECTOR, &[(512, 512)]));
        let fault = Some(libc::EFAULT);
        let expected = [(1, None), (2, fault), (3, fault), (4, None)];
        assert_eq!(results(&finish(&mut engine)), expected);
        assert_eq!(ram.get(0, 1024), [1; 1024]);
    }
}

#[test]
fn positions_that_no_file_has_are_refused() {
    let ram = Ram::new(4096);
    let (file, image) = disk(8);
    for config in configs(4) {
        let Some(mut engine) = engine(&image, &config) else { return };
        // -1 is where the file stands, for the kernel.
        for at in [u64::MAX, 1 << 63] {
            engine.submit(ram.io(1, Command::Read, false, at, &[(0, 512)]));
            let done = finish(&mut engine);
            assert_eq!(done[0].result.as_ref().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        // Nor does a write make the file grow.
        for at in [u64::MAX, 1 << 63, 8 * SECTOR, 7 * SECTOR + 1] {
            let done = engine.submit(ram.io(1, Command::Write, false, at, &[(0, 512)]));
            let error = done.unwrap().result.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        }
        assert_eq!(file.path().metadata().unwrap().len(), 8 * SECTOR);
    }
}

#[test]
fn a_dropped_engine_has_waited_for_the_kernel() {
    let (file, image) = disk(64);
    for config in configs(8) {
        let ram = Ram::new(1 << 16);
        ram.fill(0, 1 << 15, 0x77);
        let Some(mut engine) = engine(&image, &config) else { return };
        for n in 0..8 {
            let at = n * 8 * SECTOR;
            engine.submit(ram.io(n, Command::Write, true, at, &[(at, 8 * 512)]));
        }
        engine.commit();
        drop(engine);
        // Whatever it wrote, it wrote before: the memory is gone.
        drop(ram);
        assert_eq!(std::fs::read(file.path()).unwrap(), [0x77; 64 * 512]);
        std::fs::write(file.path(), [0; 64 * 512]).unwrap();
    }
}

#[test]
fn a_dropped_engine_forgets_what_was_not_committed() {
    let ram = Ram::new(4096);
    let (file, image) = disk(8);
    let Some(mut engine) = engine(&image, &configs(4)[1]) else { return };
    engine.submit(ram.io(1, Command::Write, false, SECTOR, &[(0, 512)]));
    drop(engine);
    assert_eq!(std::fs::read(file.path()).unwrap()[512..1024], [1; 512]);
}

#[test]
fn the_descriptor_tells_of_completions_wherever_the_engine_was_made() {
    let ram = Ram::new(1 << 16);
    let (_file, image) = disk(64);
    let Some(mut engine) = engine(&image, &configs(8)[1]) else { return };
    let mut poll =
        libc::pollfd { fd: engine.as_fd().unwrap().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which outlives the call.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 0, "nothing to tell of yet");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..50 {
                let write = ram.io(round, Command::Write, true, 0, &[(0, 512)]);
                engine.submit(write);
                engine.commit();
                // A write may take seconds on a loaded machine; a completion that nobody is told of
                // never comes.
                // SAFETY: as above.
                let ready = unsafe { libc::poll(&raw mut poll, 1, 60_000) };
                assert_eq!(ready, 1, "round {round}");
                assert_eq!(results(&finish(&mut engine)), [(round, None)]);
            }
        });
    });
}

#[test]
fn discards_and_zeroes_go_to_whoever_can() {
    let ram = Ram::new(4096);
    let (_file, image) = disk(8);
    let sync_engine = |io| {
        let mut sync_engine = SyncEngine::new(Arc::clone(&image));
        sync_engine.submit(io).is_some_and(|completion| completion.result.is_ok())
    };
    let Some(mut engine) = engine(&image, &configs(4)[0]) else { return };
    for command in [
        Command::Discard,
        Command::WriteZeroes { unmap: true },
        Command::WriteZeroes { unmap: false },
        Command::SecureErase,
    ] {
        for durable in [false, true] {
            let range = (SECTOR, 3 * SECTOR);
            engine.submit(ram.command(1, command, durable, range));
            let done = finish(&mut engine);
            let expected = sync_engine(ram.command(1, command, durable, range));
            assert_eq!(done[0].result.is_ok(), expected, "{command:?}");
        }
    }
}

#[test]
fn what_one_thread_began_another_takes_over() {
    let ram = Ram::new(1 << 16);
    ram.fill(0, 1 << 15, 0x55);
    let (file, image) = disk(64);
    let Some(mut engine) = engine(&image, &configs(16)[1]) else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..8 {
                let at = n * 8 * SECTOR;
                engine.submit(ram.io(n, Command::Write, true, at, &[(at, 8 * 512)]));
            }
            engine.commit();
        });
    });
    // The kernel cancels what its thread has not begun when that ends.
    let done = finish(&mut engine);
    assert_eq!(results(&done), (0..8).map(|n| (n, None)).collect::<Vec<_>>());
    assert_eq!(std::fs::read(file.path()).unwrap(), [0x55; 64 * 512]);
}

#[test]
fn an_image_can_be_opened_as_soon_as_its_engine_is_gone() {
    let (file, image) = disk(8);
    let ram = Ram::new(4096);
    drop(image);
    for round in 0..50 {
        let image = Arc::new(RawImage::open(file.path(), false).unwrap());
        let Some(mut engine) = engine(&image, &configs(4)[1]) else { return };
        engine.submit(ram.io(round, Command::Read, false, 0, &[(0, 512)]));
        finish(&mut engine);
    }
}
