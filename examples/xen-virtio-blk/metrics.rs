//! The disks' figures as Prometheus reads them, in a file for node_exporter's textfile collector.
//!
//! A dom0 should listen on no network; a file takes no port, and is there when the daemon is stuck.

use std::{
    fmt::{self, Write as _},
    fs::Permissions,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use backend_process::chain;
use tracing::{info, warn};
use virtio_blk_dev::OpStats;
use xen_virtio_backend::daemon::Metrics;

use crate::figures::{Figures, OPS};

/// The text that Prometheus and node_exporter read (text format 0.0.4).
pub fn render(disks: &[&Figures]) -> String {
    let mut text = String::new();
    // Writing to a string doesn't fail.
    let _ = write_all(&mut text, disks);
    text
}

fn write_all(text: &mut String, disks: &[&Figures]) -> fmt::Result {
    type OfOp = fn(&OpStats) -> u64;
    let of_ops: [(&str, &str, OfOp); 3] = [
        ("requests_total", "Requests answered, whatever the status.", |op| op.requests),
        ("request_errors_total", "Requests answered with an error.", |op| op.errors),
        ("bytes_total", "Bytes moved, discarded or zeroed.", |op| op.bytes),
    ];
    for (name, help, of) in of_ops {
        declare(text, name, "counter", help)?;
        for disk in disks {
            for (op, kind) in OPS {
                let value = of(&disk.stats[kind]);
                writeln!(text, "xen_virtio_blk_{name}{{{},op=\"{op}\"}} {value}", labels(disk))?;
            }
        }
    }
    write_durations(text, disks)?;
    type OfDisk = fn(&Figures) -> u64;
    let of_disks: [(&str, &str, &str, OfDisk); 8] = [
        ("in_flight_requests", "gauge", "Requests taken and not answered.", |disk| {
            disk.stats.in_flight
        }),
        ("host_errors_total", "counter", "Requests that the host failed.", |disk| {
            disk.stats.host_errors
        }),
        (
            "flush_failed",
            "gauge",
            "1 after a flush failed: none succeeds until the disk is closed and opened again.",
            |disk| disk.flush_failed.into(),
        ),
        ("batches_total", "counter", "Publications of answers.", |disk| disk.stats.batches),
        ("throttled_total", "counter", "Waits for a rate limit.", |disk| disk.stats.throttled),
        ("interrupts_total", "counter", "Interrupts raised.", |disk| disk.interrupts),
        (
            "interrupts_suppressed_total",
            "counter",
            "Publications that the guest wanted no interrupt for.",
            |disk| disk.stats.interrupts_suppressed,
        ),
        ("ioreqs_total", "counter", "Accesses to the registers.", |disk| disk.ioreqs),
    ];
    for (name, kind, help, of) in of_disks {
        declare(text, name, kind, help)?;
        for disk in disks {
            writeln!(text, "xen_virtio_blk_{name}{{{}}} {}", labels(disk), of(disk))?;
        }
    }
    write_stalls(text, disks)
}

fn write_stalls(text: &mut String, disks: &[&Figures]) -> fmt::Result {
    let name = "stalled_seconds";
    let help =
        "For how long requests have been in flight without any of their queue being answered.";
    declare(text, name, "gauge", help)?;
    for disk in disks {
        let stalled = disk.stats.stalled.as_secs_f64();
        writeln!(text, "xen_virtio_blk_{name}{{{}}} {stalled}", labels(disk))?;
    }
    Ok(())
}

fn write_durations(text: &mut String, disks: &[&Figures]) -> fmt::Result {
    let name = "request_duration_seconds";
    declare(text, name, "histogram", "From being taken out of the ring to being published.")?;
    for disk in disks {
        for (op, kind) in OPS {
            let latency = &disk.stats[kind].latency;
            let labels = format!("{},op=\"{op}\"", labels(disk));
            for (end, count) in latency.cumulative() {
                let le = end.as_secs_f64();
                writeln!(text, "xen_virtio_blk_{name}_bucket{{{labels},le=\"{le}\"}} {count}")?;
            }
            let count = latency.count();
            writeln!(text, "xen_virtio_blk_{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
            let sum = latency.total().as_secs_f64();
            writeln!(text, "xen_virtio_blk_{name}_sum{{{labels}}} {sum}")?;
            writeln!(text, "xen_virtio_blk_{name}_count{{{labels}}} {count}")?;
        }
    }
    Ok(())
}

fn declare(text: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP xen_virtio_blk_{name} {help}")?;
    writeln!(text, "# TYPE xen_virtio_blk_{name} {kind}")
}

fn labels(disk: &Figures) -> String {
    let id = disk.id;
    format!("domid=\"{}\",devid=\"{}\"", id.domid, id.devid)
}

/// Has `text` be the content of the file at `path`. Others may be able to write to its directory, and this runs as root:
/// the new file has a name that nobody can foresee and is created by this (`O_EXCL`), and a link at `path` is replaced,
/// not followed.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // node_exporter reads *.prom only, as another user.
    let mut new = tempfile::Builder::new()
        .prefix(".xen-virtio-blk-")
        .suffix(".new")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    new.write_all(text)?;
    new.persist(path)?;
    Ok(())
}

/// The file, written anew at intervals. A reader finds the old text or the new one, never a part.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    interval: Duration,
    due: Instant,
    failing: bool,
}

impl MetricsFile {
    /// Due at once, and then after each `interval`.
    pub fn new(path: PathBuf, interval: Duration) -> Self {
        Self { path, interval, due: Instant::now(), failing: false }
    }
}

impl Metrics<Figures> for MetricsFile {
    fn wait(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Writes it now. That this fails is said once, and when it no longer does.
    fn write(&mut self, disks: &[&Figures]) {
        self.due = Instant::now() + self.interval;
        let written = replace(&self.path, render(disks).as_bytes());
        let path = self.path.display();
        match written {
            Ok(()) if self.failing => info!(%path, "the metrics are written again"),
            Err(ref error) if !self.failing => {
                warn!(%path, error = %chain(&error), "the metrics can't be written, and are tried again each --metrics-interval: correct the error, or name another --metrics-file")
            }
            _ => {}
        }
        self.failing = written.is_err();
    }
}
