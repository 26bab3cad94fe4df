//! The longest of many literals that a value starts with (or ends with), in one walk along the value.
//!
//! Ten thousand `/api/x*` patterns would otherwise be ten thousand comparisons. Literals of a suffix tree
//! are read backwards, the value too.

/// An immutable radix tree from literals to numbers. Nodes, labels and branches each lie in one array, and
/// the children of a node next to each other, so that a walk touches little memory.
#[derive(Debug, Clone)]
pub(crate) struct Radix {
    nodes: Vec<Node>,
    /// Labels, and first bytes of the children of each node.
    bytes: Vec<u8>,
    end: End,
}

/// From which end literals and values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Prefixes.
    Front,
    /// Suffixes.
    Back,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    value: Option<u32>,
    /// Bytes that must follow on entering the node.
    label: Span,
    /// First bytes of the labels of its children, ascending.
    branches: Span,
    first_child: u32,
}

/// A range of [`Radix::bytes`].
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    length: u32,
}

impl Radix {
    /// Builds a tree; of equal literals the first stays.
    pub(crate) fn build(end: End, literals: impl IntoIterator<Item = (Box<[u8]>, u32)>) -> Self {
        let mut literals: Vec<_> = literals.into_iter().collect();
        if end == End::Back {
            literals.iter_mut().for_each(|(literal, _)| literal.reverse());
        }
        literals.sort_by(|a, b| a.0.cmp(&b.0));
        literals.dedup_by(|later, earlier| later.0 == earlier.0);
        let mut radix = Self { nodes: vec![Node::default()], bytes: Vec::new(), end };
        // Node to fill, its slice of the literals, and how many bytes lie above it.
        let mut open = vec![(0_usize, 0_usize, literals.len(), 0_usize)];
        while let Some((node, mut from, to, depth)) = open.pop() {
            if from == to {
                continue;
            }
            let reach = shared(&literals[from].0[depth..], &literals[to - 1].0[depth..]);
            let inner = depth + reach;
            radix.nodes[node].label = radix.store(&literals[from].0[depth..inner]);
            if literals[from].0.len() == inner {
                radix.nodes[node].value = Some(literals[from].1);
                from += 1;
            }
            radix.nodes[node].first_child = number(radix.nodes.len());
            let mut branches = Vec::new();
            while from < to {
                let first = literals[from].0[inner];
                let group = from + literals[from..to].partition_point(|(literal, _)| literal[inner] == first);
                branches.push(first);
                open.push((radix.nodes.len(), from, group, inner));
                radix.nodes.push(Node::default());
                from = group;
            }
            radix.nodes[node].branches = radix.store(&branches);
        }
        radix
    }

    fn store(&mut self, bytes: &[u8]) -> Span {
        let start = number(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        Span { start, length: number(bytes.len()) }
    }

    fn stored(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..][..span.length as usize]
    }

    /// The number of the longest literal that `value` starts (or ends) with.
    pub(crate) fn longest(&self, value: &[u8]) -> Option<u32> {
        match self.end {
            End::Front => self.walk(value.len(), |at| value[at]),
            End::Back => self.walk(value.len(), |at| value[value.len() - 1 - at]),
        }
    }

    fn walk(&self, length: usize, byte: impl Fn(usize) -> u8) -> Option<u32> {
        let mut best = None;
        let mut node = &self.nodes[0];
        let mut at = 0;
        loop {
            let label = self.stored(node.label);
            if length - at < label.len()
                || !label.iter().enumerate().all(|(offset, expected)| byte(at + offset) == *expected)
            {
                return best;
            }
            at += label.len();
            best = node.value.or(best);
            if at == length {
                return best;
            }
            let next = byte(at);
            let Some(branch) = self.stored(node.branches).iter().position(|first| *first == next) else {
                return best;
            };
            node = &self.nodes[node.first_child as usize + branch];
        }
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).expect("the text of a bounded model")
}

/// Length of the common start of two byte strings.
fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_longest_literal_is_found(
            literals in prop::collection::btree_set("[ab]{0,6}", 0..30),
            values in prop::collection::vec("[abc]{0,9}", 1..20),
        ) {
            let literals: Vec<_> = literals.into_iter().collect();
            let numbered = || (0_u32..).zip(&literals).map(|(n, l)| (l.as_bytes().into(), n));
            let front = Radix::build(End::Front, numbered());
            let back = Radix::build(End::Back, numbered());
            for value in values {
                let longest = |fits: &dyn Fn(&str) -> bool| (0_u32..)
                    .zip(&literals)
                    .filter(|(_, literal)| fits(literal))
                    .max_by_key(|(_, literal)| literal.len())
                    .map(|(number, _)| number);
                prop_assert_eq!(front.longest(value.as_bytes()), longest(&|l| value.starts_with(l)));
                prop_assert_eq!(back.longest(value.as_bytes()), longest(&|l| value.ends_with(l)));
            }
        }
    }
}
