//! What an expression's value is, here and now.

use unmasq_model::expr::{
    BitOp, Device, Direction, End, Expr, Fib, FibResult, Field, NumgenMode, Value, XT_STATE_DNAT,
    XT_STATE_SNAT, ct_state, ct_status,
};
use unmasq_model::packet::{Family, Packet, Protocol, Transport};
use unmasq_model::route::RouteKind;
use unmasq_model::set::{Data, Part, SetId};

use super::rules::Run;
use super::test::member_key;
use super::{Tracking, Walk};
use crate::choice::Kind;
use crate::connection::{Later, Tracked};
use crate::fib::{Flow, Found};

/// The result of loading an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loaded {
    Is(Value),
    /// The field does not exist, or a map has no such key: the rule breaks.
    Absent,
    /// A concatenation of which some fields are not known, and why.
    Partly(Vec<Part>, String),
    Unknown(String),
}

impl From<u32> for Loaded {
    fn from(n: u32) -> Loaded {
        Loaded::Is(Value::from(n))
    }
}

impl<'h> Walk<'_, 'h, '_> {
    pub(super) fn load(&mut self, run: &mut Run<'h>, expr: &'h Expr) -> Loaded {
        match expr {
            Expr::Const(value) => Loaded::Is(value.clone()),
            Expr::Field(field) => self.field(run, *field),
            Expr::Bits { op, left, right } => self.bits(run, *op, left, right),
            Expr::Concat(parts) => {
                let mut fields = Vec::with_capacity(parts.len());
                let mut unknown = None;
                for part in parts {
                    match self.load(run, part) {
                        Loaded::Is(value) => fields.push(Part::Is(value)),
                        Loaded::Absent => return Loaded::Absent,
                        Loaded::Partly(_, why) | Loaded::Unknown(why) => {
                            fields.push(match self.chosen_port(part) {
                                Some((low, high)) => Part::Within(low.into(), high.into()),
                                None => Part::Any,
                            });
                            unknown = Some(why);
                        }
                    }
                }
                match unknown {
                    Some(why) => Loaded::Partly(fields, why),
                    None => Loaded::Is(Value::Tuple(
                        fields
                            .into_iter()
                            .filter_map(|part| match part {
                                Part::Is(value) => Some(value),
                                Part::Within(..) | Part::Any => None,
                            })
                            .collect(),
                    )),
                }
            }
            Expr::Numgen { mode, modulus, offset } => {
                let options = (*modulus).max(1);
                let kind = match mode {
                    NumgenMode::Random => Kind::Uniform,
                    NumgenMode::Increment => Kind::State,
                };
                self.draw(kind, options, *offset)
            }
            Expr::Hash { modulus, offset } => self.draw(Kind::State, (*modulus).max(1), *offset),
            Expr::Lookup { key, map } => {
                let key = self.load(run, key);
                match self.find(run, *map, key) {
                    Err(why) => Loaded::Unknown(why),
                    Ok(None) => Loaded::Absent,
                    Ok(Some(Data::Value(value))) => Loaded::Is(value.clone()),
                    Ok(Some(Data::Opaque(opaque))) => {
                        Loaded::Unknown(format!("a map's data is not understood: {opaque}"))
                    }
                    Ok(Some(Data::Nothing)) if run.table.set(*map).dynamic => {
                        Loaded::Unknown(filled_since(run, *map))
                    }
                    Ok(Some(Data::Nothing | Data::Verdict(_))) => {
                        Loaded::Unknown("a map holds something that is not a value".to_owned())
                    }
                }
            }
            Expr::Opaque(opaque) => {
                Loaded::Unknown(format!("an expression is not understood: {opaque}"))
            }
        }
    }

    fn draw(&mut self, kind: Kind, options: u32, offset: u32) -> Loaded {
        let drawn = self.choices.choose(kind, options as usize);
        Loaded::from(u32::try_from(drawn).unwrap_or(0).wrapping_add(offset))
    }

    /// What a set or map of the run's table has for a key; `None`: nothing, or the key is absent.
    /// Of dynamic sets both is possible.
    pub(super) fn find(
        &mut self,
        run: &Run<'h>,
        id: SetId,
        key: Loaded,
    ) -> Result<Option<&'h Data>, String> {
        let table = run.table;
        let set = table.set(id);
        let key = match key {
            Loaded::Is(key) => key,
            Loaded::Absent => return Ok(None),
            Loaded::Partly(fields, why) => {
                let hopeless = !set.dynamic && set.opaque.is_none();
                return match hopeless && !set.elements.may_hold(&fields) {
                    true => Ok(None),
                    false => Err(why),
                };
            }
            Loaded::Unknown(why) => {
                let empty = !set.dynamic && set.opaque.is_none() && set.elements.is_empty();
                return if empty { Ok(None) } else { Err(why) };
            }
        };
        let found = set.elements.get(&key);
        if set.dynamic {
            let name = member_key(run, id, &key);
            return Ok(match self.decide(Some(&name), Kind::State) {
                false => None,
                true => found.or(Some(&Data::Nothing)),
            });
        }
        match (found, &set.opaque) {
            (None, Some(opaque)) => {
                let name = set.name.as_deref().unwrap_or("an anonymous set");
                Err(format!("an element of {name} is not understood: {opaque}"))
            }
            (found, _) => Ok(found),
        }
    }

    fn field(&mut self, run: &mut Run<'h>, field: Field) -> Loaded {
        let family = self.family();
        let in_family = |wanted: Family, loaded: Loaded| {
            if wanted == family { loaded } else { Loaded::Absent }
        };
        match field {
            Field::Address(wanted, end) => in_family(wanted, address(&self.packet, end)),
            Field::Nfproto => u32::from(family.nfproto()).into(),
            Field::L4Proto => u32::from(self.packet.protocol.0).into(),
            Field::IpProtocol(wanted) => {
                in_family(wanted, u32::from(self.packet.protocol.0).into())
            }
            Field::Port(protocol, end) => self.port_field(protocol, end),
            Field::IcmpType(wanted) => self.icmp(wanted, |kind, _| u32::from(kind)),
            Field::IcmpCode(wanted) => self.icmp(wanted, |_, code| u32::from(code)),
            Field::IcmpTypeAndCode(wanted) => {
                self.icmp(wanted, |kind, code| u32::from(kind) << 8 | u32::from(code))
            }
            Field::TcpFlags if self.packet.protocol == Protocol::TCP => {
                self.later.as_ref().map_or(2, Later::tcp_flags).into()
            }
            Field::TcpFlags => Loaded::Absent,
            Field::Ttl(wanted) => in_family(
                wanted,
                match self.packet.ttl {
                    Some(ttl) => u32::from(ttl).into(),
                    None => Loaded::Unknown("the packet's time to live was not given".to_owned()),
                },
            ),
            Field::Mark => self.mark_bits(run, u32::MAX),
            Field::DeviceName(device) | Field::DeviceIndex(device) => {
                Loaded::Is(Value::Name(self.device_name(device).into()))
            }
            Field::CtStatus
            | Field::CtMark
            | Field::CtDirection
            | Field::CtAddress(..)
            | Field::CtPort(..)
            | Field::CtProtocol
                if self.connection.tracking == Tracking::Template =>
            {
                Loaded::Unknown("a rule looks at a connection before it is tracked".to_owned())
            }
            Field::CtState => self.ct_state().into(),
            Field::CtStateAndNat => {
                run.looks_at(&self.destination_cause);
                let mut state = self.ct_state();
                if self.connection.source_changed {
                    state |= XT_STATE_SNAT;
                }
                if self.connection.destination_changed {
                    state |= XT_STATE_DNAT;
                }
                state.into()
            }
            Field::Fib(fib) => self.fib_field(fib),
            Field::CtStatus
            | Field::CtMark
            | Field::CtDirection
            | Field::CtAddress(..)
            | Field::CtPort(..)
            | Field::CtProtocol => {
                if !self.connection.exists() {
                    return Loaded::Absent;
                }
                self.connection_field(run, field)
            }
        }
    }

    fn bits(&mut self, run: &mut Run<'h>, op: BitOp, left: &'h Expr, right: &'h Expr) -> Loaded {
        // A test of some bits of a mark rests on who set those, whoever set others.
        if let (BitOp::And, Some(bits)) = (op, mask(right))
            && let Some(loaded) = self.some_bits(run, left, bits)
        {
            return loaded;
        }
        match (self.load(run, left), self.load(run, right)) {
            (Loaded::Is(left), Loaded::Is(right)) => operate(op, &left, &right),
            (Loaded::Is(_), other) | (other, _) => other,
        }
    }

    /// Some bits of a field of which each bit is known by itself.
    pub(super) fn some_bits(
        &mut self,
        run: &mut Run<'h>,
        left: &Expr,
        bits: u32,
    ) -> Option<Loaded> {
        match left {
            Expr::Field(Field::Mark) => Some(self.mark_bits(run, bits)),
            Expr::Field(Field::CtMark) if self.connection.exists() => {
                Some(self.ct_mark_bits(run, bits))
            }
            Expr::Field(Field::CtStatus) if self.connection.exists() => {
                run.looks_at(&self.destination_cause);
                Some(self.ct_status(bits))
            }
            _ => None,
        }
    }

    /// Some bits of the packet's mark.
    fn mark_bits(&self, run: &mut Run<'h>, bits: u32) -> Loaded {
        run.looks_at(&self.mark_cause.of(bits));
        match &self.mark {
            Ok(mark) => (mark & bits).into(),
            Err(why) => Loaded::Unknown(why.clone()),
        }
    }

    /// The same of the connection's mark.
    fn ct_mark_bits(&self, run: &mut Run<'h>, bits: u32) -> Loaded {
        run.looks_at(&self.ct_mark_cause.of(bits));
        (self.connection.mark & bits).into()
    }

    fn connection_field(&mut self, run: &mut Run<'h>, field: Field) -> Loaded {
        match field {
            Field::CtStatus => {
                run.looks_at(&self.destination_cause);
                self.ct_status(u32::MAX)
            }
            Field::CtMark => self.ct_mark_bits(run, u32::MAX),
            // An answer without an entry makes one of its own, in whose original direction it goes.
            Field::CtDirection => match &self.later {
                Some(Later { direction: Direction::Reply, connection: Some(_), .. }) => 1.into(),
                Some(_) | None => 0.into(),
            },
            Field::CtProtocol => u32::from(self.packet.protocol.0).into(),
            Field::CtAddress(direction, family, end) => {
                if family != self.family() {
                    return Loaded::Absent;
                }
                match (self.entry(), direction) {
                    (Some(entry), _) => match entry.tuple(direction, end).address {
                        Some(address) => Loaded::Is(Value::address(address)),
                        None => Loaded::Unknown("an address of the connection is not known".into()),
                    },
                    (None, Direction::Original) => address(&self.original, end),
                    // Before the answer, its tuple is the packet's, turned around.
                    (None, Direction::Reply) => address(&self.packet, other(end)),
                }
            }
            Field::CtPort(direction, end) => {
                let port = match (self.entry(), direction, self.original.transport) {
                    (Some(entry), ..) => entry.tuple(direction, end).exact_port(),
                    (None, Direction::Original, Transport::Ports { source, destination }) => {
                        if end == End::Source { source } else { destination }
                    }
                    (None, Direction::Reply, _) => {
                        self.current_port(other(end)).unwrap_or_default()
                    }
                    (None, Direction::Original, Transport::Icmp { .. } | Transport::Other) => None,
                };
                match port {
                    Some(port) => u32::from(port).into(),
                    None => Loaded::Unknown("a port of the connection is not known".to_owned()),
                }
            }
            _ => Loaded::Absent,
        }
    }

    /// The entry of a connection that began before.
    fn entry(&self) -> Option<&Tracked> {
        self.later.as_ref()?.connection.as_ref()
    }

    /// `ct state`: what opens a connection is new; untracked and invalid need no connection. A
    /// template is attached as a new one (`xt_ct_target`, `nft_ct_set_zone_eval`).
    fn ct_state(&self) -> u32 {
        match self.connection.tracking {
            Tracking::None => ct_state::INVALID,
            Tracking::New | Tracking::Template => ct_state::NEW,
            Tracking::Begun => match &self.later {
                Some(later) if later.established() => ct_state::ESTABLISHED,
                Some(_) | None => ct_state::NEW,
            },
            Tracking::Untracked => ct_state::UNTRACKED,
        }
    }

    /// Bits of `ct->status` (enum ip_conntrack_status): those that say that a translation was
    /// looked for are 128 (source) and 256 (destination). When a connection becomes assured is
    /// its protocol's matter.
    fn ct_status(&self, bits: u32) -> Loaded {
        let connection = &self.connection;
        let begun = connection.tracking == Tracking::Begun;
        if begun && bits & ct_status::ASSURED != 0 {
            let why = "whether the connection is assured is not known";
            return Loaded::Unknown(why.to_owned());
        }
        let answered = self.later.as_ref().is_some_and(Later::established);
        let status: u32 = [
            (connection.source_changed, ct_status::SNAT),
            (connection.destination_changed, ct_status::DNAT),
            (connection.source_done, 128),
            (connection.destination_done, 256),
            (connection.confirmed, ct_status::CONFIRMED),
            (begun && answered, ct_status::SEEN_REPLY),
        ]
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, bit)| bit)
        .sum();
        (status & bits).into()
    }

    fn port_field(&self, protocol: Option<Protocol>, end: End) -> Loaded {
        if protocol.is_some_and(|protocol| protocol != self.packet.protocol) {
            return Loaded::Absent;
        }
        match self.current_port(end) {
            Some(Some(port)) => u32::from(port).into(),
            Some(None) if self.port_was_translated(end) => {
                Loaded::Unknown(format!("the kernel chooses the {end} port"))
            }
            Some(None) => Loaded::Unknown(format!("the packet's {end} port was not given")),
            // `th dport` reads the first bytes after the IP header, whatever they are; for
            // protocols without ports a rule that does so is not modelled.
            None if protocol.is_none() => {
                Loaded::Unknown(format!("a rule reads the {end} port of a protocol without ports"))
            }
            None => Loaded::Absent,
        }
    }

    fn port_was_translated(&self, end: End) -> bool {
        let port = if end == End::Source { self.source_port } else { self.destination_port };
        matches!(port, crate::trace::Port::Between(..))
    }

    fn icmp(&self, family: Family, number: impl Fn(u8, u8) -> u32) -> Loaded {
        let protocol = match family {
            Family::V4 => Protocol::ICMP,
            Family::V6 => Protocol::ICMPV6,
        };
        match self.packet.transport {
            Transport::Icmp { kind, code } if self.packet.protocol == protocol => {
                number(kind, code).into()
            }
            Transport::Icmp { .. } | Transport::Ports { .. } | Transport::Other => Loaded::Absent,
        }
    }

    /// The device's name; empty where there is none.
    pub(super) fn device_name(&self, device: Device) -> &str {
        match device {
            Device::In => self.in_device.as_deref().unwrap_or_default(),
            Device::Out => self.out_device.as_deref().unwrap_or_default(),
        }
    }

    fn fib_field(&mut self, fib: Fib) -> Loaded {
        let address = match fib.of {
            End::Source => self.packet.source,
            End::Destination => self.packet.destination,
        };
        let device = match (fib.iif, fib.oif) {
            (true, _) => Some(self.device_name(Device::In)),
            (false, true) => Some(self.device_name(Device::Out)),
            (false, false) => None,
        };
        let fib_table = &self.evaluator.fib;
        let loaded = match fib.result {
            FibResult::Type => match self.family() {
                Family::V4 => fib_table.address_type4(address, device),
                Family::V6 => fib_table.address_type6(&self.fib_flow(fib, address), device),
            }
            .map(|kind| Loaded::from(u32::from(kind))),
            FibResult::Device | FibResult::Exists => {
                self.fib_device(fib, address).map(|name| match fib.result {
                    FibResult::Exists => u32::from(!name.is_empty()).into(),
                    FibResult::Device | FibResult::Type => Loaded::Is(Value::Name(name)),
                })
            }
        };
        loaded.unwrap_or_else(Loaded::Unknown)
    }

    /// The lookup is made with the other end and the protocol too, but without ports.
    fn fib_flow(&self, fib: Fib, address: std::net::IpAddr) -> Flow<'static> {
        let other_end = match fib.of {
            End::Source => self.packet.destination,
            End::Destination => self.packet.source,
        };
        Flow {
            mark: if fib.mark { self.mark.clone() } else { Ok(0) },
            source: Some(other_end),
            protocol: Some(self.packet.protocol),
            ..Flow::to(address)
        }
    }

    /// `nft_fib4_eval`, `nft_fib6_eval`: the device that the route to the address goes out by;
    /// with `iif`, empty if it is another than that the packet came in by.
    fn fib_device(&self, fib: Fib, address: std::net::IpAddr) -> Result<Box<str>, String> {
        if self.in_device.as_deref() == Some("lo") && self.out_device.is_none() {
            // nft_fib_is_loopback: what came over loopback came the right way.
            return Ok("lo".into());
        }
        let route = match self.evaluator.fib.lookup(&self.fib_flow(fib, address)) {
            Found::Unknown(why) => return Err(why),
            Found::Refused(_) => return Ok("".into()),
            Found::Route(route) => route,
        };
        if matches!(route.kind, RouteKind::Local | RouteKind::Anycast) {
            return Ok("".into());
        }
        let wanted = match (fib.iif, fib.oif) {
            (true, _) => Some(self.device_name(Device::In)),
            (false, true) => Some(self.device_name(Device::Out)),
            (false, false) => None,
        };
        // fib_info_nh_uses_dev: any of several next hops.
        let mut devices = route.next_hops.iter().filter_map(|hop| hop.device.as_deref());
        let device = match wanted {
            Some(wanted) => devices.find(|device| *device == wanted),
            None => devices.next(),
        };
        Ok(device.unwrap_or_default().into())
    }
}

fn address(packet: &Packet, end: End) -> Loaded {
    Loaded::Is(Value::address(match end {
        End::Source => packet.source,
        End::Destination => packet.destination,
    }))
}

/// Why it is not known what a dynamic map has for a key that it did not have when it was captured.
pub(super) fn filled_since(run: &Run<'_>, map: SetId) -> String {
    let name = run.table.set(map).name.as_deref().unwrap_or("an anonymous map");
    format!("packets fill map {name}, and what it may have got for this one is not known")
}

/// A constant mask.
fn mask(expr: &Expr) -> Option<u32> {
    match expr {
        Expr::Const(value) => value.as_number().and_then(|n| u32::try_from(n).ok()),
        _ => None,
    }
}

fn other(end: End) -> End {
    match end {
        End::Source => End::Destination,
        End::Destination => End::Source,
    }
}

fn operate(op: BitOp, left: &Value, right: &Value) -> Loaded {
    let (Some(left), Some(right)) = (left.as_number(), right.as_number()) else {
        return Loaded::Unknown("a bitwise operation on something that is not a number".to_owned());
    };
    let shift = u32::try_from(right).unwrap_or(u32::MAX);
    Loaded::Is(Value::Number(match op {
        BitOp::And => left & right,
        BitOp::Or => left | right,
        BitOp::Xor => left ^ right,
        BitOp::Shl => left.checked_shl(shift).unwrap_or(0) & 0xffff_ffff,
        BitOp::Shr => left.checked_shr(shift).unwrap_or(0),
    }))
}
