//! What Prometheus and the log are told of a disk.

mod common;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    str::FromStr,
    time::{Duration, Instant},
};

use common::{
    block::{BlockRequests, IN, IOERR, OK, OUT},
    one_disk::{NAME, OneDisk, UUID},
};
use virtio_blk_dev::RequestKind;
use virtio_dev::feature::VERSION_1;
use xen_virtio_backend::{
    daemon::Metrics,
    fake::{DeviceConfig, FakeDriver, GuestKernel, Sharing, Watchdog, until},
};
use xen_virtio_blk::metrics::{MetricsFile, render};

/// The labels of the disk.
fn labels(it: &OneDisk) -> String {
    let image = it.image.display();
    format!("guest=\"{NAME}\",uuid=\"{UUID}\",disk=\"xvda\",image=\"{image}\"")
}

fn value<T: FromStr>(it: &OneDisk, text: &str, name: &str, more: &str) -> Option<T> {
    let series = format!("xen_virtio_blk_{name}{{{}{more}}} ", labels(it));
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

/// Two writes, a read, and a write beyond the end.
fn some_requests(driver: &mut FakeDriver) {
    let page = driver.filled(&[7; 4096]);
    for sector in [0, 8] {
        assert_eq!(driver.request(OUT, sector, Some((page.device, 4096))).0, OK);
    }
    assert_eq!(driver.request(IN, 0, Some((page.device, 512))).0, OK);
    assert_eq!(driver.request(OUT, 1 << 40, Some((page.device, 512))).0, IOERR);
    driver.release(page);
}

#[test]
fn what_a_disk_did_is_told_of_and_goes_on_over_a_reset() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let (begin, mut seconds) = (Instant::now(), 0.0);
    for round in 1..=3 {
        // Each resets the device first.
        let mut driver = FakeDriver::start(it.window(), &it.kernel, VERSION_1);
        some_requests(&mut driver);
        let mut text = String::new();
        until("the worker's own count", || {
            let status = it.host.status();
            text = render(&status);
            let figures = status.devices[0].figures.as_ref().unwrap();
            figures.stats.requests() == 4 * round && figures.stats.in_flight == 0
        });
        for (name, more, expected) in [
            ("requests_total", ",op=\"write\"", 3),
            ("request_errors_total", ",op=\"write\"", 1),
            ("bytes_total", ",op=\"write\"", 8192),
            ("requests_total", ",op=\"read\"", 1),
            ("bytes_total", ",op=\"read\"", 512),
            ("requests_total", ",op=\"flush\"", 0),
            ("request_duration_seconds_count", ",op=\"read\"", 1),
            ("request_duration_seconds_sum", ",op=\"flush\"", 0),
            ("request_duration_seconds_bucket", ",op=\"read\",le=\"+Inf\"", 1),
            ("in_flight_requests", "", 0),
        ] {
            assert_eq!(
                value(&it, &text, name, more),
                Some(expected * round),
                "{name}{more}:\n{text}"
            );
        }
        assert!(value::<u64>(&it, &text, "interrupts_total", "").unwrap() > 0);
        assert_eq!(value(&it, &text, "host_errors_total", ""), Some(0));
        assert_eq!(value(&it, &text, "flush_failed", ""), Some(0));
        assert_eq!(value(&it, &text, "stalled_seconds", ""), Some(0));
        let sum = value(&it, &text, "request_duration_seconds_sum", ",op=\"write\"").unwrap();
        // One after the other, they took no longer than all of this.
        assert!(sum > seconds && sum < begin.elapsed().as_secs_f64(), "{sum} s, from {seconds} s");
        seconds = sum;
    }
    it.host.close_device(&it.disk);
    it.host.settle();
    assert!(it.host.figures().is_empty(), "it is gone");
}

#[test]
fn the_text_is_prometheus() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let mut driver = FakeDriver::start(it.window(), &it.kernel, VERSION_1);
    some_requests(&mut driver);
    let mut text = String::new();
    until("the count", || {
        let status = it.host.status();
        text = render(&status);
        status.devices[0].figures.as_ref().unwrap().stats[RequestKind::Read].latency.count() == 1
    });
    let (mut declared, mut kind, mut buckets) = (String::new(), String::new(), Vec::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ').map(str::to_owned);
            let keyword = words.next().unwrap();
            declared = words.next().unwrap();
            if keyword == "TYPE" {
                kind = words.next().unwrap();
            }
            continue;
        }
        let (series, number) = line.rsplit_once(' ').unwrap();
        let number: f64 = number.parse().unwrap();
        let name = series.split('{').next().unwrap();
        let part = ["_bucket", "_sum", "_count"].into_iter().find(|part| name.ends_with(part));
        let base = name.strip_suffix(part.unwrap_or("")).unwrap();
        assert_eq!(base, declared, "{line} stands under its own declaration");
        assert_eq!(part.is_some(), kind == "histogram", "{line}");
        if name.ends_with("_bucket") && series.contains("op=\"read\"") {
            let le = series.split("le=\"").nth(1).unwrap().trim_end_matches("\"}");
            buckets.push((le.parse::<f64>().unwrap(), number));
        }
    }
    assert!(buckets.len() > 10);
    assert!(buckets.is_sorted(), "cumulative, and up to infinity: {buckets:?}");
    assert_eq!(*buckets.last().unwrap(), (f64::INFINITY, 1.0));
}

#[test]
fn the_metrics_file_never_follows_a_link_that_another_user_made() {
    let mut it = OneDisk::new(Sharing::Foreign);
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    let path = dir.path().join("disks.prom");
    fs::write(&victim, "precious").unwrap();
    for name in ["disks.prom.new", "disks.prom.tmp", "disks.prom"] {
        symlink(&victim, dir.path().join(name)).unwrap();
    }
    MetricsFile::new(path.clone(), Duration::from_secs(86_400)).write(&it.host.status());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    let written = fs::symlink_metadata(&path).unwrap();
    assert!(written.is_file(), "{written:?}");
    assert_eq!(written.permissions().mode() & 0o777, 0o644, "node_exporter is another user");
}

#[test]
fn the_file_is_replaced_as_a_whole_and_due_again_after_its_interval() {
    let mut it = OneDisk::new(Sharing::Foreign);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disks.prom");
    let mut file = MetricsFile::new(path.clone(), Duration::from_secs(86_400));
    assert_eq!(file.wait(), Duration::ZERO);
    fs::write(&path, "old").unwrap();
    let reader = fs::File::open(&path).unwrap();
    file.write(&it.host.status());
    assert!(fs::read_to_string(&path).unwrap().contains(&labels(&it)));
    assert_eq!(std::io::read_to_string(reader).unwrap(), "old", "who has it open reads on");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(file.wait() > Duration::from_secs(80_000));
    // A directory that isn't there harms nobody.
    MetricsFile::new("/nowhere/disks.prom".into(), Duration::from_secs(60))
        .write(&it.host.status());
}

#[test]
fn a_disks_series_are_the_same_after_a_reboot_of_its_guest_and_their_counters_go_on() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let writes = |it: &mut OneDisk| {
        let text = render(&it.host.status());
        value::<u64>(it, &text, "requests_total", ",op=\"write\"")
    };
    for domid in 1..=3 {
        if domid > 1 {
            let domain = it.host.create_guest(domid);
            it.host.name_guest(domid, NAME, UUID);
            it.kernel = GuestKernel::new(&domain, Sharing::Foreign);
            it.disk = DeviceConfig::disk(domid, 0, &it.image);
            it.host.serve(&it.disk);
        }
        let mut driver = FakeDriver::start(it.window(), &it.kernel, VERSION_1);
        some_requests(&mut driver);
        drop(driver);
        let expected = Some(3 * u64::from(domid));
        until("the worker's own count", || writes(&mut it) == expected);
        it.host.close_device(&it.disk);
        it.host.settle();
        assert_eq!(it.host.state(&it.disk).as_deref(), Some("6"));
        it.host.destroy_guest(domid);
        it.host.remove_device(&it.disk);
        it.host.settle();
        assert_eq!(writes(&mut it), None, "there is no such disk");
    }
}

#[test]
fn what_a_disk_did_up_to_its_end_is_counted() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    // Figures are asked for before, and not between the requests and the end.
    assert_eq!(it.host.figures()[0].stats.requests(), 0);
    let mut driver = FakeDriver::start(it.window(), &it.kernel, VERSION_1);
    some_requests(&mut driver);
    drop(driver);
    it.host.destroy_guest(1);
    it.host.remove_device(&it.disk);
    it.host.settle();
    let domain = it.host.create_guest(2);
    it.host.name_guest(2, NAME, UUID);
    it.kernel = GuestKernel::new(&domain, Sharing::Foreign);
    it.disk = DeviceConfig::disk(2, 0, &it.image);
    it.host.serve(&it.disk);
    assert_eq!(it.host.figures()[0].stats.requests(), 4);
}

#[test]
fn disks_are_counted_by_their_states_and_each_has_one() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let missing = DeviceConfig::disk(1, 1, "/nowhere.img");
    it.host.add_device(&missing);
    it.host.settle();
    let _driver = FakeDriver::start(it.window(), &it.kernel, VERSION_1);
    let text = render(&it.host.status());
    let states = |state: &str| {
        let line = format!("xen_virtio_blk_disks{{state=\"{state}\"}} ");
        text.lines().find_map(|text| text.strip_prefix(&line)?.parse::<u64>().ok())
    };
    for (state, count) in
        [("active", 1), ("refused", 1), ("ready", 0), ("stuck", 0), ("stalled", 0)]
    {
        assert_eq!(states(state), Some(count), "{state}: {text}");
    }
    assert_eq!(value(&it, &text, "disk_state", ",state=\"active\""), Some(1));
    assert_eq!(value(&it, &text, "disk_state", ",state=\"refused\""), Some(0));
    assert!(text.contains("disk=\"xvdb\",image=\"/nowhere.img\",state=\"refused\"} 1\n"), "{text}");
    let mapped =
        format!("guest_mapped_bytes{{guest=\"{NAME}\",uuid=\"{UUID}\",mapping=\"foreign\"}} ");
    let mapped =
        text.lines().find_map(|line| line.strip_prefix("xen_virtio_blk_")?.strip_prefix(&mapped));
    assert!(mapped.unwrap().parse::<u64>().unwrap() > 0, "{text}");
}
