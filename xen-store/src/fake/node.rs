//! The tree, and what a domain may do in it.

use std::collections::BTreeMap;

use super::path::{is_within, parent, prefix};
use crate::{Access, DomId, Perm};

/// The domain that may do everything.
pub(super) const PRIVILEGED: DomId = 0;

/// An error by name.
pub(super) type Errno = &'static str;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Read,
    Write,
    Own,
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Vec<u8>,
    pub(super) perms: Vec<Perm>,
    /// When it was last changed, its list of children included.
    generation: u64,
}

/// A change, as it is replayed at a commit.
#[derive(Clone)]
pub(super) enum Change {
    Write(Vec<u8>),
    Mkdir,
    Rm,
    SetPerms(Vec<Perm>),
}

/// What a change tells the watches.
pub(super) struct Fired {
    pub(super) path: String,
    /// Only watches of exactly this path are meant: it went with a node above.
    pub(super) exact: bool,
}

#[derive(Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
    clock: u64,
}

fn allows(who: DomId, perms: &[Perm], need: Need) -> bool {
    let owner = perms[0];
    if who == PRIVILEGED || who == owner.domid {
        return true;
    }
    let listed = perms[1..].iter().find(|perm| perm.domid == who);
    let access = listed.unwrap_or(&owner).access;
    match need {
        Need::Read => access.can_read(),
        Need::Write => access.can_write(),
        Need::Own => false,
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        let perms = vec![Perm::new(PRIVILEGED, Access::Read)];
        let root = Node { value: Vec::new(), perms, generation: 1 };
        Self { nodes: BTreeMap::from([("/".to_owned(), root)]), clock: 1 }
    }

    /// When a node was last changed; 0 if it does not exist.
    pub(super) fn generation(&self, path: &str) -> u64 {
        self.nodes.get(path).map_or(0, |node| node.generation)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// The node, or the nearest one above that exists.
    pub(super) fn nearest<'a>(&self, mut path: &'a str) -> &'a str {
        while !self.exists(path) {
            path = parent(path).expect("the root exists");
        }
        path
    }

    pub(super) fn may(&self, who: DomId, path: &str, need: Need) -> bool {
        allows(who, &self.nodes[self.nearest(path)].perms, need)
    }

    /// A missing node is ENOENT only for those who could do the same above it.
    pub(super) fn get(&self, who: DomId, path: &str, need: Need) -> Result<&Node, Errno> {
        if !self.may(who, path, need) {
            return Err("EACCES");
        }
        self.nodes.get(path).ok_or("ENOENT")
    }

    pub(super) fn children(&self, path: &str) -> Vec<String> {
        let prefix = prefix(path);
        let below = self.nodes.range(prefix.clone()..).map(|(path, _)| path);
        let below = below.take_while(|path| path.starts_with(&prefix));
        let names = below.map(|path| &path[prefix.len()..]);
        names.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect()
    }

    /// Makes a change, and says what the watches are to be told.
    pub(super) fn change(
        &mut self,
        who: DomId,
        path: &str,
        change: Change,
    ) -> Result<Vec<Fired>, Errno> {
        match change {
            Change::Write(value) => {
                self.create(who, path)?;
                self.touch(path).value = value;
            }
            Change::Mkdir => {
                if !self.create(who, path)? {
                    return Ok(Vec::new());
                }
            }
            Change::Rm => return self.remove(who, path),
            Change::SetPerms(perms) => self.set_perms(who, path, perms)?,
        }
        Ok(vec![Fired { path: path.to_owned(), exact: false }])
    }

    /// The nodes that a change or a look at `path` depends on.
    pub(super) fn concerned(&self, path: &str) -> Vec<String> {
        let mut concerned = vec![path.to_owned()];
        let mut at = path;
        while !self.exists(at) {
            let Some(up) = parent(at) else { break };
            concerned.push(up.to_owned());
            at = up;
        }
        concerned
    }

    fn touch(&mut self, path: &str) -> &mut Node {
        self.clock += 1;
        let node = self.nodes.get_mut(path).expect("a node that exists");
        node.generation = self.clock;
        node
    }

    /// Makes sure that a node exists; true if it did not.
    fn create(&mut self, who: DomId, path: &str) -> Result<bool, Errno> {
        match self.get(who, path, Need::Write) {
            Ok(_) => return Ok(false),
            Err("ENOENT") => {}
            Err(errno) => return Err(errno),
        }
        let up = parent(path).expect("the root exists");
        if !self.exists(up) {
            self.create(who, up)?;
        }
        let mut perms = self.touch(up).perms.clone();
        if who != PRIVILEGED {
            perms[0].domid = who;
        }
        self.nodes.insert(path.to_owned(), Node { value: Vec::new(), perms, generation: 0 });
        self.touch(path);
        Ok(true)
    }

    fn remove(&mut self, who: DomId, path: &str) -> Result<Vec<Fired>, Errno> {
        match self.get(who, path, Need::Write) {
            Ok(_) => {}
            Err("ENOENT") if parent(path).is_some_and(|up| self.exists(up)) => {
                return Ok(Vec::new());
            }
            Err(errno) => return Err(errno),
        }
        let up = parent(path).ok_or("EINVAL")?.to_owned();
        let gone: Vec<String> =
            self.nodes.keys().filter(|node| is_within(node, path)).cloned().collect();
        for node in &gone {
            self.nodes.remove(node);
        }
        self.touch(&up);
        Ok(gone.into_iter().map(|node| Fired { exact: node != path, path: node }).collect())
    }

    fn set_perms(&mut self, who: DomId, path: &str, perms: Vec<Perm>) -> Result<(), Errno> {
        let first = perms.first().ok_or("EINVAL")?;
        let node = self.get(who, path, Need::Own)?;
        if who != PRIVILEGED && first.domid != node.perms[0].domid {
            return Err("EPERM");
        }
        self.touch(path).perms = perms;
        Ok(())
    }
}
