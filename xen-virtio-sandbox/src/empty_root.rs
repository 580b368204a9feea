use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_move, unmount,
};
use rustix::process::{chdir, chroot, pivot_root};
use rustix::thread::UnshareFlags;

use crate::namespaces::unshare;
use crate::{Layer, SandboxError, State};

/// Where the tmpfs is mounted before it becomes the root: the first of these that exists. The mount
/// is visible only in the new namespace.
const MOUNT_POINTS: [&str; 4] = ["/proc", "/dev", "/run", "/tmp"];

/// Enters a new mount namespace and makes an empty read-only tmpfs its root.
///
/// Open descriptors stay valid: they hold references to the mounts that they were opened on.
pub(crate) fn enter() -> Result<State, SandboxError> {
    const LAYER: Layer = Layer::EmptyRoot;
    let missing = "the kernel has no mount namespaces";
    let unshared = unshare(UnshareFlags::NEWNS);
    let state = State::unless_unknown(LAYER, "unshare(CLONE_NEWNS)", missing, unshared)?;
    if state != State::On {
        return Ok(state);
    }
    // Mounts must not propagate to the parent's namespace.
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).map_err(SandboxError::layer(LAYER, "making mounts private"))?;

    let is_directory = |path: &&&str| std::path::Path::new(path).is_dir();
    let point = MOUNT_POINTS.iter().find(is_directory).copied().unwrap_or("/tmp");
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("none", point, "tmpfs", flags, c"size=4k,nr_inodes=1,mode=0555") {
        Err(Errno::NODEV) => return Ok(State::Missing("the kernel has no CONFIG_TMPFS".into())),
        result => result.map_err(SandboxError::layer(LAYER, "mounting a tmpfs"))?,
    }
    chdir(point).map_err(SandboxError::layer(LAYER, "chdir to the empty root"))?;
    match pivot_root(".", ".") {
        // Now both are mounted on /, the old root on top.
        Ok(()) => unmount(".", UnmountFlags::DETACH)
            .map_err(SandboxError::layer(LAYER, "detaching the old root"))?,
        // The root is an initramfs, for which pivot_root(2) isn't supported: mount over it.
        Err(Errno::INVAL) => {
            mount_move(".", "/").map_err(SandboxError::layer(LAYER, "moving the empty root"))?;
            chroot(".").map_err(SandboxError::layer(LAYER, "chroot"))?;
        }
        Err(error) => return Err(SandboxError::layer(LAYER, "pivot_root")(error)),
    }
    chdir("/").map_err(SandboxError::layer(LAYER, "chdir to /"))?;
    match rustix::fs::statat(CWD, "proc", rustix::fs::AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(State::On),
        _ => Err(SandboxError::Left { layer: LAYER, what: "/proc still exists" }),
    }
}
