//! Every short schedule of two queues, a driver that switches the cache and resets, and an engine that
//! finishes late: what was acknowledged under write-through is stable.
#![cfg(all(feature = "test-utils", not(miri)))]

mod common;

use std::sync::Arc;

use common::late::Late;
use common::*;
use virtio_blk_dev::BlockConfig;
use virtio_blk_dev::fake::FakeImage;

const F_SWITCH: u64 = F_ALL | F_CONFIG_WCE;
const STEPS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The driver makes a write available.
    Write(usize),
    /// The queue's worker has a turn.
    Turn(usize),
    /// The engines finish what they have.
    Finish,
    Switch(u8),
    Reset,
}

const ALL: [Step; 8] = [
    Step::Write(0),
    Step::Write(1),
    Step::Turn(0),
    Step::Turn(1),
    Step::Finish,
    Step::Switch(0),
    Step::Switch(1),
    Step::Reset,
];

/// A write that isn't answered yet.
struct Pending {
    queue: usize,
    sector: u64,
    status: u64,
    /// The cache was off all the time since it was submitted (virtio 1.2 §5.2.6.2).
    through: bool,
}

struct Bed {
    image: Arc<FakeImage>,
    engines: [Late; 2],
    queues: [Guest<Late>; 2],
    pending: Vec<Pending>,
    cache: bool,
    writes: u64,
}

impl Bed {
    /// The second queue's rings are another guest's; it serves the same disk.
    fn new() -> Self {
        let image = Arc::new(FakeImage::new(contents(16), false));
        let engines = [Late::new(&image), Late::new(&image)];
        let config = BlockConfig { queue_size: 16, ..BlockConfig::default() };
        let guest = |engine: &Late| Guest::new(16 * 512, &config, F_SWITCH, engine.clone());
        let mut queues = [guest(&engines[0]), guest(&engines[1])];
        let params = queues[0].transport.device().params();
        queues[1].replace_worker(engines[1].clone(), &params);
        Self { image, engines, queues, pending: Vec::new(), cache: true, writes: 0 }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(queue) => {
                self.writes += 1;
                let (sector, guest) = (self.writes, &mut self.queues[queue]);
                let data = guest.out(&[0x80 | sector as u8; 512]);
                let bufs = [guest.header(OUT, sector), data, guest.room(1)];
                guest.add(&bufs);
                let (status, through) = (bufs[2].addr, !self.cache);
                self.pending.push(Pending { queue, sector, status, through });
            }
            Step::Turn(queue) => drop(self.queues[queue].worker.run()),
            Step::Finish => self.engines.iter().for_each(Late::release),
            Step::Switch(on) => {
                self.queues[0].set_writeback(on);
                self.cache = on != 0;
                self.pending.iter_mut().for_each(|write| write.through &= !self.cache);
            }
            Step::Reset => {
                // Both drain before the reset is answered; what they answer was submitted before.
                self.queues[1].worker.drain().unwrap();
                self.queues[0].worker.drain().unwrap();
                self.look();
                self.pending.clear();
                for queue in &mut self.queues {
                    queue.restart(F_SWITCH);
                }
                let params = self.queues[0].transport.device().params();
                for (queue, engine) in self.queues.iter_mut().zip(&self.engines) {
                    queue.replace_worker(engine.clone(), &params);
                }
                self.cache = true;
            }
        }
        self.look();
    }

    /// What has been acknowledged under write-through is stable.
    fn look(&mut self) {
        let Self { image, queues, pending, .. } = self;
        pending.retain(|write| {
            let status = queues[write.queue].get(write.status, 1)[0];
            if status == OK && write.through {
                let at = write.sector as usize * 512;
                let value = 0x80 | write.sector as u8;
                assert!(image.stable()[at..at + 512] == [value; 512], "sector {}", write.sector);
            }
            status == UNWRITTEN
        });
    }
}

#[test]
fn what_is_acknowledged_under_write_through_is_stable_in_every_schedule() {
    let mut answered = 0;
    for schedule in 0..ALL.len().pow(STEPS as u32) {
        let steps = (0..STEPS).map(|nth| ALL[schedule / ALL.len().pow(nth as u32) % ALL.len()]);
        let steps: Vec<Step> = steps.collect();
        // Without a write, or one that begins with a switch that changes nothing, there is nothing new.
        if !steps.iter().any(|step| matches!(step, Step::Write(_)))
            || matches!(steps[0], Step::Turn(_) | Step::Finish | Step::Switch(1) | Step::Reset)
        {
            continue;
        }
        let mut bed = Bed::new();
        let end = [Step::Turn(0), Step::Turn(1), Step::Finish, Step::Turn(0), Step::Turn(1)];
        for step in steps.into_iter().chain(end) {
            bed.step(step);
        }
        assert!(bed.pending.is_empty());
        answered += 1;
    }
    assert!(answered > 1000, "{answered} schedules");
}
