//! A plan's script does on nodes what the plan foretells, refuses what has changed, and takes it back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use unmasq_fix::deed::{Deed, Program, RulesDeed};
use unmasq_fix::{By, Plan};
use unmasq_lab::session::Session;
use unmasq_report::audit::Subject;
use unmasq_report::script;

use crate::{capture, rules, same, uncounted};

/// A plan's script in a folder, with the files that it changes.
struct Prepared {
    folder: tempfile::TempDir,
    plan: Plan,
}

impl Prepared {
    /// Files stand in a folder of the test, and not where they are on a node.
    fn new(plan: &Plan) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut plan = plan.clone();
        for step in &mut plan.steps {
            let By::Unmasq(deeds) = &mut step.by else { continue };
            for deed in deeds {
                let Deed::File(file) = deed else { continue };
                let path = folder.path().join(&file.node).join("it's a file.json");
                std::fs::create_dir_all(path.parent().context("it has a parent")?)?;
                if let Some(text) = &file.before {
                    std::fs::write(&path, text)?;
                }
                file.path = path.display().to_string();
            }
        }
        let subject = Subject {
            cluster: &plan.after.cluster,
            capture: Some("capture/"),
            service: None,
            version: "0",
        };
        let text = script(&plan, &subject);
        std::fs::write(folder.path().join("fix.sh"), text)?;
        Ok(Prepared { folder, plan })
    }

    fn script(&self) -> PathBuf {
        self.folder.path().join("fix.sh")
    }

    fn nodes(&self) -> BTreeSet<String> {
        let deeds = self.plan.deeds();
        deeds.iter().filter_map(Deed::node).map(str::to_owned).collect()
    }

    fn run(&self, session: &Session, action: &str, node: &str) -> Result<String> {
        let script = self.script().display().to_string();
        session.cluster.namespace(node)?.exec(&["sh", &script, action, node])
    }

    /// The files' JSON; `None`: not there.
    fn files(&self) -> Result<BTreeMap<String, Option<serde_json::Value>>> {
        let mut all = BTreeMap::new();
        for deed in self.plan.deeds() {
            let Deed::File(file) = deed else { continue };
            let value = match Path::new(&file.path).exists() {
                true => Some(serde_json::from_str(&std::fs::read_to_string(&file.path)?)?),
                false => None,
            };
            all.insert(file.path, value);
        }
        Ok(all)
    }
}

fn listings(session: &Session) -> Result<BTreeMap<String, String>> {
    let files = session.capture()?.into_iter();
    let rules = files.filter(|(path, _)| path.ends_with("-save") || path.ends_with("nft.txt"));
    Ok(rules.map(|(path, text)| (path, uncounted(&String::from_utf8_lossy(&text)))).collect())
}

/// What it does is what the plan foretells; taken back, all is as it was.
pub(crate) fn there_and_back(session: &Session, plan: &Plan) -> Result<()> {
    let prepared = Prepared::new(plan)?;
    let (listed, files) = (listings(session)?, prepared.files()?);
    for node in prepared.nodes() {
        let said = prepared.run(session, "apply", &node)?;
        ensure!(said.lines().all(|line| line.starts_with("done: ")), "{said}");
        let again = prepared.run(session, "apply", &node)?;
        ensure!(again.lines().all(|line| line.starts_with("already: ")), "{again}");
    }
    let there = capture(session)?;
    for (foretold, real) in plan.after.cluster.nodes.iter().zip(&there.state.cluster.nodes) {
        let (Some(foretold), Some(real)) = (&foretold.host, &real.host) else { continue };
        same(&rules(foretold), &rules(real))
            .with_context(|| format!("by a script on {}", real.name))?;
    }
    for deed in prepared.plan.deeds() {
        let Deed::File(file) = deed else { continue };
        let after = file.after.as_deref().map(serde_json::from_str::<serde_json::Value>);
        ensure!(prepared.files()?[&file.path] == after.transpose()?, "{} is another", file.path);
    }
    for node in prepared.nodes() {
        prepared.run(session, "undo", &node)?;
    }
    ensure!(prepared.files()? == files, "files are not as before");
    ensure!(listings(session)? == listed, "rules are not as before");
    Ok(())
}

/// A chain of nft's own, whose rules are named by the kernel's numbers; and one that has changed.
pub(crate) fn rules_of_nft(session: &Session, plan: &Plan) -> Result<()> {
    let node = plan.deeds().iter().find_map(|deed| deed.node().map(str::to_owned));
    let node = node.context("no node")?;
    let namespace = session.cluster.namespace(&node)?;
    let before = [
        "ip saddr 10.0.0.0/8 counter masquerade",
        "ip saddr { 10.1.0.1, 10.1.0.2 } return",
        "iifname \"a$b`c\" accept",
        "ip saddr 10.0.0.0/8 drop",
    ];
    let input: String = before.map(|rule| format!("add rule ip own chain1 {rule}\n")).concat();
    let made = format!("add table ip own\nadd chain ip own chain1\n{input}");
    namespace.exec_with(&["nft", "-f", "-"], &made)?;
    let after =
        [before[1], "iifname \"x$y\" counter accept", before[0], "ip daddr 10.0.0.0/8 return"];
    let texts = |all: [&str; 4]| all.map(str::to_owned).to_vec();
    let deed = RulesDeed {
        node: node.clone(),
        program: Program::NftIp,
        table: "own".to_owned(),
        chain: "chain1".to_owned(),
        before: texts(before),
        after: texts(after),
    };
    let mut plan = plan.clone();
    plan.steps.truncate(1);
    plan.steps[0].by = By::Unmasq(vec![Deed::Rules(deed)]);
    let prepared = Prepared::new(&plan)?;
    let list = || -> Result<Vec<String>> {
        let text = namespace.exec(&["nft", "-s", "list", "chain", "ip", "own", "chain1"])?;
        let lines = text.lines().map(str::trim).filter(|line| !line.ends_with(['{', '}']));
        Ok(lines.map(str::to_owned).collect())
    };
    prepared.run(session, "apply", &node)?;
    ensure!(list()? == after, "{:?}", list()?);

    namespace.exec(&["nft", "add", "rule", "ip", "own", "chain1", "return"])?;
    let there = list()?;
    for action in ["undo", "apply"] {
        let refused = prepared.run(session, action, &node).err().context("it is not refused")?;
        ensure!(format!("{refused:#}").contains("refused, and nothing is done"), "{refused:#}");
        ensure!(list()? == there, "{:?}", list()?);
    }
    let number = namespace
        .script("nft -a list chain ip own chain1 | sed -n 's/^[[:space:]]*return # handle //p'")?;
    namespace.exec(&["nft", "delete", "rule", "ip", "own", "chain1", "handle", number.trim()])?;
    prepared.run(session, "undo", &node)?;
    ensure!(list()? == before, "{:?}", list()?);
    ensure!(prepared.run(session, "apply", "elsewhere").is_err(), "another node");
    Ok(())
}
