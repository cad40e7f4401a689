//! Chains and rules: the machine with an explicit stack.

use unmasq_model::expr::{End, Value};
use unmasq_model::packet::Transport;
use unmasq_model::rule::{Action, Rule, SetUpdate, Step as RuleStep, Verdict as RuleVerdict};
use unmasq_model::ruleset::{ChainId, Hook, Policy, Table};
use unmasq_model::set::SetId;

use super::cause::Cause;
use super::expr::Loaded;
use super::test::Tested;
use super::{Ended, Ruled, Step, Stop, Tracking, Walk};
use crate::choice::Kind;
use crate::hooks::Base;
use crate::trace::{By, Effect, Hit, Reason, RuleId, Stage, Verdict};

/// So many hits are kept of a walk that did not end.
const SHOWN_OF_AN_ENDLESS_WALK: usize = 50;

/// A chain being run.
pub(super) struct Frame {
    chain: ChainId,
    /// Rules to look at, in order; `None`: all.
    candidates: Option<Vec<u32>>,
    next: usize,
    /// The hits of the rules that led here from the chain that it will return to: one jump, and
    /// the gotos after it.
    entered_by: Cause,
    /// The hits whose work tests in this chain have looked at so far.
    rests_on: Cause,
}

/// A base chain being run.
pub(super) struct Run<'h> {
    pub(super) hook: Hook,
    pub(super) table: &'h Table,
    pub(super) table_index: u32,
    pub(super) frames: Vec<Frame>,
    /// Whether a test is being evaluated: what actions read is no reason for later rules.
    testing: bool,
}

impl Run<'_> {
    fn depth(&self) -> u32 {
        u32::try_from(self.frames.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// The hits of the jumps that led to the current chain.
    pub(super) fn entered_by(&self) -> Cause {
        self.frames.iter().flat_map(|frame| &frame.entered_by).copied().collect()
    }

    /// The hits whose work tests on the way to the current rule have looked at, in order.
    pub(super) fn rests_on(&self) -> Cause {
        let frames = self.frames.iter().flat_map(|frame| &frame.rests_on);
        let mut hits: Cause = frames.copied().collect();
        hits.sort_unstable();
        hits.dedup();
        hits
    }

    /// Notes that a test, if one is being evaluated, looks at what these hits did.
    pub(super) fn looks_at(&mut self, cause: &[usize]) {
        if !self.testing {
            return;
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.rests_on.extend(cause);
        }
    }
}

/// The state of one rule's evaluation.
struct Pending {
    id: RuleId,
    counted: bool,
    effects: Vec<Effect>,
}

impl<'h> Walk<'_, 'h, '_> {
    /// Runs a base chain.
    pub(super) fn run_base(&mut self, hook: Hook, base: Base) -> Step<Ended> {
        let table = &self.evaluator.host.ruleset.tables[base.table as usize];
        let mut run =
            Run { hook, table, table_index: base.table, frames: Vec::new(), testing: false };
        self.enter(&mut run, base.chain, Cause::new(), Cause::new());
        loop {
            let Some(frame) = run.frames.last_mut() else {
                return self.policy(hook, base);
            };
            let chain = table.chain(frame.chain);
            let number = match &frame.candidates {
                Some(candidates) => candidates.get(frame.next).map(|n| *n as usize),
                None => (frame.next < chain.rules.len()).then_some(frame.next),
            };
            frame.next += 1;
            let Some(number) = number else {
                run.frames.pop();
                continue;
            };
            let id = RuleId {
                table: base.table,
                chain: frame.chain,
                rule: u32::try_from(number).unwrap_or(u32::MAX),
            };
            if !self.choices.may_look_at_a_rule() {
                self.hits.truncate(SHOWN_OF_AN_ENDLESS_WALK);
                return Err(Stop::Unknown(format!(
                    "chains of table {} call each other without end, or nearly so",
                    table.name
                )));
            }
            match self.rule(&mut run, id, &chain.rules[number])? {
                Ruled::Next | Ruled::Verdict(RuleVerdict::Continue) => {}
                Ruled::Bound => return Ok(Ended::Bound),
                Ruled::Verdict(RuleVerdict::Accept) => return Ok(Ended::Accepted),
                Ruled::Verdict(RuleVerdict::Drop) => {
                    return Err(Stop::End(Verdict::Dropped, Some(Reason::Rule)));
                }
                Ruled::Verdict(RuleVerdict::Return) => {
                    run.frames.pop();
                }
                Ruled::Verdict(RuleVerdict::Jump(target)) => {
                    let by = self.hits.len().checked_sub(1);
                    self.enter(&mut run, target, by.into_iter().collect(), Cause::new());
                }
                Ruled::Verdict(RuleVerdict::Goto(target)) => {
                    let by = self.hits.len().checked_sub(1);
                    if let Some(mut left) = run.frames.pop() {
                        left.entered_by.extend(by);
                        self.enter(&mut run, target, left.entered_by, left.rests_on);
                    }
                }
            }
        }
    }

    fn enter(&self, run: &mut Run<'h>, chain: ChainId, entered_by: Cause, rests_on: Cause) {
        let port = match self.packet.transport {
            Transport::Ports { destination, .. } => destination,
            // No rule that requires a port can match.
            Transport::Icmp { .. } | Transport::Other => Some(0),
        };
        let candidates = self
            .evaluator
            .index(run.table_index, chain)
            .and_then(|index| index.candidates(self.packet.destination, port));
        run.frames.push(Frame { chain, candidates, next: 0, entered_by, rests_on });
    }

    fn policy(&mut self, hook: Hook, base: Base) -> Step<Ended> {
        let table = &self.evaluator.host.ruleset.tables[base.table as usize];
        match table.chain(base.chain).base.map(|base| base.policy) {
            Some(Policy::Drop) => {
                self.hits.push(Hit {
                    stage: Stage::Hook(hook),
                    by: By::Policy { table: base.table, chain: base.chain },
                    depth: 0,
                    counted: false,
                    effects: vec![Effect::Drop],
                });
                Err(Stop::End(Verdict::Dropped, Some(Reason::Policy)))
            }
            Some(Policy::Accept) | None => Ok(Ended::Accepted),
        }
    }

    /// Evaluates one rule, records what it did, and gives its verdict.
    fn rule(&mut self, run: &mut Run<'h>, id: RuleId, rule: &'h Rule) -> Step<Ruled> {
        let mut pending = Pending { id, counted: false, effects: Vec::new() };
        let mut done = false;
        for (position, step) in rule.steps.iter().enumerate() {
            match step {
                RuleStep::Test(test) => {
                    run.testing = true;
                    let tested = self.test(run, test);
                    run.testing = false;
                    let rest = &rule.steps[position + 1..];
                    if !tested.is_certain() && self.fails_anyway(run, rest) {
                        break;
                    }
                    if !self.holds(run, &mut pending, tested, rest) {
                        break;
                    }
                }
                RuleStep::Do(action) => match self.act(run, &mut pending, action)? {
                    Acted::On => done = true,
                    Acted::Break => break,
                    Acted::Ruled(ruled) => {
                        self.record(run, pending);
                        return Ok(ruled);
                    }
                },
            }
        }
        if done || self.evaluator.options.every_rule {
            if done && pending.effects.is_empty() {
                pending.effects.push(Effect::Nothing);
            }
            self.record(run, pending);
        }
        Ok(Ruled::Next)
    }

    fn record(&mut self, run: &Run<'h>, pending: Pending) {
        let hit = self.hit(run, &pending, pending.effects.clone());
        self.hits.push(hit);
    }

    fn hit(&self, run: &Run<'h>, pending: &Pending, effects: Vec<Effect>) -> Hit {
        Hit {
            stage: Stage::Hook(run.hook),
            by: By::Rule(pending.id),
            depth: run.depth(),
            counted: pending.counted,
            effects,
        }
    }

    /// Whether what is left of a rule only counts or tells somebody, and so changes nothing for
    /// the packet.
    fn is_harmless(&self, rest: &[RuleStep]) -> bool {
        let harmless = |step: &RuleStep| matches!(step, RuleStep::Do(Action::Count | Action::Log));
        !self.evaluator.options.every_branch && rest.iter().all(harmless)
    }

    /// Whether a test that comes before anything is done is certain to fail: then the rule misses,
    /// whatever an open question before it would give, and the question need not be asked.
    fn fails_anyway(&mut self, run: &mut Run<'h>, rest: &'h [RuleStep]) -> bool {
        let tests = rest.iter().map_while(|step| match step {
            RuleStep::Test(test) => Some(test),
            RuleStep::Do(_) => None,
        });
        for test in tests {
            if self.asks_nothing(run, test)
                && matches!(self.test(run, test), Tested::False | Tested::Break)
            {
                return true;
            }
        }
        false
    }

    /// Whether a rule goes on after a test.
    fn holds(
        &mut self,
        run: &Run<'h>,
        pending: &mut Pending,
        tested: Tested,
        rest: &[RuleStep],
    ) -> bool {
        match tested {
            Tested::True => true,
            Tested::False | Tested::Break => false,
            Tested::Random(probability) => self.decide(None, Kind::Random(probability)),
            Tested::State { .. } if self.is_harmless(rest) => false,
            Tested::State { key, negated } => self.decide(key.as_deref(), Kind::State) != negated,
            Tested::Unknown { why, key, negated } => {
                // A rule that could only count or tell somebody changes nothing for the packet.
                if self.is_harmless(rest) {
                    pending.effects.push(Effect::Unknown(why));
                    return false;
                }
                let at = self.hit(run, pending, vec![Effect::Unknown(why.clone())]);
                let kind = self.unknown(why, Some(at));
                self.decide(key.as_deref(), kind) != negated
            }
        }
    }

    fn act(&mut self, run: &mut Run<'h>, pending: &mut Pending, action: &'h Action) -> Step<Acted> {
        Ok(match action {
            Action::Count => {
                pending.counted = true;
                Acted::On
            }
            Action::Log => {
                pending.effects.push(Effect::Log);
                Acted::On
            }
            Action::SetMark(expr) => match self.load(run, expr) {
                Loaded::Absent => Acted::Break,
                Loaded::Is(value) => {
                    let after = value.as_number().and_then(|n| u32::try_from(n & 0xffff_ffff).ok());
                    self.set_mark(
                        run,
                        pending,
                        after.ok_or_else(|| {
                            "a mark is set to something that is not a number".to_owned()
                        }),
                    );
                    Acted::On
                }
                Loaded::Unknown(why) | Loaded::Partly(_, why) => {
                    self.set_mark(run, pending, Err(why));
                    Acted::On
                }
            },
            Action::SetCtMark(expr) => match self.load(run, expr) {
                Loaded::Absent => Acted::Break,
                Loaded::Unknown(why) | Loaded::Partly(_, why) => {
                    return self.lost(run, pending, why);
                }
                Loaded::Is(value) => {
                    let after = value.as_number().and_then(|n| u32::try_from(n & 0xffff_ffff).ok());
                    match after {
                        None => {
                            let why = "a connection mark is set to something that is not a number";
                            return self.lost(run, pending, why.to_owned());
                        }
                        Some(after) => self.set_ct_mark(run, pending, after),
                    }
                    Acted::On
                }
            },
            Action::Verdict(verdict) => self.verdict(pending, *verdict),
            Action::VerdictMap { key, map } => self.verdict_map(run, pending, key, *map)?,
            Action::Reject { with } => {
                pending.effects.push(Effect::Reject(with.clone()));
                let hit = self.hit(run, pending, pending.effects.clone());
                self.hits.push(hit);
                return Err(Stop::End(Verdict::Rejected, Some(Reason::Rule)));
            }
            Action::Nat(nat) => self.translate(run, &mut pending.effects, pending.id, nat)?,
            Action::NoTrack => {
                if self.connection.tracking == Tracking::None {
                    self.connection.tracking = Tracking::Untracked;
                }
                pending.effects.push(Effect::NoTrack);
                Acted::On
            }
            Action::CtTemplate => {
                if self.connection.tracking == Tracking::None {
                    self.connection.tracking = Tracking::Template;
                }
                pending.effects.push(Effect::Nothing);
                Acted::On
            }
            Action::CtExtra => {
                pending.effects.push(Effect::Nothing);
                Acted::On
            }
            Action::UpdateSet { set, key, op } => match self.load(run, key) {
                Loaded::Absent => Acted::Break,
                Loaded::Unknown(_) | Loaded::Partly(..) => {
                    pending.effects.push(Effect::Remember);
                    Acted::On
                }
                Loaded::Is(value) => {
                    let key = super::test::member_key(run, *set, &value);
                    if *op == SetUpdate::Put && !self.has_room(run, *set, &value, &key) {
                        return Ok(Acted::Break);
                    }
                    self.decided.insert(key, *op == SetUpdate::Put);
                    pending.effects.push(Effect::Remember);
                    Acted::On
                }
            },
            Action::Opaque(opaque) => {
                let why = format!("a statement is not understood: {opaque}");
                return self.lost(run, pending, why);
            }
        })
    }

    /// Whether a set takes an element (`nft_dynset_new`, net/netfilter/nft_dynset.c). A full one
    /// may have got room since it was captured.
    fn has_room(&mut self, run: &Run<'h>, id: SetId, value: &Value, key: &str) -> bool {
        let set = run.table.set(id);
        let there = set.elements.get(value).is_some() || self.decided.get(key) == Some(&true);
        if there || !set.is_full() || self.decide(Some(&format!("room for {key}")), Kind::State) {
            return true;
        }
        self.decided.insert(key.to_owned(), false);
        false
    }

    /// Ends the walk at a rule whose effect is not known.
    pub(super) fn lost_at(&mut self, hit: Hit, why: String) -> Stop {
        self.hits.push(hit);
        Stop::Unknown(why)
    }

    fn lost(&mut self, run: &Run<'h>, pending: &mut Pending, why: String) -> Step<Acted> {
        pending.effects.push(Effect::Unknown(why.clone()));
        let hit = self.hit(run, pending, pending.effects.clone());
        Err(self.lost_at(hit, why))
    }

    fn verdict(&mut self, pending: &mut Pending, verdict: RuleVerdict) -> Acted {
        pending.effects.push(match verdict {
            RuleVerdict::Accept => Effect::Accept,
            RuleVerdict::Drop => Effect::Drop,
            // nft_do_chain: the rule's next statement runs.
            RuleVerdict::Continue => return Acted::On,
            RuleVerdict::Return => Effect::Return,
            RuleVerdict::Jump(chain) => Effect::Jump(chain),
            RuleVerdict::Goto(chain) => Effect::Goto(chain),
        });
        Acted::Ruled(Ruled::Verdict(verdict))
    }

    fn verdict_map(
        &mut self,
        run: &mut Run<'h>,
        pending: &mut Pending,
        key: &'h unmasq_model::expr::Expr,
        map: SetId,
    ) -> Step<Acted> {
        use unmasq_model::set::Data;
        run.testing = true;
        let key = self.load(run, key);
        run.testing = false;
        match self.find(run, map, key) {
            Err(why) => self.lost(run, pending, why),
            Ok(None) => Ok(Acted::Break),
            Ok(Some(Data::Verdict(verdict))) => Ok(self.verdict(pending, *verdict)),
            Ok(Some(Data::Opaque(opaque))) => {
                let why = format!("a map's verdict is not understood: {opaque}");
                self.lost(run, pending, why)
            }
            Ok(Some(Data::Nothing)) if run.table.set(map).dynamic => {
                self.lost(run, pending, super::expr::filled_since(run, map))
            }
            Ok(Some(Data::Value(_) | Data::Nothing)) => {
                self.lost(run, pending, "a verdict map holds something else".to_owned())
            }
        }
    }

    fn set_mark(&mut self, run: &Run<'h>, pending: &mut Pending, after: Result<u32, String>) {
        match (&self.mark, &after) {
            (Ok(before), Ok(after)) => {
                pending.effects.push(Effect::Mark { before: *before, after: *after });
            }
            (_, Err(why)) => pending.effects.push(Effect::Unknown(why.clone())),
            (Err(_), Ok(after)) => {
                pending.effects.push(Effect::Mark { before: 0, after: *after });
            }
        }
        let bits = match (&self.mark, &after) {
            (Ok(before), Ok(after)) => before ^ after,
            (Err(_), _) | (_, Err(_)) => u32::MAX,
        };
        let cause = self.cause(run);
        self.mark_cause.changed(bits, cause);
        self.mark = after;
    }

    fn set_ct_mark(&mut self, run: &Run<'h>, pending: &mut Pending, after: u32) {
        if !self.connection.exists() {
            // connmark_tg and nft_ct_set_eval return where there is no connection.
            pending.effects.push(Effect::Nothing);
            return;
        }
        let before = self.connection.mark;
        pending.effects.push(Effect::CtMark { before, after });
        let cause = self.cause(run);
        self.ct_mark_cause.changed(before ^ after, cause);
        self.connection.mark = after;
    }

    /// The jumps that led to the current rule, and the rule itself, whose hit comes next.
    pub(super) fn cause(&self, run: &Run<'h>) -> Cause {
        let mut cause = run.entered_by();
        cause.push(self.hits.len());
        cause
    }

    /// A port of the packet as it is now.
    pub(super) fn current_port(&self, end: End) -> Option<Option<u16>> {
        match self.packet.transport {
            Transport::Ports { source, destination } => {
                Some(if end == End::Source { source } else { destination })
            }
            Transport::Icmp { .. } | Transport::Other => None,
        }
    }
}

/// What came of an action.
pub(super) enum Acted {
    /// On with the next step.
    On,
    /// A field was absent: the rule ends without a verdict.
    Break,
    /// The rule ends.
    Ruled(Ruled),
}
