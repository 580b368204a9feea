use super::*;
use crate::engine::uring::pool::BUFFER_SIZE;
use crate::image::RawOptions;

/// A disk whose image goes around the page cache; `None` where the file system can't.
pub(super) fn direct(sectors: u64) -> Option<(NamedTempFile, Arc<RawImage>)> {
    direct_with(sectors, RawOptions::new())
}

fn direct_with(sectors: u64, options: RawOptions) -> Option<(NamedTempFile, Arc<RawImage>)> {
    let (file, image) = disk(sectors);
    drop(image);
    file.as_file().sync_all().unwrap();
    match options.direct(true).open(file.path()) {
        Ok(image) => Some((file, Arc::new(image))),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

pub(super) fn bouncing(direct_into_guest: bool) -> UringConfig {
    // Two buffers: others have to wait.
    let bounce = BouncePool::new(2 * BUFFER_SIZE);
    UringConfig { depth: 16, direct_into_guest, bounce, ..UringConfig::default() }
}

#[test]
fn direct_io_takes_memory_as_it_comes() {
    let ram = Ram::new(1 << 20);
    let Some((_file, image)) = direct(1024) else { return };
    for into_guest in [true, false] {
        let Some(mut engine) = engine(&image, &bouncing(into_guest)) else { return };
        for n in 0..32 {
            let at = n * 8192 + if n % 2 == 0 { 0 } else { 100 };
            ram.fill(at, 4096, 0);
            let parts = [(at, 300), (at + 300, 4096 - 300)];
            let parts = if n % 2 == 0 { &[(at, 4096)][..] } else { &parts[..] };
            engine.submit(ram.io(n, Command::Read, false, n * 8 * SECTOR, parts));
        }
        let done = finish(&mut engine);
        assert_eq!(results(&done), (0..32).map(|n| (n, None)).collect::<Vec<_>>());
        for n in 0..32 {
            let at = n * 8192 + if n % 2 == 0 { 0 } else { 100 };
            let expected: Vec<u8> = (0..8).flat_map(|k| [(n * 8 + k) as u8; 512]).collect();
            assert!(ram.get(at, 4096) == expected, "{n}");
        }
    }
}

#[test]
fn what_is_longer_than_a_buffer_takes_several_transfers() {
    let ram = Ram::new(2 << 20);
    let Some((file, image)) = direct(2048) else { return };
    let Some(mut engine) = engine(&image, &bouncing(false)) else { return };
    let len = 3 * BUFFER_SIZE + 4096;
    engine.submit(ram.io(1, Command::Read, false, 8 * SECTOR, &[(3, len)]));
    assert_eq!(results(&finish(&mut engine)), [(1, None)]);
    let contents = std::fs::read(file.path()).unwrap();
    assert!(ram.get(3, len) == contents[8 * 512..8 * 512 + len]);

    ram.fill(3, len, 0x99);
    for durable in [false, true] {
        engine.submit(ram.io(1, Command::Write, durable, 16 * SECTOR, &[(3, 1), (4, len - 1)]));
    }
    assert_eq!(results(&finish(&mut engine)), [(1, None), (1, None)]);
    let mut expected = contents;
    expected[16 * 512..16 * 512 + len].fill(0x99);
    assert!(std::fs::read(file.path()).unwrap() == expected);
}

/// Memory that can be copied from and not pinned, as mappings of other domains' pages are: what
/// the kernel shows every process of its clocks.
fn unpinnable() -> Option<Ram> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let vvar = maps.lines().find(|line| line.ends_with("[vvar]"))?;
    let at = usize::from_str_radix(vvar.split('-').next()?, 16).ok()?;
    let at = std::ptr::with_exposed_provenance_mut(at);
    let builder = MmapRegionBuilder::new(4096)
        .with_mmap_prot(libc::PROT_READ)
        .with_mmap_flags(libc::MAP_PRIVATE);
    // SAFETY: a page that is mapped as long as the process runs.
    let region = unsafe { builder.with_raw_mmap_pointer(at) }.build().ok()?;
    let region = GuestRegionMmap::new(region, GuestAddress(0))?;
    Some(Ram(GuestMemoryMmap::from_regions(vec![region]).ok()?))
}

fn is_bounced(engine: &UringEngine, io: &Io) -> bool {
    engine.bounce.as_ref().unwrap().is_needed(io, io.operation().data().unwrap())
}

#[test]
fn memory_that_cant_be_pinned_is_copied_and_not_tried_again() {
    let Some((file, image)) = direct(64) else { return };
    let Some(clocks) = unpinnable() else { return eprintln!("skipped: no [vvar]") };
    let Some(mut engine) = engine(&image, &bouncing(true)) else { return };
    let write = clocks.io(1, Command::Write, false, 8 * SECTOR, &[(0, 4096)]);
    assert!(!is_bounced(&engine, &write));
    engine.submit(write);
    assert_eq!(results(&finish(&mut engine)), [(1, None)]);
    assert_ne!(
        std::fs::read(file.path()).unwrap()[8 * 512..][..4096],
        contents(64)[8 * 512..][..4096]
    );
    let write = clocks.io(1, Command::Write, false, 8 * SECTOR, &[(0, 4096)]);
    assert!(is_bounced(&engine, &write), "the kernel took it");
}

#[test]
fn a_part_of_a_block_at_the_end_is_read_and_what_is_missing_fails() {
    let ram = Ram::new(1 << 16);
    let Some((file, image)) = direct(64) else { return };
    file.as_file().set_len(8 * SECTOR + 100).unwrap();
    let Some(mut engine) = engine(&image, &bouncing(false)) else { return };
    engine.submit(ram.io(1, Command::Read, false, 7 * SECTOR, &[(0, 512)]));
    engine.submit(ram.io(2, Command::Read, false, 7 * SECTOR, &[(0x1000, 1024)]));
    engine.submit(ram.io(3, Command::Read, false, 9 * SECTOR, &[(0x2000, 512)]));
    assert_eq!(results(&finish(&mut engine)), [(1, None), (2, Some(-1)), (3, Some(-1))]);
    assert_eq!(ram.get(0, 512), [7; 512]);
}

#[test]
fn what_meets_the_images_alignment_is_not_copied_whatever_its_blocks_are() {
    let ram = Ram::new(1 << 16);
    let Some((_file, image)) = direct_with(64, RawOptions::new().logical_block_size(4096)) else {
        return;
    };
    let alignment = image.alignment();
    let (memory, offset) = (u64::from(alignment.memory), u64::from(alignment.offset));
    if memory >= 4096 || offset >= 4096 {
        return eprintln!("skipped: the storage takes nothing smaller than a page");
    }
    let Some(mut engine) = engine(&image, &bouncing(true)) else { return };
    let read = || ram.io(1, Command::Read, false, offset, &[(memory, offset as usize)]);
    assert!(!is_bounced(&engine, &read()));
    engine.submit(read());
    assert_eq!(results(&finish(&mut engine)), [(1, None)]);
    let contents = contents(64);
    assert!(ram.get(memory, offset as usize) == contents[offset as usize..][..offset as usize]);
    assert!(is_bounced(&engine, &ram.io(1, Command::Read, false, offset, &[(memory, 1)])));
    assert!(is_bounced(&engine, &ram.io(1, Command::Read, false, 1, &[(0, offset as usize)])));
}

#[test]
fn an_engine_takes_memory_when_it_copies_and_gives_it_back_when_it_rests() {
    let ram = Ram::new(1 << 20);
    let Some((_file, image)) = direct(2048) else { return };
    let bounce = BouncePool::new(BouncePool::DISK);
    let config = UringConfig { direct_into_guest: false, bounce, ..UringConfig::default() };
    let Some(mut engine) = engine(&image, &config) else { return };
    assert_eq!(config.bounce.in_use(), 0);
    for n in 0..16 {
        let at = n * 64 * SECTOR;
        engine.submit(ram.io(n, Command::Read, false, at, &[(at, 64 * 512)]));
    }
    finish(&mut engine);
    assert_eq!(config.bounce.in_use(), 16 * BUFFER_SIZE, "kept for the next ones");
    engine.idle();
    assert_eq!(config.bounce.in_use(), BUFFER_SIZE);
    drop(engine);
    assert_eq!(config.bounce.in_use(), 0);
}

#[test]
fn engines_with_one_pool_all_go_on_when_it_is_exhausted() {
    let ram = Ram::new(1 << 20);
    let Some((_file, image)) = direct(2048) else { return };
    let bounce = BouncePool::new(2 * BUFFER_SIZE);
    let config = UringConfig { direct_into_guest: false, bounce, ..UringConfig::default() };
    let mut engines = Vec::new();
    for _ in 0..4 {
        let Some(engine) = engine(&image, &config) else { return };
        engines.push(engine);
    }
    for round in 0..8 {
        for (nth, engine) in engines.iter_mut().enumerate() {
            for n in 0..8 {
                let at = (nth as u64 * 8 + n) * 8 * SECTOR;
                engine.submit(ram.io(n, Command::Read, false, at, &[(at, 4096)]));
            }
            engine.commit();
        }
        assert!(config.bounce.in_use() <= (2 + 4) * BUFFER_SIZE);
        for engine in &mut engines {
            let done = finish_committed(engine);
            assert_eq!(results(&done), (0..8).map(|n| (n, None)).collect::<Vec<_>>(), "{round}");
        }
    }
    let expected: Vec<u8> = contents(2048);
    assert!(ram.get(0, 32 * 4096) == expected[..32 * 4096]);
}
