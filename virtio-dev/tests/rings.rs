//! Random rings: what is valid is seen as virtio-queue sees it, and what is not ends in an answer
//! or in DEVICE_NEEDS_RESET, in bounded time.

mod common;

use proptest::prelude::*;
use virtio_dev::vm_memory::{Bytes, GuestAddress};
use virtio_dev::{Chain, LiveQueue, feature};
use virtio_queue::{Queue, QueueOwnedT, QueueT};

use common::{
    DATA, Desc, Driver, INDIRECT, NEXT, RAM_SIZE, RING, Ram, Ring, TABLES, WRITE, needs_reset, ram,
};

const CASES: u32 = if cfg!(miri) { 2 } else { 256 };
/// Chains of a valid ring at most.
const CHAINS: usize = if cfg!(miri) { 5 } else { 12 };
/// Hostile descriptors in a table.
const HOSTILE: usize = if cfg!(miri) { 8 } else { 16 };
/// Bytes of noise in each part of a ring of 16; the descriptor table alone has 256.
const NOISE: usize = if cfg!(miri) { 0x100 } else { 0x1000 };

fn config() -> ProptestConfig {
    ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() }
}

/// A buffer as both sides see it: address, length, writable.
type Seen = (u64, u32, bool);

/// The chains the oracle finds: heads and buffers, empty ones left out as ours are.
fn oracle(mem: &Ram, size: u16, next_avail: u16) -> Option<Vec<(u16, Vec<Seen>)>> {
    let mut queue = Queue::new(size).unwrap();
    queue.set_size(size);
    let halves = |addr: u64| (Some(addr as u32), Some((addr >> 32) as u32));
    let (low, high) = halves(RING.desc);
    queue.set_desc_table_address(low, high);
    let (low, high) = halves(RING.avail);
    queue.set_avail_ring_address(low, high);
    let (low, high) = halves(RING.used);
    queue.set_used_ring_address(low, high);
    queue.set_next_avail(next_avail);
    queue.set_ready(true);
    let chains = queue.iter(mem).ok()?;
    Some(
        chains
            .map(|chain| {
                let head = chain.head_index();
                let seen = chain
                    .map(|desc| (desc.addr().0, desc.len(), desc.is_write_only()))
                    .filter(|(_, len, _)| *len != 0);
                (head, seen.collect())
            })
            .collect(),
    )
}

fn seen(chain: &Chain<&Ram>) -> Vec<Seen> {
    let readable = chain.readable().iter().map(|b| (b.addr.0, b.len, false));
    let writable = chain.writable().iter().map(|b| (b.addr.0, b.len, true));
    readable.chain(writable).collect()
}

/// A chain to be: buffers as (length, writable), the readable ones first, and how many of them
/// from the end are in an indirect table.
#[derive(Clone, Debug)]
struct Plan {
    readable: Vec<u32>,
    writable: Vec<u32>,
    indirect: Option<usize>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let lens = || prop::collection::vec(prop_oneof![4 => 1_u32..5000, 1 => Just(0)], 0..4);
    (lens(), lens(), prop::option::of(1_usize..6))
        .prop_filter("no buffers", |(readable, writable, _)| {
            !readable.is_empty() || !writable.is_empty()
        })
        .prop_map(|(readable, writable, indirect)| Plan { readable, writable, indirect })
}

/// Lays `plan` out at `free` descriptors; `None` if they don't suffice.
fn lay_out(ring: &Ring<'_, Ram>, plan: &Plan, free: &mut Vec<u16>, table: u64) -> Option<u16> {
    let buffers: Vec<(u32, u16)> = plan
        .readable
        .iter()
        .map(|len| (*len, 0))
        .chain(plan.writable.iter().map(|len| (*len, WRITE)))
        .collect();
    let in_table = plan.indirect.unwrap_or(0).min(buffers.len());
    let (direct, indirect) = buffers.split_at(buffers.len() - in_table);
    let count = direct.len() + usize::from(in_table != 0);
    if free.len() < count {
        return None;
    }
    let indices: Vec<u16> = free.drain(free.len() - count..).collect();
    for (nth, (len, flags)) in direct.iter().enumerate() {
        let (flags, next) = match indices.get(nth + 1) {
            Some(next) => (flags | NEXT, *next),
            None => (*flags, 0xdead),
        };
        let addr = DATA + 16 * u64::from(indices[nth]);
        ring.desc(indices[nth], Desc(addr, *len, flags, next));
    }
    if in_table != 0 {
        let len = (in_table * 16) as u32;
        // WRITE means nothing there: set it now and then.
        let odd = plan.writable.len() as u16 % 2;
        let refer = Desc(table, len, INDIRECT | (odd * WRITE), 0);
        ring.desc(*indices.last().unwrap(), refer);
        // Backwards in the table, but for the first.
        let place = |nth: usize| if nth == 0 { 0 } else { in_table - nth };
        let mut descs = vec![Desc(0, 0, 0, 0); in_table];
        for (nth, (len, flags)) in indirect.iter().enumerate() {
            let more = if nth + 1 < in_table { NEXT } else { 0 };
            let addr = DATA + 0x1000 + 16 * nth as u64;
            descs[place(nth)] = Desc(addr, *len, flags | more, place(nth + 1) as u16);
        }
        ring.table(table, &descs);
    }
    Some(indices[0])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn valid_rings_are_seen_as_virtio_queue_sees_them(
        log in 3_u32..6,
        start in prop_oneof![Just(0_u16), Just(0xfffa), any::<u16>()],
        plans in prop::collection::vec(plan(), 1..CHAINS),
        seed in any::<u64>(),
    ) {
        let size = 1_u16 << log;
        let mem = &ram();
        let mut ring = Ring::new(mem, size);
        (ring.avail_idx, ring.last_used) = (start, start);
        let mut free: Vec<u16> = (0..size).collect();
        free.sort_by_key(|index| (u64::from(*index) + 1).wrapping_mul(seed | 1) >> 7);
        let config = ring.config(true);
        let mut heads = Vec::new();
        for (table, plan) in (TABLES..).step_by(0x100).zip(&plans) {
            if let Some(head) = lay_out(&ring, plan, &mut free, table) {
                ring.entry(head);
                heads.push(head);
            }
        }
        ring.publish();
        mem.write_obj(start, GuestAddress(ring.at.used + 2)).unwrap();

        let driver = Driver::live(feature::VERSION_1);
        let mut queue = LiveQueue::new(&config, &mem, mem, driver.interrupt()).unwrap();
        let ours: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let theirs = oracle(mem, size, start).unwrap();
        prop_assert!(!queue.is_broken(), "{:?}", queue.fault());
        let pairs: Vec<_> = ours.iter().map(|chain| (chain.head(), seen(chain))).collect();
        prop_assert_eq!(&pairs, &theirs);
        prop_assert_eq!(ours.iter().map(Chain::head).collect::<Vec<_>>(), heads.clone());
        for chain in ours {
            queue.complete(chain, 1);
        }
        queue.publish();
        prop_assert_eq!(ring.used().len(), heads.len());
    }

    #[test]
    fn hostile_rings_end_in_an_answer_or_a_reset(
        log in 0_u32..5,
        descs in prop::collection::vec(hostile_desc(), HOSTILE),
        table in prop::collection::vec(hostile_desc(), HOSTILE),
        entries in prop::collection::vec(prop_oneof![9 => 0_u16..17, 1 => any::<u16>()], 16),
        avail in prop_oneof![8 => 0_u16..18, 1 => any::<u16>()],
        rounds in 1_usize..4,
    ) {
        let size = 1_u16 << log;
        let mem = &ram();
        let mut ring = Ring::new(mem, size);
        let config = ring.config(true);
        for (index, desc) in (0..size).zip(&descs) {
            ring.desc(index, *desc);
        }
        ring.table(TABLES, &table);
        entries.iter().take(size.into()).for_each(|head| ring.entry(*head));
        ring.set_avail_idx(avail);

        let driver = Driver::live(feature::VERSION_1);
        let mut queue = LiveQueue::new(&config, &mem, mem, driver.interrupt()).unwrap();
        let theirs = oracle(mem, size, 0).unwrap_or_default();
        let mut popped = 0;
        for _ in 0..rounds {
            let chains: Vec<_> = std::iter::from_fn(|| queue.pop()).take(100).collect();
            prop_assert!(chains.len() <= usize::from(size));
            for (nth, chain) in chains.iter().enumerate() {
                prop_assert!(seen(chain).len() <= usize::from(size));
                prop_assert!(chain.readable_len() + chain.writable_len() < 1 << 32);
                // What we take is what the oracle takes; where it stops early, we break.
                let (head, buffers) = &theirs[popped + nth];
                prop_assert_eq!((chain.head(), &seen(chain)), (*head, buffers));
                // Contents may be anywhere: an error, not a panic.
                let _ = chain.copy_from(0, &mut [0; 64]);
            }
            popped += chains.len();
            for chain in chains.into_iter().rev() {
                queue.complete(chain, u32::MAX);
            }
            queue.publish();
            prop_assert_eq!(queue.in_flight(), 0);
        }
        prop_assert_eq!(queue.is_broken(), needs_reset(&driver));
        prop_assert_eq!(ring.used().len(), popped, "every chain is answered");
        if !queue.is_broken() {
            prop_assert_eq!(u16::try_from(popped).unwrap(), avail);
        }
    }

    #[test]
    fn a_ring_of_noise_does_no_harm(
        noise in prop::collection::vec(any::<u8>(), NOISE),
        event_idx in any::<bool>(),
    ) {
        let mem = &ram();
        for base in [RING.desc, RING.avail, RING.used] {
            mem.write_slice(&noise, GuestAddress(base)).unwrap();
        }
        let driver = Driver::live(feature::VERSION_1);
        let mut config = Ring::new(mem, 16).config(event_idx);
        config.next_avail = u16::from_le_bytes([noise[2], noise[3]]).wrapping_sub(5);
        let mut queue = LiveQueue::new(&config, &mem, mem, driver.interrupt()).unwrap();
        while let Some(chain) = queue.pop() {
            queue.complete(chain, 1);
            queue.publish();
            queue.disable_notification();
            queue.enable_notification();
        }
        prop_assert_eq!(queue.is_broken(), needs_reset(&driver));
    }
}

fn hostile_desc() -> impl Strategy<Value = Desc> {
    let addr = prop_oneof![
        6 => 0..RAM_SIZE as u64,
        3 => Just(TABLES),
        1 => any::<u64>(),
    ];
    let len = prop_oneof![
        4 => (0_u32..18).prop_map(|n| n * 16),
        2 => 0_u32..0x1000,
        // virtio-queue refuses a table with more entries than `next` can name, which nothing
        // forbids a driver.
        1 => any::<u32>().prop_map(|n| if n % 16 == 0 && n >> 20 != 0 { n + 1 } else { n }),
    ];
    let flags = prop_oneof![
        4 => Just(0_u16), 4 => Just(NEXT), 2 => Just(WRITE), 2 => Just(NEXT | WRITE),
        2 => Just(INDIRECT), 1 => any::<u16>(),
    ];
    let next = prop_oneof![9 => 0_u16..17, 1 => any::<u16>()];
    (addr, len, flags, next).prop_map(|(addr, len, flags, next)| Desc(addr, len, flags, next))
}
