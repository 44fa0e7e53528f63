//! One look for many who ask the same thing at once. A look serves those who asked before it began, and
//! nobody else: whoever comes while one is under way waits for the next. So an answer is never older than
//! its question (a revoked token opens nothing from the next request on), and a client with many
//! connections costs PostgreSQL one query at a time.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use model::Result;

/// Looks under way, by what is asked.
pub(crate) struct Together<K, V>(Mutex<HashMap<K, Arc<Question<V>>>>);

struct Question<V> {
    /// How often it was asked.
    asked: AtomicU64,
    /// The last look: how often it had been asked when it began, and the answer. Held by who looks.
    last: tokio::sync::Mutex<Option<(u64, Result<V>)>>,
}

impl<K, V> Default for Together<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, V> std::fmt::Debug for Together<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Together")
    }
}

/// Forgets the question with the last who asks it, also one who left in the middle.
struct Asking<'a, K: Eq + Hash, V> {
    all: &'a Together<K, V>,
    key: K,
    question: Arc<Question<V>>,
}

impl<K: Eq + Hash, V> Drop for Asking<'_, K, V> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and ours.
        if Arc::strong_count(&self.question) <= 2 {
            all.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Together<K, V> {
    /// The answer to `key`, by `look` or by the look of somebody who asked the same. A look is told for
    /// how many it is.
    ///
    /// # Errors
    /// That look's.
    pub(crate) async fn ask<F: Future<Output = Result<V>>>(&self, key: K, look: impl FnOnce(u64) -> F) -> Result<V> {
        let question = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Question { asked: AtomicU64::new(0), last: tokio::sync::Mutex::new(None) });
            all.entry(key.clone()).or_insert_with(new).clone()
        };
        let asking = Asking { all: self, key, question };
        let mine = asking.question.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last = asking.question.last.lock().await;
        if let Some((_, answer)) = last.as_ref().filter(|(began, _)| *began >= mine) {
            return answer.clone();
        }
        let began = asking.question.asked.load(Ordering::SeqCst);
        let before = last.as_ref().map_or(0, |(began, _)| *began);
        let answer = look(began - before).await;
        *last = Some((began, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU32, time::Duration};

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_share_looks_that_began_after_they_asked() {
        let (together, looks) = (Arc::new(Together::<u8, u32>::default()), Arc::new(AtomicU32::new(0)));
        let ask = |together: Arc<Together<u8, u32>>, looks: Arc<AtomicU32>| async move {
            let before = looks.load(Ordering::SeqCst);
            let answer = together
                .ask(1, |_| async {
                    let number = looks.fetch_add(1, Ordering::SeqCst) + 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    Ok(number)
                })
                .await
                .expect("answers");
            assert!(answer > before, "an answer older than the question: {answer} after {before}");
        };
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..64 {
            tasks.spawn(ask(together.clone(), looks.clone()));
            if n % 16 == 15 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        tasks.join_all().await;
        assert!(looks.load(Ordering::SeqCst) <= 8, "{looks:?} looks for 64 questions");
        assert!(together.0.lock().expect("not poisoned").is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn one_who_leaves_in_the_middle_leaves_the_look_to_the_next() {
        let together = Arc::new(Together::<u8, u8>::default());
        let gone = together.ask(1, |_| std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(10), gone).await.is_err());
        assert!(together.0.lock().expect("not poisoned").is_empty());
        assert_eq!(together.ask(1, |_| async { Ok(7) }).await, Ok(7));
    }

    #[tokio::test]
    async fn looks_know_for_how_many_they_are() {
        let together = Together::<u8, u64>::default();
        let for_whom = || {
            together.ask(1, |askers| async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok(askers)
            })
        };
        let got = tokio::join!(for_whom(), for_whom(), for_whom(), for_whom());
        assert_eq!(got, (Ok(1), Ok(3), Ok(3), Ok(3)));
    }

    #[tokio::test]
    async fn questions_do_not_answer_each_other() {
        let together = Together::<u8, u8>::default();
        let (one, two) = tokio::join!(together.ask(1, |_| async { Ok(1) }), together.ask(2, |_| async { Ok(2) }));
        assert_eq!((one, two), (Ok(1), Ok(2)));
    }
}
