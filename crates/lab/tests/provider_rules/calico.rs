//! Calico alone, and beside other systems in the chains that they share.

use unmasq_audit::Owner;
use unmasq_model::packet::Family;
use unmasq_provider::{Calico, Era, Exclusions, Flannel, FloatingAddress, Form, Pool, Workload};

use crate::{State, net};

fn calico(era: Era) -> Calico {
    let pool = |cidr, nat_outgoing| Pool { cidr: net(cidr), nat_outgoing };
    let workload = |device: &str| Workload {
        device: device.into(),
        namespace: "default".into(),
        service_account: "a-long-name-of-an-account".into(),
    };
    let hosts = ["10.0.0.11", "fd00::11"].map(|host| host.parse().unwrap());
    Calico {
        era,
        pools: vec![pool("192.168.0.0/16", true), pool("fd19::/48", true)],
        exclusions: match era {
            Era::Of2022 => Exclusions::PoolsOnly,
            Era::Of2025 => Exclusions::PoolsAndHosts(hosts.into()),
        },
        tunnels: vec!["vxlan.calico".into()],
        random_fully: true,
        floating: vec![FloatingAddress {
            external: "172.16.1.3".parse().unwrap(),
            internal: "10.42.3.7".parse().unwrap(),
        }],
        workloads: ["cali6f2c9d1b3a7", "cali1e0d4c8a552", "cali60aaaaaaaaa"].map(workload).into(),
    }
}

/// Canal's half: no tunnels of its own.
fn canal(era: Era) -> Calico {
    let exclusions = Exclusions::PoolsOnly;
    Calico { tunnels: Vec::new(), floating: Vec::new(), exclusions, ..calico(era) }
}

fn flannel() -> Flannel {
    let (cluster, node) = (net("10.42.0.0/16"), net("10.42.3.0/24"));
    Flannel { form: Form::Chains, cluster, node, random_fully: true }
}

const ALL: &[(&str, Owner)] = &[("", Owner::Calico)];

pub(crate) const STATES: &[State] = &[
    State {
        name: "calico_of_2022",
        rules: || vec![calico(Era::Of2022).rules(Family::V4)],
        chains: &[
            JUMPS,
            FORWARD,
            r#"*nat
            -A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
            -A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" -j cali-fip-snat
            -A cali-POSTROUTING -m comment --comment "cali:nYKhEzDlr11Jccal" -j cali-nat-outgoing
            -A cali-POSTROUTING -o vxlan.calico -m comment --comment "cali:e9dnSgSVNmIcpVhP" -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL -j MASQUERADE --random-fully
            -A cali-nat-outgoing -m comment --comment "cali:flqWnvo8yq4ULQLa" -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE --random-fully
            *filter
            -A cali-FORWARD -m comment --comment "cali:vjrMJCRpqwy5oRoX" -j MARK --set-xmark 0x0/0xe0000
            -A cali-FORWARD -m comment --comment "cali:A_sPAO0mcxbT9mOV" -m mark --mark 0x0/0x10000 -j cali-from-hep-forward
            -A cali-FORWARD -i cali+ -m comment --comment "cali:8ZoYfO5HKXWbB3pk" -j cali-from-wl-dispatch
            -A cali-FORWARD -o cali+ -m comment --comment "cali:jdEuaPBe14V2hutn" -j cali-to-wl-dispatch
            -A cali-FORWARD -m comment --comment "cali:12bc6HljsMKsmfr-" -j cali-to-hep-forward
            -A cali-FORWARD -m comment --comment "cali:NOSxoaGx8OIstr1z" -j cali-cidr-block"#,
        ],
        owners: ALL,
    },
    State {
        name: "calico_of_2025_six",
        rules: || vec![calico(Era::Of2025).rules(Family::V6)],
        chains: &[
            JUMPS,
            FORWARD,
            r#"*nat
            -A POSTROUTING -m comment --comment "cali:0i8pjzKKPyA34aQD" -j cali-POSTROUTING"#,
        ],
        owners: &[
            ("-m set ! --match-set cali60all-hosts-net dst", Owner::Calico),
            ("-o vxlan.calico", Owner::Calico),
        ],
    },
    State {
        name: "calico_without_nat_outgoing",
        rules: || {
            let calico = calico(Era::Of2025);
            vec![calico.rules(Family::V4), calico.without_nat_outgoing(net("192.168.0.0/16"))]
        },
        chains: &[
            JUMPS,
            FORWARD,
            r#"*nat
            -A POSTROUTING -m comment --comment "cali:0i8pjzKKPyA34aQD" -j cali-POSTROUTING"#,
        ],
        owners: &[
            ("-j SNAT --to-source 172.16.1.3", Owner::Calico),
            ("-o vxlan.calico", Owner::Calico),
        ],
    },
    State {
        // flannel is there first, and Felix inserts itself ahead of it.
        name: "canal_of_2022",
        rules: || vec![flannel().rules(), canal(Era::Of2022).rules(Family::V4)],
        chains: &[
            JUMPS,
            FLANNEL,
            r#"*nat
            -A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
            -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
            *filter
            -A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
            -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
            -A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
            -A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000"#,
        ],
        owners: CANAL,
    },
    State {
        // Felix is there first, and flannel appends itself.
        name: "canal_of_2022_felix_first",
        rules: || vec![canal(Era::Of2022).rules(Family::V4), flannel().rules()],
        chains: &[
            JUMPS,
            FLANNEL,
            r#"*nat
            -A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
            -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
            *filter
            -A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
            -A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
            -A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000
            -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD"#,
        ],
        owners: CANAL,
    },
    State {
        // Felix now goes last in POSTROUTING, still first in FORWARD.
        name: "canal_of_2025",
        rules: || vec![flannel().rules(), canal(Era::Of2025).rules(Family::V4)],
        chains: &[
            JUMPS,
            FLANNEL,
            r#"*nat
            -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
            -A POSTROUTING -m comment --comment "cali:0i8pjzKKPyA34aQD" -j cali-POSTROUTING
            *filter
            -A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
            -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
            -A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
            -A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000"#,
        ],
        owners: CANAL,
    },
];

const CANAL: &[(&str, Owner)] =
    &[("flanneld masq", Owner::Flannel), ("cali40masq-ipam-pools src", Owner::Calico)];

/// Felix's jumps where no other system has any.
const JUMPS: &str = r#"*nat
    -A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING
    -A OUTPUT -m comment --comment "cali:tVnHkvAo15HuiPy0" -j cali-OUTPUT
    *filter
    -A INPUT -m comment --comment "cali:Cz_u1IQiXIMmKD4c" -j cali-INPUT
    -A OUTPUT -m comment --comment "cali:tVnHkvAo15HuiPy0" -j cali-OUTPUT"#;

/// Felix's part of FORWARD, alone.
const FORWARD: &str = r#"*filter
    -A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
    -A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
    -A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000"#;

/// flannel's chains.
const FLANNEL: &str = r#"*nat
    -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
    -A FLANNEL-POSTRTG -s 10.42.3.0/24 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j RETURN
    -A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.3.0/24 -m comment --comment "flanneld masq" -j RETURN
    -A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.3.0/24 -m comment --comment "flanneld masq" -j RETURN
    -A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
    -A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
    *filter
    -A FLANNEL-FWD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
    -A FLANNEL-FWD -d 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT"#;
