//! Relays a question to the resolvers outside of the mesh, byte for byte but for its number.
//!
//! The number and the local port are random, the socket is connected, and an answer must repeat the
//! question: all that a forger off the path has to guess (RFC 5452). One that is cut is asked for again over
//! TCP; if the whole does not fit what the client takes, the client is told to come over TCP itself.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Header, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::answer;
use super::question::{HEADER_BYTES, Question, Transport};

/// Most resolvers that are asked for one question, as in resolv.conf(5).
const RESOLVERS_MAX: usize = 3;
/// Time for one question over all resolvers: within the 5 s after which clients ask again (resolv.conf(5)).
const RELAY_TIME: Duration = Duration::from_millis(4500);
/// Largest answer that is taken over UDP, in bytes; a larger one is asked for over TCP.
const UDP_ANSWER_BYTES_MAX: usize = 4096;
/// The bit of a cut answer, in the third octet of the header.
const TRUNCATED: u8 = 0x02;

/// Why a question was not answered by any upstream resolver.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    /// There is nobody to ask.
    #[error("no upstream resolver is configured")]
    NoUpstream,
    /// The random source failed.
    #[error("the random source failed")]
    Random,
    /// The last resolver failed, and so did those before it.
    #[error("no upstream resolver answered, last {resolver}")]
    Failed {
        /// The last one that was asked.
        resolver: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
}

/// The resolvers outside of the mesh.
#[derive(Debug)]
pub(super) struct Upstream {
    resolvers: Vec<SocketAddr>,
    fwmark: Option<u32>,
    is_cluster: bool,
}

impl Upstream {
    pub(super) fn new(mut resolvers: Vec<SocketAddr>, fwmark: Option<u32>) -> Self {
        resolvers.truncate(RESOLVERS_MAX);
        Self { resolvers, fwmark, is_cluster: false }
    }

    /// The same, as the resolvers of the cluster that the mesh is in.
    pub(super) fn of_cluster(mut self) -> Self {
        self.is_cluster = true;
        self
    }

    /// Whether it knows the names of the cluster that the mesh is in.
    pub(super) fn knows_cluster(&self) -> bool {
        self.is_cluster && !self.resolvers.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.resolvers.is_empty()
    }

    /// Asks one resolver after the other until one gives an answer that is not its own failure. Dropping the
    /// future gives the question up.
    pub(super) async fn relay(
        &self,
        question: &Question,
        bytes: &[u8],
        transport: Transport,
    ) -> Result<Vec<u8>, RelayError> {
        let mut outgoing = bytes.to_vec();
        let id = random_id()?;
        outgoing[..2].copy_from_slice(&id.to_be_bytes());
        let exchange = Exchange { question, id, outgoing: &outgoing, fwmark: self.fwmark };
        let share = RELAY_TIME / u32::try_from(self.resolvers.len().max(1)).unwrap_or(1);
        let (mut refusal, mut failure) = (None, RelayError::NoUpstream);
        for &resolver in &self.resolvers {
            let asked = match transport {
                Transport::Udp => timeout(share, exchange.over_udp(resolver, share / 2)).await,
                Transport::Tcp => timeout(share, exchange.over_tcp(resolver)).await,
            };
            match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(answer) if is_own_failure(&answer) => refusal = Some(answer),
                Ok(answer) => return Ok(exchange.for_client(answer)),
                Err(source) => failure = RelayError::Failed { resolver, source },
            }
        }
        refusal.map(|answer| exchange.for_client(answer)).ok_or(failure)
    }
}

/// One question on its way.
struct Exchange<'a> {
    question: &'a Question,
    id: u16,
    outgoing: &'a [u8],
    fwmark: Option<u32>,
}

impl Exchange<'_> {
    /// Sends again after `resend`, should the first be lost.
    async fn over_udp(&self, resolver: SocketAddr, resend: Duration) -> io::Result<Vec<u8>> {
        let socket = self.socket(resolver, Type::DGRAM, Protocol::UDP)?;
        socket.connect(&resolver.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        socket.send(self.outgoing).await?;
        let answer = match timeout(resend, self.receive(&socket)).await {
            Ok(answer) => answer?,
            Err(_) => {
                socket.send(self.outgoing).await?;
                self.receive(&socket).await?
            }
        };
        drop(socket);
        if answer[2] & TRUNCATED == 0 {
            return Ok(answer);
        }
        // A resolver without TCP leaves the client the part that it has.
        match self.over_tcp(resolver).await {
            Ok(whole) if whole.len() <= usize::from(self.question.answer_bytes_max) => Ok(whole),
            Ok(_) | Err(_) => Ok(answer),
        }
    }

    /// Waits for the answer and passes over everything else.
    async fn receive(&self, socket: &UdpSocket) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; UDP_ANSWER_BYTES_MAX + 1];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if !self.is_answer(&buffer[..length]) {
                continue;
            }
            if length > usize::from(self.question.answer_bytes_max).min(UDP_ANSWER_BYTES_MAX) {
                return Ok(answer::truncated(self.question));
            }
            buffer.truncate(length);
            return Ok(buffer);
        }
    }

    async fn over_tcp(&self, resolver: SocketAddr) -> io::Result<Vec<u8>> {
        let socket = self.socket(resolver, Type::STREAM, Protocol::TCP)?;
        let mut stream = TcpSocket::from_std_stream(socket.into()).connect(resolver).await?;
        stream.write_all(&framed(self.outgoing)).await?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).await?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).await?;
        if self.is_answer(&answer) {
            Ok(answer)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is to another question"))
        }
    }

    fn socket(&self, resolver: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(resolver), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if let Some(mark) = self.fwmark {
            socket.set_mark(mark)?;
        }
        Ok(socket)
    }

    /// Whether the message answers this question. Some servers leave the question out of a refusal.
    fn is_answer(&self, bytes: &[u8]) -> bool {
        if bytes.len() < HEADER_BYTES || bytes[..2] != self.id.to_be_bytes() || bytes[2] & 0x80 == 0 {
            return false;
        }
        let mut decoder = BinDecoder::new(bytes);
        let Ok(header) = Header::read(&mut decoder) else { return false };
        match header.counts.queries {
            0 => header.metadata.response_code != ResponseCode::NoError,
            1 => Query::read(&mut decoder).is_ok_and(|query| {
                query.name() == self.question.query.name()
                    && query.query_type() == self.question.query.query_type()
                    && query.query_class() == self.question.query.query_class()
            }),
            _ => false,
        }
    }

    /// Gives the answer the number that the client gave its question.
    fn for_client(&self, mut answer: Vec<u8>) -> Vec<u8> {
        answer[..2].copy_from_slice(&self.question.id.to_be_bytes());
        answer
    }
}

/// A message as it goes over TCP: its length before it (RFC 1035 section 4.2.2). Messages are never longer
/// than their length can say; should one be, the other side sees a cut one.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(2 + usize::from(length));
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&message[..usize::from(length)]);
    bytes
}

/// Whether the resolver says that it could not or would not: another one may.
fn is_own_failure(answer: &[u8]) -> bool {
    let code = ResponseCode::from(0, answer[3] & 0xf);
    matches!(code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp)
}

fn random_id() -> Result<u16, RelayError> {
    let mut id = [0; 2];
    mesh_identity::tls::provider().secure_random.fill(&mut id).map_err(|_| RelayError::Random)?;
    Ok(u16::from_be_bytes(id))
}
