//! Whole captures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use unmasq_model::host::Seen;
use unmasq_parse::capture::parse;

use crate::Case;
use crate::folder::files;

pub(crate) const TESTS: &[Case] =
    &[("capture::captures_of_kube_proxy_are_read_without_complaint", "captures", read)];

fn read(captures: &Path) {
    let mut count = 0;
    for entry in fs::read_dir(captures).expect("a folder can be listed") {
        one(&entry.expect("an entry can be read").path());
        count += 1;
    }
    assert!(count > 0, "no capture in {}", captures.display());
}

fn one(folder: &Path) {
    let name = folder.display();
    let load = |path: &Path| {
        let inside = path.strip_prefix(folder).expect("it was listed below the folder");
        (inside.display().to_string(), fs::read(path).expect("a file can be read"))
    };
    let files: BTreeMap<_, _> = files(folder).iter().map(|path| load(path)).collect();
    let node = parse(&files).expect("a capture").node("n1").expect("its node");
    assert_eq!(node.diagnostics, [], "{name}");
    let host = &node.host;
    assert_eq!(host.backends.nft, Seen::Captured, "{name}");
    assert_eq!(host.backends.iptables_nft, Seen::Captured, "{name}");
    assert_eq!(host.backends.ip6tables_nft, Seen::Captured, "{name}");
    let links = host.links.as_ref().expect("devices");
    assert!(links.iter().any(|link| &*link.name == "cni0" && !link.addresses.is_empty()), "{name}");
    for routes in [&host.routes4, &host.routes6] {
        let routes = routes.as_ref().expect("routes");
        assert!(routes.len() > 10 && routes.iter().all(|route| route.opaque.is_none()), "{name}");
    }
    for (rules, count) in [(&host.rules4, 3), (&host.rules6, 2)] {
        let rules = rules.as_ref().expect("policy rules");
        let opaque = rules.iter().any(|rule| rule.opaque.is_some());
        assert_eq!((rules.len(), opaque), (count, false), "{name}");
    }
}
