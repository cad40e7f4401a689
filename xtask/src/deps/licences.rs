//! Licences of all dependencies, against the list in deny.toml.
//!
//! In: `cargo metadata`'s SPDX expressions and `licenses.allow` of deny.toml. Out: a sentence for
//! each package that can't be used under an allowed licence. cargo-deny does this and more; this
//! check needs no tool and no network.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use crate::workspace::Metadata;

/// The strings of `allow = [ … ]` in the section `[licenses]`.
pub(super) fn allowed(deny: &str) -> Result<BTreeSet<String>> {
    let lines: Vec<&str> =
        deny.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).collect();
    let section = lines
        .iter()
        .skip_while(|line| **line != "[licenses]")
        .skip(1)
        .take_while(|line| !line.starts_with("[") || line.starts_with("[\""))
        .copied()
        .collect::<Vec<_>>()
        .join(" ");
    let (_, rest) = section.split_once("allow").context("no `allow` in [licenses]")?;
    let (_, rest) = rest.split_once('[').context("`allow` in [licenses] is not a list")?;
    let (list, _) = rest.split_once(']').context("`allow` in [licenses] does not end")?;
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Packages that no allowed licence covers.
pub(super) fn check(metadata: &Metadata, allowed: &BTreeSet<String>) -> Vec<String> {
    let mut problems = Vec::new();
    for package in &metadata.packages {
        let what = format!("{} {}", package.name, package.version);
        match &package.license {
            None => problems.push(format!("{what} names no licence")),
            Some(expression) => match is_allowed(expression, allowed) {
                Ok(true) => {}
                Ok(false) => problems.push(format!(
                    "{what} is licensed under {expression}, which deny.toml doesn't allow"
                )),
                Err(error) => problems.push(format!(
                    "{what} has a licence expression that can't be read: {expression} ({error})"
                )),
            },
        }
    }
    problems
}

/// Whether an SPDX expression (annex D of the specification; `/` is crates.io's old OR) can be
/// met with allowed licences.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut tokens = spaced.split_whitespace().peekable();
    let result = either(&mut tokens, allowed)?;
    match tokens.next() {
        None => Ok(result),
        Some(token) => bail!("unexpected '{token}'"),
    }
}

type Tokens<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(tokens: &mut Tokens<'_>, allowed: &BTreeSet<String>) -> Result<bool> {
    let mut result = both(tokens, allowed)?;
    while tokens.next_if_eq(&"OR").is_some() {
        result |= both(tokens, allowed)?;
    }
    Ok(result)
}

fn both(tokens: &mut Tokens<'_>, allowed: &BTreeSet<String>) -> Result<bool> {
    let mut result = licence(tokens, allowed)?;
    while tokens.next_if_eq(&"AND").is_some() {
        result &= licence(tokens, allowed)?;
    }
    Ok(result)
}

fn licence(tokens: &mut Tokens<'_>, allowed: &BTreeSet<String>) -> Result<bool> {
    match tokens.next().context("ends too early")? {
        "(" => {
            let result = either(tokens, allowed)?;
            match tokens.next() {
                Some(")") => Ok(result),
                _ => bail!("a parenthesis is not closed"),
            }
        }
        token @ (")" | "OR" | "AND" | "WITH") => bail!("unexpected '{token}'"),
        name if tokens.next_if_eq(&"WITH").is_some() => {
            let exception = tokens.next().context("ends after WITH")?;
            Ok(allowed.contains(&format!("{name} WITH {exception}")))
        }
        name => Ok(allowed.contains(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let text = "[graph]\nallow = [\"no\"]\n[licenses]\n# allow = [\"comment\"]\nversion = 2\n\
                    allow = [\n  \"MIT\", # why\n  \"Apache-2.0\",\n]\n[bans]\nallow = [\"other\"]\n";
        let expected = BTreeSet::from(["MIT".to_owned(), "Apache-2.0".to_owned()]);
        assert_eq!(allowed(text).unwrap(), expected);
        assert!(allowed("[licenses]\n").is_err());
    }

    #[test]
    fn expressions_are_evaluated() {
        let allowed: BTreeSet<String> =
            ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
        let cases = [
            ("MIT", true),
            ("GPL-2.0", false),
            ("GPL-2.0 OR MIT", true),
            ("GPL-2.0/MIT", true),
            ("GPL-2.0 AND MIT", false),
            ("MIT AND Zlib", true),
            ("(GPL-2.0 OR MIT) AND Zlib", true),
            ("(GPL-2.0 OR MIT) AND GPL-3.0", false),
            // AND binds more strongly than OR.
            ("MIT OR GPL-2.0 AND GPL-3.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
        ];
        for (expression, expected) in cases {
            assert_eq!(is_allowed(expression, &allowed).unwrap(), expected, "{expression}");
        }
        for expression in ["", "MIT OR", "(MIT", "MIT)", "MIT Zlib", "MIT WITH"] {
            assert!(is_allowed(expression, &allowed).is_err(), "{expression}");
        }
    }
}
