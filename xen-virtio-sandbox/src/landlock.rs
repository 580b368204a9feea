use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};

use crate::{Layer, SandboxError, State};

/// The ABI whose restrictions are requested. The crate leaves out those that the kernel doesn't
/// support.
const NEWEST: ABI = ABI::V10;

/// What later ABIs restrict in addition.
const SINCE: [(ABI, &str); 7] = [
    (ABI::V2, "linking and renaming between directories"),
    (ABI::V3, "truncating files"),
    (ABI::V4, "TCP"),
    (ABI::V5, "ioctls of devices"),
    (ABI::V6, "abstract Unix sockets and signals"),
    (ABI::V9, "Unix sockets by path"),
    (ABI::V10, "UDP"),
];

/// Restricts the process by an empty ruleset, which denies all handled accesses. Open descriptors
/// aren't affected.
pub(crate) fn enter() -> Result<State, SandboxError> {
    let restricted = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    let failed =
        |error| SandboxError::layer(Layer::Landlock, "restrict_self")(io::Error::other(error));
    let status = restricted.map_err(failed)?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => State::On,
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            partial(effective_abi)
        }
        (_, LandlockStatus::NotEnabled) => missing(&io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        _ => missing(&io::Error::from_raw_os_error(libc::ENOSYS)),
    })
}

/// `LANDLOCK_CREATE_RULESET_VERSION` (linux/landlock.h).
const VERSION: libc::c_long = 1;

pub(crate) fn probe() -> State {
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call returns the ABI version and takes no pointer.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) };
    match abi {
        ..=0 => missing(&io::Error::last_os_error()),
        abi => match ABI::from(abi as i32) {
            NEWEST => State::On,
            abi => partial(abi),
        },
    }
}

fn partial(abi: ABI) -> State {
    let lacks: Vec<_> = SINCE.iter().filter(|(since, _)| *since > abi).map(|(_, it)| *it).collect();
    State::Partial(format!("the kernel's ABI {abi} doesn't restrict {}", lacks.join(", ")).into())
}

fn missing(error: &io::Error) -> State {
    State::Missing(match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => {
            "Landlock is built into the kernel but not enabled: add landlock to its parameter lsm="
                .into()
        }
        _ => "the kernel has no CONFIG_SECURITY_LANDLOCK (Linux 5.13)".into(),
    })
}
