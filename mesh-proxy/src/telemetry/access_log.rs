//! The access log: one line per record, written by a thread of its own.
//!
//! A worker appends lines to a buffer of its own and hands full buffers to the writer's bounded queue; it
//! never waits. When the writer cannot keep up (a full disk, a stalled pipe), buffers are dropped and their
//! lines counted: requests go on. Text that a client chose is escaped, so a line is always one line
//! (CVE-2024-45808 was an unescaped request header in this place).

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use mesh_api::model::AccessLogFormat;

use super::record::{HttpFields, TcpRecord};
use crate::connection::{Connection, Direction};

/// Size at which a worker hands its buffer to the writer, in bytes.
const BUFFER_BYTES: usize = 32 * 1024;
/// Buffers that may wait for the writer: 2 MiB of log, about 4,000 records.
const BUFFERS_MAX: usize = 64;
/// Longest time that a line stays in a worker's buffer.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// No file is written, whatever format configuration names.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to. It may be truncated by others while open.
    File(PathBuf),
}

impl AccessLogTarget {
    /// Parses `off`, `stdout` (or `-`, `/dev/stdout`), `stderr` (or `/dev/stderr`) or a path.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "off" | "" => Self::Off,
            "stdout" | "-" | "/dev/stdout" => Self::Stdout,
            "stderr" | "/dev/stderr" => Self::Stderr,
            path => Self::File(PathBuf::from(path)),
        }
    }
}

/// Why the access log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenAccessLogError {
    /// The file cannot be opened for appending.
    #[error("cannot open access log {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The writer's thread cannot be started.
    #[error("cannot start the access log's thread")]
    Thread(#[source] io::Error),
}

/// The queue to the writer.
#[derive(Debug, Clone)]
pub struct AccessLog {
    queue: Option<SyncSender<Vec<u8>>>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// A log that writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self { queue: None, dropped: Arc::default() }
    }

    /// A log whose buffers a test takes itself.
    #[cfg(test)]
    pub(super) fn into_queue() -> (Self, Receiver<Vec<u8>>) {
        let (queue, full) = sync_channel(BUFFERS_MAX);
        (Self { queue: Some(queue), dropped: Arc::default() }, full)
    }

    /// Opens the target and starts the writer's thread, which ends when the last handle is dropped.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not started.
    pub fn open(target: &AccessLogTarget) -> Result<Self, OpenAccessLogError> {
        let sink: Box<dyn io::Write + Send> = match target {
            AccessLogTarget::Off => return Ok(Self::off()),
            AccessLogTarget::Stdout => Box::new(io::stdout()),
            AccessLogTarget::Stderr => Box::new(io::stderr()),
            AccessLogTarget::File(path) => Box::new(open_for_append(path)?),
        };
        let (queue, full) = sync_channel(BUFFERS_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(sink, &full, &counted))
            .map_err(OpenAccessLogError::Thread)?;
        Ok(Self { queue: Some(queue), dropped })
    }

    /// Whether lines go anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Lines lost since start because the writer could not keep up or the target refused them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn send(&self, buffer: Vec<u8>) {
        let Some(queue) = &self.queue else { return };
        if let Err(refused) = queue.try_send(buffer) {
            let (std::sync::mpsc::TrySendError::Full(buffer)
            | std::sync::mpsc::TrySendError::Disconnected(buffer)) = refused;
            count_lost(&self.dropped, &buffer);
        }
    }
}

fn open_for_append(path: &Path) -> Result<std::fs::File, OpenAccessLogError> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| OpenAccessLogError::File { path: path.to_owned(), source })
}

fn count_lost(dropped: &AtomicU64, buffer: &[u8]) {
    let lines = buffer.iter().filter(|byte| **byte == b'\n').count();
    dropped.fetch_add(lines as u64, Ordering::Relaxed);
    metrics::counter!(super::metrics::ACCESS_LOG_DROPPED).increment(lines as u64);
}

fn write_all(mut sink: Box<dyn io::Write + Send>, full: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
    while let Ok(buffer) = full.recv() {
        if sink.write_all(&buffer).and_then(|()| sink.flush()).is_err() {
            count_lost(dropped, &buffer);
        }
    }
}

/// One worker's buffer in front of the queue.
#[derive(Debug)]
pub struct WorkerLog {
    log: AccessLog,
    pending: RefCell<Vec<u8>>,
}

impl WorkerLog {
    /// A buffer in front of `log`.
    #[must_use]
    pub fn new(log: AccessLog) -> Self {
        Self { log, pending: RefCell::default() }
    }

    /// Whether lines go anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.log.is_on()
    }

    /// Lets `write` append one line, and hands the buffer on when it is full.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut pending = self.pending.borrow_mut();
        write(&mut pending);
        if pending.len() >= BUFFER_BYTES {
            let full = std::mem::replace(&mut *pending, Vec::with_capacity(BUFFER_BYTES + 1024));
            self.log.send(full);
        }
    }

    /// Hands on what is buffered. Called every [`FLUSH_INTERVAL`] and when the worker ends.
    pub fn flush(&self) {
        let mut pending = self.pending.borrow_mut();
        if !pending.is_empty() {
            self.log.send(std::mem::take(&mut *pending));
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Writes an HTTP record as one line.
pub fn write_http(
    line: &mut Vec<u8>,
    format: AccessLogFormat,
    connection: &Connection,
    fields: &HttpFields,
    elapsed: Duration,
    now: SystemTime,
) {
    let start = now.checked_sub(elapsed).unwrap_or(now);
    match format {
        AccessLogFormat::Off => {}
        AccessLogFormat::Json => http_json(line, connection, fields, elapsed, start),
        AccessLogFormat::Text => http_text(line, connection, fields, elapsed, start),
    }
}

/// Writes a byte stream's record as one line.
pub fn write_tcp(line: &mut Vec<u8>, format: AccessLogFormat, record: &TcpRecord, now: SystemTime) {
    let elapsed = record.connection().accepted.elapsed();
    let start = now.checked_sub(elapsed).unwrap_or(now);
    match format {
        AccessLogFormat::Off => {}
        AccessLogFormat::Json => tcp_json(line, record, elapsed, start),
        AccessLogFormat::Text => tcp_text(line, record, elapsed, start),
    }
}

fn http_json(
    line: &mut Vec<u8>,
    connection: &Connection,
    fields: &HttpFields,
    elapsed: Duration,
    start: SystemTime,
) {
    let mut json = JsonLine::begin(line);
    json.time("start_time", start);
    json.text("direction", connection.direction.as_str());
    json.text("method", &fields.method);
    json.text("path", &fields.path);
    if fields.original_path != fields.path {
        json.text("original_path", &fields.original_path);
    }
    json.text("protocol", fields.protocol);
    json.number("response_code", u64::from(fields.status));
    if let Some(status) = fields.grpc_status {
        json.number("grpc_status", u64::from(status));
    }
    json.text("response_flags", fields.flag.as_str());
    json.text("response_code_details", &fields.details);
    json.text("fault_domain", fields.fault.as_str());
    json.number("bytes_received", fields.bytes_received);
    json.number("bytes_sent", fields.bytes_sent);
    json.millis("duration", micros(elapsed));
    if let Some(micros) = fields.upstream_service_micros {
        json.millis("upstream_service_time", micros);
    }
    json.optional("x_forwarded_for", &fields.forwarded_for);
    json.optional("user_agent", &fields.user_agent);
    json.text("request_id", &fields.request_id);
    json.text("authority", &fields.authority);
    json.address("upstream_host", fields.upstream);
    if let Some(destination) = &fields.destination {
        json.text("upstream_cluster", &destination.cluster);
        json.optional("destination_principal", &destination.workload.principal);
        json.optional("destination_service", &destination.service);
        json.optional("destination_workload", &destination.workload.workload);
    }
    json.connection(connection, fields.mutual_tls);
    json.optional("upstream_transport_failure_reason", &fields.transport_failure);
    json.text("route_name", &fields.route);
    json.text("decision", fields.verdict.as_str());
    json.id("decision_id", fields.decision_id);
    json.optional("policy", &fields.policy);
    json.optional("audit", &fields.audit);
    json.optional("reason", &fields.reason);
    if fields.attempts > 1 {
        json.number("attempts", u64::from(fields.attempts));
    }
    json.end();
}

fn tcp_json(line: &mut Vec<u8>, record: &TcpRecord, elapsed: Duration, start: SystemTime) {
    let mut json = JsonLine::begin(line);
    json.time("start_time", start);
    json.text("direction", record.connection().direction.as_str());
    json.text("protocol", "TCP");
    json.number("response_code", 0);
    json.text("response_flags", record.flag.as_str());
    json.text("connection_termination_details", &record.details);
    json.text("fault_domain", record.fault.as_str());
    json.number("bytes_received", record.bytes_received);
    json.number("bytes_sent", record.bytes_sent);
    json.millis("duration", micros(elapsed));
    json.address("upstream_host", record.upstream);
    if let Some(destination) = &record.destination {
        json.text("upstream_cluster", &destination.cluster);
        json.optional("destination_principal", &destination.workload.principal);
        json.optional("destination_service", &destination.service);
        json.optional("destination_workload", &destination.workload.workload);
    }
    json.connection(record.connection(), record.mutual_tls);
    json.optional("upstream_transport_failure_reason", &record.transport_failure);
    json.text("decision", record.verdict.as_str());
    json.id("decision_id", record.decision_id);
    json.optional("policy", &record.policy);
    json.optional("audit", &record.audit);
    json.optional("reason", &record.reason);
    json.end();
}

/// Istio's default text format (SEMANTICS 9.3).
fn http_text(
    line: &mut Vec<u8>,
    connection: &Connection,
    fields: &HttpFields,
    elapsed: Duration,
    start: SystemTime,
) {
    let mut text = TextLine { line };
    text.raw(b"[");
    text.time(start);
    text.raw(b"] \"");
    text.quoted(&fields.method);
    text.raw(b" ");
    text.quoted(&fields.path);
    text.raw(b" ");
    text.raw(fields.protocol.as_bytes());
    text.raw(b"\" ");
    text.number(u64::from(fields.status));
    text.raw(b" ");
    text.raw(fields.flag.as_str().as_bytes());
    text.raw(b" ");
    text.word(&fields.details);
    text.raw(b" - \"");
    text.quoted(&fields.transport_failure);
    text.raw(b"\" ");
    text.number(fields.bytes_received);
    text.raw(b" ");
    text.number(fields.bytes_sent);
    text.raw(b" ");
    text.number(micros(elapsed) / 1000);
    text.raw(b" ");
    match fields.upstream_service_micros {
        Some(micros) => text.number(micros / 1000),
        None => text.raw(b"-"),
    }
    for value in [&fields.forwarded_for, &fields.user_agent, &fields.request_id, &fields.authority] {
        text.raw(b" \"");
        text.quoted(value);
        text.raw(b"\"");
    }
    text.raw(b" \"");
    text.address(fields.upstream);
    text.raw(b"\" ");
    let cluster = fields.destination.as_ref().map_or("", |destination| destination.cluster.as_str());
    text.tail(connection, cluster, &fields.route);
}

fn tcp_text(line: &mut Vec<u8>, record: &TcpRecord, elapsed: Duration, start: SystemTime) {
    let mut text = TextLine { line };
    text.raw(b"[");
    text.time(start);
    text.raw(b"] \"- - -\" 0 ");
    text.raw(record.flag.as_str().as_bytes());
    text.raw(b" - ");
    text.word(&record.details);
    text.raw(b" \"");
    text.quoted(&record.transport_failure);
    text.raw(b"\" ");
    text.number(record.bytes_received);
    text.raw(b" ");
    text.number(record.bytes_sent);
    text.raw(b" ");
    text.number(micros(elapsed) / 1000);
    text.raw(b" - \"-\" \"-\" \"-\" \"-\" \"");
    text.address(record.upstream);
    text.raw(b"\" ");
    let cluster = record.destination.as_ref().map_or("", |destination| destination.cluster.as_str());
    text.tail(record.connection(), cluster, "");
}

/// One JSON object on one line. Keys are constants; values are escaped.
struct JsonLine<'a> {
    line: &'a mut Vec<u8>,
    is_first: bool,
}

impl<'a> JsonLine<'a> {
    fn begin(line: &'a mut Vec<u8>) -> Self {
        line.push(b'{');
        Self { line, is_first: true }
    }

    fn key(&mut self, key: &'static str) {
        if !std::mem::take(&mut self.is_first) {
            self.line.push(b',');
        }
        self.line.push(b'"');
        self.line.extend_from_slice(key.as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    /// A text; an empty one is written as null, as Envoy does.
    fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        if value.is_empty() || value == "-" {
            self.line.extend_from_slice(b"null");
        } else {
            json_string(self.line, value);
        }
    }

    /// A text that is left out when empty.
    fn optional(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    /// The id of a decision, which is left out when there is none.
    fn id(&mut self, key: &'static str, id: u64) {
        if id != 0 {
            self.text(key, &format!("{id:016x}"));
        }
    }

    fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        decimal(self.line, value);
    }

    /// Milliseconds with microseconds as decimals.
    fn millis(&mut self, key: &'static str, micros: u64) {
        self.key(key);
        decimal(self.line, micros / 1000);
        thousandths(self.line, micros % 1000);
    }

    fn time(&mut self, key: &'static str, at: SystemTime) {
        self.key(key);
        self.line.push(b'"');
        write_time(self.line, at);
        self.line.push(b'"');
    }

    fn address(&mut self, key: &'static str, address: Option<SocketAddr>) {
        self.key(key);
        match address {
            None => self.line.extend_from_slice(b"null"),
            Some(address) => {
                self.line.push(b'"');
                write_address(self.line, address);
                self.line.push(b'"');
            }
        }
    }

    fn connection(&mut self, connection: &Connection, mutual_tls: bool) {
        self.address("downstream_remote_address", Some(connection.peer));
        self.address("downstream_local_address", Some(connection.destination));
        self.number("connection_id", connection.id);
        self.text("connection_security_policy", if mutual_tls { "mutual_tls" } else { "none" });
        if let Some(tls) = &connection.tls {
            self.text("source_principal", tls.identity.as_str());
            self.text("requested_server_name", tls.sni.as_deref().unwrap_or(""));
        }
    }

    fn end(self) {
        self.line.extend_from_slice(b"}\n");
    }
}

/// One line of text. Values are escaped so that they cannot end their quotes or their line.
struct TextLine<'a> {
    line: &'a mut Vec<u8>,
}

impl TextLine<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        self.line.extend_from_slice(bytes);
    }

    fn quoted(&mut self, value: &str) {
        if value.is_empty() {
            self.line.push(b'-');
            return;
        }
        for byte in value.bytes() {
            match byte {
                b'"' => self.line.extend_from_slice(b"\\\""),
                b'\\' => self.line.extend_from_slice(b"\\\\"),
                0x20..=0x7e => self.line.push(byte),
                other => {
                    let _infallible = write!(self.line, "\\x{other:02x}");
                }
            }
        }
    }

    /// A value outside quotes: spaces become underscores.
    fn word(&mut self, value: &str) {
        let start = self.line.len();
        self.quoted(value);
        for byte in &mut self.line[start..] {
            if *byte == b' ' {
                *byte = b'_';
            }
        }
    }

    fn number(&mut self, value: u64) {
        decimal(self.line, value);
    }

    fn time(&mut self, at: SystemTime) {
        write_time(self.line, at);
    }

    fn address(&mut self, address: Option<SocketAddr>) {
        match address {
            None => self.line.push(b'-'),
            Some(address) => write_address(self.line, address),
        }
    }

    fn tail(&mut self, connection: &Connection, cluster: &str, route: &str) {
        self.word(cluster);
        self.raw(b" - ");
        self.address(Some(connection.destination));
        self.raw(b" ");
        self.address(Some(connection.peer));
        self.raw(b" ");
        let sni = connection.tls.as_ref().and_then(|tls| tls.sni.as_deref()).unwrap_or("");
        self.word(sni);
        self.raw(b" ");
        let route =
            if route.is_empty() && connection.direction == Direction::Inbound { "default" } else { route };
        self.word(route);
        self.raw(b"\n");
    }
}

/// Appends a JSON string. The common case, text with nothing to escape, is one copy.
fn json_string(line: &mut Vec<u8>, value: &str) {
    line.push(b'"');
    let mut rest = value.as_bytes();
    // Without a branch for each byte, many are looked at in one go.
    if !rest.iter().fold(false, |is_found, &byte| is_found | is_escaped(byte)) {
        line.extend_from_slice(rest);
        line.push(b'"');
        return;
    }
    while let Some(at) = rest.iter().position(|&byte| is_escaped(byte)) {
        let (plain, escaped) = rest.split_at(at);
        line.extend_from_slice(plain);
        match escaped[0] {
            b'"' => line.extend_from_slice(b"\\\""),
            b'\\' => line.extend_from_slice(b"\\\\"),
            other => {
                let _infallible = write!(line, "\\u{other:04x}");
            }
        }
        rest = &escaped[1..];
    }
    line.extend_from_slice(rest);
    line.push(b'"');
}

fn is_escaped(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (byte == 0x7f)
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// Appends a number. A record has about twenty, which the formatter of the standard library would make a
/// tenth of its cost.
fn decimal(line: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = digit(value);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[start..]);
}

/// The last digit of a number.
fn digit(value: u64) -> u8 {
    b"0123456789"[(value % 10) as usize]
}

/// Appends a number below 1000 as three decimals.
fn thousandths(line: &mut Vec<u8>, value: u64) {
    line.extend_from_slice(&[b'.', digit(value / 100), digit(value / 10), digit(value)]);
}

fn write_address(line: &mut Vec<u8>, address: SocketAddr) {
    let SocketAddr::V4(address) = address else {
        let _infallible = write!(line, "{address}");
        return;
    };
    for (at, octet) in address.ip().octets().into_iter().enumerate() {
        if at > 0 {
            line.push(b'.');
        }
        decimal(line, u64::from(octet));
    }
    line.push(b':');
    decimal(line, u64::from(address.port()));
}

thread_local! {
    /// The second last printed and its text: most records of a worker share it.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// ISO 8601 in UTC with milliseconds, as Envoy's `%START_TIME%`.
fn write_time(line: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    SECOND.with_borrow_mut(|(cached, text)| {
        if *cached != second {
            *cached = second;
            *text = Timestamp::from_second(second)
                .unwrap_or(Timestamp::MAX)
                .strftime("%Y-%m-%dT%H:%M:%S")
                .to_string();
        }
        line.extend_from_slice(text.as_bytes());
    });
    thousandths(line, u64::from(since.subsec_millis()));
    line.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_client_cannot_leave_its_json_string() {
        let mut line = Vec::new();
        json_string(&mut line, "a\"b\\c\nd\u{7f}é");
        let read: String = serde_json::from_slice(&line).expect("a JSON string");
        assert_eq!(read, "a\"b\\c\nd\u{7f}é");
        assert!(!line.contains(&b'\n'));
    }

    #[test]
    fn text_of_a_client_cannot_leave_its_quotes_or_line() {
        let mut line = Vec::new();
        TextLine { line: &mut line }.quoted("a\" 200 -\r\n[fake");
        assert_eq!(line, br#"a\" 200 -\x0d\x0a[fake"#);
    }

    #[test]
    fn times_are_iso_8601_with_milliseconds() {
        let mut line = Vec::new();
        write_time(&mut line, SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_042));
        assert_eq!(line, b"2026-01-01T00:00:00.042Z");
    }

    #[test]
    fn numbers_and_addresses_are_written_as_the_standard_library_does() {
        for value in [0, 7, 10, 999, 1_000, 65_535, u64::MAX] {
            let mut line = Vec::new();
            decimal(&mut line, value);
            assert_eq!(line, value.to_string().as_bytes());
        }
        for address in ["0.0.0.0:0", "10.200.3.255:65535", "[2001:db8::1]:80"] {
            let mut line = Vec::new();
            write_address(&mut line, address.parse().expect("an address"));
            assert_eq!(line, address.as_bytes());
        }
    }

    #[test]
    fn a_writer_that_cannot_keep_up_loses_lines_and_counts_them() {
        let (queue, _kept_full) = sync_channel(1);
        let log = AccessLog { queue: Some(queue), dropped: Arc::default() };
        let worker = WorkerLog::new(log.clone());
        for _ in 0..3 {
            worker.line(|line| line.extend_from_slice(b"x\n"));
            worker.flush();
        }
        assert_eq!(log.dropped(), 2);
    }
}
