//! What matches become. Expected values are from the kernel's match functions, which the code
//! names.

use unmasq_model::expr::{
    BitOp, Device, Direction, End, Expr, Field, XT_STATE_DNAT, XT_STATE_SNAT, ct_state, ct_status,
};
use unmasq_model::origin::Opaque;
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::{Comparison, NamePattern, Test};
use unmasq_model::ruleset::TableFamily::{self, Ip, Ip6};

use Comparison::{Eq, Gt, Lt, Ne};
use End::{Destination, Source};

fn check(family: TableFamily, cases: &[(&str, &[Test])]) {
    for (text, expected) in cases {
        assert_eq!(super::tests(family, text), *expected, "{text}");
    }
}

fn is(field: Field, op: Comparison, number: u128) -> Test {
    Test::Compare { left: Expr::Field(field), op, right: Expr::number(number) }
}

fn masked(field: Field, mask: u128, op: Comparison, number: u128) -> Test {
    let left = Expr::bits(BitOp::And, Expr::Field(field), Expr::number(mask));
    Test::Compare { left, op, right: Expr::number(number) }
}

fn range(field: Field, low: u128, high: u128, negated: bool) -> Test {
    Test::Range { left: Expr::Field(field), low, high, negated }
}

fn any_bit(field: Field, bits: u32, negated: bool) -> Test {
    Test::AnyBit { left: Expr::Field(field), bits: bits.into(), negated }
}

fn opaque(text: &str) -> Test {
    Test::Opaque(Opaque::new(text))
}

fn name(device: Device, name: &str, wildcard: bool, negated: bool) -> Test {
    Test::DeviceName { device, pattern: NamePattern { name: name.into(), wildcard }, negated }
}

fn state(what: &str) -> Test {
    Test::State { what: what.into(), key: None, sets: false }
}

const SRC4: Field = Field::Address(Family::V4, Source);
const DST4: Field = Field::Address(Family::V4, Destination);
const SRC6: Field = Field::Address(Family::V6, Source);

#[test]
fn addresses() {
    check(
        Ip,
        &[
            ("-s 10.1.2.3/32", &[is(SRC4, Eq, 0x0a01_0203)]),
            ("-d 10.1.2.3", &[is(DST4, Eq, 0x0a01_0203)]),
            ("! -s 10.1.2.3/32", &[is(SRC4, Ne, 0x0a01_0203)]),
            ("-s ! 10.1.2.3/32", &[is(SRC4, Ne, 0x0a01_0203)]),
            ("-d 10.96.0.0/12", &[range(DST4, 0x0a60_0000, 0x0a6f_ffff, false)]),
            ("! -d 10.96.7.8/255.240.0.0", &[range(DST4, 0x0a60_0000, 0x0a6f_ffff, true)]),
            ("-s 10.0.7.0/255.0.255.0", &[masked(SRC4, 0xff00_ff00, Eq, 0x0a00_0700)]),
            ("-s 0.0.0.0/0 -d 0/0", &[opaque("-d 0/0")]),
            ("-s 0.0.0.0/0", &[]),
            // Nothing is outside of everything.
            ("! -s 0.0.0.0/0", &[range(SRC4, 0, 0xffff_ffff, true)]),
            ("-s 10.0.0.1,10.0.0.2", &[opaque("-s 10.0.0.1,10.0.0.2")]),
            ("! -s example.org", &[opaque("! -s example.org")]),
            ("-s 10.0.0.0/33", &[opaque("-s 10.0.0.0/33")]),
            ("-s fd00::1/128", &[opaque("-s fd00::1/128")]),
            (
                "-m iprange ! --src-range 10.0.0.5-10.0.0.9 --dst-range 10.0.0.7-10.0.0.7",
                &[range(SRC4, 0x0a00_0005, 0x0a00_0009, true), is(DST4, Eq, 0x0a00_0007)],
            ),
        ],
    );
    check(
        Ip6,
        &[
            ("-s fd00::9/128", &[is(SRC6, Eq, (0xfd00 << 112) + 9)]),
            ("! -s fe80::/10", &[range(SRC6, 0xfe80 << 112, (0xfec0 << 112) - 1, true)]),
            ("-s ::/0", &[]),
            ("-s fe80::/ffff::ff00", &[masked(SRC6, (0xffff << 112) + 0xff00, Eq, 0xfe80 << 112)]),
        ],
    );
}

#[test]
fn the_kernel_tests_addresses_devices_and_protocol_first() {
    check(
        Ip,
        &[(
            "-m mark --mark 0x3 -f -p 47 ! -o cali+ -i eth0 -d 10.0.0.2 -s 10.0.0.1",
            &[
                is(SRC4, Eq, 0x0a00_0001),
                is(DST4, Eq, 0x0a00_0002),
                name(Device::In, "eth0", false, false),
                name(Device::Out, "cali", true, true),
                is(Field::L4Proto, Eq, 47),
                opaque("-f"),
                is(Field::Mark, Eq, 3),
            ],
        )],
    );
    check(
        Ip,
        &[
            ("-i +", &[]),
            ("! -i +", &[name(Device::In, "", true, true)]),
            ("-i ! lo", &[name(Device::In, "lo", false, true)]),
            ("-p all", &[]),
            ("! -p TCP", &[is(Field::L4Proto, Ne, 6)]),
            ("-p nonsense", &[opaque("-p nonsense")]),
            ("! -f", &[opaque("! -f")]),
        ],
    );
}

#[test]
fn transport_protocols() {
    let tcp = is(Field::L4Proto, Eq, 6);
    let port = |protocol, end| Field::Port(Some(protocol), end);
    check(
        Ip,
        &[
            (
                "-p tcp -m tcp --sport 1024:65535 ! --dport 443",
                &[
                    tcp.clone(),
                    range(port(Protocol::TCP, Source), 1024, 65535, false),
                    is(port(Protocol::TCP, Destination), Ne, 443),
                ],
            ),
            // The match that -p loads by itself, also behind another match or the target.
            ("-p tcp --dport 81", &[tcp.clone(), is(port(Protocol::TCP, Destination), Eq, 81)]),
            (
                "-p tcp -m comment --comment x --dport 82 ",
                &[tcp.clone(), is(port(Protocol::TCP, Destination), Eq, 82)],
            ),
            ("-p tcp -m tcp --dport 0:65535", std::slice::from_ref(&tcp)),
            (
                "-p tcp -m tcp ! --dport :90",
                &[tcp.clone(), range(port(Protocol::TCP, Destination), 0, 90, true)],
            ),
            (
                "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
                &[tcp.clone(), masked(Field::TcpFlags, 0x17, Eq, 2)],
            ),
            ("-p tcp -m tcp ! --syn", &[tcp.clone(), masked(Field::TcpFlags, 0x17, Ne, 2)]),
            (
                "-p tcp -m tcp --tcp-flags ALL NONE",
                &[tcp.clone(), masked(Field::TcpFlags, 0x3f, Eq, 0)],
            ),
            // One that is not understood leaves the others certain.
            (
                "-p tcp -m tcp --dport 83 ! --tcp-option 3 --sport 84",
                &[
                    tcp.clone(),
                    is(port(Protocol::TCP, Destination), Eq, 83),
                    opaque("! --tcp-option 3"),
                    is(port(Protocol::TCP, Source), Eq, 84),
                ],
            ),
            ("-p tcp -m tcp --dport http", &[tcp.clone(), opaque("--dport http")]),
            (
                "-p udp -m udp --dport 53",
                &[is(Field::L4Proto, Eq, 17), is(port(Protocol::UDP, Destination), Eq, 53)],
            ),
            (
                "-p udplite -m udplite --dport 54",
                &[is(Field::L4Proto, Eq, 136), is(port(Protocol::UDPLITE, Destination), Eq, 54)],
            ),
            (
                "-p sctp -m sctp --dport 4:5 --chunk-types any INIT",
                &[
                    is(Field::L4Proto, Eq, 132),
                    range(port(Protocol::SCTP, Destination), 4, 5, false),
                    opaque("--chunk-types any INIT"),
                ],
            ),
            (
                "-p dccp -m dccp --sport 6",
                &[is(Field::L4Proto, Eq, 33), is(port(Protocol::DCCP, Source), Eq, 6)],
            ),
            (
                "-p tcp -m multiport ! --dports 80,443,8000:8100",
                &[
                    tcp.clone(),
                    Test::Ports {
                        end: Some(Destination),
                        ranges: Box::new([(80, 80), (443, 443), (8000, 8100)]),
                        negated: true,
                    },
                ],
            ),
            (
                "-p tcp -m multiport --ports 7 -m multiport --sports 8",
                &[
                    tcp.clone(),
                    Test::Ports { end: None, ranges: Box::new([(7, 7)]), negated: false },
                    Test::Ports { end: Some(Source), ranges: Box::new([(8, 8)]), negated: false },
                ],
            ),
        ],
    );
}

#[test]
fn icmp_types() {
    let v4 = Field::IcmpTypeAndCode(Family::V4);
    let icmp = is(Field::L4Proto, Eq, 1);
    check(
        Ip,
        &[
            ("-p icmp -m icmp --icmp-type 8", &[icmp.clone(), range(v4, 0x800, 0x8ff, false)]),
            ("-p icmp --icmp-type ping", &[icmp.clone(), range(v4, 0x800, 0x8ff, false)]),
            ("-p icmp -m icmp ! --icmp-type 3/1", &[icmp.clone(), range(v4, 0x301, 0x301, true)]),
            (
                "-p icmp -m icmp --icmp-type host-unreachable",
                &[icmp.clone(), range(v4, 0x301, 0x301, false)],
            ),
            // Type 255 is any type, so its negation is none.
            ("-p icmp -m icmp --icmp-type any", &[icmp.clone(), range(v4, 0, 0xffff, false)]),
            ("-p icmp -m icmp ! --icmp-type 255/3", &[icmp.clone(), range(v4, 0, 0xffff, true)]),
            ("-p icmp -m icmp --icmp-type odd", &[icmp.clone(), opaque("-m icmp --icmp-type odd")]),
        ],
    );
    let v6 = Field::IcmpTypeAndCode(Family::V6);
    let icmp6 = is(Field::L4Proto, Eq, 58);
    check(
        Ip6,
        &[
            (
                "-p ipv6-icmp -m icmp6 --icmpv6-type 135",
                &[icmp6.clone(), range(v6, 0x8700, 0x87ff, false)],
            ),
            (
                "-p icmpv6 --icmpv6-type neighbor-advertisement",
                &[icmp6.clone(), range(v6, 0x8800, 0x88ff, false)],
            ),
            // For ICMPv6 255 is a type like any other.
            ("-p icmpv6 -m icmp6 ! --icmpv6-type 255", &[icmp6, range(v6, 0xff00, 0xffff, true)]),
        ],
    );
}

#[test]
fn connections() {
    let ct = Field::CtStateAndNat;
    let original = Direction::Original;
    let reply = Direction::Reply;
    check(
        Ip,
        &[
            (
                "-m conntrack --ctstate RELATED,ESTABLISHED",
                &[any_bit(ct, ct_state::RELATED | ct_state::ESTABLISHED, false)],
            ),
            ("-m state --state NEW", &[any_bit(ct, ct_state::NEW, false)]),
            (
                "-m conntrack ! --ctstate DNAT,SNAT",
                &[any_bit(ct, XT_STATE_DNAT | XT_STATE_SNAT, true)],
            ),
            (
                "-m conntrack --ctstatus ASSURED,SEEN_REPLY",
                &[any_bit(Field::CtStatus, ct_status::ASSURED | ct_status::SEEN_REPLY, false)],
            ),
            ("-m conntrack --ctstatus NONE", &[any_bit(Field::CtStatus, 0, false)]),
            (
                "-m conntrack --ctstate NEW ! --ctproto udp --ctorigdst 10.0.0.0/8 \
                 --ctorigdstport 5:9 --ctreplsrc 10.0.0.3 ! --ctreplsrcport 77 --ctdir REPLY",
                &[
                    any_bit(ct, ct_state::NEW, false),
                    is(Field::CtProtocol, Ne, 17),
                    range(
                        Field::CtAddress(original, Family::V4, Destination),
                        0x0a00_0000,
                        0x0aff_ffff,
                        false,
                    ),
                    range(Field::CtPort(original, Destination), 5, 9, false),
                    is(Field::CtAddress(reply, Family::V4, Source), Eq, 0x0a00_0003),
                    is(Field::CtPort(reply, Source), Ne, 77),
                    is(Field::CtDirection, Eq, 1),
                ],
            ),
            // Without a connection the kernel doesn't come to the second option.
            (
                "-m conntrack --ctstate INVALID,NEW ! --ctproto 6",
                &[any_bit(ct, ct_state::INVALID | ct_state::NEW, false), opaque("! --ctproto 6")],
            ),
            (
                "-m conntrack ! --ctstate INVALID --ctproto 6",
                &[any_bit(ct, ct_state::INVALID, true), opaque("--ctproto 6")],
            ),
            (
                "-m conntrack ! --ctstate INVALID,UNTRACKED --ctproto 6",
                &[
                    any_bit(ct, ct_state::INVALID | ct_state::UNTRACKED, true),
                    is(Field::CtProtocol, Eq, 6),
                ],
            ),
            (
                "-m conntrack --ctproto 6 --ctexpire 1:5",
                &[is(Field::CtProtocol, Eq, 6), opaque("--ctexpire 1:5")],
            ),
            ("-m conntrack --ctstate FRESH", &[opaque("-m conntrack --ctstate FRESH")]),
        ],
    );
}

#[test]
fn marks_and_ttl() {
    check(
        Ip,
        &[
            ("-m mark --mark 0x4000/0x4000", &[masked(Field::Mark, 0x4000, Eq, 0x4000)]),
            ("-m mark ! --mark 0x5/0x7", &[masked(Field::Mark, 7, Ne, 5)]),
            ("-m mark --mark 9/0xffffffff", &[is(Field::Mark, Eq, 9)]),
            ("-m mark --mark 010", &[is(Field::Mark, Eq, 8)]),
            ("-m connmark ! --mark 0x3", &[is(Field::CtMark, Ne, 3)]),
            ("-m mark --mark much", &[opaque("-m mark --mark much")]),
            ("-m ttl --ttl-lt 6", &[is(Field::Ttl(Family::V4), Lt, 6)]),
            ("-m ttl ! --ttl-eq 7", &[is(Field::Ttl(Family::V4), Ne, 7)]),
        ],
    );
    check(Ip6, &[("-m hl --hl-gt 254", &[is(Field::Ttl(Family::V6), Gt, 254)])]);
}

#[test]
fn sets() {
    let set = |name: &str, ends: &[End], negated, return_nomatch| Test::IpSet {
        set: name.into(),
        ends: ends.into(),
        negated,
        return_nomatch,
    };
    check(
        Ip,
        &[
            (
                "-m set --match-set cali40all-ipam-pools src",
                &[set("cali40all-ipam-pools", &[Source], false, false)],
            ),
            (
                "-m set ! --match-set a dst,dst,src --return-nomatch ! --update-counters",
                &[set("a", &[Destination, Destination, Source], true, true)],
            ),
            // Counters take part in the lookup that is negated.
            (
                "-m set ! --match-set a src --packets-gt 4",
                &[opaque("-m set ! --match-set a src --packets-gt 4")],
            ),
            ("-m set --match-set a up", &[opaque("-m set --match-set a up")]),
        ],
    );
}

#[test]
fn address_types() {
    let kind = |of, types, limit, negated| Test::AddressType { of, types, limit, negated };
    check(
        Ip,
        &[
            ("-m addrtype --dst-type LOCAL", &[kind(Destination, 4, None, false)]),
            (
                "-m addrtype ! --src-type UNICAST,LOCAL --dst-type BROADCAST --limit-iface-in",
                &[
                    kind(Source, 6, Some(Device::In), true),
                    kind(Destination, 8, Some(Device::In), false),
                ],
            ),
            (
                "-m addrtype ! --src-type LOCAL --limit-iface-out",
                &[kind(Source, 4, Some(Device::Out), true)],
            ),
            ("-m addrtype --limit-iface-in", &[opaque("-m addrtype --limit-iface-in")]),
        ],
    );
}

#[test]
fn chance_and_state() {
    check(
        Ip,
        &[
            // lround(2^31 * 0.33333333349) = lround(715827883.0…); the kernel gave 1/3 back so.
            (
                "-m statistic --mode random --probability 0.33333333349",
                &[Test::Random { numerator: 715_827_883, negated: false }],
            ),
            (
                "-m statistic --mode random ! --probability 0.50000000000",
                &[Test::Random { numerator: 1 << 30, negated: true }],
            ),
            (
                "-m statistic --mode random --probability 1.0",
                &[Test::Random { numerator: 1 << 31, negated: false }],
            ),
            (
                "-m statistic --mode nth --every 3 --packet 1",
                &[state("statistic --mode nth --every 3 --packet 1")],
            ),
            (
                "-m statistic --mode random --probability 2",
                &[opaque("-m statistic --mode random --probability 2")],
            ),
            (
                "-m limit --limit 3/sec --limit-burst 9",
                &[state("limit --limit 3/sec --limit-burst 9")],
            ),
            ("-m time --timestart 10:00:00", &[state("time --timestart 10:00:00")]),
            (
                "-m recent --set --name A --mask 255.255.255.255 --rsource",
                &[Test::State {
                    what: "recent --set --name A --mask 255.255.255.255 --rsource".into(),
                    key: Some("recent A rsource 255.255.255.255".into()),
                    sets: true,
                }],
            ),
            (
                "-m recent ! --rcheck --seconds 5 --name A --rsource",
                &[state("recent ! --rcheck --seconds 5 --name A --rsource")],
            ),
            // Never true, and leaves an entry.
            ("-m recent ! --set --name A", &[opaque("-m recent ! --set --name A")]),
            ("-m nfacct --nfacct-name web", &[Test::Accounting { name: "web".into() }]),
        ],
    );
}

#[test]
fn what_is_not_known_leaves_the_rest_certain() {
    check(
        Ip,
        &[
            (
                "-s 10.0.0.1 -m mac ! --mac-source 00:11:22:33:44:55 -m mark --mark 0x2",
                &[
                    is(SRC4, Eq, 0x0a00_0001),
                    opaque("-m mac ! --mac-source 00:11:22:33:44:55"),
                    is(Field::Mark, Eq, 2),
                ],
            ),
            // An option of an unknown match may have any name.
            (
                "-p tcp -m odd --dport 9 -m tcp --dport 8",
                &[
                    is(Field::L4Proto, Eq, 6),
                    opaque("-m odd --dport 9"),
                    is(Field::Port(Some(Protocol::TCP), Destination), Eq, 8),
                ],
            ),
            ("-m owner --uid-owner 0", &[opaque("-m owner --uid-owner 0")]),
            (
                "-m string --string \"-j DROP\" --algo bm",
                &[opaque("-m string --string \"-j DROP\" --algo bm")],
            ),
            ("-m mark", &[opaque("-m mark")]),
            ("--strange 5", &[opaque("--strange 5")]),
        ],
    );
}
