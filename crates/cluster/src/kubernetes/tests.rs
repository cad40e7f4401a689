//! Objects are read as the API server means them; errors name the object and the field.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;
use unmasq_model::packet::Family;

use super::*;

fn read(document: Value) -> Result<Objects, Error> {
    let mut objects = Objects::default();
    objects.add(&document).map(|()| objects)
}

fn error(document: Value) -> String {
    read(document).unwrap_err().to_string()
}

fn service(spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"}, "spec": spec,
    })
}

#[test]
fn a_service_is_read() {
    let objects = read(json!({"kind": "List", "apiVersion": "v1", "items": [{
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "uid": "x", "labels": null},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
            "ports": [
                {"name": "http", "port": 80, "targetPort": "www", "nodePort": 30081},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
            ],
            "externalIPs": ["203.0.113.5"],
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 77}},
            "loadBalancerSourceRanges": [" 192.0.2.9/24"],
            "healthCheckNodePort": 30082,
            "trafficDistribution": "PreferClose",
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "198.51.100.3", "ipMode": "Proxy"}, {"hostname": "lb.example"}]}},
    }]}))
    .unwrap();
    let [service] = &objects.services[..] else { panic!("{objects:?}") };
    assert_eq!(service.metadata.namespace, "default");
    assert_eq!(service.spec.kind, ServiceType::LoadBalancer);
    assert_eq!(service.cluster_ip(Family::V4), Some("10.96.0.7".parse().unwrap()));
    assert_eq!(service.cluster_ip(Family::V6), Some("fd00:96::7".parse().unwrap()));
    let [http, dns] = &service.spec.ports[..] else { panic!("{service:?}") };
    assert_eq!((http.protocol, http.port, http.node_port), (Protocol::Tcp, 80, Some(30081)));
    assert_eq!(http.target_port, Some(TargetPort::Name("www".into())));
    assert_eq!((dns.protocol, dns.port, dns.node_port), (Protocol::Udp, 53, None));
    assert_eq!(dns.target_port, Some(TargetPort::Number(5353)));
    assert_eq!(service.spec.external_ips, ["203.0.113.5".parse::<IpAddr>().unwrap()]);
    assert_eq!(service.spec.external_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.spec.internal_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.affinity_seconds(), Some(77));
    let range: IpNet = "192.0.2.0/24".parse().unwrap();
    assert_eq!(service.spec.load_balancer_source_ranges, [range]);
    assert_eq!(service.spec.health_check_node_port, Some(30082));
    let [address, name] = &service.status.load_balancer.ingress[..] else { panic!() };
    assert_eq!(address.ip_mode, IpMode::Proxy);
    assert_eq!((name.ip, name.ip_mode), (None, IpMode::Vip));
}

#[test]
fn a_headless_service_has_no_cluster_ip() {
    let objects = read(service(json!({"clusterIP": "None", "clusterIPs": ["None"]}))).unwrap();
    assert_eq!(objects.services[0].cluster_ip(Family::V4), None);
    assert_eq!(objects.services[0].affinity_seconds(), None);
}

#[test]
fn a_slice_and_a_node_are_read() {
    let objects = read(json!({"kind": "List", "items": [
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
         "metadata": {"name": "web-1", "namespace": "shop",
                      "labels": {"kubernetes.io/service-name": "web"}},
         "addressType": "IPv6",
         "endpoints": [{"addresses": ["fd00::5"], "conditions": {"ready": false},
                        "nodeName": "n7", "hints": {"forZones": [{"name": "z3"}]}}],
         "ports": [{"name": null, "port": 8080, "protocol": "SCTP"}]},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
         "metadata": {"name": "names", "namespace": "shop"},
         "addressType": "FQDN", "endpoints": [{"addresses": ["web.example"]}], "ports": null},
        {"apiVersion": "v1", "kind": "Node",
         "metadata": {"name": "n7", "labels": {"topology.kubernetes.io/zone": "z3"}},
         "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]},
         "status": {"addresses": [
            {"type": "Hostname", "address": "n7"},
            {"type": "ExternalIP", "address": "203.0.113.7"},
            {"type": "ExternalIP", "address": "2001:db8::7"},
            {"type": "InternalIP", "address": "10.0.0.7"}]}},
        {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {}},
        {"apiVersion": "v1", "kind": "Secret"},
    ]}))
    .unwrap();
    assert!(objects.services.is_empty());
    let [slice] = &objects.endpoint_slices[..] else { panic!("{objects:?}") };
    assert_eq!(slice.service(), Some("web"));
    assert_eq!(Family::from(slice.address_type), Family::V6);
    let endpoint = &slice.endpoints[0];
    assert_eq!((endpoint.conditions.ready, endpoint.conditions.serving), (Some(false), None));
    assert_eq!(endpoint.node_name.as_deref(), Some("n7"));
    assert_eq!(endpoint.hints.for_zones[0].name, "z3");
    let port = &slice.ports[0];
    assert_eq!((port.name.as_str(), port.protocol, port.port), ("", Protocol::Sctp, Some(8080)));
    let node = objects.node("n7").unwrap();
    assert_eq!(node.ip(Family::V4), Some("10.0.0.7".parse().unwrap()));
    assert_eq!(node.ip(Family::V6), Some("2001:db8::7".parse().unwrap()));
    assert_eq!(node.zone(), Some("z3"));
    assert_eq!(node.spec.pod_cidrs.len(), 2);
}

#[test]
fn lists_of_the_api_server_are_read() {
    let item = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.7"}});
    let objects = read(json!({"kind": "ServiceList", "items": [item]})).unwrap();
    assert_eq!(objects.services.len(), 1);
    assert_eq!(read(json!({"kind": "NodeList", "items": null})).unwrap(), Objects::default());
}

#[test]
fn an_error_names_the_object_and_the_field() {
    for (spec, expected) in [
        (json!({"ports": [{"port": 80}, {"port": 70_000}]}), "spec.ports[1].port: "),
        (json!({"ports": [{"name": "a"}]}), "spec.ports[0]: missing field `port`"),
        (json!({"ports": [{"port": 1, "protocol": "ICMP"}]}), "spec.ports[0].protocol: "),
        (json!({"clusterIPs": ["10.96.0.300"]}), "spec.clusterIPs: \"10.96.0.300\": "),
        (json!({"externalIPs": ["10.0.0.1", "x"]}), "spec.externalIPs[1]: "),
        (json!({"loadBalancerSourceRanges": ["10.0.0.0"]}), "spec.loadBalancerSourceRanges: "),
        (json!({"type": "Nodeport"}), "spec.type: "),
    ] {
        let error = error(service(spec));
        assert!(error.starts_with(&format!("Service shop/web: {expected}")), "{error}");
    }
    assert_eq!(error(json!({"metadata": {}})), "an object without a kind");
    assert!(error(json!({"kind": "List", "items": 5})).starts_with("this is no JSON: "));
    let error = error(json!({"kind": "Service", "metadata": {}}));
    assert_eq!(error, "Service without a name: metadata: missing field `name`");
}

/// A kind may end in `List` and be none; a list of nothing may leave out its items.
#[test]
fn an_object_whose_kind_ends_in_list_is_no_list() {
    let mut objects = Objects::default();
    let text = r#"{"kind": "List", "items": [
        {"kind": "AllowList", "apiVersion": "x.io/v1", "metadata": {"name": "a"}, "spec": {}},
        {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": null}]}"#;
    objects.add_json(text).unwrap();
    assert_eq!(objects.others, BTreeMap::from([("AllowList.x.io".to_owned(), 1)]));
}
