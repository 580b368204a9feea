//! Any sequence of requests, valid or not, against a disk that is a vector of bytes.
#![cfg(feature = "test-utils")]

mod common;

use std::sync::Arc;

use common::*;
use proptest::prelude::*;
use virtio_blk_dev::fake::{FakeEngine, FakeImage};
use virtio_blk_dev::{BlockConfig, Image, Serial};

const SECTORS: u64 = 12;
const SERIAL: &str = "a-serial";

#[derive(Clone, Debug)]
struct Request {
    kind: u32,
    sector: u64,
    out: Vec<u8>,
    data_in: usize,
    /// Where the readable and the writable stream are cut into buffers.
    cuts: Vec<usize>,
    /// Bytes missing at the end of the header.
    cut_header: usize,
    status: bool,
    indirect: bool,
}

fn request() -> impl Strategy<Value = Request> {
    let kind = prop_oneof![
        6 => Just(IN),
        6 => Just(OUT),
        2 => Just(FLUSH),
        2 => Just(GET_ID),
        1 => any::<u32>(),
    ];
    let sector = prop_oneof![
        8 => 0..SECTORS + 2,
        1 => any::<u64>(),
        1 => (0u64..4).prop_map(|n| u64::MAX / 512 + n),
    ];
    let len = || {
        prop_oneof![
            6 => (0usize..5).prop_map(|n| n * 512),
            1 => 0usize..1100,
            1 => Just(20usize),
        ]
    };
    let out = (len(), any::<u8>()).prop_map(|(len, seed)| {
        (0..len).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<u8>>()
    });
    let cuts = proptest::collection::vec(0usize..2200, 0..6);
    let cut_header = prop_oneof![12 => Just(0usize), 1 => 1usize..=16];
    (kind, sector, out, len(), cuts, cut_header, prop::bool::weighted(0.95), any::<bool>())
        .prop_map(|(kind, sector, out, data_in, cuts, cut_header, status, indirect)| Request {
            kind,
            sector,
            out,
            data_in,
            cuts,
            cut_header,
            status,
            indirect,
        })
}

/// What a disk does, as plainly as it can be said.
struct Model {
    disk: Vec<u8>,
    read_only: bool,
}

impl Model {
    /// Status, `used.len` and the data before the status.
    fn serve(&mut self, request: &Request) -> (u8, u32, Vec<u8>) {
        let mut data = vec![UNWRITTEN; request.data_in];
        // A header in part takes its missing bytes from what follows.
        let readable = 16 - request.cut_header + request.out.len();
        let whole = request.cut_header == 0;
        if !request.status {
            // The last byte of the data is the status' place, if there is one.
            return self.without_status(request);
        }
        if readable < 16 {
            return (IOERR, u32::from(request.data_in == 0), data);
        }
        assert!(whole, "the strategy cuts no header that has data behind it");
        let (status, written) = self.carry_out(request, &mut data);
        let len = if written == data.len() { written + 1 } else { written };
        (status, len as u32, data)
    }

    fn carry_out(&mut self, request: &Request, data: &mut [u8]) -> (u8, usize) {
        let range = |len: usize| {
            let start = u128::from(request.sector) * 512;
            let end = start + len as u128;
            (len.is_multiple_of(512) && end <= self.disk.len() as u128)
                .then_some(start as usize..end as usize)
        };
        match request.kind {
            IN => match range(data.len()) {
                Some(range) => {
                    data.copy_from_slice(&self.disk[range]);
                    (OK, data.len())
                }
                None => (IOERR, 0),
            },
            OUT if self.read_only => (IOERR, 0),
            OUT => match range(request.out.len()) {
                Some(range) => {
                    self.disk[range].copy_from_slice(&request.out);
                    (OK, 0)
                }
                None => (IOERR, 0),
            },
            FLUSH => (OK, 0),
            GET_ID => {
                let mut serial = [0; 20];
                serial[..SERIAL.len()].copy_from_slice(SERIAL.as_bytes());
                let len = data.len().min(20);
                data[..len].copy_from_slice(&serial[..len]);
                (OK, len)
            }
            _ => (UNSUPP, 0),
        }
    }

    fn without_status(&mut self, request: &Request) -> (u8, u32, Vec<u8>) {
        if request.data_in == 0 {
            return (UNWRITTEN, 0, Vec::new());
        }
        let mut inner = request.clone();
        inner.data_in -= 1;
        inner.status = true;
        let (status, len, mut data) = self.serve(&inner);
        data.push(status);
        (UNWRITTEN, len, data)
    }
}

/// `stream` in buffers that end at `cuts`.
fn pieces(stream: Buf, cuts: &[usize]) -> Vec<Buf> {
    let mut ends: Vec<u32> =
        cuts.iter().map(|&cut| cut as u32).filter(|&cut| cut > 0 && cut < stream.len).collect();
    ends.push(stream.len);
    ends.sort_unstable();
    ends.dedup();
    let mut from = 0;
    ends.iter()
        .filter(|&&end| end > 0)
        .map(|&end| {
            let buf = Buf { addr: stream.addr + u64::from(from), len: end - from, ..stream };
            from = end;
            buf
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 192 },
        // Miri's file system is not for writing failures to.
        failure_persistence: if cfg!(miri) { None } else { ProptestConfig::default().failure_persistence },
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_disk_is_its_bytes(
        requests in proptest::collection::vec(request(), 1..24),
        read_only in any::<bool>(),
        event_idx in any::<bool>(),
        flush in any::<bool>(),
    ) {
        let config = BlockConfig {
            read_only,
            serial: Serial::new(SERIAL).unwrap(),
            queue_size: 64,
            ..BlockConfig::default()
        };
        let mut features = F_INDIRECT | F_VERSION_1;
        features |= if event_idx { F_EVENT_IDX } else { 0 };
        features |= if flush { F_FLUSH } else { 0 };
        let (mut guest, image) = guest(SECTORS, &config, features);
        let mut model = Model { disk: contents(SECTORS), read_only };

        for mut request in requests {
            if request.cut_header > 0 {
                request.out.clear();
            }
            guest.free_all();
            let header = guest.header(request.kind, request.sector);
            let readable =
                [guest.get(header.addr, 16 - request.cut_header), request.out.clone()].concat();
            let readable = guest.out(&readable);
            let writable = guest.room(request.data_in + usize::from(request.status));
            let mut bufs = Vec::new();
            for stream in [readable, writable] {
                if stream.len > 0 {
                    bufs.extend(pieces(stream, &request.cuts));
                }
            }
            if bufs.is_empty() {
                continue;
            }
            let head =
                if request.indirect { guest.add_indirect(&bufs) } else { guest.add(&bufs) };
            guest.finish();

            let (status, len, data) = model.serve(&request);
            prop_assert_eq!(guest.used(), [(head, len)], "{:?}", &request);
            let found = guest.get(writable.addr, writable.len as usize);
            prop_assert_eq!(&found[..request.data_in], &data[..], "{:?}", &request);
            if request.status {
                prop_assert_eq!(found[request.data_in], status, "{:?}", &request);
            }
            prop_assert!(image.bytes() == model.disk, "the disk after {:?}", &request);
            if !flush {
                prop_assert!(image.stable() == model.disk, "write-through");
            }
            prop_assert!(!guest.needs_reset());
        }
    }

    /// Whatever order the engine finishes in, every request gets its own answer, once.
    #[test]
    fn completions_in_any_order(
        kinds in proptest::collection::vec((0usize..4, 0usize..4), 1..20),
        seed in any::<u64>(),
    ) {
        let image = Arc::new(FakeImage::new(contents(4 * 20), false));
        let engine = FakeEngine::new(Arc::clone(&image) as Arc<dyn Image>, seed).unwrap();
        let mut guest = Guest::new(image.capacity(), &BlockConfig::default(), F_ALL, engine);
        let mut expected = contents(4 * 20);
        let mut added = Vec::new();
        // Each request has four sectors of its own: the order of overlapping ones is the guest's
        // matter, which waits for one before it asks for the other.
        for (nth, (kind, sectors)) in kinds.into_iter().enumerate() {
            let kind = [IN, OUT, FLUSH, GET_ID][kind];
            let (place, len) = (nth * 4 * 512, sectors * 512);
            let header = guest.header(kind, nth as u64 * 4);
            let (out, room) = (guest.out(&vec![!(nth as u8); len]), guest.room(len));
            let status = guest.room(1);
            let mut bufs = vec![header];
            if kind == OUT {
                bufs.push(out);
                expected[place..place + len].fill(!(nth as u8));
            } else {
                bufs.push(room);
            }
            bufs.push(status);
            bufs.retain(|buf| buf.len > 0);
            let read = (kind == IN).then(|| expected[place..place + len].to_vec());
            added.push((guest.add(&bufs), read, room, status));
        }
        guest.finish();
        let mut used: Vec<u16> = guest.used().into_iter().map(|(head, _)| head).collect();
        let mut heads: Vec<u16> = added.iter().map(|(head, ..)| *head).collect();
        used.sort_unstable();
        heads.sort_unstable();
        prop_assert_eq!(used, heads);
        for (_, read, room, status) in added {
            prop_assert_eq!(guest.get(status.addr, 1), [OK]);
            if let Some(data) = read {
                prop_assert!(guest.get(room.addr, data.len()) == data);
            }
        }
        prop_assert!(image.bytes() == expected);
    }

    /// Rings full of anything: no panic, an end, and each request answered or a reset asked for.
    #[test]
    fn hostile_rings(
        table in proptest::collection::vec((any::<u64>(), any::<u32>(), 0u16..8, 0u16..20), 16),
        avail in proptest::collection::vec(0u16..18, 16),
        index in 0u16..20,
        tame in prop::bool::weighted(0.8),
    ) {
        let config = BlockConfig { queue_size: 16, ..BlockConfig::default() };
        let (mut guest, image) = guest(SECTORS, &config, F_ALL);
        let table: Vec<_> = table
            .into_iter()
            .map(|(addr, len, flags, next)| {
                if tame { (addr % MEMORY_END, len % 2048, flags, next) } else { (addr, len, flags, next) }
            })
            .collect();
        guest.scribble(&table, &avail, index);
        let mut taken = 0;
        for _ in 0..4 {
            taken += guest.worker.run().processed;
        }
        prop_assert_eq!(guest.worker.queue().in_flight(), 0);
        prop_assert_eq!(guest.needs_reset(), guest.worker.is_broken());
        prop_assert!(guest.worker.is_broken() || taken == u64::from(index));
        prop_assert_eq!(image.bytes().len(), SECTORS as usize * 512);
    }
}
