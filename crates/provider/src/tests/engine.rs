use super::*;

fn bridge(device: &str, subnet: &str) -> Bridge {
    Bridge {
        device: device.into(),
        subnet: net(subnet),
        masquerade: Masquerade::On,
        inter_container: true,
        ports: Vec::new(),
    }
}

fn published(host: Option<&str>, container: &str) -> PublishedPort {
    PublishedPort {
        protocol: "tcp".into(),
        host: host.map(|host| host.parse().unwrap()),
        host_port: 8080,
        container: container.parse().unwrap(),
    }
}

fn engine(release: Release, bridges: Vec<Bridge>) -> Engine {
    Engine { release, bridges, hairpin: false, drops_forward: true }
}

pub(super) fn examples() -> Vec<Rules> {
    let with = |release| {
        let mut docker0 = bridge("docker0", "172.7.21.0/24");
        docker0.ports.push(published(None, "172.7.21.2:80"));
        engine(release, vec![docker0])
    };
    let cluster = net("172.7.0.0/16");
    vec![
        with(Release::UpTo27).rules(Family::V4),
        with(Release::From28).rules(Family::V4),
        with(Release::UpTo27).excluding("docker0", cluster).unwrap(),
    ]
}

#[test]
fn one_bridge_up_to_27() {
    let rules = engine(Release::UpTo27, vec![bridge("docker0", "172.7.21.0/24")]).rules(Family::V4);
    check(
        &rules.iptables(),
        "*filter
        :FORWARD DROP [0:0]
        :DOCKER - [0:0]
        :DOCKER-ISOLATION-STAGE-1 - [0:0]
        :DOCKER-ISOLATION-STAGE-2 - [0:0]
        -A DOCKER-ISOLATION-STAGE-1 -j RETURN
        -A DOCKER-ISOLATION-STAGE-2 -j RETURN
        -I FORWARD -i docker0 -o docker0 -j ACCEPT
        -I FORWARD -i docker0 ! -o docker0 -j ACCEPT
        -I FORWARD -o docker0 -j DOCKER
        -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -I DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
        -I DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
        -I FORWARD -j DOCKER-ISOLATION-STAGE-1
        :DOCKER-USER - [0:0]
        -A DOCKER-USER -j RETURN
        -I FORWARD -j DOCKER-USER
        COMMIT
        *nat
        :DOCKER - [0:0]
        -I POSTROUTING -s 172.7.21.0/24 ! -o docker0 -j MASQUERADE
        -I DOCKER -i docker0 -j RETURN
        -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
        -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER ! --dst 127.0.0.0/8
        COMMIT",
    );
}

#[test]
fn one_bridge_from_28() {
    let mut docker0 = bridge("docker0", "172.7.21.0/24");
    docker0.ports = vec![published(Some("10.4.7.21"), "172.7.21.2:80")];
    let mut engine = engine(Release::From28, vec![docker0]);
    engine.drops_forward = false;
    check(
        &engine.rules(Family::V4).iptables(),
        "*nat
        :DOCKER - [0:0]
        -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
        -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER ! --dst 127.0.0.0/8
        -I POSTROUTING -s 172.7.21.0/24 ! -o docker0 -j MASQUERADE
        -A DOCKER -p tcp -d 10.4.7.21 --dport 8080 -j DNAT --to-destination 172.7.21.2:80 ! -i docker0
        COMMIT
        *filter
        :DOCKER - [0:0]
        :DOCKER-FORWARD - [0:0]
        :DOCKER-BRIDGE - [0:0]
        :DOCKER-CT - [0:0]
        :DOCKER-INTERNAL - [0:0]
        -I FORWARD -j DOCKER-FORWARD
        -I DOCKER-FORWARD -j DOCKER-BRIDGE
        -I DOCKER-FORWARD -j DOCKER-INTERNAL
        -I DOCKER-FORWARD -j DOCKER-CT
        -A DOCKER-FORWARD -i docker0 -j ACCEPT
        -A DOCKER ! -i docker0 -o docker0 -j DROP
        -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A DOCKER-BRIDGE -o docker0 -j DOCKER
        :DOCKER-USER - [0:0]
        -A DOCKER-USER -j RETURN
        -I FORWARD -j DOCKER-USER
        -I DOCKER ! -i docker0 -o docker0 -p tcp -d 172.7.21.2 --dport 80 -j ACCEPT
        COMMIT
        *raw
        -A PREROUTING -p tcp -d 172.7.21.2 --dport 80 ! -i docker0 -j DROP
        COMMIT",
    );
}

/// Ports and the hairpin rules: up to 27 a container reaches itself in both modes, from 28 only
/// with hairpin.
#[test]
fn ports_and_hairpin() {
    let nat = |release, hairpin| {
        let mut docker0 = bridge("docker0", "fd07:21::/64");
        docker0.ports = vec![published(None, "[fd07:21::2]:80")];
        let engine = Engine { hairpin, ..engine(release, vec![docker0]) };
        let text = engine.rules(Family::V6).iptables();
        let (_, nat) = text.split_once("*nat\n").unwrap();
        nat.split_once("COMMIT").unwrap().0.to_owned()
    };
    check(
        &nat(Release::UpTo27, false),
        ":DOCKER - [0:0]
        -I POSTROUTING -s fd07:21::/64 ! -o docker0 -j MASQUERADE
        -I DOCKER -i docker0 -j RETURN
        -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
        -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER ! --dst ::1/128
        -A DOCKER -p tcp -d 0/0 --dport 8080 -j DNAT --to-destination [fd07:21::2]:80 ! -i docker0
        -A POSTROUTING -p tcp -s fd07:21::2 -d fd07:21::2 --dport 80 -j MASQUERADE",
    );
    check(
        &nat(Release::From28, true),
        ":DOCKER - [0:0]
        -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
        -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
        -I POSTROUTING -s fd07:21::/64 ! -o docker0 -j MASQUERADE
        -I POSTROUTING -m addrtype --src-type LOCAL -o docker0 -j MASQUERADE
        -A DOCKER -p tcp -d 0/0 --dport 8080 -j DNAT --to-destination [fd07:21::2]:80 ! -s fe80::/10
        -A POSTROUTING -p tcp -s fd07:21::2 -d fd07:21::2 --dport 80 -j MASQUERADE",
    );
    assert!(!nat(Release::From28, false).contains("-s fd07:21::2 "));
}

#[test]
fn two_bridges_kept_apart() {
    let mut second = bridge("br-0a5ad9e85c71", "172.18.0.0/16");
    second.inter_container = false;
    second.masquerade = Masquerade::Snat("10.4.7.21".parse().unwrap());
    let bridges = vec![bridge("docker0", "172.7.21.0/24"), second];
    let lines = |release| {
        let text = engine(release, bridges.clone()).rules(Family::V4).iptables();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let old = lines(Release::UpTo27);
    for line in [
        "-I POSTROUTING -s 172.18.0.0/16 ! -o br-0a5ad9e85c71 -j SNAT --to-source 10.4.7.21",
        "-A FORWARD -i br-0a5ad9e85c71 -o br-0a5ad9e85c71 -j DROP",
    ] {
        assert!(old.iter().any(|found| found == line), "{old:#?}");
    }
    // Once for both.
    for end in
        ["-j DOCKER-ISOLATION-STAGE-1", "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"]
    {
        assert_eq!(old.iter().filter(|line| line.ends_with(end)).count(), 1, "{end}");
    }
    let new = lines(Release::From28);
    let own = "-A DOCKER-FORWARD -i br-0a5ad9e85c71";
    let own: Vec<_> = new.iter().filter_map(|line| line.strip_prefix(own)).collect();
    assert_eq!(own, [" -o br-0a5ad9e85c71 -j DROP", " ! -o br-0a5ad9e85c71 -j ACCEPT"]);
}

/// Up to 27 an IPv6 network had no address to be hidden by.
#[test]
fn snat_of_ipv6_is_new() {
    let target = |release| {
        let mut docker0 = bridge("docker0", "fd07:21::/64");
        docker0.masquerade = Masquerade::Snat("fd00::21".parse().unwrap());
        let text = engine(release, vec![docker0]).rules(Family::V6).iptables();
        let line = text.lines().find(|line| line.starts_with("-I POSTROUTING")).unwrap();
        line.split_once(" -j ").unwrap().1.to_owned()
    };
    assert_eq!(target(Release::UpTo27), "MASQUERADE");
    assert_eq!(target(Release::From28), "SNAT --to-source fd00::21");
}

#[test]
fn remedies() {
    let engine = engine(Release::UpTo27, vec![bridge("docker0", "172.7.21.0/24")]);
    let cluster = net("172.7.0.0/16");
    check(
        &engine.excluding("docker0", cluster).unwrap().iptables(),
        "*nat
        -D POSTROUTING -s 172.7.21.0/24 ! -o docker0 -j MASQUERADE
        -I POSTROUTING -s 172.7.21.0/24 ! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE
        COMMIT",
    );
    assert_eq!(engine.excluding("docker1", cluster), None);
    let off = engine.without_masquerade();
    assert_eq!(off.excluding("docker0", cluster), None);
    let text = off.rules(Family::V4).iptables();
    assert!(!text.contains("MASQUERADE") && !text.contains("-i docker0 -j RETURN"), "{text}");
}
