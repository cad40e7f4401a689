//! The nodes of a capture.

use std::collections::BTreeMap;

use unmasq_parse::capture::Capture;

use crate::{Node, PodState, Process};

/// All nodes, in order of their names.
pub(super) fn nodes(capture: &Capture<'_>, files: &BTreeMap<String, Vec<u8>>) -> Vec<Node> {
    let names: Vec<&str> = capture.node_names().collect();
    names.into_iter().filter_map(|name| node(capture, files, name)).collect()
}

fn node(capture: &Capture<'_>, files: &BTreeMap<String, Vec<u8>>, name: &str) -> Option<Node> {
    let parsed = capture.node(name)?;
    let pods = parsed.pods.into_iter().map(|(folder, pod)| {
        // Neither name can have an underscore in it.
        let (namespace, name) = folder.split_once('_').unwrap_or(("", &folder));
        PodState {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            host: pod.host,
            diagnostics: pod.diagnostics,
        }
    });
    let processes = capture.node_file(name, "processes");
    Some(Node {
        name: name.to_owned(),
        host: Some(parsed.host),
        pods: pods.collect(),
        processes: processes.map(|bytes| self::processes(&String::from_utf8_lossy(bytes))),
        files: texts(files, name),
        diagnostics: parsed.diagnostics,
    })
}

/// The texts of `files/…`. Without a manifest the files of one node may be in no folder.
fn texts(files: &BTreeMap<String, Vec<u8>>, node: &str) -> BTreeMap<String, String> {
    let own = format!("nodes/{node}/");
    let in_folder =
        files.range(own.clone()..).next().is_some_and(|(path, _)| path.starts_with(&own));
    let prefix = format!("{}files", if in_folder { own.as_str() } else { "" });
    let below = files.range(prefix.clone()..).map_while(|(path, bytes)| {
        let rest = path.strip_prefix(&prefix)?;
        Some((rest, bytes))
    });
    below
        .filter(|(path, _)| path.starts_with('/'))
        .map(|(path, bytes)| (path.to_owned(), String::from_utf8_lossy(bytes).into_owned()))
        .collect()
}

/// Programs, a line each: the program and its arguments, separated by blanks.
pub(super) fn processes(text: &str) -> Vec<Process> {
    text.lines().filter_map(process).collect()
}

/// An interpreter, or a program that starts another, stands before the program with its options.
fn process(line: &str) -> Option<Process> {
    const BEFORE: [&str; 11] = [
        "sh",
        "bash",
        "dash",
        "ash",
        "busybox",
        "perl",
        "ruby",
        "env",
        "tini",
        "dumb-init",
        "sudo",
    ];
    let words: Vec<&str> = line.split_whitespace().collect();
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let is_before = |word: &str| {
        let name = base(word);
        name.starts_with("python") || BEFORE.contains(&name.as_str())
    };
    let is_program = |word: &&str| !is_before(word) && !word.starts_with('-') && **word != *"***";
    let at = match words.first() {
        Some(first) if is_before(first) => {
            words.iter().take(3).position(is_program).unwrap_or_default()
        }
        Some(_) => 0,
        None => return None,
    };
    let arguments = words.get(at + 1..).unwrap_or_default();
    Some(Process {
        name: base(words.get(at)?),
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
    })
}
