//! The socket at which the process of a guest is reached: by the supervisor that starts it, and by each later one.

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// Connections that wait. There is one supervisor at a time.
pub(crate) const BACKLOG: i32 = 4;

/// A socket that listens at `address`, where nothing may be.
pub(crate) fn listen_at(address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let socket = new()?;
    bind(&socket, address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A connection to the process that listens at `address`. Nothing is waited for.
pub(crate) fn connect_to(address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let socket = new()?;
    connect(&socket, address)?;
    Ok(socket)
}

fn new() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}
