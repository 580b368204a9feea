use std::collections::HashMap;
use std::sync::Arc;

use virtio_blk_dev::Engine;
use virtio_blk_dev::fake::ERASED;

use crate::common::*;
use crate::image::RecordedImage;
use crate::log::{Event, Leaves, Log, Request, SECTOR, SECTORS, Sector};

/// What a driver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Changes and flushes.
    Flushes,
    /// Changes alone.
    Changes,
    /// Changes and flushes, and the cache on and off.
    Switches,
    /// Changes alone, and at the end the cache off.
    OneSwitch,
}

/// A driver that doesn't wait for one request before it makes the next, and knows its own mind only
/// by a seed.
pub struct Driver<E: Engine> {
    guest: Guest<E>,
    image: Arc<RecordedImage>,
    features: u64,
    random: u64,
    requests: Vec<Request>,
    /// Request and place of the status by head.
    waiting: HashMap<u16, (usize, u64)>,
}

impl<E: Engine> Driver<E> {
    pub fn new(guest: Guest<E>, image: Arc<RecordedImage>, features: u64, seed: u64) -> Self {
        let (requests, waiting) = (Vec::new(), HashMap::new());
        Self { guest, image, features, random: seed << 1 | 1, requests, waiting }
    }

    fn random(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % bound
    }

    pub fn work(mut self, mix: Mix) -> Log {
        let writeback =
            (self.features & F_CONFIG_WCE != 0).then(|| self.guest.config::<1>(32)[0] != 0);
        for _ in 0..120 {
            let nothing = self.waiting.is_empty();
            match self.random(20) {
                0..4 if matches!(mix, Mix::Flushes | Mix::Switches) => self.flush(),
                4 if mix == Mix::Switches => {
                    let on = self.random(2) == 0;
                    self.switch(on);
                }
                5 if mix == Mix::Switches => self.settle(),
                0..12 if self.waiting.len() < 12 => self.change(),
                _ if nothing => self.change(),
                _ => self.run(),
            }
        }
        self.settle();
        if mix == Mix::OneSwitch {
            self.switch(false);
            self.settle();
        }
        Log {
            initial: RecordedImage::initial(),
            events: self.image.take_events(),
            requests: self.requests,
            write_through: self.features & F_FLUSH == 0,
            writeback,
        }
    }

    fn add(&mut self, request: Request, kind: u32, sector: u64, out: &[u8]) {
        let nth = self.requests.len();
        let status = self.guest.room(1);
        let mut bufs = vec![self.guest.header(kind, sector)];
        if !out.is_empty() {
            bufs.push(self.guest.out(out));
        }
        bufs.push(status);
        self.requests.push(request);
        self.image.record(Event::Asked(nth));
        let head = self.guest.add(&bufs);
        self.waiting.insert(head, (nth, status.addr));
    }

    fn flush(&mut self) {
        self.add(Request::Flush, FLUSH, 0, &[]);
    }

    fn change(&mut self) {
        let len = self.random(3) as usize + 1;
        let first = self.random(SECTORS - len as u64 + 1) as usize;
        let sectors: Vec<usize> = (first..first + len).collect();
        let list = |sectors: &[usize]| {
            let each: Vec<_> = sectors.iter().map(|sector| (*sector as u64, 1, 0)).collect();
            ranges(&each)
        };
        let filled = |value| Leaves::Sector(Box::new([value; SECTOR]));
        match self.random(10) {
            0 => {
                let out = list(&sectors);
                self.add(Request::Change { sectors, leaves: Leaves::Anything }, DISCARD, 0, &out);
            }
            1 => {
                let out = list(&sectors);
                self.add(Request::Change { sectors, leaves: filled(0) }, WRITE_ZEROES, 0, &out);
            }
            2 => {
                let out = list(&sectors);
                self.add(
                    Request::Change { sectors, leaves: filled(ERASED) },
                    SECURE_ERASE,
                    0,
                    &out,
                );
            }
            _ => {
                // Like no other sector.
                let mut content: Sector = [0x40; SECTOR];
                content[..8].copy_from_slice(&(self.requests.len() as u64).to_le_bytes());
                content[SECTOR - 8..].copy_from_slice(&(self.requests.len() as u64).to_be_bytes());
                let out = content.repeat(len);
                let leaves = Leaves::Sector(Box::new(content));
                self.add(Request::Change { sectors, leaves }, OUT, first as u64, &out);
            }
        }
    }

    fn switch(&mut self, on: bool) {
        self.image.record(Event::Switched(on));
        self.guest.set_writeback(on.into());
    }

    /// Has the worker do something, and looks at what it did.
    fn run(&mut self) {
        self.guest.worker.run();
        for (head, _) in self.guest.used() {
            let (nth, status) = self.waiting.remove(&head).unwrap();
            let ok = self.guest.get(status, 1) == [OK];
            self.image.record(Event::Answered(nth, ok));
        }
    }

    /// Waits for everything.
    fn settle(&mut self) {
        self.run();
        while !self.waiting.is_empty() || self.guest.worker.stats().in_flight > 0 {
            self.run();
        }
        self.image.record(Event::Idle);
    }
}
