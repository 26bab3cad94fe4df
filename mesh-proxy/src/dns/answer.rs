//! Decides what a destination of the mesh answers to a question, and writes answers.
//!
//! A name that the mesh knows is never `NXDOMAIN`: a client that asks for IPv6 first would take that for the
//! end of the name (RFC 2308 section 2.1) and not ask for IPv4. What it has nothing of is an empty answer.
//! Empty answers carry no SOA record and so are cached by nobody (RFC 2308 section 5).

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use mesh_api::model::Destination;
use mesh_api::model::service::Resolution;

use super::question::{HEADER_BYTES, Question};

/// Life of an answer in the client's cache: that of Kubernetes' own DNS
/// (<https://coredns.io/plugins/kubernetes/>, `ttl`). Asking again costs a look into a map on the same
/// machine, while the endpoints behind a headless name come and go.
const TTL_SECONDS: u32 = 5;
/// Most addresses in an answer: of IPv6, at 28 bytes each, they still fit a TCP message.
const ADDRESSES_MAX: usize = 2000;
/// The name in a record of the answer: the one that follows the header.
const POINTER_TO_QUESTION: [u8; 2] = [0xc0, 12];
/// Offered to clients for their questions.
const PAYLOAD: u16 = 4096;

/// What a destination answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// These addresses; if empty, there is nothing of the kind asked for.
    Addresses(Vec<IpAddr>),
    /// The mesh knows the name but gives it no address: the world's is the one that is meant.
    Upstream,
}

/// Whether the mesh has records of a kind: addresses, and nothing else.
pub(super) fn keeps(kind: RecordType) -> bool {
    matches!(kind, RecordType::A | RecordType::AAAA | RecordType::ANY)
}

/// Decides what `destination` answers to a question for `kind`.
pub(super) fn decide(destination: &Destination, kind: RecordType) -> Verdict {
    let pool = addresses(destination);
    if pool.is_empty() && !destination.headless {
        return Verdict::Upstream;
    }
    let is_wanted = |address: &IpAddr| match kind {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    };
    Verdict::Addresses(pool.into_iter().filter(is_wanted).collect())
}

/// The virtual addresses; the endpoints' own for a headless service, and for a static one that has no
/// virtual address: its name may exist in the mesh alone.
fn addresses(destination: &Destination) -> Vec<IpAddr> {
    let by_endpoints = destination.headless
        || destination.addresses.is_empty() && destination.resolution == Resolution::Static;
    let mut pool: Vec<IpAddr> = if by_endpoints {
        destination.endpoints.iter().filter(|one| !one.draining).map(|one| one.address).collect()
    } else {
        destination.addresses.clone()
    };
    let mut seen = std::collections::HashSet::new();
    pool.retain_mut(|address| {
        *address = address.to_canonical();
        seen.insert(*address)
    });
    pool
}

/// An answer with these addresses, beginning with another one each `turn`, so that clients that take the
/// first spread themselves. Says that it is cut (`TC`) when it does not fit what the client takes.
///
/// The records are written here: each one's name is a pointer to the question's (RFC 1035 section 4.1.4),
/// which the general encoder stops doing after some records.
pub(super) fn success(question: &Question, mut addresses: Vec<IpAddr>, turn: usize) -> Vec<u8> {
    if !addresses.is_empty() {
        let first = turn % addresses.len();
        addresses.rotate_left(first);
    }
    addresses.truncate(ADDRESSES_MAX);
    let mut message = reply(question, ResponseCode::NoError);
    message.metadata.authoritative = true;
    let options = message.edns.take().map(|edns| options_record(edns.flags().dnssec_ok));
    let mut bytes = encode(question, &message);
    for address in &addresses {
        bytes.extend_from_slice(&POINTER_TO_QUESTION);
        match address {
            IpAddr::V4(address) => push_record(&mut bytes, RecordType::A, &address.octets()),
            IpAddr::V6(address) => push_record(&mut bytes, RecordType::AAAA, &address.octets()),
        }
    }
    let answers = u16::try_from(addresses.len()).unwrap_or(u16::MAX);
    bytes[6..8].copy_from_slice(&answers.to_be_bytes());
    if let Some(options) = options {
        bytes.extend_from_slice(&options);
        bytes[10..12].copy_from_slice(&1_u16.to_be_bytes());
    }
    if bytes.len() <= usize::from(question.answer_bytes_max) { bytes } else { truncated(question) }
}

/// Type, class, life and data of a record (RFC 1035 section 4.1.3).
fn push_record(bytes: &mut Vec<u8>, kind: RecordType, data: &[u8]) {
    bytes.extend_from_slice(&u16::from(kind).to_be_bytes());
    bytes.extend_from_slice(&u16::from(DNSClass::IN).to_be_bytes());
    bytes.extend_from_slice(&TTL_SECONDS.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(data);
}

/// An OPT record without options, code and version zero (RFC 6891 section 6.1.2).
fn options_record(dnssec_ok: bool) -> [u8; 11] {
    let [payload_high, payload_low] = PAYLOAD.to_be_bytes();
    let flags = if dnssec_ok { 0x80 } else { 0 };
    [0, 0, 41, payload_high, payload_low, 0, 0, flags, 0, 0, 0]
}

/// An answer that only says that the real one does not fit: the client comes over TCP.
pub(super) fn truncated(question: &Question) -> Vec<u8> {
    let mut message = reply(question, ResponseCode::NoError);
    message.metadata.truncation = true;
    encode(question, &message)
}

/// An answer without records.
pub(super) fn failure(question: &Question, code: ResponseCode) -> Vec<u8> {
    encode(question, &reply(question, code))
}

/// A header and nothing else: for messages whose question could not be read.
pub(super) fn bare(id: u16, op_code: OpCode, code: ResponseCode) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[0] = high;
    bytes[1] = low;
    bytes[2] = 0x80 | u8::from(op_code) << 3;
    bytes[3] = code.low();
    bytes
}

fn reply(question: &Question, code: ResponseCode) -> Message {
    let mut message = Message::new(question.id, MessageType::Response, OpCode::Query);
    message.metadata.response_code = code;
    message.metadata.recursion_desired = question.recursion_desired;
    message.metadata.checking_disabled = question.checking_disabled;
    message.metadata.recursion_available = true;
    message.add_query(question.query.clone());
    if let Some(client) = question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD).set_dnssec_ok(client.dnssec_ok).set_rcode_high(code.high());
        message.set_edns(edns);
    }
    message
}

/// A message that cannot be written is our failure, said without a question.
fn encode(question: &Question, message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_else(|_| bare(question.id, OpCode::Query, ResponseCode::ServFail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::question::tests::{ask, question};
    use crate::dns::question::{Parsed, Transport, parse};
    use crate::dns::tests::{destination, endpoint};

    fn read(bytes: &[u8]) -> Message {
        Message::from_vec(bytes).expect("readable")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_service_answers_its_virtual_addresses_by_family() {
        let catalog = destination("catalog.backend.svc.cluster.local", &["240.240.0.1", "fd00::1"]);
        assert_eq!(decide(&catalog, RecordType::A), Verdict::Addresses(vec![ip("240.240.0.1")]));
        assert_eq!(decide(&catalog, RecordType::AAAA), Verdict::Addresses(vec![ip("fd00::1")]));
        for kind in [RecordType::TXT, RecordType::MX, RecordType::SRV, RecordType::HTTPS] {
            assert_eq!(decide(&catalog, kind), Verdict::Addresses(vec![]), "{kind}");
        }
    }

    #[test]
    fn a_family_without_addresses_is_no_data_and_never_no_name() {
        let catalog = destination("catalog.backend.svc.cluster.local", &["240.240.0.1"]);
        assert_eq!(decide(&catalog, RecordType::AAAA), Verdict::Addresses(vec![]));
        let answer = read(&success(&question("catalog.backend.", RecordType::AAAA), vec![], 3));
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty() && !answer.metadata.truncation);
    }

    #[test]
    fn a_headless_service_answers_its_living_endpoints() {
        let mut store = destination("store.backend.svc.cluster.local", &["240.240.0.9"]);
        store.headless = true;
        store.endpoints = vec![endpoint("10.0.0.1"), endpoint("10.0.0.2"), endpoint("10.0.0.2")];
        store.endpoints[0].draining = true;
        assert_eq!(decide(&store, RecordType::A), Verdict::Addresses(vec![ip("10.0.0.2")]));
        store.endpoints.clear();
        assert_eq!(decide(&store, RecordType::A), Verdict::Addresses(vec![]));
    }

    #[test]
    fn a_name_of_the_world_without_an_address_of_ours_keeps_the_worlds() {
        let mut external = destination("api.example.com", &[]);
        external.resolution = Resolution::Dns;
        assert_eq!(decide(&external, RecordType::A), Verdict::Upstream);
        external.resolution = Resolution::None;
        assert_eq!(decide(&external, RecordType::A), Verdict::Upstream);
        external.resolution = Resolution::Static;
        external.endpoints = vec![endpoint("192.0.2.7")];
        assert_eq!(decide(&external, RecordType::A), Verdict::Addresses(vec![ip("192.0.2.7")]));
    }

    #[test]
    fn an_answer_repeats_the_question_and_lives_for_seconds() {
        let question = question("CaTaLog.backend.", RecordType::A);
        let answer = read(&success(&question, vec![ip("240.240.0.1"), ip("240.240.0.2")], 1));
        assert_eq!(answer.metadata.id, 7);
        assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
        assert_eq!(answer.queries, [question.query]);
        assert!(answer.queries[0].name().to_ascii().starts_with("CaTaLog"));
        let data: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(data, ["240.240.0.2", "240.240.0.1"], "the second turn begins with the second");
        assert!(answer.answers.iter().all(|record| record.ttl == TTL_SECONDS));
        assert!(answer.edns.is_none());
    }

    #[test]
    fn what_does_not_fit_says_so_and_fits_over_tcp() {
        let many: Vec<IpAddr> = (0..200_u8).map(|number| IpAddr::from([10, 0, 0, number])).collect();
        for (payload, fits) in [(None, false), (Some(1232), false), (Some(4096), true)] {
            let bytes = ask(1, "store.backend.", RecordType::A, payload);
            let Parsed::Question(question) = parse(&bytes, Transport::Udp) else { unreachable!() };
            let bytes = success(&question, many.clone(), 0);
            assert!(bytes.len() <= usize::from(question.answer_bytes_max));
            let answer = read(&bytes);
            assert_eq!(answer.metadata.truncation, !fits, "{payload:?}");
            assert_eq!(answer.answers.len(), if fits { 200 } else { 0 });
            assert_eq!(answer.edns.is_some(), payload.is_some());
        }
        let Parsed::Question(question) =
            parse(&ask(1, "store.backend.", RecordType::AAAA, None), Transport::Tcp)
        else {
            unreachable!()
        };
        let most: Vec<IpAddr> = (0..5000_u16).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])).collect();
        let answer = read(&success(&question, most, 0));
        assert_eq!((answer.answers.len(), answer.metadata.truncation), (ADDRESSES_MAX, false));
        assert!(answer.answers.iter().all(|record| record.name == *question.query.name()));
    }

    #[test]
    fn edns_is_answered_with_edns() {
        let bytes = ask(1, "catalog.backend.", RecordType::A, Some(1232));
        let Parsed::Question(question) = parse(&bytes, Transport::Udp) else { unreachable!() };
        for bytes in
            [failure(&question, ResponseCode::ServFail), success(&question, vec![ip("240.240.0.1")], 0)]
        {
            let edns = read(&bytes).edns.expect("OPT");
            assert!(edns.flags().dnssec_ok);
            assert_eq!((edns.version(), edns.rcode_high(), edns.max_payload()), (0, 0, PAYLOAD));
        }
    }

    #[test]
    fn mapped_addresses_are_of_the_family_that_they_stand_for() {
        let mapped = destination("catalog.backend.svc.cluster.local", &["::ffff:10.0.0.1", "10.0.0.1"]);
        assert_eq!(decide(&mapped, RecordType::A), Verdict::Addresses(vec![ip("10.0.0.1")]));
        assert_eq!(decide(&mapped, RecordType::AAAA), Verdict::Addresses(vec![]));
    }
}
