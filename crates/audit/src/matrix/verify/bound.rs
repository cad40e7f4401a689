//! No more than so many, of each kind some.

use std::collections::BTreeMap;

/// At most `most`, in their order, with as many of each kind as there is room for, and how many are
/// left out.
pub(super) fn bounded<K: Ord, T>(all: Vec<(K, T)>, most: usize) -> (Vec<T>, usize) {
    let left = all.len().saturating_sub(most);
    if left == 0 {
        return (all.into_iter().map(|(_, one)| one).collect(), 0);
    }
    // The first of each kind goes before the second of any.
    let mut seen: BTreeMap<&K, usize> = BTreeMap::new();
    let mut turns: Vec<(usize, usize)> = Vec::new();
    for (number, (kind, _)) in all.iter().enumerate() {
        let turn = seen.entry(kind).or_default();
        turns.push((*turn, number));
        *turn += 1;
    }
    turns.sort_unstable();
    let mut taken = vec![false; all.len()];
    turns.iter().take(most).for_each(|(_, number)| taken[*number] = true);
    let kept = all.into_iter().zip(taken).filter(|(_, taken)| *taken);
    (kept.map(|((_, one), _)| one).collect(), left)
}
