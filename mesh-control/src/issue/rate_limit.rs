//! Token buckets by key, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// Most keys that are remembered. A full table forgets the keys that have not been seen for longest in
/// effect: those whose bucket is full again.
const KEYS_MAX: usize = 20_000;

/// How much is allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// At once.
    pub burst: f64,
    /// In the long run.
    pub per_second: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    at: Instant,
}

/// A limiter.
#[derive(Debug)]
pub struct RateLimiter<K> {
    limit: Limit,
    buckets: HashMap<K, Bucket>,
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// An unused limiter.
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        Self { limit, buckets: HashMap::new() }
    }

    /// Takes one from the bucket of `key`; `false` when it is empty, or when so many keys are active that no
    /// further one can be followed.
    pub fn take(&mut self, key: K, now: Instant) -> bool {
        if !self.buckets.contains_key(&key) && self.buckets.len() >= KEYS_MAX {
            let limit = self.limit;
            self.buckets.retain(|_, bucket| level(limit, bucket, now) < limit.burst);
            if self.buckets.len() >= KEYS_MAX {
                return false;
            }
        }
        let full = Bucket { level: self.limit.burst, at: now };
        let bucket = self.buckets.entry(key).or_insert(full);
        bucket.level = level(self.limit, bucket, now);
        bucket.at = now;
        let is_allowed = bucket.level >= 1.0;
        if is_allowed {
            bucket.level -= 1.0;
        }
        is_allowed
    }

    /// Whether [`Self::take`] would succeed.
    #[must_use]
    pub fn has_room(&self, key: &K, now: Instant) -> bool {
        self.buckets.get(key).is_none_or(|bucket| level(self.limit, bucket, now) >= 1.0)
    }
}

fn level(limit: Limit, bucket: &Bucket, now: Instant) -> f64 {
    let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
    (bucket.level + passed * limit.per_second).min(limit.burst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_then_the_rate_holds_for_each_key_alone() {
        let mut limiter = RateLimiter::new(Limit { burst: 3.0, per_second: 1.0 });
        let now = Instant::now();
        assert!((0..3).all(|_| limiter.take("a", now)));
        assert!(!limiter.take("a", now));
        assert!(limiter.take("b", now));
        assert!(limiter.take("a", now + Duration::from_secs(1)));
        assert!(!limiter.take("a", now + Duration::from_secs(1)));
    }

    #[test]
    fn memory_is_bounded_and_idle_keys_make_room() {
        let mut limiter = RateLimiter::new(Limit { burst: 2.0, per_second: 1.0 });
        let now = Instant::now();
        for key in 0..KEYS_MAX {
            assert!(limiter.take(key, now));
        }
        assert!(!limiter.take(KEYS_MAX, now), "a further key was followed");
        assert!(limiter.take(KEYS_MAX, now + Duration::from_secs(2)));
    }
}
