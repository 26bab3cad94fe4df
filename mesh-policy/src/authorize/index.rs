//! From a request to the few rules that could match it.
//!
//! Each attribute that rules test is a dimension. Looking the request's value up in a dimension gives the
//! set of rules whose test of that attribute may hold, rules without such a test included; the intersection
//! over all dimensions is what remains to be evaluated. The index may only ever leave out rules that cannot
//! match: whatever it cannot express counts as "may hold", and every rule that it names is then evaluated
//! whole. So a mistake here can cost time, or be found by the property test against the naive evaluator.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::attributes::Facts;
use super::clause::{Key, View};
use super::field::Field;
use super::lookup::Lookup;
use super::pattern::{LOWERED_BYTES_MAX, lowered};
use super::radix::{End, Radix};
use super::rule::{DimensionKeys, RuleForm};
use super::rule_set::{RuleSets, RuleSetsBuilder, SetId};

/// Most dimensions of an index. Those that constrain most rules are taken; tests of further attributes are
/// left to the evaluation of each rule.
const DIMENSIONS_MAX: usize = 12;
/// Most different sets that one request finds in all dimensions: up to three for each value of an attribute,
/// and one for the rules that do not test it. A request may have a hundred header lines, and a token a claim of
/// as many groups; beyond it, the dimension is left out for that request.
const HITS_MAX: usize = 160;

/// Rules, ascending, with what they are looked up by, for each dimension that they constrain.
type Constrained<'r> = BTreeMap<(&'r Field, View), Vec<(u32, &'r [Key])>>;

/// The index of all rules for one kind of traffic.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    /// Rules that are in force for this traffic.
    present: SetId,
    dimensions: Vec<Dimension>,
    sets: RuleSets,
}

#[derive(Debug, Clone)]
struct Dimension {
    field: Field,
    /// Rules that do not test the attribute, or not in a way that can be looked up.
    unconstrained: SetId,
    exact: Lookup,
    /// Sets of a literal hold those of all shorter literals that match with it.
    prefixes: Option<Radix>,
    suffixes: Option<Radix>,
    networks_v4: PrefixMap<Ipv4Net, SetId>,
    networks_v6: PrefixMap<Ipv6Net, SetId>,
}

/// What to do after a rule was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Go on with the next rule.
    Continue,
    /// Go on with this rule or the first after it.
    SkipTo(u32),
    /// End.
    Stop,
}

/// Sets found, dimension after dimension.
#[derive(Debug)]
struct Hits {
    sets: [SetId; HITS_MAX],
    count: usize,
    /// Where the sets of the dimension at hand begin.
    start: usize,
    overflow: bool,
    /// Where the sets of each dimension end.
    ends: [usize; DIMENSIONS_MAX],
    dimensions: usize,
}

impl Hits {
    fn new() -> Self {
        Self {
            sets: [0; HITS_MAX],
            count: 0,
            start: 0,
            overflow: false,
            ends: [0; DIMENSIONS_MAX],
            dimensions: 0,
        }
    }

    fn push(&mut self, set: SetId) {
        if self.sets[self.start..self.count].contains(&set) {
            return;
        }
        match self.sets.get_mut(self.count) {
            Some(slot) => {
                *slot = set;
                self.count += 1;
            }
            None => self.overflow = true,
        }
    }

    /// Ends the dimension at hand. One that found too much says nothing about this request.
    fn close(&mut self) {
        if self.overflow {
            self.overflow = false;
            self.count = self.start;
            return;
        }
        self.start = self.count;
        self.ends[self.dimensions] = self.count;
        self.dimensions += 1;
    }

    /// Combines what `part` gives for the sets of each dimension (any of them) over all dimensions.
    fn intersect(&self, from: u64, part: impl Fn(SetId) -> u64) -> u64 {
        let (mut all, mut start) = (from, 0);
        for &end in &self.ends[..self.dimensions] {
            all &= self.sets[start..end].iter().fold(0, |any, set| any | part(*set));
            start = end;
        }
        all
    }
}

impl Index {
    /// Calls `visit` with each rule that may match, in ascending order.
    pub(crate) fn candidates(&self, facts: &Facts<'_>, mut visit: impl FnMut(u32) -> Next) {
        let mut hits = Hits::new();
        for dimension in &self.dimensions {
            dimension.look_up(facts, &mut hits);
            hits.push(dimension.unconstrained);
            hits.close();
        }
        let mut from = 0_u32;
        for slot in 0..self.sets.stride() {
            let present = self.sets.summary(self.present, slot);
            let mut summary = hits.intersect(present, |set| self.sets.summary(set, slot));
            while summary != 0 {
                let bit = summary.trailing_zeros();
                summary &= summary - 1;
                let base = u32::try_from(slot * 64 * 64).unwrap_or(u32::MAX) + bit * 64;
                if base.saturating_add(63) < from {
                    continue;
                }
                let present = self.sets.word(self.present, slot, bit);
                let mut word = hits.intersect(present, |set| self.sets.word(set, slot, bit));
                while word != 0 {
                    let rule = base + word.trailing_zeros();
                    word &= word - 1;
                    if rule < from {
                        continue;
                    }
                    match visit(rule) {
                        Next::Continue => {}
                        Next::SkipTo(next) => from = next,
                        Next::Stop => return,
                    }
                }
            }
        }
    }

    /// Builds the index over `rules` (number and form), which come in ascending order; numbers are below `bound`.
    pub(crate) fn build<'r>(rules: impl IntoIterator<Item = (u32, &'r RuleForm)>, bound: usize) -> Self {
        let mut present = Vec::new();
        let mut constrained: Constrained<'_> = BTreeMap::new();
        for (rule, form) in rules {
            present.push(rule);
            for DimensionKeys { field, view, keys } in &form.keys {
                constrained.entry((field, *view)).or_default().push((rule, keys));
            }
        }
        let mut chosen: Vec<_> = constrained.into_iter().collect();
        chosen.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then_with(|| a.0.cmp(&b.0)));
        chosen.truncate(DIMENSIONS_MAX);
        let mut sets = RuleSetsBuilder::new(bound);
        let dimensions = chosen
            .into_iter()
            .map(|((field, _), keys)| Dimension::build(field.clone(), &keys, &present, &mut sets))
            .collect();
        Self { present: sets.add(&present, None), dimensions, sets: sets.build() }
    }
}

impl Dimension {
    fn build(field: Field, keys: &[(u32, &[Key])], present: &[u32], sets: &mut RuleSetsBuilder) -> Self {
        let mut constrained = keys.iter().map(|(rule, _)| *rule).peekable();
        let mut is_unconstrained = |rule: &u32| constrained.next_if_eq(rule).is_none();
        let unconstrained: Vec<u32> = present.iter().copied().filter(|rule| is_unconstrained(rule)).collect();
        let unconstrained = sets.add(&unconstrained, None);
        let (mut exact, mut networks) = (Vec::new(), Vec::new());
        let mut prefixes: Vec<(Box<[u8]>, u32)> = Vec::new();
        let mut suffixes: Vec<(Box<[u8]>, u32)> = Vec::new();
        for (rule, keys) in keys {
            for key in *keys {
                match key {
                    Key::Exact(text) => exact.push((&**text, *rule)),
                    Key::Prefix(text) => prefixes.push((Box::from(&**text), *rule)),
                    Key::Suffix(text) => suffixes.push((text.iter().rev().copied().collect(), *rule)),
                    Key::Network(network) => networks.push((*network, *rule)),
                }
            }
        }
        let exact = nested(exact, sets, |_, _| false);
        let exact = Lookup::build(exact.into_iter().map(|(text, set)| (text.into(), set)));
        let prefixes = nested(prefixes, sets, |short, long| long.starts_with(short));
        let mut suffixes = nested(suffixes, sets, |short, long| long.starts_with(short));
        suffixes.iter_mut().for_each(|(text, _)| text.reverse());
        let (mut networks_v4, mut networks_v6) = (PrefixMap::new(), PrefixMap::new());
        // The order of blocks puts an enclosing one before those within it.
        for (network, set) in nested(networks, sets, |outer: &IpNet, inner: &IpNet| outer.contains(inner)) {
            match network {
                IpNet::V4(block) => drop(networks_v4.insert(block, set)),
                IpNet::V6(block) => drop(networks_v6.insert(block, set)),
            }
        }
        Self {
            field,
            unconstrained,
            exact,
            prefixes: (!prefixes.is_empty()).then(|| Radix::build(End::Front, prefixes)),
            suffixes: (!suffixes.is_empty()).then(|| Radix::build(End::Back, suffixes)),
            networks_v4,
            networks_v6,
        }
    }

    fn look_up(&self, facts: &Facts<'_>, hits: &mut Hits) {
        match self.field {
            Field::SourceIp => self.look_up_address(facts.source_ip, hits),
            Field::RemoteIp => self.look_up_address(facts.remote_ip, hits),
            Field::DestinationIp => self.look_up_address(facts.destination_ip, hits),
            Field::DestinationPort => self.look_up_bytes(&facts.destination_port, hits),
            Field::Host => self.look_up_lowered(facts.all.http.map(|http| http.authority), hits),
            Field::Sni => self.look_up_lowered(facts.all.sni, hits),
            Field::Header(ref name) if matches!(&**name, "host" | ":authority") => {
                self.look_up_lowered(facts.all.http.map(|http| http.authority), hits);
            }
            _ => {
                self.field.any_text(facts, |value| {
                    self.look_up_bytes(value, hits);
                    hits.overflow
                });
            }
        }
    }

    fn look_up_lowered(&self, value: Option<&str>, hits: &mut Hits) {
        let Some(value) = value else { return };
        let mut buffer = [0; LOWERED_BYTES_MAX];
        match lowered(value.as_bytes(), &mut buffer) {
            Some(value) => self.look_up_bytes(value, hits),
            None => hits.overflow = true,
        }
    }

    fn look_up_bytes(&self, value: &[u8], hits: &mut Hits) {
        let prefix = self.prefixes.as_ref().and_then(|radix| radix.longest(value));
        let suffix = self.suffixes.as_ref().and_then(|radix| radix.longest(value));
        self.exact.get(value).into_iter().chain(prefix).chain(suffix).for_each(|set| hits.push(set));
    }

    fn look_up_address(&self, address: std::net::IpAddr, hits: &mut Hits) {
        let found = match address {
            std::net::IpAddr::V4(address) => {
                self.networks_v4.get_lpm(&Ipv4Net::from(address)).map(|(_, set)| *set)
            }
            std::net::IpAddr::V6(address) => {
                self.networks_v6.get_lpm(&Ipv6Net::from(address)).map(|(_, set)| *set)
            }
        };
        found.into_iter().for_each(|set| hits.push(set));
    }
}

/// The set of each key: its own rules, and those of every key that covers it. In the order of keys, a key must
/// stand behind all that cover it and next to those that it shares them with.
fn nested<K: Ord>(
    mut pairs: Vec<(K, u32)>,
    sets: &mut RuleSetsBuilder,
    covers: impl Fn(&K, &K) -> bool,
) -> Vec<(K, SetId)> {
    pairs.sort_unstable();
    pairs.dedup();
    let mut done: Vec<(K, SetId)> = Vec::new();
    // Positions in `done` of the keys that cover the one before, outermost first.
    let mut open: Vec<usize> = Vec::new();
    let mut rules = Vec::new();
    let mut pairs = pairs.into_iter().peekable();
    while let Some((key, rule)) = pairs.next() {
        rules.clear();
        rules.push(rule);
        while let Some((_, rule)) = pairs.next_if(|(next, _)| *next == key) {
            rules.push(rule);
        }
        while open.last().is_some_and(|outer| !covers(&done[*outer].0, &key)) {
            open.pop();
        }
        let outer = open.last().map(|outer| done[*outer].1);
        open.push(done.len());
        done.push((key, sets.add(&rules, outer)));
    }
    done
}
