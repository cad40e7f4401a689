//! What a whole capture costs before anything is asked of it: time and memory of reading and
//! parsing all nodes, and of ordering and indexing their rules.
//! `cargo bench -p unmasq --bench load -- CAPTURE [at-once]`
//!
//! Nodes are read one by one on two threads; `at-once` reads all files first.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use unmasq_eval::Evaluator;
use unmasq_eval::trace::Options;
use unmasq_host::capture::Source;
use unmasq_parse::capture::Node;

fn main() -> Result<()> {
    // `cargo bench` adds --bench.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let (capture, at_once) = match &arguments[..] {
        [capture] => (Path::new(capture), false),
        [capture, how] if how == "at-once" => (Path::new(capture), true),
        _ => {
            println!("nothing measured: CAPTURE is needed");
            return Ok(());
        }
    };
    let start = Instant::now();
    let nodes = if at_once { all_files_first(capture)? } else { node_by_node(capture)? };
    let loaded = start.elapsed();
    let resident = status("VmRSS:")?;
    let evaluators: Vec<Evaluator<'_>> =
        nodes.iter().map(|node| Evaluator::new(&node.host, Options::default())).collect();
    let rules: usize = nodes
        .iter()
        .flat_map(|node| &node.host.ruleset.tables)
        .flat_map(|table| &table.chains)
        .map(|chain| chain.rules.len())
        .sum();
    println!("nodes, rules         {} {rules}", evaluators.len());
    println!("reading and parsing  {:8.1} ms", loaded.as_secs_f64() * 1000.0);
    println!("and indexing         {:8.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    println!("resident when parsed {:8.1} MiB", resident / 1024.0);
    println!("and indexed          {:8.1} MiB", status("VmRSS:")? / 1024.0);
    println!("at most              {:8.1} MiB", status("VmHWM:")? / 1024.0);
    Ok(())
}

fn all_files_first(capture: &Path) -> Result<Vec<Node>> {
    let files = unmasq_host::capture::read(capture)?;
    let parsed = unmasq_parse::capture::parse(&files)?;
    Ok(parsed.node_names().filter_map(|name| parsed.node(name)).collect())
}

/// Each thread takes the next node that is left.
fn node_by_node(capture: &Path) -> Result<Vec<Node>> {
    let source = Source::open(capture)?;
    let names = Mutex::new(source.node_names());
    let worker = || -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            let next = names.lock().ok().and_then(|mut names| names.next());
            let Some(name) = next else { return Ok(nodes) };
            let files = source.take_node(name)?.context("a node is listed twice")?;
            let parsed = unmasq_parse::capture::parse(&files)?;
            nodes.push(parsed.node(name).context("the node is not in its own files")?);
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(worker);
        let mut nodes = worker()?;
        match other.join() {
            Ok(others) => nodes.extend(others?),
            Err(_) => bail!("a thread panicked"),
        }
        Ok(nodes)
    })
}

/// A number of kibibytes of this process (proc_pid_status(5)).
fn status(field: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value =
        status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    Ok(value.trim().trim_end_matches("kB").trim().parse()?)
}
