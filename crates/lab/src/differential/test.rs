//! Random tests of rules.

use unmasq_model::expr::End;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::{Backend, Hook};

use super::address::{CLIENTS, LOOPBACK, MARKS, MASKS, NETS, Net, OWN, PORTS, SERVERS};
use super::generate::device;
use super::random::Random;
use super::ruleset::{Kept, Limit, Match, Proto, Set};

/// Where a test stands, which decides what the kernel takes.
pub(super) struct Place<'a> {
    pub(super) backend: Backend,
    pub(super) family: Family,
    /// The hooks from which the chain can be reached.
    pub(super) hooks: &'a [Hook],
    /// Whether it is a base chain.
    pub(super) base: bool,
    pub(super) sets: &'a [Set],
    pub(super) chance: bool,
}

const ENDS: [End; 2] = [End::Source, End::Destination];

/// A host that packets come from or go to.
pub(super) fn host(random: &mut Random) -> Net {
    match random.below(20) {
        0..6 => random.pick(&CLIENTS),
        6..14 => random.pick(&SERVERS),
        14..19 => random.pick(&OWN).host(),
        _ => LOOPBACK,
    }
}

/// A host or a network.
pub(super) fn net(random: &mut Random) -> Net {
    if random.percent(50) { host(random) } else { random.pick(&NETS) }
}

/// The protocol that tests require.
pub(super) fn proto(matches: &[Match]) -> Option<Proto> {
    matches.iter().find_map(Match::protocol)
}

/// Requires a protocol with ports, if tests don't forbid it.
pub(super) fn with_ports(random: &mut Random, matches: &mut Vec<Match>) -> bool {
    match proto(matches) {
        Some(proto) => proto != Proto::Icmp,
        None if matches.iter().any(|test| test.is_set() || test.needs_protocol()) => false,
        None => {
            let proto = random.pick(&[Proto::Tcp, Proto::Udp]);
            matches.insert(0, Match::Proto { proto, not: false });
            true
        }
    }
}

/// Leaves out what iptables and nft would refuse as a contradiction: tests of two protocols, two
/// tests of one kind.
pub(super) fn agree(backend: Backend, matches: &mut Vec<Match>) {
    let mut kept: Vec<Match> = Vec::new();
    // nft refuses ports of one protocol beside those of any.
    let nft = backend == Backend::Nft;
    for test in matches.drain(..) {
        let same = |known: &Match| {
            std::mem::discriminant(known) == std::mem::discriminant(&test)
                || (known.needs_protocol() && test.needs_protocol())
                || (nft && known.is_set() && test.needs_protocol())
                || (nft && known.needs_protocol() && test.is_set())
        };
        if !kept.iter().any(same) {
            kept.push(test);
        }
    }
    *matches = kept;
}

impl Match {
    /// Whether it says something about the protocol.
    pub(super) fn needs_protocol(&self) -> bool {
        match self {
            Match::Proto { .. }
            | Match::Port { .. }
            | Match::Ports { .. }
            | Match::Syn { .. }
            | Match::Echo { .. }
            | Match::Tuples { .. } => true,
            Match::Address { .. }
            | Match::AddressRange { .. }
            | Match::Device { .. }
            | Match::Mark { .. }
            | Match::CtMark { .. }
            | Match::Set { .. }
            | Match::AddressType { .. }
            | Match::State { .. }
            | Match::Chance { .. }
            | Match::Kept(_)
            | Match::Among { .. }
            | Match::Back { .. } => false,
        }
    }

    pub(super) fn is_set(&self) -> bool {
        matches!(self, Match::Set { .. })
    }

    fn protocol(&self) -> Option<Proto> {
        match self {
            Match::Proto { proto, not: false }
            | Match::Port { proto, .. }
            | Match::Ports { proto, .. }
            | Match::Tuples { proto, .. } => Some(*proto),
            Match::Syn { .. } => Some(Proto::Tcp),
            Match::Echo { .. } => Some(Proto::Icmp),
            Match::Proto { .. }
            | Match::Address { .. }
            | Match::AddressRange { .. }
            | Match::Device { .. }
            | Match::Mark { .. }
            | Match::CtMark { .. }
            | Match::Set { .. }
            | Match::AddressType { .. }
            | Match::State { .. }
            | Match::Chance { .. }
            | Match::Kept(_)
            | Match::Among { .. }
            | Match::Back { .. } => None,
        }
    }
}

impl Place<'_> {
    /// A test.
    pub(super) fn test(&self, random: &mut Random) -> Match {
        let not = random.percent(20);
        let end = random.pick(&ENDS);
        let proto = random.pick(&[Proto::Tcp, Proto::Tcp, Proto::Udp]);
        match random.below(100) {
            0..16 => Match::Address { end, net: net(random), not },
            16..18 => {
                let low = random.pick(&[Net([10, 0, 0, 1], 32), Net([192, 0, 2, 8], 32)]);
                Match::AddressRange { end, low, high: low.0[3] + 8, not }
            }
            18..30 => self.device(random, not),
            30..37 => {
                let proto = random.pick(&[Proto::Tcp, Proto::Udp, Proto::Icmp]);
                Match::Proto { proto, not }
            }
            37..46 => {
                let port = random.pick(&PORTS);
                let (end, low, high) = match random.below(4) {
                    0 => (End::Source, 1024, 20000),
                    1 => (End::Destination, 50, 500),
                    _ => (End::Destination, port, port),
                };
                Match::Port { proto, end, low, high, not }
            }
            46..51 => {
                let end = random.pick(&[None, Some(end), Some(End::Destination)]);
                let mut ports = vec![(53, 53), (random.pick(&[80, 81, 443]), 500), (8080, 8080)];
                if end != Some(End::Destination) && random.percent(50) {
                    ports.push((1024, 20000));
                }
                Match::Ports { proto, end, ports, not }
            }
            51..61 => {
                let mask = random.pick(&MASKS);
                Match::Mark { value: random.pick(&MARKS) & mask, mask, not }
            }
            61..66 => {
                let mask = random.pick(&MASKS);
                Match::CtMark { value: random.pick(&MARKS) & mask, mask, not }
            }
            66..76 => self.set(random, not).unwrap_or(Match::Syn { not }),
            76..83 => self.address_type(random, end, not),
            83..87 => {
                let states = ["NEW", "INVALID", "UNTRACKED", "ESTABLISHED", "DNAT", "SNAT"];
                Match::State { state: random.pick(&states), not }
            }
            87 => Match::Syn { not },
            88 => Match::Echo { not },
            89..92 if self.chance => match random.below(5) {
                0 => Match::Kept(Kept::Nth(2 + random.below(3) as u8)),
                1 => Match::Kept(Kept::Limit(1 + random.below(9) as u8)),
                2 => Match::Kept(Kept::Recent { not }),
                3 if self.backend != Backend::Nft => Match::Kept(Kept::See),
                _ => Match::Chance { percent: random.pick(&[25, 50, 75]) },
            },
            92..95 if self.backend == Backend::Nft => {
                let mut nets: Vec<Net> = Vec::new();
                for _ in 0..3 {
                    let new = net(random);
                    if !nets.iter().any(|known| known.overlaps(new)) {
                        nets.push(new);
                    }
                }
                Match::Among { end, nets, not }
            }
            95..98 if self.backend == Backend::Nft => {
                let mut pairs = vec![(random.pick(&SERVERS), 80), (random.pick(&CLIENTS), 443)];
                pairs.push((random.pick(&OWN).host(), random.pick(&[53, 8080])));
                Match::Tuples { proto, end, pairs, not }
            }
            98.. if self.backend == Backend::Nft && self.route_back() => {
                Match::Back { missing: not }
            }
            _ => Match::Address { end, net: net(random), not },
        }
    }

    /// nft_fib_validate: the device of a route only where one came in.
    fn route_back(&self) -> bool {
        self.base && self.hooks.iter().all(|hook| matches!(hook, Hook::Prerouting | Hook::Input))
    }

    fn device(&self, random: &mut Random, not: bool) -> Match {
        use Hook::{Input, Output, Postrouting, Prerouting};
        let (name, any) = device(random);
        let out = match self.hooks {
            // iptables refuses the other in a base chain.
            [Prerouting | Input] if self.backend != Backend::Nft && self.base => false,
            [Output | Postrouting] if self.backend != Backend::Nft && self.base => true,
            _ => random.percent(50),
        };
        Match::Device { out, name, any, not }
    }

    fn set(&self, random: &mut Random, not: bool) -> Option<Match> {
        let nft = self.backend == Backend::Nft;
        let usable: Vec<usize> = (0..self.sets.len())
            .filter(|index| (self.sets[*index].backend == Backend::Nft) == nft)
            .collect();
        if usable.is_empty() {
            return None;
        }
        let set = random.pick(&usable);
        let ends = (0..self.sets[set].kind.dimensions()).map(|_| random.pick(&ENDS)).collect();
        Some(Match::Set { set, ends, not })
    }

    fn address_type(&self, random: &mut Random, end: End, not: bool) -> Match {
        // net/netfilter/xt_addrtype.c: ip6tables takes few types.
        let kind = match self.family {
            Family::V4 => random.pick(&["LOCAL", "LOCAL", "UNICAST", "BLACKHOLE", "UNREACHABLE"]),
            Family::V6 => random.pick(&["LOCAL", "LOCAL", "UNICAST", "UNREACHABLE"]),
        };
        let limit = match self.hooks {
            _ if !self.base || random.percent(70) => Limit::No,
            [Hook::Prerouting | Hook::Input | Hook::Forward] => Limit::In,
            [Hook::Output | Hook::Postrouting] => Limit::Out,
            _ => Limit::No,
        };
        Match::AddressType { end, kind, not, limit }
    }
}
