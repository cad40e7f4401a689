//! What targets become. Expected values are from the kernel's target functions, which the code
//! names.

use std::net::IpAddr;

use unmasq_model::expr::{BitOp, Expr, Field, Value};
use unmasq_model::origin::Opaque;
use unmasq_model::rule::{Action, Nat, NatAddress, NatKind, NatPorts, Verdict};
use unmasq_model::ruleset::ChainId;
use unmasq_model::ruleset::TableFamily::{self, Ip, Ip6};

fn check(family: TableFamily, cases: &[(&str, Action)]) {
    for (text, expected) in cases {
        assert_eq!(super::action(family, text), *expected, "{text}");
    }
}

fn opaque(text: &str) -> Action {
    Action::Opaque(Opaque::new(text))
}

fn n(number: u32) -> Expr {
    Expr::number(number)
}

fn and(field: Field, mask: u32) -> Expr {
    Expr::bits(BitOp::And, Expr::Field(field), n(mask))
}

fn xor(left: Expr, right: Expr) -> Expr {
    Expr::bits(BitOp::Xor, left, right)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn to(text: &str) -> Option<NatAddress> {
    Some(NatAddress::Expr(Expr::Const(Value::address(ip(text)))))
}

fn between(low: &str, high: &str) -> Option<NatAddress> {
    Some(NatAddress::Range(ip(low), ip(high)))
}

fn port(number: u32) -> Option<NatPorts> {
    Some(NatPorts::Expr(n(number)))
}

fn nat(
    kind: NatKind,
    address: Option<NatAddress>,
    ports: Option<NatPorts>,
    random: bool,
) -> Action {
    Action::Nat(Nat { kind, family: None, address, ports, random })
}

#[test]
fn verdicts() {
    check(
        Ip,
        &[
            ("-j ACCEPT", Action::Verdict(Verdict::Accept)),
            ("-j DROP", Action::Verdict(Verdict::Drop)),
            ("-j RETURN", Action::Verdict(Verdict::Return)),
            ("-j U", Action::Verdict(Verdict::Jump(ChainId(3)))),
            ("-g V", Action::Verdict(Verdict::Goto(ChainId(4)))),
            ("-j REJECT", Action::Reject { with: "icmp-port-unreachable".into() }),
            ("-j REJECT --reject-with tcp-reset", Action::Reject { with: "tcp-reset".into() }),
            ("-j ACCEPT --why not", opaque("-j ACCEPT --why not")),
        ],
    );
    check(Ip6, &[("-j REJECT", Action::Reject { with: "icmp6-port-unreachable".into() })]);
}

#[test]
fn marks() {
    let mark = Field::Mark;
    check(
        Ip,
        &[
            (
                "-j MARK --set-xmark 0x4000/0x4000",
                Action::SetMark(xor(and(mark, 0xffff_bfff), n(0x4000))),
            ),
            ("-j MARK --set-xmark 0x5/0xffffffff", Action::SetMark(n(5))),
            // Bits of the value outside the mask are flipped by set-xmark, set by set-mark.
            ("-j MARK --set-xmark 0x6/0x3", Action::SetMark(xor(and(mark, 0xffff_fffc), n(6)))),
            ("-j MARK --set-mark 0x6/0x3", Action::SetMark(xor(and(mark, 0xffff_fff8), n(6)))),
            ("-j MARK --and-mark 0xff", Action::SetMark(and(mark, 0xff))),
            ("-j MARK --set-xmark 0x0/0xffffff00", Action::SetMark(and(mark, 0xff))),
            ("-j MARK --or-mark 0x9", Action::SetMark(xor(and(mark, 0xffff_fff6), n(9)))),
            ("-j MARK --xor-mark 0x9", Action::SetMark(xor(Expr::Field(mark), n(9)))),
            ("-j MARK", opaque("-j MARK")),
        ],
    );
}

#[test]
fn connection_marks() {
    let (mark, ct) = (Field::Mark, Field::CtMark);
    check(
        Ip,
        &[
            ("-j CONNMARK --set-xmark 0x1/0x3", Action::SetCtMark(xor(and(ct, !3), n(1)))),
            ("-j CONNMARK --save-mark", Action::SetCtMark(Expr::Field(mark))),
            (
                "-j CONNMARK --save-mark --nfmask 0xf --ctmask 0xff",
                Action::SetCtMark(xor(and(ct, !0xff), and(mark, 0xf))),
            ),
            (
                "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
                Action::SetMark(Expr::Field(ct)),
            ),
            (
                "-j CONNMARK --restore-mark --nfmask 0xf --ctmask 0x70",
                Action::SetMark(xor(and(mark, !0xf), and(ct, 0x70))),
            ),
            (
                "-j CONNMARK --restore-mark --mask 0x80",
                Action::SetMark(xor(and(mark, !0x80), and(ct, 0x80))),
            ),
            (
                "-j CONNMARK --save-mark --left-shift-mark 4",
                opaque("-j CONNMARK --save-mark --left-shift-mark 4"),
            ),
        ],
    );
}

#[test]
fn translations() {
    check(
        Ip,
        &[
            (
                "-j DNAT --to-destination 10.0.0.1:8080",
                nat(NatKind::Dnat, to("10.0.0.1"), port(8080), false),
            ),
            (
                "-j DNAT --to-destination 10.0.0.1-10.0.0.9:100-200 --random --persistent",
                nat(
                    NatKind::Dnat,
                    between("10.0.0.1", "10.0.0.9"),
                    Some(NatPorts::Range(100, 200)),
                    true,
                ),
            ),
            ("-j DNAT --to-destination :80", nat(NatKind::Dnat, None, port(80), false)),
            (
                "-j DNAT --to-destination 10.0.0.1:100-200/100",
                opaque("-j DNAT --to-destination 10.0.0.1:100-200/100"),
            ),
            ("-j DNAT [unsupported revision]", opaque("-j DNAT [unsupported revision]")),
            (
                "-j SNAT --to-source 10.0.0.1 --random-fully",
                nat(NatKind::Snat, to("10.0.0.1"), None, true),
            ),
            ("-j MASQUERADE", nat(NatKind::Masquerade, None, None, false)),
            (
                "-j MASQUERADE --to-ports 100-200 --random-fully",
                nat(NatKind::Masquerade, None, Some(NatPorts::Range(100, 200)), true),
            ),
            ("-j REDIRECT --to-ports 15001", nat(NatKind::Redirect, None, port(15001), false)),
            (
                "-j NETMAP --to 10.1.0.0/16",
                nat(NatKind::Netmap("10.1.0.0/16".parse().expect("a net")), None, None, false),
            ),
            ("-j NETMAP --to 10.1.0.0/255.0.255.0", opaque("-j NETMAP --to 10.1.0.0/255.0.255.0")),
        ],
    );
    check(
        Ip6,
        &[
            (
                "-j DNAT --to-destination [fd00::1]:80",
                nat(NatKind::Dnat, to("fd00::1"), port(80), false),
            ),
            (
                "-j SNAT --to-source [fd00::1-fd00::5]:80",
                nat(NatKind::Snat, between("fd00::1", "fd00::5"), port(80), false),
            ),
            ("-j SNAT --to-source ::1", nat(NatKind::Snat, to("::1"), None, false)),
            ("-j SNAT --to-source :81", nat(NatKind::Snat, None, port(81), false)),
            (
                "-j NETMAP --to fd00::/64",
                nat(NatKind::Netmap("fd00::/64".parse().expect("a net")), None, None, false),
            ),
        ],
    );
}

#[test]
fn the_others() {
    check(
        Ip,
        &[
            ("-j CT --notrack", Action::NoTrack),
            ("-j NOTRACK", Action::NoTrack),
            ("-j CT --zone 5", Action::CtTemplate),
            ("-j LOG --log-prefix \"-j DROP \" --log-level 4", Action::Log),
            ("-j NFLOG --nflog-prefix DROP", Action::Log),
            ("-j TCPMSS --clamp-mss-to-pmtu", Action::Log),
            ("-j CHECKSUM --checksum-fill", Action::Log),
            ("-j NFQUEUE --queue-num 4", opaque("-j NFQUEUE --queue-num 4")),
            ("-j TOS --set-tos 0x10/0x3f", opaque("-j TOS --set-tos 0x10/0x3f")),
            ("-j SET --add-set a src", opaque("-j SET --add-set a src")),
        ],
    );
}
