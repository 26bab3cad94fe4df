//! Is there a request of a space that some rules match and others do not?
//!
//! For the rules that must match, one entry of each `from` and `to` is chosen in turn. For those that must
//! not, nothing is chosen in advance: a request is made that meets what is demanded so far, and only when one
//! of these rules matches it, the clauses of that rule are denied one after the other. Each branch keeps the
//! clauses denied before it as ones that hold, so no request is looked for twice. Policies that have nothing
//! to do with the question are thus never branched over, however many there are.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Undecided;
use super::atom::{AtomId, Atoms, Dimension, DimensionId, Form, Literal, Meaning, Term};
use super::space::{Space, Value};
use super::text::Budget;

/// Longest chain of denied clauses.
const DEPTH_MAX: usize = 4_000;

/// A rule, after what the traffic decides of it is taken out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Folded {
    /// At least one; an empty entry holds.
    pub(super) from: Vec<Vec<Literal>>,
    /// Likewise.
    pub(super) to: Vec<Vec<Literal>>,
    pub(super) when: Vec<Literal>,
}

/// What policies get to see of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct View {
    pub(super) http: bool,
    pub(super) path: bool,
    pub(super) peer: bool,
    pub(super) claims: bool,
    pub(super) server_name: bool,
    pub(super) scheme: &'static str,
}

impl View {
    fn shows(self, dimension: &Dimension) -> bool {
        match dimension {
            Dimension::Peer => self.peer,
            Dimension::Addresses | Dimension::Remote | Dimension::Port => true,
            Dimension::ServerName => self.server_name,
            Dimension::Authority | Dimension::Method => self.http,
            Dimension::Target => self.path,
            // Proxies take these off unless another proxy sent them (SEMANTICS 8.1).
            Dimension::Header(name) => self.http && (self.peer || !name.starts_with("x-envoy-")),
            Dimension::Token | Dimension::Claim(_) => self.claims,
        }
    }
}

/// A rule as it is for requests that are seen so; `None` when it matches none of them.
pub(super) fn fold(atoms: &Atoms, form: &Form, view: View) -> Option<Folded> {
    let entries = |entries: &[Vec<Term>]| -> Option<Vec<Vec<Literal>>> {
        if entries.is_empty() {
            return Some(vec![Vec::new()]);
        }
        let mut folded: Vec<_> = entries.iter().filter_map(|terms| fold_terms(atoms, terms, view)).collect();
        folded.sort();
        folded.dedup();
        (!folded.is_empty()).then_some(folded)
    };
    Some(Folded {
        when: fold_terms(atoms, &form.when, view)?,
        from: entries(&form.from)?,
        to: entries(&form.to)?,
    })
}

/// Literals that must hold together; `None` when they cannot.
fn fold_terms(atoms: &Atoms, terms: &[Term], view: View) -> Option<Vec<Literal>> {
    let mut literals = Vec::new();
    for term in terms {
        let known = match &term.meaning {
            Meaning::Atom(atom) if view.shows(atoms.dimension(atoms.atom(*atom).dimension)) => {
                literals.push((*atom, !term.negated));
                continue;
            }
            // What is absent matches nothing (SEMANTICS 6.5).
            Meaning::Atom(_) | Meaning::Absent => false,
            Meaning::Scheme(langs) => {
                view.http && langs.iter().any(|lang| lang.matches(view.scheme.as_bytes()))
            }
        };
        if known == term.negated {
            return None;
        }
    }
    literals.sort_unstable();
    literals.dedup();
    Some(literals)
}

/// What is looked for: a request that all of `holds` match and none of `fails`.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted<'q> {
    pub(super) holds: Vec<&'q Folded>,
    pub(super) fails: Vec<&'q [Folded]>,
}

/// A request, dimension by dimension, and the tests that led to it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) values: BTreeMap<DimensionId, Rc<Value>>,
    pub(super) literals: Vec<Literal>,
}

/// Literals that hold together, by dimension, each list ascending.
type Conjunction = BTreeMap<DimensionId, Vec<Literal>>;

impl Wanted<'_> {
    /// Finds such a request.
    pub(super) fn find(
        &self,
        space: &mut Space<'_>,
        budget: &mut Budget,
    ) -> Result<Option<Found>, Undecided> {
        let mut choices: Vec<Vec<&[Literal]>> = Vec::new();
        for form in &self.holds {
            choices.push(vec![&form.when]);
            choices.push(form.from.iter().map(Vec::as_slice).collect());
            choices.push(form.to.iter().map(Vec::as_slice).collect());
        }
        // What leaves no choice comes first, and at once: most questions end there.
        let (forced, mut choices): (Vec<_>, Vec<_>) =
            choices.into_iter().partition(|entries| entries.len() == 1);
        let forced: Vec<Literal> = forced.iter().flatten().copied().flatten().copied().collect();
        choices.sort_by_key(Vec::len);
        let mut search = Search { space, budget, choices: &choices, fails: &self.fails };
        match search.with(&Conjunction::new(), &forced)? {
            Some(start) => search.choose(0, &start),
            None => Ok(None),
        }
    }
}

struct Search<'s, 'a, 'q> {
    space: &'s mut Space<'a>,
    budget: &'s mut Budget,
    choices: &'s [Vec<&'q [Literal]>],
    fails: &'s [&'q [Folded]],
}

impl Search<'_, '_, '_> {
    fn choose(&mut self, at: usize, conjunction: &Conjunction) -> Result<Option<Found>, Undecided> {
        let choices = self.choices;
        let Some(entries) = choices.get(at) else { return self.escape(0, conjunction) };
        for entry in entries {
            self.budget.spend(1)?;
            let Some(next) = self.with(conjunction, entry)? else { continue };
            if let Some(found) = self.choose(at + 1, &next)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Makes a request and, as long as one of `fails` matches it, denies a clause of that rule.
    fn escape(&mut self, depth: usize, conjunction: &Conjunction) -> Result<Option<Found>, Undecided> {
        if depth > DEPTH_MAX {
            return Err(Undecided::TooLarge);
        }
        let mut values = BTreeMap::new();
        for dimension in self.space.atoms.dimension_ids() {
            let literals = conjunction.get(&dimension).map(Vec::as_slice).unwrap_or_default();
            match self.space.value(dimension, literals, self.budget)? {
                Some(value) => values.insert(dimension, value),
                None => return Ok(None),
            };
        }
        self.budget.spend(1 + self.fails.iter().map(|rules| rules.len()).sum::<usize>() / 4)?;
        let Some(clauses) = self.matched(&values) else {
            let literals = conjunction.values().flatten().copied().collect();
            return Ok(Some(Found { values, literals }));
        };
        let mut kept = conjunction.clone();
        for (atom, holds) in clauses {
            if let Some(next) = self.with(&kept, &[(atom, !holds)])?
                && let Some(found) = self.escape(depth + 1, &next)?
            {
                return Ok(Some(found));
            }
            match self.with(&kept, &[(atom, holds)])? {
                Some(next) => kept = next,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The clauses by which one of `fails` matches; positive ones first, which narrow more when denied.
    fn matched(&self, values: &BTreeMap<DimensionId, Rc<Value>>) -> Option<Vec<Literal>> {
        let holds = |(atom, wanted): &Literal| {
            let dimension = self.space.atoms.atom(*atom).dimension;
            values.get(&dimension).is_some_and(|value| self.space.holds(*atom, value) == *wanted)
        };
        let entry = |entries: &[Vec<Literal>]| entries.iter().position(|literals| literals.iter().all(holds));
        self.fails.iter().copied().flatten().find_map(|form| {
            if !form.when.iter().all(holds) {
                return None;
            }
            let (from, to) = (entry(&form.from)?, entry(&form.to)?);
            let mut clauses: Vec<Literal> =
                form.when.iter().chain(&form.from[from]).chain(&form.to[to]).copied().collect();
            clauses.sort_by_key(|(_, wanted)| !wanted);
            Some(clauses)
        })
    }

    /// The literals of a conjunction with more of them; `None` when they cannot hold together.
    fn with(
        &mut self,
        conjunction: &Conjunction,
        more: &[Literal],
    ) -> Result<Option<Conjunction>, Undecided> {
        let mut next = conjunction.clone();
        let mut touched: Vec<DimensionId> = Vec::new();
        for literal in more {
            let dimension = self.space.atoms.atom(literal.0).dimension;
            let literals = next.entry(dimension).or_default();
            match literals.binary_search_by_key(&literal.0, |(atom, _)| *atom) {
                Ok(at) if literals[at].1 != literal.1 => return Ok(None),
                Ok(_) => continue,
                Err(at) => literals.insert(at, *literal),
            }
            touched.push(dimension);
        }
        touched.sort_unstable();
        touched.dedup();
        for dimension in touched {
            let literals = next.get(&dimension).map(Vec::as_slice).unwrap_or_default();
            if self.space.value(dimension, literals, self.budget)?.is_none() {
                return Ok(None);
            }
            if is_demanded(literals) && self.conflicts(dimension, &next) {
                return Ok(None);
            }
        }
        Ok(Some(next))
    }

    /// Whether a claim is demanded to be text while another is demanded to stand within it.
    fn conflicts(&self, dimension: DimensionId, conjunction: &Conjunction) -> bool {
        let Dimension::Claim(path) = self.space.atoms.dimension(dimension) else { return false };
        conjunction.iter().any(|(other, literals)| {
            let Dimension::Claim(other_path) = self.space.atoms.dimension(*other) else { return false };
            *other != dimension
                && is_demanded(literals)
                && (path.starts_with(other_path) || other_path.starts_with(path))
        })
    }
}

fn is_demanded(literals: &[Literal]) -> bool {
    literals.iter().any(|(_, holds): &(AtomId, bool)| *holds)
}
