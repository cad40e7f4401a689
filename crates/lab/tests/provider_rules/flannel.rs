//! flannel's forms. In its chain a rule is known by the chain, elsewhere by its shape.

use anyhow::{Result, ensure};
use unmasq_audit::Owner;
use unmasq_lab::Namespace;
use unmasq_model::origin::FileId;
use unmasq_provider::{Flannel, Form, Rules};

use crate::{State, check_owners, net};

fn flannel(form: Form) -> Flannel {
    Flannel { form, cluster: net("10.42.0.0/16"), node: net("10.42.3.0/24"), random_fully: true }
}

fn six(form: Form) -> Flannel {
    let (cluster, node) = (net("fd42::/56"), net("fd42:0:0:3::/64"));
    Flannel { form, cluster, node, random_fully: true }
}

const ALL: &[(&str, Owner)] = &[("", Owner::Flannel)];

pub(crate) const STATES: &[State] = &[
    State {
        name: "flannel_chains",
        rules: || vec![flannel(Form::Chains).rules()],
        chains: &[r#"*nat
            -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
            -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
            -A FLANNEL-POSTRTG -s 10.42.3.0/24 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j RETURN
            -A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.3.0/24 -m comment --comment "flanneld masq" -j RETURN
            -A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.3.0/24 -m comment --comment "flanneld masq" -j RETURN
            -A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
            -A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
            *filter
            -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
            -A FLANNEL-FWD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
            -A FLANNEL-FWD -d 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT"#],
        owners: ALL,
    },
    State {
        name: "flannel_inserted_chains_six",
        rules: || vec![six(Form::InsertedChains).rules()],
        chains: &[r#"*nat
            -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
            -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
            -A FLANNEL-POSTRTG -s fd42::/56 -d fd42::/56 -m comment --comment "flanneld masq" -j RETURN
            -A FLANNEL-POSTRTG -s fd42::/56 ! -d ff00::/8 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
            -A FLANNEL-POSTRTG ! -s fd42::/56 -d fd42:0:0:3::/64 -m comment --comment "flanneld masq" -j RETURN
            -A FLANNEL-POSTRTG ! -s fd42::/56 -d fd42::/56 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
            *filter
            -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
            -A FLANNEL-FWD -s fd42::/56 -m comment --comment "flanneld forward" -j ACCEPT
            -A FLANNEL-FWD -d fd42::/56 -m comment --comment "flanneld forward" -j ACCEPT"#],
        owners: ALL,
    },
    State {
        // As in flannel-io/flannel issue 1167.
        name: "flannel_leftovers_and_bare",
        rules: || vec![flannel(Form::Bare).leftovers(), flannel(Form::Bare).rules()],
        chains: &["*nat
            -A POSTROUTING -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
            -A POSTROUTING ! -s 10.42.0.0/16 -d 10.42.0.0/16 -j MASQUERADE
            -A POSTROUTING -s 10.42.0.0/16 -d 10.42.0.0/16 -j RETURN
            -A POSTROUTING -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
            -A POSTROUTING ! -s 10.42.0.0/16 -d 10.42.3.0/24 -j RETURN
            -A POSTROUTING ! -s 10.42.0.0/16 -d 10.42.0.0/16 -j MASQUERADE --random-fully
            *filter
            -A FORWARD -s 10.42.0.0/16 -j ACCEPT
            -A FORWARD -d 10.42.0.0/16 -j ACCEPT"],
        owners: ALL,
    },
    State {
        name: "flannel_bare_without_return",
        rules: || vec![flannel(Form::BareWithoutReturn).rules()],
        chains: &["*nat
            -A POSTROUTING -s 10.42.0.0/16 -d 10.42.0.0/16 -j RETURN
            -A POSTROUTING -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
            -A POSTROUTING ! -s 10.42.0.0/16 -d 10.42.0.0/16 -j MASQUERADE"],
        owners: ALL,
    },
];

/// The same by nft.
pub(crate) struct NftState {
    pub(crate) name: &'static str,
    rules: fn() -> Rules,
    /// The listing, but for the lines of braces.
    listing: &'static str,
}

pub(crate) const NFT_STATES: &[NftState] = &[
    NftState {
        name: "flannel_nftables",
        rules: || flannel(Form::Nftables).rules(),
        listing: r#"table ip flannel-ipv4 {
            comment "rules for flannel-ipv4"
            chain forward {
            comment "chain to accept flannel traffic"
            type filter hook forward priority filter; policy accept;
            ip saddr 10.42.0.0/16 accept
            ip daddr 10.42.0.0/16 accept
            chain postrtg {
            comment "chain to manage traffic masquerading by flannel"
            type nat hook postrouting priority srcnat; policy accept;
            meta mark 0x00004000 return
            ip saddr 10.42.3.0/24 ip daddr 10.42.0.0/16 return
            ip saddr 10.42.0.0/16 ip daddr 10.42.3.0/24 return
            ip saddr != 10.42.3.0/24 ip daddr 10.42.0.0/16 return
            ip saddr 10.42.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
            ip saddr != 10.42.0.0/16 ip daddr 10.42.0.0/16 masquerade fully-random"#,
    },
    NftState {
        name: "flannel_nftables_six",
        rules: || six(Form::Nftables).rules(),
        listing: r#"table ip6 flannel-ipv6 {
            comment "rules for flannel-ipv6"
            chain forward {
            comment "chain to accept flannel traffic"
            type filter hook forward priority filter; policy accept;
            ip6 saddr fd42::/56 accept
            ip6 daddr fd42::/56 accept
            chain postrtg {
            comment "chain to manage traffic masquerading by flannel"
            type nat hook postrouting priority srcnat; policy accept;
            meta mark 0x00004000 return
            ip6 saddr fd42:0:0:3::/64 ip6 daddr fd42::/56 return
            ip6 saddr fd42::/56 ip6 daddr fd42:0:0:3::/64 return
            ip6 saddr != fd42:0:0:3::/64 ip6 daddr fd42::/56 return
            ip6 saddr fd42::/56 ip6 daddr != ff00::/8 masquerade fully-random
            ip6 saddr != fd42::/56 ip6 daddr fd42::/56 masquerade fully-random"#,
    },
];

impl NftState {
    pub(crate) fn check(&self) -> Result<()> {
        let rules = (self.rules)();
        ensure!(rules.iptables().is_empty() && rules.ipset().is_empty());
        let namespace = Namespace::new("rules")?;
        // Twice, as after a restart: the chains are flushed, not filled again.
        for _ in 0..2 {
            namespace.exec_with(&["nft", "-f", "-"], &rules.nft())?;
        }
        let lines = |text: &str| -> Vec<String> {
            let lines = text.lines().map(str::trim).filter(|line| !matches!(*line, "" | "}"));
            lines.map(str::to_owned).collect()
        };
        let (found, expected) =
            (lines(&namespace.exec(&["nft", "list", "ruleset"])?), lines(self.listing));
        ensure!(found == expected, "{found:#?}\nis not\n{expected:#?}");
        let json = namespace.exec(&["nft", "-j", "list", "ruleset"])?;
        let (tables, diagnostics) = unmasq_parse::nft::parse(&json, FileId(0), None, &|_, _| false);
        ensure!(diagnostics.is_empty(), "{diagnostics:?}");
        check_owners(tables, ALL)
    }
}
