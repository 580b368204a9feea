//! A virtio block device: requests, configuration, I/O engines and disk images.
