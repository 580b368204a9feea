//! A ring that the kernel no longer serves.

use std::io::{PipeWriter, Write};
use std::thread;

use super::refusal::refuse;
use super::*;

/// An engine whose operations on `file` end when something is written to the pipe.
fn on_a_pipe(engine: &mut UringEngine) -> (io::PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    engine.target.file = types::Fd(reader.as_raw_fd());
    (reader, writer)
}

/// Does `test` on a thread whose further attempts to enter a ring fail.
fn with_broken(engine: UringEngine, errno: i32, test: impl FnOnce(UringEngine) + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse(libc::SYS_io_uring_enter, errno);
            test(engine);
        });
        thread.join().unwrap();
    });
}

#[test]
fn what_a_ring_never_took_is_carried_out_all_the_same() {
    for errno in [libc::EPERM, libc::EBADF, libc::EINVAL] {
        for config in configs(4) {
            let ram = Ram::new(1 << 16);
            let (file, image) = disk(64);
            ram.fill(0, 512, 0xaa);
            let Some(engine) = engine(&image, &config) else { return };
            with_broken(engine, errno, |mut engine| {
                for n in 0..20 {
                    let at = 512 + n * SECTOR;
                    engine.submit(ram.io(n, Command::Read, false, n * SECTOR, &[(at, 512)]));
                }
                engine.submit(ram.io(20, Command::Write, true, 60 * SECTOR, &[(0, 512)]));
                let zeroes = Command::WriteZeroes { unmap: false };
                engine.submit(ram.command(21, zeroes, true, (61 * SECTOR, SECTOR)));
                engine.submit(ram.command(22, Command::Flush, false, (0, 0)));
                let done = finish(&mut engine);
                assert_eq!(results(&done), (0..23).map(|n| (n, None)).collect::<Vec<_>>());
                let fault = engine.take_fault().expect("a fault");
                assert_eq!((fault.held, fault.error.raw_os_error()), (0, Some(errno)));
                assert!(engine.take_fault().is_none(), "it is told once");
                // And so it goes on.
                engine.submit(ram.io(1, Command::Read, false, SECTOR, &[(0, 512)]));
                assert_eq!(results(&finish(&mut engine)), [(1, None)]);
            });
            for n in 0..20 {
                assert_eq!(ram.get(512 + n * SECTOR, 512), [n as u8; 512]);
            }
            let contents = std::fs::read(file.path()).unwrap();
            assert!(contents[60 * 512..61 * 512] == [0xaa; 512]);
            assert!(contents[61 * 512..62 * 512] == [0; 512]);
        }
    }
}

#[test]
fn what_the_kernel_took_before_its_ring_broke_still_completes() {
    let ram = Ram::new(1 << 16);
    let (_file, image) = disk(64);
    let Some(mut engine) = engine(&image, &configs(8)[1]) else { return };
    let file = engine.target.file;
    let (_reader, mut writer) = on_a_pipe(&mut engine);
    with_broken_after(engine, &ram, |mut engine| {
        engine.target.file = file;
        engine.submit(ram.io(2, Command::Read, false, 2 * SECTOR, &[(512, 512)]));
        engine.commit();
        let mut done = Vec::new();
        engine.poll_completions(&mut |completion| done.push(completion));
        assert_eq!(results(&done), [(2, None)], "what the kernel doesn't have is done");
        assert_eq!((engine.in_flight(), engine.take_fault().unwrap().held), (1, 1));
        writer.write_all(&[0x77; 512]).unwrap();
        assert_eq!(results(&finish(&mut engine)), [(1, None)]);
    });
    assert_eq!(ram.get(0, 512), [0x77; 512]);
    assert_eq!(ram.get(512, 512), [2; 512]);
}

#[test]
fn memory_that_the_kernel_keeps_is_told_of_and_not_given_back() {
    let ram = Ram::new(1 << 16);
    let (_file, image) = disk(64);
    let Some(mut engine) = engine(&image, &configs(8)[1]) else { return };
    engine.broken_wait = BrokenRingWait::NotStarted(Duration::from_millis(50));
    let (_reader, mut writer) = on_a_pipe(&mut engine);
    with_broken_after(engine, &ram, |mut engine| {
        engine.submit(ram.command(2, Command::Discard, false, (0, SECTOR)));
        let mut done = Vec::new();
        let started = Instant::now();
        let error = engine.drain(&mut |completion| done.push(completion)).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        assert_eq!((error.operations, results(&done)), (1, vec![(2, None)]));
        assert_eq!(engine.in_flight(), 1, "it isn't forgotten");
        drop(engine);
    });
    // It may still be written to, as it is here.
    writer.write_all(&[0x77; 512]).unwrap();
}

/// As [`with_broken`], with a read into the first bytes of `ram` in the kernel's hands.
fn with_broken_after(mut engine: UringEngine, ram: &Ram, test: impl FnOnce(UringEngine) + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            engine.submit(ram.io(1, Command::Read, false, SECTOR, &[(0, 512)]));
            engine.commit();
            engine.poll_completions(&mut |_| panic!("the pipe is empty"));
            refuse(libc::SYS_io_uring_enter, libc::EPERM);
            test(engine);
        });
        thread.join().unwrap();
    });
}
