//! Discards, zeroes and secure erases: requests with a list of ranges (§5.2.6).

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use virtio_blk_dev::fake::{DISCARDED, FakeImage, Fault};
use virtio_blk_dev::{
    BlockConfig, Commands, Completion, Engine, Image, Io, Limits, RangeLimits, RequestKind,
    SyncEngine, ZeroesLimits,
};
use virtio_dev::VirtioDevice;

use super::answer;
use super::common::*;

const F_RANGES: u64 = F_ALL | F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE;
#[cfg(not(miri))]
const KINDS: [(u32, u8); 3] =
    [(DISCARD, DISCARDED), (WRITE_ZEROES, 0), (SECURE_ERASE, virtio_blk_dev::fake::ERASED)];
/// The others reach the guest's memory in the same way.
#[cfg(miri)]
const KINDS: [(u32, u8); 1] = [(DISCARD, DISCARDED)];

/// At most four sectors a range and three ranges a request.
fn config() -> BlockConfig {
    let range = RangeLimits { max_sectors: 4, max_seg: 3, alignment_sectors: 1 };
    let limits = Limits {
        discard: Some(range),
        write_zeroes: Some(ZeroesLimits { max_sectors: 4, max_seg: 3, may_unmap: true }),
        secure_erase: Some(range),
        lifetime: false,
    };
    BlockConfig { limits, ..BlockConfig::default() }
}

fn able(sectors: u64) -> (Guest, Arc<FakeImage>) {
    let image = FakeImage::new(contents(sectors), false).with_commands(COMMANDS);
    guest_on(image, &config(), F_RANGES)
}

/// Sectors from `first` on, filled with `value`, on a disk of 16.
fn changed(list: &[(u64, u32)], value: u8) -> Vec<u8> {
    let mut disk = contents(16);
    for &(sector, sectors) in list {
        disk[sector as usize * 512..][..sectors as usize * 512].fill(value);
    }
    disk
}

#[test]
fn s5_2_6_every_range_of_a_list_is_done() {
    for (kind, value) in KINDS {
        let (mut guest, image) = able(16);
        let list = ranges(&[(1, 2, 0), (15, 1, 0), (4, 4, 0)]);
        assert_eq!(guest.request(kind, 0, &list, 0), answer(OK, 1), "type {kind}");
        assert!(image.bytes() == changed(&[(1, 2), (15, 1), (4, 4)], value), "type {kind}");
        let stats = guest.worker.stats();
        let done: u64 = RequestKind::ALL.iter().map(|kind| stats[*kind].bytes).sum();
        assert_eq!(done, 7 * 512, "type {kind}");
    }
}

#[test]
fn s5_2_6_the_sector_of_the_header_is_unused() {
    for (kind, value) in KINDS {
        let (mut guest, image) = able(16);
        let list = ranges(&[(1, 2, 0)]);
        assert_eq!(guest.request(kind, u64::MAX, &list, 0), answer(OK, 1), "type {kind}");
        assert!(image.bytes() == changed(&[(1, 2)], value), "type {kind}");
    }
}

#[test]
fn s5_2_6_2_zeroes_read_as_zeroes_with_and_without_unmap() {
    for flags in [0, UNMAP] {
        let (mut guest, _) = able(16);
        let list = ranges(&[(3, 2, flags)]);
        assert_eq!(guest.request(WRITE_ZEROES, 0, &list, 0), answer(OK, 1));
        let read = guest.request(IN, 2, &[], 4 * 512);
        assert!(read.data == changed(&[(3, 2)], 0)[2 * 512..6 * 512], "flags {flags}");
    }
}

#[test]
fn s5_2_6_2_unknown_flags_are_unsupported() {
    for (kind, _) in KINDS {
        for flags in [2, 3, 4, 0x8000_0000, u32::MAX] {
            let (mut guest, image) = able(16);
            // Wherever they stand, and whatever else is wrong.
            for list in [
                &[(1, 1, flags)][..],
                &[(1, 1, 0), (2, 1, flags)],
                &[(99, 1, 0), (2, 1, flags)],
                &[(2, 5, flags), (99, 1, 0)],
                &[(99, 1, flags)],
            ] {
                let answered = guest.request(kind, 0, &ranges(list), 0);
                assert_eq!(answered, answer(UNSUPP, 1), "type {kind}, {list:x?}");
            }
            assert!(image.bytes() == contents(16), "type {kind}, flags {flags:#x}");
        }
    }
}

#[test]
fn s5_2_6_2_a_discard_or_an_erase_with_unmap_is_unsupported() {
    for kind in [DISCARD, SECURE_ERASE] {
        let (mut guest, image) = able(16);
        for list in [&[(1, 1, UNMAP)][..], &[(1, 1, 0), (99, 1, 0), (2, 1, UNMAP)]] {
            assert_eq!(guest.request(kind, 0, &ranges(list), 0), answer(UNSUPP, 1));
        }
        assert!(image.bytes() == contents(16), "type {kind}");
    }
}

#[test]
fn s5_2_6_1_a_list_is_whole_ranges_and_not_too_many() {
    for (kind, _) in KINDS {
        let (mut guest, image) = able(16);
        let list = ranges(&[(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0)]);
        for len in [0, 1, 15, 17, 31, 33, 47, 49, 64] {
            let answered = guest.request(kind, 0, &list[..len], 0);
            assert_eq!(answered, answer(IOERR, 1), "type {kind}, {len} bytes");
        }
        assert!(image.bytes() == contents(16), "type {kind}");
        assert_eq!(guest.request(kind, 0, &list[..48], 0), answer(OK, 1), "as many as allowed");
    }
}

#[test]
fn s5_2_6_1_ranges_beyond_the_end_or_the_limit_fail_and_none_is_touched() {
    for (kind, _) in KINDS {
        let (mut guest, image) = able(16);
        for bad in [
            (16, 1, 0),
            (15, 2, 0),
            (17, 0, 0),
            (0, 5, 0),
            (0, u32::MAX, 0),
            (u64::MAX, 1, 0),
            (u64::MAX / 512, 1, 0),
            (u64::MAX / 512 + 1, 1, 0),
            (1 << 55, 1, 0),
        ] {
            for list in [&[bad][..], &[(1, 1, 0), bad], &[(1, 1, 0), bad, (2, 1, 0)]] {
                let answered = guest.request(kind, 0, &ranges(list), 0);
                assert_eq!(answered, answer(IOERR, 1), "type {kind}, {list:x?}");
            }
        }
        assert!(image.bytes() == contents(16), "type {kind}");
        assert_eq!(guest.worker.stats().host_errors, 0, "the guest's mistakes");
    }
}

/// What was left of a refused list must not be done in the name of what comes after it.
#[test]
fn s5_2_6_1_a_refused_list_is_not_done_later() {
    for (kind, _) in KINDS {
        for bad in [(99, 1, 0), (2, 1, 2)] {
            let (mut guest, image) = able(16);
            let list = ranges(&[(1, 1, 0), (3, 1, 0), bad]);
            assert_ne!(guest.request(kind, 0, &list, 0).status, OK);
            for _ in 0..4 {
                assert_eq!(guest.request(IN, 1, &[], 512).data, [1; 512]);
                assert_eq!(guest.request(FLUSH, 0, &[], 0), answer(OK, 1));
            }
            assert!(image.bytes() == contents(16), "type {kind} and {bad:x?}");
        }
    }
}

#[test]
fn s5_2_6_a_range_of_no_sectors_changes_nothing() {
    for (kind, value) in KINDS {
        let (mut guest, image) = able(16);
        let list = ranges(&[(16, 0, 0), (1, 1, 0), (0, 0, 0)]);
        assert_eq!(guest.request(kind, 0, &list, 0), answer(OK, 1), "type {kind}");
        assert!(image.bytes() == changed(&[(1, 1)], value), "type {kind}");
    }
}

#[test]
fn s2_7_4_a_list_may_be_split_anywhere() {
    let (mut guest, image) = able(16);
    let header = guest.header(WRITE_ZEROES, 0);
    let whole = [guest.get(header.addr, 16), ranges(&[(1, 2, 0), (4, 1, UNMAP)])].concat();
    let stream = guest.out(&whole);
    let mut bufs: Vec<Buf> =
        (0..48 / 3).map(|nth| Buf { addr: stream.addr + nth * 3, len: 3, ..stream }).collect();
    let status = guest.room(1);
    bufs.push(status);
    assert_eq!(guest.serve(&bufs, 0, 0, status.addr), answer(OK, 1));
    assert!(image.bytes() == changed(&[(1, 2), (4, 1)], 0));
}

#[test]
fn s2_7_4_header_and_list_may_be_cut_in_two_anywhere() {
    for cut in [1, 8, 15, 16, 17, 24, 31, 32, 33, 47] {
        let (mut guest, image) = able(16);
        let header = guest.header(DISCARD, 0);
        let whole = [guest.get(header.addr, 16), ranges(&[(1, 2, 0), (4, 1, 0)])].concat();
        let stream = guest.out(&whole);
        let first = Buf { len: cut, ..stream };
        let second = Buf { addr: stream.addr + u64::from(cut), len: 48 - cut, ..stream };
        let status = guest.room(1);
        let bufs = [first, second, status];
        assert_eq!(guest.serve(&bufs, 0, 0, status.addr), answer(OK, 1), "cut at {cut}");
        assert!(image.bytes() == changed(&[(1, 2), (4, 1)], DISCARDED), "cut at {cut}");
    }
}

#[test]
fn s5_2_6_1_a_list_outside_of_memory_fails() {
    let (mut guest, image) = able(16);
    for addr in [MEMORY_END, MEMORY_END - 8, u64::MAX - 7] {
        let first = guest.out(&ranges(&[(1, 1, 0)]));
        let status = guest.room(1);
        let second = Buf { addr, len: 16, write: false };
        let bufs = [guest.header(WRITE_ZEROES, 0), first, second, status];
        assert_eq!(guest.serve(&bufs, 0, 0, status.addr), answer(IOERR, 1), "at {addr:#x}");
    }
    assert_eq!(guest.request(IN, 1, &[], 512).data, [1; 512]);
    assert!(image.bytes() == contents(16));
}

#[test]
fn s5_2_6_2_a_read_only_disk_refuses_every_command_that_changes_it() {
    let image = FakeImage::new(contents(16), true).with_commands(COMMANDS);
    let config = BlockConfig { read_only: true, ..config() };
    let (mut guest, image) = guest_on(image, &config, F_RANGES | F_RO);
    let offered = guest.transport.device().features();
    assert_eq!(offered & (F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE), 0);
    for (kind, _) in KINDS {
        for list in [&[(1, 1, 0)][..], &[(1, 1, UNMAP)], &[(99, 1, 2)], &[]] {
            assert_eq!(guest.request(kind, 0, &ranges(list), 0), answer(IOERR, 1), "type {kind}");
        }
    }
    assert!(image.bytes() == contents(16));
    assert_eq!((image.flushes(), guest.worker.stats().host_errors), (0, 0));
}

#[test]
fn s5_2_6_2_commands_that_are_not_offered_are_unsupported() {
    let (mut guest, image) = super::writable(16);
    for (kind, _) in KINDS {
        for list in [&[(1, 1, 0)][..], &[(99, 1, 2)], &[]] {
            assert_eq!(guest.request(kind, 0, &ranges(list), 0), answer(UNSUPP, 1));
        }
    }
    assert!(image.bytes() == contents(16));
}

#[test]
fn s5_2_6_2_without_unmap_in_the_configuration_zeroes_are_written() {
    let commands = Commands { write_zeroes_may_unmap: false, ..COMMANDS };
    let image = FakeImage::new(contents(16), false).with_commands(commands);
    let config = BlockConfig::for_image(&image);
    let (mut guest, image) = guest_on(image, &config, F_RANGES);
    assert_eq!(guest.config::<1>(56), [0], "write_zeroes_may_unmap");
    assert_eq!(guest.request(WRITE_ZEROES, 0, &ranges(&[(1, 2, UNMAP)]), 0), answer(OK, 1));
    assert!(image.bytes() == changed(&[(1, 2)], 0));
}

#[test]
fn s5_2_6_2_changes_are_stable_when_they_complete_in_a_write_through_cache() {
    for (kind, value) in KINDS {
        let image = FakeImage::new(contents(16), false).with_commands(COMMANDS);
        let (mut guest, image) = guest_on(image, &config(), F_RANGES & !F_FLUSH);
        let list = ranges(&[(1, 2, 0), (9, 1, 0)]);
        assert_eq!(guest.request(kind, 0, &list, 0), answer(OK, 1), "type {kind}");
        assert!(image.stable() == changed(&[(1, 2), (9, 1)], value), "type {kind}");
    }
}

#[test]
fn s5_2_6_an_error_of_the_host_ends_the_list() {
    for (kind, value) in KINDS {
        let (mut guest, image) = able(16);
        image.inject(Fault::Short(0));
        image.inject(Fault::Errno(libc::ENOSPC));
        let list = ranges(&[(1, 1, 0), (3, 1, 0), (5, 1, 0)]);
        assert_eq!(guest.request(kind, 0, &list, 0), answer(IOERR, 1), "type {kind}");
        assert!(image.bytes() == changed(&[(1, 1)], value), "type {kind}: up to the failed one");
        assert_eq!(
            guest.worker.take_last_error().unwrap().source.raw_os_error(),
            Some(libc::ENOSPC)
        );
        assert_eq!(guest.worker.stats().host_errors, 1);
        assert_eq!(guest.request(IN, 0, &[], 512).status, OK);
        assert!(image.bytes() == changed(&[(1, 1)], value), "type {kind}: nor afterwards");
    }
}

/// An engine that begins nothing before `commit`, and then finishes without its descriptor becoming
/// readable, as one over io_uring does with what it carries out itself.
struct AtCommit {
    inner: SyncEngine<FakeImage>,
    waiting: Vec<Io>,
    done: Vec<Completion>,
}

impl Engine for AtCommit {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        self.waiting.push(io);
        None
    }

    fn commit(&mut self) {
        let Self { inner, waiting, done } = self;
        done.extend(waiting.drain(..).filter_map(|io| inner.submit(io)));
    }

    fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion)) {
        self.done.drain(..).for_each(sink);
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.done.len()
    }
}

#[test]
fn s5_2_6_every_range_is_begun_before_the_worker_sleeps() {
    for (kind, value) in KINDS {
        let image = Arc::new(FakeImage::new(contents(16), false).with_commands(COMMANDS));
        let inner = SyncEngine::new(Arc::clone(&image));
        let engine = AtCommit { inner, waiting: Vec::new(), done: Vec::new() };
        let mut guest = Guest::new(image.capacity(), &config(), F_RANGES, engine);
        let list = ranges(&[(1, 1, 0), (3, 1, 0), (5, 1, 0)]);
        let bufs = [guest.header(kind, 0), guest.out(&list), guest.room(1)];
        guest.add(&bufs);
        assert_eq!(guest.worker.run().processed, 1, "type {kind}");
        assert!(image.bytes() == changed(&[(1, 1), (3, 1), (5, 1)], value), "type {kind}");
    }
}
