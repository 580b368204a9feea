//! A driver that does as it is told: the window, a ring, and memory for requests.

use crate::check::ensure;
use crate::memory::{Memory, PAGE};
use crate::reg::*;
use crate::window::Window;
use anyhow::{Result, bail};
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

/// Where things are in the memory, a page each and more for data.
pub(crate) const TABLE_AT: usize = 0;
pub(crate) const AVAIL_AT: usize = PAGE;
pub(crate) const USED_AT: usize = 2 * PAGE;
/// The header of a request, and its status byte 32 bytes on; one of 64 bytes for each slot.
pub(crate) const HEADER_AT: usize = 3 * PAGE;
pub(crate) const INDIRECT_AT: usize = 4 * PAGE;
pub(crate) const DATA_AT: usize = 5 * PAGE;
pub(crate) const DATA_PAGES: usize = 16;
/// What a request's status byte holds before it is answered.
const UNANSWERED: u8 = 0xee;
/// How long a device may take for what it does.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing must happen for it to count as nothing.
const SILENCE: Duration = Duration::from_millis(40);
const PAUSE: Duration = Duration::from_micros(500);

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered {
        head: u32,
        len: u32,
    },
    /// The device asked for a reset.
    Broken,
    Silent,
}

/// A part of a request between its header and its status.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) write: bool,
}

pub(crate) struct Rig {
    pub(crate) window: Window,
    pub(crate) memory: Memory,
    pub(crate) size: u16,
    offered: u16,
    seen: u16,
}

impl Rig {
    pub(crate) fn open(base: u64) -> Result<Self> {
        let (window, memory) = (Window::map(base)?, Memory::pages(5 + DATA_PAGES)?);
        Ok(Self { window, memory, size: 64, offered: 0, seen: 0 })
    }

    pub(crate) fn status(&self) -> u32 {
        self.window.read(STATUS)
    }

    /// Resets the device and waits until it is done.
    pub(crate) fn reset(&mut self) -> Result<()> {
        self.window.write(STATUS, 0);
        let since = Instant::now();
        while self.status() != 0 {
            ensure(since.elapsed() < PATIENCE, || "the reset doesn't end".to_owned())?;
            thread::sleep(PAUSE);
        }
        for at in (0..INDIRECT_AT).step_by(8) {
            self.memory.write64(at, 0);
        }
        (self.offered, self.seen) = (0, 0);
        Ok(())
    }

    pub(crate) fn device_features(&self) -> u64 {
        let half = |select| {
            self.window.write(DEVICE_FEATURES_SEL, select);
            u64::from(self.window.read(DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    pub(crate) fn has(&self, bit: u32) -> bool {
        self.device_features() >> bit & 1 != 0
    }

    pub(crate) fn accept(&self, features: u64) {
        for (select, half) in [(0, features), (1, features >> 32)] {
            self.window.write(DRIVER_FEATURES_SEL, select);
            self.window.write(DRIVER_FEATURES, half as u32);
        }
    }

    /// As far as FEATURES_OK, with these features beside VERSION_1.
    pub(crate) fn negotiate(&mut self, bits: &[u32]) -> Result<()> {
        self.reset()?;
        self.window.write(STATUS, ACKNOWLEDGE);
        self.window.write(STATUS, ACKNOWLEDGE | DRIVER);
        self.accept(bits.iter().fold(1 << VERSION_1, |features, bit| features | 1 << bit));
        self.window.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        let status = self.status();
        ensure(status & FEATURES_OK != 0, || format!("features {bits:?} refused: {status:#x}"))
    }

    /// Tells queue 0 where its rings are.
    pub(crate) fn place(&self, table: u64, avail: u64, used: u64) {
        self.window.write(QUEUE_SEL, 0);
        self.window.write(QUEUE_SIZE, self.size.into());
        for (register, address) in
            [(QUEUE_DESC, table), (QUEUE_DRIVER, avail), (QUEUE_DEVICE, used)]
        {
            self.window.write(register, address as u32);
            self.window.write(register + 4, (address >> 32) as u32);
        }
        self.window.write(QUEUE_READY, 1);
    }

    pub(crate) fn place_rings(&self) {
        let at = |offset| self.memory.address(offset);
        self.place(at(TABLE_AT), at(AVAIL_AT), at(USED_AT));
    }

    pub(crate) fn go(&self) {
        self.window.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// A driver that is ready, with these features.
    pub(crate) fn up(&mut self, bits: &[u32]) -> Result<()> {
        self.negotiate(bits)?;
        self.place_rings();
        self.go();
        Ok(())
    }

    /// Writes a descriptor of a table in the memory.
    pub(crate) fn describe(&self, table: usize, index: u16, part: Part, flags: u16, next: u16) {
        let at = table + usize::from(index) * 16;
        let flags = flags | if part.write { WRITE } else { 0 };
        self.memory.write64(at, part.addr);
        self.memory.write32(at + 8, part.len);
        self.memory.write16(at + 12, flags);
        self.memory.write16(at + 14, next);
    }

    /// Puts a head into the available ring, and counts it.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = usize::from(self.offered % self.size);
        self.memory.write16(AVAIL_AT + 4 + slot * 2, head);
        self.offered = self.offered.wrapping_add(1);
        self.set_avail(self.offered);
    }

    pub(crate) fn set_avail(&self, index: u16) {
        fence(Ordering::SeqCst);
        self.memory.write16(AVAIL_AT + 2, index);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn kick(&self) {
        self.window.write(QUEUE_NOTIFY, 0);
    }

    /// Writes the header of slot `slot` and makes its status unanswered.
    pub(crate) fn header(&self, slot: usize, kind: u32, sector: u64) -> (Part, Part) {
        let at = HEADER_AT + slot * 64;
        self.memory.write32(at, kind);
        self.memory.write32(at + 4, 0);
        self.memory.write64(at + 8, sector);
        self.memory.write8(at + 32, UNANSWERED);
        let part = |offset, len, write| Part { addr: self.memory.address(offset), len, write };
        (part(at, 16, false), part(at + 32, 1, true))
    }

    /// The status byte of a slot, if it was answered.
    pub(crate) fn answer(&self, slot: usize) -> Option<u8> {
        Some(self.memory.read8(HEADER_AT + slot * 64 + 32)).filter(|byte| *byte != UNANSWERED)
    }

    /// Data of the memory, `len` bytes from its start on, within a page.
    pub(crate) fn data(&self, len: u32, write: bool) -> Part {
        Part { addr: self.memory.address(DATA_AT), len, write }
    }

    /// Writes a chain into the ring's table, from descriptor `first` on.
    pub(crate) fn chain(&self, first: u16, parts: &[Part]) {
        for (index, part) in (first..).zip(parts) {
            let last = usize::from(index - first) + 1 == parts.len();
            let (flags, next) = if last { (0, 0) } else { (NEXT, index + 1) };
            self.describe(TABLE_AT, index, *part, flags, next);
        }
    }

    /// Offers a chain that begins at `head`, kicks, and waits for what becomes of it.
    pub(crate) fn send(&mut self, head: u16) -> Outcome {
        self.offer(head);
        self.kick();
        self.outcome()
    }

    /// The next used entry, a broken device, or neither.
    pub(crate) fn outcome(&mut self) -> Outcome {
        let since = Instant::now();
        loop {
            fence(Ordering::SeqCst);
            if self.memory.read16(USED_AT + 2) != self.seen {
                let at = USED_AT + 4 + usize::from(self.seen % self.size) * 8;
                self.seen = self.seen.wrapping_add(1);
                let (head, len) = (self.memory.read32(at), self.memory.read32(at + 4));
                return Outcome::Answered { head, len };
            }
            if self.status() & NEEDS_RESET != 0 {
                return Outcome::Broken;
            }
            if since.elapsed() > PATIENCE {
                return Outcome::Silent;
            }
            thread::sleep(PAUSE);
        }
    }

    /// The status of a request of this type with these parts, which must be answered.
    pub(crate) fn request(&mut self, kind: u32, sector: u64, parts: &[Part]) -> Result<u8> {
        let (header, status) = self.header(0, kind, sector);
        let chain: Vec<Part> = [header].iter().chain(parts).chain([&status]).copied().collect();
        self.chain(0, &chain);
        match self.send(0) {
            Outcome::Answered { head: 0, len } => {
                let room: u64 = chain.iter().filter(|p| p.write).map(|p| u64::from(p.len)).sum();
                ensure(u64::from(len) <= room, || format!("used.len {len} of {room} bytes"))?;
                match self.answer(0) {
                    Some(status) => Ok(status),
                    None => bail!("answered without a status"),
                }
            }
            other => bail!("a request of type {kind} came to {other:?}"),
        }
    }

    /// Sends a malformed chain: it is answered, or the device asks for a reset.
    pub(crate) fn bears(&mut self, head: u16) -> Result<()> {
        match self.send(head) {
            Outcome::Silent => bail!("neither answered nor NEEDS_RESET"),
            Outcome::Broken | Outcome::Answered { .. } => Ok(()),
        }
    }

    /// Fails if the device takes what it was offered, or if it doesn't answer its registers.
    pub(crate) fn ignores(&mut self) -> Result<()> {
        let before = self.memory.read16(USED_AT + 2);
        self.kick();
        thread::sleep(SILENCE);
        let after = self.memory.read16(USED_AT + 2);
        ensure(before == after, || format!("used.idx went from {before} to {after}"))?;
        self.alive()
    }

    pub(crate) fn alive(&self) -> Result<()> {
        crate::check::same("the magic number", self.window.read(MAGIC), 0x7472_6976)
    }

    /// Reads sector 0 with the driver as it is.
    pub(crate) fn works(&mut self) -> Result<()> {
        let data = self.data(512, true);
        let status = self.request(IN, 0, &[data])?;
        crate::check::same("the status of a read", status, OK)
    }
}

impl Drop for Rig {
    /// The memory goes back to the kernel, so nothing may be live.
    fn drop(&mut self) {
        if let Err(error) = self.reset() {
            eprintln!("%% hostile: after the action, {error}");
        }
    }
}
