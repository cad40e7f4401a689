//! What is kept of a machine's arguments and files: only what Unmasq needs. The rest becomes `***`.
//!
//! Secrets can't be told from other values by their names or their looks, so it is the other way
//! round: a setting is kept if it is known to be one of the network, and its value if it is of
//! plain characters. A secret can only get through as the value of such a setting.
//!
//! | what | what is kept |
//! |---|---|
//! | arguments | the program and its subcommand; flags about the network with their values; other long flags' names |
//! | `daemon.json`, CNI configuration | by structure: what stands under names of network settings |
//! | k3s' and rke2's `config.yaml` | top-level settings that are flags about the network |
//! | `subnet.env` | flannel's own settings |
//! | files with rules | all but comments |

mod json;
mod yaml;

pub(super) use json::{Names, json};
pub(super) use yaml::yaml;

/// What stands in place of what is left out.
const MASK: &str = "***";

/// Flags about the network, without dashes.
const FLAGS: [&str; 66] = [
    "advertise-address",
    "allow-direct-routing",
    "bind-address",
    "bip",
    "bip6",
    "bridge",
    "bridge-accept-fwmark",
    "config",
    "config-dir",
    "config-file",
    "default-address-pool",
    "detect-local-mode",
    "devices",
    "direct-routing-device",
    "egress-masquerade-interfaces",
    "egress-selector-mode",
    "encap-ip",
    "excluded-cidrs",
    "feature-gates",
    "firewall-backend",
    "fixed-cidr",
    "fixed-cidr-v6",
    "gateway-interface",
    "gateway-mode",
    "hairpin-mode",
    "hostname-override",
    "iface",
    "iface-can-reach",
    "iface-regex",
    "ip-forward",
    "ip-forward-no-drop",
    "ip-masq",
    "ip6tables",
    "ipam",
    "iptables",
    "ipv4-native-routing-cidr",
    "ipv6",
    "ipv6-native-routing-cidr",
    "k8s-service-cidrs",
    "kube-proxy-replacement",
    "kube-subnet-mgr",
    "make-iptables-util-chains",
    "masq-chain",
    "masquerade-all",
    "metrics-port",
    "mtu",
    "native-routing-cidr",
    "net-config-path",
    "netfilter-mode",
    "network-plugin",
    "node-external-ip",
    "node-ip",
    "node-name",
    "nomasq-all-reserved-ranges",
    "pod-bridge-interface",
    "pod-cidr",
    "pod-interface-name-prefix",
    "proxy-mode",
    "public-ip",
    "random-fully",
    "routing-mode",
    "subnet-file",
    "tunnel",
    "tunnel-protocol",
    "userland-proxy",
    "v",
];

/// How other flags about the network begin.
const FLAG_BEGINNINGS: [&str; 18] = [
    "bpf-lb-",
    "cluster-",
    "cni-",
    "conntrack-",
    "disable",
    "enable-",
    "flannel-",
    "install-",
    "ip-masq-",
    "iptables-",
    "ipvs-",
    "masquerade-",
    "nodeport-",
    "overlay-",
    "run-",
    "service-",
    "servicelb-",
    "cni",
];

/// Never kept, whatever the name begins with: k3s has `--cluster-secret`.
const NEVER: [&str; 8] = ["auth", "cred", "key", "pass", "private", "secret", "sign", "token"];

/// Arguments on one line, separated by blanks. Words are kept before the first flag, where a
/// program has its subcommand, and where `is_program` tells one that an interpreter runs.
pub(super) fn arguments(arguments: &[&str], is_program: impl Fn(&str) -> bool) -> String {
    let mut state = State::Words;
    let mut kept = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let (text, next) = match argument.starts_with('-') {
            true => flag(argument, state),
            false => (word(argument, state, &is_program), state.after_word()),
        };
        kept.push(text);
        state = next;
    }
    kept.join(" ")
}

/// Flannel's settings of `subnet.env`, a line each.
pub(super) fn environment(text: &str) -> String {
    const NAMES: [&str; 6] = [
        "FLANNEL_NETWORK",
        "FLANNEL_SUBNET",
        "FLANNEL_IPV6_NETWORK",
        "FLANNEL_IPV6_SUBNET",
        "FLANNEL_MTU",
        "FLANNEL_IPMASQ",
    ];
    let known = |(name, value): (&str, &str)| NAMES.contains(&name) && is_plain(value);
    let keep = |line: &&str| line.split_once('=').is_some_and(known);
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

/// Files that nft and iptables-restore read, with comments emptied, so that lines keep their
/// numbers.
pub(super) fn rules(text: &str) -> String {
    let line = |line: &str| match line.trim_start().starts_with('#') {
        true => "#\n".to_owned(),
        false => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// What the next argument can be.
#[derive(Clone, Copy)]
enum State {
    /// The program, its subcommand, or a flag.
    Words,
    /// The value of a flag about the network, or a flag.
    Value,
    /// A flag for another program, without dashes (k3s' `--kube-proxy-arg`).
    Nested,
    /// A flag; a word is of no use.
    Flag,
    /// The value of a flag that is not known, whatever it looks like, or a flag.
    Anything,
}

impl State {
    fn after_word(self) -> State {
        match self {
            State::Words => State::Words,
            State::Value | State::Nested | State::Flag | State::Anything => State::Flag,
        }
    }
}

fn word(argument: &str, state: State, is_program: impl Fn(&str) -> bool) -> String {
    let keep = match state {
        State::Words | State::Value => is_plain(argument),
        State::Nested => is_nested(argument),
        State::Flag | State::Anything => is_plain(argument) && is_program(argument),
    };
    if keep { argument.to_owned() } else { MASK.to_owned() }
}

fn flag(argument: &str, state: State) -> (String, State) {
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (argument, None),
    };
    let bare = name.strip_prefix("--").or(name.strip_prefix('-')).unwrap_or(name);
    let next = match value {
        Some(_) => State::Flag,
        None if is_network(bare) => State::Value,
        None if is_for_another(bare) => State::Nested,
        None => State::Anything,
    };
    let known = is_network(bare) || is_for_another(bare);
    let named = known || (is_long(name) && !matches!(state, State::Anything));
    let text = match value {
        _ if !named => MASK.to_owned(),
        None => name.to_owned(),
        Some(value) if is_kept(bare, value) => argument.to_owned(),
        Some(_) => format!("{name}={MASK}"),
    };
    (text, next)
}

/// Whether a setting is kept with its value.
fn is_kept(name: &str, value: &str) -> bool {
    match is_for_another(name) {
        true => is_nested(value),
        false => is_network(name) && is_setting(name, value),
    }
}

/// Whether a value is one that a setting about the network can have.
fn is_setting(name: &str, value: &str) -> bool {
    let is_gate = |gate: &str| {
        gate.split_once('=')
            .is_some_and(|(name, on)| is_plain(name) && matches!(on, "true" | "false"))
    };
    is_plain(value) || (name == "feature-gates" && value.split(',').all(is_gate))
}

/// Whether `proxy-mode=nftables`, a flag without dashes, is kept.
fn is_nested(argument: &str) -> bool {
    let kept = |(name, value)| is_network(name) && is_setting(name, value);
    argument.split_once('=').is_some_and(kept)
}

/// Flags whose values are flags of other programs, without dashes.
fn is_for_another(name: &str) -> bool {
    matches!(name, "kube-proxy-arg" | "kubelet-arg")
}

fn is_network(name: &str) -> bool {
    let begins = || FLAG_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    let secret = || NEVER.iter().any(|part| name.contains(part));
    FLAGS.contains(&name) || (begins() && is_name(name) && !secret())
}

/// Whether it can be a flag's name and nothing more: `-pSECRET` has a value in it.
fn is_long(flag: &str) -> bool {
    flag.strip_prefix("--").is_some_and(is_name)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Addresses, ports, names, paths and lists of them; no assignment, no blank, no URL.
fn is_plain(value: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.:/,+-*!%".contains(c);
    value.chars().all(fits) && !value.contains("://")
}

#[cfg(test)]
mod tests;
