use std::collections::HashMap;

use proptest::prelude::*;
use virtio_blk_dev::{BlockConfig, Engine, Serial};

use crate::beds::{Backing, Bed};
use crate::common::*;
use crate::disk::{Disk, SECTOR};
use crate::expect::{Effect, Expected, Rules};
use crate::{Request, SECTORS, SERIAL, Setup, Step};

/// An address outside of the guest's memory.
const NOWHERE: u64 = MEMORY_END + 0x1000;

/// A request in flight.
struct Pending {
    request: Request,
    expected: Expected,
    number: usize,
    asked: u64,
    /// The writable stream, and the status if that is elsewhere.
    writable: Buf,
    status: Option<u64>,
}

/// A driver that checks every answer.
pub struct Driver {
    guest: Guest<Box<dyn Engine>>,
    backing: Backing,
    rules: Rules,
    disk: Disk,
    setup: Setup,
    pending: HashMap<u16, Pending>,
    asked: usize,
    now: u64,
}

impl Driver {
    pub fn new(bed: Bed, setup: Setup) -> Self {
        let mut config = BlockConfig {
            serial: Serial::new(SERIAL).unwrap(),
            queue_size: 256,
            ..BlockConfig::for_image(&*bed.image)
        };
        // Less than the disk, so that they count.
        let limits = &mut config.limits;
        for range in [&mut limits.discard, &mut limits.secure_erase].into_iter().flatten() {
            (range.max_sectors, range.max_seg) = (6, 3);
        }
        if let Some(zeroes) = &mut limits.write_zeroes {
            (zeroes.max_sectors, zeroes.max_seg) = (5, 2);
        }
        let mut features = F_INDIRECT | F_VERSION_1 | F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE;
        features |= if setup.event_idx { F_EVENT_IDX } else { 0 };
        features |= if setup.flush { F_FLUSH } else { 0 };
        let rules = Rules { read_only: setup.read_only, limits: config.limits };
        Self {
            guest: Guest::new(SECTORS * 512, &config, features, bed.engine),
            backing: bed.backing,
            rules,
            disk: Disk::new(&contents(SECTORS)),
            setup,
            pending: HashMap::new(),
            asked: 0,
            now: 1,
        }
    }

    pub fn work(mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        for step in steps {
            match step {
                Step::Ask(request) => self.ask(request),
                Step::Look => self.look()?,
            }
            while self.pending.len() >= self.setup.depth {
                self.look()?;
            }
            self.compare_at_rest()?;
        }
        while !self.pending.is_empty() {
            self.look()?;
        }
        self.compare_at_rest()?;
        self.compare(&self.backing.last_contents(self.setup.flush))?;
        prop_assert_eq!(self.guest.worker.stats().host_errors, 0);
        prop_assert_eq!(self.guest.worker.stats().in_flight, 0);
        Ok(())
    }

    fn ask(&mut self, request: Request) {
        let Request { kind, sector, cut_header, lost, .. } = request;
        let header = self.guest.header(kind, sector);
        let mut readable = self.guest.get(header.addr, 16 - cut_header);
        let (mut bufs, writable, mut status) =
            (Vec::new(), self.guest.room(request.data_in + 1), None);
        let in_len = request.data_in + usize::from(request.status);
        let writable = Buf { len: in_len as u32, ..writable };
        if lost {
            let stream = self.guest.out(&readable);
            bufs.extend(pieces(stream, &request.cuts));
            let out = Buf { addr: NOWHERE, len: request.out.len() as u32, write: false };
            let room = Buf { addr: NOWHERE, len: request.data_in as u32, write: true };
            bufs.extend([out, room].into_iter().filter(|buf| buf.len > 0));
            let last = self.guest.room(1);
            status = Some(last.addr);
            bufs.push(last);
        } else {
            readable.extend(&request.out);
            for stream in [self.guest.out(&readable), writable] {
                bufs.extend(pieces(stream, &request.cuts));
            }
        }
        if bufs.is_empty() {
            return;
        }
        let expected = self.rules.expect(&request);
        self.now += 1;
        if let Effect::Changes(changes) = &expected.effect {
            self.disk.ask(changes, self.asked, self.now);
        }
        let head =
            if request.indirect { self.guest.add_indirect(&bufs) } else { self.guest.add(&bufs) };
        let (number, asked) = (self.asked, self.now);
        let pending = Pending { request, expected, number, asked, writable, status };
        self.pending.insert(head, pending);
        self.asked += 1;
    }

    /// Has the worker run, and looks at what was answered.
    fn look(&mut self) -> Result<(), TestCaseError> {
        self.guest.worker.run();
        for (head, len) in self.guest.used() {
            self.now += 1;
            let pending = self.pending.remove(&head).unwrap();
            self.check(&pending, len)?;
            if let Effect::Changes(changes) = &pending.expected.effect {
                self.disk.answer(changes, pending.number, self.now);
            }
        }
        prop_assert!(!self.guest.needs_reset());
        Ok(())
    }

    fn check(&self, pending: &Pending, len: u32) -> Result<(), TestCaseError> {
        let Pending { request, expected, .. } = pending;
        prop_assert_eq!(len, expected.len, "{:?}", request);
        let found = self.guest.get(pending.writable.addr, pending.writable.len as usize);
        if let Some(status) = expected.status {
            let place = pending.status.unwrap_or(pending.writable.addr + expected.data_in as u64);
            prop_assert_eq!(self.guest.get(place, 1)[0], status, "{:?}", request);
        }
        if request.lost {
            return Ok(());
        }
        let data = &found[..expected.data_in];
        let told: &[u8] = match &expected.effect {
            Effect::Reads(first) => {
                for (sector, content) in (*first as usize..).zip(data.chunks(SECTOR)) {
                    let may = self.disk.may_hold(sector, pending.asked, content);
                    prop_assert!(may, "sector {} as read by {:?}", sector, request);
                }
                return Ok(());
            }
            Effect::Tells(told) => told,
            _ => &[],
        };
        prop_assert_eq!(&data[..told.len()], told, "{:?}", request);
        let rest = &data[told.len()..];
        prop_assert!(rest.iter().all(|byte| *byte == UNWRITTEN), "{:?}", request);
        Ok(())
    }

    /// With nothing in flight the image itself is what the driver would read.
    fn compare_at_rest(&mut self) -> Result<(), TestCaseError> {
        if !self.pending.is_empty() {
            return Ok(());
        }
        self.guest.free_all();
        let Some(contents) = self.backing.contents() else { return Ok(()) };
        self.compare(&contents)?;
        if let (Some(stable), false) = (self.backing.stable(), self.setup.flush) {
            prop_assert!(stable == contents, "written through");
        }
        Ok(())
    }

    fn compare(&self, contents: &[u8]) -> Result<(), TestCaseError> {
        prop_assert_eq!(contents.len(), SECTORS as usize * SECTOR);
        for (sector, content) in contents.chunks(SECTOR).enumerate() {
            prop_assert!(self.disk.may_hold(sector, u64::MAX, content), "sector {}", sector);
        }
        Ok(())
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
