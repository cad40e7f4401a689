use serde_json::Value;

use super::super::*;

const SCHEMA_TEXT: &str = include_str!("../../../../../schemas/expect.v1.json");
const GUIDE: &str = include_str!("../../../../../docs/expectations.md");

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn with(lines: &str) -> String {
    format!("schema: unmasq.expect/v1\n{lines}")
}

#[test]
fn everything_is_read() {
    let text = with(
        "
preserved:
  - name: customers of the shop
    from: [outside, 198.51.100.0/24, 2001:db8:7::9]
    to: [service/shop/web, service/bank/*, services, pods, nodes, internet, 10.200.7.7/16]
    entries: [cluster-ip, node-port, load-balancer, external-ip]
    families: [ipv4, ipv6]
    told-by: proxy-protocol
  - {from: [nodes], to: [pods], told-by: forwarded-for}
translated:
  - {from: [pods], to: [internet]}
outside:
  load-balancers: [{services: [shop/web, bank/*], health-checks: false}]
  gateways: [{knows-pods: [10.42.0.0/16], masquerades: [192.168.10.0/24]}]
",
    );
    let found = parse(&text, "x.yaml").unwrap();
    let service = |namespace: &str, name: Option<&str>| Destination::Service {
        namespace: namespace.to_owned(),
        name: name.map(ToOwned::to_owned),
    };
    let shop = Flow {
        name: Some("customers of the shop".to_owned()),
        line: 4,
        from: vec![
            Source::Outside,
            Source::Network(net("198.51.100.0/24")),
            Source::Network(net("2001:db8:7::9/128")),
        ],
        to: vec![
            service("shop", Some("web")),
            service("bank", None),
            Destination::Services,
            Destination::Pods,
            Destination::Nodes,
            Destination::Internet,
            Destination::Network(net("10.200.0.0/16")),
        ],
        entries: vec![Entry::ClusterIp, Entry::NodePort, Entry::LoadBalancer, Entry::ExternalIp],
        families: vec![Family::V4, Family::V6],
        told_by: Some(ToldBy::ProxyProtocol),
    };
    let flow = |line, from, to, told_by| Flow {
        name: None,
        line,
        from: vec![from],
        to: vec![to],
        entries: Vec::new(),
        families: Vec::new(),
        told_by,
    };
    let nodes = flow(10, Source::Nodes, Destination::Pods, Some(ToldBy::ForwardedFor));
    assert_eq!(found.preserved, [shop, nodes]);
    assert_eq!(found.translated, [flow(12, Source::Pods, Destination::Internet, None)]);
    let named = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    let balanced = vec![named("shop", "web"), named("bank", "*")];
    assert_eq!(
        found.load_balancers,
        [LoadBalancer { line: 14, services: balanced, health_checks: Some(false) }]
    );
    let (knows_pods, masquerades) = (vec![net("10.42.0.0/16")], vec![net("192.168.10.0/24")]);
    assert_eq!(found.gateways, [Gateway { knows_pods, masquerades }]);
    assert_eq!(found.callers(), [net("198.51.100.0/24"), net("2001:db8:7::9/128")]);
    assert_eq!(found.destinations(), [net("10.200.0.0/16")]);
    assert_eq!(found.place(&found.preserved[0]), "x.yaml:4 (customers of the shop)");
}

#[test]
fn what_gateways_do_must_hold_for_all_of_them() {
    let text = with(
        "outside:
  gateways:
    - {knows-pods: [10.42.0.0/17, 10.42.128.0/17], masquerades: [10.42.0.0/16]}
    - {knows-pods: [10.0.0.0/8]}
",
    );
    let found = parse(&text, "x.yaml").unwrap();
    assert_eq!(found.gateways_know(net("10.42.0.0/16")), Some(true));
    assert_eq!(found.gateways_know(net("10.43.0.0/16")), Some(false));
    assert_eq!(found.gateways_masquerade(net("10.42.0.0/16")), Some(false));
    assert_eq!(Expectations::default().gateways_know(net("10.42.0.0/16")), None);
}

/// Documents without the schema's line, and what is said of those that are refused.
const DOCUMENTS: &[(&str, Result<(), &str>)] = &[
    ("", Ok(())),
    ("preserved:\ntranslated:\noutside:\n", Ok(())),
    ("preserved: []\n", Ok(())),
    ("preserved: [{from: [outside], to: [services]}]", Ok(())),
    ("preserved: [{from: [10.0.0.1], to: ['fd00::/8']}]", Ok(())),
    ("preserved: [{name: null, from: [pods], to: [pods], told-by: null}]", Ok(())),
    ("outside: {load-balancers: [{services: [a/b]}], gateways: [{}]}", Ok(())),
    (
        "preserve: []",
        Err(
            "x.yaml:2:1: there is no field preserve here; did you mean preserved? There are schema, preserved, translated, outside",
        ),
    ),
    (
        "preserved:\n  - from: [outside]\n    too: [services]\n",
        Err(
            "x.yaml:4:5: there is no field too here; did you mean to? There are name, from, to, entries, families, told-by",
        ),
    ),
    (
        "preserved: [{from: [outside]}]",
        Err("x.yaml:2:14: the field to is missing, such as to: [service/shop/web]"),
    ),
    (
        "preserved: [{to: [pods]}]",
        Err("x.yaml:2:14: the field from is missing, such as from: [outside, 192.0.2.0/24]"),
    ),
    (
        "preserved:\n- from: []\n  to: [pods]\n",
        Err("x.yaml:3:9: an empty list: name something, or leave the field out"),
    ),
    (
        "preserved: [{from: [pods], to: [services], entries: []}]",
        Err("x.yaml:2:53: an empty list: name something, or leave the field out"),
    ),
    (
        "preserved:\n  - from:\n      - outside\n      - customers\n    to: [pods]\n",
        Err(
            "x.yaml:5:9: customers is nobody who calls: write outside, pods, nodes or a network like 192.0.2.0/24",
        ),
    ),
    (
        "translated: [{from: [pods], to: [Internet]}]",
        Err(
            "x.yaml:2:34: Internet is nobody who is called (did you mean internet?): write service/NAMESPACE/NAME, services, pods, nodes, internet or a network like 10.200.0.0/16",
        ),
    ),
    (
        "preserved: [{from: [pods], to: [service/web]}]",
        Err("x.yaml:2:33: service/web is no Service: write service/NAMESPACE/NAME"),
    ),
    (
        "preserved: [{from: [pods], to: [services], entries: [ingress]}]",
        Err(
            "x.yaml:2:54: ingress isn't known here; there are cluster-ip, node-port, load-balancer, external-ip",
        ),
    ),
    (
        "preserved: [{from: [pods], to: [services], families: [IPv4]}]",
        Err("x.yaml:2:55: IPv4 isn't known here; did you mean ipv4? There are ipv4, ipv6"),
    ),
    (
        "preserved: [{from: [pods], to: [pods], entries: [node-port]}]",
        Err("x.yaml:2: entries are those of Services, and to names none"),
    ),
    (
        "translated: [{from: [pods], to: [pods], told-by: forwarded-for}]",
        Err("x.yaml:2: told-by is for preserved, not for translated"),
    ),
    (
        "outside: {load-balancers: [{services: [web]}]}",
        Err("x.yaml:2:40: web is no Service: write NAMESPACE/NAME"),
    ),
    (
        "outside:\n  gateways:\n    - knows-pods: [pods]\n",
        Err("x.yaml:4:20: pods is no network: write one like 192.0.2.0/24"),
    ),
    (
        "outside: {gateway: []}",
        Err(
            "x.yaml:2:11: there is no field gateway here; did you mean gateways? There are load-balancers, gateways",
        ),
    ),
];

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(SCHEMA_TEXT).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    assert_eq!(schema["properties"]["schema"]["const"], SCHEMA);
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn the_reader_and_the_schema_take_and_refuse_the_same() {
    let validator = validator();
    for (lines, expected) in DOCUMENTS {
        let text = with(lines);
        let read = parse(&text, "x.yaml").map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(read, expected.map_err(ToOwned::to_owned), "{lines}");
        let document: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(validator.is_valid(&document), expected.is_ok(), "{lines}");
        // JSON is YAML.
        assert_eq!(parse(&document.to_string(), "x").is_ok(), expected.is_ok(), "{lines}");
    }
}

#[test]
fn another_schema_and_no_schema() {
    let validator = validator();
    for (text, expected) in [
        (
            "preserved: []",
            "x.yaml:1:1: the field schema is missing, such as schema: unmasq.expect/v1",
        ),
        (
            "\nschema: unmasq.expect/v2",
            "x.yaml:2: the schema is unmasq.expect/v1, not unmasq.expect/v2",
        ),
    ] {
        assert_eq!(parse(text, "x.yaml").unwrap_err().to_string(), expected);
        let document: Value = serde_saphyr::from_str(text).unwrap();
        assert!(!validator.is_valid(&document), "{text}");
    }
    for text in ["", "- a", "schema: [", "{"] {
        assert!(parse(text, "x.yaml").unwrap_err().to_string().starts_with("x.yaml"), "{text}");
    }
}

#[test]
fn the_guide_is_true() {
    let validator = validator();
    let mut blocks = GUIDE.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let whole = blocks.next().unwrap();
    let mut count = 0;
    for block in [whole].into_iter().chain(blocks) {
        let text = if block.contains("schema:") { block.to_owned() } else { with(block) };
        parse(&text, "docs/expectations.md").unwrap_or_else(|error| panic!("{error}\n{block}"));
        let document: Value = serde_saphyr::from_str(&text).unwrap();
        assert!(validator.is_valid(&document), "{block}");
        count += 1;
    }
    assert!(count > 3, "{count} examples");
    // Every word of the format is explained.
    for word in [
        "preserved",
        "translated",
        "outside",
        "name",
        "from",
        "to",
        "entries",
        "families",
        "told-by",
        "pods",
        "nodes",
        "services",
        "internet",
        "service/NAMESPACE/NAME",
        "service/NAMESPACE/*",
        "cluster-ip",
        "node-port",
        "load-balancer",
        "external-ip",
        "ipv4",
        "ipv6",
        "proxy-protocol",
        "forwarded-for",
        "load-balancers",
        "health-checks",
        "gateways",
        "knows-pods",
        "masquerades",
    ] {
        assert!(GUIDE.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn what_yaml_says_is_told_in_words_with_the_place_and_an_example() {
    for (lines, expected) in [
        (
            "preserved:\n  - from: outside\n    to: [services]\n",
            "x.yaml:3:11: a list is expected here, such as from: [outside, 192.0.2.0/24]",
        ),
        (
            "preserved:\n  from: [outside]\n  to: [services]\n",
            "x.yaml:3:3: a list is expected here, such as from: [outside, 192.0.2.0/24]",
        ),
        (
            "preserved:\n  - outside\n",
            "x.yaml:3:5: fields are expected here, as NAME: VALUE, such as preserved: [{from: \
             [outside], to: [services]}]",
        ),
        (
            "preserved:\n\t- from: [outside]\n",
            "x.yaml:3:2: a tab is no indentation in YAML: write spaces, such as from: [outside, \
             192.0.2.0/24]",
        ),
        (
            "preserved:\n  - from: [outside\n    to: [services]\n",
            "x.yaml:4:7: a bracket or a quote before this is not closed, such as to: \
             [service/shop/web]",
        ),
        (
            "outside:\n  load-balancers:\n    - services: [a/b]\n      health-checks: maybe\n",
            "x.yaml:5:22: true or false is expected here, such as health-checks: true",
        ),
        (
            "preserved:\n  - from: [pods]\n    to: [pods]\n    to: [nodes]\n",
            "x.yaml:5:5: to was said before: say it once",
        ),
    ] {
        assert_eq!(parse(&with(lines), "x.yaml").unwrap_err().to_string(), expected, "{lines}");
    }
    let empty = parse("", "x.yaml").unwrap_err().to_string();
    assert!(empty.ends_with("the first line is schema: unmasq.expect/v1"), "{empty}");
}

#[test]
fn other_spellings_mean_the_same() {
    let usual = "preserved: [{from: [pods, nodes], to: [service/a/b, pods, nodes], entries: \
                 [node-port, load-balancer, cluster-ip, external-ip]}]";
    let other = "preserved: [{from: [pod, node], to: [svc/a/b, pod, node], entries: [nodeport, lb, \
                 clusterip, externalip]}]";
    assert_eq!(parse(&with(usual), "x").unwrap(), parse(&with(other), "x").unwrap());
    let document: Value = serde_saphyr::from_str(&with(other)).unwrap();
    assert!(validator().is_valid(&document));
}
