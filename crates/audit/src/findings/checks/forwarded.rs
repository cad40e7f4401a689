//! Clients told at layer 7: an expectation says how an ingress controller learns them, and its
//! settings say otherwise.
//!
//! In: lines of `expect.yaml` with `told-by`, Services, the settings of the controller behind them:
//! ingress-nginx's ConfigMap, Traefik's arguments. Out: findings of `forwarded-for-untrusted`, an
//! error each: the line is broken. Other controllers aren't judged, and neither is whether the
//! proxy in front does its part.

use unmasq_cluster::kubernetes::{ConfigMap, Service};

use super::super::Context;
use super::super::describe::{
    Described, command, literal, patch, patch_command, sentence, step, title, undone, unseen,
};
use super::finding;
use crate::dependent::{Config, Controller, config_of, containers, controller_of, is_external};
use crate::expect::{Destination, Flow, ToldBy};
use crate::{Affected, Cause, Confidence, Finding, FindingId, Owner, Remedy, Severity, Step};

pub(super) fn add(context: &Context<'_, '_>, findings: &mut Vec<Finding>) {
    for service in &context.cluster.objects.services {
        let Some(controller) = controller_of(context.lookup, service) else { continue };
        for told in [ToldBy::ForwardedFor, ToldBy::ProxyProtocol] {
            let lines = context.expectations.flows();
            let lines = lines.filter(|flow| flow.told_by == Some(told) && names(flow, service));
            let places: Vec<String> = lines.map(|flow| context.expectations.place(flow)).collect();
            if places.is_empty() {
                continue;
            }
            let described = match controller {
                Controller::IngressNginx => nginx(context, service, told),
                Controller::Traefik => traefik(context, service, told),
            };
            let Some(described) = described else { continue };
            let said = describe_told(told);
            let full = service.full_name();
            let setting = described.cause.setting.clone().unwrap_or_default();
            let breaks = places.iter().map(|place| {
                format!(
                    "{place}: {full} must learn clients by {said}, and it doesn't listen: {setting}"
                )
            });
            let mut found = finding(
                FindingId::ForwardedForUntrusted,
                format!("{full}, {said}"),
                Severity::Error,
                Owner::Unclaimed,
                described,
            );
            found.breaks = breaks.collect();
            found.affected = Affected {
                flows: vec![format!("clients by a proxy -> {full}")],
                services: vec![service.full_name()],
                ..Affected::default()
            };
            findings.push(found);
        }
    }
}

fn names(flow: &Flow, service: &Service) -> bool {
    flow.to.iter().any(|to| match to {
        Destination::Service { namespace, name } => {
            *namespace == service.metadata.namespace
                && match name {
                    Some(name) => *name == service.metadata.name,
                    // Of all in a namespace those that clients can call.
                    None => is_external(service),
                }
        }
        // A line for all Services isn't about one that is told in another way.
        Destination::Services
        | Destination::Pods
        | Destination::Nodes
        | Destination::Internet
        | Destination::Network(_) => false,
    })
}

fn describe_told(told: ToldBy) -> &'static str {
    match told {
        ToldBy::ProxyProtocol => "PROXY protocol",
        ToldBy::ForwardedFor => "X-Forwarded-For",
    }
}

/// Both settings are `false` without a word (internal/ingress/controller/config/config.go of
/// kubernetes/ingress-nginx).
fn nginx(context: &Context<'_, '_>, service: &Service, told: ToldBy) -> Option<Described> {
    let key = match told {
        ToldBy::ProxyProtocol => "use-proxy-protocol",
        ToldBy::ForwardedFor => "use-forwarded-headers",
    };
    let Config { namespace, name, map } = config_of(context.lookup, context.cluster, service);
    let value = map.and_then(|map| map.data.get(key));
    if value.is_some_and(|value| value == "true") {
        return None;
    }
    let namespace = &*namespace;
    let shown = value.map_or("\"false\", the default", |value| value.as_str());
    let full = service.full_name();
    let on = format!(r#"{{"data":{{"{key}":"true"}}}}"#);
    let before = value.map_or_else(|| "null".to_owned(), |value| serde_text(value));
    let off = format!(r#"{{"data":{{"{key}":{before}}}}}"#);
    let here = match &name {
        Some(name) => step(
            format!("ConfigMap {namespace}/{name}: it reloads by itself"),
            patch("configmap", Some(namespace), name, &on, map.is_some().then_some(off)),
        ),
        None => undone(
            "In the ConfigMap that the controller's argument --configmap names",
            [patch_command("configmap", Some(namespace), "NAME", &on)],
            [sentence(format!("{key} as it was."))],
        ),
    };
    let place = match &name {
        Some(name) => format!("ConfigMap {namespace}/{name}, {key}"),
        None => format!("ConfigMap of ingress-nginx in {namespace}, {key}"),
    };
    Some(Described {
        title: title(
            format!(
                "ingress-nginx behind {full} doesn't take clients from {}",
                describe_told(told)
            ),
            "ingress-nginx doesn't take clients from the proxy in front",
        ),
        confidence: if map.is_some() { Confidence::Certain } else { Confidence::Likely },
        cause: Cause {
            text: cause_text(
                told,
                &format!("ingress-nginx does so if {key} is \"true\"; it is {shown}"),
            ),
            setting: Some(format!("{key}: {shown}")),
            place: Some(place),
        },
        remedies: vec![remedy(
            told,
            here,
            format!(
                "proxy-real-ip-cidr in the same ConfigMap names the proxy alone; without it everybody is believed (now: {})",
                trusted(map)
            ),
        )],
    })
}

fn trusted(map: Option<&ConfigMap>) -> &str {
    map.and_then(|map| map.data.get("proxy-real-ip-cidr")).map_or("not set", String::as_str)
}

fn serde_text(value: &str) -> String {
    super::super::describe::json(value)
}

/// Traefik believes nobody without these (pkg/config/static/entrypoints.go of traefik/traefik). It
/// may also have a file, which isn't seen.
fn traefik(context: &Context<'_, '_>, service: &Service, told: ToldBy) -> Option<Described> {
    let part = match told {
        ToldBy::ProxyProtocol => "proxyProtocol",
        ToldBy::ForwardedFor => "forwardedHeaders",
    };
    let wanted = format!(".{part}.").to_lowercase();
    let containers = containers(context.lookup, service);
    let mut words = containers.iter().flat_map(|one| one.words());
    // Without its arguments nothing is known.
    if containers.is_empty() || words.any(|word| word.to_lowercase().contains(&wanted)) {
        return None;
    }
    let full = service.full_name();
    let namespace = &service.metadata.namespace;
    let flag = format!("--entryPoints.NAME.{part}.trustedIPs=PROXY-RANGE");
    let whose = match context.lookup.workloads_of(service).next() {
        Some((kind, workload)) => {
            format!("{}/{} in {namespace}", kind.to_lowercase(), workload.metadata.name)
        }
        None => format!("Traefik's workload in {namespace}, which was not seen"),
    };
    let here = undone(
        format!(
            "For each entry point that the proxy calls, an argument of {whose}; its pods restart with \
             it"
        ),
        [literal(flag.as_str())],
        [sentence(format!("Take {part}.trustedIPs out again."))],
    );
    Some(Described {
        title: title(
            format!("Traefik behind {full} doesn't take clients from {}", describe_told(told)),
            "Traefik doesn't take clients from the proxy in front",
        ),
        confidence: Confidence::Likely,
        cause: Cause {
            text: cause_text(
                told,
                &format!(
                    "Traefik does so for addresses that {flag} names, and none of its arguments is one"
                ),
            ),
            setting: Some(format!("no {part}.trustedIPs")),
            place: Some(format!("the arguments of Traefik's pods behind Service {full}")),
        },
        remedies: vec![remedy(
            told,
            here,
            "PROXY-RANGE is the proxy alone, as Traefik's pods see it".to_owned(),
        )],
    })
}

fn cause_text(told: ToldBy, how: &str) -> String {
    let what = match told {
        ToldBy::ProxyProtocol => {
            "A proxy in front begins each connection with the PROXY protocol, which says who called; the \
             server has to expect it, or takes it for garbage"
        }
        ToldBy::ForwardedFor => {
            "A proxy in front makes connections of its own and says in X-Forwarded-For who called; the \
             server has to believe it, or takes the proxy for the client"
        }
    };
    format!("{what}. {how}.")
}

/// Both ends: the server's setting, and the proxy's.
fn remedy(told: ToldBy, here: Step, trust: String) -> Remedy {
    let as_before = [sentence("The proxy's setting as it was, at the same time.")];
    let (title, front) = match told {
        ToldBy::ForwardedFor => (
            "Believe the header, from the proxy alone",
            undone(
                "The proxy in front sets the header, and drops what clients send in it",
                [literal(
                    "HAProxy: http-request del-header X-Forwarded-For, then option forwardfor",
                )],
                as_before,
            ),
        ),
        ToldBy::ProxyProtocol => (
            "Both ends speak PROXY protocol, from one moment on",
            undone(
                "The proxy in front, at the same time: with one end only, every connection fails",
                [
                    literal("HAProxy: server n1 NODE:NODEPORT check send-proxy-v2"),
                    literal("nginx, in stream: proxy_protocol on;"),
                ],
                as_before,
            ),
        ),
    };
    Remedy {
        lasting: true,
        title: title.to_owned(),
        steps: vec![here, front],
        requires: vec![
            unseen(trust, command("kubectl get configmaps -A -o yaml | grep -n real-ip-cidr")),
            unseen(
                "the setting also stands where an installer writes it (values of the chart, HelmChartConfig)",
                command("helm list -A"),
            ),
        ],
    }
}
