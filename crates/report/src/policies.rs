//! NetworkPolicies that limit what comes of pods' own addresses being seen outside: YAML documents
//! for `kubectl apply`, complete.

use unmasq_fix::{Plan, Revealed};

use crate::audit::Subject;
use crate::comments::Comments;
use crate::yaml;

/// What changes for firewalls and hosts outside.
pub(crate) const MEANING: &str = "Firewalls there see these addresses in place of their nodes', and \
     where a router has a way back to them, hosts there can call pods by themselves.";
/// What the policies do.
pub(crate) const LIMITS: [&str; 3] = [
    "Into the pods, they let the cluster's own pods and nodes, and everybody at the ports of Services \
     that are for the outside (NodePort, LoadBalancer, externalIPs).",
    "Out of them, they let to the cluster, to endpoints of its Services, to port 53 anywhere, and to the \
     internet; not to private networks nor to those that nodes have a device in. What pods need there \
     must be added first.",
    "They act only where the network plugin enforces NetworkPolicies, which flannel alone doesn't. \
     Cilium takes an ipBlock for no node, unless its policy-cidr-match-mode says so.",
];

/// The policies as YAML; what stands beside them in comments.
pub fn policies(plan: &Plan, subject: &Subject<'_>) -> String {
    let mut text = String::new();
    let mut comments = Comments::new(&mut text);
    let of = subject.capture.map_or("this host".to_owned(), |one| format!("the capture {one}"));
    comments.say(&format!("Made by unmasq {} from {of}.", subject.version));
    let Revealed { pods, policies, left } = &plan.revealed;
    if pods.is_empty() {
        comments.say("No pod's own address becomes visible outside by this plan.");
        return text;
    }
    comments.say("By the plan, somebody outside gets the own addresses of pods of:");
    pods.iter().for_each(|one| comments.below(&one.to_string()));
    comments.say(MEANING);
    comments.say("These policies limit that. The plan doesn't need them, and doesn't apply them.");
    LIMITS.iter().for_each(|line| comments.say(line));
    if !left.is_empty() {
        comments.say("NOT LIMITED:");
        left.iter().for_each(|line| comments.below(line));
    }
    for policy in policies {
        text.push_str("---\n");
        text.push_str(&yaml::document(policy));
    }
    text
}
