//! Entering the sandbox: preconditions, the report, and how the process looks from outside.

mod common;

use std::fs::{self, File};

use common::{Outcome, Trial, is_root, uid};
use xen_virtio_sandbox::{Ids, Layer, Sandbox, SandboxError, probe};

#[test]
fn entering_with_several_threads_is_an_error() {
    let sandbox = Layer::ALL.into_iter().fold(Sandbox::new(None), Sandbox::without);
    let (_keep, wait) = std::sync::mpsc::channel::<()>();
    let waiter = std::thread::spawn(move || wait.recv());
    let error = sandbox.enter().unwrap_err();
    assert!(matches!(error, SandboxError::Threads(2..)), "{error}");
    drop(_keep);
    let _ = waiter.join();
}

#[test]
fn entering_with_an_open_directory_is_an_error() {
    let trial = || Trial::new("none", "write");
    assert_eq!(trial().outcome(), Outcome::Done("18".into()));
    let (outcome, log) = trial().stdin(File::open("/usr").unwrap()).run();
    assert_eq!(outcome, Outcome::Failed);
    assert!(log.contains("descriptor 0 is the directory /usr"), "{log}");
}

#[test]
fn entering_with_an_unexpected_descriptor_is_an_error() {
    let run = |action| Trial::new("none", action).env("TRIAL_NO_MORE", 1).run();
    assert_eq!(run("write").0, Outcome::Done("18".into()));
    let (outcome, log) = run("ioctl 1");
    assert_eq!(outcome, Outcome::Failed);
    assert!(log.contains("descriptor 3 (/dev/null) is open but not expected"), "{log}");
}

#[test]
fn the_probe_predicts_the_report_of_entering() {
    if !is_root() {
        return;
    }
    let (outcome, log) = Trial::new("all", "report").run();
    let Outcome::Done(expected) = outcome else { panic!("{outcome:?}\n{log}") };
    assert_eq!(log.trim_end(), format!("sandbox: {expected}"));
    assert_eq!(probe().to_string(), expected);
}

#[test]
fn a_process_that_is_not_root_reports_the_layers_that_require_root() {
    if !is_root() {
        return;
    }
    let directory = common::directory();
    let program = directory.path().join("trial");
    fs::copy(common::TRIAL, &program).unwrap();
    let (outcome, log) = Trial::of_user(uid(), &program, "all", "report").run();
    let Outcome::Done(expected) = outcome else { panic!("{outcome:?}\n{log}") };
    for layer in [Layer::EmptyRoot, Layer::Network, Layer::Capabilities] {
        let says = format!("{layer} is MISSING: the process doesn't run as root");
        assert!(log.contains(&says), "{log}");
        assert!(expected.contains(&says), "{expected}");
    }
    assert!(log.contains("landlock, seccomp;"), "{log}");
}

#[test]
fn a_lower_hard_limit_is_kept() {
    if !is_root() {
        return;
    }
    // As a user who may not raise it again.
    let (directory, id) = (common::directory(), uid());
    let program = directory.path().join("trial");
    fs::copy(common::TRIAL, &program).unwrap();
    let process = Trial::of_user(id, &program, "limits", "wait").files(32).spawn();
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
    assert_eq!(words(&limits, "Max open files")[..2], ["32", "32"]);
}

/// A line of a file in /proc, as words.
fn words<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().collect()
}

/// The checks under "How to test" in Xen's docs/designs/qemu-deprivilege.md.
#[test]
fn proc_shows_that_a_process_is_confined() {
    if !is_root() {
        return;
    }
    let id = uid();
    let process = Trial::new("all", "wait").env("TRIAL_UID", id).env("TRIAL_FSIZE", 1 << 30);
    let process = process.env("TRIAL_FILES", 100).env("TRIAL_THREADS", 50).spawn();
    let proc = |name: &str| format!("/proc/{}/{name}", process.pid());
    let read = |name: &str| fs::read_to_string(proc(name)).unwrap();

    let status = read("status");
    let id = id.to_string();
    assert_eq!(words(&status, "Uid:"), [&id; 4]);
    assert_eq!(words(&status, "Gid:"), [&id; 4]);
    assert!(words(&status, "Groups:").is_empty());
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(words(&status, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(words(&status, "NoNewPrivs:"), ["1"]);
    assert_eq!(words(&status, "Seccomp:"), ["2"]);

    assert_eq!(fs::read_dir(proc("root")).unwrap().count(), 0, "the root is empty");
    assert_eq!(fs::read_dir(proc("cwd")).unwrap().count(), 0, "so is the working directory");
    assert!(File::create(proc("root/file")).is_err(), "not even root can write there");
    assert_eq!(read("mountinfo").lines().count(), 1, "nothing else is mounted");
    for namespace in ["mnt", "net", "ipc", "uts"] {
        let name = format!("ns/{namespace}");
        let own = fs::read_link(format!("/proc/self/{name}")).unwrap();
        assert_ne!(fs::read_link(proc(&name)).unwrap(), own, "{namespace}");
    }
    assert_eq!(read("net/dev").lines().count(), 3, "the loopback interface alone");

    let limits = read("limits");
    let limit = |name| words(&limits, name)[..2].join(" ");
    assert_eq!(limit("Max open files"), "100 100");
    assert_eq!(limit("Max processes"), "50 50");
    assert_eq!(limit("Max file size"), "1073741824 1073741824");
    for name in ["Max core file size", "Max msgqueue size", "Max locked memory"] {
        assert_eq!(limit(name), "0 0", "{name}");
    }
    let open = fs::read_dir(proc("fd")).unwrap().count();
    assert_eq!(open, 3, "the standard descriptors, and no other");
}

#[test]
fn processes_of_a_guests_user_are_found() {
    if !is_root() {
        return;
    }
    let ids = Ids::new(uid(), uid()).unwrap();
    assert_eq!(ids.processes().unwrap(), []);
    let process = Trial::new("all", "wait").env("TRIAL_UID", ids.uid()).spawn();
    assert_eq!(ids.processes().unwrap(), [process.pid()]);
}

#[test]
fn disabled_layers_have_no_effect() {
    if !is_root() {
        return;
    }
    let process = Trial::new("no-new-privs", "wait").spawn();
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    assert_eq!(words(&status, "Uid:"), ["0"; 4]);
    assert_eq!(words(&status, "NoNewPrivs:"), ["1"]);
    assert_eq!(words(&status, "Seccomp:"), ["0"]);
    assert_ne!(words(&status, "CapEff:"), ["0000000000000000"]);
}
