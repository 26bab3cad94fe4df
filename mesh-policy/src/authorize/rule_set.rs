//! Sets of rule numbers that intersect in the time of their smallest member.
//!
//! Each set is two levels of bits: a summary with one bit for every 64 rules, and only those words of 64
//! that are not zero. An intersection combines summaries first, so that ten thousand rules in the mesh cost
//! three words of summary for each set, not 157. Equal sets are stored once; all lie in three flat arrays.

use std::collections::BTreeMap;

use super::lookup::fold;

/// Names a set in its [`RuleSets`].
pub(crate) type SetId = u32;

/// Packs sets one after the other.
#[derive(Debug)]
pub(crate) struct RuleSetsBuilder {
    packed: RuleSets,
    /// A set for each hash that was seen. Two sets of one hash are both kept, and the second is not found again.
    known: BTreeMap<u64, SetId>,
    /// The set at hand: numbers of words, ascending, and their bits.
    words: Vec<(u32, u64)>,
    merged: Vec<(u32, u64)>,
}

impl RuleSetsBuilder {
    /// For sets of `rules` rules.
    pub(crate) fn new(rules: usize) -> Self {
        let stride = rules.div_ceil(64 * 64).max(1);
        let packed = RuleSets { stride, ..RuleSets::default() };
        Self { packed, known: BTreeMap::new(), words: Vec::new(), merged: Vec::new() }
    }

    /// The set of `rules`, which are in ascending order, and of those of `outer`.
    pub(crate) fn add(&mut self, rules: &[u32], outer: Option<SetId>) -> SetId {
        self.words.clear();
        for rule in rules {
            let (word, bit) = (rule / 64, 1 << (rule % 64));
            match self.words.last_mut() {
                Some((last, bits)) if *last == word => *bits |= bit,
                Some(_) | None => self.words.push((word, bit)),
            }
        }
        if let Some(outer) = outer {
            self.merge(outer);
        }
        let hash =
            self.words.iter().fold(0, |state, (word, bits)| fold(fold(state, u64::from(*word)), *bits));
        let known = self.known.get(&hash).copied();
        if let Some(known) = known.filter(|known| self.packed.words_of(*known).eq(self.words.iter().copied()))
        {
            return known;
        }
        let id = self.packed.push(&self.words);
        self.known.entry(hash).or_insert(id);
        id
    }

    /// Adds the rules of a packed set to the one at hand.
    fn merge(&mut self, outer: SetId) {
        self.merged.clear();
        let mut inner = self.words.iter().copied().peekable();
        for (word, bits) in self.packed.words_of(outer) {
            while let Some(before) = inner.next_if(|(other, _)| *other < word) {
                self.merged.push(before);
            }
            let same = inner.next_if(|(other, _)| *other == word).map_or(0, |(_, bits)| bits);
            self.merged.push((word, bits | same));
        }
        self.merged.extend(inner);
        std::mem::swap(&mut self.words, &mut self.merged);
    }

    /// All sets.
    pub(crate) fn build(self) -> RuleSets {
        self.packed
    }
}

/// All sets of one index.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleSets {
    /// Summary words of one set.
    stride: usize,
    summaries: Vec<u64>,
    /// For each summary word, where its non-zero words start.
    starts: Vec<u32>,
    words: Vec<u64>,
}

impl RuleSets {
    /// How many summary words a set has.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn summary(&self, set: SetId, slot: usize) -> u64 {
        self.summaries[set as usize * self.stride + slot]
    }

    /// Appends a set: numbers of words, ascending, and their bits.
    fn push(&mut self, words: &[(u32, u64)]) -> SetId {
        let base = self.summaries.len();
        let id = SetId::try_from(base / self.stride).expect("a set for each pattern of a bounded model");
        self.summaries.resize(base + self.stride, 0);
        let mut words = words.iter().peekable();
        for slot in 0..self.stride {
            self.starts.push(u32::try_from(self.words.len()).expect("words of a bounded model"));
            while let Some((word, bits)) = words.next_if(|(word, _)| *word as usize / 64 == slot) {
                self.summaries[base + slot] |= 1 << (word % 64);
                self.words.push(*bits);
            }
        }
        debug_assert!(words.next().is_none(), "a rule number is above the bound");
        id
    }

    /// Numbers of the words of a set that are not zero, ascending, and their bits.
    fn words_of(&self, set: SetId) -> impl Iterator<Item = (u32, u64)> {
        let base = set as usize * self.stride;
        (0_u32..).zip(base..base + self.stride).flat_map(move |(slot, at)| {
            let summary = self.summaries[at];
            let bits = (0..64).filter(move |bit| summary >> bit & 1 == 1);
            bits.zip(&self.words[self.starts[at] as usize..]).map(move |(bit, bits)| (slot * 64 + bit, *bits))
        })
    }

    /// The 64 rules from `64 * (64 * slot + bit)` on.
    pub(crate) fn word(&self, set: SetId, slot: usize, bit: u32) -> u64 {
        let at = set as usize * self.stride + slot;
        let summary = self.summaries[at];
        if summary >> bit & 1 == 0 {
            return 0;
        }
        let before = (summary & ((1 << bit) - 1)).count_ones();
        self.words[self.starts[at] as usize + before as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(sets: &RuleSets, id: SetId) -> Vec<u32> {
        let mut members = Vec::new();
        for slot in 0..sets.stride() {
            for bit in 0..64 {
                let word = sets.word(id, slot, bit);
                assert_eq!(word != 0, sets.summary(id, slot) >> bit & 1 == 1, "summary of {slot}/{bit}");
                let base = u32::try_from(slot).expect("small") * 4096 + bit * 64;
                members.extend((0..64).filter(|rule| word >> rule & 1 == 1).map(|rule| base + rule));
            }
        }
        members
    }

    proptest! {
        #[test]
        fn a_packed_set_holds_what_was_put_in(
            sets in prop::collection::vec(
                (prop::collection::btree_set(0_u32..20_000, 0..60), any::<prop::sample::Index>()),
                1..12,
            ),
        ) {
            let mut builder = RuleSetsBuilder::new(20_000);
            let mut expected: Vec<(std::collections::BTreeSet<u32>, SetId)> = Vec::new();
            for (number, (set, outer)) in sets.into_iter().enumerate() {
                // Every other set lies within one before.
                let outer = (number % 2 == 1).then(|| expected[outer.index(number)].clone());
                let rules: Vec<_> = set.iter().copied().collect();
                let id = builder.add(&rules, outer.as_ref().map(|(_, id)| *id));
                prop_assert_eq!(builder.add(&rules, outer.as_ref().map(|(_, id)| *id)), id, "stored once");
                let whole = outer.into_iter().flat_map(|(outer, _)| outer).chain(set).collect();
                expected.push((whole, id));
            }
            let packed = builder.build();
            for (set, id) in expected {
                prop_assert_eq!(members(&packed, id), set.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
