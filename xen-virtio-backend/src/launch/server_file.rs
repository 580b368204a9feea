//! Which IOREQ server the process of a guest has: a file beside its socket, for the next supervisor.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use xen_ioreq::ServerId;

use crate::process::GuestKey;

/// What follows the key in the file's name.
const EXTENSION: &str = ".server";

/// The file that tells the IOREQ server of a guest's process. It is there before the process, and until the server is
/// another process's or known to be gone: if both the process and the supervisor are killed, the guest's vCPUs wait for
/// that server, and Xen doesn't tell which it is.
pub(super) struct ServerFile(PathBuf);

impl ServerFile {
    pub(super) fn new(dir: &Path, key: GuestKey) -> Self {
        Self(dir.join(format!("{key}{EXTENSION}")))
    }

    /// The key in the name of such a file, or all of another name.
    pub(super) fn key_of(name: &str) -> &str {
        name.strip_suffix(EXTENSION).unwrap_or(name)
    }

    /// The server; `None` if there is no such file, or nothing to be understood in it.
    pub(super) fn read(&self) -> Option<ServerId> {
        fs::read_to_string(&self.0).ok()?.trim().parse().ok()
    }

    /// At no time is there a part of it.
    pub(super) fn write(&self, server: ServerId) -> io::Result<()> {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{server}\n"))?;
        fs::rename(&new, &self.0)
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Sharing;

    #[test]
    fn a_server_is_read_as_it_was_written_last_and_no_longer_when_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let key = GuestKey { domid: 7, sharing: Sharing::Grant };
        let file = ServerFile::new(dir.path(), key);
        assert_eq!(file.read(), None);
        file.remove().expect("nothing there is no error");
        for server in [0, 7] {
            file.write(server).unwrap();
            assert_eq!(file.read(), Some(server));
        }
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["7-grant.server"]);
        assert_eq!(ServerFile::key_of("7-grant.server"), "7-grant");
        fs::write(dir.path().join("7-grant.server"), "").unwrap();
        assert_eq!(file.read(), None, "a file that was cut says nothing");
        file.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
