//! What settings say and nobody can go by: values and files that can't be read, places that
//! contradict each other.
//!
//! In: a cluster. Out: [`Doubt`]s, each with its places and what to do. Nothing here is a fault of a
//! rule: what packets meet is in the rules as they were captured. But causes and remedies are told
//! by the settings.

use unmasq_cluster::Cluster;
use unmasq_cluster::networks::Ranges;
use unmasq_cluster::settings::{Contradiction, Unread, Unreadable};
use unmasq_model::packet::Family;

use crate::dependent::Dependence;

/// Something that settings say and nobody can go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// Of which kind.
    pub kind: DoubtKind,
    /// Where it stands, the place that is believed first.
    pub places: Vec<String>,
    /// A sentence.
    pub text: String,
    /// What to do.
    pub mend: String,
}

impl Doubt {
    /// All of it in a line.
    pub fn line(&self) -> String {
        format!("{}: {}", self.text, self.mend)
    }
}

/// Why nobody can go by something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubtKind {
    /// It can't be read.
    Unreadable,
    /// Places say different things.
    Contradictory,
}

/// No more places of one kind than these are named in a sentence.
const FEW: usize = 3;

/// Longer values are cut.
const LONG: usize = 60;

fn shortened(value: &str) -> String {
    match value.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// Those of a cluster.
pub(crate) fn doubts(cluster: &Cluster) -> Vec<Doubt> {
    let mut all: Vec<Doubt> = cluster.settings.unreadable.iter().map(unread).collect();
    all.extend(cluster.settings.contradictions().iter().map(contradictory));
    for (family, version) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
        let networks = &cluster.networks;
        all.extend(conflict(networks.cluster_pods(family), &format!("all pods' {version} range")));
        all.extend(conflict(networks.services(family), &format!("the Services' {version} range")));
    }
    all
}

/// Those of settings that depend on the source: words of lists that are no network.
pub(crate) fn of_lists(dependences: &[Dependence]) -> Vec<Doubt> {
    let unread = dependences.iter().filter(|one| !one.unread.is_empty());
    let doubt = |one: &Dependence| {
        let place = one.place();
        let mut words: Vec<String> =
            one.unread.iter().take(FEW).map(|word| shortened(word)).collect();
        if one.unread.len() > FEW {
            words.push(format!("{} more", one.unread.len() - FEW));
        }
        let (words, are) = (words.join(", "), if one.unread.len() == 1 { "is" } else { "are" });
        Doubt {
            kind: DoubtKind::Unreadable,
            text: format!("{place}: {words} {are} no network, so whom the list means isn't known"),
            places: vec![place],
            mend: "write networks and addresses with commas between them, and capture again"
                .to_owned(),
        }
    };
    let mut all: Vec<Doubt> = unread.map(doubt).collect();
    all.dedup();
    all
}

fn unread(found: &Unreadable) -> Doubt {
    let place = found.place.to_string();
    let (text, mend) = match &found.what {
        Unread::Value(value) => (
            format!("{place}: {} can't be its value, so it isn't known", shortened(value)),
            "correct it, and capture again",
        ),
        Unread::LeftOut => (
            format!("{place}: its value was left out of the capture, so it isn't known"),
            "look at it there",
        ),
        Unread::Document(why) => (
            format!("{place}: {why}, so none of its settings is known"),
            "correct it, and capture again",
        ),
    };
    Doubt { kind: DoubtKind::Unreadable, places: vec![place], text, mend: mend.to_owned() }
}

fn contradictory(found: &Contradiction) -> Doubt {
    let said = found.values.iter().map(|(value, place)| format!("{} ({place})", shortened(value)));
    let said: Vec<String> = said.collect();
    Doubt {
        kind: DoubtKind::Contradictory,
        places: found.values.iter().map(|(_, place)| place.to_string()).collect(),
        text: format!("{} is {}; the first is taken", found.setting, said.join(" and ")),
        mend: "write the one that is meant in all of these places, and restart what reads it"
            .to_owned(),
    }
}

fn conflict(ranges: &Ranges, what: &str) -> Option<Doubt> {
    if ranges.conflicts.is_empty() {
        return None;
    }
    let list =
        |of: &[ipnet::IpNet]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut others: Vec<String> = ranges
        .conflicts
        .iter()
        .take(FEW)
        .map(|one| format!("{} ({})", list(&one.ranges), one.place))
        .collect();
    if ranges.conflicts.len() > FEW {
        others.push(format!("{} more", ranges.conflicts.len() - FEW));
    }
    let first = ranges.places.first().map(|place| format!(" ({place})")).unwrap_or_default();
    let conflicts = ranges.conflicts.iter().map(|one| &one.place);
    Some(Doubt {
        kind: DoubtKind::Contradictory,
        places: ranges.places.iter().chain(conflicts).map(ToString::to_string).collect(),
        text: format!(
            "{what} is {}{first} and {}; the first is taken",
            list(&ranges.ranges),
            others.join(" and ")
        ),
        mend: "write the one that is in use in all of these places, or say it with --cluster-cidr \
               if it is that of pods"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use unmasq_cluster::kubernetes::Objects;
    use unmasq_cluster::{Node, Overrides, Process};

    use super::*;

    fn map(name: &str, key: &str, text: &str) -> serde_json::Value {
        json!({"kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": name},
               "data": {key: text}})
    }

    fn told(nodes: Vec<Node>, documents: &[serde_json::Value]) -> Vec<String> {
        let mut objects = Objects::default();
        documents.iter().for_each(|one| objects.add(one).unwrap());
        let cluster = Cluster::new(nodes, objects, Overrides::default());
        doubts(&cluster).iter().map(Doubt::line).collect()
    }

    fn node(program: &str, arguments: &[&str], files: &[(&str, &str)]) -> Node {
        let arguments = arguments.iter().map(|&one| one.to_owned()).collect();
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Node {
            name: "n1".to_owned(),
            processes: Some(vec![Process { name: program.to_owned(), arguments }]),
            files: files.iter().map(owned).collect::<BTreeMap<_, _>>(),
            ..Node::default()
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        let broken = "{\n  \"Network\": \"10.42.0.0/16\",\n  \"Backend\" vxlan\n}";
        let cni = "{\"plugins\": [\n {\"ipMasq\": \"yes\"}]}";
        let files = [
            ("/etc/cni/net.d/10-x.conflist", "{\n\"plugins\": ["),
            ("/etc/cni/net.d/20-y.conf", cni),
            ("/etc/cni/net.d/calico-kubeconfig", "token: ***"),
        ];
        let again = "correct it, and capture again";
        assert_eq!(
            told(
                vec![node("kube-proxy", &["--masquerade-all=maybe", "--proxy-mode=***"], &files)],
                &[map("flannel", "net-conf.json", broken), map("kube-proxy", "config.conf", "- 1")]
            ),
            [
                "node n1, kube-proxy --proxy-mode: its value was left out of the capture, so it \
                 isn't known: look at it there"
                    .to_owned(),
                format!(
                    "node n1, kube-proxy --masquerade-all: maybe can't be its value, so it isn't \
                     known: {again}"
                ),
                format!(
                    "ConfigMap kube-system/kube-proxy, config.conf: it has no settings, by their \
                     names, so none of its settings is known: {again}"
                ),
                format!(
                    "ConfigMap kube-system/flannel, net-conf.json, line 3: it is no JSON and no \
                     YAML, so none of its settings is known: {again}"
                ),
                format!(
                    "node n1, /etc/cni/net.d/10-x.conflist:2: it is no JSON and no YAML, so none \
                     of its settings is known: {again}"
                ),
                format!(
                    "node n1, /etc/cni/net.d/20-y.conf:2: plugins.0.ipMasq: \"yes\" can't be its \
                     value, so it isn't known: {again}"
                ),
            ]
        );
    }

    #[test]
    fn places_that_contradict_each_other_are_told() {
        let proxy = |mode: &str, ranges: &str| {
            let text = format!(
                "kind: KubeProxyConfiguration\nmode: {mode}\nclusterCIDR: {ranges}\n\
                 iptables: {{masqueradeAll: true}}\nnftables: {{masqueradeAll: false}}"
            );
            map("kube-proxy", "config.conf", &text)
        };
        let run = |mode: &str| {
            let arguments = [format!("--proxy-mode={mode}"), "--cluster-cidr=10.1.0.0/16".into()];
            vec![node("kube-proxy", &arguments.each_ref().map(String::as_str), &[])]
        };
        assert_eq!(told(run("ipvs"), &[proxy("ipvs", "10.1.0.0/16")]), Vec::<String>::new());
        assert_eq!(
            told(run("iptables"), &[proxy("nftables", "10.2.0.0/16")]),
            [
                "kube-proxy's mode is iptables (node n1, kube-proxy --proxy-mode) and nftables \
                 (ConfigMap kube-system/kube-proxy, config.conf: mode); the first is taken: write \
                 the one that is meant in all of these places, and restart what reads it",
                "all pods' IPv4 range is 10.1.0.0/16 (node n1, kube-proxy --cluster-cidr) and \
                 10.2.0.0/16 (ConfigMap kube-system/kube-proxy, config.conf: clusterCIDR); the \
                 first is taken: write the one that is in use in all of these places, or say it \
                 with --cluster-cidr if it is that of pods",
            ]
        );
    }
}
