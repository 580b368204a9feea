//! The graph of one crate's modules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;

use crate::scan::{Scan, scan};

/// A module by its path below the crate, whose own is empty.
type Module = Vec<String>;

#[derive(Debug, Default)]
pub(crate) struct Graph {
    modules: BTreeMap<Module, Scan>,
    arrows: BTreeMap<Module, BTreeSet<Module>>,
}

/// Re-exports of re-exports that are followed.
const REEXPORTS: usize = 16;

impl Graph {
    /// Of the crate whose root is this file.
    pub(crate) fn of(root: &Path) -> Self {
        let mut graph = Self::default();
        let directory = root.parent().expect("a source file is in a directory");
        graph.add(Module::new(), &parse(root), directory);
        let modules: Vec<_> = graph.modules.keys().cloned().collect();
        for module in modules {
            let arrows = graph.arrows_of(&module);
            graph.arrows.insert(module, arrows);
        }
        graph
    }

    /// Adds a module whose children's files are in `directory`.
    fn add(&mut self, module: Module, code: &TokenStream, directory: &Path) {
        let mut scanned = scan(code.clone());
        for (name, body) in &mut scanned.children {
            let child = [module.as_slice(), std::slice::from_ref(name)].concat();
            let inside = directory.join(&*name);
            let code = body.take().unwrap_or_else(|| parse(&file(directory, name)));
            self.add(child, &code, &inside);
        }
        self.modules.insert(module, scanned);
    }

    fn arrows_of(&self, module: &Module) -> BTreeSet<Module> {
        let scan = &self.modules[module];
        let used = |name: &String| name == "_" || name == "*" || scan.names.contains(name);
        let imports = scan.imports.iter();
        let imports = imports.filter(|import| !import.is_reexport || used(&import.name));
        let paths = imports.map(|import| &import.path).chain(&scan.paths);
        let mut arrows: BTreeSet<_> =
            paths.filter_map(|path| self.resolve(module, path, REEXPORTS)).collect();
        arrows.remove(module);
        arrows
    }

    /// The module of ours that what is named `path` in `module` is defined in.
    fn resolve(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let depth = depth.checked_sub(1)?;
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Module::new(),
            "self" => module.clone(),
            "super" => parent(module)?,
            name => {
                rest = path;
                let known =
                    self.child(module, name).is_some() || self.import(module, name).is_some();
                known.then(|| module.clone())?
            }
        };
        while let Some((name, beyond)) = rest.split_first() {
            if name == "super" {
                at = parent(&at)?;
            } else if let Some(child) = self.child(&at, name) {
                at = child;
            } else if let Some(import) = self.import(&at, name) {
                // A name may hide what it is imported from: `use vm_memory; … vm_memory::Bytes`.
                let path = [import, beyond].concat();
                return (path != rest || at != *module)
                    .then(|| self.resolve(&at, &path, depth))
                    .flatten();
            } else {
                break;
            }
            rest = beyond;
        }
        Some(at)
    }

    fn child(&self, module: &Module, name: &str) -> Option<Module> {
        let child = [module.as_slice(), &[name.to_owned()]].concat();
        self.modules.contains_key(&child).then_some(child)
    }

    fn import(&self, module: &Module, name: &str) -> Option<&[String]> {
        let mut imports = self.modules.get(module)?.imports.iter();
        imports.find(|import| import.name == name).map(|import| import.path.as_slice())
    }

    /// A shortest circle through each group of modules that all reach each other, from the first
    /// of them by name back to it, and which modules are in the group besides.
    pub(crate) fn circles(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut circles = Vec::new();
        for module in self.modules.keys() {
            if seen.contains(module) {
                continue;
            }
            if let Some(circle) = self.circle(module) {
                let mut group = self.reached(module);
                group.retain(|other| self.reached(other).contains(module));
                let besides: Vec<_> =
                    group.iter().filter(|other| !circle.contains(other)).map(name).collect();
                let mut text = circle.iter().map(name).collect::<Vec<_>>().join(" → ");
                if !besides.is_empty() {
                    text.push_str(&format!(", with {}", besides.join(", ")));
                }
                circles.push(text);
                seen.extend(group);
            }
        }
        circles
    }

    fn reached(&self, from: &Module) -> BTreeSet<Module> {
        let mut reached = BTreeSet::new();
        let mut ahead = vec![from.clone()];
        while let Some(module) = ahead.pop() {
            for next in &self.arrows[&module] {
                if reached.insert(next.clone()) {
                    ahead.push(next.clone());
                }
            }
        }
        reached
    }

    fn circle(&self, start: &Module) -> Option<Vec<Module>> {
        let mut came_from: BTreeMap<Module, Module> = BTreeMap::new();
        let mut ahead = VecDeque::from([start.clone()]);
        while let Some(module) = ahead.pop_front() {
            for next in &self.arrows[&module] {
                if next == start {
                    let mut circle = vec![start.clone(), module.clone()];
                    while let Some(before) = came_from.get(circle.last()?) {
                        circle.push(before.clone());
                    }
                    if circle.last() != Some(start) {
                        circle.push(start.clone());
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if !came_from.contains_key(next) {
                    came_from.insert(next.clone(), module.clone());
                    ahead.push_back(next.clone());
                }
            }
        }
        None
    }
}

fn parent(module: &Module) -> Option<Module> {
    module.split_last().map(|(_, parent)| parent.to_vec())
}

fn name(module: &Module) -> String {
    if module.is_empty() { "crate".into() } else { module.join("::") }
}

/// The file of a module that is declared without a body.
fn file(directory: &Path, name: &str) -> PathBuf {
    let alone = directory.join(format!("{name}.rs"));
    if alone.exists() { alone } else { directory.join(name).join("mod.rs") }
}

fn parse(path: &Path) -> TokenStream {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
