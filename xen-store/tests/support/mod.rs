//! A daemon for the real client to talk to: the wire protocol on one end of a socket pair, a `FakeStore`
//! behind it. It has its own idea of the protocol and shares no code with the client.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread;

use xen_store::fake::FakeStore;
use xen_store::{Error, PAYLOAD_MAX, Perm, Store, TxId, WatchEvent, XenStore};

/// A real client, served as `store` would serve it.
pub(crate) fn real_client(store: FakeStore) -> XenStore {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || serve(&store, ours));
    XenStore::new(theirs.into()).unwrap()
}

pub(crate) fn message(kind: u32, req_id: u32, tx_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [kind, req_id, tx_id, payload.len() as u32] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// A request as it comes in: type, request, transaction, payload; `None` when the client is gone.
pub(crate) fn receive(stream: &mut UnixStream) -> Option<([u32; 3], Vec<u8>)> {
    let mut header = [0; 16];
    stream.read_exact(&mut header).ok()?;
    let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let mut payload = vec![0; field(12) as usize];
    assert!(payload.len() <= PAYLOAD_MAX, "xenstored would hang up");
    stream.read_exact(&mut payload).ok()?;
    Some(([field(0), field(4), field(8)], payload))
}

fn serve(store: &FakeStore, mut stream: UnixStream) {
    loop {
        let mut polls = [stream.as_raw_fd(), store.as_fd().as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: the pointer and the count describe `polls`.
        let n = unsafe { libc::poll(polls.as_mut_ptr(), 2, -1) };
        assert!(n > 0);
        if polls[0].revents != 0 {
            let Some(([kind, req_id, tx_id], payload)) = receive(&mut stream) else { return };
            let reply = match answer(store, kind, TxId::new(tx_id), &payload) {
                Ok(payload) => message(kind, req_id, tx_id, &payload),
                Err(Error::Refused { errno, .. }) => {
                    message(16, req_id, tx_id, format!("{errno}\0").as_bytes())
                }
                Err(_) => return,
            };
            if stream.write_all(&reply).is_err() {
                return;
            }
        }
        loop {
            match store.next_event() {
                Ok(Some(WatchEvent { path, token })) => {
                    let payload = format!("{path}\0{token}\0");
                    if stream.write_all(&message(15, 0, 0, payload.as_bytes())).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn refuse(errno: &str) -> Error {
    // The one public way to an `Error::Refused`: have the fake refuse something.
    let store = FakeStore::new();
    store.fail_next(xen_store::Op::Read, 1, errno);
    store.read(None, "/").unwrap_err()
}

fn list(names: &[String]) -> Vec<u8> {
    names.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect()
}

fn answer(
    store: &FakeStore,
    kind: u32,
    tx: Option<TxId>,
    payload: &[u8],
) -> Result<Vec<u8>, Error> {
    let ok = b"OK\0".to_vec();
    let nul = payload.iter().position(|b| *b == 0).expect("a string");
    let first = std::str::from_utf8(&payload[..nul]).unwrap();
    let rest = &payload[nul + 1..];
    let second = || std::str::from_utf8(rest).unwrap().strip_suffix('\0').unwrap();
    Ok(match kind {
        1 => {
            let names = list(&store.directory(tx, first)?);
            if names.len() > PAYLOAD_MAX {
                return Err(refuse("E2BIG"));
            }
            names
        }
        2 => store.read(tx, first)?,
        3 => {
            let perms = store.get_perms(tx, first)?;
            list(&perms.iter().map(Perm::to_string).collect::<Vec<_>>())
        }
        4 => store.watch(first, second()).map(|()| ok)?,
        5 => store.unwatch(first, second()).map(|()| ok)?,
        6 => format!("{}\0", store.transaction_start()?.get()).into_bytes(),
        7 => {
            assert!(payload == b"T\0" || payload == b"F\0");
            store.transaction_end(tx.unwrap(), payload == b"T\0").map(|()| ok)?
        }
        10 => format!("{}\0", store.domain_path(first.parse().unwrap())?).into_bytes(),
        11 => store.write(tx, first, rest).map(|()| ok)?,
        12 => store.mkdir(tx, first).map(|()| ok)?,
        13 => store.rm(tx, first).map(|()| ok)?,
        14 => {
            let text = std::str::from_utf8(rest).unwrap();
            let perms: Vec<Perm> =
                text.split_terminator('\0').map(|p| p.parse().unwrap()).collect();
            store.set_perms(tx, first, &perms).map(|()| ok)?
        }
        22 => {
            let all = list(&store.directory(tx, first)?);
            let from = second().parse::<usize>().unwrap().min(all.len());
            let room = PAYLOAD_MAX - "7\0".len() - 1;
            let mut to = all.len().min(from + room);
            while to > from && all[to - 1] != 0 {
                to -= 1;
            }
            let end: &[u8] = if to == all.len() { b"\0" } else { b"" };
            [b"7\0", &all[from..to], end].concat()
        }
        other => panic!("request {other}"),
    })
}
