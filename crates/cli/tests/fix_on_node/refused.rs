//! What can't be done is refused in words that say what, where, and what next, and nothing is changed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};

use crate::node::{Node, RULE};
use crate::trials::Test;

pub(crate) const TESTS: &[Test] = &[
    ("refused::a_rule_that_changed_meanwhile", changed),
    ("refused::not_enough_rights", rights),
    ("refused::a_file_that_is_read_only", read_only),
    ("refused::a_file_that_is_immutable", immutable),
    ("refused::a_rule_that_two_programs_wrote", twice),
    ("refused::another_plan_while_one_is_broken_off", broken_off),
];

/// Runs it behind these words: refused, and all is as before.
fn refused(node: &Node, before: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let parts = node.parts()?;
    let before: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
    node.says_behind(&before, &node.apply(), code, words)?;
    ensure!(node.parts()? == parts, "something changed");
    ensure!(!node.is_littered(), "something is left beside a file");
    Ok(())
}

fn changed() -> Result<()> {
    let node = Node::up()?;
    let chain = "node hdss7-21, iptables-legacy table nat, chain POSTROUTING";
    node.namespace()?.script("iptables-legacy -t nat -I POSTROUTING 1 -d 10.9.9.9 -j ACCEPT")?;
    let words = [chain, "is no longer as it was when it was read", "make the plan again"];
    refused(&node, &[], 1, &words)?;
    ensure!(!node.journal().exists(), "there is a journal of nothing");
    Ok(())
}

fn rights() -> Result<()> {
    let node = Node::up()?;
    fs::set_permissions(node.path(""), Permissions::from_mode(0o755))?;
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    refused(&node, &nobody, 2, &["changing this host's rules and files needs root", "sudo"])
}

fn read_only() -> Result<()> {
    let node = Node::up()?;
    let mount = "mount --bind /etc/iptables /etc/iptables
        mount -o remount,bind,ro /etc/iptables
        exec \"$@\"";
    let words = [
        "node hdss7-21, /etc/iptables/rules.v4: Read-only file system",
        "mount it so that it may",
        "taken back: all that was changed is as it was before",
    ];
    refused(&node, &["sh", "-ec", mount, "sh"], 1, &words)
}

/// In a tmpfs, which knows the attribute wherever the tests' own folder may be.
fn immutable() -> Result<()> {
    let node = Node::up()?;
    let mount = "cp /etc/iptables/rules.v4 /tmp/rules.$$
        mount -t tmpfs tmpfs /etc/iptables
        mv /tmp/rules.$$ /etc/iptables/rules.v4
        chattr +i /etc/iptables/rules.v4";
    let tried = node.namespace()?.script(
        "unshare --mount sh -ec 'mount -t tmpfs tmpfs /mnt; touch /mnt/x; chattr +i /mnt/x'",
    );
    if let Err(why) = tried {
        let why = format!("no file can be made immutable here (chattr +i on a tmpfs): {why:#}");
        return Err(io::Error::new(io::ErrorKind::Unsupported, why).into());
    }
    let words = [
        "node hdss7-21, /etc/iptables/rules.v4: Operation not permitted",
        "lsattr says whether it is immutable (chattr -i ends it)",
        "taken back: all that was changed is as it was before",
    ];
    refused(&node, &["sh", "-ec", &format!("{mount}\nexec \"$@\""), "sh"], 1, &words)
}

fn twice() -> Result<()> {
    let node = Node::with(&format!("iptables-legacy -t nat {RULE}"))?;
    let words = [
        "node hdss7-21, iptables-legacy table nat, chain POSTROUTING has the rule `-A POSTROUTING",
        "2 times",
        "take away those that nobody owns first",
    ];
    refused(&node, &[], 1, &words)?;
    ensure!(!node.journal().exists(), "there is a journal of nothing");
    Ok(())
}

fn broken_off() -> Result<()> {
    let node = Node::up()?;
    node.says(&node.apply(), 0, &["done"])?;
    let text = fs::read_to_string(node.journal())?;
    let whole: Vec<&str> = text.lines().collect();
    fs::write(node.journal(), whole[..whole.len() - 2].join("\n") + "\n")?;
    let words = ["was broken off", "unmasq fix --resume", "unmasq fix --undo"];
    let with = |from: &str, to: &str| -> Vec<String> {
        let other = |word: String| if word == from { to.to_owned() } else { word };
        node.apply().into_iter().map(other).collect()
    };
    // Another plan, and none.
    node.says(&with("2", "1"), 2, &words)?;
    node.says(&with("2", "99"), 1, &words)?;
    node.says(&node.undo(), 0, &["taken back"]).map(drop)
}
