//! What the sandbox blocks. Each attempt must succeed without the layers that block it, and fail with
//! each of them alone.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use common::{Neighbour, Outcome, TRIAL, Trial, directory, is_root, landlock_abi, refused, uid};
use xen_virtio_sandbox::Layer::{
    self, Capabilities, EmptyRoot, Identity, Keyring, Landlock, Limits, Network, NoNewPrivs,
    Seccomp, WriteXorExecute,
};

/// `others` and Landlock, if the kernel's ABI is at least `abi`.
fn with_landlock(abi: i64, others: &[Layer]) -> Vec<Layer> {
    if landlock_abi() < abi {
        eprintln!("SKIPPED: Landlock before ABI {abi} doesn't refuse this");
        return others.to_vec();
    }
    [others, &[Landlock]].concat()
}

fn same(trial: Trial) -> Trial {
    trial
}

#[test]
fn a_file_of_roots_cannot_be_opened() {
    if !is_root() {
        return;
    }
    let layers = with_landlock(1, &[EmptyRoot, Identity, Seccomp]);
    refused(&[], "open /etc/shadow", &layers, same);
}

#[test]
fn an_image_of_another_guest_cannot_be_opened() {
    if !is_root() {
        return;
    }
    let directory = directory();
    let image = directory.path().join("image");
    fs::write(&image, [0; 512]).unwrap();
    fs::set_permissions(&image, fs::Permissions::from_mode(0o600)).unwrap();
    let layers = with_landlock(1, &[EmptyRoot, Identity, Seccomp]);
    refused(&[], &format!("open {}", image.display()), &layers, same);
}

#[test]
fn a_file_that_everybody_may_open_cannot_be_opened() {
    if !is_root() {
        return;
    }
    refused(&[], "open /dev/null", &with_landlock(1, &[EmptyRoot, Seccomp]), same);
}

#[test]
fn a_file_cannot_be_made() {
    if !is_root() {
        return;
    }
    let path = std::env::temp_dir().join(format!("sandbox-trial-{}", uid()));
    let attempt = format!("create {}", path.display());
    refused(&[], &attempt, &with_landlock(1, &[EmptyRoot, Seccomp]), same);
    fs::remove_file(path).unwrap();
}

#[test]
fn a_device_of_roots_cannot_be_opened() {
    if !is_root() {
        return;
    }
    let directory = directory();
    let node = directory.path().join("privcmd");
    let mut mknod = std::process::Command::new("mknod");
    let made = mknod.arg("-m600").arg(&node).args(["c", "1", "3"]).status();
    assert!(made.unwrap().success());
    let layers = with_landlock(1, &[EmptyRoot, Identity, Seccomp]);
    refused(&[], &format!("open {}", node.display()), &layers, same);
    // On a host with Xen, the devices themselves.
    for device in ["privcmd", "evtchn", "gntdev", "xenbus"] {
        let path = format!("/dev/xen/{device}");
        if fs::exists(&path).unwrap() {
            refused(&[], &format!("open {path}"), &layers, same);
        }
    }
}

#[test]
fn there_is_no_way_up_from_the_root() {
    if !is_root() {
        return;
    }
    refused(&[], "walk-up etc/passwd", &with_landlock(1, &[EmptyRoot, Seccomp]), same);
}

#[test]
fn the_root_cannot_be_changed() {
    if !is_root() {
        return;
    }
    refused(&[], "chroot", &[Identity, Capabilities, Seccomp], same);
}

#[test]
fn no_tcp_connection_can_be_made() {
    if !is_root() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let attempt = format!("tcp {}", listener.local_addr().unwrap());
    refused(&[], &attempt, &with_landlock(4, &[Network, Seccomp]), same);
}

#[test]
fn no_datagram_can_be_sent() {
    if !is_root() {
        return;
    }
    refused(&[], "udp 127.0.0.1:9", &with_landlock(10, &[Network, Seccomp]), same);
}

#[test]
fn no_socket_of_the_host_can_be_reached_by_its_path() {
    if !is_root() {
        return;
    }
    let directory = directory();
    let path = directory.path().join("xenstored");
    let _listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let attempt = format!("unix {}", path.display());
    refused(&[], &attempt, &with_landlock(9, &[EmptyRoot, Seccomp]), same);
}

#[test]
fn no_abstract_socket_of_the_host_can_be_reached() {
    if !is_root() {
        return;
    }
    let name = format!("sandbox-trial-{}", uid());
    let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    refused(&[], &format!("abstract {name}"), &with_landlock(6, &[Network, Seccomp]), same);
}

#[test]
fn no_program_can_be_run() {
    if !is_root() {
        return;
    }
    refused(&[], "exec /bin/true", &with_landlock(1, &[EmptyRoot, Seccomp]), same);
}

#[test]
fn no_privilege_can_be_had_from_a_set_user_id_program() {
    if !is_root() {
        return;
    }
    let directory = directory();
    let program = directory.path().join("trial");
    fs::copy(TRIAL, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    // The program exits with 0 if it has capabilities.
    let attempt = format!("exec {}", program.display());
    let layers = with_landlock(1, &[NoNewPrivs, Capabilities, EmptyRoot, Seccomp]);
    refused(&[Identity], &attempt, &layers, same);
}

#[test]
fn root_cannot_be_had_back() {
    if !is_root() {
        return;
    }
    refused(&[], "become-root", &[Identity, Seccomp], same);
    refused(&[], "join-group", &[Identity, Capabilities, Seccomp], same);
}

#[test]
fn a_process_of_another_guest_cannot_be_traced_read_or_signalled() {
    if !is_root() {
        return;
    }
    let neighbour = Neighbour::new();
    let pid = neighbour.pid();
    let outside = [Identity, Capabilities, Seccomp];
    refused(&[], &format!("ptrace {pid}"), &with_landlock(1, &outside), same);
    refused(&[], &format!("read-memory {pid}"), &with_landlock(1, &outside), same);
    refused(&[], &format!("kill {pid}"), &with_landlock(6, &outside), same);
    refused(&[], &format!("tgkill {pid}"), &with_landlock(6, &outside), same);
    let memory = with_landlock(1, &[EmptyRoot, Identity, Capabilities, Seccomp]);
    refused(&[], &format!("open /proc/{pid}/mem"), &memory, same);
}

#[test]
fn another_process_of_the_same_user_cannot_trace_it() {
    if !is_root() {
        return;
    }
    let id = uid();
    let directory = directory();
    let program = directory.path().join("trial");
    fs::copy(TRIAL, &program).unwrap();
    let traced = |neighbour: Trial| {
        let neighbour = neighbour.spawn();
        let attempt = format!("ptrace {}", neighbour.pid());
        Trial::new("identity", &attempt).env("TRIAL_UID", id).outcome()
    };
    let of_user = |layers| Trial::of_user(id, &program, layers, "wait");
    let of_root = |layers| Trial::new(layers, "wait").env("TRIAL_UID", id);
    assert_eq!(traced(of_user("none")), Outcome::Done("0".into()));
    assert!(traced(of_user("undumpable")).is_refused());
    // The kernel clears the flag when a process changes its user ID.
    assert!(traced(of_root("identity")).is_refused());
    assert!(traced(of_root("all")).is_refused());
}

#[test]
fn no_namespace_or_mount_can_be_made() {
    if !is_root() {
        return;
    }
    refused(&[], "unshare", &[Identity, Capabilities, Seccomp], same);
    refused(&[], "mount", &with_landlock(1, &[Identity, Capabilities, Seccomp]), same);
    refused(&[], "host-name", &[Identity, Capabilities, Seccomp], same);
}

#[test]
fn no_user_namespace_can_be_made() {
    if !is_root() {
        return;
    }
    match Trial::new("none", "unshare-user").outcome() {
        Outcome::Done(_) => refused(&[], "unshare-user", &[Seccomp], same),
        outcome => eprintln!("SKIPPED: this kernel makes none anyway: {outcome:?}"),
    }
}

#[test]
fn no_memory_can_be_written_and_then_run() {
    if !is_root() {
        return;
    }
    refused(&[], "execute-memory", &[WriteXorExecute, Seccomp], same);
    refused(&[], "make-executable", &[WriteXorExecute, Seccomp], same);
    refused(&[], "execute-file /bin/true", &[Seccomp], same);
}

#[test]
fn no_process_can_be_started() {
    if !is_root() {
        return;
    }
    let one = |trial: Trial| trial.env("TRIAL_THREADS", 1);
    refused(&[Identity], "fork", &[Limits, Seccomp], one);
    // The C library then falls back to `clone`.
    let (outcome, log) = Trial::new("seccomp", "clone3").run();
    assert_eq!(outcome, Outcome::Refused("Function not implemented (os error 38)".into()), "{log}");
    assert!(!log.contains("not allowed"), "{log}");
}

#[test]
fn threads_and_descriptors_have_a_limit() {
    if !is_root() {
        return;
    }
    let few = |trial: Trial| trial.env("TRIAL_THREADS", 10).env("TRIAL_FILES", 64);
    refused(&[Identity], "threads 20", &[Limits], few);
    refused(&[], "descriptors 100", &[Limits], few);
}

#[test]
fn a_file_can_be_kept_from_growing() {
    if !is_root() {
        return;
    }
    let image = tempfile::NamedTempFile::new().unwrap();
    let attempt = format!("write-at {}", image.path().display());
    refused(&[], &attempt, &[Limits], |trial| trial.env("TRIAL_FSIZE", 4096));
    let within = Trial::new("all", &attempt).env("TRIAL_FSIZE", 4097).outcome();
    assert_eq!(within, Outcome::Done("1".into()));
}

#[test]
fn the_keys_of_who_started_the_process_are_not_its_own() {
    if !is_root() {
        return;
    }
    match Trial::new("none", "key").outcome() {
        Outcome::Done(_) => refused(&[Identity], "key", &[Keyring, Seccomp], same),
        outcome => eprintln!("SKIPPED: this kernel keeps no keys: {outcome:?}"),
    }
}
