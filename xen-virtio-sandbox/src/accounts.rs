use std::fs;
use std::io;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

/// A user ID and a group ID, neither of them 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ids {
    uid: u32,
    gid: u32,
}

impl Ids {
    /// `(uid_t)-1`, which the kernel doesn't accept as an ID.
    const RESERVED: u32 = u32::MAX;

    /// # Errors
    /// [`AccountError::Root`] for 0, [`AccountError::OutOfRange`] for 2³² - 1, which isn't a valid
    /// ID.
    pub fn new(uid: u32, gid: u32) -> Result<Self, AccountError> {
        for id in [uid, gid] {
            match id {
                0 => return Err(AccountError::Root),
                Self::RESERVED => return Err(AccountError::OutOfRange),
                _ => {}
            }
        }
        Ok(Self { uid, gid })
    }

    /// The user ID.
    #[must_use]
    pub fn uid(self) -> u32 {
        self.uid
    }

    /// The group ID.
    #[must_use]
    pub fn gid(self) -> u32 {
        self.gid
    }

    /// Processes with this user ID as real, effective, saved or file-system ID. Domids, and so user
    /// IDs, are reused: a leftover process of an earlier guest could trace the process of a new one.
    ///
    /// # Errors
    /// If `/proc` can't be read.
    pub fn processes(self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // The process may have exited in the meantime.
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
            if ids.split_whitespace().any(|id| id.parse() == Ok(self.uid)) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

/// A range of user and group IDs for guest processes, one for each domid, so that they can't trace or
/// signal each other. The range starts at the IDs of a base user, like Xen's `xen-qemuuser-range-base`
/// for device models (docs/features/qemu-deprivilege.pandoc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    base: Ids,
}

/// No IDs for a guest process are available.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The base user doesn't exist.
    #[error(
        "user {name}, the base of the ID range for guest processes, doesn't exist: create it, for \
         example by systemd-sysusers, with the next {} IDs unused",
        IdRange::LEN
    )]
    NoUser {
        /// Its name.
        name: String,
    },
    /// The user ID is in use.
    #[error("user ID {uid} for domain {domid} belongs to user {name}: move the ID range")]
    User {
        /// The ID.
        uid: u32,
        /// The domain it was for.
        domid: u16,
        /// The owner.
        name: String,
    },
    /// The group ID is in use.
    #[error("group ID {gid} for domain {domid} belongs to group {name}: move the ID range")]
    Group {
        /// The ID.
        gid: u32,
        /// The domain it was for.
        domid: u16,
        /// The owner.
        name: String,
    },
    /// Domain 0, or one of Xen's reserved domids.
    #[error("domain {0} isn't a guest")]
    NotAGuest(u16),
    /// A user or group ID of 0.
    #[error("a guest process can't have user or group ID 0")]
    Root,
    /// An ID beyond 2³² - 2.
    #[error("the user or group ID is larger than 4294967294: move the ID range")]
    OutOfRange,
    /// Looking up a user or group failed.
    #[error("looking up {what} in the user database failed")]
    Lookup {
        /// The user or group.
        what: String,
        /// The C library's error.
        source: io::Error,
    },
}

impl IdRange {
    /// The default name of the base user.
    pub const USER: &str = "xen-virtio-guest";
    /// Number of IDs in the range: `DOMID_FIRST_RESERVED` of Xen's public/xen.h.
    pub const LEN: u16 = 0x7ff0;

    /// A range that starts at `base`.
    #[must_use]
    pub fn new(base: Ids) -> Self {
        Self { base }
    }

    /// A range that starts at the IDs of user `name` and its primary group.
    ///
    /// # Errors
    /// [`AccountError::NoUser`], [`AccountError::Root`], [`AccountError::Lookup`].
    pub fn of_user(name: &str) -> Result<Self, AccountError> {
        let user = found(User::from_name(name));
        let user = user.map_err(|errno| lookup(format!("user {name}"), errno))?;
        let user = user.ok_or_else(|| AccountError::NoUser { name: name.to_owned() })?;
        Ids::new(user.uid.as_raw(), user.gid.as_raw()).map(Self::new)
    }

    /// The IDs of the process that serves `domid`.
    ///
    /// # Errors
    /// The domid isn't a guest's, or one of the IDs belongs to an existing user or group.
    pub fn for_domain(self, domid: u16) -> Result<Ids, AccountError> {
        if domid == 0 || domid >= Self::LEN {
            return Err(AccountError::NotAGuest(domid));
        }
        let add = |id: u32| id.checked_add(domid.into()).ok_or(AccountError::OutOfRange);
        let ids = Ids::new(add(self.base.uid)?, add(self.base.gid)?)?;
        let Ids { uid, gid } = ids;
        let user = found(User::from_uid(Uid::from_raw(uid)));
        if let Some(user) = user.map_err(|errno| lookup(format!("user ID {uid}"), errno))? {
            return Err(AccountError::User { uid, domid, name: user.name });
        }
        let group = found(Group::from_gid(Gid::from_raw(gid)));
        if let Some(group) = group.map_err(|errno| lookup(format!("group ID {gid}"), errno))? {
            return Err(AccountError::Group { gid, domid, name: group.name });
        }
        Ok(ids)
    }
}

/// That there is no such entry is no error, though some C libraries say it by one (getpwnam(3)), as musl where there
/// is no /etc/group.
fn found<T>(result: Result<Option<T>, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        result => result,
    }
}

fn lookup(what: String, errno: Errno) -> AccountError {
    AccountError::Lookup { what, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(base: u32) -> IdRange {
        IdRange::new(Ids::new(base, base).unwrap())
    }

    #[test]
    fn each_domain_has_ids_of_its_own_above_the_base() {
        let range = IdRange::new(Ids::new(1_000_000, 2_000_000).unwrap());
        let (one, two) = (range.for_domain(1).unwrap(), range.for_domain(0x7fef).unwrap());
        assert_eq!((one.uid(), one.gid()), (1_000_001, 2_000_001));
        assert_eq!((two.uid(), two.gid()), (1_032_751, 2_032_751));
    }

    #[test]
    fn a_domain_that_is_no_guest_has_no_ids() {
        for domid in [0, IdRange::LEN, 0x7ff4, u16::MAX] {
            let error = range(1_000_000).for_domain(domid).unwrap_err();
            assert!(matches!(error, AccountError::NotAGuest(d) if d == domid), "{error}");
        }
    }

    #[test]
    fn an_id_that_a_user_or_a_group_has_is_refused() {
        let nobody = User::from_name("nobody").unwrap().expect("a user nobody");
        let error = range(nobody.uid.as_raw() - 1).for_domain(1).unwrap_err();
        assert!(matches!(&error, AccountError::User { name, .. } if name == "nobody"), "{error}");
        let group = Group::from_name("daemon").unwrap().expect("a group daemon");
        let free = Ids::new(1_000_000, group.gid.as_raw()).unwrap();
        let error = IdRange { base: Ids { gid: free.gid - 1, ..free } }.for_domain(1).unwrap_err();
        assert!(matches!(&error, AccountError::Group { name, .. } if name == "daemon"), "{error}");
    }

    #[test]
    fn an_entry_that_is_not_there_is_no_error_however_the_c_library_says_it() {
        for errno in [Errno::ENOENT, Errno::ESRCH] {
            assert_eq!(found::<()>(Err(errno)), Ok(None));
        }
        assert_eq!(found::<()>(Err(Errno::EIO)), Err(Errno::EIO));
        assert_eq!(found(Ok(Some(1))), Ok(Some(1)));
    }

    #[test]
    fn the_range_starts_at_the_ids_of_a_user_other_than_root() {
        let daemon = User::from_name("daemon").unwrap().expect("a user daemon");
        let base = Ids::new(daemon.uid.as_raw(), daemon.gid.as_raw()).unwrap();
        assert_eq!(IdRange::of_user("daemon").unwrap(), IdRange { base });
        assert!(matches!(IdRange::of_user("root"), Err(AccountError::Root)));
        let error = IdRange::of_user("no-such-user-7").unwrap_err();
        assert!(error.to_string().contains("user no-such-user-7"), "{error}");
        assert!(error.to_string().contains("next 32752 IDs"), "{error}");
    }

    #[test]
    fn ids_never_wrap() {
        assert!(matches!(range(u32::MAX - 1).for_domain(1), Err(AccountError::OutOfRange)));
        assert!(matches!(range(u32::MAX - 1).for_domain(2), Err(AccountError::OutOfRange)));
        assert!(matches!(Ids::new(1, 0), Err(AccountError::Root)));
    }
}
