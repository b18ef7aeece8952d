//! A bounded pool of send buffers: a fan-out to thousands of miners allocates nothing.

/// Capacity in bytes above which a buffer is freed instead of kept. A job with its path and
/// coinbase is well under it; only a rare large write allocates.
pub const SEND_BUFFER_KEPT_BYTES_MAX: usize = 16 * 1024;

/// Empty vectors that have been sent before.
#[derive(Debug)]
pub struct SendPool {
    kept: Vec<Vec<u8>>,
    kept_max: usize,
}

impl SendPool {
    pub fn new(kept_max: usize) -> SendPool {
        SendPool { kept: Vec::new(), kept_max }
    }

    pub fn take(&mut self) -> Vec<u8> {
        self.kept.pop().unwrap_or_default()
    }

    pub fn put(&mut self, mut bytes: Vec<u8>) {
        let is_worth_keeping =
            bytes.capacity() > 0 && bytes.capacity() <= SEND_BUFFER_KEPT_BYTES_MAX;
        if is_worth_keeping && self.kept.len() < self.kept_max {
            bytes.clear();
            self.kept.push(bytes);
        }
    }

    pub fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_are_cleared_bounded_and_small() {
        let mut pool = SendPool::new(2);
        pool.put(Vec::new());
        pool.put(vec![1; SEND_BUFFER_KEPT_BYTES_MAX + 1]);
        assert_eq!(pool.len(), 0);
        for _ in 0..5 {
            pool.put(vec![1; 100]);
        }
        assert_eq!(pool.len(), 2);
        let taken = pool.take();
        assert!(taken.is_empty() && taken.capacity() >= 100);
        pool.take();
        assert_eq!(pool.take().capacity(), 0);
    }
}
