//! Random rulesets: tables, chains and what their rules do. Tests are in [`super::test`].
//!
//! In: a stream of numbers, whose rules, and which family. Out: a [`Ruleset`] that the kernel
//! accepts: targets stand only where it takes them.

use unmasq_model::expr::End;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::{Backend, Hook, xtables_base};

use super::Kind;
use super::address::{DEVICES, LOOPBACK, MARKS, MASKS, NETS, Net, OWN, PORTS, SERVERS};
use super::random::Random;
use super::ruleset::{
    Base, Chain, Element, Match, Open, Pick, Proto, Rule, Ruleset, Set, SetKind, Table, Target,
    chain_name,
};
use super::test;

/// Priorities that no chain of iptables has.
const PRIORITIES: [i32; 10] = [-350, -250, -175, -120, -99, -50, 7, 60, 95, 105];

/// A ruleset. `owners` says whose iptables' tables are ([`owners`]).
pub(super) fn ruleset(
    random: &mut Random,
    owners: [Backend; 5],
    mixed: bool,
    family: Family,
) -> Ruleset {
    let inet = random.percent(30);
    let open = match random.below(20) {
        0 => Open::Chance,
        1 => Open::Order,
        _ => Open::Nothing,
    };
    let mut ruleset = Ruleset { owners, sets: Vec::new(), chains: Vec::new(), inet, open };
    if owners.iter().any(|owner| *owner != Backend::Nft) {
        sets(random, Backend::Legacy, &mut ruleset.sets);
    }
    if mixed || owners.contains(&Backend::Nft) {
        sets(random, Backend::Nft, &mut ruleset.sets);
    }
    for (table, owner) in Table::ALL.into_iter().zip(owners) {
        let wanted = match table {
            Table::Nat | Table::Mangle => 90,
            Table::Filter => 75,
            Table::Raw => 30,
            Table::Security => 10,
        };
        let mut backends = Vec::new();
        if random.percent(wanted) {
            backends.push(owner);
            if mixed && random.percent(40) {
                backends.push(Backend::Nft);
            }
        }
        for backend in backends {
            let sets = &ruleset.sets;
            let mut maker = Maker { random, sets, open, backend, table, family };
            let chains = maker.chains(mixed);
            ruleset.chains.extend(chains);
        }
    }
    let rules = ruleset.chains.iter_mut().flat_map(|chain| &mut chain.rules);
    rules.enumerate().for_each(|(number, rule)| rule.id = number);
    ruleset
}

/// Whose iptables' tables are on a node: a table of legacy can't be unmade, and where both back
/// ends have one table, nobody can tell from listings whose chain runs first.
pub(super) fn owners(random: &mut Random, kind: Kind) -> [Backend; 5] {
    Table::ALL.map(|_| match kind {
        Kind::Legacy => Backend::Legacy,
        Kind::IptablesNft => Backend::IptablesNft,
        Kind::Nft => Backend::Nft,
        Kind::Mixed => random.pick(&[Backend::Legacy, Backend::IptablesNft]),
    })
}

fn sets(random: &mut Random, backend: Backend, sets: &mut Vec<Set>) {
    let kinds = [
        SetKind::Ip,
        SetKind::Net,
        SetKind::IpPort,
        SetKind::IpPortIp,
        SetKind::IpPortNet,
        SetKind::Port,
    ];
    let first = sets.len();
    for _ in 0..random.below(4) {
        let kind = random.pick(&kinds);
        let name = format!("s{}", sets.len());
        let mut elements: Vec<Element> = Vec::new();
        for _ in 0..1 + random.below(6) {
            let element = element(random, kind, backend);
            // What differs in nomatch alone is one element; nft has no nomatch.
            let same = elements.iter().any(|known| known.collides(&element, backend));
            if !same {
                elements.push(element);
            }
        }
        sets.push(Set { backend, name, kind, elements });
    }
    let members: Vec<usize> = (first..sets.len())
        .filter(|index| sets[*index].kind != SetKind::Port && sets[*index].kind.dimensions() == 1)
        .collect();
    if backend != Backend::Nft && !members.is_empty() && random.percent(50) {
        let name = format!("s{}", sets.len());
        let elements = members.into_iter().map(Element::Set).collect();
        sets.push(Set { backend, name, kind: SetKind::List, elements });
    }
}

fn element(random: &mut Random, kind: SetKind, backend: Backend) -> Element {
    let host = test::host(random);
    let port = (random.pick(&[Proto::Tcp, Proto::Udp]), random.pick(&PORTS));
    // The kernel refuses a network of length 0.
    let net = if random.percent(30) { test::host(random) } else { random.pick(&NETS) };
    let nomatch = backend != Backend::Nft && random.percent(25);
    match kind {
        SetKind::Ip => Element::Tuple { first: host, port: None, second: None, nomatch: false },
        SetKind::Net => Element::Tuple { first: net, port: None, second: None, nomatch },
        SetKind::IpPort => {
            Element::Tuple { first: host, port: Some(port), second: None, nomatch: false }
        }
        SetKind::IpPortIp => Element::Tuple {
            first: host,
            port: Some(port),
            second: Some(test::host(random)),
            nomatch: false,
        },
        SetKind::IpPortNet => {
            Element::Tuple { first: host, port: Some(port), second: Some(net), nomatch }
        }
        SetKind::Port | SetKind::List => Element::Port(random.pick(&PORTS)),
    }
}

impl Element {
    /// Whether both can't be in one set.
    fn collides(&self, other: &Element, backend: Backend) -> bool {
        match (self, other) {
            (
                Element::Tuple { first, port, second, .. },
                Element::Tuple { first: first2, port: port2, second: second2, .. },
            ) => {
                if backend != Backend::Nft {
                    return (first, port, second) == (first2, port2, second2);
                }
                let seconds = match (second, second2) {
                    (Some(one), Some(two)) => one.overlaps(*two),
                    _ => true,
                };
                port == port2 && first.overlaps(*first2) && seconds
            }
            (Element::Tuple { .. } | Element::Port(_) | Element::Set(_), _) => self == other,
        }
    }
}

/// Makes the chains of one table.
struct Maker<'a> {
    random: &'a mut Random,
    sets: &'a [Set],
    open: Open,
    backend: Backend,
    table: Table,
    family: Family,
}

impl Maker<'_> {
    fn chains(&mut self, odd: bool) -> Vec<Chain> {
        let mut users = Vec::new();
        // In nat, a chain is used either before routing or after it.
        let sides: &[&[Hook]] = match self.table {
            Table::Nat => &[&[Hook::Prerouting, Hook::Output], &[Hook::Postrouting]],
            table => &[table.hooks()],
        };
        for (side, hooks) in (0..).zip(sides) {
            for number in 0..self.random.below(3) {
                users.push((format!("u{side}{number}"), *hooks));
            }
        }
        let mut chains = Vec::new();
        for hook in self.table.hooks() {
            for (name, base) in self.bases(*hook, odd) {
                let callable: Vec<&str> = users
                    .iter()
                    .filter(|(_, hooks)| hooks.contains(hook))
                    .map(|(name, _)| name.as_str())
                    .collect();
                let rules = match base.drop {
                    true if self.random.percent(40) => 0,
                    _ if self.random.percent(2) => 32 + self.random.below(16),
                    _ => 1 + self.random.below(5),
                };
                chains.push(self.chain(name, Some(base), &[*hook], &callable, rules));
            }
        }
        for (at, (name, hooks)) in users.iter().enumerate() {
            // Only forward, so that there is no loop.
            let callable: Vec<&str> = users[at + 1..]
                .iter()
                .filter(|(_, other)| other == hooks)
                .map(|(name, _)| name.as_str())
                .collect();
            let rules = self.random.below(4);
            chains.push(self.chain(name.clone(), None, hooks, &callable, rules));
        }
        chains
    }

    /// The base chains at a hook.
    fn bases(&mut self, hook: Hook, odd: bool) -> Vec<(String, Base)> {
        let usual = xtables_base(Backend::Legacy, self.table.name(), &chain_name(hook))
            .map_or(0, |(.., at)| at);
        let mut bases = Vec::new();
        // The kernel has no policy to drop in nat.
        let drop = self.table != Table::Nat && self.random.percent(4);
        let xtables = self.backend != Backend::Nft;
        if xtables || (!odd && self.random.percent(70)) {
            bases.push((chain_name(hook), Base { hook, priority: usual, drop }));
        }
        if !xtables && self.random.percent(if odd { 60 } else { 25 }) {
            // Two tables' chains can't meet at one priority: each has its own distance.
            let own = Table::ALL.iter().position(|table| *table == self.table).unwrap_or(0) as i32;
            let priority = match self.table {
                _ if self.open == Open::Order => self.shared_priority(hook),
                Table::Mangle => self.random.pick(&PRIORITIES),
                Table::Nat => usual + self.random.pick(&[-10, -2, 3, 20]),
                Table::Raw | Table::Filter | Table::Security => usual + 11 + own,
            };
            bases.push((format!("{}-odd", chain_name(hook)), Base { hook, priority, drop: false }));
            if self.random.percent(20) {
                let name = format!("{}-same", chain_name(hook));
                bases.push((name, Base { hook, priority, drop: false }));
            }
        }
        bases
    }

    /// A priority at which other tables have chains too, so that the order of registration decides.
    fn shared_priority(&mut self, hook: Hook) -> i32 {
        let nat = self.table == Table::Nat;
        match hook {
            Hook::Prerouting | Hook::Output if nat => self.random.pick(&[-100, -90]),
            Hook::Input | Hook::Postrouting | Hook::Forward if nat => self.random.pick(&[100, 90]),
            // NF_IP_PRI_CONNTRACK, and NF_IP_PRI_NAT_DST and _SRC, where the dispatcher is.
            Hook::Prerouting | Hook::Output => self.random.pick(&[-300, -200, -150, -100, 0]),
            Hook::Input | Hook::Postrouting | Hook::Forward => {
                self.random.pick(&[-150, 0, 50, 100])
            }
        }
    }

    fn chain(
        &mut self,
        name: String,
        base: Option<Base>,
        hooks: &[Hook],
        callable: &[&str],
        rules: usize,
    ) -> Chain {
        let rules = (0..rules).map(|_| self.rule(base.is_some(), hooks, callable)).collect();
        Chain { backend: self.backend, table: self.table, name, base, rules }
    }

    fn rule(&mut self, base: bool, hooks: &[Hook], callable: &[&str]) -> Rule {
        let mut matches = Vec::new();
        let place = test::Place {
            backend: self.backend,
            family: self.family,
            hooks,
            base,
            sets: self.sets,
            chance: self.open == Open::Chance,
        };
        for _ in 0..self.random.below(4) {
            let test = place.test(self.random);
            matches.push(test);
        }
        test::agree(self.backend, &mut matches);
        let target = self.target(&mut matches, hooks, callable);
        let counts_first = self.backend == Backend::Nft && self.random.percent(25);
        Rule { id: 0, counts_first, matches, target }
    }

    fn target(&mut self, matches: &mut Vec<Match>, hooks: &[Hook], callable: &[&str]) -> Target {
        let share = self.random.below(100);
        if self.table == Table::Nat && share < 55 {
            return self.translation(matches, hooks);
        }
        if self.table == Table::Raw && share < 12 {
            return Target::NoTrack;
        }
        if self.backend == Backend::Nft && share >= 90 {
            return self.verdicts(matches, callable);
        }
        match self.random.below(100) {
            0..28 if !callable.is_empty() => {
                let to = self.random.pick(callable).to_owned();
                if self.random.percent(30) { Target::Goto(to) } else { Target::Jump(to) }
            }
            0..50 => self.marking(),
            50..53 if self.open == Open::Chance && self.backend == Backend::Nft => {
                Target::Remember { forget: self.random.percent(30) }
            }
            50..56 => Target::Accept,
            56..60 => Target::Return,
            60..63 if self.table != Table::Nat => Target::Drop,
            63..68 if self.table == Table::Filter => {
                Target::Reject { reset: test::proto(matches) == Some(Proto::Tcp) }
            }
            _ => Target::Nothing,
        }
    }

    fn marking(&mut self) -> Target {
        let (value, mask) = (self.random.pick(&MARKS), self.random.pick(&MASKS));
        match self.random.below(8) {
            0..4 => Target::Mark { value, mask },
            4 | 5 => Target::CtMark { value, mask },
            6 => Target::Save { mask },
            _ => Target::Restore { mask },
        }
    }

    fn translation(&mut self, matches: &mut Vec<Match>, hooks: &[Hook]) -> Target {
        let with_ports = self.random.percent(50) && test::with_ports(self.random, matches);
        let before = hooks.iter().all(|hook| matches!(hook, Hook::Prerouting | Hook::Output));
        if before {
            return self.destination(matches, with_ports);
        }
        // No packet comes from these ports, so that nobody's port is taken by chance.
        let ports = with_ports.then(|| self.random.pick(&[(40000, 60000), (1024, 65535)]));
        let owned = self.random.percent(70);
        let to = if owned { self.random.pick(&OWN) } else { self.random.pick(&SERVERS) };
        match self.random.below(10) {
            0..5 if hooks == [Hook::Postrouting] => {
                let random = with_ports && self.random.percent(20);
                let ports = if random { Some((40000, 60000)) } else { ports };
                Target::Masquerade { ports, random }
            }
            5 if self.backend != Backend::Nft => Target::Netmap { net: self.random.pick(&NETS) },
            _ => Target::Snat { to: to.host(), ports },
        }
    }

    fn destination(&mut self, matches: &mut Vec<Match>, with_ports: bool) -> Target {
        let port = self.random.pick(&PORTS);
        let ports = with_ports.then(|| {
            if self.random.percent(20) {
                self.random.pick(&[(8000, 8010), (8000, 8100)])
            } else {
                (port, port)
            }
        });
        let to = match self.random.below(20) {
            0 => LOOPBACK,
            1..4 => self.random.pick(&OWN).host(),
            _ => self.random.pick(&SERVERS),
        };
        if self.open == Open::Chance && self.random.percent(40) {
            return match self.backend {
                Backend::Nft => Target::DnatChance(
                    self.random.pick(&[Pick::Random, Pick::Next, Pick::Hash]),
                    vec![to, self.random.pick(&SERVERS)],
                ),
                Backend::Legacy | Backend::IptablesNft => {
                    Target::DnatEither { first: Net([203, 0, 113, 80], 32) }
                }
            };
        }
        if self.backend == Backend::Nft && self.random.percent(20) {
            matches.clear();
            let mut entries: Vec<(Net, u16, Net, u16)> = Vec::new();
            for _ in 0..3 {
                let (key, at) = (self.random.pick(&SERVERS), self.random.pick(&PORTS));
                if !entries.iter().any(|(net, port, ..)| (*net, *port) == (key, at)) {
                    entries.push((key, at, self.random.pick(&SERVERS), self.random.pick(&PORTS)));
                }
            }
            return Target::DnatMap(entries);
        }
        match self.random.below(10) {
            0 | 1 => Target::Redirect { port: ports.map(|(low, _)| low) },
            2 if self.backend != Backend::Nft => Target::Netmap { net: self.random.pick(&NETS) },
            3 if ports.is_some() => Target::Dnat { to: None, ports },
            _ => Target::Dnat { to: Some(to), ports },
        }
    }

    fn verdicts(&mut self, matches: &mut Vec<Match>, callable: &[&str]) -> Target {
        let verdict = |random: &mut Random| match random.below(6) {
            0 | 1 if !callable.is_empty() => Target::Jump(random.pick(callable).into()),
            2 if !callable.is_empty() => Target::Goto(random.pick(callable).into()),
            3 => Target::Return,
            4 => Target::Nothing,
            _ => Target::Accept,
        };
        if self.random.percent(50) {
            let end = self.random.pick(&[End::Source, End::Destination]);
            let mut entries: Vec<(Net, Target)> = Vec::new();
            for _ in 0..3 {
                let net = test::net(self.random);
                if !entries.iter().any(|(known, _)| known.overlaps(net)) {
                    entries.push((net, verdict(self.random)));
                }
            }
            return Target::AddressVerdicts(end, entries);
        }
        // nft refuses a port of TCP after one of any protocol.
        let any = |test: &Match| test.needs_protocol() || test.is_set();
        matches.retain(|test| !any(test));
        let entries = vec![
            (53, 81, verdict(self.random)),
            (443, 443, verdict(self.random)),
            (8080, 8080, verdict(self.random)),
        ];
        Target::PortVerdicts(entries)
    }
}

/// Device names with their beginnings.
pub(super) fn device(random: &mut Random) -> (&'static str, bool) {
    match random.below(10) {
        0 => ("eth", true),
        1 => ("lo", false),
        2 => ("eth1", true),
        _ => (random.pick(&DEVICES), false),
    }
}
