//! What is done and taken back.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Test;
use crate::host::{Ended, Host, JOURNAL, rules};

pub(crate) const TESTS: &[Test] = &[
    ("applied_and_taken_back", applied_and_taken_back),
    ("taken_back_once", taken_back_once),
    ("gone_on_with", gone_on_with),
    ("two_changes_of_one_chain", two_changes_of_one_chain),
];

const OLD: &str = "-s 172.7.21.0/24 ! -o docker0 -j MASQUERADE";
const NEW: &str = "-s 172.7.21.0/24 ! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE";

/// Rules of others keep their counters, there and back.
fn applied_and_taken_back() -> Result<()> {
    let host = Host::up()?;
    host.sh("iptables-legacy-save -c | sed 's/^\\[0:0\\] -A/[77:7700] -A/' | iptables-legacy-restore -c")?;
    let (before, file) = (host.counted()?, host.sh("cat /etc/docker/daemon.json")?);
    ensure!(before.contains("[77:7700] -A POSTROUTING -s 172.7.21.0/24"), "{before}");

    let Ended { code, said } = host.apply()?;
    ensure!(code == Some(0), "{code:?} {said}");
    let uncounted = |text: &str| text.replace(&format!("[77:7700] -A POSTROUTING {OLD}"), OLD);
    let counted = host.counted()?.replace(&format!("[0:0] -A POSTROUTING {NEW}"), OLD);
    ensure!(counted == uncounted(&before), "{before}\n{counted}");
    ensure!(host.sh("cat /etc/docker/daemon.json")?.contains("\"ip-masq\": false"), "the file");
    let events = host.events()?;
    ensure!(events == ["0 begun", "0 done", "1 begun", "1 done", "applied"], "{events:?}");

    let Ended { code, said } = host.undo()?;
    ensure!(
        code == Some(0) && said.contains("all that was changed is as it was before"),
        "{code:?} {said}"
    );
    let counted = host.counted()?.replace(&format!("[0:0] -A POSTROUTING {OLD}"), OLD);
    ensure!(counted == uncounted(&before), "{before}\n{counted}");
    ensure!(host.sh("cat /etc/docker/daemon.json")? == file, "the file is another");
    Ok(())
}

/// A journal that ended is not gone on with, whatever happened to the host since.
fn taken_back_once() -> Result<()> {
    let host = Host::up()?;
    ensure!(host.apply()?.code == Some(0), "it is not applied");
    let Ended { code, said } = host.resume()?;
    ensure!(code == Some(2) && said.contains("is done already"), "{code:?} {said}");
    ensure!(said.contains(&format!("unmasq fix --undo {JOURNAL}")), "{said}");
    ensure!(host.undo()?.code == Some(0), "it is not taken back");
    // Others wrote what looks like ours.
    host.sh(&format!("iptables-legacy -t nat -D POSTROUTING {OLD}"))?;
    host.sh(&format!("iptables-legacy -t nat -A POSTROUTING {NEW}"))?;
    for ended in [host.undo()?, host.resume()?] {
        let Ended { code, said } = ended;
        ensure!(code == Some(2) && said.contains("was taken back"), "{code:?} {said}");
        ensure!(said.contains("plan again") && said.contains("--apply"), "{said}");
    }
    ensure!(host.postrouting()?.contains(&NEW.to_owned()), "{:?}", host.postrouting()?);
    Ok(())
}

/// Killed after each line of the journal.
fn gone_on_with() -> Result<()> {
    let host = Host::up()?;
    let (before, file) = (host.postrouting()?, host.sh("cat /etc/docker/daemon.json")?);
    ensure!(host.apply()?.code == Some(0), "it is not applied");
    let whole = host.sh(&format!("cat {JOURNAL}"))?;
    let after = host.postrouting()?;
    for lines in 1..6 {
        let head: String = whole.split_inclusive('\n').take(lines).collect();
        for back in [true, false] {
            // The deed whose begin was the last line was done, or wasn't.
            ensure!(host.undo()?.code.is_some(), "it does not run");
            host.put("/etc/docker/daemon.json", &file)?;
            if lines > 1 {
                host.sh(&format!("iptables-legacy -t nat -R POSTROUTING 2 {NEW}"))?;
            } else {
                host.sh(&format!("iptables-legacy -t nat -R POSTROUTING 2 {OLD}"))?;
            }
            if lines > 4 {
                host.put(
                    "/etc/docker/daemon.json",
                    &file.replace("{\n", "{\n  \"ip-masq\": false,\n"),
                )?;
            }
            host.put(JOURNAL, &(head.clone() + "{\"deed\":1,\"ev"))?;
            let Ended { code, said } = if back { host.undo()? } else { host.resume()? };
            ensure!(code == Some(0), "{lines} {back}: {code:?} {said}");
            let there = host.postrouting()?;
            ensure!(there == if back { before.clone() } else { after.clone() }, "{lines} {back}");
            let same = host.sh("cat /etc/docker/daemon.json")? == file;
            ensure!(same == back, "{lines} {back}: the file");
        }
    }
    Ok(())
}

/// What one remedy leaves in a chain is what the next one finds.
fn two_changes_of_one_chain() -> Result<()> {
    let host = Host::up()?;
    let (a, b, c) = (["-s 10.1.0.0/16 -j RETURN"], ["-s 10.2.0.0/16 -j RETURN"], ["-j RETURN"]);
    host.sh("iptables-legacy -t nat -F POSTROUTING; iptables-legacy -t nat -A POSTROUTING -s 10.1.0.0/16 -j RETURN")?;
    host.journal(&[rules(&a, &b), rules(&b, &c)], &[])?;
    let Ended { code, said } = host.resume()?;
    ensure!(code == Some(0) && host.postrouting()? == c, "{code:?} {said}");
    let done = |deed: u64| json!({"deed": deed, "event": "done"});
    host.journal(&[rules(&a, &b), rules(&b, &c)], &[done(0), done(1)])?;
    let Ended { code, said } = host.resume()?;
    ensure!(code == Some(0) && host.postrouting()? == c, "{code:?} {said}");
    let Ended { code, said } = host.undo()?;
    ensure!(code == Some(0) && host.postrouting()? == a, "{code:?} {said}");
    Ok(())
}
