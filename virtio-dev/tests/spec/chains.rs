//! §2.7.4 framing, §2.7.5 descriptor chains and indirect tables.

use virtio_dev::vm_memory::{Bytes, GuestAddress};
use virtio_dev::{Buffer, LiveQueue, QueueConfig, RingFault, Status, feature};

use crate::common::{
    DATA, Desc, Driver, INDIRECT, NEXT, Ram, Ring, TABLES, WRITE, live_queue, needs_reset,
    new_queue, ram,
};

fn buffer(addr: u64, len: u32) -> Buffer {
    Buffer { addr: GuestAddress(addr), len }
}

/// What popping descriptor 0 gives: the readable and writable buffers, or what broke the queue.
fn pop(table: &[Desc], indirect: &[Desc]) -> Result<(Vec<Buffer>, Vec<Buffer>), RingFault> {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    ring.table(ring.at.desc, table);
    ring.table(TABLES, indirect);
    let (mut queue, driver) = live_queue(&ring, false);
    ring.offer(0);
    let popped = queue.pop();
    assert_eq!(popped.is_none(), queue.is_broken());
    assert_eq!(needs_reset(&driver), queue.is_broken(), "answered, or a reset is asked for");
    match queue.fault() {
        Some(fault) => {
            assert!(queue.pop().is_none());
            Err(fault)
        }
        None => {
            let chain = popped.unwrap();
            let sum = |buffers: &[Buffer]| buffers.iter().map(|b| u64::from(b.len)).sum::<u64>();
            assert_eq!(chain.readable_len(), sum(chain.readable()));
            assert_eq!(chain.writable_len(), sum(chain.writable()));
            Ok((chain.readable().to_vec(), chain.writable().to_vec()))
        }
    }
}

#[test]
fn s2_7_5_a_chain_is_followed_through_next() {
    let chain = pop(
        &[
            Desc(DATA, 16, NEXT, 2),
            Desc(DATA + 0x100, 1, WRITE, 7),
            Desc(DATA + 0x200, 512, NEXT | WRITE, 1),
        ],
        &[],
    );
    assert_eq!(
        chain,
        Ok((vec![buffer(DATA, 16)], vec![buffer(DATA + 0x200, 512), buffer(DATA + 0x100, 1)]))
    );
}

#[test]
fn s2_7_5_2_a_loop_or_a_chain_longer_than_the_queue_ends() {
    assert_eq!(pop(&[Desc(DATA, 1, NEXT, 0)], &[]), Err(RingFault::ChainTooLong));
    let two = [Desc(DATA, 1, NEXT, 1), Desc(DATA, 1, NEXT, 0)];
    assert_eq!(pop(&two, &[]), Err(RingFault::ChainTooLong));
    let mut full: Vec<_> = (1..=16).map(|next| Desc(DATA, 1, NEXT, next)).collect();
    full[15].2 = 0;
    assert_eq!(pop(&full, &[]).unwrap().0.len(), 16, "as long as the queue");
    assert_eq!(pop(&[Desc(DATA, 0, NEXT, 0)], &[]), Err(RingFault::ChainTooLong), "of nothing");
}

#[test]
fn s2_7_5_next_is_below_the_size() {
    assert_eq!(pop(&[Desc(DATA, 1, NEXT, 16)], &[]), Err(RingFault::DescriptorIndex(16)));
    assert_eq!(pop(&[Desc(DATA, 1, NEXT, 0xffff)], &[]), Err(RingFault::DescriptorIndex(0xffff)));
}

#[test]
fn s2_7_5_2_a_chain_is_shorter_than_4_gib() {
    let half = 1 << 31;
    for flags in [0, WRITE] {
        let chain = [Desc(0, half, NEXT, 1), Desc(0, half, flags, 0)];
        assert_eq!(pop(&chain, &[]), Err(RingFault::ChainTooLarge));
        let chain = [Desc(0, half, NEXT, 1), Desc(0, half - 1, flags, 0)];
        assert!(pop(&chain, &[]).is_ok());
    }
    let both = [Desc(0, half, NEXT | WRITE, 1), Desc(0, half, WRITE, 0)];
    assert_eq!(pop(&both, &[]), Err(RingFault::ChainTooLarge));
}

#[test]
fn s2_7_4_2_readable_buffers_come_first() {
    assert_eq!(
        pop(&[Desc(DATA, 1, NEXT | WRITE, 1), Desc(DATA, 1, 0, 0)], &[]),
        Err(RingFault::Order)
    );
    assert_eq!(
        pop(&[Desc(DATA, 0, NEXT | WRITE, 1), Desc(DATA, 1, 0, 0)], &[]),
        Err(RingFault::Order),
        "an empty one counts"
    );
}

#[test]
fn an_empty_buffer_is_no_buffer() {
    let chain = pop(
        &[
            Desc(DATA, 0, NEXT, 1),
            Desc(DATA, 4, NEXT, 2),
            Desc(DATA, 0, NEXT | WRITE, 3),
            Desc(DATA, 5, NEXT | WRITE, 4),
            Desc(DATA, 0, WRITE, 0),
        ],
        &[],
    );
    assert_eq!(chain, Ok((vec![buffer(DATA, 4)], vec![buffer(DATA, 5)])));
    assert_eq!(pop(&[Desc(DATA, 0, 0, 0)], &[]), Ok((vec![], vec![])));
}

#[test]
fn s2_7_5_3_an_indirect_table_is_followed() {
    let table = [
        Desc(DATA, 16, NEXT, 2),
        Desc(DATA + 0x100, 1, WRITE, 7),
        Desc(DATA + 0x200, 512, NEXT | WRITE, 1),
    ];
    let wanted = (vec![buffer(DATA, 16)], vec![buffer(DATA + 0x200, 512), buffer(DATA + 0x100, 1)]);
    // §2.7.5.3.2: WRITE on the descriptor that refers to the table is ignored.
    for flags in [INDIRECT, INDIRECT | WRITE] {
        assert_eq!(pop(&[Desc(TABLES, 48, flags, 0)], &table), Ok(wanted.clone()));
    }
}

#[test]
fn s2_7_5_3_direct_then_indirect_is_allowed() {
    let chain = pop(
        &[
            Desc(DATA, 16, NEXT, 3),
            Desc(0, 0, 0, 0),
            Desc(0, 0, 0, 0),
            Desc(TABLES, 16, INDIRECT, 0),
        ],
        &[Desc(DATA + 0x100, 1, WRITE, 0)],
    );
    assert_eq!(chain, Ok((vec![buffer(DATA, 16)], vec![buffer(DATA + 0x100, 1)])));
    let order = pop(
        &[Desc(DATA, 16, NEXT | WRITE, 1), Desc(TABLES, 16, INDIRECT, 0)],
        &[Desc(DATA + 0x100, 1, 0, 0)],
    );
    assert_eq!(order, Err(RingFault::Order), "over both tables");
}

#[test]
fn s2_7_5_3_1_nested_tables_and_indirect_with_next_are_not() {
    let nested = [Desc(TABLES, 16, INDIRECT, 0)];
    assert_eq!(pop(&nested, &nested), Err(RingFault::Indirect));
    let next = [Desc(TABLES, 16, INDIRECT | NEXT, 1), Desc(DATA, 1, 0, 0)];
    assert_eq!(pop(&next, &[Desc(DATA, 1, 0, 0)]), Err(RingFault::Indirect));
}

#[test]
fn s2_7_5_3_1_an_indirect_descriptor_needs_its_feature() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    ring.desc(0, Desc(TABLES, 16, INDIRECT, 0));
    let mut config = ring.config(false);
    config.indirect = false;
    let driver = Driver::live(feature::VERSION_1);
    let mut queue = LiveQueue::new(&config, &mem, mem, driver.interrupt()).unwrap();
    ring.offer(0);
    assert!(queue.pop().is_none());
    assert_eq!(queue.fault(), Some(RingFault::Indirect));
}

#[test]
fn s2_7_5_3_1_a_table_is_of_whole_descriptors_and_not_empty() {
    let table = [Desc(DATA, 1, 0, 0)];
    for len in [0, 1, 15, 17, 24, u32::MAX] {
        let chain = pop(&[Desc(TABLES, len, INDIRECT, 0)], &table);
        assert_eq!(chain, Err(RingFault::TableLength(len)));
    }
}

#[test]
fn s2_7_5_3_1_an_indirect_chain_is_no_longer_than_the_queue() {
    let table: Vec<_> = (1..=17).map(|next| Desc(DATA, 1, NEXT, next)).collect();
    let ends = |at: usize| {
        let mut table = table.clone();
        table[at - 1].2 = 0;
        pop(&[Desc(TABLES, 17 * 16, INDIRECT, 0)], &table)
    };
    assert_eq!(ends(16).unwrap().0.len(), 16, "whatever the table's length");
    assert_eq!(ends(17), Err(RingFault::ChainTooLong));
    let looped = pop(&[Desc(TABLES, 16, INDIRECT, 0)], &[Desc(DATA, 1, NEXT, 0)]);
    assert_eq!(looped, Err(RingFault::ChainTooLong));
    let mut after_direct: Vec<_> = table[..16].to_vec();
    after_direct[15].2 = 0;
    let both = pop(&[Desc(DATA, 1, NEXT, 1), Desc(TABLES, 16 * 16, INDIRECT, 0)], &after_direct);
    assert_eq!(both, Err(RingFault::ChainTooLong), "both tables count");
}

#[test]
fn an_indirect_chain_may_be_as_long_as_the_largest_ring_offered() {
    for (len, fine) in [(17, true), (64, true), (65, false)] {
        let mem = &ram();
        let mut ring = Ring::new(mem, 16);
        let table: Vec<_> = (1..=len).map(|next| Desc(DATA, 1, NEXT, next)).collect();
        ring.table(TABLES, &table);
        ring.desc(0, Desc(TABLES, u32::from(len) * 16, INDIRECT, 0));
        ring.table(TABLES + u64::from(len - 1) * 16, &[Desc(DATA, 1, 0, 0)]);
        let driver = Driver::live(feature::VERSION_1);
        let config = QueueConfig { size_max: 64, ..ring.config(false) };
        let mut queue = new_queue(&config, mem, driver.interrupt());
        ring.offer(0);
        let buffers = queue.pop().map(|chain| chain.readable().len());
        assert_eq!(buffers, fine.then_some(len.into()));
        assert_eq!(queue.fault(), (!fine).then_some(RingFault::ChainTooLong));
    }
}

#[test]
fn next_in_a_table_is_within_the_table() {
    let chain = pop(
        &[Desc(TABLES, 32, INDIRECT, 0)],
        &[Desc(DATA, 1, NEXT, 2), Desc(DATA, 1, 0, 0), Desc(DATA, 1, 0, 0)],
    );
    assert_eq!(chain, Err(RingFault::DescriptorIndex(2)));
}

#[test]
fn a_table_that_cannot_be_read_breaks_the_queue() {
    let chain = pop(&[Desc(1 << 63, 32, INDIRECT, 0)], &[]);
    assert_eq!(chain, Err(RingFault::Table(1 << 63)));
    let chain = pop(&[Desc(u64::MAX - 15, 32, INDIRECT, 0)], &[]);
    assert_eq!(chain, Err(RingFault::Table(u64::MAX - 15)));
}

#[test]
fn a_huge_table_is_not_copied_beyond_the_queues_size() {
    // 4 GiB of table, of which 16 descriptors are there.
    let chain = pop(&[Desc(TABLES, 0xffff_fff0, INDIRECT, 0)], &[Desc(DATA, 1, 0, 0)]);
    assert_eq!(chain, Ok((vec![buffer(DATA, 1)], vec![])));
}

#[test]
fn buffers_outside_memory_are_the_requests_matter() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    ring.desc(0, Desc(1 << 62, 4, NEXT, 1));
    ring.desc(1, Desc(u64::MAX, 4, WRITE, 0));
    let (mut queue, driver) = live_queue(&ring, false);
    ring.offer(0);
    let chain = queue.pop().unwrap();
    assert!(chain.copy_from(0, &mut [0; 4]).is_err());
    assert!(chain.copy_to(0, &[0; 1]).is_err());
    assert!(chain.copy_to(2, &[0; 1]).is_err(), "past the end of the address space");
    queue.complete(chain, 0);
    queue.publish();
    assert_eq!(ring.used(), [(0, 0)]);
    assert_eq!(driver.control.status() & Status::DEVICE_NEEDS_RESET, Status::empty());
}

#[test]
fn s2_7_4_1_framing_does_not_matter() {
    let text: Vec<u8> = (0..24).collect();
    for cuts in [vec![24], vec![1; 24], vec![5, 0, 16, 3], vec![23, 1]] {
        let mem = &ram();
        let mut ring = Ring::new(mem, 64);
        let mut at = 0;
        for (index, cut) in (0..).zip(&cuts) {
            // Apart in memory, so that what runs over an end is seen.
            let (input, output) = (DATA + index * 64, DATA + 0x8000 + index * 64);
            mem.write_slice(&text[at..at + cut], GuestAddress(input)).unwrap();
            let (index, next) = (index as u16, index as u16 + 1);
            let count = cuts.len() as u16;
            ring.desc(index, Desc(input, *cut as u32, NEXT, next));
            let last = if next == count { WRITE } else { WRITE | NEXT };
            ring.desc(count + index, Desc(output, *cut as u32, last, count + next));
            at += cut;
        }
        let (mut queue, _driver) = live_queue(&ring, false);
        ring.offer(0);
        let chain = queue.pop().unwrap();
        // Each of them takes Miri a tenth of a second.
        let step = if cfg!(miri) { 5 } else { 1 };
        for offset in (0..26).step_by(step) {
            for len in (0..26).step_by(step) {
                let mut data = vec![0xee; len];
                let wanted = &text[offset.min(24)..(offset + len).min(24).max(offset.min(24))];
                let count = chain.copy_from(offset as u64, &mut data).unwrap();
                assert_eq!((count, &data[..count]), (wanted.len(), wanted), "{offset} {len}");
                assert!(data[count..].iter().all(|byte| *byte == 0xee));
            }
        }
        assert_eq!(chain.copy_to(0, &[0x55; 24]).unwrap(), 24);
        assert_eq!(chain.copy_to(3, &text[3..20]).unwrap(), 17);
        assert_eq!(chain.copy_to(20, &[0x66; 9]).unwrap(), 4);
        let mut written = Vec::new();
        for buffer in chain.writable() {
            let mut data = vec![0; buffer.len as usize];
            mem.read_slice(&mut data, buffer.addr).unwrap();
            written.extend(data);
            let after: u8 =
                mem.read_obj(GuestAddress(buffer.addr.0 + u64::from(buffer.len))).unwrap();
            assert_eq!(after, 0);
        }
        let mut wanted = text.clone();
        wanted[..3].fill(0x55);
        wanted[20..].fill(0x66);
        assert_eq!(written, wanted);
        queue.complete(chain, 24);
    }
}

#[test]
fn steady_state_reuses_the_buffers_of_completed_chains() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    (0..15).for_each(|index| ring.desc(index, Desc(DATA, 1, NEXT, index + 1)));
    ring.desc(15, Desc(DATA, 1, 0, 0));
    let (mut queue, _driver): (LiveQueue<&Ram, &Ram>, _) = live_queue(&ring, false);
    let mut places = Vec::new();
    for _ in 0..3 {
        ring.offer(0);
        let chain = queue.pop().unwrap();
        places.push(chain.readable().as_ptr());
        queue.complete(chain, 0);
        queue.publish();
    }
    assert_eq!(places[0], places[1]);
    assert_eq!(places[1], places[2]);
}
