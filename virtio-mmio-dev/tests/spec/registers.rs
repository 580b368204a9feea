//! §4.2.2 the registers.

use virtio_dev::{Ignored, Status, VirtioDevice};
use virtio_mmio_dev::{Access, MmioTransport, Register};

use crate::V1;
use crate::common::{Effect, TestDevice, Window};

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
    window.transport.interrupt(0).used_buffer();
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
    }
    let mut transport = MmioTransport::new(Plain, || {}).unwrap();
    let mut vendor = [0; 4];
    transport.read(Register::VendorId.offset(), &mut vendor);
    assert_eq!(vendor, *b"XVT\0");
}
