//! What of the machine itself tells whose rules they are: processes, and files with settings.

use std::fs;
use std::path::{Path, PathBuf};

use unmasq_parse::capture::Status;

use super::recorder::Recorder;
use super::secret;

/// Programs that write rules, or decide which are written.
const PROGRAMS: [&str; 25] = [
    "antrea-agent",
    "aws-k8s-agent",
    "calico-node",
    "cilium-agent",
    "containerd",
    "crio",
    "dockerd",
    "firewalld",
    "flanneld",
    "ip-masq-agent",
    "k0s",
    "k3s",
    "k3s-agent",
    "k3s-server",
    "kindnetd",
    "kube-proxy",
    "kube-router",
    "kubelet",
    "kubelite",
    "ovnkube",
    "podman",
    "rke2",
    "tailscaled",
    "weaver",
    "keepalived",
];

/// Files, and folders of which the files with an ending are taken. Of others (containerd's
/// config.toml has the passwords of registries) nothing is needed.
const FILES: [(&str, &[&str], Kind); 12] = [
    ("/etc/cni/net.d", &[".conf", ".conflist"], Kind::Cni),
    ("/etc/docker/daemon.json", &[], Kind::Docker),
    ("/etc/iptables", &[".v4", ".v6", ".rules"], Kind::Rules),
    ("/etc/nftables.conf", &[], Kind::Rules),
    ("/etc/nftables.d", &[".nft"], Kind::Rules),
    ("/etc/rancher/k3s/config.yaml", &[], Kind::Rancher),
    ("/etc/rancher/k3s/config.yaml.d", &[".yaml", ".yml"], Kind::Rancher),
    ("/etc/rancher/rke2/config.yaml", &[], Kind::Rancher),
    ("/etc/rancher/rke2/config.yaml.d", &[".yaml", ".yml"], Kind::Rancher),
    ("/etc/sysconfig/ip6tables", &[], Kind::Rules),
    ("/etc/sysconfig/iptables", &[], Kind::Rules),
    ("/run/flannel/subnet.env", &[], Kind::Flannel),
];

/// What a file is, which tells what of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// JSON of network plugins.
    Cni,
    /// JSON of dockerd.
    Docker,
    /// Flannel's environment.
    Flannel,
    /// YAML of k3s and rke2.
    Rancher,
    /// Rules for nft or iptables-restore.
    Rules,
}

impl Kind {
    /// What is kept; `None` if the file is not of this kind.
    fn filter(self, text: &str) -> Option<String> {
        match self {
            Kind::Cni => secret::json(text, secret::Names::Cni),
            Kind::Docker => secret::json(text, secret::Names::Docker),
            Kind::Flannel => Some(secret::environment(text)),
            Kind::Rancher => Some(secret::yaml(text)),
            Kind::Rules => Some(secret::rules(text)),
        }
    }
}

/// More of a file is not read.
const LARGEST: u64 = 1 << 20;

/// What [`super::collect`] keeps of a process's arguments: a line of `processes`, if it is one of
/// the programs that write rules. For captures of nodes that don't exist.
pub fn process_line(arguments: &[&str]) -> Option<String> {
    let found = arguments.iter().take(3).any(|argument| is_program(argument));
    found.then(|| format!("{}\n", secret::arguments(arguments, is_program)))
}

/// What [`super::collect`] keeps of a file's text; `None` if a file of that path isn't collected.
pub fn file_text(path: &str, text: &str) -> Option<String> {
    let path = Path::new(path);
    let name = path.file_name()?.to_str()?;
    let fits = |(place, endings, _): &&(&str, &[&str], Kind)| match endings.is_empty() {
        true => path == Path::new(place),
        false => {
            path.parent() == Some(Path::new(place)) && endings.iter().any(|end| name.ends_with(end))
        }
    };
    FILES.iter().find(fits)?.2.filter(text)
}

/// Names and arguments, a line each: those that are about the network (see [`secret`]).
pub(super) fn processes(recorder: &mut Recorder) {
    let command = "ps -eo comm,args (programs that write rules)";
    let entries = match fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(error) => {
            let why = format!("/proc: {error}");
            return recorder.step("processes", command, Status::Failed, why);
        }
    };
    let mut lines: Vec<String> =
        entries.flatten().filter_map(|entry| process(&entry.path())).collect();
    lines.sort();
    recorder.keep("processes", command, lines.concat().into_bytes(), String::new());
}

/// Files that exist: what of them is about the network (see [`secret`]).
pub(super) fn files(recorder: &mut Recorder) {
    let found = FILES.iter().flat_map(|(path, endings, kind)| {
        existing(Path::new(path), endings).into_iter().map(|path| (path, *kind))
    });
    for (path, kind) in found {
        let name = format!("files{}", path.display());
        let command = format!("cat {}", path.display());
        let small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= LARGEST);
        match fs::read_to_string(&path) {
            _ if !small => {
                let why = format!("it is larger than {LARGEST} bytes");
                recorder.step(&name, &command, Status::Failed, why);
            }
            Ok(text) => match kind.filter(&text) {
                Some(text) => {
                    let detail = "what is not about the network is left out".to_owned();
                    recorder.keep(&name, &command, text.into_bytes(), detail);
                }
                None => {
                    let why = "left out: it is no JSON, so secrets in it can't be told".to_owned();
                    recorder.step(&name, &command, Status::Failed, why);
                }
            },
            Err(error) => recorder.step(&name, &command, Status::Failed, error.to_string()),
        }
    }
}

/// The line of a process that is one of the programs; kernel threads have no arguments.
fn process(folder: &Path) -> Option<String> {
    folder.file_name()?.to_str()?.parse::<u32>().ok()?;
    let arguments = fs::read(folder.join("cmdline")).ok()?;
    line(&String::from_utf8_lossy(&arguments))
}

/// The line for a process's arguments, each of which ends with a NUL, if it is one of the
/// programs. A program may have put its own title there, with blanks instead; one in Python or a
/// shell comes after the interpreter and its options.
fn line(arguments: &str) -> Option<String> {
    let arguments = arguments.trim_end_matches('\0');
    let arguments: Vec<&str> = match arguments.contains('\0') {
        true => arguments.split('\0').collect(),
        false => arguments.split_whitespace().collect(),
    };
    process_line(&arguments)
}

fn is_program(argument: &str) -> bool {
    let name = Path::new(argument).file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| PROGRAMS.contains(&name))
}

fn existing(path: &Path, endings: &[&str]) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let fits = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        path.is_file() && endings.iter().any(|ending| name.ends_with(ending))
    };
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_write_rules() {
        let cases = [
            ("/usr/local/bin/kube-proxy\0--v=2\0", Some("/usr/local/bin/kube-proxy --v=2\n")),
            (
                "/usr/bin/python3\0-s\0/usr/sbin/firewalld\0",
                Some("/usr/bin/python3 *** /usr/sbin/firewalld\n"),
            ),
            (
                "/usr/local/bin/k3s server --token=abc",
                Some("/usr/local/bin/k3s server --token=***\n"),
            ),
            ("containerd-shim\0-id\0x7\0-address\0/run/containerd\0", None),
            ("", None),
        ];
        for (arguments, expected) in cases {
            assert_eq!(line(arguments).as_deref(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn files_by_their_path() {
        let docker = "{\"bip\": \"172.7.21.1/24\", \"registry\": \"x\"}";
        let kept = file_text("/etc/docker/daemon.json", docker).unwrap();
        assert_eq!(kept, "{\n  \"bip\": \"172.7.21.1/24\",\n  \"registry\": \"***\"\n}\n");
        let cases = [
            ("/etc/cni/net.d/10-x.conflist", "{}", Some("{}\n")),
            ("/etc/cni/net.d/calico-kubeconfig", "{}", None),
            ("/etc/cni/net.d/below/10-x.conf", "{}", None),
            ("/run/flannel/subnet.env", "FLANNEL_MTU=1450\nX=1\n", Some("FLANNEL_MTU=1450\n")),
            ("/run/flannel", "FLANNEL_MTU=1450\n", None),
            ("/etc/sysconfig/iptables", "# me\n*nat\n", Some("#\n*nat\n")),
            ("/etc/shadow", "root", None),
        ];
        for (path, text, expected) in cases {
            assert_eq!(file_text(path, text).as_deref(), expected, "{path}");
        }
    }
}
