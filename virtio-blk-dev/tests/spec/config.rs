//! Features and the configuration space (§5.2.3 to §5.2.5), and a change of the capacity.

use std::sync::atomic::Ordering;

use virtio_blk_dev::fake::FakeImage;
use virtio_blk_dev::{BlockConfig, BlockDevice, Commands};
use virtio_dev::fake::NoQueues;
use virtio_dev::{Ignored, VirtioDevice, WriteOutcome};
use virtio_mmio_dev::Register;

use super::common::*;
use super::{answer, writable};

#[test]
fn s5_2_4_the_configuration_is_read_in_bounds_and_written_nowhere() {
    let (mut guest, _) = writable(8);
    let before = guest.transport.device().config().to_vec();
    for offset in (0x100..0x240).chain([0x7fff_ffff, u64::MAX - 8]) {
        for width in [1, 2, 4, 8] {
            let mut data = [0xff; 8];
            guest.transport.read(offset, &mut data[..width]);
            let outcome = guest.transport.write(offset, &[0xff; 8][..width], &mut NoQueues);
            assert_eq!(outcome, WriteOutcome::Ignored(Ignored::Config));
        }
    }
    assert_eq!(guest.transport.device().config(), before);
    let mut capacity = [0; 8];
    guest.transport.read(0x100, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 8);
}

fn features(config: &BlockConfig) -> u64 {
    BlockDevice::new(4096, config).unwrap().features()
}

#[test]
fn s5_2_3_features_say_what_the_image_can_do() {
    const CHANGES: u64 = F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE;
    let offered = |commands, read_only| {
        let image = FakeImage::new(contents(8), read_only).with_commands(commands);
        features(&BlockConfig::for_image(&image)) & (CHANGES | F_LIFETIME | F_RO)
    };
    let none = Commands::default();
    assert_eq!(offered(none, false), 0);
    assert_eq!(offered(none, true), F_RO);
    assert_eq!(offered(COMMANDS, false), CHANGES);
    assert_eq!(offered(Commands { lifetime: true, ..COMMANDS }, true), F_RO | F_LIFETIME);
    assert_eq!(offered(Commands { discard: Some(512), ..none }, false), F_DISCARD);
    assert_eq!(offered(Commands { write_zeroes: true, ..none }, false), F_WRITE_ZEROES);
    assert_eq!(offered(Commands { secure_erase: Some(512), ..none }, false), F_SECURE_ERASE);
    assert_eq!(offered(Commands { lifetime: true, ..none }, false), F_LIFETIME);
}

#[test]
fn s5_2_5_2_zones_are_not_offered_and_have_no_fields() {
    let image = FakeImage::new(contents(8), false).with_commands(COMMANDS);
    let config = BlockConfig::for_image(&image);
    let (guest, _) = guest_on(image, &config, u64::MAX);
    assert_eq!(guest.transport.features() & F_ZONED, 0);
    assert!(
        guest
            .transport
            .device()
            .config()
            .get(72..)
            .is_none_or(|zoned| zoned.iter().all(|byte| *byte == 0))
    );
}

#[test]
fn s5_2_5_2_padding_is_zero() {
    let image = FakeImage::new(contents(8), false).with_commands(COMMANDS);
    let config = BlockConfig { num_queues: 256, ..BlockConfig::for_image(&image) };
    let (mut guest, _) = guest_on(image, &config, u64::MAX);
    assert_eq!(guest.config::<1>(33), [0], "unused0");
    assert_eq!(guest.config::<3>(57), [0; 3], "unused1");
    guest.set_writeback(0xff);
    assert_eq!(guest.config::<2>(32), [1, 0]);
}

#[test]
fn s5_2_4_limits_of_the_commands_are_those_that_hold() {
    let image = FakeImage::new(contents(8), false).with_commands(Commands {
        discard: Some(4096),
        secure_erase: Some(1024),
        ..COMMANDS
    });
    let config = BlockConfig::for_image(&image);
    let (mut guest, image) =
        guest_on(image, &config, F_ALL | F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE);
    let mut word = |at| u32::from_le_bytes(guest.config(at));
    assert_eq!((word(44), word(68)), (8, 2), "alignments in sectors");
    for (kind, sectors, segments) in [
        (DISCARD, word(36), word(40)),
        (WRITE_ZEROES, word(48), word(52)),
        (SECURE_ERASE, word(60), word(64)),
    ] {
        assert!(sectors > 0 && segments > 0, "type {kind}");
        // Small enough disks don't reach the limit of a range.
        let list = vec![(0, 8, 0); segments as usize + 1];
        let most = ranges(&list[1..]);
        assert_eq!(guest.request(kind, 0, &most, 0).status, OK, "type {kind}");
        let more = ranges(&list);
        assert_eq!(guest.request(kind, 0, &more, 0).status, IOERR, "type {kind}");
    }
    assert_eq!(image.bytes(), [0xff; 8 * 512], "the last of them was the erase");
}

#[test]
fn s5_2_6_2_may_unmap_is_set_only_where_storage_is_given_back() {
    for may_unmap in [false, true] {
        let commands = Commands { write_zeroes_may_unmap: may_unmap, ..COMMANDS };
        let image = FakeImage::new(contents(8), false).with_commands(commands);
        let config = BlockConfig::for_image(&image);
        let (mut guest, _) = guest_on(image, &config, F_ALL | F_WRITE_ZEROES);
        assert_eq!(guest.config::<1>(56), [u8::from(may_unmap)]);
    }
}

#[test]
fn s5_2_2_there_are_as_many_queues_as_mq_says() {
    for num_queues in [1, 3] {
        let config = BlockConfig { num_queues, ..BlockConfig::default() };
        let (mut guest, _) = guest(8, &config, F_ALL | F_MQ);
        assert_eq!(guest.transport.features() & F_MQ != 0, num_queues > 1);
        assert_eq!(guest.config::<2>(34), num_queues.to_le_bytes());
        for index in 0..5u32 {
            let offset = Register::QueueSel.offset();
            let _ = guest.transport.write(offset, &index.to_le_bytes(), &mut NoQueues);
            let max = guest.register(Register::QueueSizeMax);
            assert_eq!(max, if index < num_queues.into() { 256 } else { 0 }, "queue {index}");
        }
    }
}

#[test]
fn s5_2_6_2_another_capacity_is_told_and_holds_at_once() {
    let (mut guest, image) = writable(8);
    assert_eq!(guest.request(IN, 8, &[], 512).status, IOERR);
    let generation = guest.register(Register::ConfigGeneration);
    guest.acknowledge();
    let before = guest.raised.load(Ordering::Relaxed);

    image.resize(16 * 512);
    guest.transport.device_mut().set_capacity(16 * 512).unwrap();
    guest.transport.config_changed();
    assert_eq!(guest.raised.load(Ordering::Relaxed), before + 1);
    assert_eq!(guest.acknowledge(), 2, "a configuration change notification");
    assert_ne!(guest.register(Register::ConfigGeneration), generation);
    assert_eq!(u64::from_le_bytes(guest.config(0)), 16);
    assert_eq!(guest.request(OUT, 15, &[7; 512], 0), answer(OK, 1), "to a running worker, too");
    assert_eq!(guest.request(IN, 15, &[], 512).data, [7; 512]);
    assert_eq!(guest.request(IN, 15, &[], 1024).status, IOERR);

    guest.transport.device_mut().set_capacity(4 * 512).unwrap();
    guest.transport.config_changed();
    assert_eq!(guest.request(IN, 4, &[], 512).status, IOERR);
    assert_eq!(guest.request(OUT, 3, &[7; 1024], 0), answer(IOERR, 1));
    assert_eq!(guest.request(IN, 3, &[], 512).data, [3; 512]);
}

#[test]
fn s2_5_2_the_generation_holds_while_nothing_changes() {
    let (mut guest, _) = writable(8);
    let generation = guest.register(Register::ConfigGeneration);
    guest.request(OUT, 1, &[7; 512], 0);
    let _ = guest.config::<64>(0);
    assert_eq!(guest.register(Register::ConfigGeneration), generation);
}
