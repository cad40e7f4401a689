//! `ip -j neigh` and `bridge -j fdb`.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use unmasq_model::origin::{Diagnostic, FileId};
use unmasq_model::route::{FdbEntry, Neighbour};

use super::entry::entries;

/// Neighbours of `ip -j neigh`.
pub fn neighbours(text: &str, file: FileId) -> (Option<Vec<Neighbour>>, Vec<Diagnostic>) {
    read(text, file, |listed: ListedNeighbour| Neighbour {
        address: listed.dst,
        device: listed.dev.into(),
        mac: listed.lladdr.map(Into::into),
    })
}

/// Entries of bridges' forwarding tables, from `bridge -j fdb`.
pub fn fdb(text: &str, file: FileId) -> (Option<Vec<FdbEntry>>, Vec<Diagnostic>) {
    read(text, file, |listed: ListedFdb| FdbEntry {
        mac: listed.mac.into(),
        device: listed.ifname.into(),
        master: listed.master.map(Into::into),
    })
}

#[derive(Deserialize)]
struct ListedNeighbour {
    dst: IpAddr,
    dev: String,
    lladdr: Option<String>,
}

#[derive(Deserialize)]
struct ListedFdb {
    mac: String,
    ifname: String,
    master: Option<String>,
}

fn read<L: DeserializeOwned, T>(
    text: &str,
    file: FileId,
    convert: impl Fn(L) -> T,
) -> (Option<Vec<T>>, Vec<Diagnostic>) {
    let listing = match entries(text, file) {
        Ok(listing) => listing,
        Err(diagnostic) => return (None, vec![diagnostic]),
    };
    let mut found = Vec::with_capacity(listing.len());
    let mut diagnostics = Vec::new();
    for entry in listing {
        match serde_json::from_str(entry.text) {
            Ok(listed) => found.push(convert(listed)),
            Err(error) => {
                diagnostics.push(entry.diagnostic(format!("{error}: {}", entry.text)));
            }
        }
    }
    (Some(found), diagnostics)
}
