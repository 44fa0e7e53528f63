//! F34: an upload that is cut off at any byte goes on from where it says, or is unknown; what comes of it
//! is right, and nothing half made is ever seen.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, future::join_all, stream};
use reqwest::{Body, Method, Response};

use super::{Repo, header, refusal};
use crate::{
    image::{bytes, sha256},
    stage::Stage,
};

const LANES: usize = 4;
const CUTS: usize = 256;

/// A body that sends `part`, and ends with the connection once the service has taken all of it.
fn cut_off(stage: &Stage, begun: &Response, part: Bytes, reaches: usize) -> Body {
    let id = header(begun, "location").rsplit('/').next().expect("an id");
    let file = stage.data_dir.join("uploads").join(id);
    let cable = async move {
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::fs::metadata(&file).map_or(0, |file| file.len()) < reaches as u64 {
            assert!(Instant::now() < deadline, "the service takes nothing");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(std::io::Error::other("the cable is pulled"))
    };
    Body::wrap_stream(stream::iter([Ok(part)]).chain(stream::once(cable)))
}

/// What a status or a refused part says is there.
fn there(answer: &Response) -> usize {
    let last: usize = header(answer, "range")["0-".len()..].parse().expect("a number");
    if last == 0 { 0 } else { last + 1 }
}

/// One upload, cut off again and again, now in a part and now in what should have been its end.
async fn lane(repo: &Repo<'_>, n: usize) -> Vec<u8> {
    let content = Bytes::from(bytes(&format!("lane {n}"), 300_000));
    let digest = sha256(&content);
    let begun = repo.begin().await;
    let (mut from, mut cuts) = (0, 0);
    while cuts < CUTS {
        // Two at least: a status cannot tell one byte from none.
        let length = 2 + (cuts * 611 + n * 97) % 1_999;
        let to = from + length;
        let request = if cuts % 4 == 3 { repo.put(&begun, &digest) } else { repo.upload(Method::PATCH, &begun) };
        let request = match cuts % 3 {
            0 => request,
            // The client has announced more than it will send.
            1 => request.header("content-length", content.len() - from),
            _ => request
                .header("content-length", content.len() - from)
                .header("content-range", format!("{from}-{}", content.len() - 1)),
        };
        let body = cut_off(repo.stage, &begun, content.slice(from..to), to);
        assert!(request.body(body).send().await.is_err(), "the client broke off");
        cuts += 1;
        if cuts % 5 == 0 {
            let status = repo.upload(Method::GET, &begun).send().await.expect("an answer");
            assert_eq!(status.status(), 204, "cut at {to}");
            // The service may not have noticed yet; a client that asks too early sends some of it again.
            let noted = there(&status);
            assert!(noted == from || noted == to, "cut at {to}, and {noted} are there");
        }
        let ahead = repo.upload(Method::PATCH, &begun).header("content-range", format!("{}-{}", to + 1, to + 1));
        let ahead = ahead.body("?").send().await.expect("an answer");
        assert_eq!(ahead.status(), 416, "a part that leaves a hole");
        // That one waited for the request that was cut off.
        assert_eq!(there(&ahead), to, "everything the service took is noted");
        from = to;
        if cuts % 16 == 0 {
            let head = repo.blob(Method::HEAD, &digest).send().await.expect("an answer");
            assert_eq!(head.status(), 404, "half a blob");
        }
    }
    let rest = repo.put(&begun, &digest).header("content-range", format!("{from}-{}", content.len() - 1));
    let done = rest.body(content.slice(from..)).send().await.expect("an answer");
    assert_eq!((done.status().as_u16(), header(&done, "docker-content-digest")), (201, digest.as_str()));
    let over = repo.upload(Method::GET, &begun).send().await.expect("an answer");
    assert_eq!(refusal(over).await, (404, "BLOB_UPLOAD_UNKNOWN".into()));
    content.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_cut_off_a_thousand_times_is_what_its_digest_says() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let contents = join_all((0..LANES).map(|n| lane(&repo, n))).await;
    for content in &contents {
        let read = repo.blob(Method::GET, &sha256(content)).send().await.expect("an answer");
        assert_eq!(sha256(&read.bytes().await.expect("bytes")), sha256(content));
    }
    assert_eq!(stage.files().await.len(), LANES);
    let left = std::fs::read_dir(stage.data_dir.join("uploads")).expect("the directory").count();
    assert_eq!(left, 0, "nothing came of the upload that made the repository");
}
