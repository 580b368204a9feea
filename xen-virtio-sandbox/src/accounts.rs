use std::fs;
use std::io;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

/// A user and a group, neither of them root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ids {
    uid: u32,
    gid: u32,
}

impl Ids {
    /// The kernel's "no ID", and the highest that it isn't.
    const RESERVED: u32 = u32::MAX;

    /// # Errors
    /// [`AccountError::Root`] for an ID of 0, [`AccountError::OutOfRange`] for one of 2³² - 1,
    /// which the kernel takes for none.
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

    /// The user.
    #[must_use]
    pub fn uid(self) -> u32 {
        self.uid
    }

    /// The group.
    #[must_use]
    pub fn gid(self) -> u32 {
        self.gid
    }

    /// The processes that run as this user, by any of its four IDs. Domids are used again, and with
    /// them these IDs: one that is left of another guest could trace the next one's process.
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
            // It may have ended.
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
            if ids.split_whitespace().any(|id| id.parse() == Ok(self.uid)) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

/// User and group IDs set aside for guests' processes, one of each for every domid, so that no two
/// of them may trace or signal each other. As Xen has it for its device models
/// (`xen-qemuuser-range-base`, docs/features/qemu-deprivilege.pandoc), a user's IDs are the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    base: Ids,
}

/// Why there is no identity for a guest's process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// There is no user of that name.
    #[error(
        "there is no user {name}, whose ID is the first of those for guests' processes: make it, \
         for example by systemd-sysusers, with {} IDs after it unused",
        IdRange::LEN
    )]
    NoUser {
        /// Its name.
        name: String,
    },
    /// The ID belongs to a user.
    #[error("the user ID {uid}, meant for domain {domid}, is the user {name}'s: move the range")]
    User {
        /// The ID.
        uid: u32,
        /// Whose process was to have it.
        domid: u16,
        /// Who has it.
        name: String,
    },
    /// The ID belongs to a group.
    #[error("the group ID {gid}, meant for domain {domid}, is the group {name}'s: move the range")]
    Group {
        /// The ID.
        gid: u32,
        /// Whose process was to have it.
        domid: u16,
        /// Who has it.
        name: String,
    },
    /// Domain 0 and Xen's reserved IDs aren't guests.
    #[error("domain {0} isn't a guest")]
    NotAGuest(u16),
    /// Root's IDs aren't less than root's.
    #[error("ID 0 is root's")]
    Root,
    /// An ID beyond 2³² - 2.
    #[error("an ID beyond 4294967294")]
    OutOfRange,
    /// The user database can't be read.
    #[error("{what} can't be looked up in the user database")]
    Lookup {
        /// A user or group.
        what: String,
        /// What the C library said.
        source: io::Error,
    },
}

impl IdRange {
    /// The user whose IDs are the first of the range, unless another is configured.
    pub const USER: &str = "xen-virtio-guest";
    /// How many IDs the range has: `DOMID_FIRST_RESERVED`, Xen's public/xen.h.
    pub const LEN: u16 = 0x7ff0;

    /// The range that begins at `base`.
    #[must_use]
    pub fn new(base: Ids) -> Self {
        Self { base }
    }

    /// The range that begins at the IDs of the user `name` and of its primary group.
    ///
    /// # Errors
    /// [`AccountError::NoUser`], [`AccountError::Root`], [`AccountError::Lookup`].
    pub fn of_user(name: &str) -> Result<Self, AccountError> {
        let user = User::from_name(name).map_err(|errno| lookup(format!("user {name}"), errno))?;
        let user = user.ok_or_else(|| AccountError::NoUser { name: name.to_owned() })?;
        Ids::new(user.uid.as_raw(), user.gid.as_raw()).map(Self::new)
    }

    /// The identity of the process that serves `domid`.
    ///
    /// # Errors
    /// If that isn't a guest, or one of the IDs is a real user's or group's, who could then trace
    /// the process, and whose files it could open.
    pub fn for_domain(self, domid: u16) -> Result<Ids, AccountError> {
        if domid == 0 || domid >= Self::LEN {
            return Err(AccountError::NotAGuest(domid));
        }
        let add = |id: u32| id.checked_add(domid.into()).ok_or(AccountError::OutOfRange);
        let ids = Ids::new(add(self.base.uid)?, add(self.base.gid)?)?;
        let Ids { uid, gid } = ids;
        let user = User::from_uid(Uid::from_raw(uid));
        if let Some(user) = user.map_err(|errno| lookup(format!("user ID {uid}"), errno))? {
            return Err(AccountError::User { uid, domid, name: user.name });
        }
        let group = Group::from_gid(Gid::from_raw(gid));
        if let Some(group) = group.map_err(|errno| lookup(format!("group ID {gid}"), errno))? {
            return Err(AccountError::Group { gid, domid, name: group.name });
        }
        Ok(ids)
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
        // Everybody has a user and a group `daemon` with ID 1; a guest's would be base + domid.
        let nobody = User::from_name("nobody").unwrap().expect("a user nobody");
        let error = range(nobody.uid.as_raw() - 1).for_domain(1).unwrap_err();
        assert!(matches!(&error, AccountError::User { name, .. } if name == "nobody"), "{error}");
        let group = Group::from_name("daemon").unwrap().expect("a group daemon");
        let free = Ids::new(1_000_000, group.gid.as_raw()).unwrap();
        let error = IdRange { base: Ids { gid: free.gid - 1, ..free } }.for_domain(1).unwrap_err();
        assert!(matches!(&error, AccountError::Group { name, .. } if name == "daemon"), "{error}");
    }

    #[test]
    fn the_range_begins_at_a_users_ids_and_never_at_roots() {
        let daemon = User::from_name("daemon").unwrap().expect("a user daemon");
        let base = Ids::new(daemon.uid.as_raw(), daemon.gid.as_raw()).unwrap();
        assert_eq!(IdRange::of_user("daemon").unwrap(), IdRange { base });
        assert!(matches!(IdRange::of_user("root"), Err(AccountError::Root)));
        let error = IdRange::of_user("no-such-user-7").unwrap_err();
        assert!(error.to_string().contains("no user no-such-user-7"), "{error}");
        assert!(error.to_string().contains("32752 IDs"), "{error}");
    }

    #[test]
    fn ids_never_wrap() {
        assert!(matches!(range(u32::MAX - 1).for_domain(1), Err(AccountError::OutOfRange)));
        assert!(matches!(range(u32::MAX - 1).for_domain(2), Err(AccountError::OutOfRange)));
        assert!(matches!(Ids::new(1, 0), Err(AccountError::Root)));
    }
}
