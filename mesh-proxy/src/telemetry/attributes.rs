//! Records as the expressions of Telemetry see them, under Envoy's names.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use mesh_policy::telemetry::{Attribute, AttributeSource, Value};

use super::record::{Flag, HttpFields, TcpRecord};
use crate::connection::Connection;

/// An HTTP exchange.
#[derive(Debug)]
pub(super) struct HttpView<'a> {
    pub(super) connection: &'a Connection,
    pub(super) fields: &'a HttpFields,
    pub(super) elapsed: Duration,
}

/// A byte stream.
#[derive(Debug)]
pub(super) struct TcpView<'a>(pub(super) &'a TcpRecord);

fn text(text: &str) -> Option<Value<'_>> {
    (!text.is_empty()).then_some(Value::Text(Cow::Borrowed(text)))
}

fn count(count: u64) -> Option<Value<'static>> {
    i64::try_from(count).ok().map(Value::Int)
}

fn port(address: SocketAddr) -> Option<Value<'static>> {
    Some(Value::Int(i64::from(address.port())))
}

fn address(address: SocketAddr) -> Option<Value<'static>> {
    Some(Value::Text(Cow::Owned(address.to_string())))
}

fn nanoseconds(duration: Duration) -> Option<i64> {
    i64::try_from(duration.as_nanos()).ok()
}

/// When what lasted `elapsed` until now began.
fn began(elapsed: Duration) -> Option<Value<'static>> {
    let at = SystemTime::now().checked_sub(elapsed)?;
    nanoseconds(at.duration_since(SystemTime::UNIX_EPOCH).ok()?).map(Value::Timestamp)
}

/// Envoy's bits (`CoreResponseFlag`, one bit each in its order).
fn bits(flag: Flag) -> i64 {
    let bit = |place: u32| 1_i64 << place;
    match flag {
        Flag::None => 0,
        Flag::NoHealthyUpstream => bit(1),
        Flag::UpstreamTimeout => bit(2),
        Flag::LocalReset => bit(3),
        Flag::UpstreamConnectionFailure => bit(5),
        Flag::UpstreamConnectionTermination => bit(6),
        Flag::UpstreamOverflow => bit(7),
        Flag::NoRoute => bit(8),
        Flag::UnauthorizedExternal => bit(12),
        Flag::DownstreamConnectionTermination => bit(14),
        Flag::UpstreamRetryLimitExceeded => bit(15),
        Flag::TimeoutAtRetryLimit => bit(2) | bit(15),
        Flag::ConnectionFailureAtRetryLimit => bit(5) | bit(15),
        Flag::ConnectionTerminationAtRetryLimit => bit(6) | bit(15),
        Flag::DownstreamProtocolError => bit(18),
        Flag::DurationTimeout => bit(22),
        Flag::UpstreamProtocolError => bit(23),
        Flag::NoCluster => bit(24),
    }
}

/// What a connection knows.
fn of_connection(connection: &Connection, attribute: Attribute) -> Option<Value<'_>> {
    match attribute {
        Attribute::SourceAddress => address(connection.peer),
        Attribute::SourcePort => port(connection.peer),
        Attribute::DestinationAddress => address(connection.destination),
        Attribute::DestinationPort => port(connection.destination),
        Attribute::ConnectionId => count(connection.id),
        Attribute::ConnectionMtls => Some(Value::Bool(connection.tls.is_some())),
        Attribute::ConnectionServerName => text(connection.tls.as_ref()?.sni.as_deref()?),
        Attribute::ConnectionPeerUri => text(connection.peer_identity()?.as_str()),
        _ => None,
    }
}

impl AttributeSource for HttpView<'_> {
    fn attribute(&self, attribute: Attribute) -> Option<Value<'_>> {
        let fields = self.fields;
        // A request that is refused early has not been normalised.
        let path = || if fields.path.is_empty() { &fields.original_path } else { &fields.path };
        match attribute {
            Attribute::RequestPath => text(path()),
            Attribute::RequestUrlPath => text(path().split('?').next()?),
            Attribute::RequestQuery => {
                Some(Value::Text(Cow::Borrowed(path().split_once('?').map_or("", |(_, query)| query))))
            }
            Attribute::RequestHost => text(&fields.authority),
            Attribute::RequestScheme => text(if self.connection.tls.is_some() { "https" } else { "http" }),
            Attribute::RequestMethod => text(&fields.method),
            Attribute::RequestUserAgent => text(&fields.user_agent),
            Attribute::RequestId => text(&fields.request_id),
            Attribute::RequestProtocol => text(fields.protocol),
            Attribute::RequestTime => began(self.elapsed),
            Attribute::RequestDuration => nanoseconds(self.elapsed).map(Value::Duration),
            Attribute::RequestSize | Attribute::RequestTotalSize => count(fields.bytes_received),
            Attribute::ResponseCode => (fields.status > 0).then_some(Value::Int(i64::from(fields.status))),
            Attribute::ResponseCodeDetails => text(&fields.details),
            Attribute::ResponseFlags => Some(Value::Int(bits(fields.flag))),
            Attribute::ResponseGrpcStatus => fields.grpc_status.map(|status| Value::Int(i64::from(status))),
            Attribute::ResponseSize | Attribute::ResponseTotalSize => count(fields.bytes_sent),
            Attribute::ResponseBackendLatency => {
                let latency = Duration::from_micros(fields.upstream_service_micros?);
                nanoseconds(latency).map(Value::Duration)
            }
            Attribute::UpstreamAddress => address(fields.upstream?),
            Attribute::UpstreamPort => port(fields.upstream?),
            Attribute::UpstreamTransportFailureReason => text(&fields.transport_failure),
            Attribute::ClusterName => text(&fields.destination.as_ref()?.cluster),
            Attribute::RouteName => text(&fields.route),
            Attribute::SourceAddress
            | Attribute::SourcePort
            | Attribute::DestinationAddress
            | Attribute::DestinationPort
            | Attribute::ConnectionId
            | Attribute::ConnectionMtls
            | Attribute::ConnectionServerName
            | Attribute::ConnectionPeerUri
            | Attribute::ConnectionTerminationDetails => of_connection(self.connection, attribute),
        }
    }

    fn request_header(&self, name: &str) -> Option<Cow<'_, str>> {
        let fields = self.fields;
        let known = match name {
            ":method" => Some(&fields.method),
            ":path" => Some(&fields.path),
            ":authority" | "host" => Some(&fields.authority),
            "x-request-id" => Some(&fields.request_id),
            _ => None,
        };
        if let Some(value) = known {
            return (!value.is_empty()).then_some(Cow::Borrowed(value));
        }
        let kept = fields.kept_headers.iter().find(|(kept, _)| kept == name);
        kept.map(|(_, value)| Cow::Borrowed(value.as_str()))
    }
}

impl AttributeSource for TcpView<'_> {
    fn attribute(&self, attribute: Attribute) -> Option<Value<'_>> {
        let record = self.0;
        match attribute {
            Attribute::RequestTime => began(record.connection().accepted.elapsed()),
            Attribute::RequestDuration => {
                nanoseconds(record.connection().accepted.elapsed()).map(Value::Duration)
            }
            Attribute::RequestSize | Attribute::RequestTotalSize => count(record.bytes_received),
            Attribute::ResponseSize | Attribute::ResponseTotalSize => count(record.bytes_sent),
            Attribute::ResponseFlags => Some(Value::Int(bits(record.flag))),
            Attribute::ConnectionTerminationDetails => text(&record.details),
            Attribute::UpstreamAddress => address(record.upstream?),
            Attribute::UpstreamPort => port(record.upstream?),
            Attribute::UpstreamTransportFailureReason => text(&record.transport_failure),
            Attribute::ClusterName => text(&record.destination.as_ref()?.cluster),
            other => of_connection(record.connection(), other),
        }
    }

    fn request_header(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}
