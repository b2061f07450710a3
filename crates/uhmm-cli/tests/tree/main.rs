//! The modules of a crate form no circle: the tree shows what is below and what above.
//!
//! The sources of all crates are read, and of each it is seen which top-level module names which other, in
//! code that is no test. A method is called without naming its module, so what is seen is less than all.

mod graph;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use graph::{Graph, ROOT};

/// Modules that may name others although that closes a circle: of which crate, which one, which other.
const ALLOWED: &[(&str, &str, &str)] = &[];

/// The folders of the workspace's crates, and their names.
fn crates() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut crates = fs::read_dir(folder)
        .expect("there are crates")
        .map(|entry| entry.expect("it can be read"))
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|entry| (entry.file_name().into_string().expect("a crate has a name"), entry.path()))
        .collect::<Vec<_>>();
    crates.sort();
    crates
}

/// What the files of a crate name, from each of its roots on.
fn graph_of(folder: &Path) -> Graph {
    let mut graph = Graph::default();
    for root in ["src/lib.rs", "src/main.rs"].map(|root| folder.join(root)) {
        if root.exists() {
            graph.add_root(&root);
        }
    }
    graph
}

/// What is wrong with the modules of a crate: a circle, or what is allowed and closes none.
fn wrong(graph: &Graph, allowed: &BTreeSet<(&str, &str)>) -> Vec<String> {
    let circle = graph.circle(allowed).map(|circle| format!("a circle: {circle}"));
    let unneeded = allowed.iter().filter(|entry| {
        let others = allowed.iter().copied().filter(|other| other != *entry).collect();
        graph.circle(&others).is_none()
    });
    let unneeded =
        unneeded.map(|(from, to)| format!("{from} -> {to} need not be allowed any more"));
    circle.into_iter().chain(unneeded).collect()
}

#[test]
fn modules_form_no_circle() {
    let mut all = Vec::new();
    let mut modules = 0;
    for (name, folder) in crates() {
        let allowed = ALLOWED.iter().filter(|(of, ..)| *of == name);
        let allowed = allowed.map(|&(_, from, to)| (from, to)).collect();
        let graph = graph_of(&folder);
        modules += graph.modules();
        all.extend(wrong(&graph, &allowed).into_iter().map(|wrong| format!("{name}: {wrong}")));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
    assert!(modules > 50, "only {modules} modules were found");
}

#[test]
fn every_allowed_module_is_of_a_crate() {
    let crates = crates().into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    let unknown = ALLOWED.iter().filter(|(of, ..)| !crates.contains(*of)).collect::<Vec<_>>();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_table_of_the_core_is_from_the_bottom_up() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../uhmm");
    let root = fs::read_to_string(core.join("src/lib.rs")).expect("the core has a root");
    let rows = root.lines().filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").next());
    let rows = rows.map(|row| row.split(", ").map(|name| name.trim_matches(['[', ']', '`'])));
    let places = rows.enumerate().flat_map(|(row, names)| names.map(move |name| (name, row)));
    let places = places.collect::<BTreeMap<_, _>>();
    let graph = graph_of(&core);
    // It is there for fuzzers alone, and no part of the core.
    for (from, to) in graph.edges().filter(|(from, _)| *from != "fuzzing") {
        let place = |name| places.get(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        assert!(place(to) <= place(from), "{from} names {to}, which stands behind it");
    }
    assert!(places.len() > 20, "only {} modules are in the table", places.len());
}

/// A crate with these files, in a folder of the test's own.
fn written(name: &str, files: &[(&str, &str)]) -> Graph {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tree").join(name);
    let _ = fs::remove_dir_all(&folder);
    for (file, text) in files {
        let path = folder.join("src").join(file);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }
    graph_of(&folder)
}

#[test]
fn a_circle_is_told_with_its_way() {
    let graph = written(
        "circle",
        &[
            ("lib.rs", "mod one;\nmod two;\nmod three;\npub use three::Three;"),
            ("one/mod.rs", "mod part;"),
            ("one/part.rs", "use crate::{\n    two::{self, Two},\n};"),
            ("two.rs", "fn two(_: &'static super::three::Three) {}"),
            ("three.rs", "pub struct Three;\nfn three() { crate::one::begin::<u8>() }"),
        ],
    );
    let circle = graph.circle(&BTreeSet::new()).expect("there is one");
    assert_eq!(
        circle,
        "one -> two (one/part.rs: crate::two), two -> three (two.rs: crate::three::Three), \
         three -> one (three.rs: crate::one::begin)"
    );
    // One of its steps may be allowed, and then no other, nor what is no step.
    assert_eq!(wrong(&graph, &BTreeSet::from([("two", "three")])), Vec::<String>::new());
    let too_many = wrong(&graph, &BTreeSet::from([("two", "three"), ("three", "one")]));
    assert_eq!(too_many.len(), 2, "{too_many:?}");
    let other = wrong(&graph, &BTreeSet::from([("three", "two")]));
    assert!(other.len() == 1 && other[0].starts_with("a circle"), "{other:?}");
}

#[test]
fn what_the_root_shows_is_of_the_module_that_has_it() {
    let shown = "mod one;\nmod two;\npub use one::{One, part::{self, Part as Piece}};";
    let one = ("one.rs", "use crate::two::Two;");
    for (what, is_circle) in [("One", true), ("part::f", true), ("Piece", true), ("Part", false)] {
        let two = format!("fn two(_: crate::{what}) {{}}");
        let graph = written("shown", &[("lib.rs", shown), one, ("two.rs", &two)]);
        let circle = graph.circle(&BTreeSet::new());
        assert_eq!(circle.is_some_and(|circle| !circle.contains(ROOT)), is_circle, "{what}");
    }
    // What is the root's own is above all.
    let graph =
        written("own", &[("lib.rs", "mod one;\nstruct Own;"), ("one.rs", "use super::Own;")]);
    let circle = graph.circle(&BTreeSet::new()).expect("the root names the module");
    assert!(circle.contains("one -> the root (one.rs: crate::Own)"), "{circle}");
}

#[test]
fn tests_comments_and_texts_name_nothing() {
    let nothing = r##"
        //! [`Two`](crate::two::Two)
        /* crate::two /* nested crate::two */ crate::two */
        const TEXTS: [&str; 3] = ["crate::two \" crate::two", r#"crate::two" crate::two"#, "\\"];
        const LETTERS: [char; 3] = ['"', '\'', '\\']; // crate::two "
        fn lifetimes<'a>(_: &'a str) -> &'a str { "'" }
        #[cfg(test)]
        use crate::{two::Two};
        #[cfg(all(test, not(miri)))]
        #[expect(unused)]
        mod tests { use crate::two::Two; mod more { use super::super::super::two; } }
        #[cfg(test)]
        mod elsewhere;
        #[cfg(not(any(not(test), miri)))]
        fn only_in_tests(_: [u8; 3]) { crate::two::two() }
        mod inner { use super::super::one; use super::two; }
    "##;
    let named = |text: &str| {
        let files = [
            ("lib.rs", "mod one;\nmod two;"),
            ("one.rs", text),
            ("one/elsewhere.rs", "use crate::two;"),
            ("two.rs", "use crate::one;"),
        ];
        written("nothing", &files).circle(&BTreeSet::new())
    };
    assert_eq!(named(nothing), None);
    for something in [
        "use crate::two::Two;",
        "use crate::{self as all, two};",
        "use super::{two as other};",
        "#[cfg(not(test))]\nuse crate::two;",
        "#[cfg(any(test, fuzzing))]\nuse crate::two;",
        "#[cfg(miri)]\nfn two(_: [u8; 3]) -> crate::two::Two {}",
        "macro_rules! m { () => { $crate::two::f() } }",
        "mod inner { use super::super::two; }",
        "#[path = \"one/elsewhere.rs\"]\nmod other;",
        "#[cfg_attr(unix, path = \"one/elsewhere.rs\")]\nmod other;",
    ] {
        assert!(named(&format!("{nothing}{something}")).is_some(), "{something}");
    }
}
