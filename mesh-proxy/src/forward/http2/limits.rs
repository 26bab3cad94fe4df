//! What one HTTP/2 peer may ask for, and what happens when it asks for more.
//!
//! Most attacks on HTTP/2 are legal frames in illegal numbers. Those that `h2` counts itself are bounded by
//! its settings below (streams, header lists, CONTINUATION frames, tiny DATA frames, resets before a stream
//! was accepted); what it answers without counting is paid from two purses here: [`Purse::control`] for
//! frames that move no request forward, and [`Purse::resets`] for requests that are taken back at once
//! (CVE-2023-44487). Useful traffic refills both, so a peer that works never runs out.

use std::time::{Duration, Instant};

use h2::{client, server};

use crate::forward::http1::head::HEAD_BYTES_MAX;

/// Streams that a peer may have open on one connection. Envoy's advice for edges is 100; between sidecars one
/// connection carries the calls of a whole workload.
pub const STREAMS_MAX: u32 = 200;
/// Bytes that a peer may send on one stream before they are taken.
pub const STREAM_WINDOW: u32 = 128 * 1024;
/// Bytes that a caller may have on the way on all streams of its connection: sixteen of them may stand still
/// without stopping the others.
pub const CALLER_WINDOW: u32 = 16 * STREAM_WINDOW;
/// The same for an upstream, whose connection is shared by callers that must not be able to stop each other:
/// every stream may stand still.
pub const UPSTREAM_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;
/// Bytes of one stream that are kept for a slow peer; beyond it the other side is not read.
const SEND_BUFFER: usize = 64 * 1024;
/// Largest header list that `h2` reads. It answers a larger one itself, and without a record, so it takes
/// some more than is served, and what lies between is refused by [`super::head`].
const HEADER_LIST_MAX: u32 = 80 * 1024;
const _: () = assert!(HEADER_LIST_MAX as usize > HEAD_BYTES_MAX);
/// Streams reset by the peer before they were accepted (the default of `h2`).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that `h2` resets because the peer broke the protocol on them, before it gives up the connection.
const ERROR_RESETS_MAX: usize = 256;
/// Streams reset by this side that are remembered, so that late frames on them are told from errors.
const REMEMBERED_RESETS: usize = 50;

/// Time within which a request that is taken back counts as taken back at once (as in Envoy).
pub const PREMATURE: Duration = Duration::from_secs(1);

/// Settings towards callers.
#[must_use]
pub fn server() -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CALLER_WINDOW)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .max_concurrent_reset_streams(REMEMBERED_RESETS);
    builder
}

/// Settings towards upstreams.
#[must_use]
pub fn client() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(UPSTREAM_WINDOW)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .max_concurrent_reset_streams(REMEMBERED_RESETS);
    builder
}

/// Why a connection was closed on a peer. Each is a value of the metric's `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Abuse {
    /// More PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM or unknown frames than its traffic explains.
    ControlFrames,
    /// More requests taken back at once than answered.
    RapidReset,
    /// A limit that `h2` counts.
    CodecLimit,
    /// The protocol was broken.
    Protocol,
    /// No preface in time.
    Preface,
}

impl Abuse {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlFrames => "control_frames",
            Self::RapidReset => "rapid_reset",
            Self::CodecLimit => "codec_limit",
            Self::Protocol => "protocol",
            Self::Preface => "preface",
        }
    }
}

/// An allowance that work refills.
#[derive(Debug)]
pub struct Purse {
    left: u32,
    most: u32,
    per_second: u32,
    filled: Instant,
}

impl Purse {
    /// For frames that move no request forward. A client library that measures its bandwidth sends a PING and
    /// a WINDOW_UPDATE with each run of data that it gets, which [`Self::earn`] covers; the rest is for
    /// keep-alives and changed settings.
    #[must_use]
    pub fn control(now: Instant) -> Self {
        Self { left: 1000, most: 1000, per_second: 50, filled: now }
    }

    /// For requests taken back at once. Envoy's limit is 500, when they are more than half of all.
    #[must_use]
    pub fn resets(now: Instant) -> Self {
        Self { left: 500, most: 500, per_second: 50, filled: now }
    }

    /// For requests that were taken back at once from an upstream, on a connection that callers share. It must
    /// run out before the peer's patience does, which begins at a hundred and more (nginx) and at 500 (Envoy, and
    /// [`Self::resets`]), with the requests under way counted in.
    #[must_use]
    pub fn shared_resets(now: Instant) -> Self {
        Self { left: 100, most: 100, per_second: 25, filled: now }
    }

    /// Pays for one; false when nothing is left. The clock is asked only when the purse is empty.
    #[must_use]
    pub fn pay(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left == 0 {
            let now = now();
            let elapsed = now.saturating_duration_since(self.filled).as_millis();
            let earned = elapsed.saturating_mul(u128::from(self.per_second)) / 1000;
            if earned == 0 {
                return false;
            }
            self.filled = now;
            self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
        }
        self.left -= 1;
        true
    }

    /// Refills it for work done.
    pub fn earn(&mut self, amount: u32) {
        self.left = self.left.saturating_add(amount).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purse_runs_out_and_time_refills_it_within_its_bound() {
        let start = Instant::now();
        let mut purse = Purse::control(start);
        let payments = (0..5000).filter(|_| purse.pay(|| start)).count();
        assert_eq!(payments, 1000);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..5000).filter(|_| purse.pay(|| later)).count(), 50);
        let much_later = start + Duration::from_secs(10_000);
        assert_eq!((0..5000).filter(|_| purse.pay(|| much_later)).count(), 1000);
    }

    #[test]
    fn work_pays() {
        let start = Instant::now();
        let mut purse = Purse::resets(start);
        for _ in 0..5000 {
            assert!(purse.pay(|| start));
            purse.earn(1);
        }
    }
}
