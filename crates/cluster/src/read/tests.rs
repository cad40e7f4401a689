//! Files of all forms, with everything that can be wrong with them.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::Process;
use crate::kubernetes::{ClientRuleKind, Protocol, ServiceType, TargetPort};

fn read(file: &str, text: &str) -> (Objects, Vec<String>) {
    let contents = objects([(file, text.as_bytes())]);
    (contents.objects, contents.problems.iter().map(ToString::to_string).collect())
}

/// Names of Services in the order they were read.
fn services(objects: &Objects) -> Vec<&str> {
    objects.services.iter().map(|service| service.metadata.name.as_str()).collect()
}

#[test]
fn documents_of_all_forms() {
    let object = |name: &str| format!(r#"{{"kind": "Service", "metadata": {{"name": "{name}"}}}}"#);
    let [a, b, c] = ["a", "b", "c"].map(object);
    let yaml = |name: &str| format!("kind: Service\nmetadata:\n  name: {name}\n");
    let [ya, yb, yc] = ["a", "b", "c"].map(yaml);
    let cases = [
        ("x.json", format!("{a}\n{b}{c}")),
        ("x.json", format!("[{a}, {b},\n{c}]")),
        ("x.json", format!("\u{feff}{{\"kind\": \"List\", \"items\": [{a}, {b}, {c}]}}\r\n")),
        ("x.yaml", format!("{{\"kind\": \"ServiceList\", \"items\": [{a}, {b}, {c}]}}")),
        ("x.yaml", format!("{ya}---\n{yb}--- # the last\n{yc}...\n")),
        (
            "x.yaml",
            format!("\u{feff}# first\n---\n---\n%YAML 1.2\n---\n{ya}...\n{yb}---\n\n{c}\n---\n"),
        ),
        ("x.yml", format!("{ya}---\n{yb}---\n{yc}").replace('\n', "\r\n")),
        (
            "x.yaml",
            "apiVersion: v1\nkind: List\nitems:\n- kind: Service\n  metadata: {name: a}\n\
             - kind: Service\n  metadata: {name: b}\n- {kind: Service, metadata: {name: c}}\n"
                .to_owned(),
        ),
        (
            "x.yaml",
            format!("{{kind: List, items: [{a}, {b}, {{kind: Service, metadata: {{name: c}}}}]}}"),
        ),
        // A marker in a text of many lines is none: it is indented.
        (
            "x.yaml",
            format!(
                "kind: ConfigMap\nmetadata: {{name: m}}\ndata:\n  k: |\n    ---\n    x\n---\n{ya}---\n{yb}---\n{yc}"
            ),
        ),
    ];
    for (file, text) in cases {
        let (objects, problems) = read(file, &text);
        assert_eq!(problems, [""; 0], "{text}");
        assert_eq!(services(&objects), ["a", "b", "c"], "{text}");
    }
}

#[test]
fn other_encodings() {
    let text = "kind: Service\nmetadata:\n  name: ä\n";
    let wide = |number: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(number).collect()
    };
    for bytes in [wide(u16::to_le_bytes), wide(u16::to_be_bytes), text.as_bytes().to_vec()] {
        let contents = objects([("x.yaml", bytes.as_slice())]);
        assert_eq!((services(&contents.objects), contents.problems), (vec!["ä"], Vec::new()));
    }
    let latin1 = b"kind: Service\nmetadata:\n  name: a\n  labels: {x: \xe4}\n";
    let contents = objects([("x.yaml", latin1.as_slice())]);
    assert_eq!(services(&contents.objects), ["a"]);
    let problem = "x.yaml: not all of it is UTF-8: other bytes are read as U+FFFD";
    assert_eq!(contents.problems[0].to_string(), problem);
}

#[test]
fn one_problem_costs_one_object() {
    let policy =
        "spec.externalTrafficPolicy: unknown variant `local`, expected `Cluster` or `Local`";
    let json = "{\n \"kind\": \"List\",\n \"items\": [\n  {\"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}},\n  \
         {\"kind\": \"Service\",\n   \"metadata\": {\"name\": \"b\", \"namespace\": \"n\"}, \
         \"spec\": {\"externalTrafficPolicy\": \"local\"}},\n  \
         {\"metadata\": {\"name\": \"x\"}},\n  7,\n  \
         {\"kind\": \"Service\", \"metadata\": {\"name\": \"c\"}}\n ]\n}";
    let (objects, problems) = read("k.json", json);
    assert_eq!(services(&objects), ["a", "c"]);
    let expected = [
        format!("k.json, line 5: Service n/b: {policy}"),
        "k.json, line 7: an object without a kind".to_owned(),
        "k.json, line 8: an object without a kind".to_owned(),
    ];
    assert_eq!(problems, expected);

    let yaml = "kind: Service\nmetadata: {name: a}\n---\nx: [\n---\n# c\nkind: Service\nmetadata: {name: b}\n\
         spec:\n  externalTrafficPolicy: local\n---\nerror from kubectl\n---\n- kind: Service\n  metadata: {name: c}\n";
    let (objects, problems) = read("m/k.yaml", yaml);
    assert_eq!(services(&objects), ["a", "c"]);
    let [broken, field, word] = &problems[..] else { panic!("{problems:?}") };
    assert!(broken.starts_with("m/k.yaml, document 2, line "), "{broken}");
    assert!(broken.contains("this is no YAML: "), "{broken}");
    assert_eq!(*field, format!("m/k.yaml, document 3, line 5: Service b: {policy}"));
    assert_eq!(word, "m/k.yaml, document 4, line 11: an object without a kind");

    for (text, expected) in [
        ("", "k.json: the file is empty"),
        (" \r\n", "k.json: the file is empty"),
        ("{\n\"kind\": \"List\", \"items\": [", "k.json, line 2: this is no JSON: EOF"),
        ("Error from server", "k.json, line 1: an object without a kind"),
        (
            "{\"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}}\n}",
            "k.json, line 2: this is no JSON",
        ),
    ] {
        let (_, problems) = read("k.json", text);
        let [problem] = &problems[..] else { panic!("{text}: {problems:?}") };
        assert!(problem.starts_with(expected), "{text}: {problem}");
    }
}

#[test]
fn objects_that_are_read_twice() {
    let service = |port: u16| {
        format!("kind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n")
    };
    let text = service(1) + &service(1) + "kind: Service\nmetadata: {name: b}\n";
    let (objects, problems) = read("k.yaml", &text);
    assert_eq!((services(&objects), problems), (vec!["a", "b"], Vec::new()));
    let (objects, problems) = read("k.yaml", &(text + "---\n" + &service(2)));
    assert_eq!(services(&objects), ["a", "b"]);
    assert_eq!(objects.services[0].spec.ports[0].port, 2);
    let expected = "Service default/a was read more than once, and not the same: the last counts";
    assert_eq!(problems, [expected]);
}

#[test]
fn all_kinds_are_read() {
    let (objects, problems) = read("all.yaml", include_str!("tests/all.yaml"));
    assert_eq!(problems, [""; 0]);
    let service = objects.service("shop", "web").unwrap();
    assert_eq!(service.spec.kind, ServiceType::LoadBalancer);
    assert_eq!(service.spec.load_balancer_class.as_deref(), Some("io.x/lb"));
    assert_eq!(service.spec.allocate_load_balancer_node_ports, Some(false));
    assert!(service.spec.publish_not_ready_addresses);
    assert_eq!(service.metadata.annotations["example.org/a"], "b");
    let pod = objects.pod("shop", "web-1").unwrap();
    assert!(service.selects(&pod.metadata.labels));
    assert_eq!(pod.spec.node_name.as_deref(), Some("n1"));
    let ips: Vec<String> = pod.ips().map(|ip| ip.to_string()).collect();
    assert_eq!(ips, ["10.1.0.5", "fd00:1::5"]);
    assert_eq!(pod.port(&TargetPort::Name("http".into()), Protocol::Tcp), Some(8080));
    assert_eq!(pod.port(&TargetPort::Name("http".into()), Protocol::Udp), None);
    assert_eq!(objects.pod_at("10.1.0.5".parse().unwrap()), Some(pod));
    let proxy = objects.pod("kube-system", "proxy").unwrap();
    assert!(proxy.spec.host_network && proxy.ip(unmasq_model::packet::Family::V4).is_some());
    assert_eq!(objects.pod_at("10.9.0.1".parse().unwrap()), None);
    assert_eq!(objects.pod("shop", "job").unwrap().ips().count(), 0);

    let slices: Vec<_> = objects.endpoint_slices.iter().collect();
    let [web, old4, old6] = slices[..] else { panic!("{slices:?}") };
    assert_eq!((web.service(), old4.service()), (Some("web"), Some("old")));
    assert_eq!(old4.endpoints.len(), 2);
    assert_eq!(old4.endpoints[1].conditions.ready, Some(false));
    assert_eq!(old6.endpoints[0].addresses, ["fd00:1::9".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(old6.ports[0].port, Some(9090));

    let [policy] = &objects.network_policies[..] else { panic!() };
    assert!(policy.is_for_ingress() && policy.is_for_egress());
    let block = policy.spec.ingress[0].from[0].ip_block.as_ref().unwrap();
    assert_eq!(block.cidr.to_string(), "203.0.113.0/24");
    assert_eq!(block.except[0].to_string(), "203.0.113.64/26");
    assert_eq!(policy.spec.ingress[0].ports[1].end_port, Some(90));
    let [ingress] = &objects.ingresses[..] else { panic!() };
    assert_eq!(ingress.services(), ["fallback", "web"]);
    let rules: Vec<_> = ingress.client_rules().iter().map(|rule| (rule.kind, rule.value)).collect();
    let expected =
        [(ClientRuleKind::RateLimit, "5"), (ClientRuleKind::AllowList, "198.51.100.0/24")];
    assert_eq!(rules, expected);

    let [agent] = &objects.daemon_sets[..] else { panic!() };
    let container = &agent.spec.template.spec.containers[0];
    assert_eq!(container.variable("CALICO_IPV4POOL_CIDR"), Some("192.168.0.0/16"));
    assert_eq!(container.variable("NODENAME"), None);
    assert_eq!(container.words().collect::<Vec<_>>(), ["start", "--x=1"]);
    assert_eq!(objects.deployments[0].spec.replicas, Some(3));
    let [pool] = &objects.ip_pools[..] else { panic!() };
    assert!(pool.spec.nat_outgoing && !pool.spec.disabled);
    let felix = &objects.felix_configurations[0].spec;
    assert_eq!(felix.nat_port_range.as_deref(), Some("4000:5000"));
    assert_eq!(felix.nat_outgoing_exclusions.as_deref(), Some("IPPoolsAndHostIPs"));
    assert_eq!(objects.service_cidrs[0].spec.cidrs[0].to_string(), "10.96.0.0/12");
    let node = objects.node("n1").unwrap();
    assert_eq!(node.pod_cidrs().map(|n| n.to_string()).collect::<Vec<_>>(), ["10.1.0.0/24"]);
    assert_eq!(node.spec.taints[0].key, "ToBeDeletedByClusterAutoscaler");
    assert_eq!(objects.namespace("shop").unwrap().metadata.labels["team"], "x");
    assert_eq!(objects.config_map("shop", "m").unwrap().data["k"], "v\n");
    let others: Vec<_> = objects.others.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    assert_eq!(others, [("Secret", 1), ("Service.serving.knative.dev", 2)]);
}

#[test]
fn a_capture_is_read() {
    let text = |text: &str| text.as_bytes().to_vec();
    let mut files = BTreeMap::from([
        ("capture.json".to_owned(), text(r#"{"schema": "unmasq.capture/v1"}"#)),
        ("nodes/n1/iptables-save".into(), text("")),
        (
            "nodes/n1/processes".into(),
            text(
                "/usr/bin/python3 *** /usr/sbin/firewalld --nofork\n\n/a/k3s server --token=***\n",
            ),
        ),
        ("nodes/n1/files/etc/docker/daemon.json".into(), text("{}")),
        ("nodes/n1/pods/shop_web-1/ip-addr.json".into(), text("[]")),
        ("nodes/n10/iptables-save".into(), text("")),
        (
            "kubernetes/services.json".into(),
            text(r#"{"kind": "Service", "metadata": {"name": "a"}}"#),
        ),
        (
            "kubernetes/ippools.crd.projectcalico.org.yaml".into(),
            text("kind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.0.0.0/8}"),
        ),
        ("kubernetes/version".into(), text("x")),
    ]);
    let contents = capture(&files).unwrap();
    assert_eq!(contents.problems, []);
    assert_eq!((contents.objects.services.len(), contents.objects.ip_pools.len()), (1, 1));
    let [n1, n10] = &contents.nodes[..] else { panic!("{:?}", contents.nodes) };
    assert!(n1.host.is_some() && n10.processes.is_none() && n10.files.is_empty());
    let process = |name: &str, arguments: &[&str]| Process {
        name: name.to_owned(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
    };
    let expected =
        [process("firewalld", &["--nofork"]), process("k3s", &["server", "--token=***"])];
    assert_eq!(n1.processes.as_deref(), Some(&expected[..]));
    assert_eq!(n1.files["/etc/docker/daemon.json"], "{}");
    assert_eq!((&*n1.pods[0].namespace, &*n1.pods[0].name), ("shop", "web-1"));

    // Only objects.
    files.retain(|path, _| path.starts_with("kubernetes/"));
    let contents = capture(&files).unwrap();
    assert_eq!((contents.nodes.len(), contents.objects.services.len()), (0, 1));
    files.clear();
    assert!(matches!(capture(&files), Err(CaptureError::NoManifest)));
}

#[test]
fn the_captures_of_kube_proxy_are_read() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures");
    let Ok(folders) = std::fs::read_dir(&shared) else {
        eprintln!("skipped: there are no captures in {}", shared.display());
        return;
    };
    let mut read = 0;
    for folder in folders.map(|folder| folder.unwrap().path()) {
        let mut files = BTreeMap::new();
        for part in ["", "kubernetes", "nodes/n1"] {
            for entry in std::fs::read_dir(folder.join(part)).unwrap().flatten() {
                if entry.file_type().unwrap().is_file() {
                    let path = entry.path().strip_prefix(&folder).unwrap().to_owned();
                    files.insert(
                        path.to_str().unwrap().to_owned(),
                        std::fs::read(entry.path()).unwrap(),
                    );
                }
            }
        }
        let contents = capture(&files).unwrap();
        assert_eq!(contents.problems, [], "{}", folder.display());
        assert!(!contents.objects.services.is_empty() && !contents.objects.nodes.is_empty());
        assert!(!contents.objects.endpoint_slices.is_empty());
        assert_eq!(contents.nodes.len(), 1);
        read += 1;
    }
    assert!(read > 0);
}

/// Cut, mixed and changed texts, with a generator that always gives the same.
#[test]
fn garbage_never_panics() {
    let good = include_str!("tests/all.yaml").as_bytes();
    let json = br#"{"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"containers": [{"ports": [{"containerPort": 80}]}]}}]}"#;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for round in 0..2_000 {
        let source: &[u8] = if round % 2 == 0 { good } else { json };
        let start = next(source.len());
        let mut bytes = source[start..(start + 1 + next(400)).min(source.len())].to_vec();
        for _ in 0..next(6) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = u8::try_from(next(256)).unwrap(),
                1 => bytes.insert(at, b"{}[]:-\n\"'&*!|>%\0\xff"[next(17)]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let file = ["x.json", "x.yaml", "y"][next(3)];
        let contents = objects([(file, bytes.as_slice())]);
        let _ = contents.problems.iter().map(ToString::to_string).collect::<String>();
        let path = ["processes", "files/x", "pods/a_b/nft.json", "pods/_/x", "ipset.save"][next(5)];
        let files = BTreeMap::from([
            ("nodes/n/iptables-save".to_owned(), bytes.clone()),
            (format!("nodes/n/{path}"), bytes),
        ]);
        assert_eq!(capture(&files).unwrap().nodes.len(), 1);
    }
}
