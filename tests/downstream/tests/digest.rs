//! The backend with guests of the fake toolstack.

use digest_backend::{Digest, Digests};
use xen_virtio_backend::{
    fake::{DeviceConfig, FakeDriver, FakeToolstack, Sharing, WRITE, reg},
    node::DeviceType,
};

/// FNV-1a of "foobar", as its authors publish it.
const FOOBAR: u64 = 0x8594_4171_f739_67e8;

fn toolstack() -> FakeToolstack<Digests> {
    FakeToolstack::new(|| Digests)
}

/// The hash that the device gives of these bytes.
fn digest(driver: &mut FakeDriver, bytes: &[u8]) -> u64 {
    let (data, hash) = (driver.filled(bytes), driver.buffer(8));
    assert_eq!(driver.submit(&[data.readable(), hash.writable()]), 8);
    let value = u64::from_le_bytes(driver.get(hash.guest));
    [data, hash].into_iter().for_each(|buffer| driver.release(buffer));
    value
}

#[test]
fn each_queue_gives_the_hash_of_what_the_driver_sends() {
    for sharing in Sharing::ALL {
        let mut toolstack = toolstack();
        let guest = toolstack.create_guest(1);
        let device = DeviceConfig::generic(1, 0, Digest::DEVICE_TYPE).sharing(sharing);
        toolstack.serve(&device);
        let drivers: [FakeDriver; 2] = toolstack.drivers(&device, 0);
        for mut driver in drivers {
            assert_eq!(digest(&mut driver, b"foobar"), FOOBAR, "{sharing:?}");
            assert_eq!(driver.window().wait_interrupt(), 1, "a used buffer");
        }
        assert_eq!(toolstack.figures(), [2]);
        toolstack.close_device(&device);
        toolstack.settle();
        assert_eq!(toolstack.state(&device).as_deref(), Some("6"));
        toolstack.destroy_guest(1);
        toolstack.settle();
        assert_eq!(guest.foreign_memory().live_mappings(), 0);
        assert_eq!(guest.grants().live_mappings(), 0);
    }
}

#[test]
fn the_seed_is_a_node_of_the_device_and_a_wrong_one_is_refused() {
    let mut toolstack = toolstack();
    toolstack.create_guest(1);
    let [seeded, wrong] = [(0, "7"), (1, "banana")]
        .map(|(nth, seed)| DeviceConfig::generic(1, nth, Digest::DEVICE_TYPE).with("seed", seed));
    toolstack.serve(&seeded);
    assert_eq!(toolstack.window(&seeded).read_sized(reg::CONFIG, 8), 7);
    let mut driver = toolstack.driver(&seeded, 0);
    assert_ne!(digest(&mut driver, b"foobar"), FOOBAR);
    toolstack.add_device(&wrong);
    toolstack.settle();
    let error = toolstack.error(&wrong).expect("a reason");
    assert!(error.contains("/seed is \"banana\", but should be a number"), "{error}");
}

#[test]
fn a_queue_is_served_again_after_a_reset() {
    let mut toolstack = toolstack();
    toolstack.create_guest(1);
    let device = DeviceConfig::generic(1, 0, Digest::DEVICE_TYPE);
    toolstack.serve(&device);
    for _ in 0..3 {
        let mut driver = toolstack.driver(&device, 0);
        assert_eq!(digest(&mut driver, b"foobar"), FOOBAR);
    }
}

#[test]
fn a_request_without_room_or_memory_gets_nothing() {
    let mut toolstack = toolstack();
    toolstack.create_guest(1);
    let device = DeviceConfig::generic(1, 0, Digest::DEVICE_TYPE);
    toolstack.serve(&device);
    let mut driver = toolstack.driver(&device, 0);
    let (data, hash) = (driver.filled(b"foobar"), driver.buffer(8));
    for nonsense in [
        vec![data.readable()],
        vec![data.readable(), (hash.device, 7, WRITE)],
        vec![(u64::MAX - 3, 64, 0), hash.writable()],
        vec![data.readable(), (u64::MAX - 3, 64, WRITE)],
        vec![(data.device, 2 << 20, 0), hash.writable()],
    ] {
        assert_eq!(driver.submit(&nonsense), 0, "{nonsense:x?}");
    }
    assert_eq!(digest(&mut driver, b"foobar"), FOOBAR);
}

#[test]
fn devices_of_other_types_are_left_to_their_backends() {
    let mut toolstack = toolstack();
    toolstack.create_guest(1);
    let entropy = DeviceConfig::generic(1, 0, DeviceType(4));
    toolstack.add_device(&entropy);
    toolstack.settle();
    assert_eq!(toolstack.state(&entropy).as_deref(), Some("1"));
    assert!(!toolstack.window(&entropy).is_there());
}
