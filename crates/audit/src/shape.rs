//! Rules that carry no name, known by their shape.
//!
//! A shape counts only if the rule has nothing beyond it: a further test makes it another rule.

use ipnet::IpNet;

use unmasq_model::expr::{BitOp, Device, End, Expr, Field, Value};
use unmasq_model::host::Host;
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::{Action, Comparison, NamePattern, NatKind, Rule, Step, Test};
use unmasq_model::ruleset::{BaseChain, Chain, ChainKind, Hook, Table};

use crate::owner::Owner;

/// Who writes rules of this shape.
pub(crate) fn owner(host: &Host, table: &Table, chain: &Chain, rule: &Rule) -> Option<Owner> {
    let base = chain.base?;
    if !in_nat_postrouting(base) {
        return None;
    }
    // kube-router's IPVS proxy (pkg/controllers/proxy/network_services_controller.go): a match
    // that is kept as text only.
    if opaque_tests(rule).any(|text| text.contains("ipvs") && text.contains("--vmethod MASQ")) {
        return Some(Owner::KubeRouter);
    }
    let shape = Shape::of(rule)?;
    if is_bridge_masquerade(host, &shape) {
        return Some(Owner::ContainerEngine);
    }
    if let Some(owner) = of_a_bridges_network(host, &shape) {
        return Some(owner);
    }
    if is_docker(table, &shape) {
        return Some(Owner::Docker);
    }
    if is_klipper(table, &shape) {
        return Some(Owner::KlipperLb);
    }
    if is_flannel(table, &shape) {
        return Some(Owner::Flannel);
    }
    // Tailscale's subnet router (util/linuxfw): its mark and mask, in POSTROUTING by old versions.
    if shape == (Shape { mark: Some((0x40000, 0xff_0000)), ..Shape::default() }) {
        return Some(Owner::Tailscale);
    }
    None
}

/// The network that a test wants the source to be in; `None`: it tests something else, or wants
/// the source to be elsewhere.
pub(crate) fn source_network(test: &Test) -> Option<IpNet> {
    let mut shape = Shape::default();
    shape.add(test)?;
    shape.source.filter(|source| !source.negated).map(|source| source.is)
}

/// Whether a rule tests where a packet comes from: its source, or the device it came in by.
pub(crate) fn tests_origin(rule: &Rule) -> bool {
    rule.steps.iter().any(|step| match step {
        Step::Test(test) => of_origin(test),
        Step::Do(_) => false,
    })
}

fn of_origin(test: &Test) -> bool {
    match test {
        Test::Compare { left, .. } | Test::Range { left, .. } | Test::AnyBit { left, .. } => {
            names_origin(left)
        }
        Test::Member { key, .. } => names_origin(key),
        Test::DeviceName { device, .. } => *device == Device::In,
        Test::IpSet { ends, .. } => ends.contains(&End::Source),
        Test::AddressType { of, .. } => *of == End::Source,
        Test::Ports { .. }
        | Test::Random { .. }
        | Test::State { .. }
        | Test::Accounting { .. }
        | Test::Opaque(_) => false,
    }
}

fn names_origin(expr: &Expr) -> bool {
    match expr {
        Expr::Field(field) => matches!(
            field,
            Field::Address(_, End::Source)
                | Field::DeviceName(Device::In)
                | Field::DeviceIndex(Device::In)
        ),
        Expr::Bits { left, right, .. } => names_origin(left) || names_origin(right),
        Expr::Concat(all) => all.iter().any(names_origin),
        Expr::Lookup { key, .. } => names_origin(key),
        Expr::Const(_) | Expr::Numgen { .. } | Expr::Hash { .. } | Expr::Opaque(_) => false,
    }
}

fn in_nat_postrouting(base: BaseChain) -> bool {
    base.hook == Some(Hook::Postrouting) && base.kind == ChainKind::Nat
}

fn opaque_tests(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.steps.iter().filter_map(|step| match step {
        Step::Test(Test::Opaque(opaque)) => Some(&*opaque.text),
        Step::Test(_) | Step::Do(_) => None,
    })
}

/// `-s RANGE ! -o BRIDGE -j MASQUERADE`: what container engines and CNI bridges add for their
/// network, here without a destination that is left out.
fn is_bridge_masquerade(host: &Host, shape: &Shape) -> bool {
    let (Some(Not { is: range, negated: false }), Some(Not { is: device, negated: true })) =
        (&shape.source, &shape.out)
    else {
        return false;
    };
    let only = Shape { source: shape.source.clone(), out: shape.out.clone(), ..Shape::default() };
    *shape == only
        && !device.wildcard
        && (is_container_bridge(&device.name) || is_gateway_of(host, &device.name, range))
}

fn is_container_bridge(name: &str) -> bool {
    is_docker_bridge(name) || name == "cbr0" || name.starts_with("cni")
}

/// Docker names its networks' bridges by 12 hexadecimal digits of the network's id.
pub(crate) fn is_docker_bridge(name: &str) -> bool {
    matches!(name, "docker0" | "docker_gwbridge")
        || name
            .strip_prefix("br-")
            .is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What only Docker writes, beside its chain (libnetwork/drivers/bridge of moby/moby): a network
/// that hides behind one address; the host's own packets into a bridge, where it has no proxy; a
/// container that asks itself by its published port.
fn is_docker(table: &Table, shape: &Shape) -> bool {
    if !table.chains.iter().any(|chain| *chain.name == *"DOCKER") {
        return false;
    }
    let bridge = |out: &Not<NamePattern>, negated| {
        out.negated == negated && !out.is.wildcard && is_docker_bridge(&out.is.name)
    };
    match shape {
        Shape {
            source: Some(Not { negated: false, .. }),
            destination: None,
            out: Some(out),
            protocol: None,
            port: None,
            mark: None,
            from_local: false,
            fixed: true,
        } => bridge(out, true),
        Shape {
            source: None,
            destination: None,
            out: Some(out),
            protocol: None,
            port: None,
            mark: None,
            from_local: true,
            fixed: _,
        } => bridge(out, false),
        Shape {
            source: Some(Not { is: source, negated: false }),
            destination: Some(Not { is: destination, negated: false }),
            out: None,
            protocol: Some(_),
            port: Some(_),
            mark: None,
            from_local: false,
            fixed: false,
        } => source == destination && source.prefix_len() == source.max_prefix_len(),
        Shape { .. } => false,
    }
}

/// flannel before 2022, and what upgrades have left of it: rules without a chain of its own.
/// `-s CLUSTER ! -d 224.0.0.0/4` (network/ipmasq.go, network/iptables.go of flannel-io/flannel), and
/// `! -s CLUSTER -d CLUSTER`, which others write too, beside one of the first kind for the same
/// network.
fn is_flannel(table: &Table, shape: &Shape) -> bool {
    if leaves_but_multicast(shape).is_some() {
        return true;
    }
    let (Some(Not { is: outside, negated: true }), Some(Not { is: cluster, negated: false })) =
        (&shape.source, &shape.destination)
    else {
        return false;
    };
    let only = Shape {
        source: shape.source.clone(),
        destination: shape.destination.clone(),
        ..Shape::default()
    };
    let mut others = table.chains.iter().flat_map(|chain| &chain.rules).filter_map(Shape::of);
    *shape == only
        && outside == cluster
        && others.any(|other| leaves_but_multicast(&other) == Some(*cluster))
}

/// The network whose packets to anywhere but multicast addresses the shape is of.
fn leaves_but_multicast(shape: &Shape) -> Option<IpNet> {
    let (Some(Not { is: source, negated: false }), Some(Not { is: destination, negated: true })) =
        (&shape.source, &shape.destination)
    else {
        return None;
    };
    let only = Shape {
        source: shape.source.clone(),
        destination: shape.destination.clone(),
        ..Shape::default()
    };
    let multicast = match destination {
        IpNet::V4(net) => net.network().is_multicast() && net.prefix_len() == 4,
        IpNet::V6(net) => net.network().is_multicast() && net.prefix_len() == 8,
    };
    (*shape == only && multicast).then_some(*source)
}

/// Whether `name` is a bridge that has an address of `range`.
fn is_gateway_of(host: &Host, name: &str, range: &IpNet) -> bool {
    host.link(name).is_some_and(|link| {
        link.is_bridge() && link.addresses.iter().any(|address| range.contains(&address.local))
    })
}

/// Whose a bridge is, by the name that the program gives its bridges: of those that write rules of
/// the same shape for them.
pub(crate) fn by_bridge(name: &str) -> Option<Owner> {
    let begins = |all: &[&str]| all.iter().any(|beginning| name.starts_with(beginning));
    if begins(&["virbr"]) {
        Some(Owner::Libvirt)
    } else if begins(&["lxcbr", "lxdbr", "incusbr"]) {
        Some(Owner::Lxc)
    } else {
        None
    }
}

/// `-s NET ! -d NET -j MASQUERADE`, where NET is on a bridge of libvirt's, which had no chains of
/// its own before version 5.1, or of lxc-net's.
fn of_a_bridges_network(host: &Host, shape: &Shape) -> Option<Owner> {
    let Shape {
        source: Some(Not { is: source, negated: false }),
        destination: Some(Not { is: destination, negated: true }),
        out: None,
        protocol: _,
        port: None,
        mark: None,
        from_local: false,
        fixed: false,
    } = shape
    else {
        return None;
    };
    let mut links = host
        .links
        .iter()
        .flatten()
        .filter(|link| link.addresses.iter().any(|address| address.network() == Some(*source)));
    links.find_map(|link| by_bridge(&link.name)).filter(|_| source == destination)
}

/// `-d ADDRESS/32 -p PROTOCOL -j MASQUERADE` beside a DNAT in the same table: the whole of what
/// klipper-lb's entry script programs inside its pod.
fn is_klipper(table: &Table, shape: &Shape) -> bool {
    let Some(Not { is: destination, negated: false }) = &shape.destination else {
        return false;
    };
    let only = Shape {
        destination: shape.destination.clone(),
        protocol: shape.protocol,
        ..Shape::default()
    };
    *shape == only
        && matches!(shape.protocol, Some(Protocol::TCP | Protocol::UDP | Protocol::SCTP))
        && destination.prefix_len() == destination.max_prefix_len()
        && table.chains.iter().flat_map(|chain| &chain.rules).any(is_dnat)
}

fn is_dnat(rule: &Rule) -> bool {
    rule.steps.iter().any(|step| match step {
        Step::Do(Action::Nat(nat)) => nat.kind == NatKind::Dnat,
        Step::Do(_) | Step::Test(_) => false,
    })
}

/// The bit of `RTN_LOCAL` (include/uapi/linux/rtnetlink.h).
const RTN_LOCAL: u16 = 1 << 2;

/// What a rule tests that translates the source, if that is no more than this.
#[derive(Debug, Clone, Default, PartialEq)]
struct Shape {
    source: Option<Not<IpNet>>,
    destination: Option<Not<IpNet>>,
    out: Option<Not<NamePattern>>,
    protocol: Option<Protocol>,
    /// The destination's.
    port: Option<u128>,
    mark: Option<(u128, u128)>,
    /// Whether the source must be an address of the host.
    from_local: bool,
    /// Whether the new source is written in the rule; else it is masquerade.
    fixed: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Not<T> {
    is: T,
    negated: bool,
}

impl Shape {
    /// `None`: it doesn't translate the source, or it tests something else.
    fn of(rule: &Rule) -> Option<Shape> {
        let mut shape = Shape::default();
        let mut translates = false;
        for step in &rule.steps {
            match step {
                Step::Test(test) => shape.add(test)?,
                Step::Do(Action::Nat(nat)) if nat.kind == NatKind::Masquerade => translates = true,
                Step::Do(Action::Nat(nat)) if nat.kind == NatKind::Snat => {
                    (translates, shape.fixed) = (true, true);
                }
                Step::Do(Action::Count) => {}
                Step::Do(_) => return None,
            }
        }
        translates.then_some(shape)
    }

    fn add(&mut self, test: &Test) -> Option<()> {
        match test {
            Test::Compare { left, op, right: Expr::Const(value) } => {
                let negated = match op {
                    Comparison::Eq => false,
                    Comparison::Ne => true,
                    Comparison::Lt | Comparison::Le | Comparison::Gt | Comparison::Ge => {
                        return None;
                    }
                };
                self.add_compare(left, negated, value)
            }
            Test::Range { left: Expr::Field(Field::Address(family, end)), low, high, negated } => {
                let bits = u32::from(family.bits());
                let size = high.checked_sub(*low)?.checked_add(1).unwrap_or(0);
                let host_bits = if size == 0 { 128 } else { size.trailing_zeros() };
                let aligned = size == 0 || (size.is_power_of_two() && low % size == 0);
                let prefix = u8::try_from(bits.checked_sub(host_bits)?).ok()?;
                if !aligned {
                    return None;
                }
                self.add_network(*family, *end, *low, prefix, *negated)
            }
            Test::DeviceName { device: Device::Out, pattern, negated } => {
                self.out = Some(Not { is: pattern.clone(), negated: *negated });
                Some(())
            }
            Test::AddressType {
                of: End::Source,
                types: RTN_LOCAL,
                limit: None,
                negated: false,
            } => {
                self.from_local = true;
                Some(())
            }
            Test::Compare { .. }
            | Test::Range { .. }
            | Test::AnyBit { .. }
            | Test::Member { .. }
            | Test::DeviceName { .. }
            | Test::Ports { .. }
            | Test::IpSet { .. }
            | Test::AddressType { .. }
            | Test::Random { .. }
            | Test::State { .. }
            | Test::Accounting { .. }
            | Test::Opaque(_) => None,
        }
    }

    fn add_compare(&mut self, left: &Expr, negated: bool, value: &Value) -> Option<()> {
        let (field, mask) = masked_field(left)?;
        if let Value::Name(name) = value {
            let of_out =
                [Field::DeviceName(Device::Out), Field::DeviceIndex(Device::Out)].contains(&field);
            let pattern = NamePattern { name: name.clone(), wildcard: false };
            self.out = Some(Not { is: pattern, negated });
            return of_out.then_some(());
        }
        let number = value.as_number()?;
        if let Field::Address(family, end) = field {
            let prefix = mask.map_or(Some(family.bits()), |mask| prefix_length(family, mask))?;
            return self.add_network(family, end, number, prefix, negated);
        }
        if negated {
            return None;
        }
        if field == Field::Mark {
            self.mark = Some((number, mask.unwrap_or(u128::from(u32::MAX))));
        } else if field == Field::L4Proto && mask.is_none() {
            self.protocol = Some(Protocol(u8::try_from(number).ok()?));
        } else if matches!(field, Field::Port(_, End::Destination)) && mask.is_none() {
            self.port = Some(number);
        } else if field != Field::Nfproto {
            return None;
        }
        Some(())
    }

    fn add_network(
        &mut self,
        family: Family,
        end: End,
        number: u128,
        prefix: u8,
        negated: bool,
    ) -> Option<()> {
        let address = Value::Number(number).as_address(family)?;
        let network = Some(Not { is: IpNet::new(address, prefix).ok()?.trunc(), negated });
        match end {
            End::Source => self.source = network,
            End::Destination => self.destination = network,
        }
        Some(())
    }
}

/// A field, and the mask that it is tested under.
pub(crate) fn masked_field(expr: &Expr) -> Option<(Field, Option<u128>)> {
    if let Expr::Field(field) = expr {
        return Some((*field, None));
    }
    let Expr::Bits { op: BitOp::And, left, right } = expr else {
        return None;
    };
    let (Expr::Field(field), Expr::Const(mask)) = (&**left, &**right) else {
        return None;
    };
    Some((*field, Some(mask.as_number()?)))
}

/// The length of the prefix that a mask keeps; `None` if its bits aren't in one piece at the top.
pub(crate) fn prefix_length(family: Family, mask: u128) -> Option<u8> {
    let bits = u32::from(family.bits());
    let shifted = mask.checked_shl(128 - bits)?;
    let ones = shifted.leading_ones();
    let whole = shifted.count_ones() == ones && ones <= bits;
    if whole { u8::try_from(ones).ok() } else { None }
}
