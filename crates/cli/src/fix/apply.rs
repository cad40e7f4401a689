//! `unmasq fix --apply`, `--undo`, `--resume`: a plan done on this host, with its journal.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use unmasq_apply::{
    Entry, Event, Journal, Local, Lock, Outcome, Stage, TakenBack, connections as kernel,
};
use unmasq_cluster::Cluster;
use unmasq_fix::deed::{Deed, Standing};
use unmasq_fix::{FindingName, Plan, connections};

use super::after::{Foretold, Question};
use crate::output::{self, Exit};

/// Where journals are, unless another place is named.
const JOURNALS: &str = "/var/lib/unmasq";

/// A journal that was broken off: the named one, else one of those that have no name of their own.
pub(super) fn broken_off(named: Option<&Path>) -> anyhow::Result<Option<Journal>> {
    if let Some(path) = named {
        if !path.exists() {
            return Ok(None);
        }
        let journal = Journal::open(path)?;
        if journal.ended().is_some() {
            bail!("journal {}: it is there already, and has ended: name another", path.display());
        }
        return Ok(Some(journal));
    }
    let Ok(entries) = std::fs::read_dir(JOURNALS) else { return Ok(None) };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "journal")).collect();
    paths.sort();
    for path in paths {
        let journal = Journal::open(&path)?;
        if journal.ended().is_none() {
            return Ok(Some(journal));
        }
    }
    Ok(None)
}

/// What to do about a journal that was broken off.
pub(super) fn go_on_first(broken_off: &Journal) -> String {
    let path = output::clean(&broken_off.path().display().to_string());
    format!(
        "{path} was broken off, so part of what it says may be done: go on with it (unmasq fix --resume \
         {path}) or take it back (unmasq fix --undo {path}) first"
    )
}

/// Does what a plan has for this host, or what is left of it, and looks whether it is as foretold
/// then.
pub(super) fn apply(
    plan: &Plan,
    journal: Option<&Path>,
    broken_off: Option<Journal>,
    question: &Question<'_>,
) -> anyhow::Result<Exit> {
    let host = this_host();
    let (deeds, others): (Vec<Deed>, Vec<Deed>) =
        plan.deeds().into_iter().partition(|deed| deed.node() == Some(&*host));
    if deeds.is_empty() {
        let others: BTreeSet<String> = others.iter().map(Deed::subject).collect();
        let others = Vec::from_iter(others).join("; ");
        bail!("the plan has nothing for this host, {host}. It is about: {others}");
    }
    let target = Local::begin(host)?;
    let path = match (&broken_off, journal) {
        (Some(journal), _) => journal.path().to_owned(),
        (None, Some(path)) => path.to_owned(),
        (None, None) => new_path(),
    };
    let mut lock = Lock::of(Journal::make_folder(&path)?)?;
    let (foretold, mut journal) = match broken_off {
        // Another one may have gone on with it until now.
        Some(journal) if journal.head().deeds == deeds => {
            target.sweep(&deeds)?;
            let journal = Journal::open(&path)?;
            can_go_on(&journal)?;
            let left = left(&target, &journal)?;
            (Foretold::of(plan, &left, question)?, journal)
        }
        Some(journal) => bail!("{}", go_on_first(&journal)),
        None => {
            if let Err(why) = unmasq_apply::check(&target, &deeds) {
                output::warn(&format!("error: {why}"));
                return Ok(Exit::NotAsExpected);
            }
            let findings = plan.mended.iter().map(|one| FindingName::of(&one.finding).to_string());
            let foretold = Foretold::of(plan, &deeds, question)?;
            (foretold, Journal::create(&path, findings.collect(), deeds)?)
        }
    };
    lock.and(&path)?;
    output::warn(&format!("journal: {}", path.display()));
    let outcome = unmasq_apply::apply(&target, &mut journal, &mut tell);
    if let Some(exit) = failed(&outcome, &journal) {
        return Ok(exit);
    }
    let wrong = foretold.wrong(&path);
    if !wrong.is_empty() {
        output::warn("error: it is done, and this host is not as foretold, so it is taken back:");
        for why in &wrong {
            output::warn(&format!("  {}", lines(why)));
        }
        take_back(&target, &mut journal);
        return Ok(Exit::NotAsExpected);
    }
    for other in &others {
        output::warn(&format!("not for this host: {}", output::clean(&other.subject())));
    }
    output::warn(&format!("done. To take it back: unmasq fix --undo {}", path.display()));
    Ok(Exit::Done)
}

/// The deeds of a journal that aren't done.
fn left(target: &Local, journal: &Journal) -> anyhow::Result<Vec<Deed>> {
    let mut left = Vec::new();
    for (index, deed) in journal.head().deeds.iter().enumerate() {
        let is_done = match journal.stage(index) {
            Stage::Done => true,
            Stage::Begun => unmasq_apply::standing(target, deed)? == Standing::After,
            Stage::NotBegun => false,
        };
        if !is_done {
            left.push(deed.clone());
        }
    }
    Ok(left)
}

/// Ends the connections of this host that keep a translation which what is planned takes away.
/// `before`: the cluster as it was planned for.
pub(super) fn end_connections(before: &Cluster, plan: &Plan) -> anyhow::Result<Exit> {
    let name = this_host();
    let host = |cluster: &Cluster| {
        let node = cluster.nodes.iter().find(|node| node.name == name);
        node.and_then(|node| node.host.clone())
    };
    let (Some(old), Some(new)) = (host(before), host(&plan.after.cluster)) else {
        return Ok(Exit::Done);
    };
    let listing = kernel::list().context("listing connections")?;
    let kept = connections::kept(&old, &new, connections::parse(&listing));
    let mut failed = 0;
    for entry in &kept {
        match kernel::end(entry) {
            Ok(true) => output::warn(&format!("ended: {entry}")),
            Ok(false) => output::warn(&format!("over by itself: {entry}")),
            Err(error) => {
                failed += 1;
                output::warn(&format!("error: {entry}: {error}"));
            }
        }
    }
    output::warn(&format!(
        "{} of {} connections with the old translation ended",
        kept.len() - failed,
        kept.len()
    ));
    Ok(if failed == 0 { Exit::Done } else { Exit::NotAsExpected })
}

/// Takes back what a journal says.
pub(super) fn undo(path: &Path) -> anyhow::Result<Exit> {
    let Turn { target, journal, .. } = &mut Turn::on(path)?;
    if journal.ended() == Some(Event::Undone) {
        bail!("{}", was_taken_back(path));
    }
    Ok(take_back(target, journal))
}

/// Goes on with a journal.
pub(super) fn resume(path: &Path) -> anyhow::Result<Exit> {
    let Turn { target, journal, .. } = &mut Turn::on(path)?;
    can_go_on(journal)?;
    let outcome = unmasq_apply::apply(target, journal, &mut tell);
    if let Some(exit) = failed(&outcome, journal) {
        return Ok(exit);
    }
    output::warn(&format!("done. To take it back: unmasq fix --undo {}", path.display()));
    Ok(Exit::Done)
}

/// A journal of this host that nobody else works on, and the host, likewise.
struct Turn {
    target: Local,
    journal: Journal,
    _lock: Lock,
}

impl Turn {
    fn on(path: &Path) -> anyhow::Result<Turn> {
        let host = this_host();
        let head = Journal::open(path)?.head().clone();
        if let Some(other) = head.deeds.iter().find(|deed| deed.node() != Some(&*host)) {
            bail!("this journal is about {}, and this host is {host}", other.subject());
        }
        let target = Local::begin(host)?;
        let mut lock = Lock::of(Journal::folder(path))?;
        lock.and(path)?;
        target.sweep(&head.deeds)?;
        // Another one may have gone on with it until now.
        Ok(Turn { target, journal: Journal::open(path)?, _lock: lock })
    }
}

/// Whether a journal was broken off on the way there.
fn can_go_on(journal: &Journal) -> anyhow::Result<()> {
    let path = journal.path().display();
    let undo = format!("unmasq fix --undo {path}");
    match journal.ended() {
        Some(Event::Applied) => {
            bail!("all that {path} is about is done already. To take it back: {undo}")
        }
        Some(Event::Undone) => bail!("{}", was_taken_back(journal.path())),
        Some(Event::Begun | Event::Done | Event::Failed | Event::TakenBack) | None => {}
    }
    if journal.entries().iter().any(|entry| entry.event == Event::TakenBack) {
        bail!("{path} was being taken back when it broke off. To go on with that: {undo}");
    }
    match journal.trouble() {
        Some(trouble) => bail!("nothing is done that can't be noted: {trouble}"),
        None => Ok(()),
    }
}

fn was_taken_back(path: &Path) -> String {
    format!(
        "all that {} is about was taken back, and nothing of it is done. To do it, plan again: \
         unmasq fix … --apply",
        path.display()
    )
}

fn take_back(target: &Local, journal: &mut Journal) -> Exit {
    let TakenBack { deeds, others, wrong } = unmasq_apply::take_back(target, journal, &mut tell);
    let exit = if wrong.is_empty() {
        output::warn(&match deeds {
            0 => "nothing of it had begun, so nothing has to be taken back".to_owned(),
            _ => as_before(&others),
        });
        Exit::Done
    } else {
        for why in &wrong {
            output::warn(&format!("error: {}", output::clean(&why.to_string())));
        }
        output::warn("not all of it could be taken back; what could was");
        Exit::NotAsExpected
    };
    tell_trouble(journal);
    exit
}

/// `others`: where others have written since.
fn as_before(others: &[String]) -> String {
    if others.is_empty() {
        return "taken back: all that was changed is as it was before".to_owned();
    }
    let others: Vec<String> = others.iter().map(|one| output::clean(one)).collect();
    format!(
        "taken back: what was changed is as it was before. What others have changed there since \
         stays, so look at it: {}",
        others.join("; ")
    )
}

fn tell_trouble(journal: &Journal) {
    if let Some(trouble) = journal.trouble() {
        output::warn(&format!(
            "warning: it could not be noted, so what was told here is not in the journal: {trouble}"
        ));
    }
}

fn failed(outcome: &Outcome, journal: &Journal) -> Option<Exit> {
    let error = |why: &dyn std::fmt::Display| {
        output::warn(&format!("error: {}", output::clean(&why.to_string())));
    };
    match outcome {
        Outcome::Applied => return None,
        Outcome::Refused { why } => {
            error(why);
            output::warn("nothing was done");
        }
        Outcome::TakenBack { why, others } => {
            error(why);
            output::warn(&as_before(others));
        }
        Outcome::Stuck { why, then } => {
            error(why);
            for why in then {
                error(&format!("and it could not be taken back: {why}"));
            }
        }
    }
    tell_trouble(journal);
    Some(Exit::NotAsExpected)
}

/// Lines of a text as a terminal may have them.
fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(output::clean).collect();
    lines.join("\n  ").replace("\n  \n", "\n\n")
}

fn tell(entry: &Entry) {
    let what = match entry.event {
        Event::Done => "done",
        Event::Failed => "failed",
        Event::TakenBack => "as before",
        Event::Begun | Event::Applied | Event::Undone => return,
    };
    output::warn(&format!("{what}: {}", output::clean(&entry.subject)));
}

pub(super) fn this_host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn new_path() -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Path::new(JOURNALS).join(format!("{}.journal", now.as_secs()))
}
