//! Sandbox for a process that serves one guest.
//!
//! A backend process parses data that the guest controls: register accesses, rings, requests. If the
//! guest exploits a bug there, it must not gain access to anything but its own memory and disks. The
//! process is therefore started with only the file descriptors that it needs, and then calls
//! [`Sandbox::enter`], which drops all other privileges irrevocably:
//!
//! ```no_run
//! use xen_virtio_sandbox::{IdRange, Sandbox, ThreadKind};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let domid = 1;
//! // In the supervisor, which has access to the user database:
//! let ids = IdRange::of_user(IdRange::USER)?.for_domain(domid)?;
//! // In the guest process, while it is single-threaded:
//! let confined = Sandbox::new(Some(ids)).enter()?;
//! eprintln!("{}", confined.report);
//!
//! let filters = confined.filters;
//! std::thread::spawn(move || {
//!     filters.apply(ThreadKind::SyncQueue)?;
//!     // … serve a queue.
//!     Ok::<_, xen_virtio_sandbox::SandboxError>(())
//! });
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! The sandbox consists of [`Layer`]s; most attacks are blocked by several of them independently. A
//! layer that the kernel doesn't support is skipped and reported, see [`Report`]. If the kernel
//! supports a layer but entering it fails, that is an error.
//!
//! | attack | layers that block it, each on its own |
//! |---|---|
//! | open a file or device by path | [`EmptyRoot`](Layer::EmptyRoot), [`Landlock`](Layer::Landlock), [`Seccomp`](Layer::Seccomp); files of root also [`Identity`](Layer::Identity) |
//! | network access, abstract Unix sockets | [`Network`](Layer::Network), `Landlock` (TCP and abstract sockets), `Seccomp` |
//! | execute a program | `EmptyRoot`, `Landlock`, `Seccomp` |
//! | gain privileges by executing a set-user-ID program | [`NoNewPrivs`](Layer::NoNewPrivs), [`Capabilities`](Layer::Capabilities), and all that block execution |
//! | ptrace, read or signal a process of another user | `Identity`, `Capabilities`, `Landlock`, `Seccomp` |
//! | mount, unshare, chroot | `Identity`, `Capabilities`, `Seccomp` |
//! | execute memory that was writable | [`WriteXorExecute`](Layer::WriteXorExecute), `Seccomp` |
//! | create processes, threads or descriptors without limit | [`Limits`](Layer::Limits); processes also `Seccomp` |
//! | rarely used kernel interfaces: `bpf`, `userfaultfd`, new io_uring instances | `Seccomp` |
//! | bypass seccomp through an existing io_uring | [`RingRestrictions`] |
//! | exhaust the host's memory or CPU time | [`Cgroup`] |
//!
//! # What the sandbox doesn't restrict
//!
//! The open descriptors keep their capabilities. Before entering, privcmd and evtchn must be
//! restricted to the guest's domid (`IOCTL_PRIVCMD_RESTRICT`, `IOCTL_EVTCHN_RESTRICT_DOMID`). gntdev
//! can't be restricted: it maps any page that any domain has granted to this one. [`Access`] blocks
//! the mapping ioctls that a guest doesn't need.
//!
//! Threads that exist before entering would not be confined, so a log thread, too, is started
//! afterwards. Descriptors that the parent has inherited must not get to the process
//! ([`close_on_exec`]).

mod access;
mod accounts;
mod capabilities;
mod cgroup;
mod descriptors;
mod empty_root;
mod error;
mod heap;
mod identity;
mod inherited;
mod keyring;
mod landlock;
mod layer;
mod limits;
mod memory;
mod namespaces;
mod probe;
mod report;
mod sandbox;
mod seccomp;
mod uring;

pub use access::Access;
pub use accounts::{AccountError, IdRange, Ids};
pub use cgroup::{Cgroup, CgroupError, CgroupLimits, Delegated};
pub use error::SandboxError;
pub use inherited::close_on_exec;
pub use layer::Layer;
pub use limits::Limits;
pub use probe::probe;
pub use report::{Report, State};
pub use sandbox::{Confined, Sandbox};
pub use seccomp::{OnRefusal, ThreadFilters, ThreadKind};
pub use uring::RingRestrictions;
