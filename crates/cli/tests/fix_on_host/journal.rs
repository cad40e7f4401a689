//! Journals that can't be written, and two at a time.

use anyhow::{Result, ensure};

use crate::Test;
use crate::host::{CAPTURE, Ended, Host, JOURNAL};

pub(crate) const TESTS: &[Test] = &[
    ("a_disk_that_is_full", a_disk_that_is_full),
    ("a_journal_that_cannot_be_written", a_journal_that_cannot_be_written),
];

/// Wherever the journal's disk becomes full, nothing is left done.
fn a_disk_that_is_full() -> Result<()> {
    let host = Host::up()?;
    let (before, file) = (host.postrouting()?, host.sh("cat /etc/docker/daemon.json")?);
    ensure!(host.apply()?.code == Some(0), "it is not applied");
    let whole = host.sh(&format!("cat {JOURNAL}"))?;
    ensure!(host.undo()?.code == Some(0), "it is not taken back");
    let ends: Vec<usize> = whole.match_indices('\n').map(|(at, _)| at + 1).collect();
    ensure!(ends.len() == 6, "{whole}");
    for end in &ends[..5] {
        host.sh(&format!("rm {JOURNAL}"))?;
        // The next line does not fit.
        let how = format!("trap '' XFSZ; exec prlimit --fsize={}", end + 5);
        let words = ["host-masquerade", CAPTURE, "--apply", "--journal", JOURNAL];
        let Ended { code, said } = host.fix_by(&how, &words)?;
        ensure!(code == Some(1), "{end}: {code:?} {said}");
        let words = if *end == ends[0] { "nothing was done" } else { "all is as it was before" };
        ensure!(said.contains(JOURNAL) && said.contains(words), "{end}: {said}");
        ensure!(host.postrouting()? == before, "{end}: {:?}", host.postrouting()?);
        ensure!(host.sh("cat /etc/docker/daemon.json")? == file, "{end}: the file");
        let Ended { code, said } = host.undo()?;
        ensure!(code.is_some_and(|code| code != 1), "{end}: {code:?} {said}");
        ensure!(host.postrouting()? == before, "{end}: {:?}", host.postrouting()?);
    }
    Ok(())
}

/// It tells what to take back all the same.
fn a_journal_that_cannot_be_written() -> Result<()> {
    let host = Host::up()?;
    let (before, file) = (host.postrouting()?, host.sh("cat /etc/docker/daemon.json")?);
    ensure!(host.apply()?.code == Some(0), "it is not applied");
    let events = host.events()?;
    host.sh("mount -o remount,ro /var/lib")?;
    // The second time it is seen by what is there.
    for _ in 0..2 {
        let Ended { code, said } = host.undo()?;
        ensure!(code == Some(0) && said.contains("all is as it was before"), "{code:?} {said}");
        ensure!(said.contains("could not be noted") && said.contains(JOURNAL), "{said}");
        ensure!(host.postrouting()? == before, "{:?}", host.postrouting()?);
        ensure!(host.sh("cat /etc/docker/daemon.json")? == file, "the file is another");
    }
    let Ended { code, said } = host.resume()?;
    ensure!(code == Some(2), "{code:?} {said}");
    ensure!(host.events()? == events, "{:?}", host.events()?);
    Ok(())
}
