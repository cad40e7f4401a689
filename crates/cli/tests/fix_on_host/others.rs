//! Others write rules before, meanwhile and since.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Test;
use crate::host::{CAPTURE, Ended, Host, JOURNAL, rules, table};

pub(crate) const TESTS: &[Test] = &[
    ("what_was_not_done_is_not_taken_back", what_was_not_done_is_not_taken_back),
    ("a_rule_comes_in_between", a_rule_comes_in_between),
    ("a_rule_comes_in_between_going_back", a_rule_comes_in_between_going_back),
    ("others_hold_the_lock", others_hold_the_lock),
    ("a_rule_came_since", a_rule_came_since),
    ("the_neighbours_went_since", the_neighbours_went_since),
    ("no_neighbour_is_left", no_neighbour_is_left),
    ("a_table_of_somebody_else", a_table_of_somebody_else),
    ("a_table_that_changed", a_table_that_changed),
];

const OTHER: &str = "-s 10.9.0.0/16 -j ACCEPT";

/// A rule was taken away by others before the deed that would have done so: it does not come back.
fn what_was_not_done_is_not_taken_back() -> Result<()> {
    let host = Host::up()?;
    let (a, b) = ("-s 10.1.0.0/16 -j MASQUERADE", "-s 10.2.0.0/16 -j MASQUERADE");
    let deeds = [rules(&[a, b], &[a])];
    for entries in [&[][..], &[json!({"deed": 0, "event": "begun"})]] {
        host.sh(&format!(
            "iptables-legacy -t nat -F POSTROUTING; iptables-legacy -t nat -A POSTROUTING {OTHER}"
        ))?;
        host.journal(&deeds, entries)?;
        let resumed = host.resume()?;
        ensure!(resumed.code == Some(1), "{resumed:?}");
        ensure!(!resumed.said.contains("all that was changed is as it was before"), "{resumed:?}");
        ensure!(host.postrouting()? == [OTHER], "{resumed:?} {:?}", host.postrouting()?);
        let undone = host.undo()?;
        ensure!(host.postrouting()? == [OTHER], "{undone:?} {:?}", host.postrouting()?);
    }
    Ok(())
}

/// Between the look at the chain and the change of it, somebody puts a rule at its top.
fn a_rule_comes_in_between() -> Result<()> {
    let host = Host::up()?;
    let before = host.postrouting()?;
    let insert = format!("iptables-legacy -t nat -I POSTROUTING 1 {OTHER}");
    host.wrap("iptables-legacy-restore", &insert, "")?;
    let Ended { code, said } = host.apply()?;
    ensure!(code == Some(1), "{code:?} {said}");
    let expected = [&[OTHER.to_owned()], &before[..]].concat();
    ensure!(host.postrouting()? == expected, "{:?}\n{said}", host.postrouting()?);
    ensure!(!said.contains("all that was changed is as it was before"), "{said}");
    ensure!(said.contains("POSTROUTING") && said.contains("others"), "{said}");
    Ok(())
}

/// The same when it is taken back: places are another's then, until it is looked at again.
fn a_rule_comes_in_between_going_back() -> Result<()> {
    let host = Host::up()?;
    let before = host.postrouting()?;
    ensure!(host.apply()?.code == Some(0), "it is not applied");
    let insert = format!("iptables-legacy -t nat -I POSTROUTING 1 {OTHER}");
    host.wrap("iptables-legacy-restore", &insert, "")?;
    let Ended { code, said } = host.undo()?;
    ensure!(code == Some(0), "{code:?} {said}");
    let expected = [&[OTHER.to_owned()], &before[..]].concat();
    ensure!(host.postrouting()? == expected, "{:?}\n{said}", host.postrouting()?);
    ensure!(said.contains("What others have changed there"), "{said}");
    Ok(())
}

/// kube-proxy writes its rules just then: it is waited for.
fn others_hold_the_lock() -> Result<()> {
    let host = Host::up()?;
    let hold = "flock /run/xtables.lock sleep 2 > /dev/null 2>&1 & sleep 0.2";
    host.sh(hold)?;
    let Ended { code, said } = host.apply()?;
    ensure!(code == Some(0), "{code:?} {said}");
    host.sh(hold)?;
    let Ended { code, said } = host.undo()?;
    ensure!(code == Some(0), "{code:?} {said}");
    Ok(())
}

/// It stays, in its place, and is told of.
fn a_rule_came_since() -> Result<()> {
    let host = Host::up()?;
    let before = host.postrouting()?;
    ensure!(host.apply()?.code == Some(0), "it is not applied");
    host.sh(&format!("iptables-legacy -t nat -I POSTROUTING 2 {OTHER}"))?;
    let Ended { code, said } = host.undo()?;
    ensure!(code == Some(0), "{code:?} {said}");
    let expected = [before[0].clone(), OTHER.to_owned(), before[1].clone()];
    ensure!(host.postrouting()? == expected, "{:?}", host.postrouting()?);
    ensure!(!said.contains("all that was changed is as it was before"), "{said}");
    ensure!(said.contains("POSTROUTING") && said.contains("others"), "{said}");
    Ok(())
}

const THREE: [&str; 3] = ["-s 10.1.0.0/16 -j RETURN", "-s 10.2.0.0/16 -j RETURN", "-j MASQUERADE"];

/// A host that had these three rules, and whose second was taken away by a journal.
fn without_the_second() -> Result<Host> {
    let host = Host::up()?;
    let [a, b, c] = THREE;
    host.sh(&format!(
        "iptables-legacy -t nat -F POSTROUTING; for rule in '{a}' '{b}' '{c}'; do \
         iptables-legacy -t nat -A POSTROUTING $rule; done"
    ))?;
    host.journal(&[rules(&THREE, &[a, c])], &[])?;
    ensure!(host.resume()?.code == Some(0), "it is not done");
    Ok(host)
}

/// A rule that went comes back ahead of the rule that it stood ahead of, if the one behind which it
/// stood is gone.
fn the_neighbours_went_since() -> Result<()> {
    let [a, b, c] = THREE;
    let host = without_the_second()?;
    host.sh(&format!(
        "iptables-legacy -t nat -D POSTROUTING {a}; iptables-legacy -t nat -I POSTROUTING {OTHER}"
    ))?;
    let Ended { code, said } = host.undo()?;
    ensure!(code == Some(0), "{code:?} {said}");
    ensure!(host.postrouting()? == [OTHER, b, c], "{:?}", host.postrouting()?);
    Ok(())
}

/// Where it belongs can't be told then: it is refused, and the rule is named.
fn no_neighbour_is_left() -> Result<()> {
    let [_, b, _] = THREE;
    let host = without_the_second()?;
    host.sh(&format!(
        "iptables-legacy -t nat -F POSTROUTING; iptables-legacy -t nat -I POSTROUTING {OTHER}"
    ))?;
    let Ended { code, said } = host.undo()?;
    ensure!(code == Some(1), "{code:?} {said}");
    ensure!(said.contains(b) && said.contains("POSTROUTING"), "{said}");
    ensure!(host.postrouting()? == [OTHER], "{:?}", host.postrouting()?);
    Ok(())
}

const PIN: &str = "table ip unmasq {\n\tchain pin {\n\t\ttype nat hook postrouting priority 99; \
    policy accept;\n\t\tip saddr 10.0.0.0/8 ip daddr 10.0.0.0/8 meta mark & 0x00004000 == 0x00000000 \
    snat to ip saddr\n\t}\n}\n";

/// Pins by the plan's own remedy.
fn pinned(host: &Host, journal: &str) -> Result<Ended> {
    let remedy = ["host-masquerade", CAPTURE, "--remedy", "4", "--accept", "by-hand"];
    host.fix(&[&remedy[..], &["--apply", "--journal", journal]].concat())
}

/// It has our table's name, and is not ours.
fn a_table_of_somebody_else() -> Result<()> {
    let host = Host::up()?;
    host.sh("nft add table ip unmasq; nft add chain ip unmasq theirs; nft add rule ip unmasq theirs ip saddr 1.2.3.4 drop")?;
    let there = host.sh("nft list ruleset")?;
    host.journal(&[table(PIN)], &[])?;
    for ended in [host.resume()?, host.undo()?, pinned(&host, "/run/k")?] {
        ensure!(ended.code != Some(0) || ended.said.contains("nothing"), "{ended:?}");
        ensure!(host.sh("nft list ruleset")? == there, "{ended:?}");
    }
    Ok(())
}

/// It was ours, and others have put a rule into it.
fn a_table_that_changed() -> Result<()> {
    let host = Host::up()?;
    let Ended { code, said } = pinned(&host, JOURNAL)?;
    ensure!(code == Some(0), "{code:?} {said}");
    let ours = host.sh("nft list table ip unmasq")?;
    host.sh("nft add rule ip unmasq pin ip saddr 9.9.9.9 accept")?;
    let Ended { code, said } = host.undo()?;
    ensure!(code == Some(1) && said.contains("nft table ip unmasq"), "{code:?} {said}");
    ensure!(host.sh("nft list table ip unmasq")?.contains("9.9.9.9"), "their rule is gone");
    host.sh("nft -a list table ip unmasq | sed -n 's/.*9.9.9.9.*handle /nft delete rule ip unmasq pin handle /p' | sh")?;
    ensure!(host.sh("nft list table ip unmasq")? == ours, "their rule is still there");
    let Ended { code, said } = host.undo()?;
    ensure!(
        code == Some(0) && said.contains("all that was changed is as it was before"),
        "{code:?} {said}"
    );
    ensure!(host.sh("nft list tables")?.is_empty(), "{}", host.sh("nft list tables")?);
    Ok(())
}
