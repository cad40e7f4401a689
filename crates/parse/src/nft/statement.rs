//! Statements: from nft's JSON to the steps of a rule.

use unmasq_model::expr::{Expr, Field};
use unmasq_model::origin::Opaque;
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::{Action, Comparison, SetUpdate, Step, Test};
use unmasq_model::ruleset::TableFamily;

use super::expr::{Lowerer, presence};
use super::json::Node;
use super::kind::Kind;
use super::render;
use super::set::{self, DataType};
use super::text;

impl Lowerer<'_> {
    /// Adds a statement's steps. One that is not understood is kept as an opaque action: it may do
    /// anything.
    pub(super) fn statement(&mut self, node: &Node<'_>) {
        let written = node.text().and_then(text::statement);
        if self.understood(written.as_ref().unwrap_or(node)).is_none() {
            let text = render::statement(self.scope.table.family, node);
            self.act(Action::Opaque(Opaque::new(text)));
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.steps.push(Step::Do(action));
    }

    fn test(&mut self, test: Test) {
        self.steps.push(Step::Test(test));
    }

    /// Adds all steps or, with `None`, at most tests that come before the statement anyhow.
    fn understood(&mut self, node: &Node<'_>) -> Option<()> {
        let (name, body) = node.single()?;
        match name {
            "match" => {
                let test = self.comparison(body);
                self.test(test);
            }
            "accept" | "drop" | "continue" | "return" | "jump" | "goto" => {
                let verdict = self.scope.verdict(node)?;
                self.act(Action::Verdict(verdict));
            }
            "vmap" => self.verdict_map(body)?,
            "dnat" | "snat" | "masquerade" | "redirect" => {
                let nat = self.nat(name, body)?;
                self.act(Action::Nat(nat));
            }
            "counter" => self.counter(body)?,
            "mangle" => self.mangle(body)?,
            "reject" => self.reject(body),
            // `last` only notes the time (net/netfilter/nft_last.c).
            "log" | "last" | "flow" => self.act(Action::Log),
            "notrack" => self.act(Action::NoTrack),
            "limit" | "quota" | "ct count" => {
                self.object(body)?;
                self.state(node);
            }
            "ct helper" | "ct timeout" => {
                self.object(body)?;
                self.act(Action::CtExtra);
            }
            "ct expectation" => {
                self.object(body)?;
                // Without a connection the rule breaks (nft_ct_expect_obj_eval).
                self.steps.extend(presence(Expr::Field(Field::CtMark), Kind::Mark).map(Step::Test));
                self.act(Action::CtExtra);
            }
            "set" | "map" => self.update(name, body)?,
            "meter" => self.meter(body)?,
            "xt" if body.get("type").and_then(Node::text) == Some("match") => {
                let text = render::statement(self.scope.table.family, node);
                self.test(Test::Opaque(Opaque::new(text)));
            }
            _ => return None,
        }
        Some(())
    }

    /// An anonymous counter is the rule's; a named one belongs to nobody, and raising it is like
    /// writing to a log.
    fn counter(&mut self, body: &Node<'_>) -> Option<()> {
        let action = match body {
            Node::Text(_) => Action::Log,
            Node::Object(_) if body.get("map").is_some() => {
                self.object(body)?;
                Action::Log
            }
            Node::Null | Node::Object(_) => Action::Count,
            Node::Bool(_) | Node::Number(_) | Node::List(_) => return None,
        };
        self.act(action);
        Some(())
    }

    /// A test of kept state that nobody captured.
    fn state(&mut self, node: &Node<'_>) {
        let what = render::statement(self.scope.table.family, node).into();
        self.test(Test::State { what, key: None, sets: false });
    }

    /// The object that a statement refers to: one in the rule or a named one is always there, one
    /// in a map only for the map's keys (`nft_objref_map_eval`, net/netfilter/nft_objref.c).
    fn object(&mut self, body: &Node<'_>) -> Option<()> {
        if let Some(map) = body.get("map") {
            let key = self.key(map.get("key")?, map.get("data")?);
            if !key.is_understood() {
                return None;
            }
            let set = self.set_of(map.get("data")?, &key.kinds, DataType::Object)?;
            self.test(Test::Member { key: key.expr, set, negated: false });
        }
        Some(())
    }

    fn verdict_map(&mut self, body: &Node<'_>) -> Option<()> {
        let key = self.key(body.get("key")?, body.get("data")?);
        if !key.is_understood() {
            return None;
        }
        let map = self.set_of(body.get("data")?, &key.kinds, DataType::Verdict)?;
        if self.scope.set_type(map).data != DataType::Verdict {
            return None;
        }
        self.act(Action::VerdictMap { key: key.expr, map });
        Some(())
    }

    fn mangle(&mut self, body: &Node<'_>) -> Option<()> {
        let (base, key) = body.get("key")?.single()?;
        let value = body.get("value")?;
        if base == "tcp option" {
            // Clamping the segment size changes nothing that rules look at, but breaks the rule
            // in packets without the option (net/netfilter/nft_exthdr.c).
            let what = format!("{} set", render::expression(body.get("key")?)).into();
            self.test(Test::State { what, key: None, sets: false });
            return Some(());
        }
        let action = match (base, key.get("key").and_then(Node::text)) {
            ("meta", Some("mark")) => Action::SetMark(self.mark(value)),
            ("ct", Some("mark")) => Action::SetCtMark(self.mark(value)),
            // Tracing and queueing discipline: nothing that the walk depends on.
            ("meta", Some("nftrace" | "priority")) if is_constant(value) => Action::Log,
            ("ct", Some("event" | "label")) if is_constant(value) => Action::CtExtra,
            ("ct", Some("zone")) => {
                self.present(value)?;
                Action::CtTemplate
            }
            _ => return None,
        };
        self.act(action);
        Some(())
    }

    /// Breaks the rule where a value is not there: a map without the key, a field of another
    /// protocol. Which value it is doesn't matter.
    fn present(&mut self, value: &Node<'_>) -> Option<()> {
        let typed = self.expression(value, &[Kind::Number]);
        if !typed.is_understood() {
            return None;
        }
        let kind = typed.kind();
        let test = match typed.expr {
            Expr::Lookup { key, map } => Some(Test::Member { key: *key, set: map, negated: false }),
            other => presence(other, kind),
        };
        self.steps.extend(test.map(Step::Test));
        Some(())
    }

    fn mark(&mut self, value: &Node<'_>) -> Expr {
        let typed = self.expression(value, &[Kind::Mark]);
        match typed.kind() {
            Kind::Mark | Kind::Number => typed.expr,
            _ => Expr::Opaque(Opaque::new(render::expression(value))),
        }
    }

    /// Where nft prints no test of protocol or family right before a `reject`, there is one all
    /// the same: the statement implies it, and the listing leaves it out (`stmt_reject_postprocess`,
    /// src/netlink_delinearize.c).
    fn reject(&mut self, body: &Node<'_>) {
        let kind = body.get("type").and_then(Node::text);
        let inet = self.scope.table.family == TableFamily::Inet;
        let implied = match kind {
            Some("tcp reset") => Some((Field::L4Proto, Protocol::TCP.0)),
            Some("icmp") if inet => Some((Field::Nfproto, Family::V4.nfproto())),
            Some("icmpv6") if inet => Some((Field::Nfproto, Family::V6.nfproto())),
            Some(_) | None => None,
        };
        if let Some((field, value)) = implied {
            self.test(Test::Compare {
                left: Expr::Field(field),
                op: Comparison::Eq,
                right: Expr::number(value),
            });
        }
        let with = match (kind, body.get("expr").and_then(Node::text)) {
            (Some(kind), Some(code)) => format!("{kind} {code}"),
            (Some(kind), None) => kind.to_owned(),
            (None, _) => {
                format!("{} port-unreachable", render::default_reject(self.scope.table.family))
            }
        };
        self.act(Action::Reject { with: with.into() });
    }

    /// `add`, `update` or `delete @set { … }`. A full set breaks the rule too, which is left out
    /// as other shortages of memory are.
    fn update(&mut self, kind: &str, body: &Node<'_>) -> Option<()> {
        let op = match body.get("op")?.text()? {
            "add" | "update" => SetUpdate::Put,
            "delete" => SetUpdate::Delete,
            _ => return None,
        };
        let set = self.scope.set(body.get(kind)?.text()?.strip_prefix('@')?)?;
        // Whatever becomes of the key: from here on nobody knows what the set holds.
        self.scope.mark_dynamic(set);
        let kinds = self.scope.set_type(set).keys.clone();
        let key = self.expression(element(body.get("elem")?), &kinds);
        if !key.is_understood() {
            return None;
        }
        if let DataType::Values(kinds) = self.scope.set_type(set).data.clone() {
            self.data(body.get("data")?, &kinds)?;
        }
        self.act(Action::UpdateSet { set, key: key.expr, op });
        if op == SetUpdate::Put {
            let own = body.get("stmt").map_or(&[][..], Node::one_or_more);
            self.stateful(own);
            let limits = self.scope.set_type(set).limits.clone();
            if let Some(what) = limits.filter(|_| own.is_empty()) {
                self.test(Test::State { what, key: None, sets: false });
            }
        }
        Some(())
    }

    /// What a map is to hold breaks the rule where the packet has no such field.
    fn data(&mut self, node: &Node<'_>, kinds: &[Kind]) -> Option<()> {
        let data = self.expression(node, kinds);
        if !data.is_understood() {
            return None;
        }
        let fields = match data.expr {
            Expr::Concat(fields) => fields.into_vec(),
            scalar => vec![scalar],
        };
        for (field, kind) in fields.into_iter().zip(data.kinds) {
            self.steps.extend(presence(field, kind).map(Step::Test));
        }
        Some(())
    }

    /// The older form of a limit for each key.
    fn meter(&mut self, body: &Node<'_>) -> Option<()> {
        let key = self.expression(element(body.get("key")?), &[]);
        if !key.is_understood() {
            return None;
        }
        if let Some(set) = body.get("name").and_then(Node::text).and_then(|s| self.scope.set(s)) {
            self.scope.mark_dynamic(set);
            self.act(Action::UpdateSet { set, key: key.expr, op: SetUpdate::Put });
        }
        self.stateful(std::slice::from_ref(body.get("stmt")?));
        Some(())
    }

    /// The statements that an element carries: a limit breaks the rule when it is used up.
    fn stateful(&mut self, statements: &[Node<'_>]) {
        for statement in statements.iter().filter(|statement| set::limits(statement)) {
            match statement.single() {
                Some(("limit" | "quota" | "ct count", _)) => self.state(statement),
                Some(_) | None => {
                    let text = render::statement(self.scope.table.family, statement);
                    self.act(Action::Opaque(Opaque::new(text)));
                }
            }
        }
    }
}

/// The element without its timeout.
fn element<'n, 'a>(node: &'n Node<'a>) -> &'n Node<'a> {
    match node.single() {
        Some(("elem", body)) => body.get("val").unwrap_or(node),
        Some(_) | None => node,
    }
}

/// Whether evaluating it can't break the rule.
fn is_constant(node: &Node<'_>) -> bool {
    match node {
        Node::Bool(_) | Node::Number(_) => true,
        Node::Text(text) => !text.starts_with('@'),
        Node::List(list) => list.iter().all(is_constant),
        Node::Null | Node::Object(_) => false,
    }
}
