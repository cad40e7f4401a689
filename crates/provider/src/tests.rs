//! Small cases, written by hand from the upstream sources.

mod calico;
mod engine;
mod flannel;
mod others;

use ipnet::IpNet;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// The lines of a text, each without the indentation that it has here.
fn check(found: &str, expected: &str) {
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    };
    assert_eq!(lines(found), lines(expected));
    assert!(found.is_empty() || found.ends_with('\n'));
}

/// Everything that is written in some test, so that no source is missed.
fn everything() -> Vec<Rules> {
    let mut all = Vec::new();
    all.extend(flannel::examples());
    all.extend(calico::examples());
    all.extend(engine::examples());
    all.extend(others::examples());
    all
}

#[test]
fn each_line_names_a_file_at_a_commit_or_a_page() {
    let mut systems = std::collections::BTreeSet::new();
    for line in everything().iter().flat_map(Rules::lines) {
        let Source { system, version, url } = *line.source;
        systems.insert(system);
        assert!(!line.text.contains('\n'), "{line:?}");
        let Some(file) = url.split_once("/blob/").map(|(_, file)| file) else {
            assert!(url.starts_with("https://") && system == "host", "{line:?}");
            continue;
        };
        let (commit, path) = file.split_once('/').unwrap();
        assert_eq!(commit.len(), 40, "{url}");
        assert!(commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{url}");
        assert!(commit.starts_with(version) && version.len() == 8, "{url}");
        assert!(!path.is_empty(), "{url}");
    }
    let expected = [
        "Calico",
        "Docker",
        "flannel",
        "host",
        "ip-masq-agent",
        "klipper-lb",
        "kube-router",
        "portmap",
    ];
    assert_eq!(systems.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn tables_come_in_the_order_of_their_first_line() {
    static SOURCE: Source = Source { system: "host", version: "none", url: "https://example.com" };
    let mut rules = Rules::new(Family::V6);
    rules.rule(Table::Raw, &SOURCE, "-A PREROUTING -j ACCEPT");
    rules.set(&SOURCE, "create a hash:ip");
    rules.policy(Table::Filter, &SOURCE, "INPUT", "DROP");
    rules.chain(Table::Raw, &SOURCE, "MINE");
    rules.push(Place::Nft, &SOURCE, "add table ip6 a");
    check(
        &rules.iptables(),
        "*raw
         -A PREROUTING -j ACCEPT
         :MINE - [0:0]
         COMMIT
         *filter
         :INPUT DROP [0:0]
         COMMIT",
    );
    check(&rules.ipset(), "create a hash:ip");
    check(&rules.nft(), "add table ip6 a");
    assert_eq!(rules.lines().len(), 5);
    assert_eq!(SOURCE.to_string(), "host none: https://example.com");
}
