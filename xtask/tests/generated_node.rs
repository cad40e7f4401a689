//! Whether a kernel lists the rules of generated nodes as the generator wrote them.
//!
//! A small node, or one of a small cluster, is generated, loaded in a network namespace with the standard tools, and saved
//! again. Skipped, with the reason, where that isn't possible.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::{Value, json};

/// Versions differ in how they print; the generator writes as these do.
const TOOLS: [(&str, &str); 2] = [("iptables-nft", "v1.8.9"), ("nft", "v1.0.6")];

fn main() -> ExitCode {
    let trials = vec![
        Trial::ignorable_test("iptables_rules_come_back_as_written", || iptables(&LONE)),
        Trial::ignorable_test("nftables_rules_come_back_as_written", || nftables(&LONE)),
        Trial::ignorable_test("iptables_rules_of_a_cluster_do", || iptables(&OF_CLUSTER)),
        Trial::ignorable_test("nftables_rules_of_a_cluster_do", || nftables(&OF_CLUSTER)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// How a node is generated.
struct Generator {
    arguments: &'static [&'static str],
    node: &'static str,
}

const LONE: Generator =
    Generator { arguments: &["generate-node", "--services", "23", "--endpoints", "3"], node: "n1" };

/// With Services of all kinds, on so many nodes that this one is without endpoints of some.
const OF_CLUSTER: Generator = Generator {
    arguments: &["generate-cluster", "--nodes=4", "--services=161", "--endpoints=2"],
    node: "n002",
};

fn iptables(generator: &Generator) -> Result<Completion, Failed> {
    if let Some(reason) = cannot_run() {
        return Ok(Completion::ignored_with(reason));
    }
    let folder = generate(generator, "iptables")?;
    let node = folder.path().join("nodes").join(generator.node);
    let commands = "iptables-nft-restore iptables-save && iptables-nft-save -c > saved && \
                    nft -j list ruleset > listed";
    in_namespace(commands, &node)?;

    let lines = |name: &str| -> Result<Vec<String>, Failed> {
        let text = fs::read_to_string(node.join(name))?;
        Ok(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
    };
    let (written, saved) = (lines("iptables-save")?, lines("saved")?);
    if written.len() < 300 {
        return Err(format!("only {} lines were generated", written.len()).into());
    }
    equal(&written, &saved)?;
    equal(&rules(&read(&node.join("nft.json"))?), &rules(&read(&node.join("listed"))?))?;
    Ok(Completion::Completed)
}

fn nftables(generator: &Generator) -> Result<Completion, Failed> {
    if let Some(reason) = cannot_run() {
        return Ok(Completion::ignored_with(reason));
    }
    let folder = generate(generator, "nftables")?;
    let node = folder.path().join("nodes").join(generator.node);
    let written = read(&node.join("nft.json"))?;
    // A listing has maps before the chains that they name; to be loaded it needs them after.
    let mut loadable = written.clone();
    loadable.sort_by_key(|object| match kind(object) {
        "metainfo" => 0,
        "table" => 1,
        "chain" => 2,
        "rule" => 4,
        _ => 3,
    });
    fs::write(node.join("loadable"), json!({ "nftables": loadable }).to_string())?;
    in_namespace("nft -j -f loadable && nft -j list ruleset > listed", &node)?;

    let listed = read(&node.join("listed"))?;
    if rules(&written).len() < 30 {
        return Err("too few chains were generated".into());
    }
    equal(&rules(&written), &rules(&listed))?;
    equal(&declarations(&written), &declarations(&listed))?;
    Ok(Completion::Completed)
}

/// Why the tests can't be run here, if they can't.
fn cannot_run() -> Option<String> {
    match Command::new("unshare").args(["--net", "true"]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Some(format!("no network namespace can be made: {error}"));
        }
        Err(error) => return Some(format!("unshare can't be run: {error}")),
    }
    TOOLS.iter().find_map(|(tool, version)| match Command::new(tool).arg("--version").output() {
        Err(error) => Some(format!("{tool} can't be run: {error}")),
        Ok(output) => {
            let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            (!found.contains(version)).then(|| format!("{tool} is not {version} but {found}"))
        }
    })
}

fn generate(generator: &Generator, mode: &str) -> Result<tempfile::TempDir, Failed> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(generator.arguments)
        .args(["--mode", mode, "-o"])
        .arg(folder.path())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(folder)
}

fn in_namespace(commands: &str, folder: &Path) -> Result<(), Failed> {
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", commands])
        .current_dir(folder)
        .output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{commands}: {}: {error}", output.status).into());
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Value>, Failed> {
    let listing: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let objects = listing["nftables"].as_array().ok_or("not a listing of nft")?;
    Ok(objects.clone())
}

fn kind(object: &Value) -> &str {
    object.as_object().and_then(|object| object.keys().next()).map_or("", String::as_str)
}

/// Comments and expressions of the rules of each chain, in order.
fn rules(objects: &[Value]) -> BTreeMap<(String, String), Vec<(Value, Value)>> {
    let mut chains: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for rule in objects.iter().filter_map(|object| object.get("rule")) {
        let key = (rule["table"].to_string(), rule["chain"].to_string());
        chains.entry(key).or_default().push((rule["comment"].clone(), rule["expr"].clone()));
    }
    chains
}

/// Chains, sets and maps without their handles, and without the comments of sets, which nft
/// 1.0.6 loses when it loads JSON. The order of elements is the kernel's.
fn declarations(objects: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = objects
        .iter()
        .filter(|object| matches!(kind(object), "chain" | "set" | "map"))
        .map(|object| {
            let mut object = object[kind(object)].clone();
            for field in ["handle", "comment"] {
                object.as_object_mut().map(|fields| fields.remove(field));
            }
            if let Some(elements) = object["elem"].as_array_mut() {
                elements.sort_by_key(Value::to_string);
            } else {
                object.as_object_mut().map(|fields| fields.remove("elem"));
            }
            object.to_string()
        })
        .collect();
    texts.sort();
    texts
}

fn equal<T: PartialEq + std::fmt::Debug>(written: &T, listed: &T) -> Result<(), Failed> {
    if written == listed {
        return Ok(());
    }
    Err(format!("written: {written:#?}\nlisted by the kernel: {listed:#?}").into())
}
