//! ip-masq-agent: its list, which it reads every minute; it then writes its chain anew as a whole
//! (cmd/ip-masq-agent/ip-masq-agent.go, `syncMasqRules`).

use ipnet::IpNet;
use unmasq_audit::Owner;
use unmasq_cluster::{Cluster, Node};
use unmasq_model::host::Host;
use unmasq_model::packet::Family;
use unmasq_model::rule::{Action, NatKind, Rule, Step};
use unmasq_model::ruleset::{Backend, Table, TableFamily};
use unmasq_parse::iptables;
use unmasq_provider::IpMasqAgent;

use super::{Reactions, foretold};
use crate::transplant::{agreeing, transplant};

const CHAIN: &str = "IP-MASQ-AGENT";
/// It refuses a longer list, unless `cidrLimit` says more.
const LIMIT: usize = 64;

pub(super) fn react(before: &Cluster, after: &mut Cluster, reactions: &mut Reactions) {
    let (old, new) = (&before.settings.ip_masq_agent, &after.settings.ip_masq_agent);
    let list = |cluster: &Cluster| {
        let setting = cluster.settings.ip_masq_agent.non_masquerade_cidrs.first();
        setting.map(|setting| setting.value.clone())
    };
    let same_rest = old.masq_link_local == new.masq_link_local
        && old.nomasq_all_reserved_ranges == new.nomasq_all_reserved_ranges;
    if list(before) == list(after) && same_rest {
        return;
    }
    let reserved = new.nomasq_all_reserved_ranges.first().is_some_and(|setting| setting.value);
    let lists = match (list(before), list(after)) {
        _ if !same_rest => Err("more than its list changes, which isn't foretold"),
        (Some(old), Some(new)) => Ok((old, new)),
        (_, None) => Err("its list is taken away or can't be read, which isn't foretold"),
        (None, Some(_)) if reserved => {
            Err("without a list it left out all reserved ranges, which isn't foretold")
        }
        (None, Some(new)) => Ok((IpMasqAgent::default().non_masquerade, new)),
    };
    let mut written = Vec::new();
    for node in after.nodes.iter_mut().filter(|node| may_run_on(node)) {
        let Some(host) = &mut node.host else { continue };
        let lists = lists.as_ref().map_err(|why| (*why).to_owned());
        match lists.and_then(|(old, new)| on_host(host, old, new)) {
            Ok(true) => written.push(node.name.clone()),
            Ok(false) => {}
            Err(why) => reactions.unforeseen(Owner::IpMasqAgent, &node.name, why),
        }
    }
    let text = "ip-masq-agent writes its chain for the list, within a minute";
    reactions.did(Owner::IpMasqAgent, text, written);
}

/// Where its chain is, or where it can't be told that it doesn't run.
fn may_run_on(node: &Node) -> bool {
    let runs = |name: &str| name == "ip-masq-agent";
    let processes = node.processes.as_ref();
    processes.is_none_or(|all| all.iter().any(|one| runs(&one.name)))
        || node.host.as_ref().is_some_and(|host| host.ruleset.tables.iter().any(has_chain))
}

fn has_chain(table: &Table) -> bool {
    let id = table.chain_by_name(CHAIN);
    id.is_some_and(|id| !table.chain(id).rules.is_empty())
}

/// Whether its rules are others then.
fn on_host(host: &mut Host, old: &[IpNet], new: &[IpNet]) -> Result<bool, String> {
    let file = foretold(host);
    let tables = &mut host.ruleset.tables;
    if !tables.iter().any(has_chain) {
        return Err(format!("there is no chain {CHAIN}: it has another name, or none was written"));
    }
    let serves_v6 = tables.iter().any(|table| table.family == TableFamily::Ip6 && has_chain(table));
    if !serves_v6 && new.iter().any(|net| Family::of(net.addr()) == Family::V6) {
        return Err(
            "it refuses a list with IPv6 networks, unless it runs with --enable-ipv6".into()
        );
    }
    if new.len() > LIMIT {
        return Err(format!("it refuses a list of more than {LIMIT} networks"));
    }
    let mut changed = false;
    for table in tables.iter_mut().filter(|table| has_chain(table)) {
        let family = match table.family {
            TableFamily::Ip => Family::V4,
            TableFamily::Ip6 => Family::V6,
            TableFamily::Inet | TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => {
                continue;
            }
        };
        let last = last_rule(table)?;
        let written = |list: &[IpNet], masquerade_link_local| {
            let agent = IpMasqAgent {
                non_masquerade: list.to_vec(),
                masquerade_link_local,
                ..IpMasqAgent::default()
            };
            chain_of(&agent, family, &last, table.backend, file)
        };
        // Of the two families' switches only one is read: its rules say what holds.
        let fits = |link_local: &bool| {
            written(old, *link_local).is_some_and(|chain| agreeing(table, &chain) == 1)
        };
        let pair = [false, true]
            .into_iter()
            .find(fits)
            .and_then(|link_local| Some((written(old, link_local)?, written(new, link_local)?)));
        let Some((old, new)) = pair else {
            return Err(format!("the rules of its chain {CHAIN} are not those of its list"));
        };
        let as_it_was = table.clone();
        transplant(table, &old, &new).map_err(|why| why.to_string())?;
        changed |= *table != as_it_was;
    }
    Ok(changed)
}

/// Its last rule, whose options are those of its version and flags, and stay.
fn last_rule(table: &Table) -> Result<String, String> {
    let rules = table.chain_by_name(CHAIN).map_or(&[][..], |id| &table.chain(id).rules);
    let masquerades = |rule: &&Rule| {
        rule.steps.iter().any(|step| match step {
            Step::Do(Action::Nat(nat)) => nat.kind == NatKind::Masquerade,
            Step::Do(_) | Step::Test(_) => false,
        })
    };
    let last = rules.last().filter(masquerades);
    let last = last.ok_or_else(|| format!("the last rule of chain {CHAIN} doesn't masquerade"))?;
    Ok(last.text.to_string())
}

/// The chain as it is written, alone in its table.
fn chain_of(
    agent: &IpMasqAgent,
    family: Family,
    last: &str,
    backend: Backend,
    file: unmasq_model::origin::FileId,
) -> Option<Table> {
    let text = agent.rules(family).iptables();
    // iptables-save has destinations ahead of matches.
    let listed = |rule: &str| match rule.split_once(" -d ") {
        Some((comment, rest)) => {
            let (net, verdict) = rest.split_once(' ').unwrap_or((rest, ""));
            format!("-A {CHAIN} -d {net} {comment} {verdict}")
        }
        None => format!("-A {CHAIN} {rule}"),
    };
    let own = text.lines().filter_map(|line| line.strip_prefix(&format!("-A {CHAIN} ")));
    let mut own: Vec<String> = own.map(listed).collect();
    own.pop();
    let text = format!("*nat\n:{CHAIN} - [0:0]\n{}\n{last}\nCOMMIT\n", own.join("\n"));
    let table_family = match family {
        Family::V4 => TableFamily::Ip,
        Family::V6 => TableFamily::Ip6,
    };
    iptables::parse(&text, file, table_family, backend).0.into_iter().next()
}
