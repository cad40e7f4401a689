//! What `unmasq fix` refuses on captures: each with its exit code, and in words that say what, where,
//! and what next. Refusals on a node are in `fix_on_node`.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// An example that was changed.
struct Capture {
    folder: TempDir,
}

impl Capture {
    fn of(example: &str) -> Capture {
        let folder = tempfile::tempdir().unwrap();
        let from = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples")).join(example);
        let mut command = Command::new("cp");
        let copied = command.arg("-r").arg(from).arg(folder.path().join("capture")).status();
        assert!(copied.unwrap().success());
        Capture { folder }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("capture").join(path)
    }

    /// With another object, from a manifest.
    fn with(self, manifest: &str) -> Capture {
        fs::write(self.path("kubernetes/more.yaml"), manifest).unwrap();
        self
    }

    /// With a file's text changed.
    fn edited(self, file: &str, change: impl Fn(&str) -> String) -> Capture {
        let path = self.path(file);
        fs::write(&path, change(&fs::read_to_string(&path).unwrap())).unwrap();
        self
    }

    /// With a list's objects changed.
    fn objects(self, file: &str, change: impl Fn(&mut Vec<Value>)) -> Capture {
        self.edited(file, |text| {
            let mut list: Value = serde_json::from_str(text).unwrap();
            change(list["items"].as_array_mut().unwrap());
            list.to_string()
        })
    }

    /// What a command says of it, on one line, and its exit code.
    fn said(&self, words: &[&str]) -> (String, Option<i32>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_unmasq"));
        let output = command.args(words).arg("capture").current_dir(self.folder.path());
        let output = output.output().unwrap();
        let said = [&output.stdout[..], &output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        (said.split_whitespace().collect::<Vec<_>>().join(" "), output.status.code())
    }

    fn refuses(&self, fix: &[&str], words: &[&str]) {
        let (said, code) = self.said(&[&["fix"], fix].concat());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.starts_with("REFUSED: "), "{said}");
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}

#[test]
fn a_pool_that_is_in_use_is_not_switched_off() {
    let capture = Capture::of("canal-rke").with(
        "
kind: Pod
metadata: {name: report, namespace: shop}
spec: {nodeName: n1}
status: {podIP: 192.168.3.5}",
    );
    let words = [
        "there is no finding calico-unused-pool/default-ipv4-ippool here",
        "pool default-ipv4-ippool (192.168.0.0/16) is in use: pod shop/report (192.168.3.5) has an address of it",
        "(unmasq explain calico-pool-masquerade)",
        "An audit finds: calico-pool-masquerade/default-ipv4-ippool",
    ];
    capture.refuses(&["calico-unused-pool/default-ipv4-ippool"], &words);
}

#[test]
fn a_pool_that_does_not_masquerade_has_nothing_to_switch_off() {
    let capture = Capture::of("canal-rke").objects(
        "kubernetes/ippools.crd.projectcalico.org.json",
        |pools| {
            pools[0]["spec"]["natOutgoing"] = json!(false);
        },
    );
    // Felix has withdrawn its rule.
    let capture = ["n1", "n2", "n3"].iter().fold(capture, |capture, node| {
        capture.edited(&format!("nodes/{node}/iptables-save"), |text| {
            let kept = text.lines().filter(|line| !line.contains("masq-ipam-pools src"));
            kept.map(|line| format!("{line}\n")).collect()
        })
    });
    let words = ["pool default-ipv4-ippool (192.168.0.0/16) has natOutgoing: false already"];
    capture.refuses(&["calico-unused-pool"], &words);
}

const INNER: &str = "
kind: Service
metadata: {name: inner, namespace: shop}
spec: {type: ClusterIP, clusterIP: 10.43.0.90, externalTrafficPolicy: Local, ports: [{port: 80}]}";

/// The API's words are those of pkg/apis/core/validation of kubernetes, before and after they changed.
#[test]
fn local_for_a_service_that_nobody_outside_can_call() {
    let capture = Capture::of("kube-proxy-cluster-policy").with(INNER);
    let words = [
        "local-policy-invalid/shop/inner: only a person can do what mends it",
        "take the line `externalTrafficPolicy: Local` out of the manifest",
        "`type: NodePort` or `type: LoadBalancer`",
        "unmasq explain local-policy-invalid",
    ];
    capture.refuses(&["local-policy-invalid/shop/inner"], &words);
    let words = [
        "nothing outside can call Service shop/inner (type ClusterIP)",
        "the API refuses externalTrafficPolicy: Local for it",
        "unmasq explain local-policy-invalid",
    ];
    capture.refuses(&["external-traffic-policy-cluster/shop/inner"], &words);
    let (said, _) = capture.said(&["audit"]);
    let refused = r#"spec.externalTrafficPolicy: Invalid value: "Local":"#;
    for words in [
        format!("{refused} may only be set for externally-accessible services"),
        format!(
            "{refused} ExternalTrafficPolicy can only be set on NodePort and LoadBalancer service"
        ),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }
}

#[test]
fn local_in_small_letters() {
    let manifest = "
kind: Service
metadata: {name: api, namespace: shop}
spec: {type: NodePort, externalTrafficPolicy: local, ports: [{port: 80, nodePort: 30099}]}";
    let capture = Capture::of("kube-proxy-cluster-policy").with(manifest);
    let words = [
        "local-policy-invalid/shop/api: only a person can do what mends it",
        "In kubernetes/more.yaml, from line 1",
        "`externalTrafficPolicy: Local` in place of `externalTrafficPolicy: local`",
        "unmasq explain local-policy-invalid",
    ];
    capture.refuses(&["local-policy-invalid/shop/api"], &words);
    let (said, _) = capture.said(&["audit"]);
    let field = "spec.externalTrafficPolicy:";
    for words in [
        format!(r#"{field} Unsupported value: "local": supported values: "Cluster", "Local""#),
        format!(
            r#"{field} Invalid value: "local": ExternalTrafficPolicy must be empty, Cluster or Local"#
        ),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }
}

#[test]
fn local_for_a_service_whose_endpoints_are_all_on_one_node() {
    let capture = Capture::of("kube-proxy-cluster-policy");
    let words = [
        "external-traffic-policy-cluster: what must hold first doesn't",
        "nodes without a ready pod drop what they get: default/web on n2, n3",
        "--accept unmet/external-traffic-policy-cluster/2",
    ];
    capture.refuses(&["external-traffic-policy-cluster"], &words);
}

/// What is left of the cluster's range: each node's own part.
#[test]
fn the_range_of_all_pods_is_not_known() {
    let mut capture = Capture::of("flannel-host");
    for node in ["hdss7-21", "hdss7-22", "hdss7-23"] {
        let of = |file: &str| format!("nodes/{node}/{file}");
        fs::remove_file(capture.path(&of("files/run/flannel/subnet.env"))).unwrap();
        capture = capture.edited(&of("processes"), |text| {
            let flag = "--cluster-cidr=172.7.0.0/16 ";
            assert!(text.contains(flag), "{text}");
            text.replace(flag, "")
        });
    }
    let words = [
        "host-masquerade would still be there afterwards: a pod, 172.7.21.2, calls 172.7.22.2",
        "the range of all pods (ipv4) is known: Say it: --cluster-cidr RANGE",
        "/run/flannel/subnet.env as FLANNEL_NETWORK",
    ];
    capture.refuses(&["host-masquerade"], &words);
    let (said, code) = capture.said(&["fix", "host-masquerade", "--cluster-cidr", "172.7.0.0/16"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("-s 172.7.21.0/24 ! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE"),
        "{said}"
    );
}
