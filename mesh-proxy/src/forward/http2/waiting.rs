//! The client of a stream that is still being judged: its body can be read ahead of forwarding, and whether it
//! still wants its answer can be seen.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;

use super::pipe::Pipe;
use crate::ext_authz::{Client, Held};
use crate::respond::Refusal;

/// The client.
#[derive(Debug)]
pub struct Waiting<'a> {
    upload: &'a mut Pipe,
    respond: &'a mut SendResponse<Bytes>,
    stated: Option<u64>,
    patience: Duration,
}

impl<'a> Waiting<'a> {
    /// The client of a request whose head states that length of its body, and which may take `patience` to
    /// send what is asked of it.
    #[must_use]
    pub fn new(
        upload: &'a mut Pipe,
        respond: &'a mut SendResponse<Bytes>,
        stated: Option<u64>,
        patience: Duration,
    ) -> Self {
        Self { upload, respond, stated, patience }
    }
}

impl Client for Waiting<'_> {
    fn stated_length(&self) -> Option<u64> {
        if self.upload.is_empty() { Some(0) } else { self.stated }
    }

    async fn hold(&mut self, limit: usize) -> Result<Held, Refusal> {
        let mut bytes = Vec::new();
        match tokio::time::timeout(self.patience, self.upload.hold(limit, &mut bytes)).await {
            Ok(Ok(is_whole)) => Ok(Held { bytes, is_whole }),
            Ok(Err(_)) => Err(Refusal::Abandoned),
            Err(_) => Err(Refusal::BodyTimeout),
        }
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.respond.poll_reset(context).map(drop)
    }
}
