//! What a block device does with a ring that holds still, as plainly as it can be said.

use std::ops::Range;

use virtio_dev::QueueConfig;

use super::walk::{Buf, Chain, View, walk};

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// How one request comes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) head: u16,
    /// Bytes written from the first device-writable one on.
    pub(super) len: u32,
}

/// Everything that can be told of the outcome.
#[derive(Debug, Default)]
pub(super) struct Prediction {
    pub(super) answers: Vec<Answer>,
    pub(super) broken: bool,
    pub(super) memory: Vec<u8>,
    pub(super) disk: Vec<u8>,
    /// Nothing that a request writes is read by the ring, by another, or by itself. Else the
    /// outcome depends on when the device looks, and nothing else here means anything.
    pub(super) apart: bool,
    /// `memory` and `disk` are meant: no request was of a kind that isn't predicted.
    pub(super) exact: bool,
    /// The disk's contents or what was read of it depend on the order of the requests.
    pub(super) ordered: bool,
    /// Positions on the disk that requests write to.
    written: Vec<(usize, usize)>,
    /// Addresses that the device may write to, in order.
    fillable: Vec<Range<usize>>,
}

impl Prediction {
    pub(super) fn make(
        memory: &[u8],
        disk: &[u8],
        queue: &QueueConfig,
        read_only: bool,
        serial: &[u8],
    ) -> Self {
        let ring = walk(View(memory), queue);
        let fillable = places(memory.len(), queue, &ring.chains);
        let mut plan = Self {
            broken: ring.broken,
            memory: memory.to_vec(),
            disk: disk.to_vec(),
            apart: fillable.is_some() && !ring.repeated,
            exact: true,
            fillable: fillable.unwrap_or_default(),
            ..Self::default()
        };
        if plan.apart {
            let mut accesses = Vec::new();
            for chain in &ring.chains {
                let len = plan.serve(chain, read_only, serial, &mut accesses);
                plan.answers.push(Answer { head: chain.head, len });
            }
            plan.ordered = depend(&accesses);
            let writes = accesses.iter().filter(|access| access.write);
            plan.written = writes.map(|access| (access.start, access.end)).collect();
        }
        plan
    }

    /// Whether the disk may change at `at`.
    pub(super) fn may_write(&self, at: usize) -> bool {
        self.written.iter().any(|&(start, end)| (start..end).contains(&at))
    }

    /// Whether the device may write to the address `at`.
    pub(super) fn may_fill(&self, at: usize) -> bool {
        let next = self.fillable.partition_point(|range| range.start <= at);
        next.checked_sub(1).is_some_and(|last| self.fillable[last].contains(&at))
    }

    fn serve(
        &mut self,
        chain: &Chain,
        read_only: bool,
        serial: &[u8],
        accesses: &mut Vec<Access>,
    ) -> u32 {
        let writable: u64 = chain.writable.iter().map(|buf| buf.len).sum();
        if writable == 0 {
            return 0;
        }
        let data_in = writable - 1;
        let header = gather(View(&self.memory), &chain.readable, 0, 16);
        let (status, written) = match header.filter(|header| header.len() == 16) {
            None => (IOERR, 0),
            Some(header) => {
                let kind = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
                let sector = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
                self.carry_out(chain, kind, sector, data_in, (read_only, serial), accesses)
            }
        };
        let last = window(&chain.writable, data_in, 1);
        if !self.scatter(&last, &[status]) {
            return 0;
        }
        (if written == data_in { data_in + 1 } else { written }) as u32
    }

    /// The status, and how many bytes before it are known to be written.
    fn carry_out(
        &mut self,
        chain: &Chain,
        kind: u32,
        sector: u64,
        data_in: u64,
        (read_only, serial): (bool, &[u8]),
        accesses: &mut Vec<Access>,
    ) -> (u8, u64) {
        let readable: u64 = chain.readable.iter().map(|buf| buf.len).sum();
        let data_out = readable - 16;
        let place = |len: u64| {
            let start = u128::from(sector) * 512;
            let end = start + u128::from(len);
            (len > 0 && len.is_multiple_of(512) && end <= self.disk.len() as u128)
                .then_some((start as usize, end as usize))
        };
        match kind {
            0 => {
                let Some((start, end)) = place(data_in) else { return (IOERR, 0) };
                let data = self.disk[start..end].to_vec();
                if !self.scatter(&window(&chain.writable, 0, data_in), &data) {
                    return (IOERR, 0);
                }
                accesses.push(Access { start, end, write: false });
                (OK, data_in)
            }
            1 if read_only => (IOERR, 0),
            1 => {
                let Some((start, end)) = place(data_out) else { return (IOERR, 0) };
                let data = gather(View(&self.memory), &chain.readable, 16, data_out);
                let Some(data) = data else { return (IOERR, 0) };
                self.disk[start..end].copy_from_slice(&data);
                accesses.push(Access { start, end, write: true });
                (OK, 0)
            }
            4 => (OK, 0),
            8 => {
                let mut id = [0; 20];
                id[..serial.len()].copy_from_slice(serial);
                self.tell(chain, data_in, &id)
            }
            // The image's lifetime is all zeroes: "undefined" (virtio 1.2 §5.2.6).
            10 => self.tell(chain, data_in, &[0; 6]),
            // Kinds that a device may serve or not.
            11 | 13 | 14 => {
                self.exact = false;
                accesses.push(Access { start: 0, end: self.disk.len(), write: true });
                (UNSUPP, 0)
            }
            _ => (UNSUPP, 0),
        }
    }

    /// Answers with as much of `data` as there is room for: the status, and the bytes written.
    fn tell(&mut self, chain: &Chain, data_in: u64, data: &[u8]) -> (u8, u64) {
        let len = data_in.min(data.len() as u64);
        if self.scatter(&window(&chain.writable, 0, len), &data[..len as usize]) {
            return (OK, len);
        }
        // How much of it was written before isn't said.
        self.exact = false;
        (IOERR, 0)
    }

    /// Writes `data` if all of `pieces` is in memory.
    fn scatter(&mut self, pieces: &[Buf], mut data: &[u8]) -> bool {
        if pieces.iter().any(|piece| View(&self.memory).slice(piece.addr, piece.len).is_none()) {
            return false;
        }
        for piece in pieces {
            let (now, later) = data.split_at(piece.len as usize);
            let at = piece.addr as usize;
            self.memory[at..at + now.len()].copy_from_slice(now);
            data = later;
        }
        true
    }
}

/// A request's use of the disk.
struct Access {
    start: usize,
    end: usize,
    write: bool,
}

fn depend(accesses: &[Access]) -> bool {
    accesses.iter().enumerate().any(|(nth, a)| {
        accesses[..nth].iter().any(|b| (a.write || b.write) && a.start < b.end && b.start < a.end)
    })
}

/// Bytes `skip` to `skip + len` of the stream that `buffers` are.
fn window(buffers: &[Buf], mut skip: u64, mut len: u64) -> Vec<Buf> {
    let mut pieces = Vec::new();
    for buf in buffers {
        let skipped = skip.min(buf.len);
        let taken = (buf.len - skipped).min(len);
        skip -= skipped;
        len -= taken;
        if taken > 0 {
            // An address that can't be is not in memory either.
            pieces.push(Buf { addr: buf.addr.saturating_add(skipped), len: taken });
        }
    }
    pieces
}

/// The bytes of that window, `None` if some of it isn't in memory.
fn gather(memory: View<'_>, buffers: &[Buf], skip: u64, len: u64) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for piece in window(buffers, skip, len) {
        data.extend(memory.slice(piece.addr, piece.len)?);
    }
    Some(data)
}

/// Where in memory the device may write, in order; `None` if something that it reads, or that
/// another request has it write, lies there too.
fn places(len: usize, queue: &QueueConfig, chains: &[Chain]) -> Option<Vec<Range<usize>>> {
    let size = u64::from(queue.size);
    let clipped = |addr: u64, count: u64| {
        let range = View::range(addr, count).unwrap_or(len..len);
        range.start.min(len)..range.end.min(len)
    };
    let table = clipped(queue.desc_table, 16 * size);
    let avail = clipped(queue.avail_ring, 6 + 2 * size);
    // The device writes its ring, but entry by entry, which is compared elsewhere.
    let used = clipped(queue.used_ring, 6 + 8 * size);
    let mut uses = vec![(table, false), (avail, false), (used, true)];
    for chain in chains {
        let read = chain.readable.iter().chain(&chain.table).map(|buf| (buf, false));
        let written = chain.writable.iter().map(|buf| (buf, true));
        uses.extend(read.chain(written).map(|(buf, write)| (clipped(buf.addr, buf.len), write)));
    }
    uses.retain(|(range, _)| !range.is_empty());
    uses.sort_by_key(|(range, _)| range.start);
    let (mut read_to, mut written_to) = (0, 0);
    for (range, write) in &uses {
        if range.start < written_to || (*write && range.start < read_to) {
            return None;
        }
        let end = if *write { &mut written_to } else { &mut read_to };
        *end = range.end.max(*end);
    }
    Some(uses.into_iter().filter(|(_, write)| *write).map(|(range, _)| range).collect())
}
