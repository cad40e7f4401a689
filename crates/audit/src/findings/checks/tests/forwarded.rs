//! Clients told at layer 7. ingress-nginx's defaults: docs/user-guide/nginx-configuration of its
//! repository (`use-forwarded-headers` and `use-proxy-protocol` are false).

use super::*;
use crate::{Cause, Confidence};

const SERVICE: &str = "kind: Service\n\
    metadata: {name: ingress-nginx-controller, namespace: ingress, labels: {app.kubernetes.io/name: ingress-nginx}}\n\
    spec: {type: LoadBalancer, selector: {app.kubernetes.io/name: ingress-nginx}, ports: [{port: 80}]}\n---\n";
const CONTROLLER: &str = "kind: Deployment\nmetadata: {name: c, namespace: ingress}\n\
    spec: {template: {metadata: {labels: {app.kubernetes.io/name: ingress-nginx}}, spec: {containers: [\
    {name: controller, args: [/nginx-ingress-controller, --configmap=$(POD_NAMESPACE)/settings]}]}}}\n---\n";
const LINE: &str =
    "preserved: [{from: [outside], to: [service/ingress/ingress-nginx-controller], told-by: ";

fn told(objects: &str, by: &str) -> Vec<Finding> {
    let all = found(&cluster(objects, &[]), &format!("{LINE}{by}}}]"));
    all.into_iter().filter(|one| one.id == FindingId::ForwardedForUntrusted).collect()
}

fn map(data: &str) -> String {
    format!(
        "kind: ConfigMap\nmetadata: {{name: settings, namespace: ingress}}\ndata: {{{data}}}\n---\n"
    )
}

#[test]
fn a_config_map_that_says_otherwise() {
    let objects = format!("{SERVICE}{CONTROLLER}{}", map("use-forwarded-headers: 'false'"));
    let [found] = &told(&objects, "forwarded-for")[..] else { panic!() };
    assert_eq!((found.severity, found.confidence), (Severity::Error, Confidence::Certain));
    assert!(
        found.breaks[0].starts_with(
            "x.yaml:2: ingress/ingress-nginx-controller must learn clients by X-Forwarded-For"
        ),
        "{:?}",
        found.breaks
    );
    let Cause { setting, place, .. } = &found.cause;
    assert_eq!(setting.as_deref(), Some("use-forwarded-headers: false"));
    assert_eq!(place.as_deref(), Some("ConfigMap ingress/settings, use-forwarded-headers"));
    let expected = Action::Patch {
        resource: "configmap".to_owned(),
        namespace: Some("ingress".to_owned()),
        name: "settings".to_owned(),
        patch: r#"{"data":{"use-forwarded-headers":"true"}}"#.to_owned(),
        undo: Some(r#"{"data":{"use-forwarded-headers":"false"}}"#.to_owned()),
    };
    assert_eq!(found.remedies[0].steps[0].action, expected);
    assert_eq!(found.remedies[0].steps.len(), 2);
}

/// The Services of admission and metrics lead to the same pods, and no client calls them.
#[test]
fn a_line_for_a_namespace_is_about_services_that_clients_can_call() {
    let admission = SERVICE
        .replace("name: ingress-nginx-controller,", "name: admission,")
        .replace("type: LoadBalancer", "type: ClusterIP");
    assert_ne!(admission, SERVICE);
    let objects = format!("{SERVICE}{admission}{CONTROLLER}{}", map(""));
    let lines = "preserved: [{from: [outside], to: [service/ingress/*], told-by: proxy-protocol}]";
    let all = found(&cluster(&objects, &[]), lines);
    let subjects: Vec<&str> =
        of(&all, FindingId::ForwardedForUntrusted).iter().map(|one| &*one.subject).collect();
    assert_eq!(subjects, ["ingress/ingress-nginx-controller, PROXY protocol"]);
}

#[test]
fn what_is_said_and_the_other_thing() {
    let objects = format!("{SERVICE}{CONTROLLER}{}", map("use-forwarded-headers: 'true'"));
    assert_eq!(told(&objects, "forwarded-for").len(), 0);
    let [found] = &told(&objects, "proxy-protocol")[..] else { panic!() };
    assert!(found.remedies[0].steps[1].text.contains("at the same time"));
}

#[test]
fn without_the_config_map_the_default_counts() {
    let [found] = &told(&format!("{SERVICE}{CONTROLLER}"), "forwarded-for")[..] else { panic!() };
    assert_eq!((found.severity, found.confidence), (Severity::Error, Confidence::Likely));
    // A Service of something else isn't judged.
    let other = SERVICE.replace("app.kubernetes.io/name: ingress-nginx", "app: web");
    assert_eq!(told(&other, "forwarded-for").len(), 0);
}

#[test]
fn traefik_by_its_arguments() {
    let service = SERVICE.replace("name: ingress-nginx}", "name: traefik}");
    let controller = CONTROLLER.replace("name: ingress-nginx}", "name: traefik}");
    let objects = format!("{service}{controller}");
    let [found] = &told(&objects, "proxy-protocol")[..] else { panic!() };
    assert_eq!(found.confidence, Confidence::Likely);
    // The workload is the one that the Service's pods are of, whatever its kind and name.
    let says = |found: &Finding, whose: &str| {
        let step = &found.remedies[0].steps[0];
        assert!(step.text.contains(&format!("an argument of {whose}")), "{step:?}");
    };
    says(found, "deployment/c in ingress;");
    for kind in ["StatefulSet", "DaemonSet"] {
        let objects = objects.replace("kind: Deployment", &format!("kind: {kind}"));
        let expected = format!("{}/c in ingress;", kind.to_lowercase());
        says(&told(&objects, "proxy-protocol")[0], &expected);
    }
    let pod = "kind: Pod\nmetadata: {name: p, namespace: ingress, \
        labels: {app.kubernetes.io/name: traefik}}\nspec: {containers: [{args: [traefik]}]}\n---\n";
    let alone = told(&format!("{service}{pod}"), "proxy-protocol");
    says(&alone[0], "Traefik's workload in ingress, which was not seen;");
    let trusting = objects.replace(
        "--configmap=$(POD_NAMESPACE)/settings",
        "--entrypoints.web.proxyprotocol.trustedips=10.0.0.80",
    );
    assert_eq!(told(&trusting, "proxy-protocol").len(), 0);
    assert_eq!(told(&trusting, "forwarded-for").len(), 1);
}
