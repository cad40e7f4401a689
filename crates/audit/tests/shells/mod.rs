//! Commands that a person copies, read by real shells: names that are no names of theirs stay single
//! words, and run nothing.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use unmasq_cluster::kubernetes::{Metadata, Objects};
use unmasq_cluster::{Cluster, Node, Overrides};

/// What a hostile name would run.
const PWNED: &str = "pwned";
/// How each of them begins: as an option.
const BEGIN: &str = "-x ";
/// Ends the words of one call in the log.
const END: &str = "\u{1}";

/// Everything that the commands call; they call nothing of it here.
const PROGRAMS: [&str; 51] = [
    PWNED,
    "awk",
    "bpftool",
    "calicoctl",
    "cilium",
    "conntrack",
    "cp",
    "curl",
    "docker",
    "firewall-cmd",
    "flanneld",
    "grep",
    "helm",
    "ip",
    "ip6tables",
    "ip6tables-legacy-restore",
    "ip6tables-legacy-save",
    "ip6tables-nft-restore",
    "ip6tables-nft-save",
    "ip6tables-restore",
    "ip6tables-save",
    "ipset",
    "iptables",
    "iptables-legacy-restore",
    "iptables-legacy-save",
    "iptables-nft-restore",
    "iptables-nft-save",
    "iptables-restore",
    "iptables-save",
    "ipvsadm",
    "istioctl",
    "kube-proxy",
    "kubectl",
    "linkerd",
    "mv",
    "podman",
    "cat",
    "lxc",
    "nft",
    "pgrep",
    "ps",
    "sed",
    "ssh",
    "sysctl",
    "systemctl",
    "tailscale",
    "tcpdump",
    "unmasq",
    "virsh",
    "update-alternatives",
    "xargs",
];

/// A name that a shell would read everything into.
pub(crate) fn hostile(name: &str) -> String {
    format!(
        "{BEGIN}{name}'\"$(pwned)`pwned`;pwned&&pwned|pwned>pwned\npwned\nEOF\npwned\u{1b}[2K%s!\\#"
    )
}

/// Those that programs look up by these names.
const KEPT: [&str; 3] = ["kube-system", "kube-proxy", "ip-masq-agent"];

fn renamed(name: &mut String) {
    if !name.is_empty() && !KEPT.contains(&name.as_str()) && !name.starts_with(BEGIN) {
        *name = hostile(name);
    }
}

fn in_metadata(metadata: &mut Metadata) {
    renamed(&mut metadata.name);
    renamed(&mut metadata.namespace);
    metadata.labels.get_mut("kubernetes.io/service-name").into_iter().for_each(renamed);
}

/// The cluster whose nodes and objects have hostile names.
pub(crate) fn named_hostile(nodes: &[Node], objects: &Objects) -> Cluster {
    let (mut nodes, mut objects) = (nodes.to_vec(), objects.clone());
    for node in &mut nodes {
        renamed(&mut node.name);
        for pod in &mut node.pods {
            renamed(&mut pod.namespace);
            renamed(&mut pod.name);
        }
    }
    macro_rules! all {
        ($($list:ident),*) => {
            $(objects.$list.iter_mut().for_each(|one| in_metadata(&mut one.metadata));)*
        };
    }
    all!(
        services,
        endpoint_slices,
        nodes,
        pods,
        namespaces,
        network_policies,
        ingresses,
        config_maps,
        daemon_sets,
        deployments,
        stateful_sets,
        middlewares,
        ingress_routes,
        ip_pools
    );
    for pod in &mut objects.pods {
        pod.spec.node_name.iter_mut().for_each(renamed);
    }
    for endpoint in objects.endpoint_slices.iter_mut().flat_map(|slice| &mut slice.endpoints) {
        endpoint.node_name.iter_mut().for_each(renamed);
    }
    Cluster::new(nodes, objects, Overrides::default())
}

/// Reads a command by all shells.
pub(crate) fn check(command: &str) {
    let folder = programs();
    for shell in ["/bin/dash", "/bin/bash"] {
        let here = folder.join(unique());
        std::fs::create_dir(&here).unwrap();
        let log = here.join("log");
        std::fs::write(&log, "").unwrap();
        let ran = Command::new(shell)
            .args(["-c", command])
            .current_dir(&here)
            .env_clear()
            .env("PATH", folder.join("bin"))
            .env("LOG", &log)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr);
        for bad in ["not found", "yntax error", "nexpected", "nterminated"] {
            assert!(!errors.contains(bad), "{shell}: {errors}\n{command}");
        }
        assert!(!here.join(PWNED).exists(), "{shell} redirects:\n{command}");
        let text = String::from_utf8(std::fs::read(&log).unwrap()).unwrap();
        let words: Vec<&str> = text.split_terminator('\0').collect();
        for call in words.split(|word| *word == END) {
            judged(call, shell, command);
        }
        std::fs::remove_dir_all(&here).unwrap();
    }
}

/// What one program was called with.
fn judged(call: &[&str], shell: &str, command: &str) {
    assert_ne!(call.first(), Some(&PWNED), "{shell} runs it:\n{command}");
    let end = hostile("\u{0}");
    let (_, end) = end.split_once('\0').unwrap();
    // In JSON, and in an expression of sed or grep, with their own escapes.
    let json = serde_json::to_string(end).unwrap();
    let json = json.trim_matches('"');
    for (index, word) in call.iter().enumerate() {
        let whole = word.contains(end) || word.contains(json);
        assert!(whole || !word.contains(PWNED), "{shell} splits {word:?}:\n{command}");
        let before = index.checked_sub(1).map_or("", |before| call[before]);
        let taken = matches!(before, "-n" | "-c" | "-e") || call[..index].contains(&"--");
        assert!(taken || !word.starts_with(BEGIN), "{word:?} is an option:\n{command}");
    }
}

fn unique() -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// A folder with `bin`, in which each program writes down its words.
fn programs() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("unmasq-shells-{}", std::process::id()));
        let bin = folder.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let program = bin.join("program");
        let text =
            "#!/bin/sh\nprintf '%s\\0' \"${0##*/}\" \"$@\" \"$(printf '\\001')\" >> \"$LOG\"\n";
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in PROGRAMS {
            symlink(&program, bin.join(name)).unwrap();
        }
        folder
    })
}
