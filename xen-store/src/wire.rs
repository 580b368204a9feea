//! Messages (`docs/misc/xenstore.txt`): a header and a payload, mostly NUL-terminated strings.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use crate::sys::Header;
use crate::{Op, PAYLOAD_MAX, Perm, WatchEvent};

/// The longest error name: the known ones have at most nine letters.
const ERRNO_MAX: usize = 16;

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn message(kind: u32, payload: &[u8]) -> Message {
        let header = Header {
            msg_type: U32::new(kind),
            req_id: U32::new(7),
            tx_id: U32::new(9),
            len: U32::new(payload.len() as u32),
        };
        Message { header, payload: payload.to_vec() }
    }

    fn bytes(message: &Message) -> Vec<u8> {
        [message.header.as_bytes(), &message.payload].concat()
    }

    #[test]
    fn a_request_on_the_wire() {
        let bytes = encode(Op::Write, 0x0102_0304, 5, &[b"/a\0", b"v"]).unwrap();
        let header = [11, 0, 0, 0, 4, 3, 2, 1, 5, 0, 0, 0, 4, 0, 0, 0];
        assert_eq!(bytes, [&header[..], b"/a\0v"].concat());
        assert_eq!(encode(Op::Read, 1, 0, &[&[b'a'; PAYLOAD_MAX]]).unwrap().len(), 16 + 4096);
        assert_eq!(encode(Op::Read, 1, 0, &[&[b'a'; PAYLOAD_MAX], b"\0"]), None);
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused_before_it_comes() {
        let mut header = message(2, b"");
        for len in [4097, u32::MAX] {
            header.header.len = U32::new(len);
            assert!(take(&mut bytes(&header)).is_err());
        }
    }

    #[test]
    fn payloads() {
        assert_eq!(strings(b"").unwrap(), Vec::<&str>::new());
        assert_eq!(strings(b"\0").unwrap(), [""]);
        assert_eq!(strings(b"a\0b\0").unwrap(), ["a", "b"]);
        for bad in [&b"a"[..], b"a\0b", b"\xff\0"] {
            assert!(strings(bad).is_err(), "{bad:?}");
        }
        assert_eq!(string(b"/x\0"), Ok("/x"));
        assert!(string(b"").is_err());
        assert!(string(b"a\0b\0").is_err());
        assert_eq!(errno(b"E2BIG\0"), Ok("E2BIG"));
        for bad in [&b"\0"[..], b"", b"ENOENT", b"enoent\0", b"E\0E\0", b"EABCDEFGHIJKLMNOP\0"] {
            assert!(errno(bad).is_err(), "{bad:?}");
        }
        assert!(names(b"a\0\0").is_err());
        assert!(names(b"a/b\0").is_err());
        assert!(perms(b"").is_err());
        assert!(perms(b"r1\0x2\0").is_err());
        assert!(watch_event(b"/a\0").is_err());
        assert!(watch_event(b"/a\0t\0x\0").is_err());
    }

    #[test]
    fn parts_of_a_directory() {
        let part = |names: &[&str], bytes, last| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Ok(Part { generation: "12", names, bytes, last })
        };
        assert_eq!(directory_part(b"12\0a\0bc\0"), part(&["a", "bc"], 5, false));
        assert_eq!(directory_part(b"12\0a\0bc\0\0"), part(&["a", "bc"], 5, true));
        assert_eq!(directory_part(b"12\0\0"), part(&[], 0, true));
        for bad in [&b""[..], b"12", b"12\0", b"12\0a", b"12\0\0a\0", b"12\0\0\0", b"\xff\0\0"] {
            assert!(directory_part(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            cases: if cfg!(miri) { 2 } else { 256 },
            ..ProptestConfig::default()
        })]

        #[test]
        fn messages_survive_any_fragmentation(
            payloads in vec(vec(any::<u8>(), 0..100), 1..8),
            cuts in vec(1_usize..40, 1..20),
        ) {
            let sent: Vec<Message> =
                payloads.iter().zip(1..).map(|(payload, kind)| message(kind, payload)).collect();
            let mut stream: &[u8] = &sent.iter().flat_map(bytes).collect::<Vec<u8>>();
            let mut cuts = cuts.iter().cycle();
            let (mut buffer, mut received) = (Vec::new(), Vec::new());
            while !stream.is_empty() {
                let (now, later) = stream.split_at(stream.len().min(*cuts.next().unwrap()));
                buffer.extend_from_slice(now);
                stream = later;
                while let Some(message) = take(&mut buffer).unwrap() {
                    received.push(message);
                }
            }
            prop_assert_eq!(received, sent);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_payload_is_understood_or_refused(payload in vec(prop_oneof![Just(0), any::<u8>()], 0..64)) {
            if let Ok(list) = strings(&payload) {
                prop_assert_eq!(list.iter().flat_map(|s| [s.as_bytes(), b"\0"].concat())
                    .collect::<Vec<u8>>(), payload.clone());
            }
            if let Ok(part) = directory_part(&payload) {
                prop_assert!(part.last || part.bytes > 0);
                prop_assert!(part.bytes < payload.len());
            }
            let _ = (errno(&payload), perms(&payload), watch_event(&payload), names(&payload));
        }
    }
}
