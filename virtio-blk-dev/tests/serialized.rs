//! What one process tells another by serde.
#![cfg(all(feature = "test-utils", feature = "serde", not(miri)))]

mod common;

use std::fmt::Debug;

use common::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use virtio_blk_dev::{
    Alignment, BlockConfig, Commands, ImageFormat, Latency, Rate, RateLimits, RequestKind, Serial,
    Stats, Topology,
};

fn passes<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let bytes = postcard::to_stdvec(&value).unwrap();
    assert_eq!(postcard::from_bytes(&bytes), Ok(value));
}

/// A value of `T` from the fields of another type.
fn read<T: DeserializeOwned>(fields: impl Serialize) -> Option<T> {
    postcard::from_bytes(&postcard::to_stdvec(&fields).unwrap()).ok()
}

#[test]
fn what_passes_serde_is_the_same() {
    [ImageFormat::Raw, ImageFormat::Qcow2, ImageFormat::Vmdk].into_iter().for_each(passes);
    for text in ["", "db-0", "of twenty bytes, all", "\u{e4}\u{f6}\u{fc}"] {
        passes(Serial::new(text).unwrap());
    }
    let rate = Rate { per_second: 500, burst: u64::MAX };
    passes(RateLimits { ops: Some(rate), bytes: None });
    passes(Topology { physical_block_size: 4096, opt_io_size: 7, ..Topology::default() });
    passes(Commands { discard: Some(4096), write_zeroes: true, ..Commands::default() });
    passes(Alignment { memory: 4, offset: 512 });
    passes(Stats::default());

    let (mut guest, _) = guest(8, &BlockConfig::default(), F_ALL);
    assert_eq!(guest.request(IN, 0, &[], 512).status, OK);
    assert_eq!(guest.request(IN, 8, &[], 512).status, IOERR);
    let stats = guest.worker.counters().read();
    assert_eq!(
        (stats[RequestKind::Read].requests, stats[RequestKind::Read].latency.count()),
        (2, 2)
    );
    passes(stats);
}

#[test]
fn what_no_constructor_takes_serde_refuses() {
    assert!(read::<Serial>("of twenty bytes, and 1").is_none());
    assert_eq!(read::<Rate>((1_u64, 1_u64)), Some(Rate { per_second: 1, burst: 1 }));
    assert!([(0_u64, 1_u64), (1, 0)].into_iter().all(|fields| read::<Rate>(fields).is_none()));
    for (memory, offset) in [(0_u32, 512_u32), (4, 0), (4, 513), (3, 512)] {
        assert!(read::<Alignment>((memory, offset)).is_none(), "{memory} {offset}");
    }
    let topology = |logical: u32, physical: u32, offset: u32| {
        read::<Topology>((logical, physical, offset, 0_u32, 0_u32))
    };
    assert!(topology(65536, 65536, 65535).is_some());
    assert!([0, 256, 513, 131072].into_iter().all(|size| topology(size, 131072, 0).is_none()));
    assert!([0, 2048, 5000].into_iter().all(|size| topology(4096, size, 0).is_none()));
    assert!([8192, u32::MAX].into_iter().all(|offset| topology(4096, 8192, offset).is_none()));
    let commands = |unit: Option<u32>| {
        let discard = read::<Commands>((unit, true, true, None::<u32>, false));
        let erase = read::<Commands>((None::<u32>, true, true, unit, false));
        [discard, erase].map(|commands| commands.is_some())
    };
    assert_eq!([commands(None), commands(Some(512))], [[true; 2]; 2]);
    assert_eq!([commands(Some(0)), commands(Some(256)), commands(Some(513))], [[false; 2]; 3]);
    assert!(read::<Latency>((vec![0_u64; 3], 0_u64)).is_none());
}
