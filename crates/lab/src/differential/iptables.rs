//! A ruleset as iptables-restore reads it, and its sets as `ipset restore` does.

use std::fmt::Write as _;

use unmasq_model::expr::End;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::Backend;

use super::address::Net;
use super::ruleset::{
    Element, Kept, Limit, Match, Proto, Rule, Ruleset, Set, SetKind, Table, Target, chain_name,
};

/// The tables of one back end; all that it ever makes, so that a load leaves nothing of the last.
pub(super) fn tables(ruleset: &Ruleset, backend: Backend, family: Family, all: &[Table]) -> String {
    let mut text = String::new();
    for table in all {
        let chains: Vec<_> = ruleset
            .chains
            .iter()
            .filter(|chain| (chain.backend, chain.table) == (backend, *table))
            .collect();
        let _ = writeln!(text, "*{}", table.name());
        for hook in table.hooks() {
            let name = chain_name(*hook);
            let dropping = |base: super::ruleset::Base| base.hook == *hook && base.drop;
            let drop = chains.iter().any(|chain| chain.base.is_some_and(dropping));
            let _ = writeln!(text, ":{name} {} [0:0]", if drop { "DROP" } else { "ACCEPT" });
        }
        for chain in chains.iter().filter(|chain| chain.base.is_none()) {
            let _ = writeln!(text, ":{} - [0:0]", chain.name);
        }
        for chain in &chains {
            for rule in &chain.rules {
                let _ = writeln!(text, "-A {}{}", chain.name, spell(rule, &ruleset.sets, family));
            }
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// Commands that make the sets.
pub(super) fn sets(ruleset: &Ruleset, family: Family) -> String {
    let mut text = String::new();
    for set in ruleset.sets.iter().filter(|set| set.backend != Backend::Nft) {
        let kind = match set.kind {
            SetKind::Ip => "hash:ip",
            SetKind::Net => "hash:net",
            SetKind::IpPort => "hash:ip,port",
            SetKind::IpPortIp => "hash:ip,port,ip",
            SetKind::IpPortNet => "hash:ip,port,net",
            SetKind::Port => "bitmap:port range 0-65535",
            SetKind::List => "list:set",
        };
        let hash = !matches!(set.kind, SetKind::Port | SetKind::List);
        let family_option = match family {
            Family::V4 if hash => " family inet",
            Family::V6 if hash => " family inet6",
            Family::V4 | Family::V6 => "",
        };
        let _ = writeln!(text, "create {} {kind}{family_option}", set.name);
        for element in &set.elements {
            let _ = writeln!(text, "add {} {}", set.name, member(element, &ruleset.sets, family));
        }
    }
    text
}

fn member(element: &Element, sets: &[Set], family: Family) -> String {
    match element {
        Element::Port(port) => port.to_string(),
        Element::Set(index) => sets[*index].name.clone(),
        Element::Tuple { first, port, second, nomatch } => {
            let mut text = first.show(family);
            if let Some((proto, port)) = port {
                let _ = write!(text, ",{}:{port}", proto.name(family));
            }
            if let Some(second) = second {
                let _ = write!(text, ",{}", second.show(family));
            }
            text + if *nomatch { " nomatch" } else { "" }
        }
    }
}

impl Proto {
    /// As iptables and nft call it.
    pub(super) fn name(self, family: Family) -> &'static str {
        match (self, family) {
            (Proto::Tcp, _) => "tcp",
            (Proto::Udp, _) => "udp",
            (Proto::Icmp, Family::V4) => "icmp",
            (Proto::Icmp, Family::V6) => "ipv6-icmp",
        }
    }
}

fn spell(rule: &Rule, sets: &[Set], family: Family) -> String {
    let mut text = String::new();
    for test in &rule.matches {
        text.push(' ');
        text.push_str(&spell_test(test, sets, family));
    }
    let _ = write!(text, " -m comment --comment r{}", rule.id);
    text + &spell_target(&rule.target, family)
}

fn ends(end: &End) -> &'static str {
    match end {
        End::Source => "src",
        End::Destination => "dst",
    }
}

fn spell_test(test: &Match, sets: &[Set], family: Family) -> String {
    let bang = |not: &bool| if *not { "! " } else { "" };
    match test {
        Match::Address { end, net, not } => {
            let letter = if *end == End::Source { "s" } else { "d" };
            format!("{}-{letter} {}", bang(not), net.show(family))
        }
        Match::AddressRange { end, low, high, not } => {
            let top = Net([low.0[0], low.0[1], low.0[2], *high], 32);
            let (low, top) = (low.show(family), top.show(family));
            format!("-m iprange {}--{}-range {low}-{top}", bang(not), ends(end))
        }
        Match::Device { out, name, any, not } => {
            let (letter, plus) = (if *out { "o" } else { "i" }, if *any { "+" } else { "" });
            format!("{}-{letter} {name}{plus}", bang(not))
        }
        Match::Proto { proto, not } => format!("{}-p {}", bang(not), proto.name(family)),
        Match::Port { proto, end, low, high, not } => {
            let (name, letter) = (proto.name(family), if *end == End::Source { "s" } else { "d" });
            let bang = bang(not);
            if low == high {
                format!("-p {name} -m {name} {bang}--{letter}port {low}")
            } else {
                format!("-p {name} -m {name} {bang}--{letter}port {low}:{high}")
            }
        }
        Match::Ports { proto, end, ports, not } => {
            let option = match end {
                None => "ports",
                Some(End::Source) => "sports",
                Some(End::Destination) => "dports",
            };
            let list: Vec<String> = ports.iter().map(|range| span(*range, ":")).collect();
            let (name, list) = (proto.name(family), list.join(","));
            format!("-p {name} -m multiport {}--{option} {list}", bang(not))
        }
        Match::Mark { value, mask, not } => {
            format!("-m mark {}--mark {value:#x}/{mask:#x}", bang(not))
        }
        Match::CtMark { value, mask, not } => {
            format!("-m connmark {}--mark {value:#x}/{mask:#x}", bang(not))
        }
        Match::Set { set, ends: dimensions, not } => {
            let list: Vec<&str> = dimensions.iter().map(ends).collect();
            format!("-m set {}--match-set {} {}", bang(not), sets[*set].name, list.join(","))
        }
        Match::AddressType { end, kind, not, limit } => {
            let limit = match limit {
                Limit::No => "",
                Limit::In => " --limit-iface-in",
                Limit::Out => " --limit-iface-out",
            };
            format!("-m addrtype {}--{}-type {kind}{limit}", bang(not), ends(end))
        }
        Match::State { state, not } => format!("-m conntrack {}--ctstate {state}", bang(not)),
        Match::Syn { not } => format!("-p tcp -m tcp {}--syn", bang(not)),
        Match::Echo { not } => match family {
            Family::V4 => format!("-p icmp -m icmp {}--icmp-type 8", bang(not)),
            Family::V6 => format!("-p ipv6-icmp -m icmp6 {}--icmpv6-type 128", bang(not)),
        },
        Match::Chance { percent } => {
            format!("-m statistic --mode random --probability 0.{percent:02}")
        }
        Match::Kept(Kept::Nth(every)) => {
            format!("-m statistic --mode nth --every {every} --packet 0")
        }
        Match::Kept(Kept::Limit(burst)) => format!("-m limit --limit 1/h --limit-burst {burst}"),
        Match::Kept(Kept::Recent { not }) => {
            format!("-m recent {}--rcheck --seconds 600 --name clients --rsource", bang(not))
        }
        Match::Kept(Kept::See) => "-m recent --set --name clients --rsource".into(),
        Match::Among { .. } | Match::Tuples { .. } | Match::Back { .. } => String::new(),
    }
}

/// `80`, or `80:90`.
pub(super) fn span((low, high): (u16, u16), between: &str) -> String {
    if low == high { low.to_string() } else { format!("{low}{between}{high}") }
}

/// An address with ports behind it.
fn endpoint(to: Option<Net>, ports: Option<(u16, u16)>, family: Family) -> String {
    let Some(net) = to else {
        return ports.map(|range| format!(":{}", span(range, "-"))).unwrap_or_default();
    };
    let address = net.address(family);
    match (ports, family) {
        (None, _) => address.to_string(),
        (Some(range), Family::V4) => format!("{address}:{}", span(range, "-")),
        (Some(range), Family::V6) => format!("[{address}]:{}", span(range, "-")),
    }
}

fn spell_target(target: &Target, family: Family) -> String {
    match target {
        Target::Nothing => String::new(),
        Target::Accept => " -j ACCEPT".into(),
        Target::Drop => " -j DROP".into(),
        Target::Return => " -j RETURN".into(),
        Target::Reject { reset: true } => " -j REJECT --reject-with tcp-reset".into(),
        Target::Reject { reset: false } => " -j REJECT".into(),
        Target::Jump(chain) => format!(" -j {chain}"),
        Target::Goto(chain) => format!(" -g {chain}"),
        Target::Mark { value, mask } => format!(" -j MARK --set-xmark {value:#x}/{mask:#x}"),
        Target::CtMark { value, mask } => format!(" -j CONNMARK --set-xmark {value:#x}/{mask:#x}"),
        Target::Save { mask } => {
            format!(" -j CONNMARK --save-mark --nfmask {mask:#x} --ctmask {mask:#x}")
        }
        Target::Restore { mask } => {
            format!(" -j CONNMARK --restore-mark --nfmask {mask:#x} --ctmask {mask:#x}")
        }
        Target::Dnat { to, ports } => {
            format!(" -j DNAT --to-destination {}", endpoint(*to, *ports, family))
        }
        Target::DnatEither { first } => {
            let [a, b, c, d] = first.0;
            let (low, high) = (first.show(family), Net([a, b, c, d + 1], 32).show(family));
            format!(" -j DNAT --to-destination {low}-{high}")
        }
        Target::Snat { to, ports } => {
            format!(" -j SNAT --to-source {}", endpoint(Some(*to), *ports, family))
        }
        Target::Masquerade { ports, random } => {
            let ports = ports.map(|range| format!(" --to-ports {}", span(range, "-")));
            let random = if *random { " --random" } else { "" };
            format!(" -j MASQUERADE{}{random}", ports.unwrap_or_default())
        }
        Target::Redirect { port } => {
            let port = port.map(|port| format!(" --to-ports {port}"));
            format!(" -j REDIRECT{}", port.unwrap_or_default())
        }
        Target::Netmap { net } => format!(" -j NETMAP --to {}", net.show(family)),
        Target::NoTrack => " -j CT --notrack".into(),
        Target::PortVerdicts(_)
        | Target::AddressVerdicts(..)
        | Target::DnatMap(_)
        | Target::DnatChance(..)
        | Target::Remember { .. } => String::new(),
    }
}
