//! The order of hooks: forwarded, from the host, to the host, over loopback.

use unmasq_model::expr::{Direction, End};
use unmasq_model::link::Link;
use unmasq_model::ruleset::Hook;

use super::ingress::Routed;
use super::{Connection, Ended, Step, Stop, Tracking, Walk, reroutes};
use crate::choice::Kind;
use crate::connection::Later;
use crate::hooks::{Base, Entry, Group, Switch};
use crate::trace::{By, Effect, Hit, Reason, Stage, Verdict};

/// What the output hook compares before and after a chain, to see whether to route again.
type RoutedBy = (std::net::IpAddr, std::net::IpAddr, Result<u32, String>);

impl<'h> Walk<'_, 'h, '_> {
    /// The whole way; gives how it ended well.
    pub(super) fn path(&mut self) -> Step<Verdict> {
        match self.in_device.clone() {
            Some(device) => self.arrive(&device),
            None => self.send(),
        }
    }

    fn arrive(&mut self, device: &str) -> Step<Verdict> {
        self.beyond(device, "came in by")?;
        self.before_ip(device)?;
        let bridged = self.is_bridged(device)?;
        if bridged {
            let assumption = "ebtables-legacy has no rules (it is not collected)";
            self.assume(assumption.to_owned())?;
        }
        if bridged && !self.bridge_calls_hooks(device)? {
            self.note(Stage::Link, "bridge", format!("stays on {device}: no IP hook sees it"));
            self.out_device = Some(device.into());
            self.next_hop = Some(self.packet.destination);
            self.bridged = true;
            return self.leave();
        }
        let addressed = self.packet.destination;
        self.hook(Hook::Prerouting)?;
        if bridged && self.packet.destination == addressed {
            self.out_device = Some(device.into());
            self.next_hop = Some(addressed);
            self.bridged = true;
            self.hook(Hook::Forward)?;
            self.hook(Hook::Postrouting)?;
            return self.leave();
        }
        match self.route_in(device)? {
            Routed::Local => {
                self.ipvs()?;
                self.hook(Hook::Input)?;
                Ok(Verdict::Delivered)
            }
            Routed::Out { device: out, next_hop } => {
                let back_on_bridge = *out == *device && self.packet.destination != addressed;
                let stays = back_on_bridge && self.stays_on_bridge(device)?;
                self.out_device = Some(out);
                self.next_hop = Some(next_hop);
                if stays {
                    self.bridged = true;
                    self.hairpin(device)?;
                } else {
                    self.may_forward(device)?;
                }
                self.hook(Hook::Forward)?;
                self.hook(Hook::Postrouting)?;
                self.leave()
            }
        }
    }

    fn send(&mut self) -> Step<Verdict> {
        match self.route_out(true)? {
            Routed::Local => {
                self.out_device = Some("lo".into());
                self.next_hop = Some(self.packet.destination);
            }
            Routed::Out { device, next_hop } => {
                self.out_device = Some(device);
                self.next_hop = Some(next_hop);
            }
        }
        self.hook(Hook::Output)?;
        // IPVS looks right after the DNAT of the output hook (NF_IP_PRI_NAT_DST + 1).
        self.ipvs()?;
        if let Some(out) = self.rerouted.take() {
            self.out_device = Some(out);
        }
        self.hook(Hook::Postrouting)?;
        if self.out_device.as_deref() != Some("lo") {
            return self.leave();
        }
        // Over loopback the packet keeps its connection, mark and route: prerouting and input
        // run, and their nat chains have nothing left to bind.
        // nf_confirm, at the end of postrouting.
        self.connection.confirmed = self.connection.exists();
        self.in_device = Some("lo".into());
        self.out_device = None;
        self.hook(Hook::Prerouting)?;
        self.hook(Hook::Input)?;
        Ok(Verdict::Delivered)
    }

    fn leave(&mut self) -> Step<Verdict> {
        if let Some(out) = self.out_device.clone() {
            self.beyond(&out, "leaves by")?;
        }
        Ok(Verdict::Forwarded)
    }

    /// All that runs at one hook.
    fn hook(&mut self, hook: Hook) -> Step {
        let plans = self.evaluator.plans(self.family());
        if let Some(why) = plans.missing.first() {
            return Err(Stop::Unknown(why.clone()));
        }
        for assumption in &plans.assumed_empty {
            self.assume(assumption.clone())?;
        }
        let plan = plans.plan(hook);
        for group in &plan.entries {
            for entry in self.in_some_order(group, hook) {
                match entry {
                    Entry::Conntrack => self.track(&plans.conntrack),
                    Entry::NatDispatcher => self.dispatch(hook, &plan.nat)?,
                    Entry::Chain(base) => self.chain(hook, base)?,
                    Entry::Unreadable(table) => {
                        let table = &self.evaluator.host.ruleset.tables[table as usize];
                        let why = table.unreadable.as_ref().map_or("", |why| &why.text);
                        return Err(Stop::Unknown(format!(
                            "the rules of table {} {} can't be read: {why}",
                            table.family, table.name
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// Entries of one priority run in the reverse order of their registration, which a listing
    /// tells only within a table: every order between tables is tried.
    fn in_some_order<T: Copy>(&mut self, group: &Group<T>, hook: Hook) -> Vec<T> {
        let mut left: Vec<&[T]> = group.sequences.iter().map(Vec::as_slice).collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let chosen = if left.len() == 1 {
                0
            } else {
                let why = format!(
                    "chains of priority {} in the {hook} hook run in an order that no listing shows",
                    group.priority
                );
                let every = self.evaluator.options.every_order;
                let kind = if every { Kind::State } else { self.unknown(why, None) };
                self.choices.choose(kind, left.len())
            };
            let sequence = left[chosen];
            order.extend(sequence.first().copied());
            match sequence.get(1..) {
                Some(rest) if !rest.is_empty() => left[chosen] = rest,
                Some(_) | None => {
                    left.remove(chosen);
                }
            }
        }
        order
    }

    fn track(&mut self, switch: &Switch) {
        if !matches!(self.connection.tracking, Tracking::None | Tracking::Template) {
            return;
        }
        let on = match switch {
            Switch::On => true,
            Switch::Off => false,
            Switch::Unknown(why) => {
                let kind = self.unknown(why.clone(), None);
                self.decide(Some("connection tracking"), kind)
            }
        };
        if !on {
            return;
        }
        match self.later.as_ref().map(|later| (later, &later.connection)) {
            None => self.connection.tracking = Tracking::New,
            Some((later, None)) => {
                if later.opens(self.packet.protocol) {
                    self.connection.tracking = Tracking::New;
                }
            }
            Some((_, Some(entry))) => {
                self.connection = Connection {
                    tracking: Tracking::Begun,
                    mark: entry.mark,
                    source_changed: entry.source_changed(),
                    destination_changed: entry.destination_changed(),
                    source_done: entry.source_done,
                    destination_done: entry.destination_done,
                    masqueraded: entry.masqueraded.clone(),
                    confirmed: true,
                };
            }
        }
    }

    /// `nf_nat_inet_fn`: nat chains are asked only for a new connection that has no binding of
    /// this end yet, and only until one of them makes it.
    fn dispatch(&mut self, hook: Hook, groups: &'_ [Group<Base>]) -> Step {
        let end = match hook {
            Hook::Prerouting | Hook::Output => End::Destination,
            Hook::Input | Hook::Postrouting | Hook::Forward => End::Source,
        };
        match self.connection.tracking {
            Tracking::New => {}
            Tracking::Begun => {
                self.ask_too_late(hook, end, groups)?;
                return self.translate_as_before(hook, end);
            }
            Tracking::None | Tracking::Untracked | Tracking::Template => return Ok(()),
        }
        let done = match end {
            End::Source => &mut self.connection.source_done,
            End::Destination => &mut self.connection.destination_done,
        };
        if std::mem::replace(done, true) {
            return Ok(());
        }
        let destination = self.packet.destination;
        'chains: for group in groups {
            for base in self.in_some_order(group, hook) {
                if self.run_base(hook, base)? == Ended::Bound {
                    break 'chains;
                }
            }
        }
        // nf_nat_ipv4_local_fn, nf_nat_ipv6_local_fn: a new address is routed again.
        if hook == Hook::Output && self.packet.destination != destination {
            self.reroute()?;
        }
        Ok(())
    }

    /// A connection that began before there were nat chains asks them with each packet until it is
    /// answered. None of them makes a binding (`nf_nat_setup_info` returns for a confirmed
    /// connection), so each is asked.
    fn ask_too_late(&mut self, hook: Hook, end: End, groups: &[Group<Base>]) -> Step {
        let settled = |later: &Later| later.established() || later.done(end);
        if self.later.as_ref().is_none_or(settled) {
            return Ok(());
        }
        for group in groups {
            for base in self.in_some_order(group, hook) {
                self.run_base(hook, base)?;
            }
        }
        Ok(())
    }

    /// `nf_nat_packet`: what follows the first packet is translated from the connection's entry.
    fn translate_as_before(&mut self, hook: Hook, end: End) -> Step {
        let Some(later) = self.later.clone() else { return Ok(()) };
        // nf_nat_oif_changed (net/netfilter/nf_nat_core.c): the entry is removed as well.
        let masqueraded = self.connection.masqueraded.as_deref();
        let original = later.direction == Direction::Original;
        if hook == Hook::Postrouting
            && original
            && let Some(device) = masqueraded
            && self.out_device.as_deref() != Some(device)
        {
            let did = format!("drops it: it was masqueraded for {device}");
            return self.end(Verdict::Dropped, Reason::Moved, "connection tracking", &did);
        }
        let Some(to) = later.translated(end) else { return Ok(()) };
        let Some(address) = to.address else {
            let why = format!("the {end} that the connection was given is not known");
            return Err(Stop::Unknown(why));
        };
        let moved = end == End::Destination && address != self.packet.destination;
        self.replace(end, address, to.port);
        self.note(Stage::Hook(hook), "connection tracking", format!("{end} is now {to}"));
        // nf_nat_ipv4_local_fn, nf_nat_ipv6_local_fn: as for the first packet.
        if hook == Hook::Output && moved {
            self.reroute()?;
        }
        Ok(())
    }

    fn chain(&mut self, hook: Hook, base: Base) -> Step {
        let before = self.routed_by();
        self.run_base(hook, base)?;
        if reroutes(base.kind, hook) && self.routed_by() != before {
            self.reroute()?;
        }
        Ok(())
    }

    fn routed_by(&self) -> RoutedBy {
        (self.packet.source, self.packet.destination, self.mark.clone())
    }

    /// `ip_route_me_harder`, `ip6_route_me_harder`. Chains of the output hook that are still to
    /// come go on seeing the device of the first route; postrouting sees the new one.
    fn reroute(&mut self) -> Step {
        let (out, next_hop) = match self.route_out(false)? {
            Routed::Local => ("lo".into(), self.packet.destination),
            Routed::Out { device, next_hop } => (device, next_hop),
        };
        self.hits.push(Hit {
            stage: Stage::Routing,
            by: By::Kernel("the change of address or mark".to_owned()),
            depth: 0,
            counted: false,
            effects: vec![Effect::Rerouted { out: out.clone() }],
        });
        self.next_hop = Some(next_hop);
        self.rerouted = Some(out);
        Ok(())
    }

    /// tc, XDP and other BPF programs, netdev and bridge chains: what changes packets outside the
    /// IP hooks.
    fn beyond(&mut self, device: &str, how: &str) -> Step {
        let host = self.evaluator.host;
        let lost = |device: &str, what: &str| {
            let may = "may change, redirect or drop it";
            Err(Stop::Unknown(format!("the packet {how} {device}, where {what} {may}")))
        };
        let beyond = &host.beyond;
        for device in self.evaluator.at_and_below(device) {
            if self.evaluator.link(device).is_some_and(|link| link.xdp) {
                return lost(device, "an XDP program");
            }
            if beyond.tc.iter().flatten().any(|(on, _)| **on == *device) {
                return lost(device, "a tc filter");
            }
            let here = |on: &Option<Box<str>>| on.as_deref().is_none_or(|on| on == device);
            if beyond.bpf.iter().flatten().any(|(on, _)| here(on)) {
                return lost(device, "a BPF program");
            }
        }
        self.assume_nothing_beyond()?;
        if beyond.xfrm.iter().flatten().next().is_some() {
            return Err(Stop::Unknown(
                "the host has IPsec policies, which are not modelled".into(),
            ));
        }
        if self.evaluator.has_chains_at_devices {
            return lost(device, "an ingress or egress chain");
        }
        let on_bridge = self.evaluator.link(device).is_some_and(Link::is_bridge);
        if on_bridge && self.evaluator.has_bridge_rules {
            return lost(device, "a bridge table");
        }
        Ok(())
    }

    /// Files of what no ruleset shows are optional in a capture.
    fn assume_nothing_beyond(&mut self) -> Step {
        let beyond = &self.evaluator.host.beyond;
        let uncaptured: Vec<&str> = [
            (beyond.tc.is_none(), "tc filters"),
            (beyond.bpf.is_none(), "BPF programs on devices or in IP hooks"),
            (beyond.ipvs.is_none(), "IPVS services"),
            (beyond.xfrm.is_none(), "IPsec policies"),
        ]
        .into_iter()
        .filter_map(|(missing, what)| missing.then_some(what))
        .collect();
        if uncaptured.is_empty() {
            return Ok(());
        }
        self.assume(format!("the host has no {} (not captured)", uncaptured.join(", ")))
    }

    /// IPVS picks packets to its virtual services up in the input and output hooks.
    fn ipvs(&mut self) -> Step {
        let services = self.evaluator.host.beyond.ipvs.as_deref().unwrap_or_default();
        let wanted = ipvs_spellings(self.packet.destination);
        let may_be = |line: &str| {
            line.contains("FWM") || line.contains("-f ") || wanted.iter().any(|w| line.contains(w))
        };
        if services.iter().any(|line| may_be(line)) {
            return Err(Stop::Unknown(format!(
                "{} may be a virtual service of IPVS, which is not modelled yet",
                self.packet.destination
            )));
        }
        Ok(())
    }

    /// Drops the packet for a reason found while routing.
    pub(super) fn refuse<T>(&mut self, verdict: Verdict, reason: Reason, did: &str) -> Step<T> {
        self.end(verdict, reason, "route", did)
    }
}

/// How an address is written in `ipvsadm -S` (decimal) and in /proc/net/ip_vs (hexadecimal).
fn ipvs_spellings(address: std::net::IpAddr) -> Vec<String> {
    match address {
        std::net::IpAddr::V4(v4) => {
            vec![format!("{v4}:"), format!("{:08X}:", u32::from(v4))]
        }
        std::net::IpAddr::V6(v6) => {
            let full: Vec<String> = v6.segments().iter().map(|s| format!("{s:04x}")).collect();
            vec![format!("[{v6}]:"), format!("[{}]", full.join(":"))]
        }
    }
}
