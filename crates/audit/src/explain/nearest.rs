//! The names that somebody may have meant.

use super::Topic;

/// How many are offered.
const FEW: usize = 4;

/// The names nearest to a wrong one, best first; none if nothing is near.
///
/// A name that has the given one inside comes first, in the order of the index; then names by how
/// many letters would have to change.
pub fn nearest(name: &str) -> Vec<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let mut near: Vec<(usize, &'static str)> = Vec::new();
    for topic in Topic::all() {
        let best = std::iter::once(topic.name())
            .chain(topic.aliases().iter().copied())
            .filter_map(|candidate| cost(&name, candidate))
            .min();
        if let Some(cost) = best {
            near.push((cost, topic.name()));
        }
    }
    near.sort_by_key(|(cost, _)| *cost);
    near.into_iter().take(FEW).map(|(_, name)| name).collect()
}

/// What it takes to mean the candidate; nothing if it is too far.
fn cost(name: &str, candidate: &str) -> Option<usize> {
    if name.len() >= 3 && candidate.contains(name) {
        return Some(0);
    }
    let distance = distance(name, candidate);
    (distance * 3 <= candidate.len().max(name.len())).then_some(distance)
}

/// Levenshtein's distance, of bytes: names are ASCII, and what isn't is far from all of them.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("calico", "calico", 0),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn what_was_meant_comes_first() {
        for (typed, meant) in [
            ("calico-unsed-pool", "calico-unused-pool"),
            ("Kube_Proxy", "kube-proxy"),
            ("no-replies", "no-reply"),
            ("containerdd", "docker"),
            ("unused", "calico-unused-pool"),
            ("stray", "stray-masquerade"),
        ] {
            assert_eq!(nearest(typed).first(), Some(&meant), "{typed}");
        }
        assert!(nearest("masquerade").len() > 1);
    }

    #[test]
    fn what_is_far_from_all_is_near_to_none() {
        assert_eq!(nearest("xyzzyxyzzy"), Vec::<&str>::new());
        assert_eq!(nearest(""), Vec::<&str>::new());
    }
}
