//! §2.5, §4.2.2.2 the configuration space.

use virtio_dev::Ignored;
use virtio_mmio_dev::{Register, WINDOW_SIZE};

use crate::V1;
use crate::common::{Effect, TestDevice, Window};

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
