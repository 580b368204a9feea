use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

use crate::{Ids, Layer, SandboxError, State};

const LAYER: Layer = Layer::Identity;

/// Sets real, effective and saved user and group IDs, so that they can't be changed back.
pub(crate) fn enter(ids: Ids) -> Result<State, SandboxError> {
    let (uid, gid) = (Uid::from_raw(ids.uid()), Gid::from_raw(ids.gid()));
    // Changing groups requires root, so the user ID is last.
    setgroups(&[]).map_err(SandboxError::layer(LAYER, "setgroups"))?;
    setresgid(gid, gid, gid).map_err(SandboxError::layer(LAYER, "setresgid"))?;
    setresuid(uid, uid, uid).map_err(SandboxError::layer(LAYER, "setresuid"))?;

    let uids = getresuid().map_err(SandboxError::layer(LAYER, "getresuid"))?;
    let gids = getresgid().map_err(SandboxError::layer(LAYER, "getresgid"))?;
    let groups = getgroups().map_err(SandboxError::layer(LAYER, "getgroups"))?;
    if [uids.real, uids.effective, uids.saved] != [uid; 3] {
        return Err(SandboxError::Left {
            layer: LAYER,
            what: "the process still has another user ID",
        });
    }
    if [gids.real, gids.effective, gids.saved] != [gid; 3] || !groups.is_empty() {
        return Err(SandboxError::Left {
            layer: LAYER,
            what: "the process still has another group ID",
        });
    }
    Ok(State::On)
}
