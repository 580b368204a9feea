//! The C library's allocator, prepared for the sandbox.

/// Has all threads allocate from the heap of the first one. By default glibc gives each of several threads a
/// heap of its own, keeps what is freed in each, and looks up `/proc/sys/vm/overcommit_memory` when it
/// first shrinks one: an attempt that the sandbox refuses, and logs.
#[cfg(target_env = "gnu")]
pub(crate) fn share() {
    // It refuses no positive number, and without it nothing is wrong.
    // SAFETY: the call takes only integers, and no other thread allocates meanwhile, as there is none.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// The others have one heap.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn share() {}
