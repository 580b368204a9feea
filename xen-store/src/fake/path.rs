//! Paths, as xenstored takes them.

use crate::{ABS_PATH_MAX, DomId, REL_PATH_MAX};

/// Where a domain's nodes are.
pub(super) fn home(domid: DomId) -> String {
    format!("/local/domain/{domid}")
}

/// The absolute form of a path given by a client of `domid`.
pub(super) fn absolute(domid: DomId, path: &str) -> Result<String, &'static str> {
    let (max, full) = if path.starts_with('/') {
        (ABS_PATH_MAX, path.to_owned())
    } else {
        (REL_PATH_MAX, format!("{}/{path}", home(domid)))
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-/_@".contains(&b);
    let tidy = full == "/" || (!full.ends_with('/') && !full.contains("//"));
    if path.len() > max || !tidy || !full.bytes().all(plain) {
        return Err("EINVAL");
    }
    Ok(full)
}

/// The node above; `None` for the root.
pub(super) fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        _ if path == "/" => None,
        Some(0) => Some("/"),
        Some(at) => Some(&path[..at]),
        None => None,
    }
}

/// What the paths of everything below a node begin with.
pub(super) fn prefix(path: &str) -> String {
    if path == "/" { path.to_owned() } else { format!("{path}/") }
}

/// Whether `path` is `node` or below it.
pub(super) fn is_within(path: &str, node: &str) -> bool {
    path == node || path.starts_with(&prefix(node))
}
