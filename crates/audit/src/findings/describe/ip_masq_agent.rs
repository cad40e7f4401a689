//! ip-masq-agent's list of networks that nothing is masqueraded to.

use ipnet::IpNet;
use unmasq_cluster::settings::Place;
use unmasq_model::packet::Family;

use super::{
    Context, Described, Group, Known, cause, command, json, literal, networks, patch, pin, rules,
    step, title, undone, unseen,
};
use crate::{Owner, Remedy, Step, quoted, shell};

pub(super) fn describe(context: &Context<'_, '_>, group: &Group) -> Described {
    let agent = &context.cluster.settings.ip_masq_agent;
    let list = agent.non_masquerade_cidrs.first();
    let has = list.map_or(&[][..], |setting| setting.value.as_slice());
    let needed: Vec<IpNet> = [Family::V4, Family::V6]
        .iter()
        .flat_map(|family| {
            let mut nets = networks::pod_networks(context.cluster, *family);
            nets.extend(networks::node_networks(context.cluster, *family));
            nets
        })
        .collect();
    let missed: Vec<IpNet> = needed
        .iter()
        .copied()
        .filter(|net| !has.iter().any(|one| one.contains(net)))
        .filter(|net| group.families.contains(&Family::of(net.addr())))
        .collect();
    let owner = group.suspect.cause.owner;
    let named = owner.name();
    let known = list.map(|setting| {
        Known::new(format!("nonMasqueradeCIDRs: [{}]", networks::listed(has)), &setting.place)
    });
    let says = match (list, has.is_empty()) {
        (Some(_), true) => {
            "Its list is empty, so it masquerades everything, calls from outside too".to_owned()
        }
        (Some(_), false) => format!("Its list has {}", networks::listed(has)),
        (None, _) => "No list of it was seen".to_owned(),
    };
    let text = format!(
        "{named} masquerades what goes to addresses outside of its list of networks, whoever sends \
         it. {says}. Pods and nodes are in {}.",
        networks::listed(&needed)
    );
    let (confidence, cause) = cause(group, text, known);
    let mut new: Vec<IpNet> = has.to_vec();
    new.extend(&missed);
    let mut requires = vec![unseen(
        "the networks on the list have a way back to pods",
        command("ip route get POD   # on a host of each network"),
    )];
    let families: Vec<Family> = group.families.iter().copied().collect();
    let unknown = networks::unknown_range(context.cluster, &families);
    let steps = match unknown {
        Some(_) => Vec::new(),
        None => vec![listed(context, owner, has, &IpNet::aggregate(&new))],
    };
    requires.extend(unknown);
    let remedy = Remedy {
        lasting: true,
        title: "Put the networks of pods and nodes on the list".to_owned(),
        steps,
        requires,
    };
    let nodes = rules::nodes(&rules::alike(context, &group.suspect));
    let pins: Vec<pin::Pin> =
        group.families.iter().filter_map(|family| pin::at_pods(context, group, *family)).collect();
    let mut remedies = vec![remedy];
    remedies.extend(pin::remedy(context, &nodes, &pins));
    let left = networks::listed(&missed);
    Described {
        title: match (list, has.is_empty(), missed.is_empty()) {
            (Some(_), true, _) => {
                format!("The list of {named} is empty: it masquerades everything")
            }
            (_, _, false) => title(
                format!("The list of {named} leaves out {left}"),
                format!("The list of {named} leaves out networks of pods or nodes"),
            ),
            (_, _, true) => format!("{named} masquerades calls between pods, nodes and clients"),
        },
        confidence,
        cause,
        remedies,
    }
}

fn listed(context: &Context<'_, '_>, owner: Owner, has: &[IpNet], nets: &[IpNet]) -> Step {
    let list = |nets: &[IpNet]| format!("nonMasqueradeCIDRs: [{}]", networks::listed(nets));
    if owner != Owner::IpMasqAgent {
        return undone(
            format!(
                "{} has no ConfigMap: run ip-masq-agent with this list, or give it the ranges of pods where it takes them from",
                owner.name()
            ),
            [literal(list(nets))],
            [literal(list(has))],
        );
    }
    let agent = &context.cluster.settings.ip_masq_agent;
    let place = agent.non_masquerade_cidrs.first().map(|setting| &setting.place);
    let (namespace, name, key) = match place {
        Some(Place::Object { kind: "ConfigMap", namespace, name, part, .. }) => {
            (namespace.as_str(), name.as_str(), part.as_str())
        }
        Some(_) | None => ("kube-system", "ip-masq-agent", "config"),
    };
    let map = context.cluster.objects.config_map(namespace, name);
    let before = map.and_then(|map| map.data.get(key)).map_or("", String::as_str);
    let text = config(before, nets);
    if map.is_none() {
        let kubectl = format!("kubectl -n {}", quoted(namespace));
        let list = quoted(&format!("--from-file={key}=/dev/stdin"));
        let (new, old) = (shell::operand(name), shell::object("configmap", name));
        return undone(
            "Give ip-masq-agent a list; it reads it every minute",
            [command(format!("{kubectl} create configmap {list} {new} <<'EOF'\n{text}EOF"))],
            [command(format!("{kubectl} delete {old}"))],
        );
    }
    let data = |text: &str| format!(r#"{{"data":{{{}:{}}}}}"#, json(key), json(text));
    step(
        "ip-masq-agent reads the list every minute, without a restart",
        patch("configmap", Some(namespace), name, &data(&text), data(before)),
    )
}

/// The configuration with another list, and what else it says.
fn config(before: &str, nets: &[IpNet]) -> String {
    let mut text = "nonMasqueradeCIDRs:\n".to_owned();
    for net in nets {
        text.push_str(&format!("- {net}\n"));
    }
    for key in ["masqLinkLocal", "masqLinkLocalIPv6", "resyncInterval"] {
        let words = before.split(['\n', ',', '{', '}']);
        let value = words.filter_map(|part| part.split_once(':')).find_map(|(name, value)| {
            (name.trim().trim_matches('"') == key).then(|| value.trim().trim_matches('"'))
        });
        if let Some(value) = value {
            text.push_str(&format!("{key}: {value}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::config;

    #[test]
    fn another_list_and_the_same_rest() {
        let nets = ["10.0.0.0/24", "10.42.0.0/16"].map(|net| net.parse().unwrap());
        let expected = "nonMasqueradeCIDRs:\n- 10.0.0.0/24\n- 10.42.0.0/16\nmasqLinkLocal: true\nresyncInterval: 60s\n";
        let yaml = "nonMasqueradeCIDRs: []\nresyncInterval: 60s\nmasqLinkLocal: true\n";
        let json = r#"{"nonMasqueradeCIDRs": ["10.9.0.0/16"], "masqLinkLocal": true, "resyncInterval": "60s"}"#;
        assert_eq!(config(yaml, &nets), expected);
        assert_eq!(config(json, &nets), expected);
        assert_eq!(config("", &nets), "nonMasqueradeCIDRs:\n- 10.0.0.0/24\n- 10.42.0.0/16\n");
    }
}
