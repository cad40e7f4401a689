//! How long a ruleset takes to read: its JSON, the JSON with the text beside it, the text alone.
//! `cargo bench -p unmasq-parse --bench nft -- NFT_JSON NFT_TXT`

use std::time::{Duration, Instant};

use unmasq_model::origin::FileId;
use unmasq_parse::nft::{parse, text};

const ROUNDS: usize = 11;

fn main() -> std::io::Result<()> {
    // `cargo bench` adds --bench.
    let files: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [json, listing] = &files[..] else {
        println!("nothing measured: NFT_JSON NFT_TXT are needed");
        return Ok(());
    };
    let (json, listing) = (std::fs::read_to_string(json)?, std::fs::read_to_string(listing)?);
    let (a, b) = (FileId(0), FileId(1));
    report("JSON", json.len(), || parse(&json, a, None, &|_, _| false).0.len());
    let both = json.len() + listing.len();
    report("JSON and text", both, || parse(&json, a, Some((&listing, b)), &|_, _| false).0.len());
    report("text", listing.len(), || text::parse(&listing, b, &|_, _| false).0.len());
    Ok(())
}

fn report(what: &str, size: usize, read: impl Fn() -> usize) {
    let mut took: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            assert!(read() > 0, "no tables in {what}");
            start.elapsed()
        })
        .collect();
    took.sort();
    let millis = |took: Duration| took.as_secs_f64() * 1000.0;
    let (least, median) = (millis(took[0]), millis(took[ROUNDS / 2]));
    println!("{what:14} {size:9} bytes {least:8.1} ms min {median:8.1} ms median");
}
