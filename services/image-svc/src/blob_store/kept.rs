//! Who is at work with a blob. Work keeps a digest, any number at a time; whoever removes one has it
//! alone. Nobody waits for work to end: a blob that is kept is simply not removed now.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::Digest;
use tokio::sync::Notify;

/// All of this process, which has the directory to itself.
#[derive(Debug, Default)]
pub(super) struct InUse {
    digests: Mutex<HashMap<Digest, Use>>,
    removed: Notify,
}

#[derive(Debug)]
enum Use {
    /// By so many.
    Kept(usize),
    Condemned,
}

/// As long as it lives, these blobs are not removed.
#[derive(Debug)]
pub(crate) struct Kept {
    of: Arc<InUse>,
    digests: Vec<Digest>,
}

/// As long as it lives, nobody begins to work with this blob.
#[derive(Debug)]
pub(crate) struct Condemned {
    of: Arc<InUse>,
    digest: Digest,
}

impl InUse {
    /// Keeps digests, whether there are such blobs or not; waits for those that are being removed.
    pub(super) async fn keep(self: &Arc<Self>, digests: Vec<Digest>) -> Kept {
        let mut kept = Kept { of: self.clone(), digests: Vec::new() };
        for digest in digests {
            loop {
                let removed = self.removed.notified();
                tokio::pin!(removed);
                removed.as_mut().enable();
                if self.try_keep(&digest) {
                    break;
                }
                removed.await;
            }
            kept.digests.push(digest);
        }
        kept
    }

    /// Takes a digest for its removal, if nobody keeps it.
    pub(super) fn condemn(self: &Arc<Self>, digest: &Digest) -> Option<Condemned> {
        match self.digests().entry(digest.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(Use::Condemned);
                Some(Condemned { of: self.clone(), digest: digest.clone() })
            }
        }
    }

    /// What is kept now.
    pub(super) fn kept(&self) -> Vec<Digest> {
        let digests = self.digests();
        digests.iter().filter(|(_, one)| matches!(one, Use::Kept(_))).map(|(digest, _)| digest.clone()).collect()
    }

    fn try_keep(&self, digest: &Digest) -> bool {
        match self.digests().entry(digest.clone()).or_insert(Use::Kept(0)) {
            Use::Kept(by) => {
                *by += 1;
                true
            }
            Use::Condemned => false,
        }
    }

    fn digests(&self) -> MutexGuard<'_, HashMap<Digest, Use>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut digests = self.of.digests();
        for digest in &self.digests {
            let last = match digests.get_mut(digest) {
                Some(Use::Kept(by)) => {
                    *by -= 1;
                    *by == 0
                }
                Some(Use::Condemned) | None => false,
            };
            if last {
                digests.remove(digest);
            }
        }
    }
}

impl Condemned {
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Drop for Condemned {
    fn drop(&mut self) {
        self.of.digests().remove(&self.digest);
        self.of.removed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob_store::digest_of;

    #[tokio::test]
    async fn what_is_kept_is_not_removed_and_what_is_being_removed_is_waited_for() {
        let all = Arc::new(InUse::default());
        let digest = digest_of(b"x");
        let (one, two) = (all.keep(vec![digest.clone()]).await, all.keep(vec![digest.clone(), digest.clone()]).await);
        assert!(all.condemn(&digest).is_none());
        drop(two);
        assert!(all.condemn(&digest).is_none(), "one keeps it still");
        assert_eq!(all.kept(), std::slice::from_ref(&digest));
        drop(one);
        let removal = all.condemn(&digest).expect("nobody keeps it");
        assert!(all.condemn(&digest).is_none(), "one removes it");
        assert!(all.kept().is_empty());
        let later = tokio::spawn({
            let (all, digest) = (all.clone(), digest.clone());
            async move { all.keep(vec![digest]).await }
        });
        tokio::task::yield_now().await;
        assert!(!later.is_finished(), "it is being removed");
        drop(removal);
        let kept = later.await.expect("kept");
        assert!(all.condemn(&digest).is_none());
        drop(kept);
        assert!(all.digests().is_empty(), "nothing is remembered of what is over");
    }
}
