//! The command lines to be run by hand on hosts, for a list of calls.
//!
//! In: who calls whom. Out: for each host what to start there, first those that answer. Pure text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::observation::Ask;
use crate::proxy_protocol::Version;

/// A call to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The host that calls.
    pub from: String,
    /// The address to call from. `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// By which protocol.
    pub protocol: Ask,
    /// The PROXY protocol header to send.
    pub header: Option<Version>,
    /// Who is called.
    pub to: SocketAddr,
    /// Where it may arrive. Empty: nowhere, or at somebody who answers already.
    pub at: Vec<Place>,
    /// How many connections to make.
    pub count: usize,
    /// What is predicted, in a line.
    pub predicted: String,
}

/// Where calls arrive, after all translation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The host.
    pub host: String,
    /// Where to listen there.
    pub listen: SocketAddr,
}

/// What to run, as lines of a shell with a comment for each host. Answering ends by itself after a
/// while.
pub fn by_hand(calls: &[Call], duration: Duration) -> String {
    let mut text = String::new();
    for (host, lines) in echoes(calls, duration).iter().chain(&probes(calls)) {
        let what = if lines.iter().any(|line| line.starts_with("unmasq echo")) {
            "and leave it running"
        } else {
            "when the others run"
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "# on {}, {what}:", shown(host));
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// Text that stays behind its `#`.
fn shown(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

type Lines = Vec<(String, Vec<String>)>;

/// One line for each host: what it has to hear.
fn echoes(calls: &[Call], duration: Duration) -> Lines {
    #[derive(Default)]
    struct Wanted<'c> {
        listen: Vec<SocketAddr>,
        protocols: Vec<Ask>,
        header: bool,
        host: &'c str,
    }
    let mut order: Vec<Wanted<'_>> = Vec::new();
    for call in calls {
        for Place { host, listen } in &call.at {
            let known = order.iter().position(|wanted| wanted.host == host);
            let index = known.unwrap_or_else(|| {
                order.push(Wanted { host, ..Wanted::default() });
                order.len() - 1
            });
            let wanted = &mut order[index];
            wanted.header |= call.header.is_some();
            if !wanted.listen.contains(listen) {
                wanted.listen.push(*listen);
            }
            if !wanted.protocols.contains(&call.protocol) {
                wanted.protocols.push(call.protocol);
            }
        }
    }
    let line = |wanted: Wanted<'_>| {
        let mut line = format!("unmasq echo --name {}", quoted(wanted.host));
        for protocol in &wanted.protocols {
            line += &format!(" --{protocol}");
        }
        if wanted.header {
            line += " --proxy-protocol";
        }
        for listen in &wanted.listen {
            line += &format!(" --listen {}", quoted(&listen.to_string()));
        }
        line += &format!(" --for {}s", duration.as_secs());
        (wanted.host.to_owned(), vec![line])
    };
    order.into_iter().map(line).collect()
}

/// One line for each host and way of asking, with all targets, and before it what is predicted of
/// each. What is observed is kept in numbered files.
fn probes(calls: &[Call]) -> Lines {
    let mut order: Vec<&str> = Vec::new();
    let mut targets: BTreeMap<(&str, String), Vec<(SocketAddr, &str)>> = BTreeMap::new();
    for call in calls {
        if !order.contains(&&*call.from) {
            order.push(&call.from);
        }
        let mut how = format!("--{}", call.protocol);
        if let Some(source) = call.source {
            how += &format!(" --from {source}");
        }
        if let Some(version) = call.header {
            how += match version {
                Version::V1 => " --send-proxy v1",
                Version::V2 => " --send-proxy v2",
            };
        }
        if call.count > 1 {
            how += &format!(" --count {}", call.count);
        }
        let targets = targets.entry((&call.from, how)).or_default();
        if !targets.iter().any(|(to, _)| *to == call.to) {
            targets.push((call.to, &call.predicted));
        }
    }
    let mut number = 0;
    let mut lines = |host: &str| {
        let mut lines = Vec::new();
        for ((_, how), targets) in targets.iter().filter(|((from, _), _)| *from == host) {
            number += 1;
            let foretold = |(to, what): &(SocketAddr, &str)| format!("#   {to}: {}", shown(what));
            lines.extend(targets.iter().map(foretold));
            let all: Vec<String> = targets.iter().map(|(to, _)| quoted(&to.to_string())).collect();
            let all = all.join(" ");
            lines.push(format!("unmasq probe --json {how} {all} > observed-{number}.json"));
        }
        (host.to_owned(), lines)
    };
    order.into_iter().map(&mut lines).collect()
}

/// A word of a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('-') {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(from: &str, to: &str, at: Option<(&str, &str)>) -> Call {
        Call {
            from: from.into(),
            source: None,
            protocol: Ask::Tcp,
            header: None,
            to: to.parse().unwrap(),
            at: at
                .map(|(host, listen)| Place { host: host.into(), listen: listen.parse().unwrap() })
                .into_iter()
                .collect(),
            count: 1,
            predicted: format!("as {from} is"),
        }
    }

    #[test]
    fn each_host_has_its_lines_once() {
        let web = Some(("web-1", "10.42.1.2:8080"));
        let mut calls = vec![
            call("laptop", "10.0.0.11:30080", web),
            call("laptop", "10.0.0.12:30080", web),
            call("n1", "[fd00::1]:80", Some(("n2", "[fd00::1]:80"))),
            call("laptop", "10.0.0.12:30080", web),
            call("laptop", "203.0.113.9:443", None),
        ];
        calls[1].protocol = Ask::Http;
        calls[4].count = 3;
        calls[2].header = Some(Version::V2);
        calls[2].source = "fd00::9".parse().ok();
        let expected = "\
# on web-1, and leave it running:
unmasq echo --name web-1 --tcp --http --listen 10.42.1.2:8080 --for 900s
# on n2, and leave it running:
unmasq echo --name n2 --tcp --proxy-protocol --listen '[fd00::1]:80' --for 900s
# on laptop, when the others run:
#   10.0.0.12:30080: as laptop is
unmasq probe --json --http 10.0.0.12:30080 > observed-1.json
#   10.0.0.11:30080: as laptop is
#   10.0.0.12:30080: as laptop is
unmasq probe --json --tcp 10.0.0.11:30080 10.0.0.12:30080 > observed-2.json
#   203.0.113.9:443: as laptop is
unmasq probe --json --tcp --count 3 203.0.113.9:443 > observed-3.json
# on n1, when the others run:
#   [fd00::1]:80: as n1 is
unmasq probe --json --tcp --from fd00::9 --send-proxy v2 '[fd00::1]:80' > observed-4.json
";
        assert_eq!(by_hand(&calls, Duration::from_secs(900)), expected);
    }

    #[test]
    fn a_name_can_not_become_a_command() {
        assert_eq!(quoted("web-1.shop"), "web-1.shop");
        assert_eq!(quoted("it's; reboot"), r"'it'\''s; reboot'");
        assert_eq!(quoted("--json"), "'--json'");
        assert_eq!(quoted(""), "''");
        let mut evil = call("a\nreboot", "192.0.2.1:1", Some(("b", "192.0.2.1:1")));
        evil.from.push('\r');
        evil.predicted = "\nreboot".into();
        let text = by_hand(&[evil], Duration::from_secs(1));
        assert!(!text.lines().any(|line| line.starts_with("reboot")), "{text}");
    }
}
