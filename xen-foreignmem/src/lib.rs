//! A Xen guest's memory from userspace: foreign, grant and resource mappings.
