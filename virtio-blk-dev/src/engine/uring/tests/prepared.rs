//! Rings created in advance, and restricted.

use io_uring::{opcode, squeue};

use super::super::prepared::PreparedRing;
use super::super::ring::disabled;
use super::refusal::refuse;
use super::*;

/// A ring; `None`, with the reason printed, if the kernel can't restrict one.
fn prepared(depth: u16) -> Option<PreparedRing> {
    PreparedRing::new(depth).inspect_err(|error| eprintln!("skipped: {error}")).ok()
}

#[test]
fn an_engine_with_a_prepared_ring_does_all_operations() {
    for config in configs(8) {
        let ram = Ram::new(1 << 16);
        let (file, image) = disk(64);
        let Some(ring) = prepared(8) else { return };
        let mut engine = UringEngine::with_ring(image, ring, &config).unwrap();
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
fn a_prepared_ring_works_where_none_can_be_created() {
    let (_file, image) = disk(8);
    let ram = Ram::new(4096);
    let Some(ring) = prepared(8) else { return };
    let config = UringConfig { inline: false, ..UringConfig::default() };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse(libc::SYS_io_uring_setup, libc::EPERM);
            let made = UringEngine::with_config(Arc::clone(&image), &config);
            assert!(matches!(made, Err(UringError::Forbidden)));
            let mut engine = UringEngine::with_ring(Arc::clone(&image), ring, &config).unwrap();
            engine.submit(ram.io(0, Command::Read, false, 3 * SECTOR, &[(0, 512)]));
            assert_eq!(results(&finish(&mut engine)), [(0, None)]);
        });
        thread.join().unwrap();
    });
    assert_eq!(ram.get(0, 512), [3; 512]);
}

#[test]
fn a_prepared_ring_only_allows_io_on_its_file() {
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
        let Ok(ring) = disabled(8) else { return };
        let mut ring = Ring::enable(ring, image.as_fd()).unwrap();
        // SAFETY: the buffer outlives the operation, whose end is waited for.
        unsafe { ring.push(&entry) };
        ring.enter();
        assert!(wait_readable(ring.as_fd(), Some(Duration::from_secs(10))).unwrap());
        let (_, result) = ring.next().unwrap();
        assert_eq!(result, if allowed { 512 } else { -libc::EACCES }, "{entry:?}");
    }
}

#[test]
fn a_kernel_without_restrictions_is_reported() {
    std::thread::spawn(|| {
        if prepared(1).is_none() {
            return;
        }
        refuse(libc::SYS_io_uring_setup, libc::EINVAL);
        let error = PreparedRing::new(1).unwrap_err();
        assert!(matches!(error, UringError::Restrictions), "{error}");
        assert!(error.to_string().contains("Linux 5.10"), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Unsupported);
    })
    .join()
    .unwrap();
}
