//! Whether a cluster that is up can become another one.
//!
//! In: the plans before and after. Out: an error that names the first thing that would have to be
//! built anew. Addresses and routes can change, and rules, which no plan has; hosts, links and
//! kernel settings can't.

use anyhow::{Result, bail};

use super::plan::{Host, Plan};

/// Fails where the new plan needs more than other addresses and routes.
pub(super) fn check(old: &Plan, new: &Plan) -> Result<()> {
    if let Some(host) = new.hosts.iter().find(|host| old.index(&host.name).is_none()) {
        bail!("a remedy can't add hosts: {}", host.name);
    }
    if let Some(host) = old.hosts.iter().find(|host| new.index(&host.name).is_none()) {
        bail!("a remedy can't remove hosts: {}", host.name);
    }
    for (old, new) in old.hosts.iter().zip(&new.hosts) {
        let name = &old.name;
        if (&new.name, new.kind, new.node) != (name, old.kind, old.node) {
            bail!("a remedy can't change what hosts there are: {name}");
        }
        differs(name, "kernel settings", &settings(old), &settings(new))?;
        differs(name, "links and neighbours", &links(old), &links(new))?;
    }
    differs("the network", "cables", &old.links, &new.links)
}

fn settings(host: &Host) -> Vec<String> {
    let all = host.settings.iter().chain(&host.device_settings);
    all.map(|(name, value)| format!("{name} = {value}")).collect()
}

/// All commands but those that the cluster can undo.
fn links(host: &Host) -> Vec<String> {
    let all = host.ip.iter().chain(&host.bridge);
    let stays = |line: &&String| !line.starts_with("addr add ") && !line.starts_with("route add ");
    all.filter(stays).cloned().collect()
}

fn differs(whose: &str, what: &str, old: &[String], new: &[String]) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let only_in = |one: &[String], other: &[String]| -> String {
        let first = one.iter().find(|line| !other.contains(line));
        first.map_or("nothing".to_owned(), |line| format!("`{line}`"))
    };
    bail!(
        "a remedy can change rules, addresses and routes, but not {what} of {whose}: {} would \
         become {}",
        only_in(old, new),
        only_in(new, old)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::plan::plan;
    use crate::scenario::{BUILTIN, Scenario, builtin};

    /// What is said of a change of a scenario that comes with the lab.
    fn said(name: &str, from: &str, to: &str) -> String {
        let text = builtin(name).unwrap();
        assert!(text.contains(from), "{from}");
        let old = Scenario::parse(text).unwrap();
        let new = Scenario::parse(&text.replacen(from, to, 1)).unwrap();
        check(&plan(&old), &plan(&new)).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_cannot_change_is_refused_by_its_name() {
        let said = |from, to| said("service-cluster-policy", from, to);
        let links = said("between: flannel-vxlan", "between: routed");
        assert!(links.contains("not links and neighbours of n1: `link add flannel.1"), "{links}");
        let attached = said("between: flannel-vxlan", "between: flannel-vxlan\n  pods-by: route");
        assert!(attached.contains("of n1: "), "{attached}");
        let settings = said("kube-proxy: {mode: nftables}", "kube-proxy: {mode: iptables}");
        let expected = "not kernel settings of n1: nothing would become \
                        `net/ipv4/conf/all/route_localnet = 1`";
        assert!(settings.ends_with(expected), "{settings}");
        let more =
            said("\noutside:\n", "\noutside:\n  - {name: late, addresses: [172.21.0.9/24]}\n");
        assert_eq!(more, "a remedy can't add hosts: late");
        let old = Scenario::parse(builtin("service-cluster-policy").unwrap()).unwrap();
        let mut new = old.clone();
        new.outside.retain(|host| host.name != "office");
        let fewer = check(&plan(&old), &plan(&new)).unwrap_err().to_string();
        assert_eq!(fewer, "a remedy can't remove hosts: office");
    }

    #[test]
    fn addresses_and_routes_can_change_and_so_can_every_builtin_remedy() {
        let routed = said("service-cluster-policy", "203.0.113.80", "203.0.113.81");
        assert_eq!(routed, "");
        for (name, text) in BUILTIN {
            let mut old = plan(&Scenario::parse(text).unwrap());
            for after in Scenario::after_steps(text).unwrap() {
                let new = plan(&after);
                check(&old, &new).unwrap_or_else(|error| panic!("{name}: {error:#}"));
                old = new;
            }
        }
    }
}
