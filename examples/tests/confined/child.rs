//! The confined process. It gets its images when it is confined already.

use std::{io, thread};

use rustix::process::geteuid;
use virtio_blk_dev::{BlockConfig, Engine, ImageFacts, ImageFiles, RingPool, UringError};
use xen_virtio_blk::{engine_kind::EngineKind, settings::DiskSettings, storage::Storage};
use xen_virtio_sandbox::{Confined, Ids, Limits, Sandbox, ThreadFilters, ThreadKind};

use crate::{
    channel::{Answer, Channel, Request},
    driver::{
        DISCARD, F_ALL, F_DISCARD, F_RO, F_WRITE_ZEROES, FLUSH, GET_ID, Guest, IN, OK, OUT, UNMAP,
        WRITE_ZEROES, ranges,
    },
    pattern::{QUEUE_SECTORS, SECTOR, original, written},
};

/// The disk that is attached.
struct Disk {
    storage: Storage,
    config: BlockConfig,
    kind: ThreadKind,
    engines: Vec<Box<dyn Engine>>,
}

/// Enters the sandbox with `made` io_urings, and does what the socket that is its standard input asks for.
pub(crate) fn run(made: u16) -> io::Result<()> {
    let rings = RingPool::new(made, 32)?;
    // A user of this process's own.
    let id = 0x5100_0000 + std::process::id() % 0x10_0000;
    let ids =
        geteuid().is_root().then(|| Ids::new(id, id)).transpose().map_err(io::Error::other)?;
    let sandbox = Sandbox::new(ids).limits(Limits::default());
    let Confined { report, filters, .. } = sandbox.enter().map_err(io::Error::other)?;
    eprintln!("{report}");

    let channel = Channel::new(io::stdin());
    let mut attached: Option<Disk> = None;
    while let Some((request, fds)) = channel.receive()? {
        let answer = match (request, &mut attached) {
            (Request::Attach(parts), attached) => {
                let (settings, facts): (DiskSettings, ImageFacts) = *parts;
                let files = ImageFiles::from_parts(facts, fds).map_err(io::Error::other)?;
                let new = Disk::new(&settings, files, &rings);
                let capacity = new.storage.image().capacity();
                *attached = Some(new);
                Answer::Capacity(capacity)
            }
            (Request::Serve, Some(disk)) => {
                disk.each_queue(&filters, serve);
                Answer::Done
            }
            (Request::Write(sectors), Some(disk)) => {
                Answer::Statuses(disk.each_queue(&filters, |queue, guest| {
                    let piece = vec![0x5a; 64 * SECTOR];
                    let sectors = if queue == 0 { sectors } else { 0 };
                    let write = |sector: u32| guest.request(OUT, sector.into(), &piece, 0).status;
                    (0..sectors).step_by(64).map(write).max().unwrap_or(OK)
                }))
            }
            (Request::Flush, Some(disk)) => {
                let flush = |_, guest: &mut Queue<'_>| guest.request(FLUSH, 0, &[], 0).status;
                Answer::Statuses(disk.each_queue(&filters, flush))
            }
            (Request::Refresh, Some(disk)) => Answer::Capacity(disk.storage.refresh_capacity()?),
            (Request::Detach, Some(disk)) => {
                disk.drop_engines(&filters);
                attached = None;
                assert_eq!(
                    rings.free(),
                    usize::from(made),
                    "each ring is whole and back in the pool"
                );
                Answer::Done
            }
            (request, None) => panic!("{request:?} without a disk"),
        };
        channel.send(&answer, &[])?;
    }
    Ok(())
}

/// A queue in service, and the guest that uses it.
type Queue<'a> = Guest<&'a mut Box<dyn Engine>>;

impl Disk {
    fn new(settings: &DiskSettings, files: ImageFiles, rings: &RingPool) -> Self {
        let storage = Storage::new(files, Some(rings)).expect("an image");
        storage.image().warnings().iter().for_each(|warning| eprintln!("{warning}"));
        assert!(!storage.image().is_deleted());
        let without = rings.free() == 0;
        let engine = |_| match storage.engine(settings.engine) {
            (engine, None) => engine,
            (engine, Some(UringError::Exhausted { .. })) if without => engine,
            (_, Some(error)) => panic!("another engine: {error}"),
        };
        let kind = match settings.engine {
            EngineKind::IoUring if !without => ThreadKind::UringQueue,
            _ => ThreadKind::SyncQueue,
        };
        let config = BlockConfig::for_image(storage.image());
        Self { engines: (0..settings.queues).map(engine).collect(), storage, config, kind }
    }

    /// Does something in the thread of each queue, one after the other, and gives what comes of it.
    fn each_queue<T: Send>(
        &mut self,
        filters: &ThreadFilters,
        mut action: impl FnMut(u64, &mut Queue<'_>) -> T + Send,
    ) -> Vec<T> {
        let (capacity, config, kind) = (self.storage.image().capacity(), &self.config, self.kind);
        let features = F_ALL | F_DISCARD | F_WRITE_ZEROES;
        let queue = |(queue, engine)| {
            let act = || {
                filters.apply(kind).expect("the filter of a queue's thread");
                let engine: &mut Box<dyn Engine> = engine;
                action(queue, &mut Guest::new(capacity, config, features, engine))
            };
            thread::scope(|scope| scope.spawn(act).join()).expect("a thread that doesn't panic")
        };
        (0..).zip(&mut self.engines).map(queue).collect()
    }

    /// In the thread of a queue, as after a panic there.
    fn drop_engines(&mut self, filters: &ThreadFilters) {
        let (kind, engines) = (self.kind, std::mem::take(&mut self.engines));
        let drop_them = || {
            filters.apply(kind).expect("the filter of a queue's thread");
            drop(engines);
        };
        thread::scope(|scope| scope.spawn(drop_them).join()).expect("engines that end");
    }
}

/// Reads the disk, and does all requests in the queue's own range.
fn serve(queue: u64, guest: &mut Queue<'_>) {
    let first = queue * QUEUE_SECTORS;
    let sectors = QUEUE_SECTORS as usize;
    let read = guest.request(IN, first, &[], sectors * SECTOR);
    assert_eq!(read.status, OK);
    assert!(read.data == original(first, sectors), "queue {queue} reads what there is");
    assert_eq!(guest.request(GET_ID, 0, &[], 20).status, OK);
    if guest.transport.device_features() & F_RO != 0 {
        return;
    }
    let data = written(queue);
    assert_eq!(guest.request(OUT, first, &data, 0).status, OK);
    // The last sectors are taken back, in each of the ways.
    let features = guest.transport.features();
    let commands = [
        (DISCARD, 0, F_DISCARD),
        (WRITE_ZEROES, 0, F_WRITE_ZEROES),
        (WRITE_ZEROES, UNMAP, F_WRITE_ZEROES),
    ];
    let zeroed = first + QUEUE_SECTORS - 3 * 8;
    for ((kind, flags, feature), at) in commands.into_iter().zip((zeroed..).step_by(8)) {
        let range = ranges(&[(at, 8, flags)]);
        let zeroes = vec![0; 8 * SECTOR];
        let (kind, range) = if features & feature == 0 { (OUT, &zeroes) } else { (kind, &range) };
        let sector = if kind == OUT { at } else { 0 };
        assert_eq!(guest.request(kind, sector, range, 0).status, OK, "request {kind}");
    }
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    let read = guest.request(IN, first, &[], data.len());
    assert!(read.data == data, "queue {queue} reads what it has written");
}
