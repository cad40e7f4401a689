use std::net::IpAddr;

use serde_json::json;
use unmasq_cluster::kubernetes::Objects;
use unmasq_cluster::paths::{Call, Caller};
use unmasq_model::packet::Protocol;

use super::super::*;
use crate::Owner;
use crate::matrix::{Cause, Cell, Client, Fate, Matrix, Outside, Placement, Row, Why, Witness};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Services 0 shop/web (node port), 1 shop/api (node port), 2 bank/db (cluster IP alone).
fn cluster() -> Cluster {
    let mut objects = Objects::default();
    for (namespace, name, kind) in
        [("shop", "web", "NodePort"), ("shop", "api", "NodePort"), ("bank", "db", "ClusterIP")]
    {
        let metadata = json!({"namespace": namespace, "name": name});
        objects
            .add(&json!({"kind": "Service", "metadata": metadata, "spec": {"type": kind}}))
            .unwrap();
    }
    let spec = json!({"podCIDRs": ["10.42.0.0/24"]});
    objects.add(&json!({"kind": "Node", "metadata": {"name": "n1"}, "spec": spec})).unwrap();
    Cluster::new(Vec::new(), objects, unmasq_cluster::Overrides::default())
}

pub(super) fn rewritten() -> Fate {
    let cause =
        Cause { owner: Owner::KubeProxy, rule: "masquerade".into(), why: Why::ExternalPolicy };
    Fate::Rewritten(vec![cause])
}

const OUTSIDE: Client = Client::Outside(Outside::Anybody);

fn row(client: Client, from: &str, entry: Entry, to: &str, fate: Fate, services: &[u32]) -> Row {
    let (source, to) = (address(from), address(to));
    let from = match client {
        Client::Outside(_) => Caller::Outside { node: 0, address: source },
        Client::Node | Client::NodeElsewhere => Caller::Node(0),
        Client::Pod | Client::PodElsewhere | Client::Endpoint => {
            Caller::Pod { node: 0, address: source }
        }
    };
    let seen = match fate {
        Fate::Preserved => Some(source),
        Fate::Rewritten(_) => Some(address("10.0.0.11")),
        _ => None,
    };
    let protocol = Protocol::TCP;
    Row {
        cell: Cell {
            entry,
            policy: None,
            client,
            placement: Placement::Here,
            family: Family::of(to),
            protocol,
            fate,
            hops: 0,
            destination: (entry == Entry::Outside).then_some(to),
        },
        count: 1,
        services: services.to_vec(),
        ports: services.iter().map(|index| (*index, 0)).collect(),
        witness: Witness {
            call: Call { from, source_port: None, to, port: None, protocol },
            way: 0,
            service: services.first().map(|one| (*one, 0)),
            rewriters: Vec::new(),
            seen,
            reached: None,
        },
    }
}

fn external(fate: Fate, services: &[u32]) -> Row {
    row(OUTSIDE, "203.0.113.77", Entry::NodePort, "10.0.0.11", fate, services)
}

pub(super) fn egress(to: &str, fate: Fate) -> Row {
    let from = if to.contains(':') { "fd00::5" } else { "10.42.0.5" };
    row(Client::Pod, from, Entry::Outside, to, fate, &[])
}

fn expected(lines: &str) -> Expectations {
    parse(&format!("schema: unmasq.expect/v1\n{lines}"), "x.yaml").unwrap()
}

#[derive(Debug, PartialEq)]
enum Is {
    Unspecified,
    Kept,
    Broken,
    Open,
}

#[test]
fn rows_are_judged() {
    use Is::{Broken, Kept, Open, Unspecified};
    let cluster = cluster();
    let dropped = Fate::Dropped(crate::matrix::Refusal { reason: None, owner: None });
    let web = "preserved: [{from: [outside], to: [service/shop/web]}]";
    let internet = "translated: [{from: [pods], to: [internet]}]";
    let lan = "preserved: [{from: [pods], to: [10.200.0.0/16]}]\ntranslated: [{from: [pods], to: [internet]}]";
    let public = "preserved: [{from: [pods], to: [203.0.113.0/24]}]\ntranslated: [{from: [pods], to: [internet]}]";
    let office = "preserved: [{from: [192.168.0.0/16], to: [services]}]";
    let named = |net: &str, from: &str, fate| {
        let client = Client::Outside(Outside::NamedByRule(net.parse().unwrap()));
        row(client, from, Entry::NodePort, "10.0.0.11", fate, &[0])
    };
    let inside = |client, entry, fate| row(client, "10.42.0.5", entry, "10.43.0.9", fate, &[0]);
    let plain = |client, entry| row(client, "10.42.0.5", entry, "10.42.0.9", rewritten(), &[]);
    let table: Vec<(&str, Row, Option<u32>, Is)> = vec![
        ("", external(rewritten(), &[0]), Some(0), Unspecified),
        (web, external(Fate::Preserved, &[0]), Some(0), Kept),
        (web, external(rewritten(), &[0]), Some(0), Broken),
        (web, external(rewritten(), &[0, 1]), Some(1), Unspecified),
        (web, external(dropped.clone(), &[0]), Some(0), Open),
        (web, external(Fate::Lost, &[0]), Some(0), Open),
        (web, external(Fate::NoAnswer("x".into()), &[0]), Some(0), Open),
        (web, external(Fate::Unknown("x".into()), &[0]), Some(0), Open),
        (web, inside(Client::Pod, Entry::ClusterIp, rewritten()), Some(0), Unspecified),
        (web, inside(Client::Node, Entry::NodePort, rewritten()), Some(0), Unspecified),
        // Somebody whom a rule names is somebody outside.
        (web, named("192.168.0.0/16", "192.168.7.20", rewritten()), Some(0), Broken),
        (
            "preserved: [{from: [outside], to: [service/shop/*]}]",
            external(rewritten(), &[1]),
            Some(1),
            Broken,
        ),
        (
            "preserved: [{from: [outside], to: [service/bank/*]}]",
            external(rewritten(), &[1]),
            Some(1),
            Unspecified,
        ),
        // Another namespace's Service of the same name is another.
        (
            "preserved: [{from: [outside], to: [service/bank/web]}]",
            external(rewritten(), &[0]),
            Some(0),
            Unspecified,
        ),
        (office, named("192.168.0.0/16", "192.168.7.20", rewritten()), Some(0), Broken),
        (office, named("172.16.0.0/12", "172.16.7.20", rewritten()), Some(0), Unspecified),
        (office, external(rewritten(), &[0]), Some(0), Unspecified),
        // A Service that nobody outside can call is none of `services`.
        (
            "preserved: [{from: [outside], to: [services]}]",
            external(rewritten(), &[2]),
            Some(2),
            Unspecified,
        ),
        (
            "preserved: [{from: [outside], to: [services]}]",
            external(rewritten(), &[1]),
            Some(1),
            Broken,
        ),
        (
            "preserved: [{from: [outside], to: [services], entries: [load-balancer]}]",
            external(rewritten(), &[0]),
            Some(0),
            Unspecified,
        ),
        (
            "preserved: [{from: [outside], to: [services], entries: [load-balancer, node-port]}]",
            external(rewritten(), &[0]),
            Some(0),
            Broken,
        ),
        (
            "preserved: [{from: [outside], to: [services], families: [ipv6]}]",
            external(rewritten(), &[0]),
            Some(0),
            Unspecified,
        ),
        (
            "preserved: [{from: [outside], to: [services], families: [ipv4]}]",
            external(rewritten(), &[0]),
            Some(0),
            Broken,
        ),
        (
            "preserved: [{from: [outside], to: [services], told-by: proxy-protocol}]",
            external(rewritten(), &[0]),
            Some(0),
            Kept,
        ),
        (
            "preserved: [{from: [outside], to: [services], told-by: forwarded-for}]",
            external(dropped, &[0]),
            Some(0),
            Open,
        ),
        (
            "preserved: [{from: [pods], to: [services]}]",
            inside(Client::PodElsewhere, Entry::NodePort, rewritten()),
            Some(0),
            Broken,
        ),
        // Hairpins only work translated.
        (
            "preserved: [{from: [pods], to: [services]}]",
            inside(Client::Endpoint, Entry::ClusterIp, rewritten()),
            Some(0),
            Unspecified,
        ),
        (
            "preserved: [{from: [nodes], to: [services]}]",
            inside(Client::NodeElsewhere, Entry::NodePort, rewritten()),
            Some(0),
            Broken,
        ),
        ("preserved: [{from: [pods], to: [pods]}]", plain(Client::Pod, Entry::Pod), None, Broken),
        (
            "preserved: [{from: [pods], to: [pods]}]",
            plain(Client::Pod, Entry::Node),
            None,
            Unspecified,
        ),
        ("preserved: [{from: [pods], to: [nodes]}]", plain(Client::Pod, Entry::Node), None, Broken),
        (
            "preserved: [{from: [pods], to: [nodes]}]",
            plain(Client::Node, Entry::Pod),
            None,
            Unspecified,
        ),
        (internet, egress("203.0.113.77", rewritten()), None, Kept),
        (internet, egress("203.0.113.77", Fate::Preserved), None, Broken),
        (internet, egress("2001:db8:ffff::77", Fate::Preserved), None, Broken),
        // Nobody on the internet has these.
        (internet, egress("10.200.7.20", Fate::Preserved), None, Unspecified),
        (internet, egress("100.64.7.20", Fate::Preserved), None, Unspecified),
        (internet, egress("fd07::20", Fate::Preserved), None, Unspecified),
        (lan, egress("10.200.7.20", rewritten()), None, Broken),
        (lan, egress("10.201.7.20", rewritten()), None, Unspecified),
        (lan, egress("203.0.113.77", rewritten()), None, Kept),
        // Another line names it, so it isn't the internet.
        (public, egress("203.0.113.77", Fate::Preserved), None, Kept),
        // One broken line is enough; one that can't be told outweighs one that is kept.
        (
            "preserved: [{from: [outside], to: [services], told-by: forwarded-for}, {from: [outside], to: [service/shop/web]}]",
            external(rewritten(), &[0]),
            Some(0),
            Broken,
        ),
        (
            "translated: [{from: [outside], to: [services]}]",
            external(Fate::Preserved, &[0]),
            Some(0),
            Broken,
        ),
        (
            "translated: [{from: [outside], to: [services]}]",
            external(rewritten(), &[0]),
            Some(0),
            Kept,
        ),
    ];
    for (lines, row, service, is) in table {
        let found = match Judge::new(&expected(lines), &cluster).judge(&row, service) {
            Verdict::Unspecified => Unspecified,
            Verdict::Kept => Kept,
            Verdict::Broken(_) => Broken,
            Verdict::Open => Open,
        };
        assert_eq!(found, is, "{lines} {service:?} {:?}", row.cell);
    }
}

#[test]
fn a_row_of_many_services_is_judged_for_each() {
    let lines = "preserved:\n  - name: customers\n    from: [outside]\n    to: [service/shop/api]\n  - {from: [outside], to: [services]}\ntranslated:\n  - {from: [outside], to: [services]}\n";
    let broken =
        Judge::new(&expected(lines), &cluster()).broken(&external(rewritten(), &[0, 1, 2]));
    let sentences = [
        "x.yaml:3 (customers): clients outside, such as 203.0.113.77, must reach Service shop/api by node port with their own address, and the receiver sees another, such as 10.0.0.11",
        "x.yaml:6: clients outside, such as 203.0.113.77, must reach Services shop/web and shop/api by node port with their own address, and the receiver sees another, such as 10.0.0.11",
    ];
    let found: Vec<(&str, u64, &[u32])> =
        broken.iter().map(|one| (&*one.sentence, one.line, &*one.services)).collect();
    assert_eq!(found, [(sentences[0], 3, &[1][..]), (sentences[1], 6, &[0, 1][..])]);
    let kept = Judge::new(&expected(lines), &cluster()).broken(&external(Fate::Preserved, &[2]));
    assert_eq!(kept, []);
}

#[test]
fn egress_is_told_in_words() {
    let lines = "preserved: [{from: [pods], to: [10.200.0.0/16]}]\ntranslated: [{from: [pods], to: [internet]}]";
    let broken = |row: Row| {
        let all = Judge::new(&expected(lines), &cluster()).broken(&row);
        all.into_iter().map(|one| (one.sentence, one.services)).collect::<Vec<_>>()
    };
    let kept_away = "x.yaml:2: pods must reach 10.200.7.20 with their own address, and the receiver sees another, such as 10.0.0.11";
    assert_eq!(broken(egress("10.200.7.20", rewritten())), [(kept_away.to_owned(), vec![])]);
    let let_out = "x.yaml:3: pods must not reach 203.0.113.77 with their own address, and they do";
    assert_eq!(broken(egress("203.0.113.77", Fate::Preserved)), [(let_out.to_owned(), vec![])]);
}

#[test]
fn what_was_not_asked_was_not_judged() {
    let lines = "preserved:\n  - {from: [outside], to: [service/shop/web]}\n  - {from: [outside], to: [service/shop/api]}\n  - {from: [pods], to: [pods]}\n";
    let matrix = Matrix { rows: vec![external(Fate::Preserved, &[1])], ..Matrix::default() };
    let unjudged = Judge::new(&expected(lines), &cluster()).unjudged(&matrix);
    let sentence = |line| {
        format!("x.yaml:{line}: nothing that was asked is such a call, so it was not judged")
    };
    assert_eq!(unjudged, [sentence(3), sentence(5)]);
}

#[test]
fn a_file_of_another_cluster() {
    let lines = "
preserved:
  - {from: [10.42.0.0/25], to: [service/shop/web]}
  - {from: [outside, pods], to: [service/bank/db]}
  - {from: [outside], to: [service/bank/db, service/bank/*, service/no/*, service/shop/no]}
  - {from: [pods], to: [10.42.0.9]}
outside: {load-balancers: [{services: [shop/*, shop/web, shop/gone]}]}
";
    assert_eq!(
        expected(lines).errors(&cluster()),
        [
            "x.yaml:4: 10.42.0.0/25 is within the range of all pods (Node n1: spec.podCIDRs): write pods or nodes for its callers",
            "x.yaml:6: there is no Service in the namespace no; there are bank, shop",
            "x.yaml:6: there is no Service shop/no; there are bank/db, shop/api, shop/web",
            "x.yaml:7: 10.42.0.9/32 is within the range of all pods (Node n1: spec.podCIDRs): write pods, nodes or a Service for what is called there",
            "x.yaml:8: outside.load-balancers: there is no Service shop/gone; there are bank/db, shop/api, shop/web",
        ]
    );
    let unreachable = "x.yaml:6: nobody outside can call Service bank/db";
    assert_eq!(expected(lines).mismatches(&cluster()), [unreachable; 2]);
}

#[test]
fn named_networks_are_asked_for() {
    let lines = "preserved: [{from: [192.168.0.0/16, 10.42.0.0/25], to: [services]}, {from: [pods], to: [10.200.0.0/16]}]";
    let cluster = cluster();
    let mut clients = Clients::of(&cluster);
    let before = clients.clone();
    expected(lines).add_to(&cluster, &mut clients);
    let office = "192.168.0.0/16".parse().unwrap();
    let added: Vec<_> = clients.callers[before.callers.len()..].to_vec();
    assert_eq!(added, [(Outside::NamedBySetting(office), address("192.168.7.20"))]);
    assert_eq!(clients.destinations[before.destinations.len()..], [address("10.200.7.20")]);
}

#[test]
fn health_checks_are_those_of_the_service() {
    let lines = "outside: {load-balancers: [{services: [shop/web], health-checks: false}, {services: [shop/*], health-checks: true}]}";
    let cluster = cluster();
    let of: Vec<Option<bool>> =
        cluster.objects.services.iter().map(|s| expected(lines).health_checks(s)).collect();
    assert_eq!(of, [Some(false), Some(true), None]);
}

#[test]
fn a_name_that_nothing_has_is_answered_with_the_one_that_was_meant() {
    let file = expected("preserved: [{from: [outside], to: [service/shop/wbe]}]");
    let wanted = "x.yaml:2: there is no Service shop/wbe; did you mean shop/web?";
    assert_eq!(file.errors(&cluster()), [wanted]);
    // Where no Service is known, no name is wrong.
    let empty = Cluster::new(Vec::new(), Objects::default(), unmasq_cluster::Overrides::default());
    assert_eq!(file.errors(&empty), [""; 0]);
    let open = file.mismatches(&empty).join("");
    assert!(open.contains("Services were not captured"), "{open}");
}

#[test]
fn the_pods_own_range_is_no_network_outside() {
    let given = unmasq_cluster::Overrides {
        cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
        ..unmasq_cluster::Overrides::default()
    };
    let cluster = Cluster::new(Vec::new(), cluster().objects, given);
    let errors = |net: &str| {
        expected(&format!("preserved: [{{from: [{net}], to: [services]}}]")).errors(&cluster)
    };
    let whole = errors("10.42.0.0/16").join("");
    assert!(whole.contains("10.42.0.0/16 is the range of all pods (--cluster-cidr"), "{whole}");
    assert!(whole.contains("write pods"), "{whole}");
    assert_eq!(errors("10.42.7.0/24").len(), 1);
    // A network around it has others too.
    assert_eq!(errors("10.0.0.0/8"), [""; 0]);
}

#[test]
fn lines_that_cannot_both_hold_are_named_together() {
    let errors = |kept: &str, lost: &str| {
        expected(&format!("preserved:\n  - {{{kept}}}\ntranslated:\n  - {{name: b, {lost}}}\n"))
            .errors(&cluster())
    };
    for (kept, lost, both) in [
        (
            "from: [outside], to: [services]",
            "from: [outside], to: [services]",
            Some("outside to services"),
        ),
        (
            "from: [outside], to: [service/shop/*]",
            "from: [192.0.2.0/24], to: [services], entries: [node-port]",
            Some("192.0.2.0/24 to service/shop/*"),
        ),
        (
            "from: [pods], to: [10.200.0.0/16]",
            "from: [nodes, pods], to: [10.200.1.0/24]",
            Some("pods to 10.200.1.0/24"),
        ),
        ("from: [pods], to: [pods]", "from: [pods], to: [nodes]", None),
        ("from: [pods], to: [10.200.0.0/16]", "from: [pods], to: [internet]", None),
        (
            "from: [pods], to: [pods], families: [ipv4]",
            "from: [pods], to: [pods], families: [ipv6]",
            None,
        ),
        (
            "from: [outside], to: [services], entries: [node-port]",
            "from: [outside], to: [services], entries: [load-balancer]",
            None,
        ),
        (
            "from: [outside], to: [services], told-by: proxy-protocol",
            "from: [outside], to: [services]",
            None,
        ),
        (
            "from: [outside], to: [service/shop/web]",
            "from: [outside], to: [service/shop/api]",
            None,
        ),
        // Nobody outside reaches it, so it is none of `services`.
        ("from: [pods], to: [service/bank/db]", "from: [pods], to: [services]", None),
        (
            "from: [192.0.2.0/24], to: [services], families: [ipv6]",
            "from: [outside], to: [services]",
            None,
        ),
    ] {
        let found = errors(kept, lost);
        assert_eq!(found.len(), usize::from(both.is_some()), "{kept} / {lost}: {found:?}");
        if let Some(both) = both {
            assert!(
                found[0].starts_with("x.yaml:3 wants the source preserved and x.yaml:5 (b) wants"),
                "{found:?}"
            );
            assert!(found[0].contains(both), "{found:?}");
        }
    }
}
