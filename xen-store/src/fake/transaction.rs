//! A transaction: a copy of the tree, what it looked at, and what it did.

use std::collections::BTreeMap;

use super::node::{Change, Errno, Fired, Tree};
use super::path::parent;
use crate::DomId;

pub(super) struct Transaction {
    pub(super) tree: Tree,
    start: Tree,
    /// The nodes used, and their generations at the start.
    used: BTreeMap<String, u64>,
    changes: Vec<(String, Change)>,
}

impl Transaction {
    pub(super) fn new(tree: &Tree) -> Self {
        Self { tree: tree.clone(), start: tree.clone(), used: BTreeMap::new(), changes: Vec::new() }
    }

    /// Notes that a node is looked at or changed.
    pub(super) fn note(&mut self, path: &str) {
        for node in self.tree.concerned(path) {
            let generation = self.start.generation(&node);
            self.used.entry(node).or_insert(generation);
        }
    }

    /// Makes a change that the commit will repeat.
    pub(super) fn change(&mut self, who: DomId, path: &str, change: Change) -> Result<(), Errno> {
        self.note(path);
        if let (Change::Rm, Some(up)) = (&change, parent(path)) {
            self.note(up);
        }
        self.tree.change(who, path, change.clone())?;
        self.changes.push((path.to_owned(), change));
        Ok(())
    }

    /// Repeats the changes on the tree, unless someone changed a node that was used.
    pub(super) fn commit(self, who: DomId, tree: &mut Tree) -> Result<Vec<Fired>, Errno> {
        if self.used.iter().any(|(node, generation)| tree.generation(node) != *generation) {
            return Err("EAGAIN");
        }
        let mut fired = Vec::new();
        for (path, change) in self.changes {
            fired.extend(tree.change(who, &path, change)?);
        }
        Ok(fired)
    }
}
