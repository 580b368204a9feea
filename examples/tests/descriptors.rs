//! A daemon that is short of file descriptors. The one test of its file, as the limit is the whole process's.

mod common;

use std::fs;

use common::{
    block::{BlockRequests, IN, MQ, OK},
    host::{Host, sector_pattern},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use virtio_blk_dev::UringEngine;
use virtio_dev::feature::VERSION_1;
use xen_virtio_backend::fake::{DeviceConfig, FakeDriver, GuestKernel, Sharing, Watchdog};
use xen_virtio_blk::{
    engine_kind::EngineKind,
    settings::{DiskSettings, Settings},
};

const QUEUES: usize = 4;

#[test]
fn a_disk_that_would_lack_descriptors_is_refused_and_a_served_one_never_lacks_them() {
    let _watchdog = Watchdog::start();
    let uring = UringEngine::check().ok().map(|()| EngineKind::IoUring);
    for engine in [EngineKind::Sync].into_iter().chain(uring) {
        let settings = DiskSettings { engine, queues: QUEUES as u16, ..DiskSettings::default() };
        let mut host = Host::with_settings(Settings::new(settings));
        let (mut refused, mut served) = (0, 0);
        for spare in 0..50 {
            let domain = host.create_guest(1);
            let kernel = GuestKernel::new(&domain, Sharing::Foreign);
            // The guest's first: what the guest itself takes is not there yet, either.
            let disk = DeviceConfig::disk(1, 1, host.image("disk.img", 8192));
            host.add_device(&disk);
            let limit = getrlimit(Resource::Nofile);
            let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
            setrlimit(Resource::Nofile, Rlimit { current: Some(open + spare), ..limit }).unwrap();
            host.settle();
            if host.state(&disk).as_deref() == Some("2") {
                served += 1;
                // Still as few as there were.
                let mut queues: [FakeDriver; QUEUES] =
                    FakeDriver::start_queues(host.window(&disk), &kernel, VERSION_1 | MQ);
                for queue in &mut queues {
                    let page = queue.filled(&[0; 512]);
                    assert_eq!(queue.request(IN, 1, Some((page.device, 512))), (OK, 513));
                    assert_eq!(queue.get(page.guest), sector_pattern(1));
                    queue.release(page);
                }
            } else {
                refused += 1;
                let error = host.error(&disk).expect("a reason");
                assert!(error.contains("LimitNOFILE="), "{spare} to spare: {error}");
                assert!(!error.contains("xen-virtio-blk check"), "{spare} to spare: {error}");
            }
            setrlimit(Resource::Nofile, limit).unwrap();
            host.destroy_guest(1);
            host.remove_device(&disk);
            host.settle();
        }
        assert!(refused > 0 && served > 0, "{engine:?}: {refused} refused, {served} served");
    }
}
