//! C06 by A02's statistics: how long an answer takes does not say what another project has. Samples of both
//! kinds are taken in turns, and of two taken at random from either, neither may be slower much more often
//! than the other: the area under the curve stays by a half.

use std::time::Instant;

use reqwest::{Method, RequestBuilder};

use super::Repo;
use crate::{
    image::{bytes, sha256},
    stage::Stage,
};

/// How often, of one sample each, the first is the larger. A half: nothing can be told from them.
fn area(first: &[f64], second: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> =
        first.iter().map(|s| (*s, true)).chain(second.iter().map(|s| (*s, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ranks: f64 = all.iter().enumerate().filter(|(_, (_, is_first))| *is_first).map(|(n, _)| n as f64 + 1.0).sum();
    let (n, m) = (first.len() as f64, second.len() as f64);
    (ranks - n * (n + 1.0) / 2.0) / (n * m)
}

async fn time(request: RequestBuilder, status: u16) -> f64 {
    let began = Instant::now();
    let answer = request.send().await.expect("an answer");
    let took = began.elapsed().as_secs_f64();
    assert_eq!(answer.status(), status);
    let _ = answer.bytes().await.expect("a body");
    took
}

/// Samples of two kinds, in turns, the one first as often as the other.
async fn compare(rounds: usize, sample: impl AsyncFn(usize, bool) -> f64) -> f64 {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for n in 0..rounds {
        for is_first in if n % 2 == 0 { [true, false] } else { [false, true] } {
            let took = sample(n, is_first).await;
            if is_first { &mut first } else { &mut second }.push(took);
        }
    }
    area(&first, &second)
}

#[test]
fn the_statistic_tells_what_differs_from_what_does_not() {
    let same: Vec<f64> = (0..1_000).map(f64::from).collect();
    let later: Vec<f64> = same.iter().map(|s| s + 200.0).collect();
    assert!((area(&same, &same) - 0.5).abs() < 0.001);
    assert!(area(&later, &same) > 0.65 && area(&same, &later) < 0.35);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_an_answer_takes_does_not_say_what_another_project_has() {
    let stage = Stage::set(&[], "").await;
    let mine = Repo::made(&stage, stage.project("mine").await, "app").await;
    let theirs = Repo::made(&stage, stage.project("theirs").await, "app").await;
    let secret = bytes("secret", 50_000);
    theirs.push_blob(&secret).await;
    let (held, unheld) = (sha256(&secret), sha256(b"nobody has this"));
    for method in [Method::HEAD, Method::GET] {
        let ask = async |_: usize, is_held: bool| {
            time(mine.blob(method.clone(), if is_held { &held } else { &unheld }), 404).await
        };
        let area = compare(1_500, ask).await;
        assert!((0.45..=0.55).contains(&area), "{method}: {area}");
    }
    // The control: what the project has itself takes longer to say, and that can be told.
    mine.push_blob(b"mine").await;
    let own = sha256(b"mine");
    let ask = async |_: usize, is_own: bool| {
        if is_own {
            time(mine.blob(Method::GET, &own), 200).await
        } else {
            time(mine.blob(Method::GET, &unheld), 404).await
        }
    };
    let area = compare(500, ask).await;
    assert!(!(0.45..=0.55).contains(&area), "the statistic sees nothing: {area}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_an_upload_takes_does_not_say_what_another_project_has() {
    const UPLOADS: usize = 400;
    let stage = Stage::set(&[], "").await;
    let mine = Repo::made(&stage, stage.project("mine").await, "app").await;
    let theirs = Repo::made(&stage, stage.project("theirs").await, "app").await;
    for n in 0..UPLOADS {
        theirs.push_blob(&bytes(&format!("held {n}"), 2_000)).await;
    }
    let upload = async |n: usize, is_held: bool| {
        let content = bytes(&format!("{} {n}", if is_held { "held" } else { "new" }), 2_000);
        let began = Instant::now();
        mine.push_blob(&content).await;
        began.elapsed().as_secs_f64()
    };
    let area = compare(UPLOADS, upload).await;
    // Of so few samples chance makes more: this is five times its deviation.
    assert!((0.4..=0.6).contains(&area), "{area}");
}
