//! What a person reads of a setting that can't work: who is shut out or gets in, as whom, and what
//! to write until the cause is mended. No program does the latter: each way has a price, which a
//! person has to accept.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_cluster::kubernetes::{IpMode, Metadata, Service, ServiceType};
use unmasq_model::ruleset::ChainId;

use super::super::Context;
use super::super::describe::{
    Described, by_hand, command, few, patch_command, sentence, title, undone, unseen,
};
use super::{Case, Known};
use crate::dependent::{Dependence, Kind, let_in};
use crate::{
    Cause, Confidence, FindingId, Instruction, Owner, Remedy, Requirement, Step, chain_owner,
    quoted, shell,
};

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
        Kind::SourceRanges => ranges(context, case),
        Kind::IngressAllowList | Kind::IngressDenyList => listed(context, case),
        Kind::IngressRateLimit => counts(context, case),
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
        let networks = self.named();
        let what: Vec<&str> = self.parts.iter().map(|(_, one)| &*one.what).collect();
        if networks.is_empty() { few(&what) } else { few(&networks) }
    }

    /// The networks that are named, each once.
    fn networks(&self) -> Vec<IpNet> {
        let all = self.parts.iter().flat_map(|(_, one)| &one.networks);
        all.collect::<BTreeSet<_>>().into_iter().copied().collect()
    }

    /// The same with what is left out of each.
    fn named(&self) -> Vec<String> {
        let all = self
            .parts
            .iter()
            .flat_map(|(_, one)| one.networks.iter().map(|net| (*net, left_out(*net, one))));
        let all: BTreeSet<(IpNet, Vec<IpNet>)> = all.collect();
        all.into_iter()
            .map(|(net, left_out)| match left_out.is_empty() {
                true => net.to_string(),
                false => format!("{net} except {}", few(&left_out)),
            })
            .collect()
    }

    /// Networks that are left out and that callers are in.
    fn excepted(&self) -> Vec<IpNet> {
        let all = self.parts.iter().flat_map(|(_, one)| &one.except);
        let met = all.filter(|net| self.callers.iter().any(|caller| net.contains(caller)));
        met.collect::<BTreeSet<_>>().into_iter().copied().collect()
    }

    /// Those who call that the setting names, or that it doesn't name.
    fn callers_that(&self, are_named: bool) -> Vec<IpAddr> {
        let named = |caller: &&IpAddr| self.parts.iter().any(|(_, one)| one.names(**caller));
        self.callers.iter().filter(|caller| named(caller) == are_named).copied().collect()
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

/// What a setting leaves out of a network.
fn left_out(net: IpNet, of: &Dependence) -> Vec<IpNet> {
    of.except.iter().copied().filter(|one| net.contains(one)).collect()
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
    let title = format!("{object} can't match {}: they come as {seen}", few(&case.named()));
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
        requires: vec![every_node()],
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
    let networks = few(&case.named());
    let whose = if is_of_pods(context, case) { Whose::Pods } else { Whose::Nodes };
    let why = match whose {
        Whose::Pods => format!(
            "{networks} is the pods' own network, and the addresses that nodes put in a client's place \
             are in it"
        ),
        Whose::Nodes => format!("{networks} has nodes' addresses in it"),
    };
    let text = format!(
        "An ipBlock is compared with the source that a packet has at the pod's node. {callers} isn't \
         named by {object}, comes there as {seen}, and gets in, because {why}. So does everybody who \
         comes by way of such a node.{}",
        enforcers(case)
    );
    let remedy = match whose {
        Whose::Pods => by_selector(case, &networks),
        Whose::Nodes => until_sources_are_kept(context, case, &networks),
    };
    let names = match whose {
        Whose::Pods => "it names the pods' network",
        Whose::Nodes => "it names nodes",
    };
    let title = format!("{object} lets in everybody who comes as {seen}: {names}");
    Words { title, text, confidence: case.enforced, remedy: Some(remedy) }
}

/// Whose addresses a NetworkPolicy lets in.
#[derive(Clone, Copy)]
enum Whose {
    Pods,
    Nodes,
}

/// Whether somebody named the network of pods, to let in pods: one with all of a node's pods in it,
/// and no node.
fn is_of_pods(context: &Context<'_, '_>, case: &Case<'_>) -> bool {
    let nodes = &context.cluster.objects.nodes;
    let addresses = nodes.iter().flat_map(|node| &node.status.addresses);
    let nodes_own: Vec<IpAddr> = addresses.filter_map(|one| one.address.parse().ok()).collect();
    let is_of_pods = |net: &IpNet| {
        nodes.iter().flat_map(|node| node.pod_cidrs()).any(|pods| net.contains(&pods))
            && !nodes_own.iter().any(|address| net.contains(address))
    };
    let networks = case.networks();
    !networks.is_empty() && networks.iter().all(is_of_pods)
}

fn by_selector(case: &Case<'_>, networks: &str) -> Remedy {
    let (namespace, name) = case.words();
    Remedy {
        lasting: true,
        title: "Name pods by their labels".to_owned(),
        steps: vec![undone(
            format!(
                "In place of {networks}, a namespaceSelector or a podSelector for the pods that are \
                 meant: it matches no node, whatever address that has. Who comes from outside is \
                 refused then"
            ),
            [command(format!("kubectl -n {namespace} edit {name}"))],
            [as_it_was(&namespace, &name)],
        )],
        requires: Vec::new(),
    }
}

fn until_sources_are_kept(context: &Context<'_, '_>, case: &Case<'_>, networks: &str) -> Remedy {
    let (namespace, name) = case.words();
    let mut steps = earlier(context, case);
    // Whoever is left out is told by the policy already: it is right once sources are kept.
    if case.excepted().is_empty() {
        steps.push(undone(
            format!(
                "Leave {networks} in until sources are kept, or nobody gets in; then write the \
                 clients' networks in its place"
            ),
            [command(format!("kubectl -n {namespace} edit {name}"))],
            [as_it_was(&namespace, &name)],
        ));
    }
    Remedy {
        lasting: false,
        title: "Until then: judge clients before the node".to_owned(),
        steps,
        requires: Vec::new(),
    }
}

fn as_it_was(namespace: &str, name: &str) -> Instruction {
    sentence(format!(
        "The policy as it was: save it first (kubectl -n {namespace} get {name} -o \
         yaml)."
    ))
}

fn ranges(context: &Context<'_, '_>, case: &Case<'_>) -> Words {
    let (object, seen) = (case.object, case.seen());
    let (named, others) = (case.callers_that(true), case.callers_that(false));
    let mut text =
        "kube-proxy judges source ranges at addresses that it serves itself. Here a pod of \
                    the load balancer takes the call, and hands it on with its own address."
            .to_owned();
    if !others.is_empty() {
        let others = few(&others);
        let _ =
            write!(text, " Nobody judges {others}, whom they don't name: it gets in as {seen}.");
    }
    if !named.is_empty() {
        let named = few(&named);
        let _ = write!(text, " {named}, whom they name, comes as another, and is dropped.");
    }
    let title = match others.is_empty() {
        true => format!("{object} judges another address in place of its clients"),
        false => format!("{object} lets in everybody at its load balancer's pods"),
    };
    let by_klipper = case.causes.iter().any(|cause| cause.owner == Owner::KlipperLb);
    let its_own = by_klipper.then(|| {
        unseen(
            "svclb pods refuse others by the Service's ranges themselves, where k3s hands them on \
             (SRC_RANGES): then these pods are older than the ranges, or know nothing of it",
            command(
                "kubectl -n kube-system get pods -l svccontroller.k3s.cattle.io/svcname -o yaml | grep \
                 -A1 SRC_RANGES",
            ),
        )
    });
    let remedy = Remedy {
        lasting: false,
        title: WHERE_IT_IS_THERE.to_owned(),
        steps: earlier(context, case),
        requires: its_own.into_iter().collect(),
    };
    Words { title, text, confidence: Confidence::Certain, remedy: Some(remedy) }
}

const WHERE_IT_IS_THERE: &str = "Until then: judge clients where their address is still there";

fn listed(context: &Context<'_, '_>, case: &Case<'_>) -> Words {
    let (object, seen) = (case.object, case.seen());
    let (named, others) = (case.callers_that(true), case.callers_that(false));
    let is_deny = case.kind() == Kind::IngressDenyList;
    let mut text =
        "The ingress controller compares its list with the address that connections come from."
            .to_owned();
    if !named.is_empty() {
        let hurt = match is_deny {
            true => "so it isn't kept out, nor is anybody else who is meant to be",
            false => "so it is shut out, as are all others who are meant",
        };
        let _ = write!(text, " {}, which it names, comes as {seen}: {hurt}.", few(&named));
    }
    if !others.is_empty() {
        let hurt = match is_deny {
            true => "so everybody who comes that way is kept out",
            false => "so everybody who comes that way gets in",
        };
        let _ = write!(
            text,
            " {}, which it doesn't name, comes as {seen}, which it names: {hurt}.",
            few(&others)
        );
    }
    let title = match (is_deny, named.is_empty()) {
        (true, true) => format!("{object} keeps out everybody who comes as {seen}"),
        (false, true) => format!("{object} lets in everybody who comes as {seen}"),
        (true | false, false) => format!("{object} judges {seen} in place of its clients"),
    };
    let requires = named.first().filter(|_| !is_deny).map(|_| {
        unseen(
            format!("{seen} is on no list meanwhile: it stands for everybody"),
            command(format!(
                "kubectl get {} -A -o yaml | grep -F {}",
                resource(case),
                first(&case.seen)
            )),
        )
    });
    let remedy = Remedy {
        lasting: false,
        title: WHERE_IT_IS_THERE.to_owned(),
        steps: earlier(context, case),
        requires: requires.into_iter().collect(),
    };
    Words { title, text, confidence: controller_seen(context, case), remedy: Some(remedy) }
}

fn counts(context: &Context<'_, '_>, case: &Case<'_>) -> Words {
    let (object, callers, seen) = (case.object, case.callers(), case.seen());
    let text = format!(
        "The ingress controller counts by the address that connections come from. {callers} comes as \
         {seen}. So all clients of a node share one count, and one of them can use it up."
    );
    let remedy = Remedy {
        lasting: false,
        title: "Until then: a limit for all together".to_owned(),
        steps: vec![by_hand(
            "A higher limit, as it is shared; or a count by something else than the address",
            [],
        )],
        requires: Vec::new(),
    };
    let title = format!("{object} judges {seen} in place of its clients");
    Words { title, text, confidence: controller_seen(context, case), remedy: Some(remedy) }
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
fn earlier(context: &Context<'_, '_>, case: &Case<'_>) -> Vec<Step> {
    let by_ranges = match case.kind() {
        Kind::NetworkPolicy => at_the_load_balancer(context, case),
        // Source ranges let in, and keep out nobody else; and a controller's Service has other sites
        // behind it, which have lists of their own or none.
        Kind::SourceRanges
        | Kind::IngressAllowList
        | Kind::IngressDenyList
        | Kind::IngressRateLimit
        | Kind::TrustedProxies => None,
    };
    by_ranges.into_iter().chain([by_hand(by_firewall(case), [])]).collect()
}

fn by_firewall(case: &Case<'_>) -> String {
    let (named, excepted) = (few(&case.named()), case.excepted());
    const WHERE: &str = "A firewall in front of the nodes that";
    match case.kind() {
        Kind::NetworkPolicy if case.id == FindingId::PolicyAllowsNode => {
            match excepted.is_empty() {
                true => {
                    format!("{WHERE} lets the clients that are meant reach the Services' ports")
                }
                false => format!("{WHERE} refuses {} at the Services' ports", few(&excepted)),
            }
        }
        Kind::NetworkPolicy => {
            format!("{WHERE} lets {named}, and whom other rules let in, reach the Services' ports")
        }
        Kind::IngressDenyList => {
            format!("{WHERE} refuses {named} at the controller's ports, and so at all sites of it")
        }
        Kind::IngressAllowList if case.callers_that(true).is_empty() => format!(
            "{WHERE} lets the clients that are meant reach the controller's ports, and so all sites of it"
        ),
        Kind::IngressAllowList => format!(
            "Where this site has a controller of its own: a firewall in front of the nodes that lets \
             {named} reach its ports, or the same networks as loadBalancerSourceRanges of its Service. \
             Either is for all sites of the controller"
        ),
        Kind::SourceRanges | Kind::IngressRateLimit | Kind::TrustedProxies => {
            format!("{WHERE} lets {named} reach the Services' ports")
        }
    }
}

/// Source ranges for all whom policies let in, as one list stands for all of them.
fn at_the_load_balancer(context: &Context<'_, '_>, case: &Case<'_>) -> Option<Step> {
    const FEW: usize = 5;
    // A load balancer's own pod takes the call before kube-proxy could judge it.
    if case.causes.iter().any(|cause| cause.owner == Owner::KlipperLb) {
        return None;
    }
    let objects = &context.cluster.objects;
    let services = case.services.iter().filter_map(|index| objects.services.get(*index as usize));
    let patches = services.filter(|service| can_have_ranges(service)).filter_map(|service| {
        let ranges = meant(case, let_in(context.lookup, objects, service)?);
        let listed: Vec<String> = ranges.iter().map(|net| format!("\"{net}\"")).collect();
        let patch = format!(r#"{{"spec":{{"loadBalancerSourceRanges":[{}]}}}}"#, listed.join(","));
        Some((&service.metadata, patch))
    });
    let patches: Vec<_> = patches.take(FEW).collect();
    let patched = |(of, patch): &(&Metadata, String)| {
        patch_command("service", Some(&of.namespace), &of.name, patch)
    };
    let none = r#"{"spec":{"loadBalancerSourceRanges":null}}"#;
    (!patches.is_empty()).then(|| {
        undone(
            "At the load balancer's address kube-proxy judges before it rewrites; node ports are \
             exempt. The list is for all ports of the Service, and has all whom its pods' policies let \
             in by address",
            patches.iter().map(patched),
            patches.iter().map(|(of, _)| patched(&(*of, none.to_owned()))),
        )
    })
}

/// Whether kube-proxy judges by ranges at a load balancer's address, and there are none yet.
fn can_have_ranges(service: &Service) -> bool {
    let by_others = |mode: IpMode| match mode {
        IpMode::Proxy => true,
        IpMode::Vip => false,
    };
    let mut addresses = service.status.load_balancer.ingress.iter();
    service.spec.kind == ServiceType::LoadBalancer
        && service.spec.load_balancer_source_ranges.is_empty()
        && !addresses.any(|one| by_others(one.ip_mode))
}

/// Who is meant by those whom policies let in: where one lets in nodes, a person must say it.
fn meant(case: &Case<'_>, let_in: Vec<IpNet>) -> Vec<String> {
    let unsaid = case.id == FindingId::PolicyAllowsNode && case.excepted().is_empty();
    let nodes = if unsaid { case.networks() } else { Vec::new() };
    let known = let_in.iter().filter(|net| !nodes.iter().any(|one| one.contains(*net)));
    let known = known.map(ToString::to_string);
    unsaid.then(|| "CLIENTS".to_owned()).into_iter().chain(known).collect()
}

/// A row's witness is one of many: each node rewrites to an address of its own.
fn every_node() -> Requirement {
    unseen(
        "each node that takes such calls rewrites to an address of its own: one entry for each",
        sentence(
            "The trace under what was seen, once more for each node, with its address and --via.",
        ),
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
