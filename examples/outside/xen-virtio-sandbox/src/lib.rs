//! What the README and the documentation of `xen-virtio-sandbox` show, as its user would compile it.

#[cfg(doctest)]
#[doc = include_str!(concat!(env!("OUT_DIR"), "/readme.md"))]
pub struct Readme;

#[cfg(doctest)]
#[doc = include_str!(concat!(env!("OUT_DIR"), "/crate.md"))]
pub struct CrateDocumentation;
