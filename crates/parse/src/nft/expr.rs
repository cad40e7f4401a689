//! Expressions: from nft's JSON to [`Expr`], with the kinds of value that they have.

use unmasq_model::expr::{BitOp, Device, Direction, End, Expr, Fib, FibResult, Field, NumgenMode};
use unmasq_model::origin::{Opaque, Origin};
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::{Comparison, Step, Test};
use unmasq_model::ruleset::TableFamily;
use unmasq_model::set::{Elements, Set, SetId};

use super::json::Node;
use super::kind::Kind;
use super::render;
use super::scope::Scope;
use super::set::{DataType, SetType, values};

/// Lowers the expressions and statements of one rule, in order.
pub(super) struct Lowerer<'s> {
    pub(super) scope: &'s mut Scope,
    /// Where the rule stands, for its anonymous sets.
    pub(super) origin: Origin,
    /// The steps so far.
    pub(super) steps: Vec<Step>,
}

/// An expression with the kind of its value, one for each field of a concatenation.
pub(super) struct Typed {
    pub(super) expr: Expr,
    pub(super) kinds: Vec<Kind>,
}

impl Typed {
    fn new(expr: Expr, kind: Kind) -> Typed {
        Typed { expr, kinds: vec![kind] }
    }

    fn field(field: Field, kind: Kind) -> Typed {
        Typed::new(Expr::Field(field), kind)
    }

    /// Whether no part of it is opaque.
    pub(super) fn is_understood(&self) -> bool {
        !self.kinds.contains(&Kind::Opaque)
    }

    /// The kind of a scalar.
    pub(super) fn kind(&self) -> Kind {
        match self.kinds.as_slice() {
            [kind] => *kind,
            _ => Kind::Opaque,
        }
    }
}

impl<'s> Lowerer<'s> {
    /// Begins a rule.
    pub(super) fn new(scope: &'s mut Scope, origin: Origin) -> Lowerer<'s> {
        Lowerer { scope, origin, steps: Vec::new() }
    }

    /// An expression. Constants are read as values of the `expected` kinds.
    pub(super) fn expression(&mut self, node: &Node<'_>, expected: &[Kind]) -> Typed {
        if let Some(value) = values(expected, node) {
            let count = match &value {
                unmasq_model::expr::Value::Tuple(fields) => fields.len(),
                unmasq_model::expr::Value::Number(_) | unmasq_model::expr::Value::Name(_) => 1,
            };
            return Typed { expr: Expr::Const(value), kinds: expected[..count].to_vec() };
        }
        self.computed(node, expected).unwrap_or_else(|| {
            Typed::new(Expr::Opaque(Opaque::new(render::expression(node))), Kind::Opaque)
        })
    }

    /// A set that stands in the rule itself.
    pub(super) fn anonymous(
        &mut self,
        elements: &[Node<'_>],
        keys: Vec<Kind>,
        data: DataType,
    ) -> SetId {
        let set = Set {
            name: None,
            elements: Elements::default(),
            dynamic: false,
            opaque: None,
            size: None,
            origin: self.origin,
        };
        let id = self.scope.add_set(set, SetType { keys, data, limits: None });
        for element in elements {
            self.scope.insert(id, element);
        }
        id
    }

    /// The key of a lookup in `set`: its constants are of the kinds that a named set holds.
    pub(super) fn key(&mut self, node: &Node<'_>, set: &Node<'_>) -> Typed {
        let named = set.text().and_then(|name| self.scope.set(name.strip_prefix('@')?));
        let expected = named.map(|id| self.scope.set_type(id).keys.clone());
        self.expression(node, expected.as_deref().unwrap_or_default())
    }

    /// `"@name"` or `{"set": [...]}`: a set or map for keys of these kinds.
    pub(super) fn set_of(
        &mut self,
        node: &Node<'_>,
        keys: &[Kind],
        data: DataType,
    ) -> Option<SetId> {
        if let Some(name) = node.text() {
            let id = self.scope.set(name.strip_prefix('@')?)?;
            let kinds = &self.scope.set_type(id).keys;
            // A set whose type is not understood answers "unknown" by itself.
            let fits = kinds.contains(&Kind::Opaque)
                || kinds.len() == keys.len() && kinds.iter().zip(keys).all(|(a, b)| a.fits(*b));
            return fits.then_some(id);
        }
        match node.single()? {
            ("set", body) => Some(self.anonymous(body.list()?, keys.to_vec(), data)),
            _ => None,
        }
    }

    fn computed(&mut self, node: &Node<'_>, expected: &[Kind]) -> Option<Typed> {
        let (name, body) = node.single()?;
        match name {
            "payload" => payload(body),
            "meta" => meta(body),
            "ct" => self.conntrack(body),
            "fib" => fib(body),
            "numgen" => numgen(body),
            "jhash" | "symhash" => self.hash(body),
            "&" => self.bits(BitOp::And, body, expected),
            "|" => self.bits(BitOp::Or, body, expected),
            "^" => self.bits(BitOp::Xor, body, expected),
            "<<" => self.bits(BitOp::Shl, body, expected),
            ">>" => self.bits(BitOp::Shr, body, expected),
            "concat" => self.concatenation(body, expected),
            "map" => self.lookup(body, expected),
            _ => None,
        }
    }

    fn conntrack(&self, body: &Node<'_>) -> Option<Typed> {
        let key = body.get("key")?.text()?;
        let direction = match body.get("dir").map(Node::text) {
            None => None,
            Some(Some("original")) => Some(Direction::Original),
            Some(Some("reply")) => Some(Direction::Reply),
            Some(_) => return None,
        };
        let (family, key) = match key.split_once(' ') {
            Some(("ip", key)) => (Some(Family::V4), key),
            Some(("ip6", key)) => (Some(Family::V6), key),
            Some(_) => return None,
            None => (table_family(self.scope.table.family), key),
        };
        let address = |end| {
            let family = family?;
            let field = Field::CtAddress(direction?, family, end);
            Some(Typed::field(field, Kind::Address(family)))
        };
        let port = |end| Some(Typed::field(Field::CtPort(direction?, end), Kind::Port));
        match key {
            "state" => Some(Typed::field(Field::CtState, Kind::CtState)),
            "status" => Some(Typed::field(Field::CtStatus, Kind::CtStatus)),
            "mark" => Some(Typed::field(Field::CtMark, Kind::Mark)),
            "direction" => Some(Typed::field(Field::CtDirection, Kind::CtDirection)),
            "protocol" => Some(Typed::field(Field::CtProtocol, Kind::Protocol)),
            "saddr" => address(End::Source),
            "daddr" => address(End::Destination),
            "proto-src" => port(End::Source),
            "proto-dst" => port(End::Destination),
            _ => None,
        }
    }

    /// Operators take two operands or, from nft 1.0.8 on, a list of them for `a | b | c`.
    fn bits(&mut self, op: BitOp, body: &Node<'_>, expected: &[Kind]) -> Option<Typed> {
        let (first, rest) = body.list()?.split_first()?;
        let mut typed = self.expression(first, expected);
        let kind = typed.kind();
        let allowed = match op {
            BitOp::And | BitOp::Or | BitOp::Xor => kind.is_ordered(),
            // Of others, bytes are swapped on the way, and not in the same way by all versions.
            BitOp::Shl | BitOp::Shr => matches!(kind, Kind::Mark | Kind::Number),
        };
        if !allowed || rest.is_empty() {
            return None;
        }
        for node in rest {
            let operand = match op {
                BitOp::And | BitOp::Or | BitOp::Xor => kind,
                BitOp::Shl | BitOp::Shr => Kind::Number,
            };
            let right = self.expression(node, &[operand]);
            if !right.kind().fits(kind) {
                return None;
            }
            typed.expr = Expr::bits(op, typed.expr, right.expr);
        }
        Some(typed)
    }

    fn concatenation(&mut self, body: &Node<'_>, expected: &[Kind]) -> Option<Typed> {
        let nodes = body.list()?;
        let mut fields = Vec::new();
        let mut kinds = Vec::new();
        for (i, node) in nodes.iter().enumerate() {
            let expected = if expected.len() == nodes.len() { &expected[i..=i] } else { &[] };
            let field = self.expression(node, expected);
            kinds.push(field.kind());
            fields.push(field.expr);
        }
        Some(Typed { expr: Expr::Concat(fields.into()), kinds })
    }

    fn lookup(&mut self, body: &Node<'_>, expected: &[Kind]) -> Option<Typed> {
        let key = self.key(body.get("key")?, body.get("data")?);
        if !key.is_understood() {
            return None;
        }
        let data = DataType::Values(expected.to_vec());
        let map = self.set_of(body.get("data")?, &key.kinds, data)?;
        let kinds = match &self.scope.set_type(map).data {
            DataType::Values(kinds) if !kinds.is_empty() => kinds.clone(),
            DataType::Values(_) | DataType::Nothing | DataType::Object | DataType::Verdict => {
                return None;
            }
        };
        Some(Typed { expr: Expr::Lookup { key: Box::new(key.expr), map }, kinds })
    }

    /// A hash of a field that is absent breaks the rule (`nft_payload_eval` did, before it), which
    /// [`Expr::Hash`] doesn't say: a test of each field does.
    fn hash(&mut self, body: &Node<'_>) -> Option<Typed> {
        let modulus = body.get("mod")?.number().filter(|modulus| *modulus > 0)?;
        let offset = body.get("offset").map_or(Some(0), Node::number)?;
        if let Some(node) = body.get("expr") {
            let typed = self.expression(node, &[]);
            if !typed.is_understood() {
                return None;
            }
            let fields = match typed.expr {
                Expr::Concat(fields) => fields.into_vec(),
                scalar => vec![scalar],
            };
            for (field, kind) in fields.into_iter().zip(typed.kinds) {
                self.steps.extend(presence(field, kind).map(Step::Test));
            }
        }
        Some(Typed::new(Expr::Hash { modulus, offset }, Kind::Number))
    }
}

/// A test that is true where the value is there and breaks where it is not.
pub(super) fn presence(left: Expr, kind: Kind) -> Option<Test> {
    if kind.is_name() {
        return None;
    }
    Some(match left {
        Expr::Const(_) => return None,
        // Says the same, and is known even where nobody named the port.
        Expr::Field(Field::Port(Some(protocol), _)) => Test::Compare {
            left: Expr::Field(Field::L4Proto),
            op: Comparison::Eq,
            right: Expr::number(protocol.0),
        },
        left => Test::Range { left, low: 0, high: kind.max(), negated: false },
    })
}

/// The family that a table's name gives; inet tables have both.
pub(super) fn table_family(family: TableFamily) -> Option<Family> {
    match family {
        TableFamily::Ip => Some(Family::V4),
        TableFamily::Ip6 => Some(Family::V6),
        TableFamily::Inet | TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => None,
    }
}

/// Header fields. A header inside a tunnel's, and raw bytes, are not modelled.
fn payload(body: &Node<'_>) -> Option<Typed> {
    if body.members().len() != 2 {
        return None;
    }
    let header = body.get("protocol")?.text()?;
    let field = body.get("field")?.text()?;
    let family = match header {
        "ip6" | "icmpv6" => Family::V6,
        _ => Family::V4,
    };
    let address = |end| Typed::field(Field::Address(family, end), Kind::Address(family));
    Some(match (header, field) {
        ("ip" | "ip6", "saddr") => address(End::Source),
        ("ip" | "ip6", "daddr") => address(End::Destination),
        ("ip", "protocol") | ("ip6", "nexthdr") => {
            Typed::field(Field::IpProtocol(family), Kind::Protocol)
        }
        ("ip", "ttl") | ("ip6", "hoplimit") => Typed::field(Field::Ttl(family), Kind::Number),
        ("icmp" | "icmpv6", "type") => {
            Typed::field(Field::IcmpType(family), Kind::IcmpType(family))
        }
        ("icmp" | "icmpv6", "code") => {
            Typed::field(Field::IcmpCode(family), Kind::IcmpCode(family))
        }
        ("tcp", "flags") => Typed::field(Field::TcpFlags, Kind::TcpFlags),
        (_, "sport" | "dport") => {
            let protocol = match header {
                "th" => None,
                "tcp" => Some(Protocol::TCP),
                "udp" => Some(Protocol::UDP),
                "udplite" => Some(Protocol::UDPLITE),
                "sctp" => Some(Protocol::SCTP),
                "dccp" => Some(Protocol::DCCP),
                _ => return None,
            };
            let end = if field == "sport" { End::Source } else { End::Destination };
            Typed::field(Field::Port(protocol, end), Kind::Port)
        }
        _ => return None,
    })
}

fn meta(body: &Node<'_>) -> Option<Typed> {
    Some(match body.get("key")?.text()? {
        "nfproto" => Typed::field(Field::Nfproto, Kind::Nfproto),
        "protocol" => Typed::field(Field::Nfproto, Kind::EtherType),
        "l4proto" => Typed::field(Field::L4Proto, Kind::Protocol),
        "mark" => Typed::field(Field::Mark, Kind::Mark),
        "iifname" => Typed::field(Field::DeviceName(Device::In), Kind::Name),
        "oifname" => Typed::field(Field::DeviceName(Device::Out), Kind::Name),
        "iif" => Typed::field(Field::DeviceIndex(Device::In), Kind::Index),
        "oif" => Typed::field(Field::DeviceIndex(Device::Out), Kind::Index),
        _ => return None,
    })
}

/// A route lookup. In a comparison "oif" may ask for the device or only for its existence, which
/// shows in what it is compared with: see [`super::comparison`].
fn fib(body: &Node<'_>) -> Option<Typed> {
    let (result, kind) = match body.get("result")?.text()? {
        "type" => (FibResult::Type, Kind::AddressType),
        "oif" => (FibResult::Device, Kind::Index),
        "oifname" => (FibResult::Device, Kind::Name),
        "check" => (FibResult::Exists, Kind::Exists),
        _ => return None,
    };
    let mut of = None;
    let (mut iif, mut oif, mut mark) = (false, false, false);
    for flag in body.get("flags")?.one_or_more() {
        match flag.text()? {
            "saddr" if of.is_none() => of = Some(End::Source),
            "daddr" if of.is_none() => of = Some(End::Destination),
            "mark" => mark = true,
            "iif" => iif = true,
            "oif" => oif = true,
            _ => return None,
        }
    }
    Some(Typed::field(Field::Fib(Fib { of: of?, iif, oif, mark, result }), kind))
}

fn numgen(body: &Node<'_>) -> Option<Typed> {
    let mode = match body.get("mode")?.text()? {
        "random" => NumgenMode::Random,
        "inc" => NumgenMode::Increment,
        _ => return None,
    };
    let modulus = body.get("mod")?.number().filter(|modulus| *modulus > 0)?;
    let offset = body.get("offset").map_or(Some(0), Node::number)?;
    Some(Typed::new(Expr::Numgen { mode, modulus, offset }, Kind::Number))
}
