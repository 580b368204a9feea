//! The device side of virtio-mmio: registers, status machine and live queues, no I/O of its own.
