//! How long the steps of a trace take: reading, parsing, ordering the rules, and one trace after
//! that. `cargo bench -p unmasq --bench trace -- CAPTURE FROM TO [TO…]`

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use unmasq_eval::Evaluator;
use unmasq_eval::trace::{Options, Query, Verdict};
use unmasq_model::packet::{Packet, Protocol};

const TRACES: usize = 2000;

fn main() -> Result<()> {
    // `cargo bench` adds --bench.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [capture, from, to @ ..] = &arguments[..] else {
        println!("nothing measured: CAPTURE FROM TO are needed");
        return Ok(());
    };
    let from: SocketAddr = from.parse().context("FROM is not ADDRESS:PORT")?;
    let to: Vec<SocketAddr> =
        to.iter().map(|to| to.parse()).collect::<Result<_, _>>().context("TO")?;

    let (files, reading) = timed(|| unmasq_host::capture::read(Path::new(capture)));
    let files = files?;
    let parsed = unmasq_parse::capture::parse(&files)?;
    let name = parsed.node_names().next().context("the capture has no node")?.to_owned();
    let (node, parsing) = timed(|| parsed.node(&name));
    let node = node.context("the capture has no node")?;
    let (evaluator, ordering) = timed(|| Evaluator::new(&node.host, Options::default()));

    let mut traces = Vec::with_capacity(TRACES);
    for to in to.iter().cycle().take(TRACES) {
        let packet =
            Packet::open(Protocol::TCP, from.ip(), Some(from.port()), to.ip(), Some(to.port()));
        let query = Query::opening(packet, None);
        let (trace, took) = timed(|| evaluator.trace(&query));
        if trace.outcomes.iter().any(|outcome| outcome.verdict == Verdict::Unknown) {
            bail!("{to}: unknown, so nothing worth measuring");
        }
        traces.push(took);
    }
    traces.sort();
    println!("reading the files    {:8.1} ms", millis(reading));
    println!("parsing              {:8.1} ms", millis(parsing));
    println!("ordering, indexing   {:8.1} ms", millis(ordering));
    let at = |share: usize| millis(traces[(traces.len() - 1) * share / 100]) * 1000.0;
    println!("a trace after that   {:8.1} µs median, {:.1} µs p99", at(50), at(99));
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}
