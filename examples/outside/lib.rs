//! What the README and the documentation of a library show, as its user would compile it. Each member of this
//! workspace is this file, with the documents that `build.rs` makes of its library.

#[cfg(doctest)]
#[doc = include_str!(concat!(env!("OUT_DIR"), "/readme.md"))]
pub struct Readme;

#[cfg(doctest)]
#[doc = include_str!(concat!(env!("OUT_DIR"), "/crate.md"))]
pub struct CrateDocumentation;
