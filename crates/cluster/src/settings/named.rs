//! All settings one by one, by the name that their program has for them: what a comparison of two
//! states goes through.

use std::fmt::Display;

use ipnet::IpNet;

use super::{
    Calico, Cilium, ControlPlane, Engine, Flannel, IpMasqAgent, KubeProxy, KubeRouter, Place,
    Rancher, Settings, Values,
};

/// One value of one setting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// Whose it is: `kube-proxy`, `Calico`.
    pub component: &'static str,
    /// The setting, as the program calls it.
    pub setting: &'static str,
    /// The value; lists separated by commas.
    pub value: String,
    /// Where it stands.
    pub place: Place,
}

impl Settings {
    /// Every value that was seen, with where it stands.
    pub fn named(&self) -> Vec<Named> {
        let mut all = All(Vec::new());
        let Settings {
            kube_proxy,
            flannel,
            calico,
            kube_router,
            ip_masq_agent,
            engine,
            rancher,
            cilium,
            control_plane,
            unreadable: _,
        } = self;
        all.kube_proxy(kube_proxy);
        all.flannel(flannel);
        all.calico(calico);
        all.kube_router(kube_router);
        all.ip_masq_agent(ip_masq_agent);
        all.engine(engine);
        all.rancher(rancher);
        all.cilium(cilium);
        all.control_plane(control_plane);
        all.0
    }
}

/// Each program's fields are taken apart by name, so that a new one can't be forgotten here.
struct All(Vec<Named>);

impl All {
    fn one<T: PartialEq + Display>(
        &mut self,
        component: &'static str,
        setting: &'static str,
        values: &Values<T>,
    ) {
        self.with(component, setting, values, T::to_string);
    }

    fn list<T: Display>(
        &mut self,
        component: &'static str,
        setting: &'static str,
        values: &Values<Vec<T>>,
    ) where
        Vec<T>: PartialEq,
    {
        self.with(component, setting, values, |list| {
            list.iter().map(T::to_string).collect::<Vec<_>>().join(",")
        });
    }

    fn with<T: PartialEq>(
        &mut self,
        component: &'static str,
        setting: &'static str,
        values: &Values<T>,
        text: impl Fn(&T) -> String,
    ) {
        self.0.extend(values.all().iter().map(|one| {
            let (value, place) = (text(&one.value), one.place.clone());
            Named { component, setting, value, place }
        }));
    }

    fn kube_proxy(&mut self, settings: &KubeProxy) {
        const NAME: &str = "kube-proxy";
        let KubeProxy {
            places: _,
            mode,
            cluster_cidrs,
            masquerade_all,
            detect_local_mode,
            node_port_addresses,
        } = settings;
        self.one(NAME, "mode", mode);
        self.list::<IpNet>(NAME, "clusterCIDR", cluster_cidrs);
        self.one(NAME, "masqueradeAll", masquerade_all);
        self.one(NAME, "detectLocalMode", detect_local_mode);
        self.list(NAME, "nodePortAddresses", node_port_addresses);
    }

    fn flannel(&mut self, settings: &Flannel) {
        const NAME: &str = "flannel";
        let Flannel {
            places: _,
            network,
            network6,
            backend,
            enable_nftables,
            ip_masq,
            subnet,
            subnet6,
        } = settings;
        self.one(NAME, "Network", network);
        self.one(NAME, "IPv6Network", network6);
        self.one(NAME, "Backend", backend);
        self.one(NAME, "EnableNFTables", enable_nftables);
        self.one(NAME, "ip-masq", ip_masq);
        self.one(NAME, "FLANNEL_SUBNET", subnet);
        self.one(NAME, "FLANNEL_IPV6_SUBNET", subnet6);
    }

    fn calico(&mut self, settings: &Calico) {
        const NAME: &str = "Calico";
        let Calico {
            places: _,
            networking_backend,
            pool_cidr,
            pool_nat_outgoing,
            nat_outgoing_exclusions,
            nat_outgoing_address,
            nat_port_range,
            nat_outgoing_interface_filter: filter,
        } = settings;
        self.one(NAME, "CALICO_NETWORKING_BACKEND", networking_backend);
        self.one(NAME, "CALICO_IPV4POOL_CIDR", pool_cidr);
        self.one(NAME, "CALICO_IPV4POOL_NAT_OUTGOING", pool_nat_outgoing);
        self.one(NAME, "natOutgoingExclusions", nat_outgoing_exclusions);
        self.one(NAME, "natOutgoingAddress", nat_outgoing_address);
        self.one(NAME, "natPortRange", nat_port_range);
        self.one(NAME, "natOutgoingInterfaceFilter", filter);
    }

    fn kube_router(&mut self, settings: &KubeRouter) {
        const NAME: &str = "kube-router";
        let KubeRouter { places: _, pod_egress, service_proxy, firewall, router, masquerade_all } =
            settings;
        self.one(NAME, "enable-pod-egress", pod_egress);
        self.one(NAME, "run-service-proxy", service_proxy);
        self.one(NAME, "run-firewall", firewall);
        self.one(NAME, "run-router", router);
        self.one(NAME, "masquerade-all", masquerade_all);
    }

    fn ip_masq_agent(&mut self, settings: &IpMasqAgent) {
        const NAME: &str = "ip-masq-agent";
        let IpMasqAgent {
            places: _,
            non_masquerade_cidrs,
            masq_link_local,
            nomasq_all_reserved_ranges: reserved,
        } = settings;
        self.list::<IpNet>(NAME, "nonMasqueradeCIDRs", non_masquerade_cidrs);
        self.one(NAME, "masqLinkLocal", masq_link_local);
        self.one(NAME, "nomasq-all-reserved-ranges", reserved);
    }

    fn engine(&mut self, settings: &Engine) {
        const NAME: &str = "Docker";
        let Engine { places: _, bip, bridge, fixed_cidr, ip_masq, iptables, cni_ip_masq } =
            settings;
        self.one(NAME, "bip", bip);
        self.one(NAME, "bridge", bridge);
        self.one(NAME, "fixed-cidr", fixed_cidr);
        self.one(NAME, "ip-masq", ip_masq);
        self.one(NAME, "iptables", iptables);
        self.one("network plugin", "ipMasq", cni_ip_masq);
    }

    fn rancher(&mut self, settings: &Rancher) {
        const NAME: &str = "k3s or rke2";
        let Rancher {
            places: _,
            cluster_cidrs,
            service_cidrs,
            flannel_backend,
            flannel_ipv6_masq,
            cni,
            disable_kube_proxy,
            disable_network_policy,
            disable,
            kube_proxy_args,
        } = settings;
        self.list::<IpNet>(NAME, "cluster-cidr", cluster_cidrs);
        self.list::<IpNet>(NAME, "service-cidr", service_cidrs);
        self.one(NAME, "flannel-backend", flannel_backend);
        self.one(NAME, "flannel-ipv6-masq", flannel_ipv6_masq);
        self.one(NAME, "cni", cni);
        self.one(NAME, "disable-kube-proxy", disable_kube_proxy);
        self.one(NAME, "disable-network-policy", disable_network_policy);
        self.list(NAME, "disable", disable);
        self.one(NAME, "kube-proxy-arg", kube_proxy_args);
    }

    fn cilium(&mut self, settings: &Cilium) {
        const NAME: &str = "Cilium";
        let Cilium {
            places: _,
            bpf_masquerade,
            ipv4_masquerade,
            ipv6_masquerade,
            kube_proxy_replacement: replacement,
        } = settings;
        self.one(NAME, "enable-bpf-masquerade", bpf_masquerade);
        self.one(NAME, "enable-ipv4-masquerade", ipv4_masquerade);
        self.one(NAME, "enable-ipv6-masquerade", ipv6_masquerade);
        self.one(NAME, "kube-proxy-replacement", replacement);
    }

    fn control_plane(&mut self, settings: &ControlPlane) {
        const NAME: &str = "control plane";
        let ControlPlane { service_cidrs, cluster_cidrs } = settings;
        self.list::<IpNet>(NAME, "service-cluster-ip-range", service_cidrs);
        self.list::<IpNet>(NAME, "cluster-cidr", cluster_cidrs);
    }
}
