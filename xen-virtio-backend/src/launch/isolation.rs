//! How far the processes of guests are confined.

/// How far the processes of guests are confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Isolation {
    /// Each is confined to its guest ([`xen_virtio_sandbox`]).
    pub sandbox: bool,
    /// Most memory that each may use, in bytes (`memory.max` of its cgroup).
    pub memory: Option<u64>,
    /// Most CPU time that each may use, in thousandths of a CPU (`cpu.max`).
    pub cpu_milli: Option<u32>,
}

impl Default for Isolation {
    /// Confined, and not limited.
    fn default() -> Self {
        Self { sandbox: true, memory: None, cpu_milli: None }
    }
}
