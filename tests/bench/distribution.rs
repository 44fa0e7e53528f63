//! Rows of the registry: what many clients read at once, what one reads fast, what one pushes.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    registries::{Registry, sha256},
    rows::Scale,
    sample::Sample,
    table::{self, Figure, Target},
};

/// A measurement of registries.
pub(crate) struct Row {
    /// What it is asked for by.
    pub(crate) name: &'static str,
    /// Measures all of them and prints.
    pub(crate) run: fn(&[&Registry], Scale),
}

/// All of them.
pub(crate) const ROWS: [Row; 4] = [
    Row { name: "manifest-get", run: manifests },
    Row { name: "blob-get", run: blob },
    Row { name: "push-image", run: push_image },
    Row { name: "push-small", run: push_small },
];

const CONNECTIONS: usize = 16;
/// Uploads that docker has in flight.
const UPLOADS: usize = 5;
const LOAD: Duration = Duration::from_secs(2);
const BLOB_BYTES: usize = 47_000_000;

/// Bytes that nobody has stored yet and that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = Instant::now().elapsed().subsec_nanos() as u64 ^ u64::from(std::process::id()) << 32;
    static SALT: AtomicU64 = AtomicU64::new(1);
    state = state.wrapping_add(SALT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut content = vec![0; bytes.next_multiple_of(8)];
    for word in content.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
    content.truncate(bytes);
    content
}

/// Rates of several rounds: the median, and the best.
fn rate(mut rates: Vec<f64>) -> Figure {
    rates.sort_by(f64::total_cmp);
    let (median, best) = (rates[rates.len() / 2], rates[rates.len() - 1]);
    Figure { text: format!("{median:.0} / {best:.0}"), value: median, best: Some(best) }
}

/// Rounds of all registries in turn.
fn interleave<T>(peers: &[&Registry], rounds: usize, mut work: impl FnMut(&Registry) -> T) -> Vec<Vec<T>> {
    let mut results: Vec<Vec<T>> = peers.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (peer, results) in peers.iter().zip(&mut results) {
            thread::sleep(Duration::from_millis(120));
            results.push(work(peer));
        }
    }
    results
}

fn manifests(peers: &[&Registry], scale: Scale) {
    for peer in peers {
        let (mut wire, layer) = (peer.wire(), noise(1_000));
        let digest = sha256(&layer);
        peer.push_blob(&mut wire, &layer, &digest, true);
        // As long as one of an image with ten layers.
        let layers = vec![(digest, layer.len()); 10];
        peer.push_manifest(&mut wire, "read", &layers);
    }
    let results = interleave(peers, scale.registry_rounds, |peer| {
        let (path, done, began) = (peer.path("manifests/read"), AtomicUsize::new(0), Instant::now());
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    let mut wire = peer.wire();
                    let mut buffer = vec![0; 8 << 10];
                    while began.elapsed() < LOAD {
                        let accept = "Accept: application/vnd.oci.image.manifest.v1+json\r\n";
                        let head = wire.exchange("GET", &path, accept, b"");
                        assert_eq!(head.status, 200, "{}: a manifest", peer.name);
                        wire.drain(&head, &mut buffer);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
    });
    let what = "manifest by tag over 16 connections (ours with authorization), GET/s p50 / best";
    table::row(what, &results.into_iter().map(rate).collect::<Vec<_>>(), Target::AtLeast(8.0));
}

fn blob(peers: &[&Registry], scale: Scale) {
    let content = noise(BLOB_BYTES);
    let digest = sha256(&content);
    for peer in peers {
        let mut wire = peer.wire();
        peer.push_blob(&mut wire, &content, &digest, false);
        peer.push_manifest(&mut wire, "blob", &[(digest.clone(), content.len())]);
    }
    let mut buffer = vec![0; 1 << 20];
    let results = interleave(peers, scale.rounds * 2, |peer| {
        let (mut wire, path) = (peer.wire(), peer.path(&format!("blobs/{digest}")));
        let began = Instant::now();
        let head = wire.exchange("GET", &path, "", b"");
        assert_eq!((head.status, wire.drain(&head, &mut buffer)), (200, BLOB_BYTES), "{}: a blob", peer.name);
        BLOB_BYTES as f64 / 1e6 / began.elapsed().as_secs_f64()
    });
    let what = "blob of 47 MB, one at a time (ours with authorization), MB/s p50 / best";
    table::row(what, &results.into_iter().map(rate).collect::<Vec<_>>(), Target::AtLeast(1.0));
}

/// Pushes blobs, so many at a time; milliseconds.
fn push(peer: &Registry, blobs: &[(String, Vec<u8>)], in_flight: usize, tag: &str, whole: bool) -> f64 {
    let (next, began) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..in_flight {
            scope.spawn(|| {
                let mut wire = peer.wire();
                while let Some((digest, content)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    peer.push_blob(&mut wire, content, digest, whole);
                }
            });
        }
    });
    let layers: Vec<(String, usize)> = blobs.iter().map(|(digest, content)| (digest.clone(), content.len())).collect();
    peer.push_manifest(&mut peer.wire(), tag, &layers);
    began.elapsed().as_secs_f64() * 1_000.0
}

fn pushes(
    peers: &[&Registry],
    (stem, rounds): (&str, usize),
    shape: (usize, usize),
    in_flight: usize,
    whole: bool,
) -> Vec<Figure> {
    let (count, bytes) = shape;
    let mut turn = 0;
    let results = interleave(peers, rounds, |peer| {
        turn += 1;
        // New each time: what is there is not pushed.
        let blobs: Vec<(String, Vec<u8>)> = (0..count)
            .map(|_| {
                let content = noise(bytes);
                (sha256(&content), content)
            })
            .collect();
        // What was written before is not this round's to wait for.
        nix::unistd::sync();
        push(peer, &blobs, in_flight, &format!("{stem}-{turn}"), whole)
    });
    let sample = |times: Vec<f64>| {
        let mut sample = Sample::default();
        times.into_iter().for_each(|ms| sample.push_ms(ms));
        Figure::from(sample)
    };
    results.into_iter().map(sample).collect()
}

fn push_image(peers: &[&Registry], scale: Scale) {
    const LAYER: usize = 16 << 20;
    let layers = scale.image_bytes / LAYER;
    let what = format!("push of an image of {layers} layers, 16 MiB each, 5 at a time, ms p50 / min");
    let figures = pushes(peers, ("image", scale.registry_rounds), (layers, LAYER), UPLOADS, false);
    // One and a half times as fast.
    table::row(&what, &figures, Target::AtMost(0.67));
}

fn push_small(peers: &[&Registry], scale: Scale) {
    let what = format!("push of {} blobs of 2 kB, 16 at a time, ms p50 / min", scale.small_blobs);
    let figures = pushes(peers, ("small", scale.registry_rounds), (scale.small_blobs, 2_000), CONNECTIONS, true);
    table::row(&what, &figures, Target::AtMost(0.67));
}
