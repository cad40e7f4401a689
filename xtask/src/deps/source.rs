//! What can be read from manifests and sources: lints, and I/O in pure crates.
//!
//! In: `Cargo.toml` and `src/**/*.rs`. Out: a sentence for each use of `std` that a pure crate
//! must not have, with file and line, and for each manifest that drops the workspace's lints.
//! It reads paths that begin with `std::`, also in `use std::{…}`; code under `#[cfg(test)]`,
//! comments and strings don't count.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::workspace::Metadata;

/// The crates that may have unsafe code, and so lint tables of their own.
const MAY_BE_UNSAFE: &[&str] = &["host", "lab", "probe"];

/// What is I/O, a clock, or depends on the surroundings.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread::spawn",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// How many files were read.
    pub(super) files: usize,
    /// A sentence each.
    pub(super) problems: Vec<String>,
}

/// Whether all members but those that may be unsafe take the workspace's lints, which forbid
/// unsafe code.
pub(super) fn check_lints(root: &Path, metadata: &Metadata) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let workspace = read(&root.join("Cargo.toml"))?;
    if !has_line(&workspace, "[workspace.lints.rust]", "unsafe_code = \"forbid\"") {
        problems.push("Cargo.toml doesn't forbid unsafe_code in [workspace.lints.rust]".into());
    }
    for package in metadata.packages.iter().filter(|p| metadata.is_member(&p.id)) {
        if package.crate_name().is_some_and(|name| MAY_BE_UNSAFE.contains(&name)) {
            continue;
        }
        if !has_line(&read(&package.manifest_path)?, "[lints]", "workspace = true") {
            problems.push(format!(
                "{} doesn't take the workspace's lints, so unsafe code isn't forbidden in it",
                shown(root, &package.manifest_path)
            ));
        }
    }
    Ok(problems)
}

/// Looks through the sources of a pure crate.
pub(super) fn scan(root: &Path, folder: &Path) -> Result<Scan> {
    let mut paths = Vec::new();
    collect(&folder.join("src"), &mut paths)?;
    paths.sort();
    let mut sources = Vec::new();
    let mut test_modules = Vec::new();
    for path in paths {
        let code = without_tests(&without_text(&read(&path)?));
        test_modules.extend(code.test_modules.iter().map(|name| module_path(&path, name)));
        sources.push((path, code.text));
    }
    let mut scan = Scan::default();
    for (path, code) in sources {
        if test_modules
            .iter()
            .any(|module| path.starts_with(module) || path == module.with_extension("rs"))
        {
            continue;
        }
        scan.files += 1;
        for (line, used) in std_paths(&code) {
            if IMPURE
                .iter()
                .any(|impure| used == *impure || used.starts_with(&format!("{impure}::")))
            {
                scan.problems.push(format!(
                    "{}:{line}: {used} in a pure crate: no I/O, no clock, no surroundings",
                    shown(root, &path)
                ));
            }
        }
    }
    Ok(scan)
}

/// Whether `line` stands in `section`, up to spaces.
fn has_line(text: &str, section: &str, line: &str) -> bool {
    text.lines()
        .map(str::trim)
        .skip_while(|found| *found != section)
        .skip(1)
        .take_while(|found| !found.starts_with('['))
        .any(|found| found.split_whitespace().eq(line.split_whitespace()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("{} can't be listed", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("{} can't be listed", folder.display()))?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

/// Where the module `name` that `file` declares is: the path without `.rs`.
fn module_path(file: &Path, name: &str) -> PathBuf {
    let parent = file.parent().unwrap_or(file);
    match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("lib" | "main" | "mod") | None => parent.join(name),
        Some(stem) => parent.join(stem).join(name),
    }
}

/// The code with comments and the contents of strings and characters as spaces; lines stay.
fn without_text(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = text_end(bytes, at);
        match end {
            Some(end) => {
                for byte in &mut out[at..end] {
                    if *byte != b'\n' {
                        *byte = b' ';
                    }
                }
                at = end;
            }
            None => at += 1,
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment, string or character that begins at `at` ends; `None` if none begins there.
fn text_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let after = |needle: &[u8], from: usize| {
        rest[from..]
            .windows(needle.len())
            .position(|window| window == needle)
            .map_or(bytes.len(), |found| at + from + found + needle.len())
    };
    if rest.starts_with(b"//") {
        return Some(after(b"\n", 2).min(bytes.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(block_comment_end(bytes, at));
    }
    let starts_a_word = at == 0 || !is_word(bytes[at - 1]);
    if rest[0] == b'r' && starts_a_word {
        let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            let close: Vec<u8> = b"\"".iter().chain(&vec![b'#'; hashes]).copied().collect();
            return Some(after(&close, 2 + hashes));
        }
    }
    if rest[0] == b'"' {
        return Some(quoted_end(bytes, at, b'"'));
    }
    // A lifetime has no quote after its first character; a character literal has one, or an escape.
    if rest[0] == b'\'' && (rest.get(1) == Some(&b'\\') || rest.get(2) == Some(&b'\'')) {
        return Some(quoted_end(bytes, at, b'\''));
    }
    None
}

/// Block comments nest.
fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut end) = (0_u32, at);
    while end < bytes.len() {
        if bytes[end..].starts_with(b"/*") {
            depth += 1;
            end += 2;
        } else if bytes[end..].starts_with(b"*/") {
            depth -= 1;
            end += 2;
            if depth == 0 {
                return end;
            }
        } else {
            end += 1;
        }
    }
    bytes.len()
}

fn quoted_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut end = at + 1;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' => end += 2,
            byte if byte == quote => return end + 1,
            _ => end += 1,
        }
    }
    bytes.len()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Code without its tests.
struct Code {
    text: String,
    /// Modules that are tests and stand in files of their own.
    test_modules: Vec<String>,
}

/// Blanks each item that follows `#[cfg(test)]`.
fn without_tests(code: &str) -> Code {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut text = code.to_owned();
    let mut test_modules = Vec::new();
    let mut from = 0;
    while let Some(found) = text[from..].find(ATTRIBUTE) {
        let start = from + found;
        let item = &text[start + ATTRIBUTE.len()..];
        let length = item.find(['{', ';']).map_or(item.len(), |at| {
            if item.as_bytes()[at] == b';' { at + 1 } else { braces_end(item, at) }
        });
        let words: Vec<&str> = item[..length].split([' ', '\n', ';', '{']).collect();
        if item[..length].ends_with(';')
            && let Some(at) = words.iter().position(|word| *word == "mod")
            && let Some(name) = words[at + 1..].iter().find(|word| !word.is_empty())
        {
            test_modules.push((*name).to_owned());
        }
        let end = start + ATTRIBUTE.len() + length;
        let blank: String =
            text[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        text.replace_range(start..end, &blank);
        from = start + blank.len();
    }
    Code { text, test_modules }
}

/// The end of the braces that open at `at`.
fn braces_end(text: &str, at: usize) -> usize {
    let mut depth = 0_u32;
    for (offset, byte) in text.bytes().enumerate().skip(at) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return offset + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// All paths that begin with `std::`, groups taken apart, each with its line.
fn std_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find("std::") {
        let start = from + found;
        from = start + "std::".len();
        if start > 0 && is_word(code.as_bytes()[start - 1]) {
            continue;
        }
        let line = code[..start].matches('\n').count() + 1;
        let mut expanded = Vec::new();
        expand("std::", &code[from..], &mut expanded);
        paths.extend(expanded.into_iter().map(|path| (line, path)));
    }
    paths
}

/// Reads one use tree (or path) at the beginning of `rest`, and gives back how long it is.
fn expand(prefix: &str, rest: &str, into: &mut Vec<String>) -> usize {
    let spaces = rest.len() - rest.trim_start().len();
    let tree = &rest[spaces..];
    let length = tree.bytes().take_while(|byte| is_word(*byte) || *byte == b':').count();
    let path = format!("{prefix}{}", &tree[..length]);
    if !tree[length..].starts_with('{') {
        into.push(path.trim_end_matches(':').trim_end_matches("::self").to_owned());
        return spaces + length;
    }
    let mut at = length + 1;
    loop {
        at += expand(&path, &tree[at..], into);
        // What follows a tree: `as name`, a comma, or the group's end.
        match tree[at..].find([',', '}']) {
            Some(next) if tree[at + next..].starts_with(',') => at += next + 1,
            Some(next) => return spaces + at + next + 1,
            None => return rest.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn impure(source: &str) -> Vec<(usize, String)> {
        std_paths(&without_tests(&without_text(source)).text)
            .into_iter()
            .filter(|(_, path)| {
                IMPURE.iter().any(|bad| path == bad || path.starts_with(&format!("{bad}::")))
            })
            .collect()
    }

    #[test]
    fn uses_are_found() {
        let cases = [
            ("use std::fs;", vec![(1, "std::fs")]),
            ("\nlet x = std::fs::read(y);", vec![(2, "std::fs::read")]),
            ("use std::{fmt, fs};", vec![(1, "std::fs")]),
            (
                "use std::{\n    fmt,\n    time::{Duration, Instant},\n};",
                vec![(1, "std::time::Instant")],
            ),
            (
                "use std::{io::{self, Write}, env::{self, var}};",
                vec![(1, "std::env"), (1, "std::env::var")],
            ),
            ("use std::process as p;", vec![(1, "std::process")]),
        ];
        for (source, expected) in cases {
            let expected: Vec<_> = expected.into_iter().map(|(l, p)| (l, p.to_owned())).collect();
            assert_eq!(impure(source), expected, "{source}");
        }
    }

    #[test]
    fn what_is_not_code_or_not_impure_is_passed_over() {
        let cases = [
            "// std::fs\n/* std::fs /* std::env */ std::fs */ fn f() {}",
            "let s = \"std::fs \\\" std::env\"; let r = r#\"std::fs \" std::fs\"#;",
            "fn f<'a>(x: &'a str) { let c = '\"'; let d = '\\''; g('\"') }",
            "use std::collections::BTreeMap; use std::time::Duration; use std::net::IpAddr;",
            "use mystd::fs; use std::fsx;",
            "#[cfg(test)]\nmod tests {\n    use std::fs;\n    fn f() { { std::env::var(x); } }\n}",
            "#[cfg(test)]\nuse std::fs;",
        ];
        for source in cases {
            assert_eq!(impure(source), [], "{source}");
        }
    }

    #[test]
    fn code_after_tests_still_counts() {
        let source = "#[cfg(test)]\nmod tests { use std::fs; }\nuse std::env;";
        assert_eq!(impure(source), [(3, "std::env".to_owned())]);
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_found() {
        let code = without_tests(
            "#[cfg(test)]\nmod tests;\n#[cfg(test)] pub(crate) mod fakes;\nmod real;",
        );
        assert_eq!(code.test_modules, ["tests", "fakes"]);
        let at = |file: &str| module_path(Path::new(file), "tests");
        assert_eq!(at("src/lib.rs"), Path::new("src/tests"));
        assert_eq!(at("src/nft/mod.rs"), Path::new("src/nft/tests"));
        assert_eq!(at("src/nft.rs"), Path::new("src/nft/tests"));
    }

    #[test]
    fn a_crate_is_scanned_without_its_tests() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("src/lib.rs", "mod reader;\nuse std::net::{IpAddr, TcpStream};"),
            ("src/reader.rs", "// std::fs\n#[cfg(test)]\nmod tests;\nuse std::env;"),
            ("src/reader/tests.rs", "use std::fs;"),
            ("src/reader/tests/deep.rs", "use std::fs;"),
            ("src/reader/testsuite.rs", "use std::process;"),
            ("tests/golden.rs", "use std::fs;"),
        ];
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let scan = scan(folder.path(), folder.path()).unwrap();
        let found: Vec<&str> =
            scan.problems.iter().filter_map(|problem| problem.split(" in ").next()).collect();
        let expected = [
            "src/lib.rs:2: std::net::TcpStream",
            "src/reader/testsuite.rs:1: std::process",
            "src/reader.rs:4: std::env",
        ];
        assert_eq!((scan.files, found), (3, expected.to_vec()));
    }

    #[test]
    fn lines_are_found_in_their_section_only() {
        let text = "[lints]\nworkspace   =  true\n[other]\nx = 1\n";
        assert!(has_line(text, "[lints]", "workspace = true"));
        assert!(!has_line(text, "[lints]", "x = 1"));
        assert!(!has_line(text, "[none]", "x = 1"));
    }
}
