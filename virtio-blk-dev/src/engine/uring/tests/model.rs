use proptest::prelude::*;

use super::*;

/// The disk is in so many parts, each operation of a batch having one of its own, as the order of
/// those in flight together is nobody's promise.
const PARTS: usize = 8;
const PART: u64 = 16 * SECTOR;

#[derive(Clone, Debug)]
struct Op {
    command: Command,
    durable: bool,
    /// Where in its part, in sectors.
    from: u64,
    /// Lengths of the segments, in sectors.
    segments: Vec<u64>,
}

fn op() -> impl Strategy<Value = Op> {
    let command = prop_oneof![
        4 => Just(Command::Read),
        4 => Just(Command::Write),
        1 => Just(Command::Flush),
    ];
    (command, any::<bool>(), 0..8u64, prop::collection::vec(1..3u64, 1..5))
        .prop_map(|(command, durable, from, segments)| Op { command, durable, from, segments })
}

/// Submits a batch, each operation with memory of its own that `pattern` tells apart.
/// What the engine finished at once is the result.
fn submit(engine: &mut dyn Engine, ram: &Ram, batch: &[Op], pattern: u8) -> Vec<Completion> {
    let mut done = Vec::new();
    for (n, op) in batch.iter().enumerate() {
        let (tag, base) = (n as u64, n as u64 * 2 * PART);
        if op.command == Command::Flush {
            done.extend(engine.submit(ram.command(tag, op.command, op.durable, (0, 0))));
            continue;
        }
        ram.fill(base, 2 * PART as usize, pattern.wrapping_add(n as u8));
        let mut at = base;
        let parts: Vec<_> = op
            .segments
            .iter()
            .map(|sectors| {
                let part = (at, (sectors * SECTOR) as usize);
                at += (sectors + 1) * SECTOR;
                part
            })
            .collect();
        let from = tag * PART + op.from * SECTOR;
        done.extend(engine.submit(ram.io(tag, op.command, op.durable, from, &parts)));
    }
    done
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_does_what_the_synchronous_engine_does(
        batches in prop::collection::vec(prop::collection::vec(op(), 1..=PARTS), 1..6),
        inline: bool,
        depth in 1..8u16,
    ) {
        let ram = [(); 2].map(|()| Ram::new(2 * PARTS * PART as usize));
        let disks = [(); 2].map(|()| disk(PARTS as u64 * 16));
        let config = UringConfig { depth, inline, ..UringConfig::default() };
        let Some(mut uring) = engine(&disks[0].1, &config) else { return Ok(()) };
        let mut sync_engine = SyncEngine::new(Arc::clone(&disks[1].1));
        for (n, batch) in batches.iter().enumerate() {
            let pattern = (n * 16) as u8;
            prop_assert!(submit(&mut uring, &ram[0], batch, pattern).is_empty());
            let expected = submit(&mut sync_engine, &ram[1], batch, pattern);
            prop_assert_eq!(results(&finish(&mut uring)), results(&expected));
            let len = 2 * PARTS * PART as usize;
            prop_assert!(ram[0].get(0, len) == ram[1].get(0, len), "memory differs");
            let contents = disks.each_ref().map(|disk| std::fs::read(disk.0.path()).unwrap());
            prop_assert!(contents[0] == contents[1], "disks differ");
        }
    }
}
