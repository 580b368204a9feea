//! §4.2.2 the registers.

use virtio_mmio_dev::{
    Access, Ignored, MmioTransport, Register, Status, VirtioDevice, WINDOW_SIZE, feature,
};

use crate::common::{Effect, RING, TestDevice, Window};

const V1: u64 = feature::VERSION_1;

#[test]
fn s4_2_2_identification() {
    let mut window = Window::new(TestDevice::default());
    assert_eq!(window.read(Register::MagicValue), 0x7472_6976);
    assert_eq!(window.read(Register::Version), 2);
    assert_eq!(window.read(Register::DeviceId), 2);
    assert_eq!(window.read(Register::VendorId), 0x1234_5678);
}

#[test]
fn s4_2_2_feature_pages_from_2_on_read_0() {
    let mut window = Window::new(TestDevice::default());
    let features = window.transport.device_features();
    for (page, bits) in
        [(0, features as u32), (1, (features >> 32) as u32), (2, 0), (3, 0), (u32::MAX, 0)]
    {
        window.set(Register::DeviceFeaturesSel, page);
        assert_eq!(window.read(Register::DeviceFeatures), bits, "page {page}");
    }
}

#[test]
fn s4_2_2_driver_feature_pages_from_2_on_are_ignored() {
    let mut window = Window::new(TestDevice::default());
    window.offer(V1);
    for page in [2, 3, u32::MAX] {
        window.set(Register::DriverFeaturesSel, page);
        window.set(Register::DriverFeatures, u32::MAX);
    }
    window.set(Register::Status, 3);
    window.set(Register::Status, 11);
    assert_eq!(window.transport.features(), V1);
}

#[test]
fn s4_2_2_queue_size_max_is_0_for_a_queue_that_is_not_there_and_any_selector_is_safe() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1 | feature::RING_RESET);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    for (queue, max) in [(0, 16), (1, 64), (2, 0), (3, 0), (65536, 0), (u32::MAX, 0)] {
        window.set(Register::QueueSel, queue);
        assert_eq!(window.read(Register::QueueSizeMax), max, "queue {queue}");
    }
    let before = window.transport.state();
    for queue in [2, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX] {
        window.set(Register::QueueSel, queue);
        for register in Register::ALL.iter().filter(|r| r.offset() != 0x70 && r.offset() != 0x30) {
            window.set(*register, 1);
            let _ = window.read(*register);
        }
        assert_eq!(window.read(Register::QueueReady), 0);
        assert_eq!(window.read(Register::QueueReset), 0);
    }
    assert_eq!(window.transport.state().queues, before.queues);
}

#[test]
fn s4_2_2_a_queue_of_an_invalid_size_does_not_become_ready() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    for size in [0, 3, 15, 17, 32, 0x8000, 0x1_0000, 0x1_0010, u32::MAX] {
        window.set_up_queue(0, 16, &RING);
        window.set(Register::QueueSize, size);
        window.set(Register::QueueReady, 1);
        assert_eq!(window.read(Register::QueueReady), 0, "size {size}");
    }
    for size in [1, 2, 4, 8, 16] {
        window.set_up_queue(0, size, &RING);
        window.set(Register::QueueReady, 1);
        assert_eq!(window.read(Register::QueueReady), 1, "size {size}");
        window.set(Register::QueueReady, 0);
        assert_eq!(window.read(Register::QueueReady), 0);
    }
}

#[test]
fn s4_2_2_a_queue_that_is_ready_before_the_features_are_final_goes_live_with_them() {
    let mut window = Window::new(TestDevice::default());
    window.set_up_queue(0, 16, &RING);
    let ignored = Effect::Ignored(Ignored::QueueNotReady);
    assert_eq!(window.write(Register::QueueReady, 1), ignored, "there is no driver");
    window.set(Register::Status, 3);
    window.set(Register::QueueReady, 1);
    assert_eq!(window.read(Register::QueueReady), 1);
    assert_eq!(window.transport.queue(0), None);
    window.offer(V1 | feature::EVENT_IDX);
    window.set(Register::Status, 11);
    assert_eq!(window.transport.queue(0), None);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    assert!(window.transport.queue(0).unwrap().event_idx);
}

#[test]
fn s4_2_2_a_ready_queue_keeps_its_size_and_addresses() {
    let mut window = Window::live(V1);
    let before = window.transport.queue(0);
    window.set(Register::QueueSel, 0);
    for register in [
        Register::QueueSize,
        Register::QueueDescLow,
        Register::QueueDescHigh,
        Register::QueueDriverLow,
        Register::QueueDriverHigh,
        Register::QueueDeviceLow,
        Register::QueueDeviceHigh,
    ] {
        window.set(register, 8);
    }
    window.set(Register::QueueReady, 1);
    assert_eq!(window.transport.queue(0), before);
}

#[test]
fn s4_2_2_addresses_are_64_bits_and_opaque() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    let at = crate::common::RingAt {
        desc: 0x8000_0001_2345_6000,
        avail: 0x8000_0001_2345_7000,
        used: u64::MAX,
    };
    window.set_up_queue(1, 64, &at);
    window.set(Register::QueueReady, 1);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    let queue = window.transport.queue(1).unwrap();
    assert_eq!((queue.desc_table, queue.avail_ring, queue.used_ring), (at.desc, at.avail, at.used));
    assert_eq!(window.transport.queue(0), None, "never made ready");
}

#[test]
fn s4_2_2_notify_only_reaches_live_queues() {
    let mut window = Window::live(V1);
    assert_eq!(window.write(Register::QueueNotify, 0), Effect::Notify(0));
    for value in [1, 2, 0x1_0000, u32::MAX] {
        window.set(Register::QueueNotify, value);
    }
}

#[test]
fn s4_2_3_3_notification_data_names_the_queue_in_its_lower_half() {
    let mut window = Window::on_host(TestDevice::default(), |it| it.notification_data(true));
    window.negotiate(V1 | feature::NOTIFICATION_DATA);
    window.set_up_queue(0, 16, &RING);
    window.set(Register::QueueReady, 1);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    assert_eq!(window.write(Register::QueueNotify, 0x1234_0000), Effect::Notify(0));
    window.set(Register::QueueNotify, 0x0001);
}

#[test]
fn s4_2_2_2_interrupt_bits_are_real_events_held_until_acknowledged_one_by_one() {
    let mut window = Window::live(V1);
    assert_eq!(window.read(Register::InterruptStatus), 0, "no event, no bit");
    let interrupt = window.transport.interrupt();
    interrupt.used_buffer();
    interrupt.config_change();
    for _ in 0..2 {
        assert_eq!(window.read(Register::InterruptStatus), 3, "reading clears nothing");
    }
    window.set(Register::InterruptAck, 2);
    assert_eq!(window.read(Register::InterruptStatus), 1);
    window.set(Register::InterruptAck, 0xffff_fffe);
    assert_eq!(window.read(Register::InterruptStatus), 1);
    window.set(Register::InterruptAck, 1);
    assert_eq!(window.read(Register::InterruptStatus), 0);
}

#[test]
fn s4_2_2_2_one_edge_for_each_bit_newly_set() {
    let mut window = Window::live(V1);
    let interrupt = window.transport.interrupt();
    interrupt.used_buffer();
    interrupt.used_buffer();
    assert_eq!((window.edges(), interrupt.suppressed()), (1, 1));
    interrupt.config_change();
    assert_eq!(window.edges(), 2);
    window.set(Register::InterruptAck, 1);
    interrupt.used_buffer();
    assert_eq!((window.edges(), interrupt.raised()), (3, 3));
}

#[test]
fn s4_2_2_2_interrupt_status_is_atomic_between_workers_and_the_driver() {
    // Each event either raises the line or finds its bit set, and the acknowledgements of one bit
    // never take the other away.
    const EVENTS: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let mut window = Window::live(V1);
    let interrupt = window.transport.interrupt();
    std::thread::scope(|scope| {
        let workers = [
            scope.spawn({
                let interrupt = interrupt.clone();
                move || (0..EVENTS).for_each(|_| interrupt.used_buffer())
            }),
            scope.spawn({
                let interrupt = interrupt.clone();
                move || (0..EVENTS).for_each(|_| interrupt.config_change())
            }),
        ];
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let status = window.read(Register::InterruptStatus);
            window.set(Register::InterruptAck, status & 1);
        }
    });
    assert_eq!(interrupt.raised() + interrupt.suppressed(), 2 * EVENTS);
    assert_eq!(window.edges(), interrupt.raised());
    assert_eq!(window.read(Register::InterruptStatus) & 2, 2, "never acknowledged");
    assert_eq!(u64::from(window.read(Register::ConfigGeneration)), EVENTS);
}

#[test]
fn s4_2_2_1_queue_ready_0_is_synchronous() {
    let mut window = Window::live(V1);
    window.set(Register::QueueSel, 0);
    assert_eq!(window.write(Register::QueueReady, 0), Effect::QueueStop(0));
    assert_eq!(window.transport.queue(0), None, "not to be served");
    assert_eq!(window.read(Register::QueueReady), 1, "not before it has stopped");
    window.set(Register::QueueNotify, 0);
    window.transport.queue_stopped(0);
    assert_eq!(window.read(Register::QueueReady), 0);
}

#[test]
fn s4_2_2_1_a_stopped_queue_can_be_set_up_again() {
    let mut window = Window::live(V1);
    window.set(Register::QueueSel, 0);
    assert_eq!(window.write(Register::QueueReady, 0), Effect::QueueStop(0));
    window.transport.queue_stopped(0);
    window.set_up_queue(0, 8, &RING);
    assert_eq!(window.write(Register::QueueReady, 1), Effect::QueueReady(0));
    let queue = window.transport.queue(0).unwrap();
    assert_eq!((queue.size, queue.next_avail, queue.next_used), (8, 0, 0));
}

#[test]
fn s2_6_1_queue_reset_reads_1_until_done_and_leaves_defaults() {
    let mut window = Window::live(V1 | feature::RING_RESET);
    window.set(Register::QueueSel, 0);
    window.set(Register::QueueReset, 0);
    assert_eq!(window.write(Register::QueueReset, 1), Effect::QueueStop(0));
    assert_eq!(window.read(Register::QueueReset), 1);
    window.transport.queue_stopped(0);
    assert_eq!(window.read(Register::QueueReset), 0);
    assert_eq!(window.read(Register::QueueReady), 0);
    let queue = &window.transport.state().queues[0];
    assert_eq!((queue.size, queue.desc_table), (16, 0));
    window.set_up_queue(0, 4, &RING);
    assert_eq!(window.write(Register::QueueReady, 1), Effect::QueueReady(0));
}

#[test]
fn s2_6_1_queue_reset_before_driver_ok_is_immediate() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1 | feature::RING_RESET);
    window.set_up_queue(0, 8, &RING);
    window.set(Register::QueueReady, 1);
    window.set(Register::QueueReset, 1);
    let queue = &window.transport.state().queues[0];
    assert_eq!((queue.ready, queue.size, queue.desc_table), (false, 16, 0));
}

#[test]
fn s2_6_1_queue_reset_needs_its_feature() {
    let mut window = Window::live(V1);
    window.set(Register::QueueSel, 0);
    window.set(Register::QueueReset, 1);
    assert_eq!(window.read(Register::QueueReset), 0);
    assert!(window.transport.queue(0).is_some());
}

#[test]
fn s2_10_shared_memory_that_is_not_there_reads_all_ones() {
    let mut window = Window::new(TestDevice::default());
    let registers =
        [Register::ShmLenLow, Register::ShmLenHigh, Register::ShmBaseLow, Register::ShmBaseHigh];
    for absent in [0, 2, u32::MAX] {
        window.set(Register::ShmSel, absent);
        for register in registers {
            assert_eq!(window.read(register), u32::MAX);
        }
    }
    window.set(Register::ShmSel, 1);
    assert_eq!(registers.map(|register| window.read(register)), [0x1000, 2, 0x2345_6000, 1]);
}

#[test]
fn s4_2_2_2_control_registers_answer_aligned_32_bit_accesses_only() {
    let mut window = Window::live(V1);
    window.transport.interrupt().used_buffer();
    for register in Register::ALL {
        for (offset, width) in [(0, 1), (0, 2), (0, 8), (1, 4), (2, 4), (3, 1), (0, 3), (0, 0)] {
            let mut data = vec![0xaa; width];
            window.transport.read(register.offset() + offset, &mut data);
            assert!(data.iter().all(|byte| *byte == 0), "{register:?} {offset} {width}");
        }
        let before = window.transport.state();
        for (offset, width) in [(0, 1), (0, 2), (0, 8), (1, 4), (2, 2), (0, 5), (0, 0)] {
            let effect = window.write_bytes(register.offset() + offset, &vec![0; width]);
            let why = if offset == 0 && register.access() != Access::Read {
                Ignored::Width
            } else {
                Ignored::NoRegister
            };
            assert_eq!(effect, Effect::Ignored(why));
        }
        assert_eq!(window.transport.state(), before, "{register:?}");
    }
}

#[test]
fn s4_2_2_access_rights_hold() {
    let mut window = Window::live(V1);
    for register in Register::ALL {
        match register.access() {
            Access::Write => assert_eq!(window.read(*register), 0, "{register:?}"),
            Access::Read => {
                let before = window.transport.state();
                window.set(*register, u32::MAX);
                assert_eq!(window.transport.state(), before, "{register:?}");
            }
            Access::ReadWrite => {}
        }
    }
}

#[test]
fn s4_2_2_between_the_registers_there_is_nothing() {
    let mut window = Window::live(V1);
    let before = window.transport.state();
    for offset in (0..0x100).filter(|offset| Register::at(*offset).is_none()) {
        let mut data = [0xaa; 4];
        window.transport.read(offset, &mut data);
        assert_eq!(data, [0; 4]);
        let effect = window.write_bytes(offset, &[0xff; 4]);
        assert_eq!(effect, Effect::Ignored(Ignored::NoRegister));
    }
    assert_eq!(window.transport.state(), before);
}

#[test]
fn s4_2_2_2_config_is_read_with_8_16_32_and_64_bits() {
    let mut window = Window::new(TestDevice::default());
    for (offset, width, wanted) in [
        (0x100, 1, vec![1]),
        (0x103, 1, vec![4]),
        (0x102, 2, vec![3, 4]),
        (0x104, 4, vec![5, 6, 7, 8]),
        (0x104, 8, vec![5, 6, 7, 8, 9, 10, 11, 12]),
        (0x101, 2, vec![2, 3]),
    ] {
        let mut data = vec![0xaa; width];
        window.transport.read(offset, &mut data);
        assert_eq!(data, wanted, "{offset:#x} {width}");
    }
}

#[test]
fn config_beyond_its_end_reads_0_and_is_not_written() {
    let mut window = Window::live(V1);
    let mut data = [0xaa; 8];
    window.transport.read(0x108, &mut data);
    assert_eq!(data, [9, 10, 11, 12, 0, 0, 0, 0], "partly out");
    for offset in [0x10c, 0x1ff, 0x200, 0x1_0000_0100, u64::MAX - 3, u64::MAX] {
        for width in [1, 2, 4, 8] {
            let mut data = vec![0xaa; width];
            window.transport.read(offset, &mut data);
            assert!(data.iter().all(|byte| *byte == 0), "{offset:#x}");
            let effect = window.write_bytes(offset, &vec![0xff; width]);
            assert_eq!(effect, Effect::Ignored(Ignored::Config));
        }
    }
    let effect = window.write_bytes(0x108, &[0xff; 8]);
    assert_eq!(effect, Effect::Ignored(Ignored::Config), "partly out");
    let mut window_3 = vec![0xaa; 3];
    window.transport.read(0x100, &mut window_3);
    assert_eq!(window_3, [0; 3], "no such width");
    assert_eq!(window.transport.device().config, (1..=12).collect::<Vec<u8>>());
}

#[test]
fn config_is_written_where_the_device_takes_it() {
    let mut window = Window::new(TestDevice::default());
    let effect = window.write_bytes(0x108, &[0x55]);
    assert_eq!(effect, Effect::Ignored(Ignored::Config), "no driver yet");
    window.negotiate(V1);
    assert_eq!(window.write_bytes(0x107, &[0x55; 2]), Effect::ConfigWritten);
    assert_eq!(window.transport.device().config, [1, 2, 3, 4, 5, 6, 7, 8, 0x55, 10, 11, 12]);
}

#[test]
fn s2_5_the_generation_changes_with_every_change_of_the_configuration() {
    let mut window = Window::new(TestDevice::default());
    let mut generations = vec![window.read(Register::ConfigGeneration)];
    window.transport.device_mut().config[0] = 9;
    window.transport.config_changed();
    generations.push(window.read(Register::ConfigGeneration));
    window.negotiate(V1);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    window.transport.config_changed();
    generations.push(window.read(Register::ConfigGeneration));
    assert_eq!((window.read(Register::InterruptStatus), window.edges()), (2, 1));
    assert_eq!(window.write_bytes(0x108, &[1]), Effect::ConfigWritten);
    generations.push(window.read(Register::ConfigGeneration));
    window.reset();
    generations.push(window.read(Register::ConfigGeneration) + 1);
    assert_eq!(generations, [0, 1, 2, 3, 4]);
}

#[test]
fn s2_5_the_generation_stands_while_the_configuration_reads_the_same() {
    let mut window = Window::live(V1);
    let generation = window.read(Register::ConfigGeneration);
    let ignored = Effect::Ignored(Ignored::Config);
    assert_eq!(window.write_bytes(0x104, &[0x55]), ignored, "read-only");
    assert_eq!(window.write_bytes(0x108, &[9]), Effect::ConfigWritten, "as it was");
    assert_eq!(window.read(Register::ConfigGeneration), generation);
    assert_eq!(window.write_bytes(0x108, &[8]), Effect::ConfigWritten);
    assert_eq!(window.read(Register::ConfigGeneration), generation + 1);
}

#[test]
fn each_write_that_is_ignored_says_why() {
    let mut window = Window::live(V1);
    window.set(Register::QueueSel, 0);
    for (register, value, why) in [
        (Register::Status, 1, Ignored::Status(Status::from_bits(15).unwrap())),
        (Register::Status, 0x1f, Ignored::Status(Status::from_bits(15).unwrap())),
        (Register::DriverFeatures, 1, Ignored::FeaturesFinal),
        (Register::QueueSize, 8, Ignored::QueueIsReady),
        (Register::QueueDescLow, 8, Ignored::QueueIsReady),
        (Register::QueueReset, 1, Ignored::QueueReset),
        (Register::QueueNotify, 1, Ignored::NoQueue),
        (Register::QueueNotify, 2, Ignored::NoQueue),
    ] {
        assert_eq!(window.write(register, value), Effect::Ignored(why), "{register:?} {value}");
    }
    window.set(Register::QueueSel, 2);
    for register in [Register::QueueSize, Register::QueueReady, Register::QueueDescLow] {
        assert_eq!(window.write(register, 1), Effect::Ignored(Ignored::NoQueue), "{register:?}");
    }
    window.reset();
    window.set(Register::Status, 3);
    window.set(Register::DriverFeaturesSel, 2);
    for (register, value, why) in [
        (Register::DriverFeatures, 1, Ignored::FeaturePage),
        (Register::QueueSize, 3, Ignored::QueueSize),
        (Register::QueueReady, 1, Ignored::QueueNotReady),
        (Register::QueueNotify, 2, Ignored::NoQueue),
        (Register::Status, 11, Ignored::FeaturesRefused),
    ] {
        assert_eq!(window.write(register, value), Effect::Ignored(why), "{register:?} {value}");
    }
    // What repeats the state, or counts later, is not ignored.
    for (register, value) in
        [(Register::QueueNotify, 0), (Register::QueueReady, 0), (Register::Status, 3)]
    {
        assert_eq!(window.write(register, value), Effect::None, "{register:?} {value}");
    }
}

#[test]
fn a_device_that_names_no_vendor_has_a_name_that_ends() {
    struct Plain;
    impl VirtioDevice for Plain {
        fn device_type(&self) -> u32 {
            4
        }
        fn queue_max_sizes(&self) -> &[u16] {
            &[8]
        }
        fn features(&self) -> u64 {
            0
        }
        fn config(&self) -> &[u8] {
            &[]
        }
    }
    let mut transport = MmioTransport::new(Plain, || {}).unwrap();
    let mut vendor = [0; 4];
    transport.read(Register::VendorId.offset(), &mut vendor);
    assert_eq!(vendor, *b"XVT\0");
}

#[test]
fn the_window_shows_the_whole_configuration_space() {
    let length = |len| {
        Window::new(TestDevice { config: vec![0; len], ..TestDevice::default() })
            .transport
            .window_len()
    };
    assert_eq!(length(0), WINDOW_SIZE);
    assert_eq!(length(0x100), 0x200);
    assert_eq!(length(0x101), 0x201);
}
