//! Docker's two forms, and the remedy on the host.

use unmasq_audit::Owner;
use unmasq_model::packet::Family;
use unmasq_provider::{Bridge, Engine, Masquerade, PublishedPort, Release};

use crate::{State, net};

fn bridge(device: &str, subnet: &str) -> Bridge {
    Bridge {
        device: device.into(),
        subnet: net(subnet),
        masquerade: Masquerade::On,
        inter_container: true,
        ports: Vec::new(),
    }
}

fn published(container: &str) -> PublishedPort {
    PublishedPort {
        protocol: "tcp".into(),
        host: None,
        host_port: 8080,
        container: container.parse().unwrap(),
    }
}

/// docker0 with the host's pod range, and a network that hides behind one address.
fn engine(release: Release) -> Engine {
    let mut docker0 = bridge("docker0", "172.7.21.0/24");
    docker0.ports = vec![published("172.7.21.2:80")];
    let mut second = bridge("br-0a5ad9e85c71", "172.18.0.0/16");
    second.masquerade = Masquerade::Snat("10.4.7.21".parse().unwrap());
    second.inter_container = false;
    Engine { release, bridges: vec![docker0, second], hairpin: false, drops_forward: true }
}

fn hairpin() -> Engine {
    let mut docker0 = bridge("docker0", "fd07:21::/64");
    docker0.ports = vec![published("[fd07:21::2]:80")];
    let bridges = vec![docker0];
    Engine { release: Release::From28, bridges, hairpin: true, drops_forward: false }
}

pub(crate) const STATES: &[State] = &[
    State {
        name: "docker_up_to_27",
        rules: || vec![engine(Release::UpTo27).rules(Family::V4)],
        chains: &["*nat
            -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
            -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
            -A POSTROUTING -s 172.18.0.0/16 ! -o br-0a5ad9e85c71 -j SNAT --to-source 10.4.7.21
            -A POSTROUTING -s 172.7.21.0/24 ! -o docker0 -j MASQUERADE
            -A POSTROUTING -s 172.7.21.2/32 -d 172.7.21.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
            -A DOCKER -i br-0a5ad9e85c71 -j RETURN
            -A DOCKER -i docker0 -j RETURN
            -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.7.21.2:80
            *filter
            :FORWARD DROP
            -A FORWARD -j DOCKER-USER
            -A FORWARD -j DOCKER-ISOLATION-STAGE-1
            -A FORWARD -o br-0a5ad9e85c71 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A FORWARD -o br-0a5ad9e85c71 -j DOCKER
            -A FORWARD -i br-0a5ad9e85c71 ! -o br-0a5ad9e85c71 -j ACCEPT
            -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A FORWARD -o docker0 -j DOCKER
            -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
            -A FORWARD -i docker0 -o docker0 -j ACCEPT
            -A FORWARD -i br-0a5ad9e85c71 -o br-0a5ad9e85c71 -j DROP
            -A DOCKER -d 172.7.21.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
            -A DOCKER-ISOLATION-STAGE-1 -i br-0a5ad9e85c71 ! -o br-0a5ad9e85c71 -j DOCKER-ISOLATION-STAGE-2
            -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
            -A DOCKER-ISOLATION-STAGE-1 -j RETURN
            -A DOCKER-ISOLATION-STAGE-2 -o br-0a5ad9e85c71 -j DROP
            -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
            -A DOCKER-ISOLATION-STAGE-2 -j RETURN
            -A DOCKER-USER -j RETURN"],
        owners: &[
            ("! -o docker0 -j MASQUERADE", Owner::ContainerEngine),
            ("! -o br-0a5ad9e85c71 -j SNAT", Owner::Docker),
            ("-s 172.7.21.2/32 -d 172.7.21.2/32", Owner::Docker),
        ],
    },
    State {
        name: "docker_from_28",
        rules: || vec![engine(Release::From28).rules(Family::V4)],
        chains: &["*raw
            -A PREROUTING -d 172.7.21.2/32 ! -i docker0 -p tcp -m tcp --dport 80 -j DROP
            *nat
            -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
            -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
            -A POSTROUTING -s 172.18.0.0/16 ! -o br-0a5ad9e85c71 -j SNAT --to-source 10.4.7.21
            -A POSTROUTING -s 172.7.21.0/24 ! -o docker0 -j MASQUERADE
            -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.7.21.2:80
            *filter
            :FORWARD DROP
            -A FORWARD -j DOCKER-USER
            -A FORWARD -j DOCKER-FORWARD
            -A DOCKER -d 172.7.21.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
            -A DOCKER ! -i docker0 -o docker0 -j DROP
            -A DOCKER ! -i br-0a5ad9e85c71 -o br-0a5ad9e85c71 -j DROP
            -A DOCKER-BRIDGE -o docker0 -j DOCKER
            -A DOCKER-BRIDGE -o br-0a5ad9e85c71 -j DOCKER
            -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A DOCKER-CT -o br-0a5ad9e85c71 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A DOCKER-FORWARD -j DOCKER-CT
            -A DOCKER-FORWARD -j DOCKER-INTERNAL
            -A DOCKER-FORWARD -j DOCKER-BRIDGE
            -A DOCKER-FORWARD -i docker0 -j ACCEPT
            -A DOCKER-FORWARD -i br-0a5ad9e85c71 -o br-0a5ad9e85c71 -j DROP
            -A DOCKER-FORWARD -i br-0a5ad9e85c71 ! -o br-0a5ad9e85c71 -j ACCEPT
            -A DOCKER-USER -j RETURN"],
        owners: &[
            ("! -o docker0 -j MASQUERADE", Owner::ContainerEngine),
            ("! -o br-0a5ad9e85c71 -j SNAT", Owner::Docker),
        ],
    },
    State {
        name: "docker_with_hairpin_six",
        rules: || vec![hairpin().rules(Family::V6)],
        chains: &["*raw
            -A PREROUTING -d fd07:21::2/128 ! -i docker0 -p tcp -m tcp --dport 80 -j DROP
            *nat
            -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
            -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
            -A POSTROUTING -o docker0 -m addrtype --src-type LOCAL -j MASQUERADE
            -A POSTROUTING -s fd07:21::/64 ! -o docker0 -j MASQUERADE
            -A POSTROUTING -s fd07:21::2/128 -d fd07:21::2/128 -p tcp -m tcp --dport 80 -j MASQUERADE
            -A DOCKER ! -s fe80::/10 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd07:21::2]:80
            *filter
            -A FORWARD -j DOCKER-USER
            -A FORWARD -j DOCKER-FORWARD
            -A DOCKER -d fd07:21::2/128 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
            -A DOCKER ! -i docker0 -o docker0 -j DROP
            -A DOCKER-BRIDGE -o docker0 -j DOCKER
            -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A DOCKER-FORWARD -j DOCKER-CT
            -A DOCKER-FORWARD -j DOCKER-INTERNAL
            -A DOCKER-FORWARD -j DOCKER-BRIDGE
            -A DOCKER-FORWARD -i docker0 -j ACCEPT
            -A DOCKER-USER -j RETURN"],
        owners: &[
            ("! -o docker0 -j MASQUERADE", Owner::ContainerEngine),
            ("-m addrtype --src-type LOCAL", Owner::Docker),
            ("-s fd07:21::2/128 -d fd07:21::2/128", Owner::Docker),
        ],
    },
    State {
        name: "docker_with_the_cluster_excluded",
        rules: || {
            let bridges = vec![bridge("docker0", "172.7.21.0/24")];
            let engine = Engine { bridges, drops_forward: false, ..engine(Release::From28) };
            let remedy = engine.excluding("docker0", net("172.7.0.0/16")).unwrap();
            vec![engine.rules(Family::V4), remedy]
        },
        chains: &["*nat
            -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
            -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
            -A POSTROUTING -s 172.7.21.0/24 ! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE
            *filter
            -A FORWARD -j DOCKER-USER
            -A FORWARD -j DOCKER-FORWARD
            -A DOCKER ! -i docker0 -o docker0 -j DROP
            -A DOCKER-BRIDGE -o docker0 -j DOCKER
            -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A DOCKER-FORWARD -j DOCKER-CT
            -A DOCKER-FORWARD -j DOCKER-INTERNAL
            -A DOCKER-FORWARD -j DOCKER-BRIDGE
            -A DOCKER-FORWARD -i docker0 -j ACCEPT
            -A DOCKER-USER -j RETURN"],
        // No program writes it.
        owners: &[("! -d 172.7.0.0/16", Owner::Unclaimed)],
    },
];
