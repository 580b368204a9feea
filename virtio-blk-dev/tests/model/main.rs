//! Any sequence of requests, valid or not, one at a time or many at once, over every engine and
//! format, against a disk that is a vector of sectors.
#![cfg(feature = "test-utils")]
#![allow(unreachable_pub)]

mod beds;
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod driver;
mod expect;
#[cfg(feature = "imago")]
#[path = "../common/host.rs"]
mod host;
#[cfg(feature = "imago")]
mod qcow2;
mod request;

use beds::{Bed, EngineKind, Format};
use common::*;
use driver::Driver;
use proptest::prelude::*;
use request::{Request, Step, steps};
use virtio_blk_dev::BlockConfig;

const SECTORS: u64 = 12;
const SERIAL: &str = "a-serial";

/// How the driver sets the device up.
#[derive(Clone, Copy, Debug)]
struct Setup {
    read_only: bool,
    event_idx: bool,
    flush: bool,
    /// Requests that it has in flight at most.
    depth: usize,
}

fn setup() -> impl Strategy<Value = Setup> {
    let read_only = prop::bool::weighted(0.2);
    let depth = prop_oneof![1 => Just(1usize), 2 => Just(12)];
    (read_only, any::<bool>(), any::<bool>(), depth).prop_map(
        |(read_only, event_idx, flush, depth)| Setup { read_only, event_idx, flush, depth },
    )
}

fn run(
    format: Format,
    engine: EngineKind,
    setup: Setup,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let Some(bed) = Bed::new(format, engine, setup.read_only) else { return Ok(()) };
    Driver::new(bed, setup).work(steps)
}

/// Fewer under Miri, whose file system is not for writing failures to.
fn cases(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    if cfg!(miri) {
        ProptestConfig { cases: 2, failure_persistence: None, ..default }
    } else {
        ProptestConfig { cases, ..default }
    }
}

/// One test for each pair of a format and an engine.
macro_rules! a_disk_is_its_sectors {
    ($($(#[$attribute:meta])* $name:ident: $format:expr, $engine:expr, $cases:expr;)*) => {
        $(proptest! {
            #![proptest_config(cases($cases))]
            #[test]
            $(#[$attribute])*
            fn $name(setup in setup(), steps in steps(), seed in any::<u64>()) {
                let engine: fn(u64) -> EngineKind = $engine;
                run($format, engine(seed), setup, steps)?;
            }
        })*
    };
}

a_disk_is_its_sectors! {
    memory_and_an_engine_that_finishes_at_once: Format::Memory, |_| EngineKind::Sync, 64;
    memory_and_an_engine_that_finishes_late: Format::Memory, EngineKind::Late, 96;
    #[cfg_attr(miri, ignore = "Miri has no locks of files")]
    raw_and_an_engine_that_finishes_at_once: Format::Raw, |_| EngineKind::Sync, 24;
    #[cfg_attr(miri, ignore = "Miri has no locks of files")]
    raw_and_an_engine_that_finishes_late: Format::Raw, EngineKind::Late, 24;
    #[cfg_attr(miri, ignore = "Miri has no locks of files")]
    raw_and_io_uring: Format::Raw, |_| EngineKind::Uring { inline: false }, 24;
    #[cfg_attr(miri, ignore = "Miri has no locks of files")]
    raw_and_io_uring_or_around_it: Format::Raw, |_| EngineKind::Uring { inline: true }, 24;
}

// Few of them, as QEMU's tools have the last word in each.
#[cfg(feature = "imago")]
a_disk_is_its_sectors! {
    #[cfg_attr(miri, ignore = "Miri starts no processes")]
    qcow2_of_six_clusters_and_an_engine_that_finishes_at_once:
        Format::Qcow2 { cluster_size: 1024 }, |_| EngineKind::Sync, 24;
    #[cfg_attr(miri, ignore = "Miri starts no processes")]
    qcow2_of_six_clusters_and_an_engine_that_finishes_late:
        Format::Qcow2 { cluster_size: 1024 }, EngineKind::Late, 24;
    #[cfg_attr(miri, ignore = "Miri starts no processes")]
    qcow2_of_one_cluster_and_an_engine_that_finishes_at_once:
        Format::Qcow2 { cluster_size: 65536 }, |_| EngineKind::Sync, 12;
    #[cfg_attr(miri, ignore = "Miri starts no processes")]
    qcow2_of_one_cluster_and_an_engine_that_finishes_late:
        Format::Qcow2 { cluster_size: 65536 }, EngineKind::Late, 12;
}

proptest! {
    #![proptest_config(cases(128))]

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
