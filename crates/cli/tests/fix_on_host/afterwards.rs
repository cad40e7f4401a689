//! What is there once all is done is not what was foretold.

use anyhow::{Result, ensure};

use crate::Test;
use crate::host::{Ended, Host, JOURNAL};

pub(crate) const TESTS: &[Test] = &[
    ("another_rule_makes_it_worse", another_rule_makes_it_worse),
    ("the_host_cannot_be_read", the_host_cannot_be_read),
];

/// It is taken back, and both states are kept.
fn is_taken_back(host: &Host, behind: &str, words: &[&str]) -> Result<()> {
    let (before, file) = (host.postrouting()?, host.sh("cat /etc/docker/daemon.json")?);
    host.wrap("iptables-legacy-restore", "", behind)?;
    let Ended { code, said } = host.apply()?;
    ensure!(code == Some(1), "{code:?} {said}");
    for words in words {
        ensure!(said.contains(words), "no {words:?}: {said}");
    }
    ensure!(host.postrouting()? == before, "{:?}\n{said}", host.postrouting()?);
    ensure!(host.sh("cat /etc/docker/daemon.json")? == file, "the file is another");
    let events = host.events()?;
    ensure!(events.ends_with(&["undone".to_owned()]), "{events:?}");
    for when in ["before", "after"] {
        host.sh(&format!("tar tzf {JOURNAL}.{when}.tar.gz | grep -q iptables-legacy-save"))?;
    }
    Ok(())
}

/// Somebody else masquerades what the plan has just let through.
fn another_rule_makes_it_worse() -> Result<()> {
    let host = Host::up()?;
    host.network()?;
    let worse =
        "nft 'table ip x { chain y { type nat hook postrouting priority 50; masquerade; }; }'";
    is_taken_back(
        &host,
        worse,
        &["worse than foretold", "taken back: all that was changed is as it was before"],
    )
}

/// Whether it is as foretold can't be told then.
fn the_host_cannot_be_read() -> Result<()> {
    let host = Host::up()?;
    let broken = "printf '#!/bin/sh\\nexit 1\\n' > /run/wrapped/ip; chmod +x /run/wrapped/ip";
    is_taken_back(
        &host,
        broken,
        &["can't be read any more", "taken back: all that was changed is as it was before"],
    )
}
