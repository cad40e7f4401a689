//! The container engine: Docker's rules for its bridges.
//!
//! In: bridges with their ranges and published ports. Out: nat, filter and, for ports, raw. It
//! knows nothing of a cluster: where docker0 has the node's pod range, what pods send to another
//! node's pods leaves with the node's address.
//!
//! Most rules are inserted at the top of the kernel's own chains, so the last command's rule comes
//! first. Internal networks, routed ones, swarm's ingress and links between containers are left
//! out.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{Rules, Source, Table, family_of};

/// The engine's settings.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Which Docker.
    pub release: Release,
    /// Its networks of driver `bridge`, in the order of their creation; `docker0` is one.
    pub bridges: Vec<Bridge>,
    /// `"userland-proxy": false`.
    pub hairpin: bool,
    /// Whether nothing is forwarded that no rule accepts: so where the engine has itself turned
    /// forwarding on, and up to 27 for IPv6 always.
    pub drops_forward: bool,
}

/// Which Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Up to 27: its rules stand in FORWARD itself.
    UpTo27,
    /// 28, after it did away with the isolation chains: one jump in FORWARD, and a bridge drops
    /// what no published port lets in.
    From28,
}

/// A bridge network.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// The bridge.
    pub device: String,
    /// Its containers' addresses. On a host of a cluster with flannel, its pod range (`--bip`).
    pub subnet: IpNet,
    /// What becomes of packets that leave it.
    pub masquerade: Masquerade,
    /// `--icc`: whether containers reach each other.
    pub inter_container: bool,
    /// Ports of its containers.
    pub ports: Vec<PublishedPort>,
}

/// How a network's own addresses are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    /// Not at all: `--ip-masq=false`.
    Off,
    /// By the address of the device that a packet leaves by.
    On,
    /// By this one: the option `com.docker.network.host_ipv4` or `host_ipv6`. Up to 27 there was
    /// none for IPv6.
    Snat(IpAddr),
}

/// `--publish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Where the host listens; none in particular if `None`.
    pub host: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The container's address and port.
    pub container: SocketAddr,
}

impl Engine {
    /// All rules of one family.
    pub fn rules(&self, family: Family) -> Rules {
        let mut rules = Rules::new(family);
        if self.drops_forward {
            rules.policy(Table::Filter, self.release.sources().policy, "FORWARD", "DROP");
        }
        match self.release {
            Release::UpTo27 => self.write_27(&mut rules),
            Release::From28 => self.write_28(&mut rules),
        }
        rules
    }

    /// Remedy on the host: puts a rule that leaves `cluster` out in the place of the engine's own,
    /// in one transaction. The engine has to be told too, or it puts its own back ahead of it.
    /// `None` if the bridge isn't there or doesn't hide its addresses.
    pub fn excluding(&self, device: &str, cluster: IpNet) -> Option<Rules> {
        let bridge = self.bridges.iter().find(|bridge| bridge.device == device)?;
        let mut rules = Rules::new(family_of(bridge.subnet));
        let [matches, target] = bridge.hiding(self.release)?;
        let source = self.release.sources().network;
        rules.rule(Table::Nat, source, format!("-D POSTROUTING {matches} {target}"));
        rules.lines.extend(self.exclusion(device, cluster)?.lines);
        Some(rules)
    }

    /// That rule alone, as it is loaded when a host starts whose engine has `"ip-masq": false`.
    pub fn exclusion(&self, device: &str, cluster: IpNet) -> Option<Rules> {
        let bridge = self.bridges.iter().find(|bridge| bridge.device == device)?;
        let mut rules = Rules::new(family_of(bridge.subnet));
        let mended = format!("-s {} ! -d {cluster} ! -o {device}", bridge.subnet);
        let target = bridge.target(self.release);
        rules.rule(Table::Nat, &EXCLUSION, format!("-I POSTROUTING {mended} {target}"));
        Some(rules)
    }

    /// Remedy in the engine's settings: the same engine with `"ip-masq": false`, as it starts next.
    pub fn without_masquerade(&self) -> Engine {
        let mut engine = self.clone();
        for bridge in &mut engine.bridges {
            bridge.masquerade = Masquerade::Off;
        }
        engine
    }

    fn bridges_of(&self, family: Family) -> impl Iterator<Item = &Bridge> {
        self.bridges.iter().filter(move |bridge| family_of(bridge.subnet) == family)
    }

    fn write_nat_jumps(&self, rules: &mut Rules, source: &'static Source) {
        let jump = "-m addrtype --dst-type LOCAL -j DOCKER";
        rules.rule(Table::Nat, source, format!("-A PREROUTING {jump}"));
        let but_loopback = match (self.hairpin, rules.family) {
            (true, Family::V4 | Family::V6) => "",
            (false, Family::V4) => " ! --dst 127.0.0.0/8",
            (false, Family::V6) => " ! --dst ::1/128",
        };
        rules.rule(Table::Nat, source, format!("-A OUTPUT {jump}{but_loopback}"));
    }

    fn write_hiding(&self, rules: &mut Rules, bridge: &Bridge, source: &'static Source) {
        let device = &bridge.device;
        if let Some([matches, target]) = bridge.hiding(self.release) {
            rules.rule(Table::Nat, source, format!("-I POSTROUTING {matches} {target}"));
            if !self.hairpin && self.release == Release::UpTo27 {
                rules.rule(Table::Nat, source, format!("-I DOCKER -i {device} -j RETURN"));
            }
        }
        if self.hairpin {
            let target = bridge.target(self.release);
            let local = format!("-m addrtype --src-type LOCAL -o {device} {target}");
            rules.rule(Table::Nat, source, format!("-I POSTROUTING {local}"));
        }
    }

    /// The operator's chain, which is jumped to ahead of everything. Docker keeps what stands there;
    /// this empties it, as on a host that starts.
    fn write_user_chain(rules: &mut Rules, source: &'static Source) {
        rules.chain(Table::Filter, source, "DOCKER-USER");
        rules.rule(Table::Filter, source, "-A DOCKER-USER -j RETURN");
        rules.rule(Table::Filter, source, "-I FORWARD -j DOCKER-USER");
    }

    fn write_27(&self, rules: &mut Rules) {
        let sources = Release::UpTo27.sources();
        let [first, second] = ["DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2"];
        rules.chain(Table::Nat, sources.network, "DOCKER");
        for chain in ["DOCKER", first, second] {
            rules.chain(Table::Filter, sources.network, chain);
        }
        for chain in [first, second] {
            rules.rule(Table::Filter, sources.network, format!("-A {chain} -j RETURN"));
        }
        // The jumps come with the first network; a rule that is there isn't written twice.
        let mut jumps = false;
        for bridge in self.bridges_of(rules.family) {
            self.write_hiding(rules, bridge, sources.network);
            let device = &bridge.device;
            let mut write = |text| rules.rule(Table::Filter, sources.network, text);
            write(match bridge.inter_container {
                true => format!("-I FORWARD -i {device} -o {device} -j ACCEPT"),
                false => format!("-A FORWARD -i {device} -o {device} -j DROP"),
            });
            write(format!("-I FORWARD -i {device} ! -o {device} -j ACCEPT"));
            if !std::mem::replace(&mut jumps, true) {
                self.write_nat_jumps(rules, sources.jumps);
            }
            for text in [
                format!("-I FORWARD -o {device} -j DOCKER"),
                format!(
                    "-I FORWARD -o {device} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
                ),
            ] {
                rules.rule(Table::Filter, sources.jumps, text);
            }
            for text in [
                format!("-I {first} -i {device} ! -o {device} -j {second}"),
                format!("-I {second} -o {device} -j DROP"),
            ] {
                rules.rule(Table::Filter, sources.network, text);
            }
        }
        if jumps {
            // Taken out and inserted again for each network.
            rules.rule(Table::Filter, sources.network, format!("-I FORWARD -j {first}"));
        }
        Engine::write_user_chain(rules, sources.user);
        for bridge in self.bridges_of(rules.family) {
            for port in &bridge.ports {
                port.write_27(rules, bridge, self.hairpin);
            }
        }
    }

    fn write_28(&self, rules: &mut Rules) {
        let sources = Release::From28.sources();
        rules.chain(Table::Nat, sources.jumps, "DOCKER");
        for chain in ["DOCKER", "DOCKER-FORWARD", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-INTERNAL"] {
            rules.chain(Table::Filter, sources.jumps, chain);
        }
        self.write_nat_jumps(rules, sources.network);
        for text in [
            "-I FORWARD -j DOCKER-FORWARD",
            "-I DOCKER-FORWARD -j DOCKER-BRIDGE",
            "-I DOCKER-FORWARD -j DOCKER-INTERNAL",
            "-I DOCKER-FORWARD -j DOCKER-CT",
        ] {
            rules.rule(Table::Filter, sources.jumps, text);
        }
        for bridge in self.bridges_of(rules.family) {
            self.write_hiding(rules, bridge, sources.network);
            let device = &bridge.device;
            let mut write = |text| rules.rule(Table::Filter, sources.network, text);
            if bridge.inter_container {
                write(format!("-A DOCKER-FORWARD -i {device} -j ACCEPT"));
            } else {
                write(format!("-A DOCKER-FORWARD -i {device} -o {device} -j DROP"));
                write(format!("-A DOCKER-FORWARD -i {device} ! -o {device} -j ACCEPT"));
            }
            write(format!("-A DOCKER ! -i {device} -o {device} -j DROP"));
            let known = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
            write(format!("-A DOCKER-CT -o {device} {known}"));
            write(format!("-A DOCKER-BRIDGE -o {device} -j DOCKER"));
        }
        Engine::write_user_chain(rules, sources.user);
        for bridge in self.bridges_of(rules.family) {
            for port in &bridge.ports {
                port.write_28(rules, bridge, self.hairpin);
            }
        }
    }
}

impl Bridge {
    /// Matches and target of the rule that hides its addresses.
    fn hiding(&self, release: Release) -> Option<[String; 2]> {
        match self.masquerade {
            Masquerade::Off => None,
            Masquerade::On | Masquerade::Snat(_) => {
                Some([format!("-s {} ! -o {}", self.subnet, self.device), self.target(release)])
            }
        }
    }

    fn target(&self, release: Release) -> String {
        match (self.masquerade, release) {
            (Masquerade::Snat(IpAddr::V6(_)), Release::UpTo27)
            | (Masquerade::On | Masquerade::Off, Release::UpTo27 | Release::From28) => {
                "-j MASQUERADE".into()
            }
            (Masquerade::Snat(address), Release::UpTo27 | Release::From28) => {
                format!("-j SNAT --to-source {address}")
            }
        }
    }
}

impl PublishedPort {
    fn write_27(&self, rules: &mut Rules, bridge: &Bridge, hairpin: bool) {
        let source = Release::UpTo27.sources().ports;
        self.write_dnat(rules, bridge, hairpin, source, "");
        rules.rule(Table::Filter, source, format!("-A DOCKER {}", self.accept(bridge)));
        rules.rule(Table::Nat, source, format!("-A POSTROUTING {}", self.to_itself()));
    }

    fn write_28(&self, rules: &mut Rules, bridge: &Bridge, hairpin: bool) {
        let source = Release::From28.sources().ports;
        let PublishedPort { protocol, container, .. } = self;
        let (address, port, device) = (container.ip(), container.port(), &bridge.device);
        rules.rule(
            Table::Raw,
            source,
            format!(
                "-A PREROUTING -p {protocol} -d {address} --dport {port} ! -i {device} -j DROP"
            ),
        );
        let but_link_local = match rules.family {
            Family::V4 => "",
            Family::V6 => " ! -s fe80::/10",
        };
        self.write_dnat(rules, bridge, hairpin, source, but_link_local);
        if hairpin {
            rules.rule(Table::Nat, source, format!("-A POSTROUTING {}", self.to_itself()));
        }
        rules.rule(Table::Filter, source, format!("-I DOCKER {}", self.accept(bridge)));
    }

    fn write_dnat(
        &self,
        rules: &mut Rules,
        bridge: &Bridge,
        hairpin: bool,
        source: &'static Source,
        but: &str,
    ) {
        let PublishedPort { protocol, host, host_port, container } = self;
        let host = host.map_or_else(|| "0/0".into(), |host| host.to_string());
        let from = if hairpin { String::new() } else { format!(" ! -i {}", bridge.device) };
        rules.rule(
            Table::Nat,
            source,
            format!(
                "-A DOCKER -p {protocol} -d {host} --dport {host_port} -j DNAT \
                 --to-destination {container}{from}{but}"
            ),
        );
    }

    fn accept(&self, bridge: &Bridge) -> String {
        let (device, PublishedPort { protocol, container, .. }) = (&bridge.device, self);
        let (address, port) = (container.ip(), container.port());
        format!("! -i {device} -o {device} -p {protocol} -d {address} --dport {port} -j ACCEPT")
    }

    /// A container that asks itself by the published port.
    fn to_itself(&self) -> String {
        let PublishedPort { protocol, container, .. } = self;
        let (address, port) = (container.ip(), container.port());
        format!("-p {protocol} -s {address} -d {address} --dport {port} -j MASQUERADE")
    }
}

/// Where the parts are written.
struct Sources {
    policy: &'static Source,
    jumps: &'static Source,
    network: &'static Source,
    user: &'static Source,
    ports: &'static Source,
}

impl Release {
    fn sources(self) -> Sources {
        match self {
            Release::UpTo27 => Sources {
                policy: &FORWARDING_27,
                jumps: &JUMPS_27,
                network: &NETWORK_27,
                user: &USER_27,
                ports: &JUMPS_27,
            },
            Release::From28 => Sources {
                policy: &JUMPS_28,
                jumps: &JUMPS_28,
                network: &NETWORK_28,
                user: &USER_28,
                ports: &PORTS_28,
            },
        }
    }
}

const NETWORK_27: Source = Source {
    system: "Docker",
    version: "96f85def",
    url: "https://github.com/moby/moby/blob/96f85def5beeb2111215c41ea3b443d37e188901/libnetwork/drivers/bridge/setup_ip_tables_linux.go",
};
const JUMPS_27: Source = Source {
    system: "Docker",
    version: "d606d5ca",
    url: "https://github.com/moby/moby/blob/d606d5ca84d69decbed4ca6a5b600ac7f71f73d4/libnetwork/iptables/iptables.go",
};
const FORWARDING_27: Source = Source {
    system: "Docker",
    version: "8805e383",
    url: "https://github.com/moby/moby/blob/8805e3839839eba13d44a5048c1ef3624389dfdf/libnetwork/drivers/bridge/setup_ip_forwarding.go",
};
const USER_27: Source = Source {
    system: "Docker",
    version: "941846a3",
    url: "https://github.com/moby/moby/blob/941846a3390a57a4ec46437b6c5bb1edb95181d3/libnetwork/firewall_linux.go",
};
const NETWORK_28: Source = Source {
    system: "Docker",
    version: "b387526f",
    url: "https://github.com/moby/moby/blob/b387526fce9abfbd4f2af7aeed86e266bdf567d7/libnetwork/drivers/bridge/internal/iptabler/network.go",
};
const JUMPS_28: Source = Source {
    system: "Docker",
    version: "ee7766b0",
    url: "https://github.com/moby/moby/blob/ee7766b0d1f981c6772458ba53b664a31a192630/libnetwork/drivers/bridge/internal/iptabler/iptabler.go",
};
const USER_28: Source = Source {
    system: "Docker",
    version: "20e75cea",
    url: "https://github.com/moby/moby/blob/20e75cea3efc3900d6dd968c30859700836af72c/libnetwork/firewall_linux.go",
};
const PORTS_28: Source = Source {
    system: "Docker",
    version: "0451e4fa",
    url: "https://github.com/moby/moby/blob/0451e4fa185033906c80275767bceed15376fadb/libnetwork/drivers/bridge/internal/iptabler/port.go",
};
/// The remedy's rule, as hosts with flannel's host-gw backend have it; no program writes it.
const EXCLUSION: Source = Source {
    system: "host",
    version: "undated",
    url: "https://yudady.github.io/concepts/iptables-snat-optimization-for-containers/",
};
