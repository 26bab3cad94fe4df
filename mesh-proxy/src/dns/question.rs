//! Reads a message from the workload: a question, or an answer that refuses it, or nothing worth an answer.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

use super::answer;

/// Longest question that is read, in bytes. Real ones are below 600 (a name of 255 and a few options).
pub(super) const QUESTION_BYTES_MAX: usize = 4096;
/// Length of a header (RFC 1035 section 4.1.1).
pub(super) const HEADER_BYTES: usize = 12;
/// Size of a UDP answer that every client takes (RFC 1035 section 2.3.4).
const UDP_BYTES_PLAIN: u16 = 512;
/// Largest UDP answer that is made or passed on, whatever a client offers. The way is the loopback, whose
/// packets are larger than this and never fragmented.
const UDP_BYTES_MAX: u16 = 4096;

/// The way that a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What of EDNS(0) an answer depends on (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientEdns {
    pub(super) dnssec_ok: bool,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) id: u16,
    pub(super) query: Query,
    /// The name in canonical form: lower case, without the last dot.
    pub(super) name: String,
    pub(super) recursion_desired: bool,
    pub(super) checking_disabled: bool,
    pub(super) edns: Option<ClientEdns>,
    /// Largest answer in bytes.
    pub(super) answer_bytes_max: u16,
}

impl Question {
    pub(super) fn record_type(&self) -> RecordType {
        self.query.query_type()
    }

    pub(super) fn is_internet(&self) -> bool {
        self.query.query_class() == DNSClass::IN
    }
}

/// What a message is.
#[derive(Debug)]
pub(super) enum Parsed {
    Question(Box<Question>),
    /// To be sent back as it is.
    Refuse(Vec<u8>),
    /// Not worth an answer: too short to have an id, or an answer itself, which answering would turn into a
    /// loop.
    Drop,
}

pub(super) fn parse(bytes: &[u8], transport: Transport) -> Parsed {
    let is_query = bytes.get(2).is_some_and(|flags| flags & 0x80 == 0);
    if bytes.len() < HEADER_BYTES || !is_query {
        return Parsed::Drop;
    }
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    let op_code = OpCode::from_u8(bytes[2] >> 3 & 0xf);
    let refuse = |code| Parsed::Refuse(answer::bare(id, op_code, code));
    if op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    if bytes.len() > QUESTION_BYTES_MAX {
        return refuse(ResponseCode::FormErr);
    }
    let Ok(message) = Message::from_vec(bytes) else { return refuse(ResponseCode::FormErr) };
    if message.metadata.message_type != MessageType::Query {
        return Parsed::Drop;
    }
    let [query] = message.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
    let text = query.name().to_ascii();
    let question = Question {
        id,
        query: query.clone(),
        name: text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase(),
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        edns: message.edns.as_ref().map(|edns| ClientEdns { dnssec_ok: edns.flags().dnssec_ok }),
        answer_bytes_max: match transport {
            Transport::Udp => {
                let offered = message.edns.as_ref().map_or(UDP_BYTES_PLAIN, |edns| edns.max_payload());
                offered.clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX)
            }
            Transport::Tcp => u16::MAX,
        },
    };
    if message.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return Parsed::Refuse(answer::failure(&question, ResponseCode::BADVERS));
    }
    Parsed::Question(Box::new(question))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use hickory_proto::op::Edns;
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    /// A question as an application asks it; `payload` adds EDNS(0).
    pub(in crate::dns) fn ask(id: u16, name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_dnssec_ok(true);
            message.set_edns(edns);
        }
        message.to_vec().expect("encodes")
    }

    pub(in crate::dns) fn question(name: &str, kind: RecordType) -> Question {
        match parse(&ask(7, name, kind, None), Transport::Udp) {
            Parsed::Question(question) => *question,
            other => unreachable!("{other:?}"),
        }
    }

    fn code(parsed: &Parsed) -> Option<ResponseCode> {
        match parsed {
            Parsed::Refuse(bytes) => {
                let message = Message::from_vec(bytes).expect("readable");
                assert_eq!(message.metadata.message_type, MessageType::Response);
                Some(message.metadata.response_code)
            }
            Parsed::Question(_) | Parsed::Drop => None,
        }
    }

    #[test]
    fn names_are_canonical_and_the_question_keeps_its_spelling() {
        let question = question("Catalog.BackEnd.", RecordType::A);
        assert_eq!(question.name, "catalog.backend");
        assert!(question.query.name().to_ascii().starts_with("Catalog.BackEnd"));
        assert!(question.recursion_desired && question.is_internet());
    }

    #[test]
    fn the_size_of_an_answer_is_what_the_client_takes_within_bounds() {
        for (payload, wanted) in [(None, 512), (Some(512), 512), (Some(1232), 1232), (Some(65535), 4096)] {
            let bytes = ask(1, "a.b.", RecordType::A, payload);
            let Parsed::Question(question) = parse(&bytes, Transport::Udp) else { unreachable!() };
            assert_eq!(question.answer_bytes_max, wanted);
            let Parsed::Question(question) = parse(&bytes, Transport::Tcp) else { unreachable!() };
            assert_eq!(question.answer_bytes_max, u16::MAX);
        }
    }

    #[test]
    fn what_is_no_question_is_refused_or_dropped() {
        let good = ask(9, "a.b.", RecordType::A, None);
        assert!(matches!(parse(&good[..11], Transport::Udp), Parsed::Drop));
        let mut response = good.clone();
        response[2] |= 0x80;
        assert!(matches!(parse(&response, Transport::Udp), Parsed::Drop));
        let mut update = good.clone();
        update[2] |= 5 << 3;
        assert_eq!(code(&parse(&update, Transport::Udp)), Some(ResponseCode::NotImp));
        let cut = &good[..good.len() - 3];
        assert_eq!(code(&parse(cut, Transport::Udp)), Some(ResponseCode::FormErr));
        let mut none = good[..HEADER_BYTES].to_vec();
        none[5] = 0;
        assert_eq!(code(&parse(&none, Transport::Udp)), Some(ResponseCode::FormErr));
        let mut two = good.clone();
        two[5] = 2;
        two.extend_from_slice(&good[HEADER_BYTES..]);
        assert_eq!(code(&parse(&two, Transport::Udp)), Some(ResponseCode::FormErr));
        let mut large = good;
        large.resize(QUESTION_BYTES_MAX + 1, 0);
        assert_eq!(code(&parse(&large, Transport::Tcp)), Some(ResponseCode::FormErr));
    }

    #[test]
    fn a_name_that_points_at_itself_is_malformed() {
        let mut bytes = ask(1, "a.b.", RecordType::A, None);
        bytes[HEADER_BYTES] = 0xc0;
        bytes[HEADER_BYTES + 1] = 12;
        assert_eq!(code(&parse(&bytes, Transport::Udp)), Some(ResponseCode::FormErr));
    }

    #[test]
    fn a_later_version_of_edns_is_told_so() {
        let mut bytes = ask(1, "a.b.", RecordType::A, Some(1232));
        // The OPT record ends the message: root name, type, payload, then extended code and version.
        let at = bytes.len() - 11 + 6;
        bytes[at] = 1;
        let Parsed::Refuse(answer) = parse(&bytes, Transport::Udp) else { unreachable!() };
        let answer = Message::from_vec(&answer).expect("readable");
        // The number stands for BADSIG as well, in another place.
        assert_eq!(u16::from(answer.metadata.response_code), u16::from(ResponseCode::BADVERS));
        assert_eq!(answer.edns.expect("OPT").version(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let parsed = parse(&bytes, Transport::Udp);
            if let Parsed::Refuse(answer) = parsed {
                prop_assert_eq!(&answer[..2], &bytes[..2]);
                prop_assert!(answer[2] & 0x80 != 0);
            }
        }

        #[test]
        fn a_damaged_question_is_read_without_a_panic(
            edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = ask(3, "catalog.backend.svc.cluster.local.", RecordType::AAAA, Some(1232));
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Parsed::Question(question) = parse(&bytes, Transport::Udp) {
                // Whatever was read can be answered.
                let refused = answer::failure(&question, ResponseCode::ServFail);
                prop_assert!(refused.len() <= usize::from(question.answer_bytes_max));
            }
        }
    }
}
