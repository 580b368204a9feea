//! Rings created in advance, and restricted.

use std::thread;

use io_uring::{opcode, squeue};

use super::super::rings::RingPool;
use super::super::setup::restricted;
use super::refusal::refuse;
use super::*;

/// Rings; `None`, with the reason printed, if the kernel can't restrict any.
fn pool(rings: u16, depth: u16) -> Option<RingPool> {
    RingPool::new(rings, depth).inspect_err(|error| eprintln!("skipped: {error}")).ok()
}

fn with(rings: &RingPool) -> UringConfig {
    UringConfig { inline: false, rings: Some(rings.clone()), ..UringConfig::default() }
}

/// Reads a sector, and returns its first byte.
fn read(engine: &mut UringEngine, sector: u64) -> u8 {
    let ram = Ram::new(4096);
    engine.submit(ram.io(0, Command::Read, false, sector * SECTOR, &[(0, 512)]));
    assert_eq!(results(&finish(engine)), [(0, None)]);
    ram.get(0, 1)[0]
}

#[test]
fn an_engine_with_a_pooled_ring_does_all_operations() {
    let Some(rings) = pool(1, 8) else { return };
    for config in configs(1) {
        let config = UringConfig { rings: Some(rings.clone()), ..config };
        let ram = Ram::new(1 << 16);
        let (file, image) = disk(64);
        let mut engine = UringEngine::with_config(image, &config).unwrap();
        ram.fill(0, 1024, 0xaa);
        engine.submit(ram.io(0, Command::Read, false, 3 * SECTOR, &[(4096, 512)]));
        engine.submit(ram.io(1, Command::Read, false, 4 * SECTOR, &[(8192, 512), (12288, 512)]));
        engine.submit(ram.io(2, Command::Write, true, 60 * SECTOR, &[(0, 512)]));
        engine.submit(ram.io(3, Command::Write, false, 61 * SECTOR, &[(0, 512), (512, 512)]));
        let zeroes = Command::WriteZeroes { unmap: false };
        engine.submit(ram.command(4, zeroes, true, (8 * SECTOR, SECTOR)));
        engine.submit(ram.command(5, Command::Discard, false, (10 * SECTOR, SECTOR)));
        engine.submit(ram.command(6, Command::Flush, false, (0, 0)));
        assert_eq!(results(&finish(&mut engine)), (0..7).map(|n| (n, None)).collect::<Vec<_>>());
        assert!(engine.take_fault().is_none());
        assert_eq!(ram.get(4096, 512), [3; 512]);
        assert_eq!([ram.get(8192, 512), ram.get(12288, 512)].concat(), contents(64)[2048..3072]);
        let written = std::fs::read(file.path()).unwrap();
        assert!(written[60 * 512..63 * 512].iter().all(|byte| *byte == 0xaa));
        assert!(written[8 * 512..9 * 512].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_pooled_ring_works_where_none_can_be_created() {
    let (_file, image) = disk(8);
    let Some(rings) = pool(1, 8) else { return };
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse(libc::SYS_io_uring_setup, libc::EPERM);
            let made = UringEngine::new(Arc::clone(&image), 8);
            assert!(matches!(made, Err(UringError::Forbidden)));
            let mut engine = UringEngine::with_config(Arc::clone(&image), &with(&rings)).unwrap();
            assert_eq!(read(&mut engine, 3), 3);
        });
        thread.join().unwrap();
    });
}

#[test]
fn a_pooled_ring_only_allows_io_on_its_file() {
    let (file, image) = disk(8);
    let outside = std::fs::File::open(file.path()).unwrap();
    let fixed = squeue::Flags::FIXED_FILE;
    let mut buffer = [0_u8; 512];
    let mut read = |fd| opcode::Read::new(types::Fd(fd), buffer.as_mut_ptr(), 512).build();
    let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), c"/dev/null".as_ptr()).build();
    let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build();
    for (entry, allowed) in [
        (read(0).flags(fixed), true),
        // Of a descriptor that isn't registered.
        (read(outside.as_raw_fd()), false),
        (read(0).flags(fixed | squeue::Flags::IO_LINK), false),
        (open.clone(), false),
        (open.flags(fixed), false),
        (socket.flags(fixed), false),
    ] {
        let Some(rings) = pool(1, 8) else { return };
        let mut ring = Ring::from_pool(&rings, image.as_fd()).unwrap();
        // SAFETY: the buffer outlives the operation, whose end is waited for.
        unsafe { ring.push(&entry) };
        ring.enter();
        assert!(wait_readable(ring.as_fd(), Some(Duration::from_secs(10))).unwrap());
        let (_, result) = ring.next().unwrap();
        assert_eq!(result, if allowed { 512 } else { -libc::EACCES }, "{entry:?}");
    }
    let Ok(ring) = restricted(8) else { return };
    let eventfd = ring.submitter().register_eventfd(outside.as_raw_fd()).unwrap_err();
    let files = ring.submitter().unregister_files().unwrap_err();
    assert_eq!([eventfd, files].map(|error| error.raw_os_error()), [Some(libc::EACCES); 2]);
}

#[test]
fn a_ring_serves_one_image_after_another() {
    let Some(rings) = pool(1, 8) else { return };
    for n in 0..100 {
        let (_file, image) = disk(128);
        assert_eq!(rings.free(), 1);
        let mut engine = UringEngine::with_config(image, &with(&rings)).unwrap();
        assert_eq!((rings.free(), read(&mut engine, n)), (0, n as u8));
    }
}

/// The open file description with the lock, as none of a read-only image's engines has its own.
#[test]
fn a_ring_in_the_pool_keeps_no_image_open() {
    let Some(rings) = pool(1, 8) else { return };
    let (file, image) = disk(8);
    drop(image);
    let image = Arc::new(RawImage::open(file.path(), true).unwrap());
    let mut engine = UringEngine::with_config(image, &with(&rings)).unwrap();
    assert_eq!(read(&mut engine, 3), 3);
    RawImage::open(file.path(), false).expect_err("the engine has it");
    drop(engine);
    assert_eq!(rings.free(), 1);
    let closed = |_: &_| RawImage::open(file.path(), false).is_ok();
    let wait = || thread::sleep(Duration::from_millis(50));
    assert!((0..100).inspect(|_| wait()).any(|n| closed(&n)), "it is open for 5 s");
}

#[test]
fn an_exhausted_pool_is_an_error_until_an_engine_is_dropped() {
    let Some(rings) = pool(2, 8) else { return };
    let (_file, image) = disk(8);
    let engine = || UringEngine::with_config(Arc::clone(&image), &with(&rings));
    let engines = [engine().unwrap(), engine().unwrap()];
    let error = engine().err().expect("no ring");
    assert!(matches!(error, UringError::Exhausted { rings: 2 }), "{error}");
    assert!(error.to_string().contains("create one for each queue"), "{error}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ResourceBusy);
    drop(engines);
    assert_eq!((rings.free(), read(&mut engine().unwrap(), 3)), (2, 3));
}

#[test]
fn a_ring_that_broke_is_not_put_back() {
    let Some(rings) = pool(1, 8) else { return };
    let (_file, image) = disk(8);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut engine = UringEngine::with_config(image, &with(&rings)).unwrap();
            refuse(libc::SYS_io_uring_enter, libc::EPERM);
            assert_eq!(read(&mut engine, 3), 3, "without the ring");
            assert!(engine.take_fault().is_some());
        });
        thread.join().unwrap();
    });
    assert_eq!(rings.free(), 0);
}

#[test]
fn a_ring_with_an_operation_left_is_not_put_back() {
    let Some(rings) = pool(2, 8) else { return };
    let (pipe, _writer) = io::pipe().unwrap();
    let memory: &'static mut [u8] = Box::leak(Box::new([0; 512]));
    let entry = opcode::Read::new(types::Fd(0), memory.as_mut_ptr(), 512).build();
    for submitted in [true, false] {
        let mut ring = Ring::from_pool(&rings, pipe.as_fd()).unwrap();
        // SAFETY: the buffer is never freed.
        unsafe { ring.push(&entry.clone().flags(squeue::Flags::FIXED_FILE)) };
        if submitted {
            ring.enter();
        }
    }
    assert_eq!(rings.free(), 0);
}

#[test]
fn a_ring_that_cannot_be_entered_or_given_a_file_is_an_error() {
    let (_file, image) = disk(8);
    for call in [libc::SYS_io_uring_enter, libc::SYS_io_uring_register] {
        let Some(rings) = pool(1, 8) else { return };
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                refuse(call, libc::EPERM);
                let made = UringEngine::with_config(Arc::clone(&image), &with(&rings));
                assert!(matches!(made, Err(UringError::Forbidden)));
            });
            thread.join().unwrap();
        });
        assert_eq!(rings.free(), 0);
    }
}

#[test]
fn a_kernel_without_restrictions_is_reported() {
    thread::spawn(|| {
        if pool(1, 1).is_none() {
            return;
        }
        refuse(libc::SYS_io_uring_setup, libc::EINVAL);
        let error = RingPool::new(1, 1).unwrap_err();
        assert!(matches!(error, UringError::Restrictions), "{error}");
        assert!(error.to_string().contains("Linux 5.10"), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Unsupported);
    })
    .join()
    .unwrap();
}
