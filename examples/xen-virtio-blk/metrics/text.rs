//! The text that Prometheus and node_exporter read (text format 0.0.4).

use std::fmt::{self, Write as _};

use virtio_blk_dev::OpStats;
use xen_virtio_backend::control::{DeviceStatusOf, StatusOf};

use super::labels::Labels;
use crate::{
    disk_state::DiskState,
    disks::Disks,
    figures::{Figures, OPS},
};

/// The disks' figures.
pub fn render(status: &StatusOf<Disks>) -> String {
    let mut text = String::new();
    // Writing to a string doesn't fail.
    let _ = write_all(&mut text, status);
    text
}

/// A disk that has figures, and what they are of.
type Counted<'a> = (Labels, &'a Figures);

fn write_all(text: &mut String, status: &StatusOf<Disks>) -> fmt::Result {
    let devices = latest(&status.devices);
    write_states(text, &devices, status.unknown.len())?;
    write_memory(text, &devices)?;
    let figures = |(labels, device): &(Labels, &'_ DeviceStatusOf<Disks>)| {
        Some((labels.clone(), device.figures.clone()?))
    };
    let counted: Vec<_> = devices.iter().filter_map(figures).collect();
    let counted: Vec<Counted<'_>> =
        counted.iter().map(|(labels, its)| (labels.clone(), its)).collect();
    write_ops(text, &counted)?;
    write_durations(text, &counted)?;
    write_disks(text, &counted)
}

/// Each disk once: while a guest is rebooted, the old one may still be closing, and its figures count with the new one's.
fn latest(devices: &[DeviceStatusOf<Disks>]) -> Vec<(Labels, &DeviceStatusOf<Disks>)> {
    let mut latest: Vec<(Labels, &DeviceStatusOf<Disks>)> = Vec::new();
    // In the order of domain ids, of which a reboot takes a higher one.
    for device in devices {
        let labels = Labels::of(device);
        latest.retain(|(others, _)| *others != labels);
        latest.push((labels, device));
    }
    latest
}

fn write_states(
    text: &mut String,
    devices: &[(Labels, &DeviceStatusOf<Disks>)],
    unknown: usize,
) -> fmt::Result {
    let help = "1 for each disk, with what may change over a reboot of the guest.";
    declare(text, "disk_info", "gauge", help)?;
    for (labels, device) in devices {
        let mut labels = labels.and("domid", &device.id.domid.to_string());
        if let Some((node, nodes)) = &device.read {
            let mode = if nodes.read_only { "ro" } else { "rw" };
            labels = labels.and("mode", mode).and("mapping", &node.sharing.to_string());
        }
        writeln!(text, "xen_virtio_blk_disk_info{{{labels}}} 1")?;
    }
    let states: Vec<_> = devices.iter().map(|(_, device)| DiskState::of(device).0).collect();
    declare(text, "disk_state", "gauge", "1 for the state that the disk is in, 0 for others.")?;
    for ((labels, _), its) in devices.iter().zip(&states) {
        for state in DiskState::ALL {
            let labels = labels.and("state", state.as_str());
            writeln!(text, "xen_virtio_blk_disk_state{{{labels}}} {}", u8::from(state == *its))?;
        }
    }
    declare(text, "disks", "gauge", "Disks in each state.")?;
    for state in DiskState::ALL {
        let count = states.iter().filter(|its| **its == state).count();
        writeln!(text, "xen_virtio_blk_disks{{state=\"{}\"}} {count}", state.as_str())?;
    }
    let help = "Guests served by a process of another version, whose disks aren't known.";
    declare(text, "unknown_guests", "gauge", help)?;
    writeln!(text, "xen_virtio_blk_unknown_guests {unknown}")
}

/// What all disks of a guest's process have in common.
fn write_memory(text: &mut String, devices: &[(Labels, &DeviceStatusOf<Disks>)]) -> fmt::Result {
    let mut guests: Vec<(Labels, &Figures)> = Vec::new();
    for (_, device) in devices {
        let (Some((node, _)), Some(figures)) = (&device.read, &device.figures) else { continue };
        let labels = Labels::of_memory(device, node.sharing);
        if guests.iter().all(|(others, _)| *others != labels) {
            guests.push((labels, figures));
        }
    }
    let help = "Bytes of the guest's memory that are mapped in this domain.";
    declare(text, "guest_mapped_bytes", "gauge", help)?;
    for (labels, figures) in &guests {
        writeln!(text, "xen_virtio_blk_guest_mapped_bytes{{{labels}}} {}", figures.mapped_bytes)?;
    }
    let help = "Accesses to the guest's memory that failed for want of room in --map-budget.";
    declare(text, "guest_map_refusals_total", "counter", help)?;
    for (labels, figures) in &guests {
        let refusals = figures.map_refusals;
        writeln!(text, "xen_virtio_blk_guest_map_refusals_total{{{labels}}} {refusals}")?;
    }
    Ok(())
}

fn write_ops(text: &mut String, disks: &[Counted<'_>]) -> fmt::Result {
    type OfOp = fn(&OpStats) -> u64;
    let of_ops: [(&str, &str, OfOp); 3] = [
        ("requests_total", "Requests answered, whatever the status.", |op| op.requests),
        ("request_errors_total", "Requests answered with an error.", |op| op.errors),
        ("bytes_total", "Bytes moved, discarded or zeroed.", |op| op.bytes),
    ];
    for (name, help, of) in of_ops {
        declare(text, name, "counter", help)?;
        for (labels, disk) in disks {
            for (op, kind) in OPS {
                let (labels, value) = (labels.and("op", op), of(&disk.stats[kind]));
                writeln!(text, "xen_virtio_blk_{name}{{{labels}}} {value}")?;
            }
        }
    }
    Ok(())
}

fn write_durations(text: &mut String, disks: &[Counted<'_>]) -> fmt::Result {
    let name = "request_duration_seconds";
    declare(text, name, "histogram", "From being taken out of the ring to being published.")?;
    for (labels, disk) in disks {
        for (op, kind) in OPS {
            let latency = &disk.stats[kind].latency;
            let labels = labels.and("op", op);
            for (end, count) in latency.cumulative() {
                let labels = labels.and("le", &end.as_secs_f64().to_string());
                writeln!(text, "xen_virtio_blk_{name}_bucket{{{labels}}} {count}")?;
            }
            let (count, infinite) = (latency.count(), labels.and("le", "+Inf"));
            writeln!(text, "xen_virtio_blk_{name}_bucket{{{infinite}}} {count}")?;
            let sum = latency.total().as_secs_f64();
            writeln!(text, "xen_virtio_blk_{name}_sum{{{labels}}} {sum}")?;
            writeln!(text, "xen_virtio_blk_{name}_count{{{labels}}} {count}")?;
        }
    }
    Ok(())
}

fn write_disks(text: &mut String, disks: &[Counted<'_>]) -> fmt::Result {
    type OfDisk = fn(&Figures) -> f64;
    let of_disks: [(&str, &str, &str, OfDisk); 9] = [
        ("in_flight_requests", "gauge", "Requests taken and not answered.", |disk| {
            disk.stats.in_flight as f64
        }),
        (
            "stalled_seconds",
            "gauge",
            "For how long requests have been in flight without any being answered.",
            |disk| disk.stats.stalled.as_secs_f64(),
        ),
        ("host_errors_total", "counter", "Requests that the host failed.", |disk| {
            disk.stats.host_errors as f64
        }),
        (
            "flush_failed",
            "gauge",
            "1 after a flush failed: none succeeds until the disk is closed and opened again.",
            |disk| f64::from(u8::from(disk.flush_failed)),
        ),
        ("batches_total", "counter", "Publications of answers.", |disk| disk.stats.batches as f64),
        ("throttled_total", "counter", "Waits for a rate limit.", |disk| {
            disk.stats.throttled as f64
        }),
        ("interrupts_total", "counter", "Interrupts raised.", |disk| disk.interrupts as f64),
        (
            "interrupts_suppressed_total",
            "counter",
            "Publications that the guest wanted no interrupt for.",
            |disk| disk.stats.interrupts_suppressed as f64,
        ),
        ("ioreqs_total", "counter", "Accesses to the registers.", |disk| disk.ioreqs as f64),
    ];
    for (name, kind, help, of) in of_disks {
        declare(text, name, kind, help)?;
        for (labels, disk) in disks {
            writeln!(text, "xen_virtio_blk_{name}{{{labels}}} {}", of(disk))?;
        }
    }
    Ok(())
}

fn declare(text: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP xen_virtio_blk_{name} {help}")?;
    writeln!(text, "# TYPE xen_virtio_blk_{name} {kind}")
}
