//! The scenarios that come with the lab.

macro_rules! builtin {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $name, ".yaml")))),+]
    };
}

/// Names and texts, in the order in which they are listed.
pub const BUILTIN: &[(&str, &str)] = builtin![
    "canal-unused-pool",
    "flannel-host-masquerade",
    "kube-router-egress",
    "service-cluster-policy",
    "service-local-policy",
    "l7-forwarded-for",
    "proxy-protocol",
    "klipper-lb",
    "ip-masq-agent-empty-list",
    "stale-flannel-rules",
    "engine-subnet-overlap",
    "cluster-cidr-too-small",
    "policy-behind-masquerade",
];

/// The text of a scenario by its name.
pub fn builtin(name: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
