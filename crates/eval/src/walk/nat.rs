//! Address translation: what a rule sets up for the connection's first packet
//! (net/netfilter/nf_nat_core.c, nf_nat_masquerade.c, nf_nat_redirect.c).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use unmasq_model::expr::{End, Value};
use unmasq_model::packet::{Family, Transport};
use unmasq_model::rule::{Nat, NatAddress, NatKind, NatPorts, Verdict as RuleVerdict};
use unmasq_model::ruleset::Hook;

use super::expr::Loaded;
use super::rules::{Acted, Run};
use super::{Ruled, Step, Stop, Tracking, Walk};
use crate::choice::Kind;
use crate::trace::{By, Effect, Endpoint, Hit, Port, Reason, RuleId, Stage, Verdict};

/// Address ranges up to this size give one outcome for each address.
const MAX_ADDRESSES: u128 = 64;

/// A new address and port; `None`: as before.
#[derive(Default)]
struct Target {
    address: Option<IpAddr>,
    ports: Option<(u16, u16)>,
}

/// Why a translation has no target.
enum NoTarget {
    Unknown(String),
    /// The kernel drops the packet.
    Drop(String),
    Break,
}

impl<'h> Walk<'_, 'h, '_> {
    pub(super) fn translate(
        &mut self,
        run: &mut Run<'h>,
        effects: &mut Vec<Effect>,
        id: RuleId,
        nat: &'h Nat,
    ) -> Step<Acted> {
        if nat.family.is_some_and(|family| family != self.family()) {
            // nft_nat_inet_eval: another family passes.
            return Ok(Acted::On);
        }
        let target = match self.target(run, nat) {
            Ok(target) => target,
            Err(NoTarget::Break) => return Ok(Acted::Break),
            Err(NoTarget::Unknown(why)) => {
                effects.push(Effect::Unknown(why.clone()));
                let hit = self.nat_hit(run, id, effects);
                return Err(self.lost_at(hit, why));
            }
            Err(NoTarget::Drop(why)) => {
                effects.push(Effect::Kernel(why));
                effects.push(Effect::Drop);
                let hit = self.nat_hit(run, id, effects);
                self.hits.push(hit);
                return Err(Stop::End(Verdict::Dropped, Some(Reason::Rule)));
            }
        };
        if self.connection.tracking == Tracking::Begun {
            effects.push(Effect::Kernel("comes too late for this connection".to_owned()));
            return Ok(Acted::Ruled(Ruled::Verdict(RuleVerdict::Accept)));
        }
        if matches!(nat.kind, NatKind::Masquerade) {
            self.connection.masqueraded = self.out_device.clone();
        }
        match end(run.hook) {
            End::Source => self.set_source(run, effects, id, nat, &target),
            End::Destination => self.set_destination(run, effects, nat, &target),
        }
        Ok(Acted::Ruled(Ruled::Bound))
    }

    fn nat_hit(&self, run: &Run<'h>, id: RuleId, effects: &[Effect]) -> Hit {
        Hit {
            stage: Stage::Hook(run.hook),
            by: By::Rule(id),
            depth: u32::try_from(run.frames.len().saturating_sub(1)).unwrap_or(u32::MAX),
            counted: true,
            effects: effects.to_vec(),
        }
    }

    fn target(&mut self, run: &mut Run<'h>, nat: &'h Nat) -> Result<Target, NoTarget> {
        let mut target = match &nat.kind {
            NatKind::Dnat | NatKind::Snat => self.given_address(run, nat)?,
            NatKind::Masquerade => Target { address: self.masquerade()?, ports: None },
            NatKind::Redirect => Target { address: Some(self.redirect(run.hook)?), ports: None },
            NatKind::Netmap(net) => {
                let address = match end(run.hook) {
                    End::Source => self.packet.source,
                    End::Destination => self.packet.destination,
                };
                Target { address: netmap(address, *net), ports: None }
            }
        };
        match &nat.ports {
            None => {}
            Some(NatPorts::Range(low, high)) => target.ports = Some((*low, *high)),
            Some(NatPorts::Expr(expr)) => match self.load(run, expr) {
                Loaded::Is(value) => {
                    let port = value.as_number().and_then(|n| u16::try_from(n).ok());
                    let port = port.ok_or_else(|| {
                        NoTarget::Unknown("a translation's port is not a port".to_owned())
                    })?;
                    target.ports = Some((port, port));
                }
                Loaded::Absent => return Err(NoTarget::Break),
                Loaded::Partly(_, why) | Loaded::Unknown(why) => {
                    return Err(NoTarget::Unknown(why));
                }
            },
        }
        Ok(target)
    }

    fn given_address(&mut self, run: &mut Run<'h>, nat: &'h Nat) -> Result<Target, NoTarget> {
        match &nat.address {
            None => Ok(Target::default()),
            Some(NatAddress::Range(low, high)) => {
                Ok(Target { address: Some(self.address_in(*low, *high)?), ports: None })
            }
            Some(NatAddress::Expr(expr)) => match self.load(run, expr) {
                Loaded::Absent => Err(NoTarget::Break),
                Loaded::Partly(_, why) | Loaded::Unknown(why) => Err(NoTarget::Unknown(why)),
                Loaded::Is(value) => self.address_and_port(&value).ok_or_else(|| {
                    NoTarget::Unknown("a translation's address is not an address".to_owned())
                }),
            },
        }
    }

    fn address_and_port(&self, value: &Value) -> Option<Target> {
        let (address, port) = match value {
            Value::Tuple(fields) => match &**fields {
                [address, port] => (address, Some(u16::try_from(port.as_number()?).ok()?)),
                _ => return None,
            },
            Value::Number(_) | Value::Name(_) => (value, None),
        };
        let address = address.as_address(self.family())?;
        Some(Target { address: Some(address), ports: port.map(|port| (port, port)) })
    }

    /// `find_best_ips_proto`: by a hash of both ends with a secret seed, so any of them.
    fn address_in(&mut self, low: IpAddr, high: IpAddr) -> Result<IpAddr, NoTarget> {
        let (first, last) = (number(low), number(high));
        let count = last.saturating_sub(first).saturating_add(1);
        if count > MAX_ADDRESSES {
            return Err(NoTarget::Unknown(format!("the kernel chooses from {low} to {high}")));
        }
        let options = usize::try_from(count).unwrap_or(1);
        let chosen = self.choices.choose(Kind::State, options) as u128;
        Value::Number(first + chosen)
            .as_address(Family::of(low))
            .ok_or_else(|| NoTarget::Unknown("a range of addresses leaves its family".to_owned()))
    }

    fn masquerade(&mut self) -> Result<Option<IpAddr>, NoTarget> {
        if self.packet.source.is_unspecified() {
            return Ok(None);
        }
        let (Some(out), Some(next_hop)) = (self.out_device.clone(), self.next_hop) else {
            return Err(NoTarget::Unknown("the outgoing device is not known".to_owned()));
        };
        // rt_nexthop(): a gateway of the other family (RFC 5549) does not count.
        let destination = self.packet.destination;
        let next_hop =
            if next_hop.is_ipv4() == destination.is_ipv4() { next_hop } else { destination };
        match self.evaluator.fib.masquerade_address(&out, next_hop, destination) {
            Err(why) => Err(NoTarget::Unknown(why)),
            Ok(None) => Err(NoTarget::Drop(format!("no address on {out} to masquerade with"))),
            Ok(Some(address)) => Ok(Some(address)),
        }
    }

    /// net/netfilter/nf_nat_redirect.c: to loopback for what the host sends, else to the first
    /// address of the incoming device (IPv6: the first of the destination's scope).
    fn redirect(&self, hook: Hook) -> Result<IpAddr, NoTarget> {
        let family = self.family();
        if hook == Hook::Output {
            return Ok(match family {
                Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
                Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
            });
        }
        let device = self.in_device.as_deref().unwrap_or_default();
        let unknown = || NoTarget::Unknown(format!("the addresses of {device} are not known"));
        let link = self.evaluator.link(device).ok_or_else(unknown)?;
        let link_local = |address: IpAddr| match address {
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        let wanted = link_local(self.packet.destination);
        link.addresses
            .iter()
            .filter(|address| Family::of(address.local) == family && !address.tentative)
            .find(|address| family == Family::V4 || link_local(address.local) == wanted)
            .map(|address| address.local)
            .ok_or_else(|| NoTarget::Drop(format!("no address on {device} to redirect to")))
    }

    fn set_source(
        &mut self,
        run: &Run<'h>,
        effects: &mut Vec<Effect>,
        id: RuleId,
        nat: &Nat,
        target: &Target,
    ) {
        let before = (self.packet.source, self.source_port);
        if let Some(address) = target.address {
            self.packet.source = address;
        }
        if self.source_port != Port::None {
            self.source_port = source_port(self.source_port, target.ports, nat.random);
            self.store_port(End::Source);
        }
        if (self.packet.source, self.source_port) != before {
            self.connection.source_changed = true;
            self.rewritten_by = Some(id);
            self.because = run.rests_on();
        }
        effects.push(Effect::Snat(Endpoint {
            address: Some(self.packet.source),
            port: self.source_port,
        }));
    }

    fn set_destination(
        &mut self,
        run: &Run<'h>,
        effects: &mut Vec<Effect>,
        nat: &Nat,
        target: &Target,
    ) {
        let before = (self.packet.destination, self.destination_port);
        if let Some(address) = target.address {
            self.packet.destination = address;
        }
        if self.destination_port != Port::None {
            let port = destination_port(self.destination_port, target.ports, nat.random);
            self.destination_port = port;
            self.store_port(End::Destination);
        }
        if (self.packet.destination, self.destination_port) != before {
            self.connection.destination_changed = true;
            self.destination_cause = self.cause(run);
        }
        effects.push(Effect::Dnat(Endpoint {
            address: Some(self.packet.destination),
            port: self.destination_port,
        }));
    }

    /// Puts another address and port into the packet.
    pub(super) fn replace(&mut self, end: End, address: IpAddr, port: Port) {
        let (to, to_port) = match end {
            End::Source => (&mut self.packet.source, &mut self.source_port),
            End::Destination => (&mut self.packet.destination, &mut self.destination_port),
        };
        *to = address;
        if *to_port != Port::None {
            *to_port = port;
            self.store_port(end);
        }
    }

    /// Writes a translated port into the packet's header.
    fn store_port(&mut self, end: End) {
        let port = match if end == End::Source { self.source_port } else { self.destination_port } {
            Port::Exactly(port) => Some(port),
            Port::None | Port::Between(..) | Port::Unknown => None,
        };
        if let Transport::Ports { source, destination } = &mut self.packet.transport {
            *(if end == End::Source { source } else { destination }) = port;
        }
    }
}

/// `HOOK2MANIP`: which end a hook translates.
fn end(hook: Hook) -> End {
    match hook {
        Hook::Prerouting | Hook::Output => End::Destination,
        Hook::Input | Hook::Postrouting | Hook::Forward => End::Source,
    }
}

/// `nf_nat_l4proto_unique_tuple` for a source: kept if it may be, else from the range given, else
/// from the range that the old port is in (below 512, below 1024, or the rest).
fn source_port(before: Port, range: Option<(u16, u16)>, random: bool) -> Port {
    match (range, random) {
        (Some((low, high)), _) if low == high => Port::Exactly(low),
        (Some((low, high)), false) => match before {
            Port::Exactly(port) if (low..=high).contains(&port) => before,
            _ => Port::Between(low, high),
        },
        (Some((low, high)), true) => Port::Between(low, high),
        (None, false) => before,
        (None, true) => match before {
            Port::Exactly(port) if port < 512 => Port::Between(1, 511),
            Port::Exactly(port) if port < 1024 => Port::Between(600, 1023),
            Port::Exactly(_) => Port::Between(1024, 65535),
            Port::Between(..) | Port::Unknown | Port::None => Port::Unknown,
        },
    }
}

/// The same for a destination: kept without a range; with one, kept if it is inside, else the
/// first of the range that is free.
fn destination_port(before: Port, range: Option<(u16, u16)>, random: bool) -> Port {
    match range {
        None => before,
        Some((low, high)) if low == high => Port::Exactly(low),
        Some((low, high)) if random => Port::Between(low, high),
        Some((low, high)) => match before {
            Port::Exactly(port) if (low..=high).contains(&port) => before,
            Port::Exactly(_) => Port::Exactly(low),
            Port::Between(..) | Port::Unknown | Port::None => Port::Between(low, high),
        },
    }
}

/// The prefix replaced, the rest kept.
fn netmap(address: IpAddr, net: IpNet) -> Option<IpAddr> {
    let host_bits = u32::from(Family::of(address).bits() - net.prefix_len().min(128));
    let host = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
    let mapped = number(net.network()) & !host | number(address) & host;
    Value::Number(mapped).as_address(Family::of(address))
}

fn number(address: IpAddr) -> u128 {
    Value::address(address).as_number().unwrap_or_default()
}
