//! Which top-level module of a crate names which.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use super::source::{Names, Source};

/// What the crate's root is called, which has all modules.
pub(crate) const ROOT: &str = "the root";

/// A file of a module.
struct File {
    module: Names,
    /// From the folder of the sources on.
    path: PathBuf,
    source: Source,
}

/// Which module names which, and where, in one place of it.
#[derive(Default)]
pub(crate) struct Graph {
    edges: BTreeMap<String, BTreeMap<String, String>>,
}

impl Graph {
    /// Adds what the files of a root name.
    pub(crate) fn add_root(&mut self, root: &Path) {
        let folder = root.parent().expect("a file is in a folder");
        let mut files = Vec::new();
        read(root, &Names::new(), folder, &mut files);
        let tops = files.iter().filter(|file| file.module.len() == 1);
        let tops = tops.map(|file| file.module[0].clone()).collect::<BTreeSet<_>>();
        let macros = files
            .iter()
            .flat_map(|file| file.source.macros.iter().map(|name| (name, top(&file.module))));
        let macros = macros.collect::<BTreeMap<_, _>>();
        let shown = files[0].source.known_as.iter().map(|(name, of)| (name, of));
        let shown = shown.collect::<BTreeMap<_, _>>();
        for name in &tops {
            self.add(ROOT, name, format!("{}: mod {name}", root.display()));
        }
        for file in files.iter().filter(|file| !file.module.is_empty()) {
            for names in file.source.named.iter().filter(|names| !names.is_empty()) {
                let first = &names[0];
                let other = if tops.contains(first) {
                    first
                } else if let Some(of) = shown.get(first) {
                    // Of another crate's nothing is known.
                    let Some(of) = of.first().filter(|of| tops.contains(*of)) else { continue };
                    of
                } else {
                    macros.get(first).copied().unwrap_or(ROOT)
                };
                let place = format!("{}: crate::{}", file.path.display(), names.join("::"));
                self.add(top(&file.module), other, place);
            }
        }
    }

    fn add(&mut self, from: &str, to: &str, place: String) {
        if from != to {
            let named = self.edges.entry(from.to_owned()).or_default();
            named.entry(to.to_owned()).or_insert(place);
        }
    }

    /// Which module names which other.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (&str, &str)> {
        let edges = self.edges.iter().filter(|(from, _)| *from != ROOT);
        edges.flat_map(|(from, to)| to.keys().map(|to| (from.as_str(), to.as_str())))
    }

    /// How many modules there are.
    pub(crate) fn modules(&self) -> usize {
        self.edges.get(ROOT).map_or(0, BTreeMap::len)
    }

    /// The shortest circle, but for those by what is allowed.
    pub(crate) fn circle(&self, allowed: &BTreeSet<(&str, &str)>) -> Option<String> {
        let circles = self.edges.keys().filter_map(|start| self.circle_of(start, allowed));
        circles.min_by_key(Vec::len).map(|circle| circle.join(", "))
    }

    /// The shortest circle that a module is in, by its edges.
    fn circle_of(&self, start: &str, allowed: &BTreeSet<(&str, &str)>) -> Option<Vec<String>> {
        let mut ways = BTreeMap::from([(start, Vec::new())]);
        let mut next = VecDeque::from([start]);
        while let Some(from) = next.pop_front() {
            let way = ways[from].clone();
            for (to, place) in self.edges.get(from).into_iter().flatten() {
                if allowed.contains(&(from, to)) || to != start && ways.contains_key(to.as_str()) {
                    continue;
                }
                let mut way = way.clone();
                way.push(format!("{from} -> {to} ({place})"));
                if to == start {
                    return Some(way);
                }
                ways.insert(to, way);
                next.push_back(to);
            }
        }
        None
    }
}

/// The top-level module that a module is of.
fn top(module: &[String]) -> &str {
    module.first().map_or(ROOT, String::as_str)
}

/// Reads the file of a module, and those of the modules in it.
fn read(path: &Path, module: &Names, folder: &Path, files: &mut Vec<File>) {
    let text = fs::read_to_string(path);
    let text = text.unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
    let source = Source::read(&text, module);
    let beside = path.parent().expect("a file is in a folder");
    let has_folder = module.is_empty() || path.file_stem().is_some_and(|stem| stem == "mod");
    let inside = if has_folder { beside.to_owned() } else { path.with_extension("") };
    let children = source.modules.clone();
    let place = path.strip_prefix(folder).unwrap_or(path).to_owned();
    files.push(File { module: module.clone(), path: place, source });
    for (child, said) in children {
        if said.is_empty() {
            let place = child[module.len()..].iter().fold(inside.clone(), |at, name| at.join(name));
            let flat = place.with_extension("rs");
            let file = if flat.exists() { flat } else { place.join("mod.rs") };
            read(&file, &child, folder, files);
        }
        for file in said {
            read(&beside.join(file), &child, folder, files);
        }
    }
}
