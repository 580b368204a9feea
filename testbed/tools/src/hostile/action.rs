//! What a hostile driver does, one thing at a time.

use crate::rig::Rig;
use anyhow::{Result, bail};

type Run = Box<dyn Fn(&mut Rig) -> Result<()>>;
/// The group for a read-only disk, which the others don't suit.
pub(crate) const READ_ONLY: &str = "read-only";
/// Adds a group's actions.
type Add = fn(&mut Table);

/// One thing a driver does that it must not, or that a device must bear; fails if the device
/// answers it otherwise than the clause lets it.
pub(crate) struct Action {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    /// Of virtio 1.2.
    pub(crate) clause: &'static str,
    run: Run,
}

impl Action {
    pub(crate) fn run(&self, rig: &mut Rig) -> Result<()> {
        (self.run)(rig)
    }
}

/// The actions of all groups.
#[derive(Default)]
pub(crate) struct Table {
    group: &'static str,
    pub(crate) actions: Vec<Action>,
}

impl Table {
    pub(crate) fn all() -> Self {
        let mut table = Self::default();
        let groups: [(&'static str, Add); 10] = [
            ("registers", crate::registers::actions),
            ("features", crate::features::actions),
            ("config", crate::config::actions),
            ("placement", crate::placement::actions),
            ("chains", crate::chains::actions),
            ("indirect", crate::indirect::actions),
            ("blk", crate::blk::actions),
            ("state", crate::state::actions),
            ("race", crate::race::actions),
            (READ_ONLY, crate::read_only::actions),
        ];
        for (group, add) in groups {
            table.group = group;
            add(&mut table);
        }
        table
    }

    pub(crate) fn add(
        &mut self,
        clause: &'static str,
        name: impl Into<String>,
        run: impl Fn(&mut Rig) -> Result<()> + 'static,
    ) {
        let (group, name) = (self.group, name.into());
        self.actions.push(Action { group, name, clause, run: Box::new(run) });
    }
}

/// An error that says what was wrong, unless it holds.
pub(crate) fn ensure(holds: bool, wrong: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { bail!(wrong()) }
}

/// An error unless two values are the same.
pub(crate) fn same<T: PartialEq + std::fmt::LowerHex>(what: &str, is: T, wanted: T) -> Result<()> {
    let holds = is == wanted;
    ensure(holds, || format!("{what} is {is:#x}, not {wanted:#x}"))
}

#[cfg(test)]
mod tests {
    use super::Table;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_150_actions_each_with_a_name_of_its_own_and_a_clause() {
        let actions = Table::all().actions;
        assert!(actions.len() >= 150, "{}", actions.len());
        let mut names = BTreeSet::new();
        for action in &actions {
            assert!(names.insert(&action.name), "{} stands twice", action.name);
            let number = action.clause.split('.').next().and_then(|part| part.parse::<u8>().ok());
            assert!(number.is_some(), "{}: {:?} is no clause", action.name, action.clause);
            assert!(!action.name.contains(char::is_whitespace), "{}", action.name);
        }
    }
}
