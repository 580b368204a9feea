use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_move, unmount,
};
use rustix::process::{chdir, chroot, pivot_root};
use rustix::thread::UnshareFlags;

use crate::namespaces::unshare;
use crate::{Layer, SandboxError, State};

/// Where the empty file system is mounted until it is the root: the first of these that exists.
/// The mount is in a namespace of its own, so it hides nothing from others.
const MOUNT_POINTS: [&str; 4] = ["/proc", "/dev", "/run", "/tmp"];

/// A mount namespace with nothing in it but an empty directory that can't be written.
///
/// Descriptors that are open stay what they are: they hold the mounts they were opened on.
pub(crate) fn enter() -> Result<State, SandboxError> {
    const LAYER: Layer = Layer::EmptyRoot;
    let missing = "the kernel has no mount namespaces";
    let unshared = unshare(UnshareFlags::NEWNS);
    let state = State::unless_unknown(LAYER, "unshare(CLONE_NEWNS)", missing, unshared)?;
    if state != State::On {
        return Ok(state);
    }
    // Nothing that is mounted from here on spreads to the namespace this one was copied from.
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
        // Both are mounted on / now, the old root on top.
        Ok(()) => unmount(".", UnmountFlags::DETACH)
            .map_err(SandboxError::layer(LAYER, "detaching the old root"))?,
        // The root is the kernel's initial one (an initramfs), which can only be covered.
        Err(Errno::INVAL) => {
            mount_move(".", "/").map_err(SandboxError::layer(LAYER, "moving the empty root"))?;
            chroot(".").map_err(SandboxError::layer(LAYER, "chroot"))?;
        }
        Err(error) => return Err(SandboxError::layer(LAYER, "pivot_root")(error)),
    }
    chdir("/").map_err(SandboxError::layer(LAYER, "chdir to /"))?;
    match rustix::fs::statat(CWD, "proc", rustix::fs::AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(State::On),
        _ => Err(SandboxError::Left { layer: LAYER, what: "/proc is still there" }),
    }
}
