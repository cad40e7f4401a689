use serde_json::{Value, json};
use unmasq_cluster::kubernetes::Objects;
use unmasq_cluster::paths::{Call, Caller};
use unmasq_eval::trace::RuleId;
use unmasq_model::packet::Protocol;
use unmasq_model::ruleset::ChainId;

use super::*;
use crate::Owner;
use crate::matrix::{
    Cause, Cell, Client, Entry, Fate, Matrix, Outside, Placement, Refusal, Row, Why, Witness,
};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cluster(documents: &[Value]) -> Cluster {
    let mut objects = Objects::default();
    documents.iter().for_each(|one| objects.add(one).unwrap());
    Cluster::new(Vec::new(), objects, unmasq_cluster::Overrides::default())
}

/// Services 0 shop/api, 1 shop/web; one pod of web; a node; a policy of web that names `cidr`.
fn shop(cidr: &str) -> Cluster {
    cluster(&[
        json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "api"},
               "spec": {"type": "NodePort", "selector": {"app": "api"}, "ports": [{"port": 80}]}}),
        json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
               "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        json!({"kind": "Pod", "metadata": {"namespace": "shop", "name": "w", "labels": {"app": "web"}},
               "spec": {"nodeName": "n1"}, "status": {"podIP": "10.42.1.5"}}),
        json!({"kind": "Node", "metadata": {"name": "n1"},
               "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.11"}]}}),
        json!({"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1",
               "metadata": {"namespace": "shop", "name": "p"},
               "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [
                   {"from": [{"podSelector": {}}, {"ipBlock": {"cidr": cidr, "except": ["10.0.0.12/32"]}}]}]}}),
    ])
}

fn row(entry: Entry, from: &str, seen: Option<&str>, owner: Owner, hops: usize, to: &[u32]) -> Row {
    let source = address(from);
    let seen = seen.map(address);
    let cause = Cause { owner, rule: "masquerade".into(), why: Why::ExternalPolicy };
    let fate = match seen {
        Some(seen) if seen == source => Fate::Preserved,
        Some(_) => Fate::Rewritten(vec![cause]),
        None => Fate::Lost,
    };
    let protocol = Protocol::TCP;
    let call = Call {
        from: Caller::Outside { node: 0, address: source },
        source_port: None,
        to: address("10.0.0.11"),
        port: Some(30080),
        protocol,
    };
    Row {
        cell: Cell {
            entry,
            policy: None,
            client: Client::Outside(Outside::Anybody),
            placement: Placement::Here,
            family: Family::V4,
            protocol,
            fate,
            hops,
            destination: None,
        },
        count: 1,
        services: to.to_vec(),
        ports: to.iter().map(|index| (*index, 0)).collect(),
        witness: Witness {
            call,
            way: 0,
            service: None,
            rewriters: Vec::new(),
            seen,
            reached: None,
        },
    }
}

fn judged(cluster: &Cluster, rows: Vec<Row>) -> Vec<(FindingId, Vec<usize>, Vec<u32>, String)> {
    let matrix = Matrix { rows, ..Matrix::default() };
    let found = broken(cluster, &matrix, &dependences(cluster));
    found.into_iter().map(|one| (one.finding, one.rows, one.services, one.sentence)).collect()
}

#[test]
fn a_policy_is_found_with_its_pods_and_services() {
    let cluster = shop("198.51.100.0/24");
    let found = dependences(&cluster);
    let [one] = &found[..] else { panic!("{found:?}") };
    assert_eq!(one.place(), "NetworkPolicy shop/p, spec.ingress[0].from[1].ipBlock");
    assert_eq!((&one.services[..], &one.pods[..]), (&[1][..], &[address("10.42.1.5")][..]));
    assert_eq!(one.families, [Family::V4]);
    let mut clients = Clients::default();
    add_to(&found, &cluster, &mut clients);
    assert_eq!(clients.callers.len(), 1);
    assert!(one.networks[0].contains(&clients.callers[0].1));
}

#[test]
fn a_policy_whose_client_comes_as_a_node() {
    let (client, node) = ("198.51.100.20", Some("10.0.0.11"));
    let proxy = Owner::KubeProxy;
    let rows = vec![
        row(Entry::NodePort, client, node, proxy, 1, &[0, 1]),
        // Its own node masquerades after the policy's rules have judged.
        row(Entry::NodePort, client, node, proxy, 0, &[1]),
        row(Entry::NodePort, client, Some(client), proxy, 1, &[1]),
        row(Entry::NodePort, "203.0.113.77", node, proxy, 1, &[1]),
        row(Entry::NodePort, client, node, proxy, 1, &[0]),
    ];
    let sentence = "NetworkPolicy shop/p, spec.ingress[0].from[1].ipBlock: it lets clients of \
                    198.51.100.0/24 reach its pods, and 198.51.100.20 reaches them as 10.0.0.11, \
                    which it doesn't name";
    let expected = (FindingId::PolicyCannotMatchClient, vec![0], vec![1], sentence.to_owned());
    assert_eq!(judged(&shop("198.51.100.0/24"), rows), [expected]);
}

#[test]
fn a_policy_that_lets_in_everybody_by_a_node() {
    let rows = |seen, hops| {
        vec![row(Entry::NodePort, "203.0.113.77", Some(seen), Owner::KubeProxy, hops, &[1])]
    };
    let ids = |cluster: &Cluster, rows| {
        judged(cluster, rows).into_iter().map(|one| one.0).collect::<Vec<_>>()
    };
    let nodes = shop("10.0.0.0/24");
    assert_eq!(ids(&nodes, rows("10.0.0.11", 1)), [FindingId::PolicyAllowsNode]);
    // Nobody is rewritten; not before the policy; to an address that is left out.
    assert_eq!(ids(&nodes, rows("203.0.113.77", 1)), []);
    assert_eq!(ids(&nodes, rows("10.0.0.11", 0)), []);
    assert_eq!(ids(&nodes, rows("10.0.0.12", 1)), []);
    // A gateway address of pods, which is no node's own.
    assert_eq!(ids(&shop("10.42.0.0/16"), rows("10.42.1.0", 1)), [FindingId::PolicyAllowsNode]);
    assert_eq!(ids(&shop("198.51.100.0/24"), rows("10.0.0.11", 1)), []);
}

/// The shop, whose web has two ports and whose pods name one of theirs, with these policies in
/// place of its own: their rules, and which pods each is for.
fn guarded(policies: &[Value]) -> Cluster {
    let mut shop = shop("192.0.2.0/24");
    shop.objects.network_policies.clear();
    let web = json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "www"},
            {"name": "admin", "port": 8443, "targetPort": 9443},
            {"name": "dns", "port": 53, "protocol": "UDP"}]}});
    let pod = |namespace: &str, name: &str, ip: &str| {
        json!({"kind": "Pod", "metadata": {"namespace": namespace, "name": name,
                   "labels": {"app": name}},
               "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [
                   {"name": "www", "containerPort": 8080},
                   {"name": "www", "containerPort": 8081, "protocol": "UDP"}]}]},
               "status": {"podIP": ip}})
    };
    let documents = [
        web,
        pod("shop", "web", "10.42.1.5"),
        pod("lb", "lb", "10.42.1.9"),
        json!({"kind": "Namespace", "metadata": {"name": "lb", "labels": {"of": "us"}}}),
    ];
    documents.iter().for_each(|one| shop.objects.add(one).unwrap());
    for (number, spec) in policies.iter().enumerate() {
        let policy = json!({"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1",
            "metadata": {"namespace": "shop", "name": format!("p{number}")}, "spec": spec});
        shop.objects.add(&policy).unwrap();
    }
    shop.objects.settle();
    shop
}

/// At which ports of web the only ipBlock is told to shut out its client, who comes as `seen`.
fn shut_out(policies: &[Value], seen: &str) -> Vec<u32> {
    let cluster = guarded(policies);
    let is_shut = |port: &u32| {
        let from = "198.51.100.20";
        let mut row = row(Entry::NodePort, from, Some(seen), Owner::KubeProxy, 1, &[1]);
        row.ports = vec![(1, *port)];
        let found = judged(&cluster, vec![row]);
        found.iter().for_each(|one| assert_eq!(one.0, FindingId::PolicyCannotMatchClient));
        !found.is_empty()
    };
    (0..3).filter(is_shut).collect()
}

/// A rule for clients of the network that the client is in.
fn clients(ports: Value) -> Value {
    json!({"from": [{"ipBlock": {"cidr": "198.51.100.0/24"}}], "ports": ports})
}

const NODE: &str = "10.0.0.11";

/// Ports of a rule are the pod's: web's are www (TCP 8080), 9443 and UDP 53.
#[test]
fn a_policy_is_about_the_ports_of_its_rule() {
    for (ports, expected) in [
        (json!(null), &[0, 1, 2][..]),
        (json!([]), &[0, 1, 2]),
        (json!([{"port": 8080}]), &[0]),
        (json!([{"port": 80}]), &[]),
        (json!([{"port": "www"}]), &[0]),
        // This name is another port of another protocol.
        (json!([{"port": "www", "protocol": "UDP"}]), &[]),
        (json!([{"port": "other"}]), &[]),
        (json!([{"port": 9000, "endPort": 9443}]), &[1]),
        (json!([{"port": 9000, "endPort": 9442}]), &[]),
        (json!([{"port": 9444, "endPort": 9500}]), &[]),
        // TCP, as none is said.
        (json!([{}]), &[0, 1]),
        (json!([{"protocol": "UDP"}]), &[2]),
        (json!([{"port": 53}]), &[]),
        (json!([{"port": 53, "protocol": "UDP"}, {"port": 8080}]), &[0, 2]),
    ] {
        let policy = json!({"ingress": [clients(ports.clone())]});
        assert_eq!(shut_out(&[policy], NODE), expected, "{ports}");
    }
}

/// Policies add up, those that select the same pod alone.
#[test]
fn who_is_let_in_by_another_rule_is_not_shut_out() {
    let web = || json!({"matchLabels": {"app": "web"}});
    let first = || json!({"podSelector": web(), "ingress": [clients(json!(null))]});
    let other = |rule: Value| json!({"podSelector": web(), "ingress": [rule]});
    let of = |peer: Value| other(json!({"from": [peer]}));
    let ports = json!([{"port": 8080}]);
    for (second, expected) in [
        // Everybody, at all ports or at one.
        (other(json!({})), &[][..]),
        (other(json!({"from": [], "ports": ports})), &[1, 2]),
        (json!({"podSelector": {"matchLabels": {"app": "api"}}, "ingress": [{}]}), &[0, 1, 2]),
        (json!({"podSelector": web(), "policyTypes": ["Egress"], "ingress": [{}]}), &[0, 1, 2]),
        // The address that the client comes as.
        (of(json!({"ipBlock": {"cidr": "10.0.0.0/24"}})), &[]),
        (of(json!({"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.11/32"]}})), &[0, 1, 2]),
        (other(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": ports})), &[1, 2]),
        // Another client.
        (of(json!({"ipBlock": {"cidr": "192.0.2.0/24"}})), &[0, 1, 2]),
        (of(json!({"podSelector": {}})), &[0, 1, 2]),
    ] {
        assert_eq!(shut_out(&[first(), second.clone()], NODE), expected, "{second}");
    }
    let one = json!({"ingress": [clients(json!(null)), {"ports": ports}]});
    assert_eq!(shut_out(&[one], NODE), [1, 2]);
}

/// A client may come as a pod, that of a load balancer.
#[test]
fn who_comes_as_a_pod_is_let_in_where_that_pod_is() {
    for (peer, let_in) in [
        (json!({"podSelector": {}}), false),
        (json!({"namespaceSelector": {}}), true),
        (json!({"namespaceSelector": {"matchLabels": {"of": "us"}}}), true),
        (json!({"namespaceSelector": {"matchLabels": {"of": "them"}}}), false),
        (json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "lb"}}}), true),
        (json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}), false),
    ] {
        let mut rule = clients(json!(null));
        rule["from"].as_array_mut().unwrap().push(peer.clone());
        let found = shut_out(&[json!({"ingress": [rule]})], "10.42.1.9");
        assert_eq!(found.is_empty(), let_in, "{peer}");
    }
}

#[test]
fn nothing_depends_on_who_asks_where_everybody_is_let_in() {
    let policy = json!({"ingress": [clients(json!(null)), {}]});
    assert_eq!(dependences(&guarded(&[policy])), []);
    let partly = json!({"ingress": [clients(json!(null)), {"ports": [{"protocol": "UDP"}]}]});
    assert_eq!(dependences(&guarded(&[partly]))[0].services, [1]);
}

/// Somebody else whom another rule names doesn't get in by the node's address alone.
#[test]
fn a_node_that_is_let_in_may_stand_for_somebody_who_is_too() {
    let rows = || vec![row(Entry::NodePort, "203.0.113.77", Some(NODE), Owner::KubeProxy, 1, &[1])];
    let node = || json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}]});
    let found = judged(&guarded(&[node()]), rows());
    assert_eq!(found[0].0, FindingId::PolicyAllowsNode);
    let them = json!({"ingress": [{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}]});
    assert_eq!(judged(&guarded(&[node(), them]), rows()), []);
}

#[test]
fn source_ranges_are_judged_before_kube_proxy_rewrites() {
    let cluster =
        cluster(&[json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["198.51.100.0/24"]}})]);
    let of = |owner, entry, from| {
        let found = judged(&cluster, vec![row(entry, from, Some("10.42.1.1"), owner, 1, &[0])]);
        found.into_iter().map(|one| one.0).collect::<Vec<_>>()
    };
    let lb = Entry::LoadBalancer;
    let (named, other) = ("198.51.100.20", "203.0.113.77");
    assert_eq!(of(Owner::KubeProxy, lb, other), []);
    assert_eq!(of(Owner::KlipperLb, Entry::NodePort, other), []);
    // Who is named and arrives isn't shut out; who isn't, and does, wasn't judged.
    assert_eq!(of(Owner::KlipperLb, lb, named), []);
    assert_eq!(of(Owner::KlipperLb, lb, other), [FindingId::SourceRangesSeeNode]);
    let dropped = |from, owner, rewriters: &[(usize, RuleId)]| {
        let mut row = row(lb, from, None, owner, 1, &[0]);
        row.cell.fate = Fate::Dropped(Refusal { reason: None, owner: Some(owner) });
        row.witness.rewriters = rewriters.to_vec();
        judged(&cluster, vec![row]).into_iter().map(|one| one.0).collect::<Vec<_>>()
    };
    let rule = [(0, RuleId { table: 0, chain: ChainId(0), rule: 0 })];
    assert_eq!(dropped(named, Owner::KubeProxy, &rule), [FindingId::SourceRangesSeeNode]);
    assert_eq!(dropped(named, Owner::KubeProxy, &[]), []);
    assert_eq!(dropped(named, Owner::Calico, &rule), []);
    assert_eq!(dropped(other, Owner::KubeProxy, &rule), []);
}

/// An Ingress with an annotation, its controller as Service 0, and the controller's ConfigMap.
fn nginx(annotation: &str, value: &str, data: Value) -> Cluster {
    let labels = json!({"app.kubernetes.io/name": "ingress-nginx"});
    cluster(&[
        json!({"kind": "Service", "metadata": {"namespace": "in", "name": "c", "labels": labels},
               "spec": {"type": "LoadBalancer"}}),
        json!({"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "metadata": {
            "namespace": "shop", "name": "site", "annotations": {annotation: value}}}),
        json!({"kind": "ConfigMap", "metadata": {"namespace": "in", "name": "c", "labels": labels},
               "data": data}),
    ])
}

#[test]
fn ingresses_need_what_their_controller_sees() {
    let client = "192.0.2.7";
    let lost = || row(Entry::LoadBalancer, client, Some("10.0.0.11"), Owner::KubeProxy, 0, &[0]);
    let kept = || row(Entry::LoadBalancer, client, Some(client), Owner::KubeProxy, 0, &[0]);
    let ids = |cluster: &Cluster, rows| {
        judged(cluster, rows).into_iter().map(|one| one.0).collect::<Vec<_>>()
    };
    let allow = "nginx.ingress.kubernetes.io/whitelist-source-range";
    let limit = "nginx.ingress.kubernetes.io/limit-rps";
    for (annotation, value) in [(allow, "198.51.100.0/24, 192.0.2.7"), (limit, "5")] {
        let plain = nginx(annotation, value, json!({}));
        assert_eq!(ids(&plain, vec![lost()]), [FindingId::SourceRangesSeeNode], "{annotation}");
        assert_eq!(ids(&plain, vec![kept()]), [], "{annotation}");
        let told = nginx(annotation, value, json!({"use-proxy-protocol": "true"}));
        assert_eq!(ids(&told, vec![lost()]), [], "{annotation}");
    }
    let networks: Vec<IpNet> =
        ["198.51.100.0/24", "192.0.2.7/32"].iter().map(|net| net.parse().unwrap()).collect();
    let found = dependences(&nginx(allow, "198.51.100.0/24, 192.0.2.7", json!({})));
    assert_eq!(found[0].networks, networks);
    // Another controller's annotation: nobody knows where that one is.
    let other = nginx("haproxy.org/whitelist", "192.0.2.0/24", json!({}));
    assert_eq!(ids(&other, vec![lost()]), []);
    let sentence = "Ingress shop/site, annotation haproxy.org/whitelist: the Service of its \
                    controller was not found by its labels, so it was not judged";
    assert_eq!(unjudged(&dependences(&other)), [sentence]);
}

/// What a controller does about a word that is no network, nobody knows here.
#[test]
fn a_list_with_a_word_that_is_no_network_names_nobody() {
    let allow = "nginx.ingress.kubernetes.io/whitelist-source-range";
    let place = format!("Ingress shop/site, annotation {allow}");
    for (list, said) in [
        ("198.51.100.0/24;10.9.0.0/16", "198.51.100.0/24;10.9.0.0/16 is"),
        ("198.51.100.0/24; 10.9.0.0/16", "198.51.100.0/24; is"),
        ("10.0.0.0/33,192.0.2.7,a,b,c", "10.0.0.0/33, a, b, 1 more are"),
    ] {
        let found = dependences(&nginx(allow, list, json!({})));
        assert_eq!(found[0].networks, [], "{list}");
        let [doubt] = &crate::doubts::of_lists(&found)[..] else { panic!("{list}") };
        let text = format!("{place}: {said} no network, so whom the list means isn't known");
        assert_eq!((&doubt.text, &doubt.places[..]), (&text, &[place.clone()][..]));
    }
    let found = dependences(&nginx(allow, "198.51.100.0/24,\n\t192.0.2.7", json!({})));
    assert_eq!((found[0].networks.len(), crate::doubts::of_lists(&found)), (2, Vec::new()));
    // Whether the node is among those who are believed isn't known either.
    let lost =
        || row(Entry::LoadBalancer, "203.0.113.77", Some("10.0.0.11"), Owner::KubeProxy, 0, &[0]);
    let believed = json!({"use-forwarded-headers": "true", "proxy-real-ip-cidr": "10.0.0.0/33"});
    assert_eq!(judged(&nginx("x/y", "", believed), vec![lost()]), []);
    let spec = json!({"ipAllowList": {"sourceRange": ["198.51.100.7", "bogus"]}});
    let found = dependences(&traefik("traefik.io", spec, route(json!({"name": "office"}))));
    assert_eq!(
        (&found[0].networks[..], &found[0].unread[..]),
        (&[][..], &["bogus".to_owned()][..])
    );
}

/// A list is wrong where it says of the address that arrives what it doesn't say of the client; one
/// that does nothing is never wrong.
#[test]
fn lists_that_name_the_client_or_who_it_comes_as() {
    let said = |annotation: &str, value: &str| {
        let cluster = nginx(&format!("nginx.ingress.kubernetes.io/{annotation}"), value, json!({}));
        let row =
            row(Entry::LoadBalancer, "203.0.113.77", Some("10.42.1.1"), Owner::KubeProxy, 0, &[0]);
        let found = judged(&cluster, vec![row]).into_iter().next();
        found.map(|(_, _, _, text)| text.split_once(", and ").unwrap().1.to_owned())
    };
    let names = "its controller sees 10.42.1.1, which it names, in place of 203.0.113.77";
    let not = "its controller sees 10.42.1.1, which it doesn't name, in place of 203.0.113.77";
    for list in ["whitelist-source-range", "denylist-source-range"] {
        assert_eq!(said(list, "203.0.113.0/24").as_deref(), Some(not), "{list}");
        assert_eq!(said(list, "10.42.0.0/16").as_deref(), Some(names), "{list}");
        for same in ["0.0.0.0/0,::/0", "198.51.100.0/24", "203.0.113.0/24,10.42.0.0/16", "", " "] {
            assert_eq!(said(list, same), None, "{list}: {same}");
        }
    }
    assert_eq!(said("limit-rps", "0"), None);
    assert!(said("limit-rps", "1").is_some());
}

#[test]
fn whom_a_policy_leaves_out_is_asked_too() {
    let asked = |cidr: &str, except: Value| {
        let policy =
            json!({"ingress": [{"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}]});
        let cluster = guarded(&[policy]);
        let mut clients = Clients::default();
        add_to(&dependences(&cluster), &cluster, &mut clients);
        let callers: Vec<IpAddr> = clients.callers.iter().map(|(_, address)| *address).collect();
        (callers, clients.left_out)
    };
    let (callers, left_out) = asked("0.0.0.0/0", json!(["198.51.100.0/24"]));
    assert_eq!((callers, left_out), (vec![address("198.51.100.20")], Vec::new()));
    // The one who stands for the block isn't one of those whom it leaves out.
    let (callers, _) = asked("198.51.100.0/24", json!(["198.51.100.20/32"]));
    let out = address("198.51.100.20");
    assert!(callers.len() == 2 && callers[0] != out && callers[1] == out, "{callers:?}");
    let (callers, left_out) =
        asked("198.51.100.0/24", json!(["198.51.100.0/25", "198.51.100.128/25"]));
    assert_eq!(callers.len(), 2);
    assert_eq!(left_out.len(), 1);
    assert!(left_out[0].contains("198.51.100.0/24"), "{left_out:?}");
}

#[test]
fn whom_all_policies_of_a_service_let_in() {
    let of = |rules: &[Value]| {
        let policies: Vec<Value> = rules.iter().map(|rule| json!({"ingress": [rule]})).collect();
        let cluster = guarded(&policies);
        let lookup = unmasq_cluster::kubernetes::Lookup::new(&cluster.objects);
        let all = let_in(&lookup, &cluster.objects, &cluster.objects.services[1])?;
        Some(all.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let block = |net: &str| json!({"from": [{"ipBlock": {"cidr": net}}]});
    let some = |nets: &[&str]| Some(nets.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(of(&[block("192.0.2.0/24")]), some(&["192.0.2.0/24"]));
    assert_eq!(
        of(&[block("192.0.2.0/24"), block("198.51.100.0/24")]),
        some(&["192.0.2.0/24", "198.51.100.0/24"])
    );
    let except =
        json!({"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/25"]}}]});
    assert_eq!(of(&[except]), some(&["192.0.2.128/25"]));
    // Everybody, at all ports or at one of the Service's; pods; nobody's policy.
    let dns = json!([{"port": 53, "protocol": "UDP"}]);
    assert_eq!(of(&[block("192.0.2.0/24"), json!({})]), None);
    assert_eq!(of(&[block("192.0.2.0/24"), json!({"ports": dns})]), None);
    assert_eq!(of(&[block("192.0.2.0/24"), block("0.0.0.0/0")]), None);
    assert_eq!(of(&[block("192.0.2.0/24"), json!({"from": [{"podSelector": {}}]})]), None);
    assert_eq!(of(&[]), None);
    // No port of the Service.
    let other = json!({"ports": [{"port": 9999}]});
    assert_eq!(of(&[block("192.0.2.0/24"), other]), some(&["192.0.2.0/24"]));
}

#[test]
fn headers_are_believed_of_somebody() {
    let lost =
        || row(Entry::LoadBalancer, "203.0.113.77", Some("10.0.0.11"), Owner::KubeProxy, 0, &[0]);
    let found = |data: Value| {
        let cluster = nginx("x/y", "", data);
        judged(&cluster, vec![lost()]).into_iter().map(|one| (one.0, one.3)).collect::<Vec<_>>()
    };
    let place = "ConfigMap in/c, use-forwarded-headers and proxy-real-ip-cidr: it believes the \
                 header X-Forwarded-For of";
    let of = |rest: &str| (FindingId::ForwardedForUntrusted, format!("{place} {rest}"));
    assert_eq!(found(json!({})), []);
    assert_eq!(
        found(json!({"use-forwarded-headers": "true"})),
        [of("everybody, so 203.0.113.77, who reaches it directly, can claim any address")]
    );
    let listed = |list: &str| json!({"use-forwarded-headers": "true", "proxy-real-ip-cidr": list});
    assert_eq!(found(listed("10.0.0.0/24")), []);
    assert_eq!(
        found(listed("192.0.2.0/24")),
        [of("192.0.2.0/24, and sees 10.0.0.11 in place of 203.0.113.77, which isn't among them")]
    );
    assert_eq!(found(json!({"use-proxy-protocol": "true"})), []);
}

/// Traefik as Service 0, a Middleware with this spec, and an object that may refer to it.
fn traefik(group: &str, spec: Value, user: Value) -> Cluster {
    let labels = json!({"app.kubernetes.io/name": "traefik"});
    cluster(&[
        json!({"kind": "Service", "metadata": {"namespace": "in", "name": "t", "labels": labels},
               "spec": {"type": "LoadBalancer", "selector": {"app": "t"}}}),
        json!({"kind": "Middleware", "apiVersion": format!("{group}/v1alpha1"),
               "metadata": {"namespace": "shop", "name": "office"}, "spec": spec}),
        user,
    ])
}

fn route(middleware: Value) -> Value {
    json!({"kind": "IngressRoute", "apiVersion": "traefik.io/v1alpha1",
           "metadata": {"namespace": "shop", "name": "site"},
           "spec": {"routes": [{"match": "Host(`a`)", "middlewares": [middleware]}]}})
}

#[test]
fn middlewares_of_traefik() {
    let lost =
        || row(Entry::LoadBalancer, "192.0.2.7", Some("10.0.0.11"), Owner::KubeProxy, 0, &[0]);
    let found = |cluster: &Cluster| {
        let all = judged(cluster, vec![lost()]).into_iter();
        all.map(|(id, _, _, sentence)| (id, sentence)).collect::<Vec<_>>()
    };
    let list = json!({"sourceRange": ["198.51.100.0/24", "192.0.2.7"]});
    let used = || route(json!({"name": "office"}));
    let sentence = |field: &str, what: &str, so: &str| {
        let text = format!(
            "Middleware shop/office, spec.{field}: {what}, and its controller sees 10.0.0.11{so} in \
             place of 192.0.2.7"
        );
        [(FindingId::SourceRangesSeeNode, text)]
    };
    let lets_in = "it lets in clients by their address";
    for (group, name) in [("traefik.io", "ipAllowList"), ("traefik.containo.us", "ipWhiteList")] {
        let cluster = traefik(group, json!({name: list.clone()}), used());
        assert_eq!(
            found(&cluster),
            sentence(&format!("{name}.sourceRange"), lets_in, ", which it doesn't name,")
        );
        assert_eq!(dependences(&cluster)[0].networks.len(), 2);
    }
    let counts = "it counts requests by client";
    assert_eq!(
        found(&traefik("traefik.io", json!({"rateLimit": {"average": 5}}), used())),
        sentence("rateLimit", counts, "")
    );
    // By the header, by the host that is asked for, by a header of the application: no address.
    for spec in [
        json!({"ipAllowList": {"sourceRange": ["192.0.2.7"], "ipStrategy": {"depth": 1}}}),
        json!({"inFlightReq": {"amount": 5}}),
        json!({"rateLimit": {"sourceCriterion": {"requestHeaderName": "X-User"}}}),
        json!({"headers": {}}),
    ] {
        assert_eq!(found(&traefik("traefik.io", spec.clone(), used())), [], "{spec}");
    }
    // By an Ingress, by a chain, by an entry point; the PROXY protocol says who the client is.
    let by_ingress = json!({"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "metadata": {
        "namespace": "other", "name": "site",
        "annotations": {"traefik.ingress.kubernetes.io/router.middlewares": "a-b@file, shop-office@kubernetescrd"}}});
    let traefik_with = |words: Value| {
        json!({"kind": "StatefulSet", "apiVersion": "apps/v1",
        "metadata": {"namespace": "in", "name": "edge"}, "spec": {"template": {
            "metadata": {"labels": {"app": "t"}}, "spec": {"containers": [{"args": words}]}}}})
    };
    let entry = "--entryPoints.web.http.middlewares=shop-office@kubernetescrd";
    let spec = json!({"ipAllowList": list});
    let told = "--entryPoints.web.proxyProtocol.trustedIPs=192.0.2.0/24";
    for (user, count) in [
        (by_ingress, 1),
        (traefik_with(json!([entry])), 1),
        (traefik_with(json!([entry, told])), 0),
        (route(json!({"name": "office", "namespace": "shop"})), 1),
        (route(json!({"name": "another"})), 0),
    ] {
        assert_eq!(
            found(&traefik("traefik.io", spec.clone(), user.clone())).len(),
            count,
            "{user}"
        );
    }
    let alone = traefik("traefik.io", spec, route(json!({"name": "another"})));
    let [told] = &unused(&alone)[..] else { panic!() };
    assert!(told.starts_with("Middleware shop/office: no route that uses it was seen"), "{told}");
}

/// Two controllers of ingress-nginx, Services 0 a/c and 1 b/c, each with a ConfigMap of these data
/// and arguments; an Ingress of class `internal` with an allow-list.
fn two(arguments: [Value; 2], data: [Value; 2], more: &[Value]) -> Cluster {
    let labels = json!({"app.kubernetes.io/name": "ingress-nginx"});
    let each = |namespace: &str, arguments: &Value, data: &Value| {
        [
            json!({"kind": "Service",
                   "metadata": {"namespace": namespace, "name": "c", "labels": labels},
                   "spec": {"type": "LoadBalancer", "selector": {"app": "c"}}}),
            json!({"kind": "Pod",
                   "metadata": {"namespace": namespace, "name": "p", "labels": {"app": "c"}},
                   "spec": {"containers": [{"name": "c", "args": arguments}]}}),
            json!({"kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "c", "labels": labels},
                   "data": data}),
        ]
    };
    let mut all = vec![json!({"kind": "Ingress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"namespace": "shop", "name": "site", "annotations": {
            "nginx.ingress.kubernetes.io/whitelist-source-range": "198.51.100.0/24"}},
        "spec": {"ingressClassName": "internal"}})];
    all.extend(each("a", &arguments[0], &data[0]));
    all.extend(each("b", &arguments[1], &data[1]));
    all.extend_from_slice(more);
    cluster(&all)
}

/// Of the Ingress: the Services of each part, how they are told, and whether they aren't known.
fn parts(cluster: &Cluster) -> Vec<(Vec<u32>, Option<ToldBy>, bool)> {
    let all = dependences(cluster).into_iter().filter(|one| one.kind == Kind::IngressAllowList);
    all.map(|one| (one.services, one.told_by, one.unknown.is_some())).collect()
}

#[test]
fn an_ingress_is_judged_at_the_controller_of_its_class() {
    let none = || [json!({}), json!({})];
    let class = |controller: &str| {
        json!({"kind": "IngressClass", "apiVersion": "networking.k8s.io/v1",
               "metadata": {"name": "internal"}, "spec": {"controller": controller}})
    };
    let by = |a: &str, b: &str| [json!([a]), json!([b])];
    let unknown = || vec![(vec![], None, true)];
    let at = |services: &[u32]| vec![(services.to_vec(), None, false)];
    assert_eq!(parts(&two([json!([]), json!([])], none(), &[])), unknown());
    let [a, b] = ["--ingress-class=public", "--ingress-class=internal"];
    assert_eq!(parts(&two(by(a, b), none(), &[])), at(&[1]));
    assert_eq!(parts(&two(by(a, a), none(), &[])), unknown());
    assert_eq!(
        parts(&two([json!([]), json!(["--ingress-class", "internal"])], none(), &[])),
        at(&[1])
    );
    let [a, b] = ["--controller-class=k8s.io/x", "--controller-class=k8s.io/y"];
    assert_eq!(parts(&two(by(a, b), none(), &[class("k8s.io/x")])), at(&[0]));
    assert_eq!(parts(&two(by(a, b), none(), &[class("k8s.io/z")])), unknown());
    assert_eq!(parts(&two(by(a, b), none(), &[])), unknown());
    let told = unjudged(&dependences(&two(by(a, b), none(), &[])));
    let [told] = &told[..] else { panic!("{told:?}") };
    assert!(told.ends_with(
        "no controller that was seen (a, b) is known to serve it, of class internal, so it was not judged"
    ), "{told}");
}

/// Each controller has a ConfigMap of its own, the one that its argument names.
#[test]
fn each_controller_is_told_in_its_own_way() {
    let proxy = || json!({"use-proxy-protocol": "true"});
    let header = || json!({"use-forwarded-headers": "true"});
    let (by_proxy, by_header) = (Some(ToldBy::ProxyProtocol), Some(ToldBy::ForwardedFor));
    let plain = || [json!([]), json!([])];
    // Which of the two serves it isn't known; both are told.
    assert_eq!(parts(&two(plain(), [proxy(), proxy()], &[])), [(vec![0, 1], by_proxy, false)]);
    assert_eq!(
        parts(&two(plain(), [proxy(), header()], &[])),
        [(vec![0], by_proxy, false), (vec![1], by_header, false)]
    );
    let class = "--ingress-class=internal";
    let both = || [json!([class]), json!([class])];
    assert_eq!(
        parts(&two(both(), [proxy(), json!({})], &[])),
        [(vec![0], by_proxy, false), (vec![1], None, false)]
    );
    let named =
        |map: &str| [json!([class, format!("--configmap=$(POD_NAMESPACE)/{map}")]), json!([])];
    let other =
        json!({"kind": "ConfigMap", "metadata": {"namespace": "a", "name": "real"}, "data": {}});
    let more = [other];
    assert_eq!(parts(&two(named("real"), [proxy(), proxy()], &more)), [(vec![0], None, false)]);
    assert_eq!(parts(&two(named("c"), [proxy(), proxy()], &more)), [(vec![0], by_proxy, false)]);
    assert_eq!(parts(&two(named("lost"), [proxy(), proxy()], &more)), [(vec![], None, true)]);
}

/// Rules of one port are kept once, however many policies there are.
#[test]
fn settings_at_one_port_share_its_rules() {
    let policies: Vec<Value> = (0..3).map(|_| json!({"ingress": [clients(json!(null))]})).collect();
    let found = dependences(&guarded(&policies));
    let rules: Vec<_> = found.iter().map(|one| one.admissions[0].rules().as_ptr()).collect();
    assert_eq!((rules.len(), rules[0]), (3, rules[2]));
}

#[test]
fn a_name_may_be_a_sidecars_port() {
    for (policy, expected) in [(json!("Always"), &[0, 1, 2][..]), (json!(null), &[1, 2])] {
        let mut cluster = guarded(&[json!({"ingress": [clients(json!(null))]})]);
        let pod = json!({"kind": "Pod", "metadata": {"namespace": "shop", "name": "web",
                "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}], "initContainers": [
                {"name": "s", "restartPolicy": policy,
                 "ports": [{"name": "www", "containerPort": 8080}]}]},
            "status": {"podIP": "10.42.1.5"}});
        cluster.objects.pods.clear();
        cluster.objects.add(&pod).unwrap();
        let found = dependences(&cluster);
        let ports: Vec<u32> = found[0].admissions.iter().map(|at| at.port.1).collect();
        assert_eq!(ports, expected, "{policy}");
    }
}

#[test]
fn a_chain_may_name_others_as_other_providers_do() {
    let list = json!({"ipAllowList": {"sourceRange": ["192.0.2.7"]}});
    for name in ["office", "shop-office@kubernetescrd"] {
        let mut cluster = traefik("traefik.io", list.clone(), route(json!({"name": "chain"})));
        let chain = json!({"kind": "Middleware", "apiVersion": "traefik.io/v1alpha1",
            "metadata": {"namespace": "shop", "name": "chain"},
            "spec": {"chain": {"middlewares": [{"name": name}]}}});
        cluster.objects.add(&chain).unwrap();
        assert_eq!((dependences(&cluster).len(), unused(&cluster)), (1, Vec::new()), "{name}");
    }
}

#[test]
fn haproxys_lists() {
    let haproxy = |data: Value| {
        let labels = json!({"app.kubernetes.io/name": "kubernetes-ingress"});
        cluster(&[
            json!({"kind": "Service", "metadata": {"namespace": "in", "name": "c", "labels": labels},
                   "spec": {"type": "LoadBalancer"}}),
            json!({"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "metadata": {
                "namespace": "shop", "name": "site",
                "annotations": {"haproxy.com/allow-list": "198.51.100.0/24"}}}),
            json!({"kind": "ConfigMap", "metadata": {"namespace": "in", "name": "c", "labels": labels},
                   "data": data}),
        ])
    };
    let lost =
        || row(Entry::LoadBalancer, "198.51.100.20", Some("10.0.0.11"), Owner::KubeProxy, 0, &[0]);
    let count = |data: Value| judged(&haproxy(data), vec![lost()]).len();
    assert_eq!(count(json!({})), 1);
    assert_eq!(count(json!({"proxy-protocol": "192.0.2.0/24"})), 0);
    assert_eq!(count(json!({"src-ip-header": "True-Client-IP"})), 0);
}
