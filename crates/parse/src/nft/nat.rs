//! The NAT statements.

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::expr::Value;
use unmasq_model::packet::Family;
use unmasq_model::rule::{Nat, NatAddress, NatKind, NatPorts};

use super::expr::{Lowerer, table_family};
use super::json::Node;
use super::kind::Kind;

impl Lowerer<'_> {
    /// `dnat`, `snat`, `masquerade`, `redirect`; `None` for a form that is not understood.
    pub(super) fn nat(&mut self, name: &str, body: &Node<'_>) -> Option<Nat> {
        let kind = match name {
            "dnat" => NatKind::Dnat,
            "snat" => NatKind::Snat,
            "masquerade" => NatKind::Masquerade,
            "redirect" => NatKind::Redirect,
            _ => return None,
        };
        let flags = Flags::read(body)?;
        let family = match body.get("family").map(Node::text) {
            None => None,
            Some(Some("ip")) => Some(Family::V4),
            Some(Some("ip6")) => Some(Family::V6),
            Some(_) => return None,
        };
        let ports = match body.get("port") {
            None => None,
            Some(node) => Some(self.nat_ports(node)?),
        };
        let mut nat = Nat { kind, family, address: None, ports, random: flags.random };
        if let Some(node) = body.get("addr") {
            let family = family.or(table_family(self.scope.table.family))?;
            if flags.prefix {
                nat.kind = NatKind::Netmap(network(family, node)?);
            } else {
                nat.address = Some(self.nat_address(family, node)?);
            }
        }
        Some(nat)
    }

    fn nat_address(&mut self, family: Family, node: &Node<'_>) -> Option<NatAddress> {
        let kind = Kind::Address(family);
        if let Some(("range" | "prefix", _)) = node.single() {
            let (low, high) = kind.interval(node)?;
            return Some(NatAddress::Range(address(family, low)?, address(family, high)?));
        }
        let typed = self.expression(node, &[kind, Kind::Port]);
        let fits = typed.kinds == [kind] || typed.kinds == [kind, Kind::Port];
        fits.then_some(NatAddress::Expr(typed.expr))
    }

    fn nat_ports(&mut self, node: &Node<'_>) -> Option<NatPorts> {
        if let Some(("range", _)) = node.single() {
            let (low, high) = Kind::Port.interval(node)?;
            return Some(NatPorts::Range(low.try_into().ok()?, high.try_into().ok()?));
        }
        let typed = self.expression(node, &[Kind::Port]);
        matches!(typed.kind(), Kind::Port | Kind::Number).then_some(NatPorts::Expr(typed.expr))
    }
}

struct Flags {
    random: bool,
    /// The address is a prefix, and only the prefix is replaced.
    prefix: bool,
}

impl Flags {
    fn read(body: &Node<'_>) -> Option<Flags> {
        let mut flags = Flags { random: false, prefix: false };
        for flag in body.get("flags").map_or(&[][..], Node::one_or_more) {
            match flag.text()? {
                "random" | "fully-random" => flags.random = true,
                // One client gets one address of a range, which range it is stays the same.
                "persistent" => {}
                "netmap" => flags.prefix = true,
                _ => return None,
            }
        }
        for flag in body.get("type_flags").map_or(&[][..], Node::one_or_more) {
            match flag.text()? {
                "prefix" => flags.prefix = true,
                // Goes with maps of address ranges, whose data is opaque.
                "interval" | "concat" => {}
                _ => return None,
            }
        }
        Some(flags)
    }
}

fn network(family: Family, node: &Node<'_>) -> Option<IpNet> {
    let ("prefix", body) = node.single()? else { return None };
    let (first, _) = Kind::Address(family).interval(node)?;
    IpNet::new(address(family, first)?, body.get("len")?.number()?).ok()
}

fn address(family: Family, bits: u128) -> Option<IpAddr> {
    Value::Number(bits).as_address(family)
}
