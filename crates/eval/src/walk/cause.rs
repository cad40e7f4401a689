//! Which earlier rules something rests on.

/// Indices into the walk's hits, in order: the jumps that led to a rule, and the rule.
pub(super) type Cause = Vec<usize>;

/// Who last changed which bits of a mark.
#[derive(Debug, Clone, Default)]
pub(super) struct BitCauses(Vec<(u32, Cause)>);

impl BitCauses {
    /// Notes that `bits` were changed.
    pub(super) fn changed(&mut self, bits: u32, cause: Cause) {
        for (older, _) in &mut self.0 {
            *older &= !bits;
        }
        self.0.retain(|(older, _)| *older != 0);
        if bits != 0 {
            self.0.push((bits, cause));
        }
    }

    /// The hits that changed some of `bits`.
    pub(super) fn of(&self, bits: u32) -> Cause {
        let concerned = self.0.iter().filter(|(changed, _)| changed & bits != 0);
        concerned.flat_map(|(_, cause)| cause.iter().copied()).collect()
    }
}
