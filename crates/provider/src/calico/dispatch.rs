//! Felix's chains of workloads: which device leads where, and the profiles that allow everything.

use std::collections::BTreeMap;

use super::filter::{ACCEPTED, CLEAR_VERDICT};
use super::{Calico, Chain, Workload, commented, hash};
use crate::Source;

const DISPATCH: Source = Source {
    system: "Calico",
    version: "1f065ee8",
    url: "https://github.com/projectcalico/calico/blob/1f065ee81c7beb03f571db638c2843d598d69bc8/felix/rules/dispatch.go",
};
const ENDPOINTS: Source = Source {
    system: "Calico",
    version: "018190a6",
    url: "https://github.com/projectcalico/calico/blob/018190a67bef887320db854094b0866a95f35284/felix/rules/endpoints.go",
};
const PROFILES: Source = Source {
    system: "Calico",
    version: "0162f273",
    url: "https://github.com/projectcalico/calico/blob/0162f27378c0f5acf7974de977f01d258ec47c6d/felix/rules/policy.go",
};

/// From a workload, or to one.
#[derive(Clone, Copy)]
struct Way {
    dispatch: &'static str,
    matching: &'static str,
    endpoint: &'static str,
    profile: &'static str,
    word: &'static str,
}

const FROM: Way = Way {
    dispatch: "cali-from-wl-dispatch",
    matching: "--in-interface",
    endpoint: "cali-fw-",
    profile: "cali-pro-",
    word: "egress",
};
const TO: Way = Way {
    dispatch: "cali-to-wl-dispatch",
    matching: "--out-interface",
    endpoint: "cali-tw-",
    profile: "cali-pri-",
    word: "ingress",
};

impl Calico {
    pub(super) fn dispatch(&self) -> Vec<Chain> {
        let mut devices: Vec<&str> =
            self.workloads.iter().map(|workload| &*workload.device).collect();
        devices.sort_unstable();
        devices.dedup();
        let mut chains = Vec::new();
        for way in [FROM, TO] {
            chains.extend(dispatch_chains(way, &devices));
            chains.extend(self.workloads.iter().map(|workload| workload.chain(way)));
            let profiles: BTreeMap<String, bool> =
                self.workloads.iter().flat_map(Workload::profiles).collect();
            chains.extend(profiles.iter().map(|(name, allows)| profile(way, name, *allows)));
        }
        chains
    }
}

/// The root chain, and one for each next character that several devices share.
fn dispatch_chains(way: Way, devices: &[&str]) -> Vec<Chain> {
    let common = common_prefix(devices);
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for device in devices {
        let prefix = device.get(..common + 1).unwrap_or(device);
        groups.entry(prefix).or_default().push(device);
    }
    let unknown = || commented("Unknown interface", "--jump DROP");
    let one = |device: &str| {
        let chain = hash::chain_name(way.endpoint, device);
        format!("{} {device} --goto {chain}", way.matching)
    };
    let mut root = Vec::new();
    let mut chains = Vec::new();
    for (prefix, members) in groups {
        if let [device] = members[..] {
            root.push(one(device));
            continue;
        }
        let child = format!("{}-{}", way.dispatch, &prefix[common..]);
        root.push(format!("{} {prefix}+ --goto {child}", way.matching));
        let texts = members.into_iter().map(one).chain([unknown()]).collect();
        chains.push(Chain::new(child, &DISPATCH, texts));
    }
    root.push(unknown());
    chains.push(Chain::new(way.dispatch, &DISPATCH, root));
    chains
}

fn common_prefix(names: &[&str]) -> usize {
    let Some((first, rest)) = names.split_first() else { return 0 };
    let shared = |name: &str| {
        first.bytes().zip(name.bytes()).take_while(|(one, other)| one == other).count()
    };
    rest.iter().map(|name| shared(name)).min().unwrap_or(first.len())
}

impl Workload {
    /// Kubernetes gives a pod the profiles of its namespace, which allows everything, and of its
    /// service account, which has no rules.
    fn profiles(&self) -> [(String, bool); 2] {
        let Workload { namespace, service_account, .. } = self;
        [(format!("kns.{namespace}"), true), (format!("ksa.{namespace}.{service_account}"), false)]
    }

    fn chain(&self, way: Way) -> Chain {
        let mut texts = vec![
            "-m conntrack --ctstate RELATED,ESTABLISHED --jump ACCEPT".into(),
            "-m conntrack --ctstate INVALID --jump DROP".into(),
            CLEAR_VERDICT.into(),
        ];
        if way.endpoint == FROM.endpoint {
            texts.push(commented(
                "Drop VXLAN encapped packets originating in workloads",
                "-p 17 -m multiport --destination-ports 4789 --jump DROP",
            ));
            texts.push(commented(
                "Drop IPinIP encapped packets originating in workloads",
                "-p 4 --jump DROP",
            ));
        }
        for (name, _) in self.profiles() {
            texts.push(format!("--jump {}", hash::chain_name(way.profile, &name)));
            texts.push(commented(
                "Return if profile accepted",
                &format!("{ACCEPTED} --jump RETURN"),
            ));
        }
        texts.push(commented("Drop if no profiles matched", "--jump DROP"));
        Chain::new(hash::chain_name(way.endpoint, &self.device), &ENDPOINTS, texts)
    }
}

/// A RETURN at the end is stripped, and the first rule says what the chain is. Felix of 2018 had
/// the RETURN and no such comment (kubernetes/kubernetes issue 61005).
fn profile(way: Way, name: &str, allows: bool) -> Chain {
    let rule = if allows { "--jump MARK --set-mark 0x10000/0x10000" } else { "" };
    let comment = format!("Profile {name} {}", way.word);
    Chain::new(hash::chain_name(way.profile, name), &PROFILES, vec![commented(&comment, rule)])
}
