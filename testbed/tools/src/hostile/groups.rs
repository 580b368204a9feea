//! The groups of actions.

use crate::action::Table;
use crate::{
    blk, chains, config, features, indirect, placement, race, read_only, registers, state,
};

/// The group for a read-only disk, which the others don't suit.
pub(crate) const READ_ONLY: &str = "read-only";

/// The actions of all groups.
pub(crate) fn all() -> Table {
    let mut table = Table::default();
    table.group("registers", registers::actions);
    table.group("features", features::actions);
    table.group("config", config::actions);
    table.group("placement", placement::actions);
    table.group("chains", chains::actions);
    table.group("indirect", indirect::actions);
    table.group("blk", blk::actions);
    table.group("state", state::actions);
    table.group("race", race::actions);
    table.group(READ_ONLY, read_only::actions);
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn there_are_150_actions_each_with_a_name_of_its_own_and_a_clause() {
        let actions = super::all().actions;
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
