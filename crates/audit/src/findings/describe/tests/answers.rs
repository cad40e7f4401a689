//! Connections that nobody answers, and sources that arrive though they must not.

use std::net::IpAddr;

use unmasq_cluster::paths::Caller;
use unmasq_eval::trace::Reason;

use super::*;
use crate::matrix::Refusal;

/// A row of somebody outside.
fn outside(address: &str, fate: Fate) -> Row {
    let address: IpAddr = address.parse().unwrap();
    let family = Family::of(address);
    let mut row = row(Entry::Pod, Client::Outside(Outside::Anybody), family, &[]);
    row.witness.call.from = Caller::Outside { node: 0, address };
    row.cell.fate = fate;
    row
}

#[test]
fn clients_in_the_range_of_a_bridge() {
    let objects = "kind: Node\nmetadata: {name: a}\n---\nkind: Node\nmetadata: {name: b}\n";
    let files = [
        ("nodes/a/iptables-save", ""),
        ("nodes/a/files/etc/docker/daemon.json", "{\"bip\": \"172.17.0.1/16\"}"),
        ("nodes/b/iptables-save", ""),
    ];
    let cluster = cluster(objects, &files);
    let suspect = (FindingId::OverlappingRanges, Owner::Unclaimed, "");
    let rows = vec![outside("172.17.5.9", Fate::Lost), outside("198.51.100.7", Fate::Lost)];
    let found = of(&cluster, suspect, "", rows);
    assert_eq!(
        found.title,
        "Clients in 172.17.0.0/16 get no answer: nodes have a bridge with the same addresses"
    );
    let place = "node a, /etc/docker/daemon.json:1: bip";
    assert_eq!(known(&found), (Confidence::Certain, Some("172.17.0.0/16"), Some(place)));
    let Action::File { nodes, edit, .. } = actions(&found)[0] else { panic!() };
    assert_eq!(nodes, &["a", "b"]);
    let new = Some("\"none\"".to_owned());
    let (syntax, pointer) = (Syntax::Json, "/bridge".to_owned());
    assert_eq!(*edit, Edit::Value { syntax, pointer, old: None, new });
    assert!(matches!(actions(&found)[1], Action::Restart { .. }));
    let route = &found.remedies[1];
    assert!(!route.lasting);
    // One for each client, and each is undone.
    assert_eq!(
        undone_by(route),
        ["ip route del 172.17.5.9 via GATEWAY", "ip route del 198.51.100.7 via GATEWAY"]
    );
    assert!(commands(&found).contains("ip route add 172.17.5.9 via GATEWAY\n"));
}

/// Docker has nothing to do with a bridge of libvirt's.
#[test]
fn clients_in_the_range_of_a_bridge_of_others() {
    for (bridge, wanted, command) in [
        ("virbr0", "libvirt", "virsh net-list --all"),
        ("lxcbr0", "LXC_NETWORK", "cat /etc/default/lxc-net"),
        ("lxdbr0", "LXD", "lxc network list"),
        ("podman0", "Podman", "podman network ls"),
        ("docker0", "Docker", "docker ps"),
    ] {
        let link = r#"[{"ifindex": 2, "ifname": "NAME", "flags": ["UP"]}]"#.replace("NAME", bridge);
        let addresses = r#"[{"ifindex": 2, "ifname": "NAME", "flags": ["UP"], "addr_info": [
            {"family": "inet", "local": "192.168.122.1", "prefixlen": 24, "scope": "global"}]}]"#;
        let addresses = addresses.replace("NAME", bridge);
        let files = [
            ("nodes/a/iptables-save", ""),
            ("nodes/a/ip-link.json", &*link),
            ("nodes/a/ip-addr.json", &*addresses),
        ];
        let cluster = cluster("kind: Node\nmetadata: {name: a}\n", &files);
        let suspect = (FindingId::OverlappingRanges, Owner::Unclaimed, "");
        let found = of(&cluster, suspect, "", vec![outside("192.168.122.9", Fate::Lost)]);
        let all = format!("{:?}", found.remedies[0]);
        assert!(all.contains(wanted) && all.contains(command), "{bridge}\n{all}");
        assert_eq!(all.to_lowercase().contains("docker"), bridge == "docker0", "{all}");
    }
}

#[test]
fn no_answer_and_what_was_seen() {
    let cluster = cluster("kind: Node\nmetadata: {name: a}\n", &[]);
    let suspect = (FindingId::NoReply, Owner::Unclaimed, "");
    let by = |owner| Refusal { reason: Some(Reason::Rule), owner };
    let rows = vec![
        outside("198.51.100.7", Fate::Dropped(by(Some(Owner::Calico)))),
        outside("198.51.100.7", Fate::Rejected(by(None))),
        outside("198.51.100.7", Fate::Lost),
        outside("198.51.100.7", Fate::NoAnswer("the answer leaves by another node".to_owned())),
        // These say nothing of an answer.
        outside("198.51.100.7", Fate::Preserved),
        outside("198.51.100.7", Fate::Unknown("a set was not captured".to_owned())),
    ];
    let found = of(&cluster, suspect, "shop/web", rows);
    assert_eq!(found.title, "Connections to shop/web get no answer");
    let seen = "What was seen: it is dropped by Calico; it is refused by the kernel; nobody has the \
                address that it goes to; the answer leaves by another node.";
    assert!(found.cause.text.ends_with(seen), "{}", found.cause.text);
    assert_eq!(known(&found), (Confidence::Likely, None, None));
    assert_eq!(undone_by(&found.remedies[0]), ["Each by its opposite."]);
}

#[test]
fn a_source_that_should_have_been_translated() {
    let objects = "kind: Node\nmetadata: {name: a}\nspec: {podCIDRs: [10.42.0.0/24, \"fd42::/64\"]}\n---\n\
        kind: ConfigMap\nmetadata: {name: kubeadm-config, namespace: kube-system}\n\
        data: {ClusterConfiguration: \"networking: {podSubnet: '10.42.0.0/16,fd42::/48'}\"}\n";
    let cluster = cluster(objects, &[]);
    let suspect = (FindingId::ExpectationBroken, Owner::Unclaimed, "");
    let to = |address: &str, family| {
        let mut row = row(Entry::Outside, Client::Pod, family, &[]);
        row.cell.destination = Some(address.parse().unwrap());
        row
    };
    let rows = vec![to("203.0.113.9", Family::V4), to("2001:db8::9", Family::V6)];
    let found = of(&cluster, suspect, "", rows);
    let who = "203.0.113.9, 2001:db8::9";
    assert_eq!(
        found.title,
        format!("The source arrives at {who}, and an expectation wants it translated")
    );
    assert_eq!(found.confidence, Confidence::Certain);
    // Each family has its own program and its own range.
    let expected = "iptables -t nat -A POSTROUTING -s 10.42.0.0/16 -o UPLINK -j MASQUERADE\n\
                    ip6tables -t nat -A POSTROUTING -s fd42::/48 -o UPLINK -j MASQUERADE\n";
    assert_eq!(commands(&found), expected);
    assert_eq!(
        undone_by(&found.remedies[0])[1],
        "ip6tables -t nat -D POSTROUTING -s fd42::/48 -o UPLINK -j MASQUERADE"
    );
    assert_eq!(found.remedies.len(), 2);
}

#[test]
fn local_and_nodes_that_drop() {
    let cluster = cluster(&services(1, &[("a", 2), ("c", 1)]), &[]);
    let suspect = (FindingId::LocalPolicyUnsafe, Owner::KubeProxy, "");
    let found = of(&cluster, suspect, "shop/s0", Vec::new());
    assert_eq!(
        found.title,
        "Service shop/s0 is sent connections at b, d, which drop them: no pod there"
    );
    let place = "Service shop/s0, spec.externalTrafficPolicy";
    let setting = Some("externalTrafficPolicy: Local");
    assert_eq!(known(&found), (Confidence::Certain, setting, Some(place)));
    // A load balancer can ask; more pods; or back to the other policy.
    let [ask, pods, back] = &found.remedies[..] else { panic!("{:?}", found.remedies) };
    assert!(ask.title.contains("healthCheckNodePort"), "{}", ask.title);
    let Some(Instruction::Command(check)) = &ask.requires[0].check else { panic!() };
    assert!(check.contains("http://NODE:HEALTH-CHECK-NODE-PORT/healthz"), "{check}");
    assert_eq!(pods.requires[0].text, "there are as many pods as nodes (3 ready pods, 4 nodes)");
    assert_eq!(pods.requires[0].holds, Some(false));
    assert_eq!(undone_by(pods), ["kubectl rollout undo deployment/shop-web -n shop"]);
    assert!(back.title.contains("back to Cluster"), "{}", back.title);
    // A Service that isn't there has a name only.
    let unknown = of(&cluster, suspect, "shop/x", Vec::new());
    assert_eq!(unknown.title, FindingId::LocalPolicyUnsafe.title());
}
