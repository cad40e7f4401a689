//! A kernel takes what is generated, gives it back as it was written, and takes it again.

use anyhow::{Context, Result, ensure};
use unmasq_cluster::kubernetes::Objects;
use unmasq_lab::Namespace;
use unmasq_model::packet::Family;
use unmasq_provider::kube_proxy::{Config, Mode, jumps, rules};

use crate::{cluster, iptables, nftables, same};

/// What a test runs.
pub(crate) type Test = Box<dyn FnOnce() -> Result<()> + Send>;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Each configuration in each mode, iptables mode with both back ends.
pub(crate) fn tests() -> Vec<(String, Test)> {
    let mut tests: Vec<(String, Test)> = vec![
        ("jumps_go_ahead_of_other_rules".into(), Box::new(ahead)),
        ("open_and_overlapping_source_ranges_load".into(), Box::new(source_ranges)),
    ];
    for (mode, tool) in
        [(Mode::Iptables, "legacy"), (Mode::Iptables, "nft"), (Mode::Nftables, "nftables")]
    {
        for variant in cluster::VARIANTS {
            let name = format!("{tool}_gives_back_{}", variant.0);
            tests.push((name, Box::new(move || given_back(mode, tool, variant))));
        }
    }
    tests
}

fn given_back(mode: Mode, tool: &str, variant: cluster::Variant) -> Result<()> {
    let objects = cluster::objects()?;
    let config = cluster::config(mode, variant)?;
    for family in FAMILIES {
        let check = || match mode {
            Mode::Iptables => iptables_mode(&objects, &config, family, tool),
            Mode::Nftables => nftables_mode(&objects, &config, family),
        };
        check().with_context(|| family.to_string())?;
    }
    Ok(())
}

fn iptables_mode(objects: &Objects, config: &Config, family: Family, tool: &str) -> Result<()> {
    let namespace = Namespace::new("proxy")?;
    let (jumps, rules) = (jumps(config), rules(objects, config, family));
    restore(&namespace, family, tool, &jumps)?;
    restore(&namespace, family, tool, &rules)?;
    let written = iptables::kube_chains(&(jumps + &rules))?;
    same(&written, &iptables::kube_chains(&save(&namespace, family, tool)?)?)?;
    restore(&namespace, family, tool, &rules).context("once more")?;
    same(&written, &iptables::kube_chains(&save(&namespace, family, tool)?)?)
}

fn nftables_mode(objects: &Objects, config: &Config, family: Family) -> Result<()> {
    let namespace = Namespace::new("proxy")?;
    let rules = rules(objects, config, family);
    let written = nftables::blocks(&rules, family)?;
    for _ in 0..2 {
        namespace.exec_with(&["nft", "-f", "-"], &rules)?;
        let listed = namespace.exec(&["nft", "list", "ruleset"])?;
        same(&written, &nftables::blocks(&listed, family)?)?;
    }
    Ok(())
}

fn ahead() -> Result<()> {
    let namespace = Namespace::new("ahead")?;
    let others = "*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n*nat\n-A POSTROUTING -j ACCEPT\nCOMMIT\n";
    restore(&namespace, Family::V4, "nft", others)?;
    restore(&namespace, Family::V4, "nft", &jumps(&Config::new(Mode::Iptables, "n1")))?;
    let saved = save(&namespace, Family::V4, "nft")?;
    for chain in ["FORWARD", "POSTROUTING"] {
        let rules = || saved.lines().filter(|line| line.starts_with(&format!("-A {chain} ")));
        let last = rules().next_back().with_context(|| format!("{chain} is empty"))?;
        ensure!(last == format!("-A {chain} -j ACCEPT"), "{saved}");
        ensure!(rules().any(|rule| rule.contains("-j KUBE-")), "{saved}");
    }
    Ok(())
}

/// nft merges such ranges when it lists them, so they are only loaded.
fn source_ranges() -> Result<()> {
    let mut objects = cluster::objects()?;
    for service in &mut objects.services {
        service.spec.load_balancer_source_ranges = vec![
            "0.0.0.0/0".parse()?,
            "10.0.0.0/8".parse()?,
            "10.0.0.0/16".parse()?,
            "::/0".parse()?,
            "fd00::/8".parse()?,
        ];
    }
    let namespace = Namespace::new("ranges")?;
    for family in FAMILIES {
        let nftables = rules(&objects, &Config::new(Mode::Nftables, "n1"), family);
        namespace.exec_with(&["nft", "-f", "-"], &nftables)?;
        let iptables = rules(&objects, &Config::new(Mode::Iptables, "n1"), family);
        for tool in ["legacy", "nft"] {
            restore(&namespace, family, tool, &iptables)?;
        }
    }
    Ok(())
}

fn restore(namespace: &Namespace, family: Family, tool: &str, rules: &str) -> Result<()> {
    let program = format!("{}-{tool}-restore", program(family));
    namespace.exec_with(&[&program, "--noflush"], rules).map(drop)
}

fn save(namespace: &Namespace, family: Family, tool: &str) -> Result<String> {
    namespace.exec(&[&format!("{}-{tool}-save", program(family))])
}

fn program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}
