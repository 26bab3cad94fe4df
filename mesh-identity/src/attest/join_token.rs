//! One-time tokens: each is good for one first certificate of one SPIFFE id, for a short while.
//!
//! The first redemption binds a token to the public key of its request. The same key may come again until the
//! token expires: its answer may have been lost on the way, and whoever holds the key gets nothing that it was
//! not given before. Any other key is refused.
//!
//! Only the SHA-256 of a token is kept, so that the state on disk admits nobody, and a look-up compares
//! digests: what its timing tells about a digest does not help to find a token of 256 random bits. A used
//! token stays known as used until it would have expired, for a clear answer to whoever replays it.
//!
//! The caller persists [`JoinTokens::state`] after each redemption and *before* it answers; then a restart
//! never makes a used token good again.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh_api::name::SpiffeId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::certificate::hex;

/// Begins every token, so that a secret scanner and a person can tell what it is.
const PREFIX: &str = "mmjoin_";
/// Random octets in a token.
const SECRET_BYTES: usize = 32;
/// Longest text that is hashed at all, in bytes.
const TOKEN_BYTES_MAX: usize = 128;
/// Most tokens that are known at once, used ones included: about 3 MB of state.
const TOKENS_MAX: usize = 10_000;
/// Longest life of a token.
const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why no token was issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueTokenError {
    /// The lifetime is zero or too long.
    #[error("a join token lives for up to 7 days, not for {ttl:?}")]
    Ttl {
        /// Asked for.
        ttl: Duration,
    },
    /// Too many tokens are outstanding.
    #[error("{TOKENS_MAX} join tokens are outstanding already")]
    TooMany,
    /// The random source failed.
    #[error("the random source failed")]
    Random,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedeemError {
    /// Never issued, or forgotten after its end.
    #[error("the token is not known")]
    Unknown,
    /// It was used before, for another key.
    #[error("the token has been used with another key")]
    Used,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

/// Tokens that were issued and have not expired.
#[derive(Debug, Default)]
pub struct JoinTokens {
    /// By SHA-256 of the token, lower-case hex.
    known: BTreeMap<String, Entry>,
}

/// The state of [`JoinTokens`] for the caller to keep. Holds no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinTokensState {
    tokens: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: SpiffeId,
    /// Milliseconds of the Unix epoch.
    expires_unix_ms: u64,
    is_used: bool,
    /// SHA-256 of the public key that it was used for, lower-case hex. A used token without one is good for
    /// nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_by: Option<String>,
}

impl JoinTokens {
    /// Takes up a kept state.
    #[must_use]
    pub fn restore(state: JoinTokensState) -> Self {
        Self { known: state.tokens }
    }

    /// The state to keep.
    #[must_use]
    pub fn state(&self) -> JoinTokensState {
        JoinTokensState { tokens: self.known.clone() }
    }

    /// Issues a token for `id` that is good until `now + ttl`. The text is a secret and is not kept here.
    ///
    /// # Errors
    /// When the lifetime is out of bounds, too many tokens are outstanding, or the random source fails.
    pub fn issue(&mut self, id: SpiffeId, ttl: Duration, now: SystemTime) -> Result<String, IssueTokenError> {
        if ttl.is_zero() || ttl > TTL_MAX {
            return Err(IssueTokenError::Ttl { ttl });
        }
        self.forget_expired(now);
        if self.known.len() >= TOKENS_MAX {
            return Err(IssueTokenError::TooMany);
        }
        let mut secret = [0; SECRET_BYTES];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| IssueTokenError::Random)?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
        let entry = Entry { id, expires_unix_ms: unix_ms(now + ttl), is_used: false, used_by: None };
        self.known.insert(digest(&token), entry);
        Ok(token)
    }

    /// Uses a token up for a public key (as DER, whose holder has proven that it holds the private one) and says
    /// whose it is. White space around the token is ignored: it comes from a file.
    ///
    /// # Errors
    /// When the token is not good; the same for every caller and at any later time, but for
    /// [`RedeemError::Used`] and [`RedeemError::Expired`] becoming [`RedeemError::Unknown`] once forgotten.
    pub fn redeem(
        &mut self,
        token: &str,
        public_key: &[u8],
        now: SystemTime,
    ) -> Result<SpiffeId, RedeemError> {
        let token = token.trim();
        if token.len() > TOKEN_BYTES_MAX || !token.starts_with(PREFIX) {
            return Err(RedeemError::Unknown);
        }
        let entry = self.known.get_mut(&digest(token)).ok_or(RedeemError::Unknown)?;
        let key = hex(&Sha256::digest(public_key));
        if entry.is_used && entry.used_by.as_ref() != Some(&key) {
            return Err(RedeemError::Used);
        }
        if unix_ms(now) >= entry.expires_unix_ms {
            return Err(RedeemError::Expired);
        }
        entry.is_used = true;
        entry.used_by = Some(key);
        Ok(entry.id.clone())
    }

    /// Number of tokens that can still be redeemed.
    #[must_use]
    pub fn outstanding(&self, now: SystemTime) -> usize {
        let now = unix_ms(now);
        self.known.values().filter(|entry| !entry.is_used && now < entry.expires_unix_ms).count()
    }

    /// Forgets tokens that have expired, used or not. A clock that jumps back does not revive them.
    fn forget_expired(&mut self, now: SystemTime) {
        let now = unix_ms(now);
        self.known.retain(|_, entry| now < entry.expires_unix_ms);
    }
}

fn digest(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Stand for the public keys of two workloads.
    const KEY: &[u8] = b"one key";
    const OTHER: &[u8] = b"another key";
    const MINUTE: Duration = Duration::from_secs(60);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn id() -> SpiffeId {
        SpiffeId::parse("spiffe://cluster.local/ns/web/sa/frontend").expect("valid")
    }

    #[test]
    fn a_token_is_good_once_and_for_its_id() {
        let mut tokens = JoinTokens::default();
        let token = tokens.issue(id(), MINUTE, now()).expect("issued");
        assert_eq!(tokens.redeem(&format!("{token}\n"), KEY, now()), Ok(id()));
        assert_eq!(tokens.redeem(&token, OTHER, now()), Err(RedeemError::Used));
    }

    #[test]
    fn a_lost_answer_does_not_cost_the_token_of_the_same_key() {
        let mut tokens = JoinTokens::default();
        let token = tokens.issue(id(), MINUTE, now()).expect("issued");
        for _ in 0..3 {
            assert_eq!(tokens.redeem(&token, KEY, now()), Ok(id()));
            assert_eq!(tokens.redeem(&token, OTHER, now()), Err(RedeemError::Used));
            tokens = JoinTokens::restore(tokens.state());
        }
        assert_eq!(tokens.outstanding(now()), 0);
        assert_eq!(tokens.redeem(&token, KEY, now() + MINUTE), Err(RedeemError::Expired));
    }

    #[test]
    fn a_token_used_before_its_key_was_kept_is_good_for_nobody() {
        let mut tokens = JoinTokens::default();
        let token = tokens.issue(id(), MINUTE, now()).expect("issued");
        let kept = serde_json::to_string(&tokens.state()).expect("encodes").replace("false", "true");
        let mut restored = JoinTokens::restore(serde_json::from_str(&kept).expect("decodes"));
        assert_eq!(restored.redeem(&token, KEY, now()), Err(RedeemError::Used));
    }

    #[test]
    fn a_token_ends_with_its_time() {
        let mut tokens = JoinTokens::default();
        let token = tokens.issue(id(), MINUTE, now()).expect("issued");
        assert_eq!(tokens.redeem(&token, KEY, now() + MINUTE), Err(RedeemError::Expired));
        let token = tokens.issue(id(), MINUTE, now()).expect("issued");
        assert_eq!(tokens.redeem(&token, KEY, now() + MINUTE - Duration::from_millis(1)), Ok(id()));
    }

    #[test]
    fn a_used_token_stays_used_after_a_restart() {
        let mut tokens = JoinTokens::default();
        let (used, fresh) = (
            tokens.issue(id(), MINUTE, now()).expect("issued"),
            tokens.issue(id(), MINUTE, now()).expect("issued"),
        );
        tokens.redeem(&used, KEY, now()).expect("good");
        let kept = serde_json::to_string(&tokens.state()).expect("encodes");
        assert!(!kept.contains(&fresh) && !kept.contains(&fresh[PREFIX.len()..]), "the state holds a secret");
        let mut restored = JoinTokens::restore(serde_json::from_str(&kept).expect("decodes"));
        assert_eq!(restored.redeem(&used, OTHER, now()), Err(RedeemError::Used));
        assert_eq!(restored.redeem(&fresh, KEY, now()), Ok(id()));
    }

    #[test]
    fn the_number_of_tokens_is_bounded_and_expired_ones_make_room() {
        let mut tokens = JoinTokens::default();
        for _ in 0..TOKENS_MAX {
            tokens.issue(id(), MINUTE, now()).expect("issued");
        }
        assert_eq!(tokens.issue(id(), MINUTE, now()), Err(IssueTokenError::TooMany));
        assert!(tokens.issue(id(), MINUTE, now() + MINUTE).is_ok());
        assert_eq!(tokens.outstanding(now()), 1);
    }

    #[test]
    fn lifetimes_out_of_bounds_are_refused() {
        for ttl in [Duration::ZERO, TTL_MAX + Duration::from_secs(1)] {
            assert_eq!(JoinTokens::default().issue(id(), ttl, now()), Err(IssueTokenError::Ttl { ttl }));
        }
    }

    proptest! {
        #[test]
        fn what_was_not_issued_is_unknown(text in "(mmjoin_)?[A-Za-z0-9_-]{0,200}") {
            let mut tokens = JoinTokens::default();
            tokens.issue(id(), MINUTE, now()).expect("issued");
            prop_assert_eq!(tokens.redeem(&text, KEY, now()), Err(RedeemError::Unknown));
        }
    }
}
