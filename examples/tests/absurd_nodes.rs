//! DeviceConfig that no toolstack writes.

mod common;

use common::{host::sector_pattern, one_disk::OneDisk, virtio_driver::read_sector};
use proptest::prelude::*;
use xen_store::Store;
use xen_virtio_backend::fake::{DeviceConfig, Sharing, Watchdog, reg};

#[test]
fn nodes_that_are_no_devices_are_passed_over() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let top = "/local/domain/0/backend/virtio_disk";
    for node in
        ["x/51712/state", "1/x/state", "99999/1/state", "1/99999999999/state", "state", "1/state"]
    {
        it.host.store.write(None, &format!("{top}/{node}"), b"1").unwrap();
        it.host.settle();
    }
    assert_eq!(read_sector(&it.host, &it.disk, &it.kernel, 9), sector_pattern(9));
}

fn node_values() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        1 => Just(None),
        2 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        2 => any::<u64>().prop_map(|n| Some(n.to_string().into_bytes())),
        2 => any::<i64>().prop_map(|n| Some(format!("{n:#x}").into_bytes())),
        2 => "[ -~]{0,20}".prop_map(|text| Some(text.into_bytes())),
        1 => (0_usize..3000).prop_map(|len| Some(vec![b'7'; len])),
        1 => prop_oneof![Just("0"), Just("1"), Just("r"), Just("w"), Just("5"), Just("6"), Just("33554944")]
            .prop_map(|text| Some(text.as_bytes().to_vec())),
    ]
}

/// The nodes that decide something, and `state` itself.
const NODES: [&str; 10] = [
    "specification",
    "transport",
    "frontend-id",
    "params",
    "mode",
    "base",
    "irq",
    "grant_usage",
    "online",
    "state",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the nodes say, the backend serves the disk, says why not, or has nothing to do with it; and
    /// the disk beside it doesn't notice.
    #[test]
    fn absurd_nodes_harm_nobody(
        changes in proptest::collection::vec((0..NODES.len(), node_values()), 1..4),
    ) {
        let mut it = OneDisk::new(Sharing::Foreign);
        let mut disk = DeviceConfig::disk(1, 1, it.host.image("b.img", 4096));
        for (node, value) in changes {
            disk = match value {
                Some(value) => disk.with(NODES[node], value),
                None => disk.without(NODES[node]),
            };
        }
        it.host.add_device(&disk);
        it.host.settle();
        let state = it.host.store.read(None, &format!("{}/state", disk.path())).ok();
        let asked = disk.node("state");
        if asked.map(<[u8]>::trim_ascii) == Some(b"1") {
            match state.as_deref() {
                Some(b"2") => prop_assert!(it.host.error(&disk).is_none()),
                Some(b"6") => {}
                None => prop_assert!(it.host.error(&disk).is_some()),
                other => prop_assert!(false, "state {:?}", other),
            }
        }
        prop_assert_eq!(it.window().read(reg::MAGIC), reg::MAGIC_VALUE);
        it.host.remove_device(&disk);
        it.host.settle();
        prop_assert_eq!(read_sector(&it.host, &it.disk, &it.kernel, 9), sector_pattern(9));
    }
}
