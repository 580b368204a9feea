//! Where and how the figures were taken.

use std::fs;
use std::process::Command;

use crate::cell::Medium;
use crate::cpu::Cores;
use crate::image::Images;
use crate::plan::Plan;
use crate::program::Paths;

/// A line for each fact.
pub(crate) fn facts(plan: &Plan, cores: Cores, images: &Images, programs: &Paths) -> Vec<String> {
    let mut facts = vec![
        format!("Date: {}", first_line(Command::new("date").args(["-u", "+%F %R UTC"]))),
        format!("Machine: {}", machine()),
    ];
    if let Some(qemu) = &programs.qemu {
        facts.push(format!("Peer: {}", first_line(Command::new(qemu).arg("--version"))));
    }
    facts.push(format!(
        "Image: {} MiB of random bytes, all in memory: for reads and the mix a file of {} in the \
         page cache, for the rest a file of {}. No device bypasses the page cache.",
        images.on(Medium::PageCache).len() >> 20,
        images.on(Medium::PageCache).file_system(),
        images.on(Medium::Memory).file_system(),
    ));
    facts.push(format!(
        "The client is pinned to processor {}, the device with all of its threads to processor \
         {}; so are in-process device and raw loops. Only the kernel's io_uring workers, which serve \
         what would block, run where they like.",
        cores.client, cores.device
    ));
    facts.push(format!(
        "{} repetitions, each load by load in a new random order: all devices under one load \
         directly one after the other, in a random order, too, each started anew for its window of \
         {} ms, after half of that as warm-up. 4 KiB requests are random, larger ones \
         sequential. QD is the number of requests in flight over all queues.",
        plan.repetitions,
        plan.window.as_millis()
    ));
    facts.push(
        "Targets are paired: a ratio is that of two windows of the same repetition and load, taken \
         within seconds, so a phase in which the machine is slow stretches both; what was reached \
         is the median of these ratios. A repetition in which one of the two is not believed has \
         no pair."
            .to_owned(),
    );
    facts.push(
        "CPU is the processor time of all threads of the serving process (CLOCK_PROCESS_CPUTIME \
         of it); of in-process device and raw loops, of their thread, the driver or loop and its \
         timing included. raw/pread makes one call at a time; its QD is the number of buffers."
            .to_owned(),
    );
    facts.push(
        "A write + flush counts as one request; its latency is that of both, one after the other. \
         A flush has nothing to do on tmpfs."
            .to_owned(),
    );
    facts.push(
        "A request is a chain of three descriptors; indirect ones are not negotiated, EVENT_IDX is."
            .to_owned(),
    );
    facts.push(plan.left_out.to_owned());
    facts
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {} processors, Linux {}",
        model.map_or(std::env::consts::ARCH, |(_, model)| model),
        info.lines().filter(|line| line.starts_with("processor")).count(),
        kernel.trim()
    )
}

/// Load averages, as the kernel writes them.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}
