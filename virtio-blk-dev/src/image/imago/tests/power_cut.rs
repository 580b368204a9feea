//! A loss of power at every write and flush that a qcow2 image's files see: what was flushed is
//! there, what wasn't is old or new, and both stay so while the image is used on. Without
//! qemu-utils, nothing is checked.

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::host::{KIB, MIB, Random, directory, qemu_img, qemu_io, run};
use super::recorder::{Event, Log, after_a_cut};
use crate::{Image, ImageFormat, ImagoImage};

const SECTOR: usize = 512;

fn open(path: &Path) -> ImagoImage {
    ImagoImage::open(path, ImageFormat::Qcow2, false).unwrap_or_else(|error| panic!("{error}"))
}

fn write(image: &ImagoImage, data: &[u8], offset: u64) {
    let mut done = 0;
    while done < data.len() {
        done += image.write_some(&data[done..], offset + done as u64).unwrap();
    }
}

fn read(image: &ImagoImage) -> Vec<u8> {
    let mut bytes = vec![0; image.capacity() as usize];
    image.shared().read(&mut bytes, 0).unwrap();
    bytes
}

/// What each sector held, one after the other, and after how many events of the log.
struct History {
    log: Log,
    sectors: Vec<Vec<(usize, [u8; SECTOR])>>,
    /// Flushes: after how many events each was answered, and how long each sector's history was.
    flushes: Vec<(usize, Vec<usize>)>,
}

impl History {
    fn new(log: Log, initial: &[u8]) -> Self {
        let (sectors, _) = initial.as_chunks();
        let sectors: Vec<_> = sectors.iter().map(|sector| vec![(0, *sector)]).collect();
        let flushes = vec![(0, vec![1; sectors.len()])];
        Self { log, sectors, flushes }
    }

    /// Notes what is now in the sectors. What is new there was begun after `since` events.
    fn note(&mut self, image: &ImagoImage, since: usize) {
        let contents = read(image);
        for (history, content) in self.sectors.iter_mut().zip(contents.as_chunks().0) {
            if history.last().unwrap().1 != *content {
                history.push((since, *content));
            }
        }
    }

    fn flushed(&mut self) {
        let stable = self.sectors.iter().map(Vec::len).collect();
        self.flushes.push((self.log.len(), stable));
    }

    /// Whether a sector may hold `found` if the power is cut after so many events.
    fn allows(&self, cut: usize, sector: usize, found: &[u8]) -> bool {
        let stable = self.flushes.iter().rfind(|(done, _)| *done <= cut).unwrap().1[sector] - 1;
        self.sectors[sector][stable..]
            .iter()
            .any(|(since, content)| *since <= cut && content == found)
    }
}

/// A few changes of every kind, at random.
fn work(image: &ImagoImage, history: &mut History, random: &mut Random, changes: u8) {
    let sectors = history.sectors.len() as u64;
    for nth in 0..changes {
        let since = history.log.len();
        let sector = random.below(sectors);
        let count = (random.below(40) + 1).min(sectors - sector);
        let (offset, len) = (sector * 512, count * 512);
        match random.below(10) {
            0 => image.write_zeroes(offset, len, true).unwrap(),
            1 => image.write_zeroes(offset, len, false).unwrap(),
            2..4 if image.commands().discard.is_some() => image.discard(offset, len).unwrap(),
            4 => image.flush().unwrap(),
            _ => write(image, &vec![nth + 1; len as usize], offset),
        }
        history.note(image, since);
        if random.below(8) == 0 {
            image.flush().unwrap();
            history.flushed();
        }
    }
}

/// Looks at an image after a cut, and uses it on: what was there stays there.
fn inspect(path: &Path, history: &History, cut: usize, random: &mut Random) {
    let image = open(path);
    let found = read(&image);
    for (sector, content) in found.chunks(SECTOR).enumerate() {
        assert!(
            history.allows(cut, sector, content),
            "cut after {cut} events: sector {sector} has {:?}..",
            &content[..4],
        );
    }
    if random.below(2) == 0 {
        return;
    }
    let mut expected = found;
    for nth in 0..8u8 {
        let sector = random.below(history.sectors.len() as u64) as usize;
        let len = (random.below(30) as usize + 1).min(history.sectors.len() - sector) * SECTOR;
        write(&image, &vec![0x80 | nth; len], sector as u64 * 512);
        expected[sector * SECTOR..][..len].fill(0x80 | nth);
    }
    image.flush().unwrap();
    drop(image);
    assert!(read(&open(path)) == expected, "cut after {cut} events: it changed afterwards");
}

/// Has an image worked on, and cuts the power everywhere.
///
/// First of all, `fill` bytes are written.
fn survive(directory: &TempDir, seed: u64, changes: u8, fill: Option<u64>) {
    let path = directory.path().join(IMAGE);
    let mut random = Random(seed);
    let (log, image) = Log::of(|| open(&path));
    let mut history = History::new(log.clone(), &read(&image));
    if let Some(len) = fill {
        write(&image, &vec![0xf1; len as usize], 0);
        history.note(&image, 0);
    }
    work(&image, &mut history, &mut random, changes);
    drop(image);
    let (events, files) = (log.events(), files_of(directory));
    assert!(events.iter().filter(|(_, event)| matches!(event, Event::Sync)).count() > 4);
    let cut_directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let paths: Vec<PathBuf> = files.iter().map(|file| cut_directory.path().join(file)).collect();
    for below in fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
        fs::copy(below.path(), cut_directory.path().join(below.file_name())).unwrap();
    }
    // All of what wasn't flushed is lost, or nothing, or about a half.
    let fates: &[u64] = if log.initial(0).len() as u64 > MIB { &[2] } else { &[4, 0, 2] };
    for cut in 0..=events.len() {
        for lost in fates {
            for (nth, path) in paths.iter().enumerate() {
                let survives = || random.below(4) >= *lost;
                let bytes = after_a_cut(&log.initial(nth), &events[..cut], nth, survives);
                fs::write(path, bytes).unwrap();
            }
            if random.below(40) == 0 {
                qemu_finds_no_damage(&cut_directory);
            }
            inspect(&paths[0], &history, cut, &mut random);
        }
    }
}

/// Storage that nobody uses is no damage.
fn qemu_finds_no_damage(directory: &TempDir) {
    let directory = directory.path().display();
    let script = format!("cd '{directory}' && qemu-img check -f qcow2 {IMAGE} >&2 || test $? = 3");
    assert!(run("sh", ["-c", &script]).is_some(), "{script}");
}

/// The files that are written of an image.
fn files_of(directory: &TempDir) -> Vec<String> {
    let data = format!("{IMAGE}.data");
    let has_data = directory.path().join(&data).exists();
    [Some(IMAGE.to_owned()), has_data.then_some(data)].into_iter().flatten().collect()
}

const IMAGE: &str = "disk.qcow2";

#[test]
fn what_was_flushed_into_qcow2_is_there_and_stays_there() {
    for (seed, options) in (0x5eed_0100..).zip([
        "cluster_size=512",
        "cluster_size=512,refcount_bits=1",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=4k,compat=0.10",
        "cluster_size=64k,lazy_refcounts=on",
    ]) {
        let Some(directory) = directory() else { return };
        qemu_img(&directory, &format!("create -f qcow2 -o {options} {IMAGE} 160K"));
        survive(&directory, seed, 24, None);
    }
}

#[test]
fn what_was_flushed_over_compressed_clusters_is_there_and_stays_there() {
    let Some(directory) = directory() else { return };
    let plain = directory.path().join("plain.qcow2");
    qemu_img(&directory, "create -f qcow2 plain.qcow2 160K");
    for (nth, start) in (1..40).zip((0..).step_by(4)) {
        qemu_io(&plain, "qcow2", &format!("write -P {nth} {start}k 3k"));
    }
    qemu_img(&directory, &format!("convert -c -O qcow2 -o cluster_size=4k plain.qcow2 {IMAGE}"));
    survive(&directory, 0x5eed_0110, 24, None);
}

#[test]
fn what_was_flushed_over_a_snapshot_is_there_and_stays_there() {
    let Some(directory) = directory() else { return };
    qemu_img(&directory, &format!("create -f qcow2 -o cluster_size=512 {IMAGE} 160K"));
    qemu_io(&directory.path().join(IMAGE), "qcow2", "write -P 0x11 0 100k");
    qemu_img(&directory, &format!("snapshot -c before {IMAGE}"));
    survive(&directory, 0x5eed_0120, 24, None);
}

#[test]
fn what_was_flushed_over_a_backing_file_is_there_and_stays_there() {
    let Some(directory) = directory() else { return };
    fs::write(directory.path().join("base.img"), [0x22; 100 * 1024]).unwrap();
    let options = "-o cluster_size=1k -F raw -b base.img";
    qemu_img(&directory, &format!("create -f qcow2 {options} {IMAGE} 160K"));
    survive(&directory, 0x5eed_0130, 24, None);
}

#[test]
fn what_was_flushed_into_an_external_data_file_is_there_and_stays_there() {
    let Some(directory) = directory() else { return };
    let options = format!("-o cluster_size=512,data_file={IMAGE}.data");
    qemu_img(&directory, &format!("create -f qcow2 {options} {IMAGE} 160K"));
    survive(&directory, 0x5eed_0140, 24, None);
}

/// Most of what the refcount table has room for is taken by a snapshot.
#[test]
fn what_was_flushed_while_the_refcount_table_moved_is_there_and_stays_there() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join(IMAGE);
    let options = "-o cluster_size=512,refcount_bits=64";
    qemu_img(&directory, &format!("create -f qcow2 {options} {IMAGE} 2M"));
    qemu_io(&path, "qcow2", "write 0 1920k");
    qemu_img(&directory, &format!("snapshot -c before {IMAGE}"));
    qemu_img(&directory, &format!("resize --shrink -f qcow2 {IMAGE} 160K"));
    // Its offset and size.
    let reftable = || fs::read(&path).unwrap()[48..60].to_vec();
    let before = reftable();
    survive(&directory, 0x5eed_0150, 6, Some(160 * KIB));
    assert!(reftable() != before, "it moved");
}

/// A flush that failed may have lost anything: no later one says that it succeeded.
#[test]
fn a_failed_flush_of_qcow2_is_not_forgotten() {
    let Some(directory) = directory() else { return };
    qemu_img(&directory, &format!("create -f qcow2 {IMAGE} 1M"));
    // At a write of tables, and at each of the two flushes of the file.
    for events in [0, 1, 2, 3] {
        let (log, image) = Log::of(|| open(&directory.path().join(IMAGE)));
        write(&image, &[events as u8 + 1; 65536], 65536 * events as u64);
        log.fail_after(events);
        assert!(image.flush().is_err());
        log.fail_after(usize::MAX);
        assert!(image.flush().is_err(), "after {events} events");
        drop(image);
    }
}

#[test]
fn an_image_that_nobody_flushed_is_whole_when_it_is_closed() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join(IMAGE);
    qemu_img(&directory, &format!("create -f qcow2 {IMAGE} 1M"));
    let image = open(&path);
    write(&image, &[7; 3 * 65536], 512);
    drop(image);
    qemu_finds_no_damage(&directory);
    assert!(read(&open(&path))[512..][..3 * 65536] == [7; 3 * 65536]);
}

/// One that another writer's power cut left so, or a disk that lost a sector.
#[test]
fn a_cluster_in_use_that_counts_as_free_is_found_before_the_image_is_written() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join(IMAGE);
    qemu_img(&directory, &format!("create -f qcow2 {IMAGE} 1M"));
    qemu_io(&path, "qcow2", "write -P 7 0 128k");
    let sound = fs::read(&path).unwrap();
    let u64_at = |place: usize| u64::from_be_bytes(sound[place..place + 8].try_into().unwrap());
    let offset = |entry: u64| entry & 0x00ff_ffff_ffff_fe00;
    let refblock = offset(u64_at(offset(u64_at(48)) as usize)) as usize;
    let l2_table = offset(u64_at(offset(u64_at(40)) as usize)) as usize;
    let [first, second] = [0, 8].map(|place| offset(u64_at(l2_table + place)));

    let mut freed = sound.clone();
    freed[refblock + (second >> 16) as usize * 2..][..2].fill(0);
    let mut twice = sound.clone();
    twice[l2_table + 8..][..8].copy_from_slice(&(first | 1 << 63).to_be_bytes());
    for (bytes, finding) in
        [(freed, "no refcount for its data"), (twice, "another use for its data")]
    {
        fs::write(&path, bytes).unwrap();
        let error = ImagoImage::open(&path, ImageFormat::Qcow2, false).unwrap_err();
        let source = error.source().expect("the finding").to_string();
        assert!(source.contains(finding) && source.contains("qemu-img check"), "{source}");
        assert!(ImagoImage::open(&path, ImageFormat::Qcow2, true).is_ok(), "it can be read");
    }
}
