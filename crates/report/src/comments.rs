//! What scripts and patches say beside what they do, behind `#`.

use std::fmt::Write as _;

use unmasq_audit::Instruction;
use unmasq_fix::deed::Deed;
use unmasq_fix::{FindingName, Mended, Plan, Step};

use crate::audit::{instructions, nodes};
use crate::difference;
use crate::terminal::clean;

/// Columns of a line.
const WIDTH: usize = 96;

/// Writes comments. Nothing of a capture gets out of its line.
pub(crate) struct Comments<'t> {
    text: &'t mut String,
}

impl<'t> Comments<'t> {
    pub(crate) fn new(text: &'t mut String) -> Self {
        Comments { text }
    }

    /// Prose.
    pub(crate) fn say(&mut self, prose: &str) {
        self.wrap("# ", prose);
    }

    /// Prose that belongs to what was said.
    pub(crate) fn below(&mut self, prose: &str) {
        self.wrap("#   ", prose);
    }

    /// A line as it is.
    pub(crate) fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{}", format!("# {}", clean(line)).trim_end());
    }

    fn wrap(&mut self, start: &str, prose: &str) {
        let prose = clean(prose);
        let mut line = start.to_owned();
        for word in prose.split_whitespace() {
            let is_first = line.len() == start.len();
            if !is_first && line.chars().count() + 1 + word.chars().count() > WIDTH {
                let _ = writeln!(self.text, "{line}");
                line = start.to_owned();
            } else if !is_first {
                line.push(' ');
            }
            line.push_str(word);
        }
        let _ = writeln!(self.text, "{}", line.trim_end());
    }
}

/// By which a finding is named.
pub(crate) fn finding(mended: &Mended) -> String {
    FindingName::of(&mended.finding).to_string()
}

/// `Step 2 of 5, for masquerade-all:`
pub(crate) fn step_title(index: usize, step: &Step, plan: &Plan) -> String {
    let of = plan.mended.get(step.mended).map(finding).unwrap_or_default();
    format!("Step {} of {}, for {of}:", index + 1, plan.steps.len())
}

/// What a person does in a step.
pub(crate) fn person(comments: &mut Comments<'_>, step: &Step, which: usize, plan: &Plan) {
    let steps = plan.mended.get(step.mended).map(|mended| &mended.remedy.steps);
    let Some(step) = steps.and_then(|steps| steps.get(which)) else { return };
    comments.say("BY HAND:");
    let nodes = nodes(&step.action);
    if !nodes.is_empty() {
        comments.below(&format!("on {}:", nodes.join(", ")));
    }
    for instruction in instructions(&step.action) {
        match instruction {
            Instruction::Sentence(prose) => comments.below(&prose),
            Instruction::Command(text) | Instruction::Literal(text) => {
                text.lines().for_each(|line| comments.line(&format!("    {line}")));
            }
        }
    }
}

/// What goes and comes.
pub(crate) fn difference(comments: &mut Comments<'_>, deed: &Deed) {
    for (sign, line) in difference::lines(deed) {
        comments.line(&format!("  {} {line}", sign.letter()));
    }
}
