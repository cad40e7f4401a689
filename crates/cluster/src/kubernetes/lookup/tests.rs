//! What the index gives is what looking at every object gives, and it looks at few.

use serde_json::{Value, json};

use super::*;

fn objects(items: &[Value]) -> Objects {
    let mut objects = Objects::default();
    items.iter().for_each(|one| objects.add(one).unwrap());
    objects
}

fn pod(namespace: &str, name: &str, labels: Value, address: &str) -> Value {
    json!({"kind": "Pod", "metadata": {"namespace": namespace, "name": name, "labels": labels},
           "status": {"podIP": address}})
}

fn service(namespace: &str, name: &str, selector: Value) -> Value {
    json!({"kind": "Service", "metadata": {"namespace": namespace, "name": name},
           "spec": {"selector": selector}})
}

fn slice(namespace: &str, service: &str, name: &str, endpoint: Value) -> Value {
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
           "metadata": {"namespace": namespace, "name": name,
                        "labels": {"kubernetes.io/service-name": service}},
           "endpoints": [endpoint]})
}

fn shops() -> Objects {
    objects(&[
        pod("shop", "w1", json!({"app": "web", "tier": "front", "zone": "a"}), "10.0.0.1"),
        pod("shop", "d1", json!({"app": "db", "tier": "back"}), "10.0.0.2"),
        pod("shop", "w2", json!({"app": "web", "tier": "back"}), "10.0.0.3"),
        pod("shop", "bare", json!({}), "10.0.0.4"),
        pod("mall", "w1", json!({"app": "web", "tier": "front"}), "10.0.0.5"),
        service("shop", "db", json!({"app": "db", "tier": "back"})),
        service("shop", "web", json!({"app": "web"})),
        service("mall", "web", json!({"app": "web"})),
        service("shop", "none", json!({})),
        service("shop", "by-hand", json!({})),
        slice("shop", "by-hand", "by-hand-1", json!({"addresses": ["10.0.0.4"]})),
        slice("mall", "by-hand", "by-hand-2", json!({"addresses": ["10.0.0.1"]})),
        slice(
            "shop",
            "none",
            "none-1",
            json!({"addresses": ["10.0.0.9"],
              "conditions": {"ready": false}}),
        ),
        slice(
            "shop",
            "db",
            "db-1",
            json!({"addresses": ["10.0.0.2"],
              "conditions": {"ready": false, "serving": true}}),
        ),
    ])
}

/// The pods that each selector means, as all conditions by hand say: labels and all operators, one
/// by one and together.
#[test]
fn pods_by_selectors() {
    let objects = shops();
    let lookup = Lookup::new(&objects);
    let expression = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
    let web = expression("app", "In", &["web", "db", "web"]);
    for (selector, expected) in [
        (json!({}), &["w1", "d1", "w2", "bare"][..]),
        (json!({"matchLabels": {"app": "web"}}), &["w1", "w2"]),
        (json!({"matchLabels": {"app": "web", "tier": "back"}}), &["w2"]),
        (json!({"matchLabels": {"app": "web", "zone": "b"}}), &[]),
        (json!({"matchExpressions": [web]}), &["w1", "d1", "w2"]),
        (json!({"matchExpressions": [expression("app", "NotIn", &["web"])]}), &["d1", "bare"]),
        (json!({"matchExpressions": [expression("zone", "Exists", &[])]}), &["w1"]),
        (json!({"matchExpressions": [expression("app", "DoesNotExist", &[])]}), &["bare"]),
        (
            json!({"matchLabels": {"tier": "back"}, "matchExpressions": [
                expression("app", "In", &["web"]), expression("zone", "DoesNotExist", &[])]}),
            &["w2"],
        ),
        (json!({"matchExpressions": [expression("app", "In", &["no", "such"])]}), &[]),
    ] {
        let read: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
        let found: Vec<&str> =
            lookup.pods_of("shop", &read).map(|pod| &*pod.metadata.name).collect();
        assert_eq!(found, expected, "{selector}");
        assert_eq!(lookup.pods_of("other", &read).count(), 0, "{selector}");
    }
}

#[test]
fn what_belongs_to_a_service() {
    let objects = shops();
    let lookup = Lookup::new(&objects);
    let of = |namespace: &str, name: &str| {
        let index = lookup.service(namespace, name).unwrap();
        let service = &objects.services[index as usize];
        let pods: Vec<&str> = lookup.pods_behind(service).map(|pod| &*pod.metadata.name).collect();
        let slices: Vec<&str> =
            lookup.slices_of(service).map(|slice| &*slice.metadata.name).collect();
        (pods, slices, lookup.has_endpoint(service))
    };
    assert_eq!(of("shop", "db"), (vec!["d1"], vec!["db-1"], Some(true)));
    assert_eq!(of("shop", "web"), (vec!["w1", "w2"], vec![], Some(false)));
    assert_eq!(of("mall", "web"), (vec!["w1"], vec![], Some(false)));
    assert_eq!(of("shop", "none"), (vec![], vec!["none-1"], Some(false)));
    assert_eq!(of("shop", "by-hand"), (vec![], vec!["by-hand-1"], Some(true)));
    assert_eq!(lookup.service("mall", "db"), None);
    let without = Objects { endpoint_slices: Vec::new(), ..objects.clone() };
    assert_eq!(Lookup::new(&without).has_endpoint(&objects.services[0]), None);
}

/// By their labels, and as endpoints that somebody wrote by hand.
#[test]
fn services_of_pods() {
    let objects = shops();
    let lookup = Lookup::new(&objects);
    let of = |numbers: &[usize]| -> Vec<u32> {
        lookup
            .services_of(numbers.iter().map(|number| &objects.pods[*number]))
            .into_iter()
            .collect()
    };
    assert_eq!(of(&[0]), [1]);
    assert_eq!(of(&[1]), [0]);
    assert_eq!(of(&[3]), [4]);
    assert_eq!(of(&[4]), [2]);
    assert_eq!(of(&[3, 2, 1]), [0, 1, 4]);
}

#[test]
fn workloads_of_all_kinds() {
    let workload = |kind: &str, name: &str| {
        json!({"kind": kind, "apiVersion": "apps/v1", "metadata": {"namespace": "shop", "name": name},
               "spec": {"template": {"metadata": {"labels": {"app": "web", "name": name}}}}})
    };
    let objects = objects(&[
        workload("StatefulSet", "s"),
        workload("DaemonSet", "d"),
        workload("Deployment", "b"),
        workload("Deployment", "a"),
        service("shop", "web", json!({"app": "web"})),
        service("shop", "one", json!({"app": "web", "name": "d"})),
        service("mall", "web", json!({"app": "web"})),
    ]);
    let lookup = Lookup::new(&objects);
    let of = |index: usize| -> Vec<(&str, &str)> {
        let found = lookup.workloads_of(&objects.services[index]);
        found.map(|(kind, one)| (kind, &*one.metadata.name)).collect()
    };
    let all = [("Deployment", "b"), ("Deployment", "a"), ("DaemonSet", "d"), ("StatefulSet", "s")];
    assert_eq!(of(0), all);
    assert_eq!(of(1), [("DaemonSet", "d")]);
    assert_eq!(of(2), []);
}

/// All have labels in common, as whatever one chart installs has: an answer still costs as much as
/// it has objects, however many there are.
#[test]
fn few_are_looked_at() {
    for size in [10, 1_000] {
        let labels = |number: u32| json!({"app": format!("a{number}"), "part-of": "shop"});
        let services = (0..size).map(|one| service("shop", &format!("s{one}"), labels(one)));
        let pods = (0..size).map(|one| pod("shop", &format!("p{one}"), labels(one), "10.0.0.1"));
        let objects = objects(&services.chain(pods).collect::<Vec<Value>>());
        let lookup = Lookup::new(&objects);
        for service in &objects.services {
            assert_eq!(lookup.pods.selected(service).len(), 1);
            let match_labels = service.spec.selector.clone();
            let selector = LabelSelector { match_labels, ..LabelSelector::default() };
            assert_eq!(lookup.pods.candidates("shop", &selector).len(), 1);
        }
        assert!(lookup.selectors.values().all(|services| services.len() == 1));
    }
}
