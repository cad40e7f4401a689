//! What a person starts on hosts.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use unmasq_audit::matrix::verify::{Check, Checks, Vantage};
use unmasq_cluster::paths::Caller;
use unmasq_model::packet::Protocol;
use unmasq_probe::by_hand::{Call, Place, by_hand};
use unmasq_probe::observation::Ask;
use unmasq_report::terminal::clean;
use unmasq_report::verify::Words;

use super::{ends, times};

/// Lines of a shell, with comments.
pub(super) fn text(
    checks: &Checks,
    words: &Words<'_>,
    vantage: &Vantage,
    duration: Duration,
) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "# {} of {} connections to try. In a pod: in its network namespace.",
        checks.checks.len(),
        checks.concerned
    );
    for (why, count) in &checks.left_out {
        let _ = writeln!(text, "# Left out, {count}: {}", clean(&why.to_string()));
    }
    if vantage.hosts.is_empty() && checks.checks.iter().any(|check| check.outside.is_some()) {
        let _ = writeln!(text, "# Hosts outside are named with --outside NAME=ADDR.");
    }
    let calls: Vec<Call> = checks.checks.iter().filter_map(|check| call(check, words)).collect();
    text += &by_hand(&calls, duration);
    if !calls.is_empty() {
        text += "# then the same command with --observed observed-*.json\n";
    }
    text
}

fn call(check: &Check, words: &Words<'_>) -> Option<Call> {
    let call = check.call();
    let protocol = match call.protocol {
        Protocol::TCP => Ask::Tcp,
        Protocol::UDP => Ask::Udp,
        // Left out before.
        _ => return None,
    };
    let source = match call.from {
        Caller::Pod { address, .. } => Some(address),
        Caller::Outside { address, .. } => check.name.is_some().then_some(address),
        Caller::Node(_) => None,
    };
    let place = |listen: SocketAddr| Place { host: words.host(listen.ip()), listen };
    Some(Call {
        from: words.caller(check),
        source,
        protocol,
        header: None,
        to: SocketAddr::new(call.to, call.port?),
        at: ends(check).into_iter().map(place).collect(),
        count: times(check),
        predicted: clean(&words.all_predicted(check)),
    })
}
