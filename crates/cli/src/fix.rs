//! `unmasq fix`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{ArgAction, ValueEnum};
use ipnet::IpNet;

use unmasq_audit::{FindingId, Request, explain};
use unmasq_fix::{FindingName, Manifests, Plan, Refusal, State, Wanted, plan};
use unmasq_report::audit::Subject;
use unmasq_report::{json, patches, policies, script, terminal};

mod after;
mod apply;

use crate::audit::{self, Progress};
use crate::output::{self, Exit};
use crate::source::LoadedCluster;

/// What `-h` says at its end.
pub(crate) const EXAMPLES: &str = "\
Example:
  unmasq fix calico-unused-pool examples/canal-rke

More with --help.";

/// What `--help` says at its end.
pub(crate) const MORE: &str = "\
Examples:
  What would mend a finding of an audit, and what would it change? Nothing is done:
    unmasq fix calico-unused-pool examples/canal-rke
  One of several of its kind:
    unmasq fix kube-router-pod-egress/ipv6 capture/
  All that can be mended:
    unmasq fix --all capture/
  Something gets worse, and you want it all the same (a refusal names it):
    unmasq fix external-traffic-policy-cluster capture/ --accept NAME
  For others to carry out: a script that checks first and can undo, or patches of objects:
    unmasq fix --all capture/ --output script > fix.sh
    unmasq fix --all capture/ --output patches > patches.yaml
  On a node, as root: do what the plan has for this node, and take it back later:
    unmasq fix host-masquerade capture/ --apply
    unmasq fix --undo /var/lib/unmasq/1796000000.journal

Exit codes:
  0  planned, done, or taken back
  1  refused: it would not mend the finding, or make something worse, or can't be foretold; or it
     went wrong and was taken back
  2  wrong usage, or input that can't be read";

/// Plans what mends findings.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Findings, as `unmasq audit` names them (ID, or ID/SUBJECT), then the capture. Without a
    /// capture: this host alone (needs root)
    #[arg(value_name = "FINDING… [CAPTURE]", required_unless_present_any = ["all", "undo", "resume"])]
    words: Vec<String>,
    /// All findings, errors and warnings, that can be mended
    #[arg(long)]
    all: bool,
    /// Which remedy, by its number in the audit; else the first that can be done
    #[arg(long, value_name = "NUMBER")]
    remedy: Option<usize>,
    /// Put up with something that gets worse, or that doesn't hold, by its name in the refusal
    #[arg(long, value_name = "NAME")]
    accept: Vec<String>,
    /// Do what is for this host, if it is still as it was captured: each change is one transaction,
    /// checked before and after; what goes wrong, or is worse than foretold, is taken back
    #[arg(long)]
    apply: bool,
    /// After --apply, end the connections of this host that still have the old translation and would
    /// not get it today: those who have them open connect again
    #[arg(long, requires = "apply")]
    end_connections: bool,
    /// Where the journal of --apply is written, by which it is taken back. Left out: a new file in
    /// /var/lib/unmasq
    #[arg(long, value_name = "FILE", requires = "apply")]
    journal: Option<PathBuf>,
    /// Take back what a journal says was begun; what others have changed since stays
    #[arg(long, value_name = "JOURNAL", conflicts_with_all = ["words", "all", "apply", "resume"])]
    undo: Option<PathBuf>,
    /// Go on with a journal that was broken off
    #[arg(long, value_name = "JOURNAL", conflicts_with_all = ["words", "all", "apply"])]
    resume: Option<PathBuf>,
    /// What must hold, as YAML (docs/expectations.md). Left out: the capture's own expect.yaml, if
    /// it has one
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// The range of all pods, where it can't be found in the capture; one for each family
    #[arg(long, value_name = "CIDR")]
    cluster_cidr: Vec<IpNet>,
    /// Print the plan as something that others carry out
    #[arg(long, value_name = "FORM", conflicts_with_all = ["json", "apply", "undo", "resume"])]
    output: Option<Form>,
    /// Print the plan, or the refusal, as JSON (unmasq.fix/v1, schemas/fix.v1.json)
    #[arg(long)]
    json: bool,
    /// Take nothing for granted: what would be an assumption makes an answer unknown
    #[arg(long)]
    strict: bool,
    /// Everything in full: all answers that change, and all names
    #[arg(short, long, action = ArgAction::SetTrue)]
    verbose: bool,
}

/// By which a user says that the steps of a person were done.
const BY_HAND: &str = "by-hand";

/// A plan in the words of other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A POSIX shell script for nodes, which checks first and can undo
    Script,
    /// A YAML document for each Kubernetes object that changes, for kustomize or kubectl
    Patches,
    /// NetworkPolicies that limit what comes of pods' own addresses being seen outside, for kubectl
    Policies,
}

/// Plans and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if let Some(journal) = &args.undo {
        return apply::undo(journal);
    }
    if let Some(journal) = &args.resume {
        return apply::resume(journal);
    }
    let (findings, capture) = words(&args.words, args.all)?;
    let broken_off = if args.apply { apply::broken_off(args.journal.as_deref())? } else { None };
    if args.remedy.is_some() && findings.len() != 1 {
        bail!("--remedy is for one finding: name it");
    }
    let LoadedCluster { cluster, expectations, manifests, mut connections } =
        audit::load(capture.as_deref(), args.cluster_cidr.clone())?;
    let expectations = audit::expectations(args.expect.as_deref(), expectations, &cluster)?;
    let found = audit::ask(&cluster, &expectations, Request { strict: args.strict });
    let state = State { cluster, manifests: Manifests::new(manifests) };
    let wanted = Wanted {
        findings,
        remedy: args.remedy,
        accepted: args.accept.iter().cloned().collect::<BTreeSet<String>>(),
        strict: args.strict,
    };
    let progress = Progress::new();
    let mut planned = plan(&state, &found, &expectations, &wanted, &|done, of| {
        progress.show(&format!("foretelling: Service {done} of {of}"));
    });
    progress.clear();
    if planned.is_ok() && capture.is_none() {
        match unmasq_apply::connections::list() {
            Ok(listing) => drop(connections.insert(apply::this_host(), listing)),
            Err(error) => output::warn(&format!("note: connections can't be listed: {error}")),
        }
    }
    if let Ok(plan) = &mut planned {
        plan.count(&state.cluster, &connections);
    }
    let capture = capture.map(|path| path.display().to_string());
    let subject = Subject {
        cluster: &state.cluster,
        capture: capture.as_deref(),
        service: None,
        version: env!("CARGO_PKG_VERSION"),
    };
    print(args, &planned, &subject)?;
    let Ok(plan) = &planned else {
        if let Some(journal) = &broken_off {
            output::warn(&format!("error: {}", apply::go_on_first(journal)));
        }
        return Ok(Exit::NotAsExpected);
    };
    if !args.apply {
        return Ok(Exit::Done);
    }
    if let Some((place, step)) =
        plan.first_by_hand(&apply::this_host()).filter(|_| !wanted.accepted.contains(BY_HAND))
    {
        output::warn(&format!(
            "error: nothing was done: step {} is done by a person, and a later one builds on it: {}\n\
             Do it, then: --apply --accept {BY_HAND}",
            place + 1,
            output::clean(&step.text)
        ));
        return Ok(Exit::NotAsExpected);
    }
    let request = Request { strict: args.strict };
    let question = after::Question { expectations: &expectations, request };
    let exit = apply::apply(plan, args.journal.as_deref(), broken_off, &question)?;
    if args.end_connections && exit == Exit::Done {
        return apply::end_connections(&state.cluster, plan);
    }
    Ok(exit)
}

fn print(
    args: &Args,
    planned: &Result<Plan, Refusal>,
    subject: &Subject<'_>,
) -> anyhow::Result<()> {
    let style = output::style(args.verbose);
    let text = match (args.json, planned) {
        (false, Ok(plan)) if args.output == Some(Form::Script) => script(plan, subject),
        (false, Ok(plan)) if args.output == Some(Form::Patches) => patches(plan, subject),
        (false, Ok(plan)) if args.output == Some(Form::Policies) => policies(plan, subject),
        // What reads a script or patches reads nothing else.
        (false, Err(refusal)) if args.output.is_some() => {
            let text = terminal::refusal(refusal, &style);
            return output::write(&mut io::stderr(), text.as_bytes());
        }
        (false, Ok(plan)) => terminal::plan(plan, subject, &style),
        (false, Err(refusal)) => terminal::refusal(refusal, &style),
        (true, Ok(plan)) => pretty(&json::plan(plan, subject))?,
        (true, Err(refusal)) => pretty(&json::refusal(refusal, subject))?,
    };
    output::write(&mut io::stdout(), text.as_bytes())
}

fn pretty(document: &impl serde::Serialize) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(document).context("writing the answer as JSON")?;
    Ok(text + "\n")
}

/// Findings, and the capture behind them: the last word, if it names no finding.
fn words(words: &[String], all: bool) -> anyhow::Result<(Vec<FindingName>, Option<PathBuf>)> {
    let (findings, capture) = split(words)?;
    match (findings.is_empty(), all) {
        (true, false) => bail!("name a finding, as unmasq audit does, or say --all"),
        (false, true) => bail!("name findings or say --all, not both"),
        (true, true) | (false, false) => Ok((findings, capture)),
    }
}

/// The same, whether findings are named or not.
pub(crate) fn split(words: &[String]) -> anyhow::Result<(Vec<FindingName>, Option<PathBuf>)> {
    let (mut findings, mut capture) = (Vec::new(), None);
    for (index, word) in words.iter().enumerate() {
        match finding(word) {
            Some(name) => findings.push(name),
            None if index + 1 == words.len() && Path::new(word).exists() => {
                capture = Some(PathBuf::from(word));
            }
            None if Path::new(word).exists() => {
                bail!("name one capture, behind the findings: {word} is not the last word");
            }
            None => {
                let ids = FindingId::ALL.iter().map(|id| id.id());
                let id = word.split('/').next().unwrap_or(word);
                let near = explain::meant(id, ids);
                bail!("{word} is neither a finding (unmasq explain lists them) nor a file{near}");
            }
        }
    }
    Ok((findings, capture))
}

/// `ID` or `ID/SUBJECT`.
fn finding(word: &str) -> Option<FindingName> {
    let (id, subject) = match word.split_once('/') {
        Some((id, subject)) => (id, Some(subject.to_owned())),
        None => (word, None),
    };
    // A folder of a finding's name is written with ./ before it.
    Some(FindingName { id: FindingId::from_id(id)?, subject })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_and_the_capture_behind_them() {
        let of = |text: &[&str], all| {
            let text: Vec<String> = text.iter().map(|word| (*word).to_owned()).collect();
            words(&text, all).map(|(findings, capture)| {
                let names: Vec<String> = findings.iter().map(ToString::to_string).collect();
                (names, capture.map(|path| path.display().to_string()))
            })
        };
        let there = env!("CARGO_MANIFEST_DIR");
        let strings = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            of(&["calico-unused-pool/x", "masquerade-all", there], false).unwrap(),
            (strings(&["calico-unused-pool/x", "masquerade-all"]), Some(there.to_owned()))
        );
        assert_eq!(of(&[there], true).unwrap(), (Vec::new(), Some(there.to_owned())));
        assert_eq!(of(&[], true).unwrap(), (Vec::new(), None));
        for (text, all, expected) in [
            (&["calico-unused-pol"][..], false, "did you mean calico-unused-pool?"),
            (&["/no/such/file"], true, "neither a finding"),
            (&[there], false, "name a finding"),
            (&["masquerade-all"], true, "not both"),
        ] {
            let error = of(text, all).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
