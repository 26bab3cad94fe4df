//! The requests of one kind (one transport, HTTP or not, with a token of one issuer or without): for each
//! dimension, whether some tests can hold together while others fail, and a value for which they do.
//!
//! Dimensions are independent of each other, so the tests of a request can be met together just when those of
//! each dimension can. Answers are kept, because the same tests come together again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use super::Undecided;
use super::atom::{AtomId, Atoms, Dimension, DimensionId, Literal, Test};
use super::domain::Domain;
use super::lang::Lang;
use super::net::{self, Family};
use super::text::{Budget, Wanted};

/// What a request has in one dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(Vec<u8>),
    /// Header lines, or strings of a claim; none is absent.
    Texts(Vec<Vec<u8>>),
    Addresses {
        source: IpAddr,
        destination: IpAddr,
    },
    Address(IpAddr),
    Port(u16),
    Token {
        issuer: Vec<u8>,
        subject: Option<Vec<u8>>,
    },
}

/// Target ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ports {
    These(BTreeSet<u16>),
    AllBut(BTreeSet<u16>),
}

impl Ports {
    pub(super) fn has(&self, port: u16) -> bool {
        match self {
            Self::These(ports) => ports.contains(&port),
            Self::AllBut(ports) => port != 0 && !ports.contains(&port),
        }
    }
}

/// Whether a request names a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Every method but CONNECT.
    Usual,
    /// CONNECT, which has no path.
    Connect,
}

/// Values that read well, tried first.
#[derive(Debug, Clone, Default)]
pub(super) struct Preferred {
    pub(super) peers: Vec<Vec<u8>>,
    pub(super) hosts: Vec<Vec<u8>>,
}

/// The requests of one kind.
#[derive(Debug)]
pub(super) struct Space<'a> {
    pub(super) atoms: &'a Atoms,
    pub(super) ports: Ports,
    pub(super) kind: Kind,
    pub(super) peer: Domain,
    pub(super) authority: Domain,
    pub(super) target: Domain,
    /// Issuer of the tokens; empty for any.
    pub(super) issuer: &'a str,
    pub(super) preferred: &'a Preferred,
    known: BTreeMap<(DimensionId, Vec<Literal>), Option<Rc<Value>>>,
}

/// Ports that read well, tried first.
const PORTS: [u16; 4] = [8080, 80, 443, 9090];
const METHODS: [&[u8]; 7] = [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"PATCH", b"OPTIONS"];

impl<'a> Space<'a> {
    pub(super) fn new(
        atoms: &'a Atoms,
        (ports, kind, issuer): (Ports, Kind, &'a str),
        (peer, authority, target): (Domain, Domain, Domain),
        preferred: &'a Preferred,
    ) -> Self {
        Self { atoms, ports, kind, peer, authority, target, issuer, preferred, known: BTreeMap::new() }
    }

    /// A value for which every literal of the dimension is as stated. `literals` are in ascending order.
    pub(super) fn value(
        &mut self,
        dimension: DimensionId,
        literals: &[Literal],
        budget: &mut Budget,
    ) -> Result<Option<Rc<Value>>, Undecided> {
        let key = (dimension, literals.to_vec());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let found = self.find(self.atoms.dimension(dimension), literals, budget)?.map(Rc::new);
        self.known.insert(key, found.clone());
        Ok(found)
    }

    fn find(
        &self,
        dimension: &Dimension,
        literals: &[Literal],
        budget: &mut Budget,
    ) -> Result<Option<Value>, Undecided> {
        let text = |value: Option<Vec<u8>>| value.map(Value::Text);
        Ok(match dimension {
            Dimension::Peer => {
                text(self.text(&self.peer, literals, &self.preferred.peers, (&[], &[]), budget)?)
            }
            Dimension::Authority => {
                text(self.text(&self.authority, literals, &self.preferred.hosts, (&[], &[]), budget)?)
            }
            Dimension::Target => {
                let preferred = [b"/".to_vec(), b"/a".to_vec()];
                text(self.text(&self.target, literals, &preferred, (&[], &[]), budget)?)
            }
            Dimension::Method => text(self.method(literals, budget)?),
            Dimension::ServerName => self.texts(&Domain::ServerName, literals, budget, Many::One)?,
            Dimension::Header(_) => self.texts(&Domain::HeaderValue, literals, budget, Many::Any)?,
            Dimension::Claim(_) => self.texts(&Domain::Claim, literals, budget, Many::Any)?,
            Dimension::Addresses => self.addresses(literals),
            Dimension::Remote => self.remote(literals),
            Dimension::Port => self.port(literals),
            Dimension::Token => self.token(literals, budget)?,
        })
    }

    fn langs(&self, atom: AtomId) -> &'a [Lang] {
        match &self.atoms.atom(atom).test {
            Test::Texts(langs) | Test::Issuer(langs) | Test::Subject(langs) => langs,
            Test::Source(_)
            | Test::Destination(_)
            | Test::Remote(_)
            | Test::Ports(_)
            | Test::Principals(_) => &[],
        }
    }

    fn text(
        &self,
        domain: &Domain,
        literals: &[Literal],
        preferred: &[Vec<u8>],
        (also, never): (&[Lang], &[Lang]),
        budget: &mut Budget,
    ) -> Result<Option<Vec<u8>>, Undecided> {
        let of = |wanted: bool| literals.iter().filter(move |(_, holds)| *holds == wanted);
        let mut holds: Vec<&[Lang]> = of(true).map(|(atom, _)| self.langs(*atom)).collect();
        let mut fails: Vec<&[Lang]> = of(false).map(|(atom, _)| self.langs(*atom)).collect();
        if !also.is_empty() {
            holds.push(also);
        }
        fails.push(never);
        Wanted { domain, holds, fails, preferred }.find(budget)
    }

    fn method(&self, literals: &[Literal], budget: &mut Budget) -> Result<Option<Vec<u8>>, Undecided> {
        let connect = [Lang::Exact(b"CONNECT".as_slice().into())];
        let bounds: (&[Lang], &[Lang]) = match self.kind {
            Kind::Connect => (&connect, &[]),
            Kind::Usual => (&[], &connect),
        };
        self.text(&Domain::Method, literals, &METHODS.map(<[u8]>::to_vec), bounds, budget)
    }

    /// Lines or strings: one for each test that must hold, and none that another test takes.
    fn texts(
        &self,
        domain: &Domain,
        literals: &[Literal],
        budget: &mut Budget,
        many: Many,
    ) -> Result<Option<Value>, Undecided> {
        let (holds, fails): (Vec<Literal>, Vec<Literal>) = literals.iter().partition(|(_, holds)| *holds);
        if holds.is_empty() {
            return Ok(Some(Value::Texts(Vec::new())));
        }
        if let Some(one) = self.text(domain, literals, &[], (&[], &[]), budget)? {
            return Ok(Some(Value::Texts(vec![one])));
        }
        let mut texts = Vec::new();
        for literal in holds {
            let alone: Vec<Literal> = fails.iter().copied().chain([literal]).collect();
            match self.text(domain, &alone, &[], (&[], &[]), budget)? {
                Some(text) if many == Many::Any => texts.push(text),
                Some(_) | None => return Ok(None),
            }
        }
        Ok(Some(Value::Texts(texts)))
    }

    fn blocks(
        &self,
        literals: &[Literal],
        wanted: bool,
        of: fn(&Test) -> Option<&[ipnet::IpNet]>,
    ) -> Vec<&'a [ipnet::IpNet]> {
        let literals = literals.iter().filter(move |(_, holds)| *holds == wanted);
        literals.filter_map(|(atom, _)| of(&self.atoms.atom(*atom).test)).collect()
    }

    fn addresses(&self, literals: &[Literal]) -> Option<Value> {
        let end =
            |family, of| net::find(family, self.blocks(literals, true, of), self.blocks(literals, false, of));
        [Family::V4, Family::V6].into_iter().find_map(|family| {
            Some(Value::Addresses { source: end(family, source)?, destination: end(family, destination)? })
        })
    }

    fn remote(&self, literals: &[Literal]) -> Option<Value> {
        let (holds, fails) = (self.blocks(literals, true, remote), self.blocks(literals, false, remote));
        let find = |family| net::find(family, holds.iter().copied(), fails.iter().copied());
        find(Family::V4).or_else(|| find(Family::V6)).map(Value::Address)
    }

    fn port(&self, literals: &[Literal]) -> Option<Value> {
        let meets = |port: &u16| {
            self.ports.has(*port)
                && literals.iter().all(|(atom, holds)| match &self.atoms.atom(*atom).test {
                    Test::Ports(ports) => ports.contains(port) == *holds,
                    _ => true,
                })
        };
        PORTS.into_iter().find(meets).or_else(|| (1..=u16::MAX).find(meets)).map(Value::Port)
    }

    /// An issuer and a subject. What pairs demand of both is decided one pair after the other, as values that
    /// were found show it necessary.
    fn token(&self, literals: &[Literal], budget: &mut Budget) -> Result<Option<Value>, Undecided> {
        let mut bounds = TokenBounds::default();
        if !self.issuer.is_empty() {
            bounds.issuer.0.push(vec![Lang::Exact(self.issuer.as_bytes().into())]);
        }
        let mut pairs = Vec::new();
        for (atom, holds) in literals {
            let side = |bounds: &mut (Vec<Vec<Lang>>, Vec<Vec<Lang>>), langs: &[Lang]| {
                if *holds { bounds.0.push(langs.to_vec()) } else { bounds.1.push(langs.to_vec()) }
            };
            match &self.atoms.atom(*atom).test {
                Test::Issuer(langs) => side(&mut bounds.issuer, langs),
                Test::Subject(langs) => side(&mut bounds.subject, langs),
                Test::Principals(values) => pairs.push((values, *holds)),
                _ => {}
            }
        }
        bounds.find(&pairs, budget)
    }

    /// Whether a test holds of a value.
    pub(super) fn holds(&self, atom: AtomId, value: &Value) -> bool {
        let is_in = |langs: &[Lang], text: &[u8]| langs.iter().any(|lang| lang.matches(text));
        let contains =
            |blocks: &[ipnet::IpNet], address: &IpAddr| blocks.iter().any(|block| block.contains(address));
        match (&self.atoms.atom(atom).test, value) {
            (Test::Texts(langs), Value::Text(text)) => is_in(langs, text),
            (Test::Texts(langs), Value::Texts(texts)) => texts.iter().any(|text| is_in(langs, text)),
            (Test::Source(blocks), Value::Addresses { source, .. }) => contains(blocks, source),
            (Test::Destination(blocks), Value::Addresses { destination, .. }) => {
                contains(blocks, destination)
            }
            (Test::Remote(blocks), Value::Address(address)) => contains(blocks, address),
            (Test::Ports(ports), Value::Port(port)) => ports.contains(port),
            (Test::Issuer(langs), Value::Token { issuer, .. }) => is_in(langs, issuer),
            (Test::Subject(langs), Value::Token { subject, .. }) => {
                subject.as_ref().is_some_and(|subject| is_in(langs, subject))
            }
            (Test::Principals(pairs), Value::Token { issuer, subject }) => {
                is_principal(pairs, issuer, subject.as_deref())
            }
            _ => false,
        }
    }
}

/// How many texts an attribute has at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Many {
    One,
    Any,
}

fn source(test: &Test) -> Option<&[ipnet::IpNet]> {
    if let Test::Source(blocks) = test { Some(blocks) } else { None }
}

fn destination(test: &Test) -> Option<&[ipnet::IpNet]> {
    if let Test::Destination(blocks) = test { Some(blocks) } else { None }
}

fn remote(test: &Test) -> Option<&[ipnet::IpNet]> {
    if let Test::Remote(blocks) = test { Some(blocks) } else { None }
}

/// A token without both claims has no request principal.
fn is_principal(pairs: &[(Lang, Lang)], issuer: &[u8], subject: Option<&[u8]>) -> bool {
    let subject = subject.filter(|subject| !subject.is_empty() && !issuer.is_empty());
    subject.is_some_and(|subject| pairs.iter().any(|(of, to)| of.matches(issuer) && to.matches(subject)))
}

/// What is demanded of issuer and subject: sets of which each must have the text, and sets of which none may.
#[derive(Debug, Clone, Default)]
struct TokenBounds {
    issuer: (Vec<Vec<Lang>>, Vec<Vec<Lang>>),
    subject: (Vec<Vec<Lang>>, Vec<Vec<Lang>>),
}

impl TokenBounds {
    fn find(
        &self,
        pairs: &[(&Vec<(Lang, Lang)>, bool)],
        budget: &mut Budget,
    ) -> Result<Option<Value>, Undecided> {
        budget.spend(1)?;
        let Some(issuer) = find_claim(&self.issuer, b"https://issuer.example", budget)? else {
            return Ok(None);
        };
        let subject = match self.subject.0.is_empty() {
            true => None,
            false => match find_claim(&self.subject, b"somebody", budget)? {
                Some(subject) => Some(subject),
                None => return Ok(None),
            },
        };
        let wrong =
            pairs.iter().find(|(pairs, holds)| is_principal(pairs, &issuer, subject.as_deref()) != *holds);
        let Some((values, holds)) = wrong else { return Ok(Some(Value::Token { issuer, subject })) };
        if *holds {
            for (of, to) in values.iter() {
                let mut bounds = self.clone();
                bounds.issuer.0.extend([vec![of.clone()], vec![Lang::NonEmpty]]);
                bounds.subject.0.extend([vec![to.clone()], vec![Lang::NonEmpty]]);
                if let Some(found) = bounds.find(pairs, budget)? {
                    return Ok(Some(found));
                }
            }
            return Ok(None);
        }
        let hit =
            values.iter().find(|pair| is_principal(std::slice::from_ref(*pair), &issuer, subject.as_deref()));
        let Some((of, to)) = hit else { return Ok(None) };
        for at_issuer in [false, true] {
            let mut bounds = self.clone();
            let (side, lang) = if at_issuer { (&mut bounds.issuer, of) } else { (&mut bounds.subject, to) };
            side.1.push(vec![lang.clone()]);
            if let Some(found) = bounds.find(pairs, budget)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn find_claim(
    (holds, fails): &(Vec<Vec<Lang>>, Vec<Vec<Lang>>),
    preferred: &[u8],
    budget: &mut Budget,
) -> Result<Option<Vec<u8>>, Undecided> {
    let preferred = [preferred.to_vec()];
    Wanted {
        domain: &Domain::Claim,
        holds: holds.iter().map(Vec::as_slice).collect(),
        fails: fails.iter().map(Vec::as_slice).collect(),
        preferred: &preferred,
    }
    .find(budget)
}
