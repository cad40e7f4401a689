//! A ruleset as `nft -f` reads it.

use std::fmt::Write as _;

use unmasq_model::expr::End;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::{Backend, Hook};

use super::address::Net;
use super::iptables::span;
use super::ruleset::{
    Chain, Element, Kept, Limit, Match, Pick, Proto, Rule, Ruleset, Set, SetKind, Table, Target,
};

/// The tables, as commands, and their names with families (to delete them by).
pub(super) fn tables(ruleset: &Ruleset, family: Family) -> (String, Vec<String>) {
    let writer = Writer { sets: &ruleset.sets, family, inet: ruleset.inet };
    let (mut text, mut names) = (String::new(), Vec::new());
    for table in Table::ALL {
        let chains: Vec<&Chain> = ruleset
            .chains
            .iter()
            .filter(|chain| (chain.backend, chain.table) == (Backend::Nft, table))
            .collect();
        if chains.is_empty() {
            continue;
        }
        let kind = if ruleset.inet { "inet" } else { writer.ip() };
        let name = format!("{kind} u_{}", table.name());
        let _ = writeln!(text, "table {name} {{");
        for set in &ruleset.sets {
            if set.backend == Backend::Nft && uses(&chains, &ruleset.sets, set) {
                writer.set(&mut text, set);
            }
        }
        if chains.iter().any(|chain| chain.rules.iter().any(remembers)) {
            writer.clients(&mut text);
        }
        for chain in chains {
            writer.chain(&mut text, chain);
        }
        text.push_str("}\n");
        names.push(name);
    }
    (text, names)
}

fn uses(chains: &[&Chain], sets: &[Set], set: &Set) -> bool {
    let mut tests = chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.matches);
    tests.any(|test| matches!(test, Match::Set { set: index, .. } if sets[*index].name == set.name))
}

/// Whether a rule uses the dynamic set of its table.
fn remembers(rule: &Rule) -> bool {
    let asks = |test: &Match| matches!(test, Match::Kept(Kept::Recent { .. }));
    matches!(rule.target, Target::Remember { .. }) || rule.matches.iter().any(asks)
}

struct Writer<'a> {
    sets: &'a [Set],
    family: Family,
    inet: bool,
}

impl Writer<'_> {
    fn ip(&self) -> &'static str {
        match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }

    fn address(&self, end: End) -> String {
        let field = if end == End::Source { "saddr" } else { "daddr" };
        format!("{} {field}", self.ip())
    }

    fn address_type(&self) -> &'static str {
        match self.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        }
    }

    /// The dynamic set of a table.
    fn clients(&self, text: &mut String) {
        let address = self.address_type();
        let _ = writeln!(text, " set clients {{ type {address}; size 4096; flags dynamic; }}");
    }

    fn set(&self, text: &mut String, set: &Set) {
        let address = self.address_type();
        let kind = match set.kind {
            SetKind::Ip => format!("type {address};"),
            SetKind::Net => format!("type {address}; flags interval;"),
            SetKind::IpPort => format!("type {address} . inet_proto . inet_service;"),
            SetKind::IpPortIp => format!("type {address} . inet_proto . inet_service . {address};"),
            SetKind::IpPortNet => {
                format!("type {address} . inet_proto . inet_service . {address}; flags interval;")
            }
            SetKind::Port | SetKind::List => "type inet_service;".into(),
        };
        let elements: Vec<String> =
            set.elements.iter().map(|element| self.element(element)).collect();
        let _ = writeln!(
            text,
            " set {} {{ {kind} elements = {{ {} }}; }}",
            set.name,
            elements.join(", ")
        );
    }

    fn element(&self, element: &Element) -> String {
        match element {
            Element::Port(port) => port.to_string(),
            Element::Set(index) => self.sets[*index].name.clone(),
            Element::Tuple { first, port, second, .. } => {
                let mut text = first.show(self.family);
                if let Some((proto, port)) = port {
                    let _ = write!(text, " . {} . {port}", proto.name(self.family));
                }
                if let Some(second) = second {
                    let _ = write!(text, " . {}", second.show(self.family));
                }
                text
            }
        }
    }

    fn chain(&self, text: &mut String, chain: &Chain) {
        let _ = writeln!(text, " chain {} {{", chain.name);
        if let Some(base) = chain.base {
            let kind = match chain.table {
                Table::Nat => "nat",
                Table::Mangle if base.hook == Hook::Output => "route",
                Table::Raw | Table::Mangle | Table::Filter | Table::Security => "filter",
            };
            let policy = if base.drop { "drop" } else { "accept" };
            let (hook, priority) = (base.hook.name(), base.priority);
            let _ =
                writeln!(text, "  type {kind} hook {hook} priority {priority}; policy {policy};");
        }
        for rule in &chain.rules {
            let _ = writeln!(text, "  {}", self.rule(rule));
        }
        text.push_str(" }\n");
    }

    fn rule(&self, rule: &Rule) -> String {
        let mut parts: Vec<String> = rule.matches.iter().map(|test| self.test(test)).collect();
        let at = if rule.counts_first { 0 } else { parts.len() };
        parts.insert(at, "counter".into());
        let target = self.target(&rule.target);
        if !target.is_empty() {
            parts.push(target);
        }
        parts.push(format!("comment \"r{}\"", rule.id));
        parts.join(" ")
    }

    fn test(&self, test: &Match) -> String {
        let bang = |not: &bool| if *not { "!= " } else { "" };
        match test {
            Match::Address { end, net, not } => {
                format!("{} {}{}", self.address(*end), bang(not), net.show(self.family))
            }
            Match::AddressRange { end, low, high, not } => {
                let top = Net([low.0[0], low.0[1], low.0[2], *high], 32).show(self.family);
                let low = low.show(self.family);
                format!("{} {}{low}-{top}", self.address(*end), bang(not))
            }
            Match::Device { out, name, any, not } => {
                let (field, star) = (if *out { "oifname" } else { "iifname" }, any);
                format!("{field} {}\"{name}{}\"", bang(not), if *star { "*" } else { "" })
            }
            Match::Proto { proto, not } => {
                format!("meta l4proto {}{}", bang(not), proto.name(self.family))
            }
            Match::Port { proto, end, low, high, not } => {
                format!("{} {}{}", self.port(*proto, *end), bang(not), span((*low, *high), "-"))
            }
            Match::Ports { proto, end, ports, not } => {
                let field = self.port(*proto, end.unwrap_or(End::Destination));
                let list: Vec<String> = ports.iter().map(|range| span(*range, "-")).collect();
                format!("{field} {}{{ {} }}", bang(not), list.join(", "))
            }
            Match::Mark { value, mask, not } => masked("meta mark", *value, *mask, *not),
            Match::CtMark { value, mask, not } => masked("ct mark", *value, *mask, *not),
            Match::Set { set, ends, not } => {
                let set = &self.sets[*set];
                format!("{} {}@{}", self.key(set.kind, ends), bang(not), set.name)
            }
            Match::AddressType { end, kind, not, limit } => {
                let field = if *end == End::Source { "saddr" } else { "daddr" };
                let limit = match limit {
                    Limit::No => "",
                    Limit::In => " . iif",
                    Limit::Out => " . oif",
                };
                format!("fib {field}{limit} type {}{}", bang(not), kind.to_lowercase())
            }
            Match::State { state: state @ ("DNAT" | "SNAT"), not } => {
                format!("ct status {}{}", bang(not), state.to_lowercase())
            }
            Match::State { state, not } => {
                format!("ct state {}{}", bang(not), state.to_lowercase())
            }
            Match::Syn { not } => {
                let compare = if *not { "!=" } else { "==" };
                format!("tcp flags & (fin | syn | rst | ack) {compare} syn")
            }
            Match::Echo { not } => match self.family {
                Family::V4 => format!("icmp type {}echo-request", bang(not)),
                Family::V6 => format!("icmpv6 type {}echo-request", bang(not)),
            },
            Match::Chance { percent } => format!("numgen random mod 4 < {}", percent / 25),
            Match::Kept(Kept::Nth(every)) => format!("numgen inc mod {every} == 0"),
            Match::Kept(Kept::Limit(burst)) => {
                format!("limit rate 1/hour burst {burst} packets")
            }
            Match::Kept(Kept::Recent { not }) => {
                format!("{} {}@clients", self.address(End::Source), bang(not))
            }
            // Only iptables has it.
            Match::Kept(Kept::See) => String::new(),
            Match::Among { end, nets, not } => {
                let nets: Vec<String> = nets.iter().map(|net| net.show(self.family)).collect();
                format!("{} {}{{ {} }}", self.address(*end), bang(not), nets.join(", "))
            }
            Match::Tuples { proto, end, pairs, not } => {
                let pair = |(net, port): &(Net, u16)| format!("{} . {port}", net.show(self.family));
                let pairs: Vec<String> = pairs.iter().map(pair).collect();
                let port = self.port(*proto, End::Destination);
                format!("{} . {port} {}{{ {} }}", self.address(*end), bang(not), pairs.join(", "))
            }
            Match::Back { missing: true } => "fib saddr . iif oif missing".into(),
            Match::Back { missing: false } => "fib saddr . iif oif exists".into(),
        }
    }

    fn port(&self, proto: Proto, end: End) -> String {
        let field = if end == End::Source { "sport" } else { "dport" };
        format!("{} {field}", proto.name(self.family))
    }

    fn key(&self, kind: SetKind, ends: &[End]) -> String {
        let port = |end: End| if end == End::Source { "th sport" } else { "th dport" };
        match (kind, ends) {
            (SetKind::Port | SetKind::List, [end, ..]) => {
                format!("meta l4proto {{ tcp, udp }} {}", port(*end))
            }
            (SetKind::IpPort, [first, second, ..]) => {
                format!("{} . meta l4proto . {}", self.address(*first), port(*second))
            }
            (SetKind::IpPortIp | SetKind::IpPortNet, [first, second, third]) => format!(
                "{} . meta l4proto . {} . {}",
                self.address(*first),
                port(*second),
                self.address(*third)
            ),
            (_, [end, ..]) => self.address(*end),
            (_, []) => String::new(),
        }
    }

    fn target(&self, target: &Target) -> String {
        match target {
            Target::Nothing => String::new(),
            Target::Accept => "accept".into(),
            Target::Drop => "drop".into(),
            Target::Return => "return".into(),
            Target::Reject { reset: true } => "reject with tcp reset".into(),
            Target::Reject { reset: false } => "reject".into(),
            Target::Jump(chain) => format!("jump {chain}"),
            Target::Goto(chain) => format!("goto {chain}"),
            Target::Mark { value, mask } => changed("meta mark", *value, *mask),
            Target::CtMark { value, mask } => changed("ct mark", *value, *mask),
            Target::Save { mask } => format!("ct mark set meta mark & {mask:#x}"),
            Target::Restore { mask } => format!("meta mark set ct mark & {mask:#x}"),
            Target::Dnat { to, ports } => self.translate("dnat", *to, *ports),
            Target::DnatEither { first } => self.translate("dnat", Some(*first), None),
            Target::Snat { to, ports } => self.translate("snat", Some(*to), *ports),
            Target::Netmap { net } => self.translate("snat", Some(*net), None),
            Target::Masquerade { ports, random } => {
                let ports = ports.map(|range| format!(" to :{}", span(range, "-")));
                let random = if *random { " random" } else { "" };
                format!("masquerade{}{random}", ports.unwrap_or_default())
            }
            Target::Redirect { port } => {
                let port = port.map(|port| format!(" to :{port}"));
                format!("redirect{}", port.unwrap_or_default())
            }
            Target::Remember { forget } => {
                let verb = if *forget { "delete" } else { "update" };
                format!("{verb} @clients {{ {} }}", self.address(End::Source))
            }
            Target::NoTrack => "notrack".into(),
            Target::PortVerdicts(entries) => {
                let entry = |(low, high, verdict): &(u16, u16, Target)| {
                    format!("{} : {}", span((*low, *high), "-"), self.verdict(verdict))
                };
                let entries: Vec<String> = entries.iter().map(entry).collect();
                format!("tcp dport vmap {{ {} }}", entries.join(", "))
            }
            Target::AddressVerdicts(end, entries) => {
                let entry = |(net, verdict): &(Net, Target)| {
                    format!("{} : {}", net.show(self.family), self.verdict(verdict))
                };
                let entries: Vec<String> = entries.iter().map(entry).collect();
                format!("{} vmap {{ {} }}", self.address(*end), entries.join(", "))
            }
            Target::DnatMap(entries) => {
                let entry = |(net, port, to, at): &(Net, u16, Net, u16)| {
                    let (net, to) = (net.show(self.family), to.show(self.family));
                    format!("{net} . {port} : {to} . {at}")
                };
                let entries: Vec<String> = entries.iter().map(entry).collect();
                let (ip, entries) = (self.ip(), entries.join(", "));
                format!("dnat {ip} to {ip} daddr . tcp dport map {{ {entries} }}")
            }
            Target::DnatChance(pick, to) => {
                let entry =
                    |(number, net): (usize, &Net)| format!("{number} : {}", net.show(self.family));
                let entries: Vec<String> = to.iter().enumerate().map(entry).collect();
                let (ip, count) = (self.ip(), to.len());
                let number = match pick {
                    Pick::Random => format!("numgen random mod {count}"),
                    Pick::Next => format!("numgen inc mod {count}"),
                    Pick::Hash => format!("jhash {ip} saddr . {ip} daddr mod {count} seed 7"),
                };
                format!("dnat {ip} to {number} map {{ {} }}", entries.join(", "))
            }
        }
    }

    fn verdict(&self, target: &Target) -> String {
        let text = self.target(target);
        if text.is_empty() { "continue".into() } else { text }
    }

    fn translate(&self, verb: &str, to: Option<Net>, ports: Option<(u16, u16)>) -> String {
        let ports = ports.map(|range| format!(":{}", span(range, "-")));
        let Some(to) = to else { return format!("{verb} to {}", ports.unwrap_or_default()) };
        let family = if self.inet { format!(" {}", self.ip()) } else { String::new() };
        let address = to.address(self.family);
        match (ports, self.family) {
            (Some(ports), Family::V6) => format!("{verb}{family} to [{address}]{ports}"),
            (ports, _) => format!("{verb}{family} to {address}{}", ports.unwrap_or_default()),
        }
    }
}

fn masked(field: &str, value: u32, mask: u32, not: bool) -> String {
    let compare = if not { "!=" } else { "==" };
    if mask == u32::MAX {
        return format!("{field} {compare} {value:#x}");
    }
    format!("{field} & {mask:#x} {compare} {value:#x}")
}

fn changed(field: &str, value: u32, mask: u32) -> String {
    if mask == u32::MAX {
        return format!("{field} set {value:#x}");
    }
    format!("{field} set {field} & {:#x} ^ {value:#x}", !mask)
}
