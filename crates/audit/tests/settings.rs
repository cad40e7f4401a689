//! Captures in `examples/` with more objects in them: settings that depend on sources, and what is
//! wrong with objects themselves. Expected values follow from the rules of the captures, which are
//! known, and from the objects that are added here.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

mod captured;

use std::collections::BTreeMap;
use std::path::Path;

use unmasq_audit::expect::{Expectations, parse};
use unmasq_audit::{
    Action, Audit, Confidence, Finding, FindingId, Instruction, Owner, Reference, Request,
    Severity, audit,
};
use unmasq_cluster::{Cluster, Overrides, read};

/// The audit of an example whose capture has these objects too.
fn with(example: &str, objects: &str) -> Audit {
    audited(files(example, objects), &Expectations::default())
}

fn files(example: &str, objects: &str) -> BTreeMap<String, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
    let mut files = captured::files(&root);
    if !objects.is_empty() {
        files.insert("kubernetes/more.yaml".to_owned(), objects.as_bytes().to_vec());
    }
    files
}

fn audited(files: BTreeMap<String, Vec<u8>>, expectations: &Expectations) -> Audit {
    let contents = read::capture(&files).unwrap();
    let cluster = Cluster::of(contents, Overrides::default());
    audit(&cluster, expectations, Request::default(), &|_, _| {})
}

/// The same, where the example's Service web is that of a controller by its label.
fn behind(controller: &str, example: &str, objects: &str) -> Audit {
    let mut files = files(example, objects);
    let services = files.get_mut("kubernetes/services.json").unwrap();
    let name = "\"name\": \"web\",\n        \"namespace\"";
    let labels = format!("\"labels\": {{\"app.kubernetes.io/name\": \"{controller}\"}},");
    let text = String::from_utf8(services.clone()).unwrap();
    assert_eq!(text.matches(name).count(), 1);
    *services = text.replace(name, &format!("{labels} {name}")).into_bytes();
    audited(files, &Expectations::default())
}

fn of(audit: &Audit, id: FindingId) -> Vec<&Finding> {
    audit.findings.iter().filter(|finding| finding.id == id).collect()
}

/// Clients in a pool that pods use have pods' addresses: to switch the pool off is no answer.
#[test]
fn clients_in_a_pool_that_pods_use() {
    let pod = "
        kind: Pod
        metadata: {name: moved, namespace: default}
        spec: {nodeName: n1}
        status: {podIP: 192.168.3.5}";
    // Somebody has to name them: a network with pods in it isn't taken for one of clients.
    let expected = "
        schema: unmasq.expect/v1
        preserved: [{name: office, from: [192.168.7.0/24], to: [service/default/web]}]";
    let audit = audited(files("canal-rke", pod), &parse(expected, "expect.yaml").unwrap());
    assert_eq!(of(&audit, FindingId::CalicoUnusedPool), [] as [&Finding; 0]);
    let found = of(&audit, FindingId::OverlappingRanges);
    let of_pool = found.iter().find(|one| one.subject == "default-ipv4-ippool").unwrap();
    assert_eq!(
        of_pool.title,
        "Calico pool default-ipv4-ippool (192.168.0.0/16) has 1 pod, and masquerades clients outside in it"
    );
    assert_eq!((of_pool.severity, of_pool.owner), (Severity::Error, Owner::Calico));
}

/// Of pools inside each other the one is named that masquerades: the narrowest with natOutgoing.
#[test]
fn clients_in_a_pool_inside_another() {
    for (nat_outgoing, expected) in [(true, "narrow"), (false, "default-ipv4-ippool")] {
        let pool = format!(
            "kind: IPPool\nmetadata: {{name: narrow}}\n\
             spec: {{cidr: 192.168.7.0/24, natOutgoing: {nat_outgoing}}}\n"
        );
        let audit = with("canal-rke", &pool);
        let of_rows = of(&audit, FindingId::CalicoUnusedPool).into_iter();
        let of_rows = of_rows.filter(|one| !one.affected.rows.is_empty());
        let subjects: Vec<&str> = of_rows.map(|one| &*one.subject).collect();
        assert_eq!(subjects, [expected]);
    }
}

fn texts(finding: &Finding) -> Vec<&str> {
    finding.evidence.iter().map(|one| one.text.as_str()).collect()
}

/// The words are those of pkg/apis/core/validation of kubernetes, before and after they changed.
#[test]
fn a_policy_in_small_letters() {
    let manifest = "\
kind: Service
metadata: {name: api, namespace: shop}
spec:
  type: NodePort
  externalTrafficPolicy: local
  ports: [{port: 80, nodePort: 30099}]
---
kind: Service
metadata: {name: odd, namespace: shop}
spec: {type: Nodeport}
";
    let mut files = files("kube-proxy-cluster-policy", manifest);
    // Of a kind that the cluster doesn't have, kubectl leaves an empty file.
    files.insert("kubernetes/ippools.crd.projectcalico.org.json".to_owned(), Vec::new());
    let audit = audited(files, &Expectations::default());
    let [found] = of(&audit, FindingId::LocalPolicyInvalid)[..] else { panic!("{audit:?}") };
    assert_eq!((&*found.subject, found.severity), ("shop/api", Severity::Warning));
    assert_eq!(
        found.title,
        "Service shop/api asks for externalTrafficPolicy: local, which the API refuses"
    );
    assert_eq!(found.cause.setting.as_deref(), Some("externalTrafficPolicy: local"));
    let place = "Service shop/api, spec.externalTrafficPolicy \
                 (kubernetes/more.yaml, document 1, from line 1)";
    assert_eq!(found.cause.place.as_deref(), Some(place));
    let [read, newer, older] = texts(found)[..] else { panic!("{found:?}") };
    assert!(read.contains("unknown variant `local`"), "{read}");
    assert_eq!(
        newer,
        r#"the API says: spec.externalTrafficPolicy: Unsupported value: "local": supported values: "Cluster", "Local""#
    );
    assert_eq!(
        older,
        r#"the API says in older versions: spec.externalTrafficPolicy: Invalid value: "local": ExternalTrafficPolicy must be empty, Cluster or Local"#
    );
    assert_eq!(found.remedies[0].title, "Write `externalTrafficPolicy: Local`");
    // What else can't be read may hide a loss, and is no finding.
    let unread: Vec<&String> =
        audit.hidden.iter().filter(|one| one.contains("could be read")).collect();
    let [unread] = unread[..] else { panic!("{:?}", audit.hidden) };
    assert!(unread.contains("Service shop/odd: spec.type"), "{unread}");
    assert!(!unread.contains("shop/api") && !unread.contains("more)"), "{unread}");
}

#[test]
fn local_where_nobody_outside_can_call() {
    let service = "
        kind: Service
        metadata: {name: inner, namespace: shop}
        spec: {type: ClusterIP, clusterIP: 10.43.0.90, externalTrafficPolicy: Local}";
    let audit = with("kube-proxy-cluster-policy", service);
    let [found] = of(&audit, FindingId::LocalPolicyInvalid)[..] else { panic!("{audit:?}") };
    let refused = r#"spec.externalTrafficPolicy: Invalid value: "Local":"#;
    assert_eq!(
        texts(found),
        [
            format!("the API says: {refused} may only be set for externally-accessible services"),
            format!(
                "the API says in older versions: {refused} ExternalTrafficPolicy can only be set on NodePort and LoadBalancer service"
            ),
        ]
    );
}

/// Who may call the pods of the example's only Service, whose clients come as the node that they
/// call, unless the pod is there.
fn policy(cidr: &str) -> String {
    format!(
        "
        kind: NetworkPolicy
        apiVersion: networking.k8s.io/v1
        metadata: {{name: web, namespace: default}}
        spec:
          podSelector: {{matchLabels: {{app: web}}}}
          ingress: [{{from: [{{podSelector: {{}}}}, {{ipBlock: {{cidr: {cidr}}}}}]}}]"
    )
}

const CLUSTER: FindingId = FindingId::ExternalTrafficPolicyCluster;

/// The two findings that a broken setting makes, in their order: the cause, and what follows.
fn pair(audit: &Audit, following: FindingId) -> [&Finding; 2] {
    let [cause, found, rest @ ..] = &audit.findings[..] else { panic!("{:?}", placed(audit)) };
    let expected = [(CLUSTER, Severity::Error), (following, Severity::Error)];
    assert_eq!(placed(audit)[..2], expected);
    assert!(rest.iter().all(|one| one.severity == Severity::Info), "{:?}", placed(audit));
    let name = Reference { id: CLUSTER, subject: String::new() };
    assert_eq!(found.caused_by, [name]);
    assert_eq!(cause.caused_by, []);
    // What it breaks is told at the cause, with the name of the page.
    let told = format!("{} (unmasq explain {following})", found.breaks[0]);
    assert!(cause.breaks.contains(&told), "{told}\n{:?}", cause.breaks);
    assert_eq!(found.remedies[0].title, "Mend external-traffic-policy-cluster");
    assert!(found.remedies[0].lasting);
    [cause, found]
}

fn placed(audit: &Audit) -> Vec<(FindingId, Severity)> {
    audit.findings.iter().map(|one| (one.id, one.severity)).collect()
}

fn typed(instructions: &[Instruction]) -> String {
    let all = instructions.iter().map(|one| match one {
        Instruction::Command(text) => format!("{text}\n"),
        Instruction::Sentence(_) | Instruction::Literal(_) => String::new(),
    });
    all.collect()
}

/// Everything that is to be typed.
fn commands(finding: &Finding) -> String {
    let steps = finding.remedies.iter().flat_map(|one| &one.steps);
    let all = steps.map(|step| match &step.action {
        Action::ByHand { instructions, .. } => typed(instructions),
        // A program must not choose between two evils.
        other => panic!("{other:?}"),
    });
    all.collect()
}

#[test]
fn a_policy_that_never_sees_its_clients() {
    let audit = with("kube-proxy-cluster-policy", &policy("198.51.100.0/24"));
    let [_, found] = pair(&audit, FindingId::PolicyCannotMatchClient);
    assert_eq!(found.subject, "NetworkPolicy default/web");
    assert_eq!(
        found.title,
        "NetworkPolicy default/web can't match 198.51.100.0/24: they come as 10.42.2.0"
    );
    assert_eq!(
        found.cause.place.as_deref(),
        Some("NetworkPolicy default/web, spec.ingress[0].from[1].ipBlock")
    );
    assert!(found.cause.text.contains("they are shut out"), "{}", found.cause.text);
    // flannel carries out no policy.
    assert_eq!(found.confidence, Confidence::Likely);
    assert_eq!(found.affected.services, ["default/web"]);
    assert_eq!(
        found.evidence[0].trace.as_deref(),
        Some("unmasq trace --from 198.51.100.20:43210 --to 10.0.0.12:30080 --via n2")
    );
    let commands = commands(found);
    let later = r#"kubectl -n default patch networkpolicy/web --type=json -p '[{"op":"add","path":"/spec/ingress/0/from/-","value":{"ipBlock":{"cidr":"10.42.2.0/32"}}}]'"#;
    assert!(commands.contains(later), "{commands}");
    // Pods are let in too, by their labels: ranges for all who are let in can't be written.
    assert!(!commands.contains("loadBalancerSourceRanges"), "{commands}");
}

/// One list of ranges stands for all policies of the Service's pods.
#[test]
fn source_ranges_for_all_whom_policies_let_in() {
    let alone = |name: &str, block: &str| {
        let text = policy("NET").replace("{podSelector: {}}, ", "").replace("name: web", name);
        text.replace("{cidr: NET}", block)
    };
    let both = format!(
        "{}\n---\n{}",
        alone("name: a", "{cidr: 198.51.100.0/24, except: [198.51.100.128/25]}"),
        alone("name: b", "{cidr: 192.0.2.0/24}")
    );
    let audit = with("kube-proxy-cluster-policy", &both);
    let found = of(&audit, FindingId::PolicyCannotMatchClient);
    let ranges = r#"kubectl -n default patch service/web --type=merge -p '{"spec":{"loadBalancerSourceRanges":["192.0.2.0/24","198.51.100.0/25"]}}'"#;
    assert_eq!(found.len(), 2);
    for one in &found {
        assert!(commands(one).contains(ranges), "{}", commands(one));
    }
    assert_eq!(found[0].cause.setting.as_deref(), Some("198.51.100.0/24 except 198.51.100.128/25"));
    // The load balancer calls by an address of its own: kube-proxy never sees the one that is called.
    let mut files = files("kube-proxy-cluster-policy", &both);
    let services = files.get_mut("kubernetes/services.json").unwrap();
    let text = String::from_utf8(services.clone()).unwrap();
    let address = "\"ip\": \"192.0.2.80\"";
    assert_eq!(text.matches(address).count(), 1);
    *services = text.replace(address, &format!("{address}, \"ipMode\": \"Proxy\"")).into_bytes();
    let audit = audited(files, &Expectations::default());
    for one in of(&audit, FindingId::PolicyCannotMatchClient) {
        assert!(!commands(one).contains("loadBalancerSourceRanges"), "{}", commands(one));
    }
}

/// Whom a block leaves out gets in by the address of a node, and is to be refused earlier.
#[test]
fn whom_a_policy_leaves_out_gets_in() {
    let block =
        policy("NET").replace("{cidr: NET}", "{cidr: 0.0.0.0/0, except: [198.51.100.0/24]}");
    let audit = with("kube-proxy-cluster-policy", &block);
    let [_, found] = pair(&audit, FindingId::PolicyAllowsNode);
    assert!(found.cause.text.contains("198.51.100.20 isn't named"), "{}", found.cause.text);
    let steps: Vec<&str> = found.remedies[1].steps.iter().map(|one| &*one.text).collect();
    assert!(steps[0].contains("refuses 198.51.100.0/24 "), "{steps:?}");
}

/// Whoever is named by a range of everybody is asked as anybody.
#[test]
fn ranges_of_everybody() {
    let service = "
        kind: Service
        metadata: {name: open, namespace: shop}
        spec:
          type: LoadBalancer
          clusterIP: 10.43.0.90
          loadBalancerSourceRanges: [0.0.0.0/0]
          ports: [{port: 80, nodePort: 30099}]";
    let audit = with("kube-proxy-cluster-policy", service);
    let callers = audit.matrix.rows.iter().map(|row| &row.witness.call.from);
    let callers: Vec<String> = callers.map(|from| format!("{from:?}")).collect();
    assert!(!callers.is_empty());
    assert!(callers.iter().all(|from| !from.contains(" 0.0.")), "{callers:?}");
}

/// The address that the client comes as is in the pods' network, and isn't the client's.
#[test]
fn a_policy_that_lets_in_a_node() {
    let audit = with("kube-proxy-cluster-policy", &policy("10.42.0.0/16"));
    let [_, found] = pair(&audit, FindingId::PolicyAllowsNode);
    assert_eq!(
        found.title,
        "NetworkPolicy default/web lets in everybody who comes as 10.42.2.0: it names the pods' network"
    );
    assert!(found.cause.text.contains("203.0.113.77 isn't named"), "{}", found.cause.text);
    // Nobody is told to let in one more node.
    assert!(!commands(found).contains("\"op\":\"add\""), "{}", commands(found));
    let remedy = &found.remedies[1].steps[0].text;
    assert!(remedy.contains("podSelector") && !remedy.contains("clients"), "{remedy}");
    // An address that a node puts in its clients' place is nobody's pod.
    let audit = with("kube-proxy-cluster-policy", &policy("10.42.2.0/32"));
    let [found] = of(&audit, FindingId::PolicyAllowsNode)[..] else { panic!("{audit:?}") };
    assert!(found.title.ends_with(": it names nodes"), "{}", found.title);
}

/// A second peer lets in the node, and so those whom the first can't match: only that everybody
/// comes that way is wrong.
#[test]
fn who_does_not_match_one_peer_may_come_by_another() {
    let both = policy("198.51.100.0/24").replace("]}]", ", {ipBlock: {cidr: 10.42.0.0/16}}]}]");
    let audit = with("kube-proxy-cluster-policy", &both);
    assert_eq!(of(&audit, FindingId::PolicyCannotMatchClient), Vec::<&Finding>::new());
    assert_eq!(of(&audit, FindingId::PolicyAllowsNode).len(), 1);
    let severities: Vec<Severity> = audit.findings.iter().map(|one| one.severity).collect();
    assert!(severities.is_sorted_by(|a, b| a >= b), "{severities:?}");
}

/// With Local the source is kept, and the policy is right.
#[test]
fn a_policy_that_sees_its_clients() {
    let ids = |objects: &str| {
        let audit = with("canal-rke", objects);
        audit.findings.iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&policy("198.51.100.0/24")), ids(""));
}

const LISTED: &str = "
kind: Ingress
apiVersion: networking.k8s.io/v1
metadata:
  {name: site, namespace: shop, annotations: {nginx.ingress.kubernetes.io/whitelist-source-range: 198.51.100.0/24}}
---
";

#[test]
fn an_ingress_that_judges_nodes() {
    let audit = behind("ingress-nginx", "kube-proxy-cluster-policy", LISTED);
    let [_, found] = pair(&audit, FindingId::SourceRangesSeeNode);
    assert_eq!(found.subject, "Ingress shop/site");
    assert!(found.title.starts_with("Ingress shop/site judges "), "{}", found.title);
    // The controller's ConfigMap, which might have it told otherwise, isn't in the capture.
    assert_eq!(found.confidence, Confidence::Likely);
    // Other sites have the same controller, and other lists.
    assert!(!commands(found).contains("loadBalancerSourceRanges"), "{}", commands(found));
    let steps: Vec<&str> = found.remedies[1].steps.iter().map(|one| &*one.text).collect();
    assert!(steps[0].contains("lets 198.51.100.0/24 reach"), "{steps:?}");
}

/// Who is to be kept out must not be let in by what to do until then.
#[test]
fn an_ingress_that_keeps_out_nobody() {
    let denied = LISTED.replace("whitelist", "denylist");
    let audit = behind("ingress-nginx", "kube-proxy-cluster-policy", &denied);
    let [_, found] = pair(&audit, FindingId::SourceRangesSeeNode);
    assert!(found.cause.text.contains("it isn't kept out"), "{}", found.cause.text);
    assert!(!commands(found).contains("loadBalancerSourceRanges"), "{}", commands(found));
    let steps: Vec<&str> = found.remedies[1].steps.iter().map(|one| &*one.text).collect();
    assert!(steps[0].contains("refuses 198.51.100.0/24 "), "{steps:?}");
}

/// Nodes and pods on the list stand for everybody who comes by way of them.
#[test]
fn an_ingress_that_lets_in_everybody() {
    let listed = LISTED.replace("198.51.100.0/24", "10.42.0.0/16");
    let audit = behind("ingress-nginx", "kube-proxy-cluster-policy", &listed);
    let [_, found] = pair(&audit, FindingId::SourceRangesSeeNode);
    assert!(found.title.starts_with("Ingress shop/site lets in everybody"), "{}", found.title);
    assert!(!found.cause.text.contains("shut out"), "{}", found.cause.text);
}

/// Whoever reaches it directly can claim to be anybody, whether or not its address is kept: no
/// rewriting is to blame.
#[test]
fn a_controller_that_believes_everybody() {
    let config = "
kind: ConfigMap
metadata: {name: controller, namespace: default}
data: {use-forwarded-headers: 'true'}
";
    let severities = |example: &str, objects: &str| {
        let audit = behind("ingress-nginx", example, objects);
        let [found] = of(&audit, FindingId::ForwardedForUntrusted)[..] else { panic!("{audit:?}") };
        assert_eq!(
            (&*found.subject, &found.caused_by[..]),
            ("ConfigMap default/controller", &[][..])
        );
        assert!(commands(found).contains(r#""proxy-real-ip-cidr":"PROXY-RANGE""#));
        // It is no broken expectation, as nobody expected anything.
        assert_eq!(of(&audit, FindingId::ExpectationBroken), [] as [&Finding; 0]);
        let rewriting = of(&audit, CLUSTER).first().map(|one| one.severity);
        (found.severity, rewriting)
    };
    // Nothing is judged by the address: it is unwanted, and breaks nothing.
    assert_eq!(severities("canal-rke", config), (Severity::Warning, None));
    let cluster = "kube-proxy-cluster-policy";
    assert_eq!(severities(cluster, config), (Severity::Warning, Some(Severity::Info)));
    let listed = format!("{LISTED}{config}");
    assert_eq!(severities("canal-rke", &listed), (Severity::Error, None));
}

/// A file and a whole node that answers hang on; what hangs on nothing is no finding.
#[test]
fn what_was_not_captured_and_answers_hang_on() {
    let without = |left: &dyn Fn(&str) -> bool| {
        let mut files = files("canal-rke", "");
        files.remove("capture.json");
        files.insert("capture.json".to_owned(), br#"{"schema": "unmasq.capture/v1"}"#.to_vec());
        files.retain(|path, _| !left(path));
        audited(files, &Expectations::default())
    };
    let whole = without(&|_| false);
    assert_eq!(of(&whole, FindingId::MissingNodeState), [] as [&Finding; 0]);

    let routes = without(&|path| path == "nodes/n1/ip-route.json");
    let [found] = of(&routes, FindingId::MissingNodeState)[..] else { panic!("{routes:?}") };
    assert_eq!((&*found.subject, found.severity), ("ip-route.json", Severity::Warning));
    let rows = || found.affected.rows.iter().map(|row| &routes.matrix.rows[*row]);
    let ways: usize = rows().map(|row| row.count).sum();
    assert!(ways > 0);
    assert_eq!(
        found.title,
        format!("ip-route.json of n1 was not captured, and {ways} ways hang on it")
    );
    assert_eq!(found.affected.nodes, ["n1"]);
    let command = "ip -j -d route show table all > CAPTURE/nodes/n1/ip-route.json   # on n1\n";
    assert_eq!(commands(found), command);

    let node = without(&|path| path.starts_with("nodes/n2/"));
    let [found] = of(&node, FindingId::MissingNodeState)[..] else { panic!("{node:?}") };
    assert_eq!((&*found.subject, &found.affected.nodes[..]), ("state", &["n2".to_owned()][..]));
    assert!(commands(found).starts_with("unmasq collect -o n2/ --node n2\n"), "{found:?}");
    // What these sets hold follows from the IPPools: it is an assumption, and nothing is unknown.
    let assumed = without(&|path| path == "nodes/n1/ipset.save");
    assert_eq!(of(&assumed, FindingId::MissingNodeState), [] as [&Finding; 0]);
    assert!(assumed.totals.unknown == 0 && !assumed.assumptions.is_empty());
}

/// The example with these lines in the nat table of n1, and without some of its files.
fn with_rules(rules: &str, left: &str) -> Audit {
    let mut files = files("kube-proxy-cluster-policy", "");
    let path = "nodes/n1/iptables-save";
    let text = String::from_utf8(files[path].clone()).unwrap();
    assert!(!text.contains("*nat"), "{text}");
    let table = "# Generated by iptables-nft-save v1.8.9 (nf_tables) on Tue Nov 24 16:39:02 2026\n\
                 *nat\n:POSTROUTING ACCEPT [0:0]\n";
    files.insert(path.to_owned(), format!("{text}{table}{rules}COMMIT\n").into_bytes());
    if !left.is_empty() {
        files.insert("capture.json".to_owned(), br#"{"schema": "unmasq.capture/v1"}"#.to_vec());
        files.retain(|path, _| !path.ends_with(left));
    }
    audited(files, &Expectations::default())
}

const OF_SERVICE: &str = ":KUBE-SVC-GONE - [0:0]\n:KUBE-SEP-GONE - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
    -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
    -A KUBE-SVC-GONE -j KUBE-SEP-GONE\n-A KUBE-SEP-GONE -p tcp -j DNAT --to-destination 10.42.9.9:80\n";
const OF_CALICO: &str = ":cali-POSTROUTING - [0:0]\n-A POSTROUTING -j cali-POSTROUTING\n\
    -A cali-POSTROUTING -s 10.99.0.0/16 -j MASQUERADE\n";

/// No packet meets them: they are found all the same.
#[test]
fn rules_that_nobody_looks_after() {
    let left = |audit: &Audit| -> Vec<(String, Severity, Confidence)> {
        let all = of(audit, FindingId::LeftoverRules).into_iter();
        all.map(|one| {
            assert_eq!(one.affected.nodes, ["n1"]);
            (one.subject.clone(), one.severity, one.confidence)
        })
        .collect()
    };
    let found = |name: &str, confidence| vec![(name.to_owned(), Severity::Warning, confidence)];
    assert_eq!(left(&with_rules("", "")), []);
    // The ConfigMap says: mode nftables.
    let audit = with_rules(OF_SERVICE, "");
    assert_eq!(left(&audit), found("kube-proxy's iptables mode", Confidence::Certain));
    let [found_one] = of(&audit, FindingId::LeftoverRules)[..] else { panic!() };
    assert_eq!(texts(found_one), ["n1: 2 chains with 2 rules: KUBE-SVC-GONE, KUBE-SEP-GONE"]);
    assert_eq!(found_one.owner, Owner::KubeProxy);
    // What kubelet makes tells of nobody.
    assert_eq!(left(&with_rules(":KUBE-MARK-MASQ - [0:0]\n-A KUBE-MARK-MASQ -j RETURN\n", "")), []);

    let calico = with_rules(OF_CALICO, "");
    assert_eq!(left(&calico), found("Calico", Confidence::Certain));
    let [found_one] = of(&calico, FindingId::LeftoverRules)[..] else { panic!() };
    assert!(
        commands(found_one)
            .starts_with("iptables-nft-save -t nat | grep -v cali | iptables-nft-restore -T nat\n"),
        "{}",
        commands(found_one)
    );
    // DaemonSets were seen, and processes weren't.
    assert_eq!(left(&with_rules(OF_CALICO, "/processes")), found("Calico", Confidence::Likely));
    // Where Calico runs they are its own.
    assert_eq!(left(&with("canal-rke", "")), []);
}

#[test]
fn rules_of_an_older_flannel_that_no_call_meets() {
    let rule = "-A POSTROUTING ! -s 10.99.0.0/16 -d 10.99.0.0/16 -m comment --comment \
                \"flanneld masq\" -j MASQUERADE\n";
    let audit = with_rules(rule, "");
    let [found] = of(&audit, FindingId::StaleFlannelRules)[..] else { panic!("{audit:?}") };
    assert_eq!(found.title, "Rules of an older flannel are left on n1");
    assert_eq!((found.severity, found.confidence), (Severity::Warning, Confidence::Likely));
    assert_eq!(found.affected.rows, [] as [usize; 0]);
    let step = &found.remedies[0].steps[0];
    let Action::Rules { node, changes } = &step.action else { panic!("{step:?}") };
    assert_eq!((node.as_str(), changes.len()), ("n1", 1));
    assert!(step.text.contains("! -s 10.99.0.0/16 -d 10.99.0.0/16 -j MASQUERADE"), "{step:?}");
}

/// canal with the rules of an old flannel in n1's POSTROUTING, in the place of today's or before them.
fn with_older_flannel(keeps_chains: bool, runs: bool, left: &str) -> Audit {
    let mut files = files("canal-rke", "");
    let path = "nodes/n1/iptables-save";
    let text = String::from_utf8(files[path].clone()).unwrap();
    let jump = "-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n";
    assert_eq!(text.matches(jump).count(), 1);
    let old = "-A POSTROUTING -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE\n";
    let spares = if keeps_chains {
        ""
    } else {
        "-A POSTROUTING -s 10.42.0.0/16 -d 10.42.0.0/16 -j RETURN\n"
    };
    files.insert(path.to_owned(), text.replace(jump, &format!("{spares}{old}{jump}")).into_bytes());
    if !keeps_chains {
        for name in ["iptables-save", "ip6tables-save"] {
            let text = files.get_mut(&format!("nodes/n1/{name}")).unwrap();
            let all = String::from_utf8(text.clone()).unwrap();
            let lines = all.lines().filter(|line| !line.contains("FLANNEL-"));
            *text = lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes();
        }
    }
    if !runs {
        files.insert("capture.json".to_owned(), br#"{"schema": "unmasq.capture/v1"}"#.to_vec());
        files.retain(|path, _| !path.ends_with("subnet.env") && !path.ends_with(left));
        for text in files.values_mut() {
            *text = String::from_utf8(text.clone()).unwrap().replace("flanneld", "otherd").into();
        }
    }
    audited(files, &Expectations::default())
}

/// Rules in POSTROUTING are those of the flannel that runs, where one runs that has no chain of its
/// own; where one has, or none runs, somebody left them.
#[test]
fn rules_of_an_older_flannel_that_runs() {
    const LEFT: FindingId = FindingId::StaleFlannelRules;
    const OWN: FindingId = FindingId::FlannelMasquerade;
    let of_n1 = |audit: &Audit, id: FindingId| -> Option<Finding> {
        let mut all = of(audit, id).into_iter();
        all.find(|one| one.cause.text.contains("POSTROUTING")).cloned()
    };
    let audit = with_older_flannel(false, true, "");
    assert_eq!(of_n1(&audit, LEFT), None);
    let own = of_n1(&audit, OWN).expect("a finding");
    assert!(own.cause.text.contains("has no chain of its own"), "{}", own.cause.text);
    // It leaves its rules where they are when it starts without the flag.
    let deleted = own.remedies[0].steps.iter().filter_map(|step| match &step.action {
        Action::Rules { node, changes } => Some((node.as_str(), changes.len())),
        _ => None,
    });
    assert_eq!(deleted.collect::<Vec<_>>(), [("n1", 1)]);

    let audit = with_older_flannel(true, true, "");
    let left = of_n1(&audit, LEFT).expect("a finding");
    assert!(left.cause.text.contains("today's flannel"), "{}", left.cause.text);

    let audit = with_older_flannel(false, false, "nothing");
    assert_eq!(of_n1(&audit, OWN), None);
    let left = of_n1(&audit, LEFT).expect("a finding");
    assert!(left.cause.text.contains("No flannel was seen to run"), "{}", left.cause.text);

    // Nobody looked whether one runs.
    let audit = with_older_flannel(false, false, "/processes");
    assert_eq!(of_n1(&audit, LEFT), None);
    let own = of_n1(&audit, OWN).expect("a finding");
    assert!(own.cause.text.contains("was not seen"), "{}", own.cause.text);
}
