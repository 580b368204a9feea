//! What the service manager is told (sd_notify(3)).

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use crate::chain;
use tracing::debug;

/// The service manager, if there is one and it wants to be told.
#[derive(Debug, Default)]
pub struct Notify(Option<OsString>);

impl Notify {
    /// The one that the environment names (`NOTIFY_SOCKET`).
    pub fn from_env() -> Self {
        Self(env::var_os("NOTIFY_SOCKET"))
    }

    /// The one that listens at `socket`.
    pub fn at(socket: &OsStr) -> Self {
        Self(Some(socket.to_owned()))
    }

    /// Whoever comes from now on is served.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Nobody else is served; `status` says what is waited for.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    fn send(&self, state: &str) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = send(socket, state) {
            debug!(?socket, error = %chain(&error), "can't write to the service manager's NOTIFY_SOCKET");
        }
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let datagram = UnixDatagram::unbound()?;
    // A manager that doesn't read must not stop this.
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_hears_of_the_start_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("backend-process-test-{}", std::process::id());
        let listeners = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (
                OsString::from(format!("@{name}")),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            ),
        ];
        for (socket, listener) in listeners {
            let notify = Notify::at(&socket);
            notify.ready();
            notify.stopping("waits for 2 guests");
            let mut text = [0; 64];
            let len = listener.recv(&mut text).unwrap();
            assert_eq!(&text[..len], b"READY=1");
            let len = listener.recv(&mut text).unwrap();
            assert_eq!(&text[..len], b"STOPPING=1\nSTATUS=waits for 2 guests");
        }
        // Neither no manager nor one that is gone is an error.
        Notify::default().ready();
        Notify::at(OsStr::new("/nowhere/notify")).ready();
    }
}
