//! Who gets which endpoints. What is expected follows from the table of Kubernetes' traffic
//! policies (KEP-1669 for terminating endpoints, KEP-2433 and KEP-3015 for hints).

use serde_json::{Value, json};

use super::*;
use crate::kube_proxy::{Config, Mode};

/// A Service whose endpoints are `10.1.0.1` and so on, on nodes `n1`, `n2`, …; the first is ours.
fn port(spec: Value, endpoints: &[Value], check: impl FnOnce(&ServicePort<'_>)) {
    let mut spec = spec;
    spec["clusterIP"] = json!("10.96.0.1");
    spec["ports"] = json!([{"port": 80, "nodePort": spec["nodePort"]}]);
    let mut endpoints = endpoints.to_vec();
    for (index, endpoint) in endpoints.iter_mut().enumerate() {
        endpoint["addresses"] = json!([format!("10.1.0.{}", index + 1)]);
        let node = format!("n{}", index + 1);
        endpoint["nodeName"] = endpoint.get("nodeName").cloned().unwrap_or(json!(node));
    }
    let mut objects = Objects::default();
    for object in [
        json!({"kind": "Service", "metadata": {"name": "web"}, "spec": spec}),
        json!({"kind": "EndpointSlice", "addressType": "IPv4",
               "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
               "endpoints": endpoints, "ports": [{"port": 8080}]}),
        json!({"kind": "Node", "metadata":
               {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}}}),
    ] {
        objects.add(&object).unwrap();
    }
    let config = Config::new(Mode::Iptables, "n1");
    let ports = of(&objects, &Proxy::new(&objects, &config, Family::V4));
    assert_eq!(ports.len(), 1);
    check(&ports[0]);
}

fn hosts<'a>(endpoints: impl Iterator<Item = &'a Endpoint<'a>>) -> String {
    let hosts: Vec<_> =
        endpoints.map(|found| found.address.ip().to_string().replace("10.1.0.", "")).collect();
    hosts.join(" ")
}

const READY: &str = r#"{}"#;
const UNREADY: &str = r#"{"conditions": {"ready": false, "serving": false}}"#;
const LEAVING: &str = r#"{"conditions": {"ready": false, "serving": true, "terminating": true}}"#;
const GONE: &str = r#"{"conditions": {"ready": false, "serving": false, "terminating": true}}"#;

#[test]
fn ready_endpoints_first_then_those_that_still_serve() {
    let local = json!({"internalTrafficPolicy": "Local"});
    let cluster = json!({});
    for (spec, endpoints, expected, refusal) in [
        (&cluster, [READY, READY, UNREADY], "1 2", None),
        (&cluster, [LEAVING, READY, UNREADY], "2", None),
        (&cluster, [LEAVING, LEAVING, GONE], "1 2", None),
        (&cluster, [UNREADY, UNREADY, GONE], "", Some(Refusal::Reject)),
        (&local, [READY, READY, READY], "1", None),
        (&local, [LEAVING, READY, READY], "1", None),
        (&local, [UNREADY, READY, READY], "", Some(Refusal::Drop)),
        (&local, [UNREADY, LEAVING, GONE], "", Some(Refusal::Drop)),
        (&local, [UNREADY, UNREADY, GONE], "", Some(Refusal::Reject)),
    ] {
        let endpoints = endpoints.map(|text| serde_json::from_str(text).unwrap());
        port(spec.clone(), &endpoints, |port| {
            assert_eq!(hosts(port.reachable()), expected, "{spec} {endpoints:?}");
            assert_eq!(port.internal_refusal(), refusal, "{spec} {endpoints:?}");
        });
    }
}

#[test]
fn external_policy_local_short_circuits_to_all() {
    let spec = json!({"type": "NodePort", "nodePort": 30_001, "externalTrafficPolicy": "Local",
                      "internalTrafficPolicy": "Local"});
    let ready: Value = serde_json::from_str(READY).unwrap();
    let unready: Value = serde_json::from_str(UNREADY).unwrap();
    port(spec.clone(), &[ready.clone(), ready.clone()], |port| {
        assert_eq!((hosts(port.cluster()), hosts(port.local())), ("1 2".into(), "1".into()));
        assert_eq!(port.external_refusal(), None);
    });
    port(spec, &[unready, ready.clone()], |port| {
        assert_eq!((hosts(port.cluster()), hosts(port.local())), ("2".into(), String::new()));
        assert_eq!(port.external_refusal(), Some(Refusal::Drop));
        assert_eq!(port.internal_refusal(), Some(Refusal::Drop));
    });
    // Nothing from outside leads to it, so its policy doesn't matter.
    let spec = json!({"externalTrafficPolicy": "Local"});
    port(spec, &[ready.clone(), ready], |port| {
        assert_eq!((hosts(port.cluster()), hosts(port.local())), ("1 2".into(), String::new()));
        assert_eq!(port.external_refusal(), None);
    });
}

#[test]
fn hints_choose_if_every_ready_endpoint_has_one_and_one_is_for_us() {
    let hints = |nodes: Option<&str>, zones: Option<&str>| {
        let list = |names: Option<&str>| names.map(|name| json!([{"name": name}]));
        json!({"hints": {"forNodes": list(nodes), "forZones": list(zones)}})
    };
    let mut unready = hints(None, None);
    unready["conditions"] = json!({"ready": false});
    for (first, second, expected) in [
        (hints(Some("n1"), Some("z1")), hints(Some("n2"), Some("z1")), "1"),
        (hints(Some("n3"), Some("z1")), hints(Some("n2"), Some("z2")), "1"),
        (hints(None, Some("z1")), hints(Some("n1"), Some("z2")), "1"),
        (hints(None, Some("z3")), hints(None, Some("z2")), "1 2"),
        (hints(Some("n1"), None), hints(None, Some("z1")), "1 2"),
        (hints(Some("n1"), None), unready, "1"),
    ] {
        let endpoints = [first, second];
        port(json!({}), &endpoints, |port| {
            assert_eq!(hosts(port.cluster()), expected, "{endpoints:?}");
        });
    }
    // Policy Local doesn't look at them.
    let endpoints = [hints(Some("n2"), None), hints(Some("n2"), None)];
    port(json!({"internalTrafficPolicy": "Local"}), &endpoints, |port| {
        assert_eq!(hosts(port.local()), "1");
    });
}

#[test]
fn the_same_endpoint_in_two_slices_is_one() {
    let slice = |name: &str, node: Value| {
        json!({"kind": "EndpointSlice", "addressType": "IPv4",
               "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}},
               "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": node}],
               "ports": [{"port": 8080}]})
    };
    let mut objects = Objects::default();
    objects.add(&slice("a", json!("n1"))).unwrap();
    objects.add(&slice("b", Value::Null)).unwrap();
    objects
        .add(&json!({"kind": "Service", "metadata": {"name": "web"},
                    "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}}))
        .unwrap();
    let config = Config::new(Mode::Iptables, "n1");
    let ports = of(&objects, &Proxy::new(&objects, &config, Family::V4));
    assert_eq!(hosts(ports[0].cluster()), "1");
    assert!(ports[0].endpoints[0].local);
}

#[test]
fn some_services_are_not_proxied() {
    for service in [
        json!({"metadata": {"name": "headless"}, "spec": {"clusterIP": "None"}}),
        json!({"metadata": {"name": "name"}, "spec": {"type": "ExternalName",
               "clusterIP": "10.96.0.1"}}),
        json!({"metadata": {"name": "other", "labels":
                   {"service.kubernetes.io/service-proxy-name": "x"}},
               "spec": {"clusterIP": "10.96.0.1"}}),
        json!({"metadata": {"name": "v6"}, "spec": {"clusterIP": "fd00::1"}}),
    ] {
        let mut service = service;
        service["kind"] = json!("Service");
        service["spec"]["ports"] = json!([{"port": 80}]);
        let mut objects = Objects::default();
        objects.add(&service).unwrap();
        let config = Config::new(Mode::Iptables, "n1");
        let ports = of(&objects, &Proxy::new(&objects, &config, Family::V4));
        assert!(ports.is_empty(), "{ports:?}");
    }
}
