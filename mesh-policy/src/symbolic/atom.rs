//! The tests that policies make, each counted once, and rules as combinations of them.
//!
//! Attributes that are functions of one thing (namespace and principal of one identity, path and `:path` of
//! one target, issuer and request principal of one token) are tests of that one thing, so that what is found
//! is always a request and never a set of attributes that no request has together.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Undecided;
use super::lang::{LITERAL_BYTES_MAX, Lang, Matcher, Part, PartEnd, Piece};
use crate::authorize::clause::{Clause, Test as ClauseTest};
use crate::authorize::field::Field;
use crate::authorize::pattern::{Comparison, Pattern, Patterns};
use crate::authorize::request_principal::Part as PrincipalPart;
use crate::authorize::rule::RuleForm;
use crate::authorize::template::Template;

/// What is independent of everything else about a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Dimension {
    /// Identity of the caller.
    Peer,
    /// Addresses of both ends, which are of one family.
    Addresses,
    /// Address of the original client.
    Remote,
    Port,
    ServerName,
    Authority,
    Method,
    /// Path, with its query where that is looked at.
    Target,
    /// Lines of a header.
    Header(Box<str>),
    /// Issuer and subject of a token.
    Token,
    /// Strings of another claim.
    Claim(Box<[Box<str>]>),
}

/// A test of one dimension.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Test {
    /// The text, or one of the texts, is in one of these.
    Texts(Vec<Lang>),
    /// The address of the caller is.
    Source(Vec<IpNet>),
    /// The address that was called is.
    Destination(Vec<IpNet>),
    /// The address of the original client is.
    Remote(Vec<IpNet>),
    Ports(Vec<u16>),
    /// Issuer and subject are in one of these pairs.
    Principals(Vec<(Lang, Lang)>),
    Issuer(Vec<Lang>),
    Subject(Vec<Lang>),
}

/// Names a dimension of an [`Atoms`].
pub(super) type DimensionId = u32;
/// Names a test of an [`Atoms`].
pub(super) type AtomId = u32;
/// A test that must hold, or must not.
pub(super) type Literal = (AtomId, bool);

/// A test and where it belongs.
#[derive(Debug, Clone)]
pub(super) struct Atom {
    pub(super) dimension: DimensionId,
    pub(super) test: Test,
    /// The test as an author wrote it.
    pub(super) told: String,
}

/// Every test that occurs.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    pub(super) dimensions: Vec<Dimension>,
    pub(super) atoms: Vec<Atom>,
    known_dimensions: BTreeMap<Dimension, DimensionId>,
    known: BTreeMap<(DimensionId, Test), AtomId>,
}

/// What a clause depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    Atom(AtomId),
    /// An attribute that no request has.
    Absent,
    /// The scheme, which follows from the transport.
    Scheme(Vec<Lang>),
}

/// A clause of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) meaning: Meaning,
    pub(super) negated: bool,
}

/// A rule as a combination of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) from: Vec<Vec<Term>>,
    pub(super) to: Vec<Vec<Term>>,
    pub(super) when: Vec<Term>,
}

impl Atoms {
    pub(super) fn atom(&self, id: AtomId) -> &Atom {
        &self.atoms[id as usize]
    }

    pub(super) fn dimension(&self, id: DimensionId) -> &Dimension {
        &self.dimensions[id as usize]
    }

    pub(super) fn dimension_ids(&self) -> impl Iterator<Item = DimensionId> {
        (0..).take(self.dimensions.len())
    }

    /// The number of a test.
    pub(super) fn intern(
        &mut self,
        dimension: Dimension,
        test: Test,
        told: impl FnOnce() -> String,
    ) -> AtomId {
        let id = match self.known_dimensions.get(&dimension) {
            Some(id) => *id,
            None => {
                let id = DimensionId::try_from(self.dimensions.len()).expect("tests of a bounded model");
                self.known_dimensions.insert(dimension.clone(), id);
                self.dimensions.push(dimension);
                id
            }
        };
        let key = (id, test);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let atom = AtomId::try_from(self.atoms.len()).expect("tests of a bounded model");
        self.atoms.push(Atom { dimension: id, test: key.1.clone(), told: told() });
        self.known.insert(key, atom);
        atom
    }

    /// A rule as a combination of tests.
    pub(super) fn form(&mut self, form: &RuleForm) -> Result<Form, Undecided> {
        let mut terms = |clauses: &[Clause]| -> Result<Vec<Term>, Undecided> {
            clauses.iter().map(|clause| self.term(clause)).collect()
        };
        Ok(Form {
            from: form.from.iter().map(|clauses| terms(clauses)).collect::<Result<_, _>>()?,
            to: form.to.iter().map(|clauses| terms(clauses)).collect::<Result<_, _>>()?,
            when: terms(&form.when)?,
        })
    }

    fn term(&mut self, clause: &Clause) -> Result<Term, Undecided> {
        let meaning = match meaning(clause)? {
            Mapped::Absent => Meaning::Absent,
            Mapped::Scheme(langs) => Meaning::Scheme(langs),
            Mapped::Test(dimension, test) => Meaning::Atom(
                self.intern(dimension, test, || format!("{} [{}]", clause.field, clause.values.join(", "))),
            ),
        };
        Ok(Term { meaning, negated: clause.negated })
    }
}

enum Mapped {
    Absent,
    Scheme(Vec<Lang>),
    Test(Dimension, Test),
}

fn meaning(clause: &Clause) -> Result<Mapped, Undecided> {
    if clause.values.iter().any(|value| value.len() >= LITERAL_BYTES_MAX) {
        return Err(Undecided::TooLarge);
    }
    let texts = |dimension, langs| Ok(Mapped::Test(dimension, Test::Texts(langs)));
    match (&clause.field, &clause.test) {
        (Field::FilterMetadata, _) | (_, ClauseTest::Nothing) => Ok(Mapped::Absent),
        (Field::SourceIp, ClauseTest::Networks(blocks)) => {
            Ok(Mapped::Test(Dimension::Addresses, Test::Source(blocks.to_vec())))
        }
        (Field::DestinationIp, ClauseTest::Networks(blocks)) => {
            Ok(Mapped::Test(Dimension::Addresses, Test::Destination(blocks.to_vec())))
        }
        (_, ClauseTest::Networks(blocks)) => {
            Ok(Mapped::Test(Dimension::Remote, Test::Remote(blocks.to_vec())))
        }
        (_, ClauseTest::Ports(ports)) => Ok(Mapped::Test(Dimension::Port, Test::Ports(ports.to_vec()))),
        (_, ClauseTest::Globs(globs)) => {
            let namespace =
                |glob: &crate::authorize::pattern::Glob| part(2, PartEnd::Slash, Lang::glob(glob.text()));
            texts(Dimension::Peer, globs.iter().map(namespace).collect())
        }
        (_, ClauseTest::RequestPrincipals(values)) => {
            let pairs =
                values.iter().map(|value| (of_principal(&value.issuer), of_principal(&value.subject)));
            Ok(Mapped::Test(Dimension::Token, Test::Principals(pairs.collect())))
        }
        (_, ClauseTest::Paths(patterns, templates)) => {
            let langs = langs_of(patterns).into_iter().chain(templates.iter().map(lang_of_template));
            texts(Dimension::Target, langs.map(|lang| Lang::BeforeQuery(Box::new(lang))).collect())
        }
        (_, ClauseTest::ServerNames(patterns)) => texts(Dimension::ServerName, langs_of(patterns)),
        (field, ClauseTest::Texts(patterns)) => of_texts(field, langs_of(patterns)),
    }
}

fn part(skip: u32, until: PartEnd, inner: Lang) -> Lang {
    Lang::Part(Part { skip, until }, Box::new(inner))
}

fn of_texts(field: &Field, langs: Vec<Lang>) -> Result<Mapped, Undecided> {
    let parts = |skip, until, langs: Vec<Lang>| {
        let langs = langs.into_iter().map(|lang| part(skip, until, lang)).collect();
        Ok(Mapped::Test(Dimension::Peer, Test::Texts(langs)))
    };
    let dimension = match field {
        Field::Principal => Dimension::Peer,
        Field::TrustDomain => return parts(0, PartEnd::Slash, langs),
        Field::ServiceAccount => return parts(2, PartEnd::Text, langs),
        Field::Host => Dimension::Authority,
        Field::Method => Dimension::Method,
        Field::Header(name) => return of_header(name, langs),
        Field::Claim(path) => return Ok(of_claim(path, langs)),
        Field::Namespace
        | Field::RequestPrincipal
        | Field::SourceIp
        | Field::RemoteIp
        | Field::DestinationIp
        | Field::DestinationPort
        | Field::Sni
        | Field::Path
        | Field::FilterMetadata => return Ok(Mapped::Absent),
    };
    Ok(Mapped::Test(dimension, Test::Texts(langs)))
}

fn of_header(name: &str, langs: Vec<Lang>) -> Result<Mapped, Undecided> {
    let dimension = match name {
        "host" | ":authority" => Dimension::Authority,
        ":method" => Dimension::Method,
        ":path" => Dimension::Target,
        ":scheme" => return Ok(Mapped::Scheme(langs)),
        "x-forwarded-client-cert" => {
            return Err(Undecided::Untold(format!("a rule tests the header {name}, which proxies write")));
        }
        // No other name with a colon can be sent.
        name if name.contains(':') => return Ok(Mapped::Absent),
        name => Dimension::Header(name.into()),
    };
    Ok(Mapped::Test(dimension, Test::Texts(langs)))
}

/// Issuer and subject are strings in every token that is accepted, and times are numbers (RFC 7519 section
/// 4.1), which no test of strings matches.
fn of_claim(path: &[Box<str>], langs: Vec<Lang>) -> Mapped {
    match path {
        [name] if &**name == "iss" => Mapped::Test(Dimension::Token, Test::Issuer(langs)),
        [name] if &**name == "sub" => Mapped::Test(Dimension::Token, Test::Subject(langs)),
        [first, ..] if matches!(&**first, "iss" | "sub" | "exp" | "nbf" | "iat") => Mapped::Absent,
        path => Mapped::Test(Dimension::Claim(path.into()), Test::Texts(langs)),
    }
}

/// The languages of patterns.
pub(super) fn langs_of(patterns: &Patterns) -> Vec<Lang> {
    let any = match patterns.comparison() {
        Comparison::Text => Lang::NonEmpty,
        Comparison::Header | Comparison::Authority => Lang::All,
    };
    let lang = |pattern| match pattern {
        Pattern::Any => any.clone(),
        Pattern::Exact(text) => Lang::Exact(text),
        Pattern::Prefix(text) => Lang::prefix(&text),
        Pattern::Suffix(text) => Lang::suffix(&text),
    };
    patterns.iter().map(lang).collect()
}

pub(super) fn lang_of_template(template: &Template) -> Lang {
    let (head, tail) = template.pieces();
    let head = head.map(|piece| match piece {
        Some(literal) => Piece::Literal(literal.as_bytes().into()),
        None => Piece::Segment,
    });
    Lang::Template(head.collect(), tail.map(|tail| Matcher::new(tail.as_bytes())))
}

fn of_principal(part: &PrincipalPart) -> Lang {
    match part {
        PrincipalPart::NonEmpty => Lang::NonEmpty,
        PrincipalPart::Exact(text) => Lang::Exact(text.as_bytes().into()),
        PrincipalPart::Prefix(text) => Lang::prefix(text.as_bytes()),
        PrincipalPart::Suffix(text) => Lang::suffix(text.as_bytes()),
    }
}
