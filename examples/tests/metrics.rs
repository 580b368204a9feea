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
    one_disk::OneDisk,
};
use virtio_blk_dev::RequestKind;
use virtio_mmio_dev::feature::VERSION_1;
use xen_virtio_backend::{
    daemon::Metrics,
    fake::{FakeDriver, Sharing, Watchdog, until},
};
use xen_virtio_blk::metrics::{MetricsFile, render};

const LABELS: &str = "domid=\"1\",devid=\"51712\"";

fn value<T: FromStr>(text: &str, name: &str, more: &str) -> Option<T> {
    let series = format!("xen_virtio_blk_{name}{{{LABELS}{more}}} ");
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
            let figures = it.host.figures();
            text = render(&figures);
            figures
                .iter()
                .all(|disk| disk.stats.requests() == 4 * round && disk.stats.in_flight == 0)
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
            assert_eq!(value(&text, name, more), Some(expected * round), "{name}{more}:\n{text}");
        }
        assert!(value::<u64>(&text, "interrupts_total", "").unwrap() > 0);
        assert_eq!(value(&text, "host_errors_total", ""), Some(0));
        assert_eq!(value(&text, "flush_failed", ""), Some(0));
        assert_eq!(value(&text, "stalled_seconds", ""), Some(0));
        let sum = value(&text, "request_duration_seconds_sum", ",op=\"write\"").unwrap();
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
        let figures = it.host.figures();
        text = render(&figures);
        figures[0].stats[RequestKind::Read].latency.count() == 1
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
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    let path = dir.path().join("disks.prom");
    fs::write(&victim, "precious").unwrap();
    for name in ["disks.prom.new", "disks.prom.tmp", "disks.prom"] {
        symlink(&victim, dir.path().join(name)).unwrap();
    }
    MetricsFile::new(path.clone(), Duration::from_secs(86_400)).write(&[]);
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
    file.write(&it.host.figures());
    assert!(fs::read_to_string(&path).unwrap().contains(LABELS));
    assert_eq!(std::io::read_to_string(reader).unwrap(), "old", "who has it open reads on");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(file.wait() > Duration::from_secs(80_000));
    // A directory that isn't there harms nobody.
    MetricsFile::new("/nowhere/disks.prom".into(), Duration::from_secs(60)).write(&[]);
}
