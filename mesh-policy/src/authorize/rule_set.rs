//! Sets of rule numbers that intersect in the time of their smallest member.
//!
//! Each set is two levels of bits: a summary with one bit for every 64 rules, and only those words of 64
//! that are not zero. An intersection combines summaries first, so that ten thousand rules in the mesh cost
//! three words of summary for each set, not 157. Equal sets are stored once; all lie in three flat arrays.

use std::collections::BTreeMap;

/// Names a set in its [`RuleSets`].
pub(crate) type SetId = u32;

/// Collects sets before they are packed.
#[derive(Debug, Default)]
pub(crate) struct RuleSetsBuilder {
    known: BTreeMap<Vec<u32>, SetId>,
    sets: Vec<Vec<u32>>,
}

impl RuleSetsBuilder {
    /// Takes rule numbers in any order, possibly repeated.
    pub(crate) fn add(&mut self, mut rules: Vec<u32>) -> SetId {
        rules.sort_unstable();
        rules.dedup();
        if let Some(known) = self.known.get(&rules) {
            return *known;
        }
        let id = SetId::try_from(self.sets.len()).expect("a set for each pattern of a bounded model");
        self.known.insert(rules.clone(), id);
        self.sets.push(rules);
        id
    }

    /// The rule numbers of a set, ascending.
    pub(crate) fn rules(&self, id: SetId) -> &[u32] {
        &self.sets[id as usize]
    }

    /// Packs the sets for `rules` rules.
    pub(crate) fn build(self, rules: usize) -> RuleSets {
        let stride = rules.div_ceil(64 * 64).max(1);
        let mut packed = RuleSets { stride, ..RuleSets::default() };
        for set in &self.sets {
            let base = packed.summaries.len();
            packed.summaries.resize(base + stride, 0);
            let mut words: BTreeMap<usize, u64> = BTreeMap::new();
            for rule in set {
                *words.entry(*rule as usize / 64).or_default() |= 1 << (rule % 64);
            }
            let mut at = 0;
            for slot in 0..stride {
                packed.starts.push(u32::try_from(packed.words.len()).expect("words of a bounded model"));
                let in_slot = words.range(slot * 64..(slot + 1) * 64);
                for (word, bits) in in_slot {
                    packed.summaries[base + slot] |= 1 << (word % 64);
                    packed.words.push(*bits);
                    at += 1;
                }
            }
            debug_assert_eq!(at, words.len());
        }
        packed
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
            sets in prop::collection::vec(prop::collection::btree_set(0_u32..20_000, 0..60), 1..8),
        ) {
            let mut builder = RuleSetsBuilder::default();
            let ids: Vec<_> = sets.iter().map(|set| builder.add(set.iter().rev().copied().collect())).collect();
            let packed = builder.build(20_000);
            for (set, id) in sets.iter().zip(ids) {
                prop_assert_eq!(members(&packed, id), set.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
