//! Journals that can't be written, and two at a time.

use anyhow::{Result, ensure};

use crate::Test;
use crate::host::{CAPTURE, Ended, Host, JOURNAL, UNMASQ};

pub(crate) const TESTS: &[Test] = &[
    ("a_disk_that_is_full", a_disk_that_is_full),
    ("a_journal_that_cannot_be_written", a_journal_that_cannot_be_written),
    ("one_at_a_time", one_at_a_time),
    (TRACED, it_is_on_the_disk),
];

/// The test that needs strace.
pub(crate) const TRACED: &str = "it_is_on_the_disk";

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
        let words =
            ["host-masquerade", CAPTURE, "--accept", "by-hand", "--apply", "--journal", JOURNAL];
        let Ended { code, said } = host.fix_by(&how, &words)?;
        ensure!(code == Some(1), "{end}: {code:?} {said}");
        let words = if *end == ends[0] {
            "nothing was done"
        } else {
            "all that was changed is as it was before"
        };
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
        ensure!(
            code == Some(0) && said.contains("all that was changed is as it was before"),
            "{code:?} {said}"
        );
        ensure!(said.contains("could not be noted") && said.contains(JOURNAL), "{said}");
        ensure!(host.postrouting()? == before, "{:?}", host.postrouting()?);
        ensure!(host.sh("cat /etc/docker/daemon.json")? == file, "the file is another");
    }
    let Ended { code, said } = host.resume()?;
    ensure!(code == Some(2), "{code:?} {said}");
    ensure!(host.events()? == events, "{:?}", host.events()?);
    Ok(())
}

/// While one applies, none takes back or applies.
fn one_at_a_time() -> Result<()> {
    let host = Host::up()?;
    let before = host.postrouting()?;
    // In the midst of the first transaction, with the host's lock file and without.
    let meanwhile = format!(
        "{UNMASQ} fix --undo {JOURNAL} 2>> /run/meanwhile; echo \"code $?\" >> /run/meanwhile; \
         mv /run/unmasq.lock /run/moved; {UNMASQ} fix --undo {JOURNAL} 2>> /run/meanwhile; \
         echo \"code $?\" >> /run/meanwhile"
    );
    host.wrap("iptables-legacy-restore", &meanwhile, "")?;
    let Ended { code, said } = host.apply()?;
    ensure!(code == Some(0), "{code:?} {said}");
    let refused = host.sh("cat /run/meanwhile")?;
    ensure!(refused.matches("error: another unmasq").count() == 2, "{refused}");
    ensure!(refused.matches("code 2").count() == 2, "{refused}");
    ensure!(refused.contains("holds /var/lib/unmasq:"), "{refused}");
    ensure!(host.undo()?.code == Some(0), "it is not taken back");
    ensure!(host.postrouting()? == before, "{:?}", host.postrouting()?);
    Ok(())
}

/// A relative path too, and the folders that are made for it, before anything is done.
fn it_is_on_the_disk() -> Result<()> {
    let host = Host::up()?;
    for (journal, synced) in [
        ("jj", &["/var/lib/jj.new", "/var/lib"][..]),
        ("a/b/jj", &["/var/lib/a/b/jj.new", "/var/lib/a/b", "/var/lib/a", "/var/lib"]),
    ] {
        let how = "cd /var/lib; exec strace -f -y -o /run/calls -e trace=fsync,fdatasync,execve";
        let words =
            ["host-masquerade", CAPTURE, "--accept", "by-hand", "--apply", "--journal", journal];
        let Ended { code, said } = host.fix_by(how, &words)?;
        ensure!(code == Some(0), "{code:?} {said}");
        let calls = host.sh("cat /run/calls")?;
        let (before, _) = calls.split_once("iptables-legacy-restore").unwrap_or_default();
        for path in synced {
            ensure!(before.contains(&format!("<{path}>) ")), "{path}: {before}");
        }
        ensure!(host.fix(&["--undo", &format!("/var/lib/{journal}")])?.code == Some(0), "undo");
    }
    Ok(())
}
