//! Reads settings as sysctl(8) prints them: `key = value`, or `key=value`, one a line.
//!
//! Dots inside a device's name are slashes (`net.ipv4.conf.eth0/100.rp_filter`); with a slash as
//! the first separator (`net/ipv4/conf/eth0.100/rp_filter`) the two are swapped, as in
//! sysctl.conf(5). Lines without `=` are messages of the command and cost a diagnostic each.

use unmasq_model::origin::{Diagnostic, FileId, Origin};
use unmasq_model::sysctl::Sysctls;

/// The settings, and lines that are none. Of a key given twice the last counts.
pub fn parse(text: &str, file: FileId) -> (Sysctls, Vec<Diagnostic>) {
    let mut settings = Sysctls::default();
    let mut diagnostics = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        match text.split_once('=') {
            Some((key, value)) if is_key(key.trim()) => {
                settings.insert(dotted(key.trim()), value.trim());
            }
            _ => diagnostics.push(Diagnostic {
                origin: Origin::new(file, line),
                message: format!("not a setting: {text}"),
            }),
        }
    }
    (settings, diagnostics)
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && !key.contains(char::is_whitespace)
}

/// The key with a dot as the separator.
fn dotted(key: &str) -> String {
    match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
        Some(b'/') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_settings_and_reports_the_rest() {
        let text = "# by hand\n\
            net.ipv4.ip_forward = 1\n\
            net.ipv4.conf.eth0/100.rp_filter=2\n\
            net/ipv4/conf/eth0.7/forwarding = 3\n\
            net.ipv4.tcp_rmem = 4096\t131072\t6291456\n\
            kernel.domainname = \n\
            sysctl: permission denied on key 'fs.protected_fifos'\n\
            sysctl: reading key \"net.ipv6.conf.all.stable_secret\" a=b\n";
        let (settings, diagnostics) = parse(text, FileId(4));
        let cases = [
            ("net.ipv4.ip_forward", Some("1")),
            ("net.ipv4.conf.eth0/100.rp_filter", Some("2")),
            ("net.ipv4.conf.eth0/7.forwarding", Some("3")),
            ("net.ipv4.tcp_rmem", Some("4096\t131072\t6291456")),
            ("kernel.domainname", Some("")),
            ("net.ipv6.conf.all.stable_secret", None),
        ];
        for (key, expected) in cases {
            assert_eq!(settings.get(key), expected, "{key}");
        }
        assert_eq!(settings.device("ipv4", "eth0.100", "rp_filter"), Some(2));
        let lines: Vec<u32> = diagnostics.iter().map(|found| found.origin.line).collect();
        assert_eq!(lines, [7, 8]);
        assert_eq!(diagnostics[0].origin.file, FileId(4));
    }
}
