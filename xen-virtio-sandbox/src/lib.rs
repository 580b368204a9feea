//! Confines a process that serves one guest.
//!
//! A backend's process handles what a guest writes: registers, rings, requests. Whoever finds an
//! error in that handling must not get more from it than the guest already has. So the process
//! gets the descriptors it needs, gives up everything else with [`Sandbox::enter`], and can't take
//! it back:
//!
//! ```no_run
//! use xen_virtio_sandbox::{IdRange, Sandbox, ThreadKind};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let domid = 1;
//! // The supervisor, which sees the user database, finds the identity …
//! let ids = IdRange::of_user(IdRange::USER)?.for_domain(domid)?;
//! // … and the guest's process, while it has one thread, takes it on.
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
//! Each [`Layer`] refuses something that no other layer has to be trusted for; most attempts are
//! refused by several. A layer that the kernel lacks is reported, see [`Report`], and the others
//! are entered all the same; a layer that the kernel has and refuses is an error.
//!
//! | an attacker who runs code in the process tries to | layers that refuse it, each alone |
//! |---|---|
//! | open a file or device by path | [`EmptyRoot`](Layer::EmptyRoot), [`Landlock`](Layer::Landlock), [`Seccomp`](Layer::Seccomp); root's also [`Identity`](Layer::Identity) |
//! | reach the network, or an abstract Unix socket | [`Network`](Layer::Network), `Landlock` (TCP and abstract sockets), `Seccomp` |
//! | run a program | `EmptyRoot`, `Landlock`, `Seccomp` |
//! | gain privileges by a set-user-ID program | [`NoNewPrivs`](Layer::NoNewPrivs), [`Capabilities`](Layer::Capabilities), and all that refuse programs |
//! | trace, read or signal a process of another user | `Identity`, `Capabilities`, `Landlock`, `Seccomp` |
//! | mount, unshare, change root | `Identity`, `Capabilities`, `Seccomp` |
//! | run memory it has written | [`WriteXorExecute`](Layer::WriteXorExecute), `Seccomp` |
//! | start processes, threads or open descriptors without end | [`Limits`](Layer::Limits); processes also `Seccomp` |
//! | use the kernel's rarer interfaces: `bpf`, `userfaultfd`, new io_uring rings | `Seccomp` |
//! | have a ring that exists carry out what seccomp refuses | [`RingRestrictions`] |
//! | take the host's memory or CPU time | [`Cgroup`] |
//!
//! # What is left
//!
//! The open descriptors, and what the kernel lets their owner do with them. So privcmd and evtchn
//! have to be restricted to the guest's domid before (`IOCTL_PRIVCMD_RESTRICT`,
//! `IOCTL_EVTCHN_RESTRICT_DOMID`); gntdev can't be restricted, and maps what any domain grants to
//! this one. [`Access`] keeps the ioctls of mappings that a guest doesn't need from its process.

mod access;
mod accounts;
mod capabilities;
mod cgroup;
mod descriptors;
mod empty_root;
mod error;
mod identity;
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
pub use layer::Layer;
pub use limits::Limits;
pub use probe::probe;
pub use report::{Report, State};
pub use sandbox::{Confined, Sandbox};
pub use seccomp::{OnRefusal, ThreadFilters, ThreadKind};
pub use uring::RingRestrictions;
