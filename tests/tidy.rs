//! The house rules that a compiler does not hold: who imports whom, sizes, words, dead files, promise coverage.
//!
//! Reads what git tracks or would track. A finding names the file, the line and what to do instead.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 100;
const BLOB_BYTES_MAX: u64 = 256 * 1024;
const PROMISES: [&str; 8] = ["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8"];

/// Which crates of this workspace a crate may name, in its dependencies and those of its tests.
const MAY_IMPORT: [(&str, &[&str]); 16] = [
    ("units", &[]),
    ("proto", &[]),
    ("uring", &[]),
    ("volume", &["units"]),
    ("replication", &["units", "proto", "volume"]),
    ("certificates", &[]),
    ("replaced-files", &[]),
    ("link", &["units", "volume", "replication", "certificates"]),
    ("object-tier", &["units", "volume"]),
    ("metering", &["units"]),
    ("witness", &["units", "replication", "certificates", "replaced-files"]),
    (
        "blockd",
        &[
            "units",
            "proto",
            "uring",
            "volume",
            "replication",
            "certificates",
            "replaced-files",
            "link",
            "witness",
            "metering",
        ],
    ),
    ("nfs-gateway", &["units", "proto", "volume"]),
    ("control", &["units", "metering"]),
    ("sim", &["units", "proto", "volume", "replication", "object-tier", "metering"]),
    (
        "aljibe",
        &[
            "units",
            "proto",
            "uring",
            "volume",
            "replication",
            "certificates",
            "replaced-files",
            "link",
            "witness",
            "object-tier",
            "blockd",
            "nfs-gateway",
            "control",
            "metering",
        ],
    ),
];

/// Crates that own no file, socket, clock or thread, and what they may therefore not depend on.
const SANS_IO: [&str; 6] = ["units", "proto", "volume", "replication", "metering", "sim"];
const NOT_SANS_IO: [&str; 8] = ["tokio", "io-uring", "libc", "rocksdb", "hyper", "axum", "rand", "nix"];

/// Words with an agreed replacement, matched whole and without regard to case in Rust sources.
const REFUSED_WORDS: [(&str, &str); 9] = [
    ("savepoint", "checkpoint"),
    ("slave", "secondary"),
    ("replica", "secondary"),
    ("initialiser", "constructor"),
    ("simply", "nothing: leave it out"),
    ("handle_stuff", "the action's name"),
    ("catchup", "resync"),
    ("whitelist", "allow list"),
    ("blacklist", "ban list"),
];

/// Names that say nothing about what is inside.
const REFUSED_FILES: [&str; 7] = ["utils", "util", "common", "helper", "helpers", "manager", "misc"];

#[test]
fn crates_import_only_whom_the_table_allows() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    for manifest in tree.crate_manifests() {
        let name = manifest.package_name();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(krate, _)| *krate == name) else {
            findings.push(format!("{}: crate {name} is not in the import table", manifest.path.display()));
            continue;
        };
        for dependency in manifest.dependencies() {
            let is_ours = MAY_IMPORT.iter().any(|(krate, _)| *krate == dependency);
            if is_ours && !allowed.contains(&dependency.as_str()) {
                findings.push(format!("{}: {name} may not import {dependency}", manifest.path.display()));
            }
            if SANS_IO.contains(&name.as_str()) && NOT_SANS_IO.contains(&dependency.as_str()) {
                findings.push(format!("{}: {name} is sans-io: no {dependency}", manifest.path.display()));
            }
        }
    }
    report(&findings);
}

#[test]
fn every_sans_io_crate_has_the_ban_list() {
    let tree = Tree::load();
    let list = std::fs::canonicalize(tree.root.join("lints/sans-io/clippy.toml")).expect("the ban list is there");
    let findings: Vec<String> = SANS_IO
        .iter()
        .filter(|krate| tree.root.join(krate).join("Cargo.toml").exists())
        .filter(|krate| std::fs::canonicalize(tree.root.join(krate).join("clippy.toml")).ok().as_ref() != Some(&list))
        .map(|krate| format!("{krate}/clippy.toml: link it to ../lints/sans-io/clippy.toml"))
        .collect();
    report(&findings);
}

#[test]
fn unsafe_code_is_in_uring_only() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    for root in tree.target_roots() {
        let krate = crate_of(root);
        if krate != "uring" && !krate.starts_with("fuzz") && !tree.text(root).contains("#![forbid(unsafe_code)]") {
            findings.push(format!("{}: add #![forbid(unsafe_code)]", root.display()));
        }
    }
    for file in tree.rust_files().filter(|file| crate_of(file) != "uring") {
        for (number, line) in code_lines(tree.text(file)) {
            if ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|form| line.contains(form))
                && !line.contains('"')
            {
                findings.push(format!("{}:{number}: unsafe code belongs to uring", file.display()));
            }
        }
    }
    report(&findings);
}

#[test]
fn sources_are_ascii() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    for file in tree.source_files() {
        for (number, line) in numbered(tree.text(file)).filter(|(_, line)| !line.is_ascii()) {
            findings.push(format!("{}:{number}: not ASCII: {line}", file.display()));
        }
    }
    report(&findings);
}

#[test]
fn files_and_functions_are_short() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    for file in tree.source_files() {
        let text = without_test_module(tree.text(file));
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}: split it", file.display()));
        }
    }
    for file in tree.rust_files() {
        for (number, lines) in functions(tree.text(file)).into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX) {
            findings.push(format!("{}:{number}: a function of {lines} lines: split it", file.display()));
        }
    }
    report(&findings);
}

#[test]
fn refused_words_do_not_occur() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    for file in tree.rust_files().filter(|file| !is_this_file(file)) {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let folder = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        for name in [stem, folder].iter().filter(|name| REFUSED_FILES.contains(&name.as_str())) {
            findings.push(format!("{}: a file called {name} says nothing: name its noun", file.display()));
        }
        for (number, line) in numbered(tree.text(file)) {
            let lower = line.to_ascii_lowercase();
            for (word, instead) in REFUSED_WORDS.iter().filter(|(word, _)| has_word(&lower, word)) {
                findings.push(format!("{}:{number}: not \"{word}\" but {instead}", file.display()));
            }
            if has_word(line, "fn") && line.contains("fn get_") {
                findings.push(format!("{}:{number}: no get_ prefix", file.display()));
            }
        }
    }
    report(&findings);
}

#[test]
fn nothing_unfinished_is_left() {
    let marks = ["TO\u{44}O", "FIX\u{4d}E", "XX\u{58}", "db\u{67}!(", "#[al\u{6c}ow(", "#![al\u{6c}ow("];
    let homes = [["/ro", "ot/"].concat(), ["/ho", "me/"].concat(), ["/Us", "ers/"].concat()];
    let tree = Tree::load();
    let mut findings = Vec::new();
    for file in tree.text_files() {
        let is_source = tree.source_files().any(|source| source == file);
        for (number, line) in numbered(tree.text(file)) {
            for mark in marks.iter().filter(|mark| is_source && is_marked(line, mark)) {
                findings.push(format!("{}:{number}: {mark} is not merged", file.display()));
            }
            for home in homes.iter().filter(|home| line.contains(home.as_str())) {
                findings.push(format!("{}:{number}: {home} is one machine's path", file.display()));
            }
        }
    }
    report(&findings);
}

#[test]
fn no_blob_is_large() {
    let tree = Tree::load();
    let findings: Vec<String> = tree
        .files
        .iter()
        .filter_map(|file| Some((file, std::fs::metadata(tree.root.join(file)).ok()?.len())))
        .filter(|(_, bytes)| *bytes > BLOB_BYTES_MAX)
        .map(|(file, bytes)| format!("{}: {bytes} bytes, at most {BLOB_BYTES_MAX}", file.display()))
        .collect();
    report(&findings);
}

#[test]
fn every_source_file_belongs_to_a_target() {
    let tree = Tree::load();
    let mut reached: BTreeSet<PathBuf> = BTreeSet::new();
    let mut open: Vec<PathBuf> = tree.target_roots().cloned().collect();
    while let Some(file) = open.pop() {
        if reached.insert(file.clone()) {
            open.extend(
                modules_of(&file, tree.text(&file)).into_iter().filter(|module| tree.texts.contains_key(module)),
            );
        }
    }
    let findings: Vec<String> = tree
        .rust_files()
        .filter(|file| !reached.contains(*file))
        .map(|file| format!("{}: no `mod` leads here: name it or delete it", file.display()))
        .collect();
    report(&findings);
}

#[test]
fn every_promise_is_named_by_a_test() {
    let tree = Tree::load();
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for file in tree.rust_files() {
        named.extend(promises_tested(tree.text(file)));
    }
    let findings: Vec<String> = PROMISES
        .iter()
        .filter(|promise| !named.contains(*promise))
        .map(|promise| format!("no test's doc comment begins with `/// {promise}.`"))
        .collect();
    report(&findings);
}

/// What git tracks or would track, with the text of what is text.
struct Tree {
    root: PathBuf,
    files: Vec<PathBuf>,
    texts: BTreeMap<PathBuf, String>,
}

impl Tree {
    fn load() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let listing = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&root)
            .output()
            .expect("git lists the sources");
        assert!(listing.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listing.stderr));
        let files: Vec<PathBuf> = String::from_utf8_lossy(&listing.stdout)
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .filter(|file| root.join(file).is_file())
            .collect();
        let texts = files
            .iter()
            .filter_map(|file| Some((file.clone(), String::from_utf8(std::fs::read(root.join(file)).ok()?).ok()?)))
            .collect();
        Self { root, files, texts }
    }

    fn text(&self, file: &Path) -> &str {
        self.texts.get(file).map_or("", String::as_str)
    }

    fn text_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.texts.keys().filter(|file| file.file_name().is_some_and(|name| name != "Cargo.lock"))
    }

    fn source_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.text_files().filter(|file| {
            let extension = file.extension().unwrap_or_default().to_string_lossy().into_owned();
            ["rs", "py", "sh", "toml"].contains(&extension.as_str())
        })
    }

    fn rust_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.texts.keys().filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
    }

    /// Files that cargo starts from: libraries, programs, tests, benches, build scripts, fuzz targets.
    fn target_roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.rust_files().filter(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let folder = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
            let above = file.parent().and_then(Path::parent).and_then(Path::file_name).unwrap_or_default();
            let holds_targets =
                |folder: &str| ["tests", "benches", "examples", "bin", "fuzz_targets"].contains(&folder);
            match name.as_str() {
                "lib.rs" => folder == "src",
                "main.rs" => folder == "src" || holds_targets(&above.to_string_lossy()),
                "build.rs" => file.parent().is_some_and(|parent| self.root.join(parent).join("Cargo.toml").exists()),
                _ => holds_targets(&folder) && self.is_target_folder(file.parent().unwrap_or(file)),
            }
        })
    }

    /// Whether `folder` is where cargo looks for targets, and not a module that happens to be called `tests`.
    fn is_target_folder(&self, folder: &Path) -> bool {
        let above = folder.parent().unwrap_or(folder);
        let beside_manifest = self.root.join(above).join("Cargo.toml").exists();
        beside_manifest || (folder.ends_with("src/bin") && self.root.join(above).join("../Cargo.toml").exists())
    }

    fn crate_manifests(&self) -> impl Iterator<Item = Manifest<'_>> {
        self.texts
            .iter()
            .filter(|(file, text)| {
                file.ends_with("Cargo.toml") && text.contains("[package]") && !file.starts_with("fuzz")
            })
            .map(|(path, text)| Manifest { path, text })
    }
}

/// A crate's Cargo.toml, read line by line: we write ours with one dependency a line.
struct Manifest<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Manifest<'_> {
    fn package_name(&self) -> String {
        self.entries("package").find(|(key, _)| *key == "name").map(|(_, value)| unquoted(value)).unwrap_or_default()
    }

    fn dependencies(&self) -> Vec<String> {
        ["dependencies", "dev-dependencies", "build-dependencies"]
            .into_iter()
            .flat_map(|table| self.entries(table))
            .map(|(key, _)| key.trim_end_matches(".workspace").to_owned())
            .collect()
    }

    fn entries(&self, table: &str) -> impl Iterator<Item = (&str, &str)> {
        let head = format!("[{table}]");
        let body = self.text.lines().skip_while(move |line| line.trim() != head).skip(1);
        body.take_while(|line| !line.starts_with('[')).filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            Some((key.trim(), value.trim()))
        })
    }
}

fn unquoted(value: &str) -> String {
    value.trim_matches('"').to_owned()
}

/// The folder of the crate that a file belongs to; the root package is `aljibe`.
fn crate_of(file: &Path) -> String {
    let first = file.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    match first.as_deref() {
        Some("src" | "tests" | "benches" | "build.rs") | None => "aljibe".to_owned(),
        Some(folder) => folder.to_owned(),
    }
}

fn is_this_file(file: &Path) -> bool {
    file == Path::new("tests/tidy.rs")
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    numbered(text).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The text up to a trailing `#[cfg(test)] mod ... {`.
fn without_test_module(text: &str) -> &str {
    text.rfind("\n#[cfg(test)]\nmod ").map_or(text, |start| text.get(..start).unwrap_or(text))
}

/// Whether a mark of unfinished work is in a line; a mark that is a word counts as a whole word only.
fn is_marked(line: &str, mark: &str) -> bool {
    if mark.chars().all(char::is_alphabetic) { has_word(line, mark) } else { line.contains(mark) }
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line.get(..start).unwrap_or_default().chars().next_back();
        let after = line.get(start + word.len()..).unwrap_or_default().chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// First line and length of each function, by the indentation that rustfmt gives it.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        if code.starts_with("//") || !has_word(code.split('(').next().unwrap_or_default(), "fn") || code.contains('"') {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines
            .iter()
            .skip(index)
            .position(|later| **later == end || (later.len() > indent && later.ends_with(';') && is_signature(later)))
            .map_or(1, |last| last + 1);
        found.push((index + 1, if code.ends_with('}') { 1 } else { length }));
    }
    found
}

/// Whether a line ends a declaration without a body.
fn is_signature(line: &str) -> bool {
    has_word(line, "fn") || line.trim_start().starts_with(')')
}

/// The files that the `mod name;` lines of `file` may mean.
fn modules_of(file: &Path, text: &str) -> Vec<PathBuf> {
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    let stem = file.file_stem().unwrap_or_default();
    let is_folder_root = ["lib.rs", "main.rs", "mod.rs"].iter().any(|name| file.ends_with(name))
        || ["tests", "benches", "fuzz_targets", "bin", "examples"].iter().any(|name| folder.ends_with(name));
    let own = if is_folder_root { folder.to_owned() } else { folder.join(stem) };
    let mut found = Vec::new();
    let mut path_attribute = None;
    for line in text.lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            path_attribute = Some(beside(folder, path));
            continue;
        }
        let name = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).map(|(_, name)| name);
        if let Some(name) = name.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
            found.extend(path_attribute.take());
            // A module inside `mod tests { ... }` of a file lives in a folder called after both.
            found.extend(
                [&own, &own.join("tests")]
                    .into_iter()
                    .flat_map(|at| [at.join(format!("{name}.rs")), at.join(name).join("mod.rs")]),
            );
        }
    }
    found
}

/// Where a path leads that begins in a folder, as the list of files names it: without `..`.
fn beside(folder: &Path, path: &str) -> PathBuf {
    let mut found = folder.to_owned();
    for part in Path::new(path).components() {
        if part == Component::ParentDir {
            found.pop();
        } else {
            found.push(part);
        }
    }
    found
}

/// Promises that begin the doc comment of a test.
fn promises_tested(text: &str) -> BTreeSet<&'static str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut named = BTreeSet::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(doc) = line.strip_prefix("/// P") else { continue };
        let begins = |promise: &str| {
            let head = format!("P{doc}");
            head.split(['.', ' ', ','])
                .take_while(|word| word.starts_with('P') || word.is_empty() || *word == "and")
                .any(|word| word == promise)
        };
        let item = lines.iter().skip(index).take_while(|line| !line.is_empty() && !line.contains("fn "));
        if item.into_iter().any(|line| line.starts_with("#[") && line.contains("test")) {
            named.extend(PROMISES.into_iter().filter(|promise| begins(promise)));
        }
    }
    named
}

fn report(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}
