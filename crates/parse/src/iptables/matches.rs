//! Matches (`-m …`) as tests.
//!
//! A [`Match`] in, tests and the rule's comment out. A match that is not known, or an option of
//! one that changes its meaning in an unknown way, becomes [`Test::Opaque`] with the match's text;
//! an option that only narrows the match becomes one by itself, so the others stay certain.

use unmasq_model::expr::{BitOp, Device, End, Expr, Field};
use unmasq_model::origin::Opaque;
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::{Comparison, Step, Test};

use super::icmp;
use super::token::{Match, OptionRef};
use super::value::{self, equal, flags, masked, port_range, within};

mod connection;
mod stateful;

/// Whether the match is one that [`lower`] understands.
pub(super) fn is_known(name: &str) -> bool {
    Kind::of(name).is_some()
}

/// Appends the match's tests to `steps`, and takes its comment.
pub(super) fn lower(
    m: Match<'_>,
    family: Family,
    steps: &mut Vec<Step>,
    comment: &mut Option<Box<str>>,
) {
    let before = steps.len();
    let understood = m.is_well_formed()
        && Kind::of(m.name).is_some_and(|kind| kind.lower(m, family, steps, comment).is_some());
    if !understood {
        steps.truncate(before);
        push(steps, Test::Opaque(Opaque::new(m.text())));
    }
}

/// Matches that are understood.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// `tcp`, `udp` …: ports and flags of a protocol.
    Transport(Protocol),
    Icmp(Family),
    Multiport,
    Comment,
    Conntrack,
    Mark(Field),
    Set,
    AddressType,
    AddressRange,
    Ttl(Family),
    Statistic,
    Recent,
    Accounting,
    /// Depends on time, rates or counts only.
    Stateful,
}

impl Kind {
    fn of(name: &str) -> Option<Kind> {
        Some(match name {
            "tcp" => Kind::Transport(Protocol::TCP),
            "udp" => Kind::Transport(Protocol::UDP),
            "udplite" => Kind::Transport(Protocol::UDPLITE),
            "sctp" => Kind::Transport(Protocol::SCTP),
            "dccp" => Kind::Transport(Protocol::DCCP),
            "icmp" => Kind::Icmp(Family::V4),
            "icmp6" | "icmpv6" => Kind::Icmp(Family::V6),
            "multiport" => Kind::Multiport,
            "comment" => Kind::Comment,
            // iptables maps `state` to xt_conntrack (libxt_conntrack.c).
            "conntrack" | "state" => Kind::Conntrack,
            "mark" => Kind::Mark(Field::Mark),
            "connmark" => Kind::Mark(Field::CtMark),
            "set" => Kind::Set,
            "addrtype" => Kind::AddressType,
            "iprange" => Kind::AddressRange,
            "ttl" => Kind::Ttl(Family::V4),
            "hl" => Kind::Ttl(Family::V6),
            "statistic" => Kind::Statistic,
            "recent" => Kind::Recent,
            "nfacct" => Kind::Accounting,
            "limit" | "hashlimit" | "connlimit" | "connbytes" | "quota" | "rateest" | "time"
            | "cpu" => Kind::Stateful,
            _ => return None,
        })
    }

    fn lower(
        self,
        m: Match<'_>,
        family: Family,
        steps: &mut Vec<Step>,
        comment: &mut Option<Box<str>>,
    ) -> Option<()> {
        match self {
            Kind::Transport(protocol) => transport(m, protocol, steps),
            Kind::Icmp(family) => each(m, steps, |option| icmp_type(option, family)),
            Kind::Multiport => each(m, steps, multiport),
            Kind::Comment => take_comment(m, comment),
            Kind::Conntrack => connection::lower(m, family, steps),
            Kind::Mark(field) => each(m, steps, |option| {
                let text = option.one().filter(|_| option.is(&["--mark"]))?;
                masked(field, text, option.negated)
            }),
            Kind::Set => set(m, steps),
            Kind::AddressType => address_type(m, steps),
            Kind::AddressRange => each(m, steps, |option| address_range(option, family)),
            Kind::Ttl(family) => each(m, steps, |option| ttl(option, family)),
            Kind::Statistic => stateful::statistic(m, steps),
            Kind::Recent => stateful::recent(m, steps),
            Kind::Accounting => each(m, steps, |option| {
                let plain = option.is(&["--nfacct-name"]) && !option.negated;
                let name = option.one().filter(|_| plain)?.into();
                Some(Test::Accounting { name })
            }),
            Kind::Stateful => {
                push(steps, stateful::any(m));
                Some(())
            }
        }
    }
}

fn push(steps: &mut Vec<Step>, test: Test) {
    steps.push(Step::Test(test));
}

/// One test for each option; `None` if there is none, or one is not understood.
fn each(
    m: Match<'_>,
    steps: &mut Vec<Step>,
    mut lower: impl FnMut(OptionRef<'_>) -> Option<Test>,
) -> Option<()> {
    let before = steps.len();
    for option in m.options() {
        push(steps, lower(option)?);
    }
    (steps.len() > before).then_some(())
}

fn take_comment(m: Match<'_>, comment: &mut Option<Box<str>>) -> Option<()> {
    for option in m.options() {
        let text = option.one().filter(|_| option.is(&["--comment"]) && !option.negated)?;
        if comment.is_none() {
            *comment = Some(text.into());
        }
    }
    Some(())
}

/// Each option narrows the match by itself (tcp_mt in net/netfilter/xt_tcpudp.c, xt_sctp.c,
/// xt_dccp.c), so that one that is not understood leaves the others certain.
fn transport(m: Match<'_>, protocol: Protocol, steps: &mut Vec<Step>) -> Option<()> {
    for option in m.options() {
        let test = match option.name {
            "--sport" | "--source-port" => port_test(option, protocol, End::Source),
            "--dport" | "--destination-port" => port_test(option, protocol, End::Destination),
            "--syn" if protocol == Protocol::TCP && option.args.is_empty() => {
                Some(flag_test(FIN | SYN | RST | ACK, SYN, option.negated))
            }
            "--tcp-flags" if protocol == Protocol::TCP => option.two().and_then(|(mask, set)| {
                let (mask, set) = (flags(mask, &TCP_FLAGS)?, flags(set, &TCP_FLAGS)?);
                Some(flag_test(mask, set, option.negated))
            }),
            _ => None,
        };
        match test {
            // All ports: a packet without a port in it is not looked at further.
            Some(Test::Range { low: 0, high: 0xffff, negated: false, .. }) => {}
            Some(test) => push(steps, test),
            None => push(steps, Test::Opaque(Opaque::new(option.text))),
        }
    }
    Some(())
}

fn port_test(option: OptionRef<'_>, protocol: Protocol, end: End) -> Option<Test> {
    let (low, high) = port_range(option.one()?, ':')?;
    let field = Field::Port(Some(protocol), end);
    Some(within(field, low.into(), high.into(), option.negated))
}

const FIN: u32 = 1;
const SYN: u32 = 2;
const RST: u32 = 4;
const ACK: u32 = 16;

const TCP_FLAGS: [(&str, u32); 8] = [
    ("FIN", FIN),
    ("SYN", SYN),
    ("RST", RST),
    ("PSH", 8),
    ("ACK", ACK),
    ("URG", 32),
    ("ALL", 63),
    ("NONE", 0),
];

fn flag_test(mask: u32, set: u32, negated: bool) -> Test {
    Test::Compare {
        left: Expr::bits(BitOp::And, Expr::Field(Field::TcpFlags), Expr::number(mask)),
        op: equal(negated),
        right: Expr::number(set),
    }
}

/// `--icmp-type`: a type, `type/code`, a name, or `any` (icmp_type_code_match in
/// net/ipv4/netfilter/ip_tables.c, later xt_tcpudp.c: type 255 is any type; not so for ICMPv6).
fn icmp_type(option: OptionRef<'_>, family: Family) -> Option<Test> {
    let text = option.one().filter(|_| option.is(&["--icmp-type", "--icmpv6-type"]))?;
    let (kind, code) = icmp_numbers(text, family)?;
    let codes = |low, high| {
        (u128::from(u16::from_be_bytes([kind, low])), u128::from(u16::from_be_bytes([kind, high])))
    };
    let (low, high) = match code {
        _ if family == Family::V4 && kind == 255 => (0, 0xffff),
        Some(code) => codes(code, code),
        None => codes(0, 255),
    };
    let left = Expr::Field(Field::IcmpTypeAndCode(family));
    Some(Test::Range { left, low, high, negated: option.negated })
}

fn icmp_numbers(text: &str, family: Family) -> Option<(u8, Option<u8>)> {
    if text.eq_ignore_ascii_case("any") && family == Family::V4 {
        return Some((255, None));
    }
    let byte = |text: &str| u8::try_from(value::number(text)?).ok();
    match text.split_once('/') {
        Some((kind, code)) => Some((byte(kind)?, Some(byte(code)?))),
        None => match byte(text) {
            Some(kind) => Some((kind, None)),
            None => icmp::by_name(text, family),
        },
    }
}

fn multiport(option: OptionRef<'_>) -> Option<Test> {
    let end = match option.name {
        "--sports" | "--source-ports" => Some(End::Source),
        "--dports" | "--destination-ports" => Some(End::Destination),
        "--ports" => None,
        _ => return None,
    };
    let ranges = option.one()?.split(',').map(|part| port_range(part, ':'));
    let ranges = ranges.collect::<Option<Box<[_]>>>()?;
    Some(Test::Ports { end, ranges, negated: option.negated })
}

/// xt_set. Comparing an element's counters makes it another match under negation
/// (set_match_v4 in net/netfilter/xt_set.c), so that is not split.
fn set(m: Match<'_>, steps: &mut Vec<Step>) -> Option<()> {
    let mut found = None;
    let mut return_nomatch = false;
    for option in m.options() {
        match option.name {
            "--match-set" | "--set" if found.is_none() => {
                let (name, ends) = option.two()?;
                found = Some((name, ends, option.negated));
            }
            "--return-nomatch" if option.is_switch() => return_nomatch = true,
            "--update-counters" | "--update-subcounters" if option.args.is_empty() => {}
            _ => return None,
        }
    }
    let (name, ends, negated) = found?;
    let ends = ends.split(',').map(|end| match end {
        "src" => Some(End::Source),
        "dst" => Some(End::Destination),
        _ => None,
    });
    let ends = ends.collect::<Option<Box<[_]>>>()?;
    push(steps, Test::IpSet { set: name.into(), ends, negated, return_nomatch });
    Some(())
}

/// A bit for each `RTN_*` number (include/uapi/linux/netfilter/xt_addrtype.h).
const ADDRESS_TYPES: [(&str, u32); 12] = [
    ("UNSPEC", 1 << 0),
    ("UNICAST", 1 << 1),
    ("LOCAL", 1 << 2),
    ("BROADCAST", 1 << 3),
    ("ANYCAST", 1 << 4),
    ("MULTICAST", 1 << 5),
    ("BLACKHOLE", 1 << 6),
    ("UNREACHABLE", 1 << 7),
    ("PROHIBIT", 1 << 8),
    ("THROW", 1 << 9),
    ("NAT", 1 << 10),
    ("XRESOLVE", 1 << 11),
];

fn address_type(m: Match<'_>, steps: &mut Vec<Step>) -> Option<()> {
    let mut limit = None;
    for option in m.options() {
        limit = match option.name {
            "--limit-iface-in" if option.is_switch() && limit.is_none() => Some(Device::In),
            "--limit-iface-out" if option.is_switch() && limit.is_none() => Some(Device::Out),
            "--src-type" | "--dst-type" => limit,
            _ => return None,
        };
    }
    let before = steps.len();
    for option in m.options() {
        let of = match option.name {
            "--src-type" => End::Source,
            "--dst-type" => End::Destination,
            _ => continue,
        };
        let types = u16::try_from(flags(option.one()?, &ADDRESS_TYPES)?).ok()?;
        push(steps, Test::AddressType { of, types, limit, negated: option.negated });
    }
    (steps.len() > before).then_some(())
}

fn address_range(option: OptionRef<'_>, family: Family) -> Option<Test> {
    let end = match option.name {
        "--src-range" => End::Source,
        "--dst-range" => End::Destination,
        _ => return None,
    };
    let text = option.one()?;
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let low = value::bits(value::address(low, family)?);
    let high = value::bits(value::address(high, family)?);
    Some(within(Field::Address(family, end), low, high, option.negated))
}

/// ttl_mt and hl_mt6 in net/netfilter/xt_hl.c.
fn ttl(option: OptionRef<'_>, family: Family) -> Option<Test> {
    let op = match (option.name, option.negated) {
        ("--ttl-eq" | "--ttl" | "--hl-eq", negated) => equal(negated),
        ("--ttl-lt" | "--hl-lt", false) => Comparison::Lt,
        ("--ttl-gt" | "--hl-gt", false) => Comparison::Gt,
        _ => return None,
    };
    let limit = u8::try_from(value::number(option.one()?)?).ok()?;
    let left = Expr::Field(Field::Ttl(family));
    Some(Test::Compare { left, op, right: Expr::number(limit) })
}
