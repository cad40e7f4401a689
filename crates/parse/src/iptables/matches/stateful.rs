//! Matches whose result depends on chance, time or what passed before: `statistic`, `recent`,
//! `limit` and their kin.

use unmasq_model::rule::{Step, Test};

use super::push;
use crate::iptables::token::Match;

/// A test of which both results are possible. Negation doesn't change that.
pub(super) fn any(m: Match<'_>) -> Test {
    let text = m.text();
    let what = text.strip_prefix("-m ").unwrap_or(&text).into();
    Test::State { what, key: None, sets: false }
}

/// `statistic` (net/netfilter/xt_statistic.c).
pub(super) fn statistic(m: Match<'_>, steps: &mut Vec<Step>) -> Option<()> {
    let mut mode = None;
    let mut probability = None;
    for option in m.options() {
        match option.name {
            "--mode" if !option.negated => mode = Some(option.one()?),
            "--probability" => probability = Some((threshold(option.one()?)?, option.negated)),
            "--every" | "--packet" => {}
            _ => return None,
        }
    }
    match (mode?, probability) {
        ("random", Some((numerator, negated))) => push(steps, Test::Random { numerator, negated }),
        ("nth", None) => push(steps, any(m)),
        _ => return None,
    }
    Some(())
}

/// `lround(0x80000000 * p)`, as in libxt_statistic.c.
fn threshold(text: &str) -> Option<u32> {
    let p: f64 = text.parse().ok()?;
    // The product is between 0 and 2^31, which a u32 holds.
    (0.0..=1.0).contains(&p).then(|| (p * f64::from(0x8000_0000_u32)).round() as u32)
}

/// `recent` (recent_mt in net/netfilter/xt_recent.c): `--set` is always true and leaves an entry.
/// Tests of entries are never tied to each other by a key: seconds, hit counts, masks and removal
/// make their results differ within one walk.
pub(super) fn recent(m: Match<'_>, steps: &mut Vec<Step>) -> Option<()> {
    let mut sets = None;
    let (mut name, mut mask, mut side) = ("DEFAULT", "", "rsource");
    for option in m.options() {
        match option.name {
            // `! --set` is never true but leaves its entry all the same: not understood.
            "--set" if option.is_switch() && sets.is_none() => sets = Some(true),
            // Both results stay possible under negation.
            "--rcheck" | "--update" | "--remove" if option.args.is_empty() && sets.is_none() => {
                sets = Some(false);
            }
            "--name" => name = option.one()?,
            "--mask" => mask = option.one()?,
            "--rsource" if option.is_switch() => side = "rsource",
            "--rdest" if option.is_switch() => side = "rdest",
            "--seconds" | "--hitcount" => {}
            "--reap" | "--rttl" if option.is_switch() => {}
            _ => return None,
        }
    }
    if !sets? {
        push(steps, any(m));
        return Some(());
    }
    let text = m.text();
    let what = text.strip_prefix("-m ").unwrap_or(&text).into();
    let key = format!("recent {name} {side} {mask}").trim_end().into();
    push(steps, Test::State { what, key: Some(key), sets: true });
    Some(())
}
