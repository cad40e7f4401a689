use super::*;

const V4: (&str, &str) = ("10.42.0.0/16", "10.42.3.0/24");
const V6: (&str, &str) = ("fd42::/56", "fd42:0:0:3::/64");

fn flannel(form: Form, (cluster, node): (&str, &str), random_fully: bool) -> Flannel {
    Flannel { form, cluster: net(cluster), node: net(node), random_fully }
}

pub(super) fn examples() -> Vec<Rules> {
    let forms =
        [Form::Nftables, Form::Chains, Form::InsertedChains, Form::Bare, Form::BareWithoutReturn];
    forms.map(|form| flannel(form, V4, true).rules()).into()
}

#[test]
fn chains_appended() {
    let rules = flannel(Form::Chains, V4, true).rules();
    check(
        &rules.iptables(),
        r#"*nat
        :FLANNEL-POSTRTG - [0:0]
        -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
        -A FLANNEL-POSTRTG -s 10.42.3.0/24 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j RETURN
        -A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.3.0/24 -m comment --comment "flanneld masq" -j RETURN
        -A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.3.0/24 -m comment --comment "flanneld masq" -j RETURN
        -A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
        -A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
        -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
        COMMIT
        *filter
        :FLANNEL-FWD - [0:0]
        -A FLANNEL-FWD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
        -A FLANNEL-FWD -d 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
        -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
        COMMIT"#,
    );
    assert_eq!((rules.nft(), rules.ipset()), (String::new(), String::new()));
}

/// The old order of the chain: the RETURN for this node's pods stands after the first MASQUERADE.
#[test]
fn chains_inserted() {
    check(
        &flannel(Form::InsertedChains, V6, false).rules().iptables(),
        r#"*nat
        :FLANNEL-POSTRTG - [0:0]
        -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
        -A FLANNEL-POSTRTG -s fd42::/56 -d fd42::/56 -m comment --comment "flanneld masq" -j RETURN
        -A FLANNEL-POSTRTG -s fd42::/56 ! -d ff00::/8 -m comment --comment "flanneld masq" -j MASQUERADE
        -A FLANNEL-POSTRTG ! -s fd42::/56 -d fd42:0:0:3::/64 -m comment --comment "flanneld masq" -j RETURN
        -A FLANNEL-POSTRTG ! -s fd42::/56 -d fd42::/56 -m comment --comment "flanneld masq" -j MASQUERADE
        -I POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
        COMMIT
        *filter
        :FLANNEL-FWD - [0:0]
        -A FLANNEL-FWD -s fd42::/56 -m comment --comment "flanneld forward" -j ACCEPT
        -A FLANNEL-FWD -d fd42::/56 -m comment --comment "flanneld forward" -j ACCEPT
        -I FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
        COMMIT"#,
    );
}

#[test]
fn without_chains() {
    check(
        &flannel(Form::Bare, V4, true).rules().iptables(),
        "*nat
        -A POSTROUTING -s 10.42.0.0/16 -d 10.42.0.0/16 -j RETURN
        -A POSTROUTING -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
        -A POSTROUTING ! -s 10.42.0.0/16 -d 10.42.3.0/24 -j RETURN
        -A POSTROUTING ! -s 10.42.0.0/16 -d 10.42.0.0/16 -j MASQUERADE --random-fully
        COMMIT
        *filter
        -A FORWARD -s 10.42.0.0/16 -j ACCEPT
        -A FORWARD -d 10.42.0.0/16 -j ACCEPT
        COMMIT",
    );
    check(
        &flannel(Form::BareWithoutReturn, V4, true).rules().iptables(),
        "*nat
        -A POSTROUTING -s 10.42.0.0/16 -d 10.42.0.0/16 -j RETURN
        -A POSTROUTING -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
        -A POSTROUTING ! -s 10.42.0.0/16 -d 10.42.0.0/16 -j MASQUERADE
        COMMIT",
    );
    for form in [Form::Bare, Form::BareWithoutReturn] {
        assert_eq!(flannel(form, V6, true).rules().lines(), []);
    }
}

/// flannel-io/flannel issue 1167 lists both, ahead of the four newer rules.
#[test]
fn leftovers_of_an_upgrade() {
    check(
        &flannel(Form::Bare, V4, true).leftovers().iptables(),
        "*nat
        -A POSTROUTING -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
        -A POSTROUTING ! -s 10.42.0.0/16 -d 10.42.0.0/16 -j MASQUERADE
        COMMIT",
    );
    assert_eq!(flannel(Form::Chains, V6, true).leftovers().lines(), []);
}

#[test]
fn nftables() {
    let rules = flannel(Form::Nftables, V4, true).rules();
    check(
        &rules.nft(),
        r#"add table ip flannel-ipv4 { comment "rules for flannel-ipv4" ; }
        add chain ip flannel-ipv4 forward { type filter hook forward priority 0 ; comment "chain to accept flannel traffic" ; }
        flush chain ip flannel-ipv4 forward
        add rule ip flannel-ipv4 forward ip saddr 10.42.0.0/16 accept
        add rule ip flannel-ipv4 forward ip daddr 10.42.0.0/16 accept
        add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority 100 ; comment "chain to manage traffic masquerading by flannel" ; }
        flush chain ip flannel-ipv4 postrtg
        add rule ip flannel-ipv4 postrtg meta mark 0x4000 return
        add rule ip flannel-ipv4 postrtg ip saddr 10.42.3.0/24 ip daddr 10.42.0.0/16 return
        add rule ip flannel-ipv4 postrtg ip saddr 10.42.0.0/16 ip daddr 10.42.3.0/24 return
        add rule ip flannel-ipv4 postrtg ip saddr != 10.42.3.0/24 ip daddr 10.42.0.0/16 return
        add rule ip flannel-ipv4 postrtg ip saddr 10.42.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
        add rule ip flannel-ipv4 postrtg ip saddr != 10.42.0.0/16 ip daddr 10.42.0.0/16 masquerade fully-random"#,
    );
    assert_eq!(rules.iptables(), "");
    let six = flannel(Form::Nftables, V6, false).rules().nft();
    for line in [
        "add rule ip6 flannel-ipv6 postrtg ip6 saddr fd42::/56 ip6 daddr != ff00::/8 masquerade",
        "add rule ip6 flannel-ipv6 forward ip6 daddr fd42::/56 accept",
    ] {
        assert!(six.lines().any(|found| found == line), "{six}");
    }
    assert!(!six.contains("ip ") && !six.contains("224."), "{six}");
}
