//! Captures whose nodes and objects have names that a shell would read something into: every
//! command of every finding keeps them whole. Those of findings that come from rows are looked at
//! in the tests of their descriptions too.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

mod captured;
mod shells;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use unmasq_audit::change;
use unmasq_audit::expect::Expectations;
use unmasq_audit::{Action, Audit, Finding, FindingId, Instruction, Request, Undo, audit};
use unmasq_cluster::read;

/// The audit of an example with more objects and other files; without those that `left` names.
fn hostile(example: &str, objects: &str, more: &[(&str, &str)], left: &str) -> Audit {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
    let mut files: BTreeMap<String, Vec<u8>> = captured::files(&root);
    files.insert("capture.json".to_owned(), br#"{"schema": "unmasq.capture/v1"}"#.to_vec());
    files.insert("kubernetes/more.yaml".to_owned(), objects.as_bytes().to_vec());
    files.retain(|path, _| left.is_empty() || !path.contains(left));
    for (path, text) in more {
        files.entry((*path).to_owned()).or_default().extend(text.as_bytes());
    }
    let contents = read::capture(&files).unwrap();
    let cluster = shells::named_hostile(&contents.nodes, &contents.objects);
    audit(&cluster, &Expectations::default(), Request::default(), &|_, _| {})
}

fn commands(finding: &Finding) -> Vec<String> {
    let mut all = Vec::new();
    let remedies = finding.remedies.iter();
    for remedy in remedies.clone() {
        remedy.steps.iter().for_each(|step| of_action(&step.action, &mut all));
        all.extend(remedy.requires.iter().flat_map(|one| &one.check).filter_map(typed));
        for undo in remedy.undo() {
            match undo {
                Undo::Action(action) => of_action(&action, &mut all),
                Undo::ByHand(instruction) => all.extend(typed(&instruction)),
            }
        }
    }
    all.extend(finding.evidence.iter().filter_map(|one| one.trace.clone()));
    all
}

/// Of those actions that have no words of their own, `unmasq-report` writes the commands.
fn of_action(action: &Action, all: &mut Vec<String>) {
    match action {
        Action::Rules { changes, .. } => all.extend(change::commands(changes).unwrap()),
        Action::Tables { changes, .. } => all.extend(change::table_commands(changes).unwrap()),
        Action::ByHand { instructions, undo } => {
            all.extend(instructions.iter().chain(undo).filter_map(typed));
        }
        Action::Patch { .. }
        | Action::Environment { .. }
        | Action::Argument { .. }
        | Action::File { .. }
        | Action::Restart { .. } => {}
    }
}

fn typed(instruction: &Instruction) -> Option<String> {
    match instruction {
        Instruction::Command(text) => Some(text.clone()),
        Instruction::Sentence(_) | Instruction::Literal(_) => None,
    }
}

const POLICY: &str = "
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: web, namespace: default}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 198.51.100.0/24}}]}]
";
const OBJECTS: &str = "
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: node, namespace: default}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{ipBlock: {cidr: 10.42.0.0/16}}]}]
---
kind: Service
metadata: {name: inner, namespace: shop}
spec: {type: ClusterIP, clusterIP: 10.43.0.90, externalTrafficPolicy: Local}
---
kind: ConfigMap
metadata: {name: controller, namespace: default}
data: {use-forwarded-headers: 'true'}
---
kind: Ingress
apiVersion: networking.k8s.io/v1
metadata:
  {name: site, namespace: shop, annotations: {nginx.ingress.kubernetes.io/whitelist-source-range: 198.51.100.0/24}}
";

#[test]
fn every_command_keeps_hostile_names_whole() {
    const LEFT: &str = "*nat\n:POSTROUTING ACCEPT [0:0]\n:cali-POSTROUTING - [0:0]\n\
        -A POSTROUTING -j cali-POSTROUTING\n\
        -A cali-POSTROUTING -s 192.168.0.0/16 -j MASQUERADE\nCOMMIT\n";
    let cluster = "kube-proxy-cluster-policy";
    let audits = [
        hostile("canal-rke", OBJECTS, &[], ""),
        hostile("canal-rke", "", &[], "nodes/n2/"),
        hostile("canal-rke", "", &[], "nodes/n1/ip-route.json"),
        hostile("flannel-host", "", &[], ""),
        hostile("kube-router-dualstack", "", &[], ""),
        hostile(cluster, POLICY, &[], ""),
        hostile(cluster, OBJECTS, &[("nodes/n1/iptables-legacy-save", LEFT)], ""),
    ];
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut checked: BTreeSet<String> = BTreeSet::new();
    for finding in audits.iter().flat_map(|audit| &audit.findings) {
        found.insert(finding.id.id());
        checked.extend(commands(finding));
    }
    for command in &checked {
        shells::check(command);
    }
    let hostile = checked.iter().filter(|command| command.contains("pwned"));
    let hostile = hostile.count();
    assert!(hostile > 15, "{hostile}");
    let wanted = [
        FindingId::CalicoUnusedPool,
        FindingId::ExternalTrafficPolicyCluster,
        FindingId::HostMasquerade,
        FindingId::KubeRouterPodEgress,
        FindingId::LeftoverRules,
        FindingId::LocalPolicyInvalid,
        FindingId::MissingNodeState,
        FindingId::PolicyAllowsNode,
        FindingId::PolicyCannotMatchClient,
    ];
    for id in wanted {
        assert!(found.contains(id.id()), "{id} is not among {found:?}");
    }
}
