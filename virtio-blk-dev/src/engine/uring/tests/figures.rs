//! What an operation costs, by engine and by operations begun together:
//! `cargo test --release -p virtio-blk-dev --lib figures -- --ignored --nocapture`.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::*;

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 4096;
const REPETITIONS: usize = 15;

/// CPU time of the process, the kernel's threads for it included, in nanoseconds.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds of CPU and of time for each of the operations that `work` does.
fn measure(operations: usize, work: impl FnOnce()) -> [f64; 2] {
    let (started, before) = (Instant::now(), cpu());
    work();
    [cpu() - before, started.elapsed().as_nanos() as f64].map(|spent| spent / operations as f64)
}

fn offset(random: &mut u64) -> u64 {
    *random = random.wrapping_add(1);
    random.wrapping_mul(0x9e37_79b9_7f4a_7c15) % BLOCKS * BLOCK
}

/// Buffers for operations on `depth` blocks, used again and again.
struct Load {
    ram: Ram,
    depth: u64,
    rounds: u64,
    spares: Vec<IoAllocation>,
    random: u64,
}

impl Load {
    fn new(depth: u64) -> Self {
        let rounds = (2000 / depth).max(1);
        Self { ram: Ram::new(1 << 20), depth, rounds, spares: Vec::new(), random: 0 }
    }

    fn through(&mut self, engine: &mut dyn Engine, command: Command) -> [f64; 2] {
        let Self { ram, depth, rounds, spares, random } = self;
        measure((*depth * *rounds) as usize, || {
            for _ in 0..*rounds {
                let mut done = 0;
                for n in 0..*depth {
                    let mut spare = spares.pop().unwrap_or_else(IoAllocation::new);
                    let at = GuestAddress(n * BLOCK);
                    spare
                        .segments()
                        .gather(&ram.0, at, BLOCK as usize, Permissions::ReadWrite)
                        .unwrap();
                    // SAFETY: the memory is there until all is done.
                    let io = unsafe { spare.begin(n, command, false, (offset(random), BLOCK)) };
                    if let Some(completion) = engine.submit(io) {
                        completion.result.unwrap();
                        spares.push(completion.io.end());
                        done += 1;
                    }
                }
                engine.commit();
                let mut left = *depth - done;
                while left > 0 {
                    engine.poll_completions(&mut |completion| {
                        completion.result.unwrap();
                        spares.push(completion.io.end());
                        left -= 1;
                    });
                }
            }
        })
    }

    fn raw(&mut self, file: BorrowedFd<'_>, command: Command) -> [f64; 2] {
        let Self { depth, rounds, random, .. } = self;
        let mut memory = vec![0u8; (*depth * BLOCK) as usize];
        measure((*depth * *rounds) as usize, || {
            for n in 0..*depth * *rounds {
                let buffer = memory[(n % *depth * BLOCK) as usize..][..BLOCK as usize].as_mut_ptr();
                let (fd, at) = (file.as_raw_fd(), offset(random) as i64);
                let moved = match command {
                    // SAFETY: a block of memory.
                    Command::Read => unsafe {
                        libc::pread64(fd, buffer.cast(), BLOCK as usize, at)
                    },
                    // SAFETY: a block of memory.
                    _ => unsafe { libc::pwrite64(fd, buffer.cast(), BLOCK as usize, at) },
                };
                assert_eq!(moved, BLOCK as isize);
            }
        })
    }
}

fn quartiles(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let at = |quarter: usize| values[values.len() * quarter / 4];
    format!("{:.0} ({:.0}-{:.0})", at(2), at(1), at(3))
}

#[test]
#[ignore = "measures, and asserts nothing"]
fn figures() {
    for dir in ["/dev/shm", "/tmp"] {
        let file = NamedTempFile::new_in(dir).unwrap();
        std::fs::write(file.path(), vec![1; (BLOCK * BLOCKS) as usize]).unwrap();
        file.as_file().sync_all().unwrap();
        let image = Arc::new(RawImage::open(file.path(), false).unwrap());
        for command in [Command::Read, Command::Write] {
            for depth in [1, 2, 4, 32] {
                let mut load = Load::new(depth);
                let [inline, ring] = configs(128).map(|config| engine(&image, &config));
                let (Some(mut inline), Some(mut ring)) = (inline, ring) else { return };
                let mut sync_engine = SyncEngine::new(Arc::clone(&image));
                let mut spent: [[Vec<f64>; 2]; 4] = Default::default();
                for _ in 0..REPETITIONS {
                    let figures = [
                        load.raw(image.as_fd(), command),
                        load.through(&mut sync_engine, command),
                        load.through(&mut inline, command),
                        load.through(&mut ring, command),
                    ];
                    for (spent, figures) in spent.iter_mut().zip(figures) {
                        spent.iter_mut().zip(figures).for_each(|(spent, n)| spent.push(n));
                    }
                }
                println!("{dir} {command:?}, {depth} together, n = {REPETITIONS}:");
                for (name, [cpu, time]) in ["raw", "sync", "uring", "ring"].iter().zip(&mut spent) {
                    println!("  {name:5} cpu {}, time {} ns", quartiles(cpu), quartiles(time));
                }
            }
        }
    }
}
