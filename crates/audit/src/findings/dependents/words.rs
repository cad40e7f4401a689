//! What a person reads of a setting that can't work: who is shut out or gets in, as whom, and what
//! to write until the cause is mended. No program does the latter: each way has a price, which a
//! person has to accept.

use std::collections::BTreeSet;

use ipnet::IpNet;
use unmasq_cluster::kubernetes::{Service, ServiceType};
use unmasq_model::ruleset::ChainId;

use super::super::Context;
use super::super::describe::{
    Described, by_hand, command, few, patch_command, sentence, title, undone, unseen,
};
use super::{Case, Known};
use crate::dependent::Kind;
use crate::{Cause, Confidence, FindingId, Owner, Remedy, Requirement, chain_owner, quoted, shell};

/// What differs from kind to kind.
struct Words {
    title: String,
    text: String,
    confidence: Confidence,
    /// Until the cause is mended; or what mends it, if there is no other cause.
    remedy: Option<Remedy>,
}

pub(super) fn describe(context: &Context<'_, '_>, case: &Case<'_>) -> Described {
    let Words { title: long, text, confidence, remedy } = match case.kind() {
        Kind::NetworkPolicy if case.id == FindingId::PolicyAllowsNode => allows(context, case),
        Kind::NetworkPolicy => cannot_match(context, case),
        Kind::SourceRanges | Kind::IngressAllowList | Kind::IngressRateLimit => {
            judges_another(context, case)
        }
        Kind::TrustedProxies if case.parts.iter().any(|(one, _)| one.by_rewriting) => {
            trusts_the_unseen(case)
        }
        Kind::TrustedProxies => trusts_everybody(case),
    };
    let fields: Vec<&str> = case.parts.iter().map(|(_, one)| &*one.field).collect();
    let mut remedies: Vec<Remedy> = case.causes.iter().map(mend).collect();
    remedies.extend(remedy);
    Described {
        title: title(long, case.id.title()),
        confidence,
        cause: Cause {
            text,
            setting: Some(case.setting()),
            place: Some(format!("{}, {}", case.object, few(&fields))),
        },
        remedies,
    }
}

impl Case<'_> {
    fn kind(&self) -> Kind {
        self.parts.first().map_or(Kind::NetworkPolicy, |(_, one)| one.kind)
    }

    fn setting(&self) -> String {
        let networks = self.networks();
        let what: Vec<&str> = self.parts.iter().map(|(_, one)| &*one.what).collect();
        if networks.is_empty() { few(&what) } else { few(&networks) }
    }

    /// The networks that are named, each once.
    fn networks(&self) -> Vec<IpNet> {
        let all = self.parts.iter().flat_map(|(_, one)| &one.networks);
        all.collect::<BTreeSet<_>>().into_iter().copied().collect()
    }

    /// Namespace and name of the object.
    fn name(&self) -> (&str, &str) {
        let name = self.object.split_once(' ').map_or(self.object, |(_, name)| name);
        name.split_once('/').unwrap_or(("default", name))
    }

    /// The namespace of a NetworkPolicy and what it is called, as words of a command.
    fn words(&self) -> (String, String) {
        let (namespace, name) = self.name();
        (quoted(namespace), shell::object("networkpolicy", name))
    }

    /// Who comes as whom.
    fn callers(&self) -> String {
        match self.callers[..] {
            [one] => one.to_string(),
            _ => few(&self.callers),
        }
    }

    fn seen(&self) -> String {
        match self.seen.is_empty() {
            true => "another address".to_owned(),
            false => few(&self.seen),
        }
    }
}

fn mend(cause: &Known) -> Remedy {
    let how = cause.remedy.as_ref().map_or_else(String::new, |how| format!(" Its remedy: {how}."));
    Remedy {
        lasting: true,
        title: format!("Mend {}", cause.name),
        steps: vec![by_hand(
            format!(
                "{}.{how} Where the clients' own addresses arrive, this setting is right as it is",
                cause.title
            ),
            [command(format!("unmasq explain {}", cause.name.id))],
        )],
        requires: Vec::new(),
    }
}

fn cannot_match(context: &Context<'_, '_>, case: &Case<'_>) -> Words {
    let (object, callers, seen) = (case.object, case.callers(), case.seen());
    let fate = match case.seen.is_empty() {
        true => "They were seen to be dropped.",
        false => "No other rule of a NetworkPolicy lets them in at that port: they are shut out.",
    };
    let text = format!(
        "An ipBlock is compared with the source that a packet has at the pod's node. {callers} is \
         named by {object} and comes there as {seen}, which it doesn't name. {fate}{}",
        enforcers(case)
    );
    let title = format!("{object} can't match {}: they come as {seen}", few(&case.networks()));
    let (namespace, policy) = case.words();
    let mut steps = earlier(context, case);
    let rules: BTreeSet<String> =
        case.parts.iter().filter_map(|(_, one)| peers(&one.field)).collect();
    let (of, named) = (&namespace, &policy);
    let adding = rules.iter().flat_map(|peers| {
        case.seen.iter().map(move |seen| {
            let block = IpNet::from(*seen);
            let patch = format!(
                r#"[{{"op":"add","path":"{peers}/-","value":{{"ipBlock":{{"cidr":"{block}"}}}}}}]"#
            );
            let patch = quoted(&patch);
            command(format!("kubectl -n {of} patch {named} --type=json -p {patch}"))
        })
    });
    steps.push(undone(
        "Then let in the address that they come as. From there on this policy lets in everybody who \
         comes that way, so whoever judges before it is the only one who does",
        adding.collect::<Vec<_>>(),
        [command(format!(
            "kubectl -n {namespace} edit {policy}   # take them out again"
        ))],
    ));
    let remedy = Remedy {
        lasting: false,
        title: format!("Until then: judge clients before the node, and let in {seen}"),
        steps,
        requires: vec![every_node(case)],
    };
    Words { title, text, confidence: case.enforced, remedy: Some(remedy) }
}

/// The list of peers that an ipBlock is in, as JSON Patch names it (RFC 6901).
fn peers(field: &str) -> Option<String> {
    let (rule, _) = field.split_once(".from")?;
    Some(format!("/{}/from", rule.replace(['.', '['], "/").replace(']', "")))
}

fn allows(context: &Context<'_, '_>, case: &Case<'_>) -> Words {
    let (object, callers, seen) = (case.object, case.callers(), case.seen());
    let networks = few(&case.networks());
    let text = format!(
        "An ipBlock is compared with the source that a packet has at the pod's node. {callers} isn't \
         named by {object}, comes there as {seen}, and gets in, because {networks} has nodes' \
         addresses in it. So does everybody who comes by way of such a node.{}",
        enforcers(case)
    );
    let (namespace, policy) = case.words();
    let mut steps = earlier(context, case);
    steps.push(undone(
        format!(
            "Leave {networks} in until sources are kept, or nobody gets in; then write the clients' \
             networks in its place"
        ),
        [command(format!("kubectl -n {namespace} edit {policy}"))],
        [sentence(format!(
            "The policy as it was: save it first (kubectl -n {namespace} get {policy} -o \
             yaml)."
        ))],
    ));
    let remedy = Remedy {
        lasting: false,
        title: "Until then: judge clients before the node".to_owned(),
        steps,
        requires: Vec::new(),
    };
    let title = format!("{object} lets in everybody who comes as {seen}: it names nodes");
    Words { title, text, confidence: case.enforced, remedy: Some(remedy) }
}

fn judges_another(context: &Context<'_, '_>, case: &Case<'_>) -> Words {
    let (object, callers, seen) = (case.object, case.callers(), case.seen());
    let (where_to, hurt, until) = match case.kind() {
        Kind::SourceRanges => (
            "kube-proxy compares these ranges with the source that reaches it, after the load \
             balancer's own pod has rewritten it.",
            "So it shuts out those whom it names, or lets in everybody if it names nodes or pods.",
            None,
        ),
        Kind::IngressRateLimit => (
            "The ingress controller counts by the address that connections come from.",
            "So all clients of a node share one count, and one of them can use it up.",
            Some(by_hand(
                "A higher limit, as it is shared; or a count by something else than the address",
                [],
            )),
        ),
        Kind::IngressAllowList | Kind::NetworkPolicy | Kind::TrustedProxies => (
            "The ingress controller compares its list with the address that connections come from.",
            "So an allow-list shuts out those whom it names, and a deny-list keeps out nobody.",
            None,
        ),
    };
    let text = format!("{where_to} {callers} comes as {seen}. {hurt}");
    let mut steps: Vec<_> = until.into_iter().collect();
    steps.extend(earlier(context, case));
    let remedy = Remedy {
        lasting: false,
        title: "Until then: judge clients where their address is still there".to_owned(),
        steps,
        requires: vec![unseen(
            format!("{seen} is on no list meanwhile: it stands for everybody"),
            command(format!(
                "kubectl get {} -A -o yaml | grep -F {}",
                resource(case),
                first(&case.seen)
            )),
        )],
    };
    let title = format!("{object} judges {seen} in place of its clients");
    let confidence = match case.kind() {
        Kind::SourceRanges => Confidence::Certain,
        Kind::IngressAllowList
        | Kind::IngressRateLimit
        | Kind::NetworkPolicy
        | Kind::TrustedProxies => controller_seen(context, case),
    };
    Words { title, text, confidence, remedy: Some(remedy) }
}

fn resource(case: &Case<'_>) -> String {
    let kind = case.object.split_once(' ').map_or("all", |(kind, _)| kind);
    kind.to_lowercase()
}

fn first<T: ToString>(all: &[T]) -> String {
    all.first().map_or_else(|| "ADDRESS".to_owned(), ToString::to_string)
}

/// A controller may be told the address in another way, by settings that stand in its ConfigMap.
fn controller_seen(context: &Context<'_, '_>, case: &Case<'_>) -> Confidence {
    let objects = &context.cluster.objects;
    let services = case.services.iter().filter_map(|index| objects.services.get(*index as usize));
    let mut namespaces = services.map(|service| &service.metadata.namespace);
    let seen = |namespace: &String| {
        objects.config_maps.iter().any(|one| one.metadata.namespace == *namespace)
    };
    if namespaces.all(seen) { Confidence::Certain } else { Confidence::Likely }
}

fn trusts_the_unseen(case: &Case<'_>) -> Words {
    let (object, seen) = (case.object, case.seen());
    let text = format!(
        "The controller believes who a proxy says the client is, if the connection comes from one that \
         it trusts ({}). It sees connections come from {seen}, whoever makes them: so it believes \
         nobody, and takes {seen} for the client.",
        few(&case.networks())
    );
    let remedy = Remedy {
        lasting: false,
        title: "Until then: nothing that is safe".to_owned(),
        steps: vec![by_hand(
            format!(
                "With {seen} on the list, everybody who comes by way of that node is believed. That is \
                 right only where a firewall lets nobody but the proxy reach the node's ports"
            ),
            [],
        )],
        requires: Vec::new(),
    };
    Words {
        title: format!("{object} trusts proxies that it never sees: they come as {seen}"),
        text,
        confidence: Confidence::Certain,
        remedy: Some(remedy),
    }
}

fn trusts_everybody(case: &Case<'_>) -> Words {
    let (object, callers) = (case.object, case.callers());
    let (namespace, name) = case.name();
    let text = format!(
        "The controller believes the header X-Forwarded-For of everybody, and {callers}, who isn't the \
         proxy in front, reaches it: whoever does can claim any address, and passes allow-lists and \
         limits with it."
    );
    let key = r#"{"data":{"proxy-real-ip-cidr":"PROXY-RANGE"}}"#;
    let without = r#"{"data":{"proxy-real-ip-cidr":null}}"#;
    let remedy = Remedy {
        lasting: true,
        title: "Believe the header of the proxy in front alone".to_owned(),
        steps: vec![undone(
            "PROXY-RANGE is the proxy's own address or network, as the controller sees it",
            [patch_command("configmap", Some(namespace), name, key)],
            [patch_command("configmap", Some(namespace), name, without)],
        )],
        requires: vec![unseen(
            "the controller sees the proxy's own address, and not a node's in its place",
            command(format!("kubectl -n {} logs POD-OF-THE-CONTROLLER", quoted(namespace))),
        )],
    };
    Words {
        title: format!("{object} believes everybody who says who the client is"),
        text,
        confidence: Confidence::Certain,
        remedy: Some(remedy),
    }
}

/// Judging where the source is still there: at the load balancer's address by kube-proxy, else in
/// front of the nodes.
fn earlier(context: &Context<'_, '_>, case: &Case<'_>) -> Vec<crate::Step> {
    const FEW: usize = 5;
    let services = case.services.iter();
    let services =
        services.filter_map(|index| context.cluster.objects.services.get(*index as usize));
    let open = services.filter(|one| {
        one.spec.kind == ServiceType::LoadBalancer
            && one.spec.load_balancer_source_ranges.is_empty()
    });
    let open: Vec<&Service> = open.collect();
    // Those that such a policy names are nodes.
    let names_nodes = case.id == FindingId::PolicyAllowsNode;
    let networks = if names_nodes { Vec::new() } else { case.networks() };
    let mut steps = Vec::new();
    if !open.is_empty() && case.kind() != Kind::SourceRanges {
        let listed: Vec<String> = match networks.is_empty() {
            true => vec!["\"CLIENTS\"".to_owned()],
            false => networks.iter().map(|net| format!("\"{net}\"")).collect(),
        };
        let patch = format!(r#"{{"spec":{{"loadBalancerSourceRanges":[{}]}}}}"#, listed.join(","));
        let commands = open.iter().take(FEW).map(|one| {
            patch_command("service", Some(&one.metadata.namespace), &one.metadata.name, &patch)
        });
        let back = open.iter().take(FEW).map(|one| {
            let none = r#"{"spec":{"loadBalancerSourceRanges":null}}"#;
            patch_command("service", Some(&one.metadata.namespace), &one.metadata.name, none)
        });
        steps.push(undone(
            "At the load balancer's address kube-proxy judges before it rewrites; node ports are exempt",
            commands,
            back,
        ));
    }
    let what = match networks.is_empty() {
        true => "the clients that are meant".to_owned(),
        false => few(&networks),
    };
    steps.push(by_hand(
        format!("A firewall in front of the nodes that lets {what} reach the Services' ports"),
        Vec::new(),
    ));
    steps
}

/// A row's witness is one of many: each node rewrites to an address of its own.
fn every_node(case: &Case<'_>) -> Requirement {
    unseen(
        "each node that takes such calls rewrites to an address of its own: one entry for each",
        command(format!("unmasq trace --from {} --to NODE:PORT --via NODE", first(&case.callers))),
    )
}

/// Programs that carry out NetworkPolicies with rules, or say that they do.
const ENFORCERS: [Owner; 7] = [
    Owner::Calico,
    Owner::KubeRouter,
    Owner::Weave,
    Owner::Cilium,
    Owner::OvnKubernetes,
    Owner::Kindnet,
    Owner::AwsVpcCni,
];

/// Whether some program was seen that does.
pub(super) fn enforced(context: &Context<'_, '_>) -> Confidence {
    let hosts = context.cluster.nodes.iter().filter_map(|node| node.host.as_ref());
    let mut chains = hosts.flat_map(|host| {
        (0..).zip(&host.ruleset.tables).flat_map(move |(table, one)| {
            (0..).zip(&one.chains).map(move |(chain, _)| chain_owner(host, table, ChainId(chain)))
        })
    });
    let by_rules = chains.any(|owner| ENFORCERS.contains(&owner));
    match by_rules || context.cluster.settings.cilium.is_present() {
        true => Confidence::Certain,
        false => Confidence::Likely,
    }
}

fn enforcers(case: &Case<'_>) -> &'static str {
    match case.enforced {
        Confidence::Certain => "",
        Confidence::Likely => {
            " (No program was seen here that carries out NetworkPolicies; without one, a policy does nothing.)"
        }
    }
}
