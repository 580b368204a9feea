use std::fs;
use std::path::Path;

use crate::landlock;
use crate::seccomp;
use crate::{Layer, Report, State, keyring, memory};

/// Predicts the report of [`Sandbox::enter`](crate::Sandbox::enter) without entering: which layers the
/// kernel supports and this process has the privileges for.
#[must_use]
pub fn probe() -> Report {
    let root = rustix::process::geteuid().is_root();
    let mut report = Report::default();
    for layer in Layer::ALL {
        let state = match layer {
            _ if !root && (layer.takes_root() || layer == Layer::Identity) => State::not_root(),
            Layer::EmptyRoot => namespace("mnt", "CONFIG_NAMESPACES").unwrap_or_else(tmpfs),
            Layer::Network => namespace("net", "CONFIG_NET_NS").unwrap_or(State::On),
            Layer::Ipc => namespace("ipc", "CONFIG_IPC_NS").unwrap_or(State::On),
            Layer::Uts => namespace("uts", "CONFIG_UTS_NS").unwrap_or(State::On),
            Layer::Keyring => keyring::probe(),
            Layer::WriteXorExecute => memory::probe(),
            Layer::Landlock => landlock::probe(),
            Layer::Seccomp => seccomp::probe(),
            Layer::Limits
            | Layer::Identity
            | Layer::Capabilities
            | Layer::NoNewPrivs
            | Layer::Undumpable => State::On,
        };
        report.add(layer, state);
    }
    report
}

/// `Some` if the kernel doesn't support the namespace.
fn namespace(name: &str, option: &str) -> Option<State> {
    let missing = || State::Missing(format!("the kernel has no {option}").into());
    (!Path::new("/proc/self/ns").join(name).exists()).then(missing)
}

fn tmpfs() -> State {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match known.lines().any(|line| line.split_whitespace().last() == Some("tmpfs")) {
        true => State::On,
        false => State::Missing("the kernel has no CONFIG_TMPFS".into()),
    }
}
