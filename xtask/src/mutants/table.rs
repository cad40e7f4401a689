//! The deliberate errors, one for each thing that is easily got wrong, in the order in which a
//! packet meets it: hooks, chains, tests, marks, connections, NAT, routes.
//!
//! Add one for each thing that the evaluator learns. An error must change an answer, not only
//! its reasons.

use super::Mutant;

/// All.
pub(super) const MUTANTS: &[Mutant] = &[
    // Hooks and chains.
    Mutant {
        error: "chains run in the order of their tables, not of their priorities",
        file: "hooks.rs",
        from: "(*priority, *table, *order)",
        to: "(*table, *priority, *order)",
    },
    Mutant {
        error: "nat chains run at their own priority, outside the dispatcher",
        file: "hooks.rs",
        from: "nat.push((base.priority, *index, order, place))",
        to: "entries.push((base.priority, *index, order, Entry::Chain(place)))",
    },
    Mutant {
        error: "nat chains of the input hook are not asked",
        file: "hooks.rs",
        from: "if hook != Hook::Forward && tables",
        to: "if hook != Hook::Forward && hook != Hook::Input && tables",
    },
    Mutant {
        error: "goto comes back like jump",
        file: "walk/rules.rs",
        from: "Ruled::Verdict(RuleVerdict::Jump(target)) => {",
        to: "Ruled::Verdict(RuleVerdict::Jump(target) | RuleVerdict::Goto(target)) => {",
    },
    Mutant {
        error: "return leaves all chains, not only its own",
        file: "walk/rules.rs",
        from: "Ruled::Verdict(RuleVerdict::Return) => {",
        to: "Ruled::Verdict(RuleVerdict::Return) => {\nrun.frames.clear();",
    },
    Mutant {
        error: "return in a base chain accepts, whatever the policy",
        file: "walk/rules.rs",
        from: "Ruled::Verdict(RuleVerdict::Return) => {",
        to: "Ruled::Verdict(RuleVerdict::Return) if run.frames.len() == 1 => {\n\
             return Ok(Ended::Accepted);\n}\n\
             Ruled::Verdict(RuleVerdict::Return) => {",
    },
    Mutant {
        error: "accept ends the chain called, not the base chain",
        file: "walk/rules.rs",
        from: "Ruled::Verdict(RuleVerdict::Accept) => return Ok(Ended::Accepted),",
        to: "Ruled::Verdict(RuleVerdict::Accept) => {\nrun.frames.pop();\n}",
    },
    Mutant {
        error: "the policy to drop is ignored",
        file: "walk/rules.rs",
        from: "match table.chain(base.chain).base.map(|base| base.policy) {",
        to: "match None::<Policy> {",
    },
    Mutant {
        error: "a verdict map without the key returns",
        file: "walk/rules.rs",
        from: "Ok(None) => Ok(Acted::Break),",
        to: "Ok(None) => Ok(self.verdict(pending, RuleVerdict::Return)),",
    },
    Mutant {
        error: "a counter before a test that fails does not count",
        file: "walk/rules.rs",
        from: "if !self.holds(run, &mut pending, tested, rest) {",
        to: "if !self.holds(run, &mut pending, tested, rest) {\npending.counted = false;",
    },
    // Tests.
    Mutant {
        error: "a negated test of something that the packet does not have holds",
        file: "walk/test.rs",
        from: "let left = match loaded {\n            \
               Loaded::Is(value) => value,\n            \
               Loaded::Absent => return Tested::Break,",
        to: "let left = match loaded {\n\
             Loaded::Is(value) => value,\n\
             Loaded::Absent => return Tested::of(op == Comparison::Ne),",
    },
    Mutant {
        error: "a negated test of a device fails where there is no device",
        file: "walk/test.rs",
        from: "Tested::of(pattern.matches(self.device_name(*device)) != *negated)",
        to: "let name = self.device_name(*device);\n\
             Tested::of(!name.is_empty() && pattern.matches(name) != *negated)",
    },
    Mutant {
        error: "the lower bound of a range is outside",
        file: "walk/test.rs",
        from: "(*low <= n && n <= *high)",
        to: "(*low < n && n <= *high)",
    },
    Mutant {
        error: "the upper bound of a range is outside",
        file: "walk/test.rs",
        from: "(*low <= n && n <= *high)",
        to: "(*low <= n && n < *high)",
    },
    Mutant {
        error: "multiport takes the first port of a range alone",
        file: "walk/test.rs",
        from: "if ranges.iter().any(|(low, high)| (*low..=*high).contains(&port)) {",
        to: "if ranges.iter().any(|(low, _)| *low == port) {",
    },
    Mutant {
        error: "the negation of a lookup in an nft set is ignored",
        file: "walk/test.rs",
        from: "Tested::of(found.is_some() != *negated)",
        to: "Tested::of(found.is_some())",
    },
    Mutant {
        error: "the negation of a lookup in an ipset is ignored",
        file: "walk/test.rs",
        from: "Member::No => Tested::of(negated),",
        to: "Member::No => Tested::False,",
    },
    Mutant {
        error: "an ipset's directions are taken in reverse",
        file: "walk/test.rs",
        from: "hash.find(&self.packet, ends,",
        to: "hash.find(&self.packet, &ends.iter().rev().copied().collect::<Vec<_>>(),",
    },
    Mutant {
        error: "nomatch elements of an ipset match",
        file: "walk/test.rs",
        from: "Some(flags) if flags.nomatch != (return_nomatch && has_exceptions(set)) =>",
        to: "Some(_) if return_nomatch && has_exceptions(set) =>",
    },
    Mutant {
        error: "only the first member of a list:set is asked",
        file: "walk/test.rs",
        from: "Member::No => {}",
        to: "Member::No => break,",
    },
    Mutant {
        error: "addrtype ignores the limit to a device",
        file: "walk/test.rs",
        from: "let device = limit.map(|device| self.device_name(device));",
        to: "let device = limit.and(None::<&str>);",
    },
    Mutant {
        error: "fib type ignores the device in IPv4",
        file: "walk/expr.rs",
        from: "Family::V4 => fib_table.address_type4(address, device),",
        to: "Family::V4 => fib_table.address_type4(address, None),",
    },
    Mutant {
        error: "fib oif ignores the device that the packet came in by",
        file: "walk/expr.rs",
        from: "Some(wanted) => devices.find(|device| *device == wanted),",
        to: "Some(_) => devices.next(),",
    },
    // Marks and connections.
    Mutant {
        error: "the mask of a mark is ignored",
        file: "walk/expr.rs",
        from: "Ok(mark) => (mark & bits).into(),",
        to: "Ok(mark) => (*mark).into(),",
    },
    Mutant {
        error: "the mask of a connection's mark is ignored",
        file: "walk/expr.rs",
        from: "(self.connection.mark & bits).into()",
        to: "self.connection.mark.into()",
    },
    Mutant {
        error: "a mark's bits are set where they should be flipped",
        file: "walk/expr.rs",
        from: "BitOp::Xor => left ^ right,",
        to: "BitOp::Xor => left | right,",
    },
    Mutant {
        error: "a packet is NEW before it is tracked",
        file: "walk/expr.rs",
        from: "Tracking::None => ct_state::INVALID,",
        to: "Tracking::None => ct_state::NEW,",
    },
    Mutant {
        error: "an untracked packet is INVALID",
        file: "walk/expr.rs",
        from: "Tracking::Untracked => ct_state::UNTRACKED,",
        to: "Tracking::Untracked => ct_state::INVALID,",
    },
    Mutant {
        error: "a new destination gives the state SNAT",
        file: "walk/expr.rs",
        from: "state |= XT_STATE_DNAT;",
        to: "state |= XT_STATE_SNAT;",
    },
    // NAT.
    Mutant {
        error: "nat chains are asked about untracked packets",
        file: "walk/path.rs",
        from: "Tracking::None | Tracking::Untracked | Tracking::Template => return Ok(()),",
        to: "Tracking::Untracked => {}\n            Tracking::None | Tracking::Template => return Ok(()),",
    },
    Mutant {
        error: "another nat chain is asked after one made the binding",
        file: "walk/path.rs",
        from: "break 'chains;",
        to: "continue 'chains;",
    },
    Mutant {
        error: "accept in a nat chain keeps the next one from being asked",
        file: "walk/rules.rs",
        from: "Ruled::Verdict(RuleVerdict::Accept) => return Ok(Ended::Accepted),",
        to: "Ruled::Verdict(RuleVerdict::Accept) => return Ok(Ended::Bound),",
    },
    Mutant {
        error: "over loopback nat chains are asked a second time",
        file: "walk/path.rs",
        from: "if std::mem::replace(done, true) {",
        to: "if std::mem::replace(done, true) && self.in_device.as_deref() != Some(\"lo\") {",
    },
    Mutant {
        error: "masquerade takes the device's first address",
        file: "select.rs",
        from: "if address.network().is_some_and(|net| net.contains(&next_hop)) {",
        to: "if address.network().is_some() {",
    },
    Mutant {
        error: "masquerade does not compare prefixes in IPv6",
        file: "select.rs",
        from: "matched_bits: u8::try_from(common).unwrap_or(128).min(address.prefix_len),",
        to: "matched_bits: u8::try_from(common & 0).unwrap_or(128),",
    },
    Mutant {
        error: "REDIRECT takes the device's last address",
        file: "walk/nat.rs",
        from: ".find(|address| family == Family::V4 ||",
        to: ".rfind(|address| family == Family::V4 ||",
    },
    Mutant {
        error: "REDIRECT of the node's own packets leads to their source",
        file: "walk/nat.rs",
        from: "if hook == Hook::Output {",
        to: "if hook == Hook::Output {\nif true {\nreturn Ok(self.packet.source);\n}",
    },
    Mutant {
        error: "NETMAP drops the host's part of the address",
        file: "walk/nat.rs",
        from: "& !host | number(address) & host;",
        to: "& !host;",
    },
    Mutant {
        error: "a source port outside the range given is kept",
        file: "walk/nat.rs",
        from: "_ => Port::Between(low, high),",
        to: "_ => before,",
    },
    Mutant {
        error: "numgen random never gives its last number",
        file: "walk/expr.rs",
        from: "let options = (*modulus).max(1);",
        to: "let options = (*modulus).max(2) - 1;",
    },
    // Routes.
    Mutant {
        error: "a mark set in output does not route again",
        file: "walk.rs",
        from: "ChainKind::Route => hook == Hook::Output,",
        to: "ChainKind::Route => false,",
    },
    Mutant {
        error: "a new destination in output does not route again",
        file: "walk/path.rs",
        from: "if hook == Hook::Output && self.packet.destination != destination {",
        to: "if hook == Hook::Forward && self.packet.destination != destination {",
    },
    Mutant {
        error: "output sees the device of the second route",
        file: "walk/path.rs",
        from: "self.rerouted = Some(out);",
        to: "self.out_device = Some(out);",
    },
    Mutant {
        error: "the mask of a policy rule's mark is ignored",
        file: "fib.rs",
        from: "(mark ^ value) & mask == 0",
        to: "mark ^ value == 0 && mask != 0",
    },
    Mutant {
        error: "not in a policy rule is ignored",
        file: "fib.rs",
        from: "(true, None) => Ok(!rule.inverted),",
        to: "(true, None) => Ok(true),",
    },
    Mutant {
        error: "suppress_prefixlength keeps routes of just that length",
        file: "fib.rs",
        from: "if route.destination.prefix_len() <= length =>",
        to: "if route.destination.prefix_len() < length =>",
    },
    Mutant {
        error: "after a throw route its table goes on with a shorter prefix",
        file: "fib.rs",
        from: "RouteKind::Throw => return None,",
        to: "RouteKind::Throw => continue,",
    },
    Mutant {
        error: "a device's own rp_filter is ignored",
        file: "walk/ingress.rs",
        from: "(Some(own), Some(all)) => Ok(own.max(all)),",
        to: "(Some(_), Some(all)) => Ok(all),",
    },
    Mutant {
        error: "strict rp_filter is taken as loose",
        file: "walk/ingress.rs",
        from: "if strictness == 1 || (!has_address && strictness != 0) {",
        to: "if !has_address && strictness != 0 {",
    },
    Mutant {
        error: "loose rp_filter lets a packet in by a device without address",
        file: "walk/ingress.rs",
        from: "if strictness == 1 || (!has_address && strictness != 0) {",
        to: "if strictness == 1 {",
    },
    Mutant {
        error: "the way back is looked up with the mark, without src_valid_mark",
        file: "walk/ingress.rs",
        from: "Some(false) => Ok(0),",
        to: "Some(false) => self.mark.clone(),",
    },
    Mutant {
        error: "the node's own address as a source is let in",
        file: "walk/ingress.rs",
        from: "Some(false) => self.martian(\"the host's own address as a source\"),",
        to: "Some(false) => Ok(()),",
    },
    Mutant {
        error: "127.0.0.1 leaves by any device",
        file: "walk/ingress.rs",
        from: "if !from_loopback || **device == *\"lo\" {",
        to: "if !from_loopback || **device != *\"\" {",
    },
    Mutant {
        error: "forwarding is asked of all devices, not of the one in question",
        file: "walk/ingress.rs",
        from: ".device(\"ipv4\", device, \"forwarding\")",
        to: ".device(\"ipv4\", \"all\", \"forwarding\")",
    },
    Mutant {
        error: "a packet with a time to live of 1 is forwarded",
        file: "walk/ingress.rs",
        from: "Some(ttl) if *ttl <= 1 => {",
        to: "Some(ttl) if *ttl < 1 => {",
    },
];
