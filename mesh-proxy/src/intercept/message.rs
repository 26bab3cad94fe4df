//! The rules as the kernel reads them (pure): one transaction of `nf_tables` messages.
//!
//! A message is a netlink header, a header of netfilter, and attributes; an attribute is its length, its type
//! and its value, and may hold attributes in turn. Numbers of headers and attributes' lengths are in the
//! machine's order, numbers within attributes in the network's, and what is compared with a packet or with the
//! kernel's own values is in the order in which the kernel has those. The numbers are those of
//! `linux/netfilter/nf_tables.h` and `linux/netfilter/nfnetlink.h`, which the kernel never changes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ruleset::{Chain, Condition, Hook, Rule, Transport, Verdict};

/// Name of the table, of the family `inet`.
const TABLE_NAME: &str = "mini_mesh";

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const FAMILY_NONE: u8 = 0;
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;

/// Marks an attribute that holds others.
const NESTED: u16 = 0x8000;

const TABLE_ATTRIBUTE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USER_DATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// `NFT_RETURN`, which is -5.
const RETURN: u32 = 0xffff_fffb;
/// Priority at which the kernel translates destinations, `NF_IP_PRI_NAT_DST`: -100.
const PRIORITY: u32 = 0xffff_ff9c;
/// The register of verdicts.
const VERDICT_REGISTER: u32 = 0;
/// The register that values are loaded into.
const REGISTER: u32 = 1;

const META_MARK: u32 = 3;
const META_OUT_NAME: u32 = 7;
const META_USER: u32 = 10;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
/// Longest name of an interface with its end, `IFNAMSIZ`.
const INTERFACE_BYTES: usize = 16;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
/// `RTN_LOCAL`, the kind of the own addresses in the kernel's tables.
const ROUTE_LOCAL: u32 = 2;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: a port is given.
const RANGE_HAS_PORT: u32 = 2;
/// How `nft` tells a comment from other data that is kept with a rule.
const USER_DATA_COMMENT: u8 = 0;

/// What one message asks for, to say which one was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// The transaction as such.
    Transaction,
    /// The table.
    Table,
    /// A chain, by its name.
    Chain(&'static str),
    /// A rule, as `nft` writes it.
    Rule(Box<Rule>),
}

/// Messages that are obeyed all together or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// What each message asks for; its position is the message's number.
    parts: Vec<Part>,
}

impl Batch {
    /// Puts these chains in the place of whatever the table holds.
    pub(super) fn replacing(chains: &[Chain]) -> Self {
        let mut batch = Self::removing_open();
        batch.message(Part::Table, NEW_TABLE, CREATE, |out| text(out, TABLE_ATTRIBUTE_NAME, TABLE_NAME));
        for chain in chains {
            let (name, number) = match chain.hook {
                Hook::Prerouting => ("prerouting", 0),
                Hook::Output => ("output", 3),
            };
            batch.message(Part::Chain(name), NEW_CHAIN, CREATE, |out| {
                text(out, CHAIN_TABLE, TABLE_NAME);
                text(out, CHAIN_NAME, name);
                nested(out, CHAIN_HOOK, |out| {
                    number_of(out, HOOK_NUMBER, number);
                    number_of(out, HOOK_PRIORITY, PRIORITY);
                });
                number_of(out, CHAIN_POLICY, ACCEPT);
                text(out, CHAIN_TYPE, "nat");
            });
            for rule in &chain.rules {
                let part = Part::Rule(Box::new(rule.clone()));
                batch.message(part, NEW_RULE, CREATE | APPEND, |out| write_rule(out, name, rule));
            }
        }
        batch.closed()
    }

    /// Takes the table away; that there is none is no error.
    pub(super) fn removing() -> Self {
        Self::removing_open().closed()
    }

    /// Deleting what may be absent fails, so the table is declared first.
    fn removing_open() -> Self {
        let mut batch = Self { bytes: Vec::new(), parts: Vec::new() };
        batch.frame(Part::Transaction, BATCH_BEGIN, REQUEST, FAMILY_NONE, |_| {});
        batch.message(Part::Table, NEW_TABLE, CREATE, |out| text(out, TABLE_ATTRIBUTE_NAME, TABLE_NAME));
        batch.message(Part::Table, DELETE_TABLE, 0, |out| text(out, TABLE_ATTRIBUTE_NAME, TABLE_NAME));
        batch
    }

    fn closed(mut self) -> Self {
        self.frame(Part::Transaction, BATCH_END, REQUEST, FAMILY_NONE, |_| {});
        self
    }

    /// As they are sent, in one piece.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many acknowledgements come when all is well: one for each message but the begin and the end.
    pub(super) fn acknowledgements(&self) -> usize {
        self.parts.len() - 2
    }

    /// What the message of this number asks for.
    pub(super) fn part(&self, number: u32) -> Part {
        let part = usize::try_from(number).ok().and_then(|number| self.parts.get(number));
        part.cloned().unwrap_or(Part::Transaction)
    }

    fn message(&mut self, part: Part, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        self.frame(part, kind, REQUEST | ACKNOWLEDGE | flags, FAMILY_INET, body);
    }

    fn frame(&mut self, part: Part, kind: u16, flags: u16, family: u8, body: impl FnOnce(&mut Vec<u8>)) {
        let number = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        self.parts.push(part);
        let begin = self.bytes.len();
        let out = &mut self.bytes;
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(&flags.to_ne_bytes());
        out.extend_from_slice(&number.to_ne_bytes());
        // The port of the sender: the kernel knows it.
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&[family, 0]);
        // The begin and the end say whose the messages between them are.
        let resource = if family == FAMILY_NONE { SUBSYSTEM } else { 0 };
        out.extend_from_slice(&resource.to_be_bytes());
        body(out);
        let length = u32::try_from(out.len() - begin).unwrap_or(u32::MAX);
        out[begin..begin + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Writes an attribute; the next one begins at a multiple of four.
fn attribute(out: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&kind.to_ne_bytes());
    value(out);
    let length = u16::try_from(out.len() - begin).unwrap_or(u16::MAX);
    out[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}

fn nested(out: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    attribute(out, kind | NESTED, value);
}

fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(out, kind, |out| {
        out.extend_from_slice(value.as_bytes());
        out.push(0);
    });
}

fn number_of(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, |out| out.extend_from_slice(&value.to_be_bytes()));
}

fn write_rule(out: &mut Vec<u8>, chain: &str, rule: &Rule) {
    text(out, RULE_TABLE, TABLE_NAME);
    text(out, RULE_CHAIN, chain);
    nested(out, RULE_EXPRESSIONS, |out| {
        rule.conditions.iter().for_each(|condition| write_condition(out, *condition));
        write_verdict(out, rule.verdict);
    });
    if let Some(comment) = rule.comment {
        attribute(out, RULE_USER_DATA, |out| {
            let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
            out.extend_from_slice(&[USER_DATA_COMMENT, length]);
            out.extend_from_slice(comment.as_bytes());
            out.push(0);
        });
    }
}

fn write_condition(out: &mut Vec<u8>, condition: Condition) {
    match condition {
        Condition::Mark(mark) => {
            load_meta(out, META_MARK);
            compare(out, &mark.to_ne_bytes());
        }
        Condition::User(uid) => {
            load_meta(out, META_USER);
            compare(out, &uid.to_ne_bytes());
        }
        Condition::Loopback => {
            load_meta(out, META_OUT_NAME);
            let mut name = [0; INTERFACE_BYTES];
            name[..2].copy_from_slice(b"lo");
            compare(out, &name);
        }
        Condition::Local => {
            // The kind of the destination's address in the routing tables.
            expression(out, "fib", &[(1, REGISTER), (2, 3), (3, 2)]);
            compare(out, &ROUTE_LOCAL.to_ne_bytes());
        }
        Condition::Protocol(transport) => compare_protocol(out, transport),
        Condition::Port(transport, port) => {
            compare_protocol(out, transport);
            load_payload(out, BASE_TRANSPORT, 2, 2);
            compare(out, &port.to_be_bytes());
        }
        Condition::Network(network) => compare_network(out, network),
    }
}

fn compare_protocol(out: &mut Vec<u8>, transport: Transport) {
    load_meta(out, META_PROTOCOL);
    compare(
        out,
        &[match transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }],
    );
}

fn compare_network(out: &mut Vec<u8>, network: IpNet) {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (address, mask) = (octets(network.addr()), octets(network.netmask()));
    let (family, offset) = match network {
        IpNet::V4(_) => (FAMILY_IPV4, 16),
        IpNet::V6(_) => (FAMILY_IPV6, 24),
    };
    load_meta(out, META_FAMILY);
    compare(out, &[family]);
    if network.prefix_len() == 0 {
        return;
    }
    let length = if family == FAMILY_IPV4 { 4 } else { 16 };
    load_payload(out, BASE_NETWORK, offset, length);
    if network.prefix_len() < network.max_prefix_len() {
        named(out, "bitwise", |out| {
            number_of(out, 1, REGISTER);
            number_of(out, 2, REGISTER);
            number_of(out, 3, length);
            data(out, 4, &mask);
            data(out, 5, &vec![0; mask.len()]);
        });
    }
    compare(out, &address);
}

fn write_verdict(out: &mut Vec<u8>, verdict: Verdict) {
    match verdict {
        Verdict::Return => named(out, "immediate", |out| {
            number_of(out, 1, VERDICT_REGISTER);
            nested(out, 2, |out| nested(out, DATA_VERDICT, |out| number_of(out, VERDICT_CODE, RETURN)));
        }),
        Verdict::Redirect(port) => {
            named(out, "immediate", |out| {
                number_of(out, 1, REGISTER);
                data(out, 2, &port.to_be_bytes());
            });
            expression(out, "redir", &[(1, REGISTER), (3, RANGE_HAS_PORT)]);
        }
    }
}

fn load_meta(out: &mut Vec<u8>, key: u32) {
    expression(out, "meta", &[(2, key), (1, REGISTER)]);
}

fn load_payload(out: &mut Vec<u8>, base: u32, offset: u32, length: u32) {
    expression(out, "payload", &[(1, REGISTER), (2, base), (3, offset), (4, length)]);
}

/// Goes on only when the register holds this value.
fn compare(out: &mut Vec<u8>, value: &[u8]) {
    named(out, "cmp", |out| {
        number_of(out, 1, REGISTER);
        number_of(out, 2, 0);
        data(out, 3, value);
    });
}

fn data(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nested(out, kind, |out| attribute(out, DATA_VALUE, |out| out.extend_from_slice(value)));
}

/// An expression whose attributes are numbers.
fn expression(out: &mut Vec<u8>, name: &str, numbers: &[(u16, u32)]) {
    named(out, name, |out| numbers.iter().for_each(|(kind, value)| number_of(out, *kind, *value)));
}

fn named(out: &mut Vec<u8>, name: &str, body: impl FnOnce(&mut Vec<u8>)) {
    nested(out, LIST_ELEMENT, |out| {
        text(out, EXPRESSION_NAME, name);
        nested(out, EXPRESSION_DATA, body);
    });
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::super::ruleset::chains;
    use super::*;

    #[test]
    fn messages_are_numbered_and_their_lengths_lead_from_one_to_the_next() {
        let batch = Batch::replacing(&chains(&Settings::default()));
        let (mut at, mut count) = (0, 0_u32);
        while at < batch.bytes().len() {
            let header = &batch.bytes()[at..at + 16];
            let length = u32::from_ne_bytes(header[..4].try_into().expect("four bytes"));
            let number = u32::from_ne_bytes(header[8..12].try_into().expect("four bytes"));
            assert_eq!((number, length % 4), (count, 0));
            at += usize::try_from(length).expect("small");
            count += 1;
        }
        assert_eq!(at, batch.bytes().len());
        // Begin, old table twice, table, two chains, six and three rules, end.
        assert_eq!((count, batch.acknowledgements()), (16, 14));
        assert!(matches!(batch.part(4), Part::Chain("output")));
    }

    #[test]
    fn an_attribute_states_its_length_without_its_padding() {
        let mut out = Vec::new();
        text(&mut out, 1, "ab");
        assert_eq!(out, [7_u16.to_ne_bytes(), 1_u16.to_ne_bytes(), *b"ab", [0, 0]].concat());
    }
}
