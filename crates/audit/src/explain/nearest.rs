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

/// How many letters have to be changed, added, taken out, or swapped with the next.
pub fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least =
                (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && one[i - 1] == *b && *a == other[j - 1] {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_words() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("calico", "calico", 0),
            ("wbe", "web", 1),
            ("ab", "ba1", 2),
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
