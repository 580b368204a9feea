//! Messages (`xen/include/public/io/xs_wire.h`, `docs/misc/xenstore.txt`): a header and a payload, mostly
//! NUL-terminated strings.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::store::PAYLOAD_MAX;
use crate::{Op, Perm, WatchEvent};

/// `XS_ERROR`: the reply that refuses a request.
pub(crate) const ERROR: u32 = 16;
/// The longest error name: the known ones have at most nine letters.
const ERRNO_MAX: usize = 16;

/// `struct xsd_sockmsg`. Xen is little-endian wherever it runs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) msg_type: U32,
    pub(crate) req_id: U32,
    pub(crate) tx_id: U32,
    pub(crate) len: U32,
}

/// A message from the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
}

/// The bytes of a request whose payload is `parts` in a row; `None` if they are more than [`PAYLOAD_MAX`].
pub(crate) fn encode(op: Op, req_id: u32, tx_id: u32, parts: &[&[u8]]) -> Option<Vec<u8>> {
    let payload = parts.concat();
    if payload.len() > PAYLOAD_MAX {
        return None;
    }
    let header = Header {
        msg_type: U32::new(op as u32),
        req_id: U32::new(req_id),
        tx_id: U32::new(tx_id),
        len: U32::new(u32::try_from(payload.len()).ok()?),
    };
    Some([header.as_bytes(), &payload].concat())
}

/// Takes the first message off `bytes`; `None` while it is not complete.
pub(crate) fn take(bytes: &mut Vec<u8>) -> Result<Option<Message>, String> {
    let Ok((header, rest)) = Header::read_from_prefix(bytes) else { return Ok(None) };
    let len = header.len.get() as usize;
    if len > PAYLOAD_MAX {
        return Err(format!("a payload of {len} bytes"));
    }
    let Some(payload) = rest.get(..len) else { return Ok(None) };
    let payload = payload.to_vec();
    bytes.drain(..size_of::<Header>() + len);
    Ok(Some(Message { header, payload }))
}

/// The strings of a payload, each ended by a NUL.
pub(crate) fn strings(payload: &[u8]) -> Result<Vec<&str>, String> {
    if payload.is_empty() {
        return Ok(Vec::new());
    }
    let text = payload.strip_suffix(b"\0").ok_or("a string without its NUL")?;
    let text = std::str::from_utf8(text).map_err(|_| "a string that is not UTF-8")?;
    Ok(text.split('\0').collect())
}

/// The one string of a payload.
pub(crate) fn string(payload: &[u8]) -> Result<&str, String> {
    match strings(payload)?[..] {
        [one] => Ok(one),
        ref several => Err(format!("{} strings where one is expected", several.len())),
    }
}

/// The name of the error in an `XS_ERROR`.
pub(crate) fn errno(payload: &[u8]) -> Result<&str, String> {
    let name = string(payload)?;
    let plain = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if name.is_empty() || name.len() > ERRNO_MAX || !plain {
        return Err("an error without a name".into());
    }
    Ok(name)
}

/// The children of a node.
pub(crate) fn names(payload: &[u8]) -> Result<Vec<String>, String> {
    let names = strings(payload)?;
    if names.iter().any(|name| name.is_empty() || name.contains('/')) {
        return Err("a child without a proper name".into());
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// A reply to `XS_DIRECTORY_PART`: `<generation>|<child>|*`, and an empty string after the last child.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) generation: &'a str,
    pub(crate) names: Vec<String>,
    /// How far this takes the offset of the next request: the length of the names with their NULs.
    pub(crate) bytes: usize,
    pub(crate) last: bool,
}

pub(crate) fn directory_part(payload: &[u8]) -> Result<Part<'_>, String> {
    let end = payload.iter().position(|b| *b == 0).ok_or("a part without a generation")?;
    let (generation, list) = (&payload[..end], &payload[end + 1..]);
    let generation =
        std::str::from_utf8(generation).map_err(|_| "a generation that is not UTF-8")?;
    // The empty string at the end is one more NUL.
    let last = list == [0] || list.ends_with(&[0, 0]);
    let list = if last { &list[..list.len() - 1] } else { list };
    let names = names(list)?;
    if names.is_empty() && !last {
        return Err("a part of a directory with nothing in it".into());
    }
    Ok(Part { generation, names, bytes: list.len(), last })
}

/// The permissions of a node.
pub(crate) fn perms(payload: &[u8]) -> Result<Vec<Perm>, String> {
    let perms = strings(payload)?;
    if perms.is_empty() {
        return Err("a node without permissions".into());
    }
    perms.iter().map(|p| p.parse().map_err(|_| format!("the permission {p:?}"))).collect()
}

/// An `XS_WATCH_EVENT`.
pub(crate) fn watch_event(payload: &[u8]) -> Result<WatchEvent, String> {
    match strings(payload)?[..] {
        [path, token] => Ok(WatchEvent { path: path.to_owned(), token: token.to_owned() }),
        ref other => Err(format!("a watch event of {} strings", other.len())),
    }
}
