//! The pages for readers (README, CHANGELOG, docs) point to what is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every page, by its path from the root.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).expect("there are docs");
    let docs = docs.map(|entry| Path::new("docs").join(entry.expect("it can be read").file_name()));
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    ["README.md", "CHANGELOG.md"].into_iter().map(PathBuf::from).chain(docs).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(root().join(path)).expect("the page can be read")
}

/// The lines that are prose, not code or what a program printed.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        is_code ^= fence;
        !is_code && !fence
    })
}

/// What a heading is called in links.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading
        .chars()
        .filter(|&letter| letter.is_alphanumeric() || " -_".contains(letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

/// Where the links of a page lead.
fn links(text: &str) -> Vec<String> {
    let prose: String = prose(text).flat_map(|line| [line, "\n"]).collect();
    let ends = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    ends.map(|(link, _)| link.to_owned()).collect()
}

#[test]
fn no_link_is_dead() {
    let mut dead = Vec::new();
    let mut followed = 0;
    for page in pages() {
        for link in links(&text(&page)) {
            if link.starts_with("https://") {
                continue;
            }
            followed += 1;
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let folder = page.parent().expect("a page is in a folder");
            let target = if path.is_empty() { page.clone() } else { folder.join(path) };
            let is_there = root().join(&target).exists();
            if !is_there
                || !heading.is_empty()
                    && !prose(&text(&target))
                        .any(|line| line.starts_with('#') && anchor(line) == heading)
            {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
    assert!(followed > 20, "only {followed} links were found");
}

/// Folders whose files pages name from the root.
const FOLDERS: [&str; 4] = ["crates/", "docs/", "tests/", ".ci/"];

#[test]
fn files_that_are_named_are_there() {
    let mut missing = Vec::new();
    let mut found = 0;
    for page in pages() {
        let text = text(&page);
        let prose: String = prose(&text).flat_map(|line| [line, "\n"]).collect();
        // What stands between the first and the second, the third and the fourth, ... is marked.
        for marked in prose.split('`').skip(1).step_by(2) {
            let path = marked.split_whitespace().next().unwrap_or_default();
            if !FOLDERS.iter().any(|folder| path.starts_with(folder)) || path.contains('*') {
                continue;
            }
            if root().join(path).exists() {
                found += 1;
            } else {
                missing.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(found > 10, "only {found} files were found");
}
