//! Masks what may be a secret in arguments and in files with settings. Better one value too many.

/// What stands in a secret's place.
const MASK: &str = "***";

/// Parts of names whose values are secrets.
const NAMES: [&str; 9] =
    ["token", "passw", "secret", "credential", "apikey", "api_key", "api-key", "auth", "private"];

/// Arguments on one line, separated by blanks, with secrets masked: `--token=x`, `--token x`, and
/// passwords in addresses (`postgres://user:x@host`).
pub(super) fn mask_arguments(arguments: &[&str]) -> String {
    let mut masked = Vec::with_capacity(arguments.len());
    let mut next_is_secret = false;
    for argument in arguments {
        let is_flag = argument.starts_with('-');
        let text = match argument.split_once('=') {
            Some((name, _)) if is_flag && is_secret_flag(name) => format!("{name}={MASK}"),
            _ if next_is_secret && !is_flag => MASK.to_owned(),
            _ => mask_address(argument),
        };
        next_is_secret = is_flag && !argument.contains('=') && is_secret_flag(argument);
        masked.push(text);
    }
    masked.join(" ")
}

/// A file's lines; where a name before `:` or `=` is that of a secret, the rest of the line is
/// masked.
pub(super) fn mask_text(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        let body = line.strip_suffix('\n').unwrap_or(line);
        masked += &mask_line(body);
        masked += end;
    }
    masked
}

fn mask_line(line: &str) -> String {
    // Several settings on one line (JSON without line breaks): from the first secret on.
    let lower = line.to_ascii_lowercase();
    let name = NAMES.iter().filter_map(|name| lower.find(name)).min();
    match name.and_then(|name| Some(name + line[name..].find([':', '='])?)) {
        Some(at) => {
            let comma = if line.trim_end().ends_with(',') { "," } else { "" };
            format!("{} \"{MASK}\"{comma}", &line[..=at])
        }
        None => mask_address(line),
    }
}

/// Flags that name a file (`--tls-private-key-file`) have no secret in them.
fn is_secret_flag(flag: &str) -> bool {
    let flag = flag.to_ascii_lowercase();
    let names_a_file = ["-file", "-path", "-dir"].iter().any(|ending| flag.ends_with(ending));
    let is_key = flag.trim_start_matches('-') == "key" || flag.ends_with("-key");
    !names_a_file && (is_key || NAMES.iter().any(|name| flag.contains(name)))
}

/// Masks what is between `://` and `@`, if it has a password.
fn mask_address(text: &str) -> String {
    let Some(start) = text.find("://").map(|at| at + 3) else { return text.to_owned() };
    let authority_end = text[start..].find(['/', ' ', '"', ',']).map_or(text.len(), |n| start + n);
    match text[start..authority_end].rfind('@') {
        Some(at) if text[start..start + at].contains(':') => {
            format!("{}{MASK}{}", &text[..start], &text[start + at..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let cases: [(&[&str], &str); 8] = [
            (
                &["kube-proxy", "--cluster-cidr=10.42.0.0/16"],
                "kube-proxy --cluster-cidr=10.42.0.0/16",
            ),
            (&["k3s", "server", "--token=abc"], "k3s server --token=***"),
            (
                &["k3s", "agent", "--token", "abc", "--server", "https://a:6443"],
                "k3s agent --token *** --server https://a:6443",
            ),
            (
                &["k3s", "--datastore-endpoint=postgres://u:p@h:5432/d"],
                "k3s --datastore-endpoint=postgres://***@h:5432/d",
            ),
            (&["x", "--Admin-Password", "hunter"], "x --Admin-Password ***"),
            (&["x", "--token", "--debug"], "x --token --debug"),
            (&["x", "--key", "abc", "--etcd-key=def"], "x --key *** --etcd-key=***"),
            (
                &["x", "--tls-private-key-file=/a/b", "--token-auth-file", "/c"],
                "x --tls-private-key-file=/a/b --token-auth-file /c",
            ),
        ];
        for (given, expected) in cases {
            assert_eq!(mask_arguments(given), expected);
        }
    }

    #[test]
    fn files() {
        let given = "token: abc\ncluster-cidr: 10.42.0.0/16\n  \"k8s_auth_token\": \"abc\",\n\
            FLANNEL_IPMASQ=true\nDB=mysql://u:p@h/d\n{\"a\": 1, \"password\": \"x\", \"b\": 2}\nend";
        let expected = "token: \"***\"\ncluster-cidr: 10.42.0.0/16\n  \"k8s_auth_token\": \"***\",\n\
            FLANNEL_IPMASQ=true\nDB=mysql://***@h/d\n{\"a\": 1, \"password\": \"***\"\nend";
        assert_eq!(mask_text(given), expected);
    }
}
