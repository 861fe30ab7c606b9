//! `Idempotency-Key`: a request that is sent again is carried out once.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "the API's other tests use the rest")]
mod memory;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use control::api::{BODY_BYTES_MAX, Options, router};
use control::{Journals, NewToken, Page, Role, Secret, Service};
use http_body_util::BodyExt;
use memory::{ADMIN, MemoryService};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tower::ServiceExt;

/// A life of the API over a service that outlives it.
fn api(service: &Arc<MemoryService>, folder: &Path) -> Router {
    let journals = Arc::new(Journals::open(folder).unwrap());
    router(Arc::clone(service) as _, journals, Options::default()).unwrap()
}

async fn post(api: &Router, token: &str, (path, key): (&str, &str), body: &Value) -> (u16, HeaderMap, Value) {
    let request = Request::post(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    let request = request.header("idempotency-key", key).header(header::CONTENT_TYPE, "application/json");
    let answer = api.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn volumes(service: &MemoryService) -> usize {
    service.list_volumes(None, Page::all()).await.unwrap().len()
}

/// P8. The same request by the same key is answered the same, after a restart too; by another token's key, or with another body
/// or path, it is another.
#[tokio::test]
async fn a_request_that_is_sent_again_is_carried_out_once() {
    let (service, folder) = (Arc::new(MemoryService::new()), tempfile::tempdir().unwrap());
    let (first, volume) = (api(&service, folder.path()), json!({"name": "vm-1", "size": "1G"}));
    let made = post(&first, ADMIN, ("/v1/volumes", "k1"), &volume).await;
    assert_eq!((made.0, made.1.get("idempotent-replayed")), (201, None), "{}", made.2);
    let second = api(&service, folder.path());
    for api in [&first, &second] {
        let again = post(api, ADMIN, ("/v1/volumes", "k1"), &volume).await;
        assert_eq!((again.0, &again.2, &again.1[header::LOCATION]), (201, &made.2, &made.1[header::LOCATION]));
        assert_eq!(again.1["idempotent-replayed"], "true");
        assert_eq!(again.1[header::CONTENT_TYPE], "application/json");
    }
    for (path, body) in
        [("/v1/volumes", json!({"name": "vm-1", "size": "2G"})), ("/v1/volumes/vm-1/resize", volume.clone())]
    {
        let (status, _, answer) = post(&second, ADMIN, (path, "k1"), &body).await;
        assert_eq!((status, &answer["code"]), (409, &json!("idempotency_key_reused")), "{path}");
    }
    let secret = Secret::generate().unwrap();
    let new = NewToken {
        name: "t".parse().unwrap(),
        role: Role::Operator,
        tenant: None,
        expires_at: None,
        hash: secret.hash(),
    };
    let other = secret.text(service.create_token(new).await.unwrap().id);
    let (status, _, answer) = post(&second, &other, ("/v1/volumes", "k1"), &volume).await;
    assert_eq!((status, &answer["code"]), (409, &json!("volume_exists")), "another token's key is another");
    assert_eq!(volumes(&service).await, 1);
}

/// What was refused changed nothing, and is tried anew by the same key, with another body too.
#[tokio::test]
async fn a_refusal_is_not_kept() {
    let (service, folder) = (Arc::new(MemoryService::new()), tempfile::tempdir().unwrap());
    let api = api(&service, folder.path());
    let resize = json!({"size": "2G"});
    let (status, _, _) = post(&api, ADMIN, ("/v1/volumes/vm-1/resize", "k"), &resize).await;
    assert_eq!(status, 404);
    post(&api, ADMIN, ("/v1/volumes", "m"), &json!({"name": "vm-1", "size": "1G"})).await;
    let (status, headers, _) = post(&api, ADMIN, ("/v1/volumes/vm-1/resize", "k"), &resize).await;
    assert_eq!((status, headers.get("idempotent-replayed")), (200, None));
    let long = json!({"name": "x".repeat(BODY_BYTES_MAX)});
    let (status, _, answer) = post(&api, ADMIN, ("/v1/volumes", "l"), &long).await;
    assert_eq!((status, &answer["code"]), (413, &json!("body_too_large")));
    for key in ["", &"k".repeat(256), "a b"] {
        let request = Request::post("/v1/volumes").header(header::AUTHORIZATION, format!("Bearer {ADMIN}"));
        let request = request.header(
            "idempotency-key",
            axum::http::HeaderValue::from_bytes(key.as_bytes()).unwrap_or(axum::http::HeaderValue::from_static("")),
        );
        let answer = api.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), 400, "{key:?}");
    }
}

/// A dry run is no use of a key.
#[tokio::test]
async fn a_dry_run_is_not_kept() {
    let (service, folder) = (Arc::new(MemoryService::new()), tempfile::tempdir().unwrap());
    let (api, volume) = (api(&service, folder.path()), json!({"name": "vm-1", "size": "1G"}));
    let (status, _, tried) = post(&api, ADMIN, ("/v1/volumes?dry_run=true", "k"), &volume).await;
    assert_eq!((status, &tried["answer"]["name"]), (200, &json!("vm-1")));
    assert_eq!(volumes(&service).await, 0);
    assert_eq!(post(&api, ADMIN, ("/v1/volumes", "k"), &volume).await.0, 201);
}

/// A client that goes before its answer finds it later; until then it is told to ask again.
#[tokio::test]
async fn an_answer_that_was_lost_is_found() {
    let (service, folder) = (Arc::new(MemoryService::new()), tempfile::tempdir().unwrap());
    let api = api(&service, folder.path());
    let volume = json!({"name": "vm-1", "size": "1G"});
    let release = service.hold_changes();
    let lost = tokio::spawn({
        let (api, volume) = (api.clone(), volume.clone());
        async move { post(&api, ADMIN, ("/v1/volumes", "k"), &volume).await }
    });
    service.change_waits.notified().await;
    let (status, headers, answer) = post(&api, ADMIN, ("/v1/volumes", "k"), &volume).await;
    assert_eq!((status, &answer["code"]), (409, &json!("request_in_progress")));
    assert_eq!(headers[header::RETRY_AFTER], "1");
    lost.abort();
    assert!(lost.await.unwrap_err().is_cancelled());
    release.send(()).unwrap();
    loop {
        let (status, headers, answer) = post(&api, ADMIN, ("/v1/volumes", "k"), &volume).await;
        if status != 409 {
            assert_eq!((status, &headers["idempotent-replayed"]), (201, &"true".parse().unwrap()), "{answer}");
            break;
        }
        assert_eq!(answer["code"], "request_in_progress");
        tokio::task::yield_now().await;
    }
    assert_eq!(volumes(&service).await, 1);
}

/// P8. The secret of a token is in no file, and a second token is not made either.
#[tokio::test]
async fn an_answer_with_a_secret_is_not_kept() {
    let (service, folder) = (Arc::new(MemoryService::new()), tempfile::tempdir().unwrap());
    let api = api(&service, folder.path());
    let wanted = json!({"name": "t", "role": "operator"});
    let (status, _, made) = post(&api, ADMIN, ("/v1/tokens", "k"), &wanted).await;
    assert_eq!(status, 201);
    let (status, _, again) = post(&api, ADMIN, ("/v1/tokens", "k"), &wanted).await;
    assert_eq!((status, &again["code"]), (409, &json!("answer_not_kept")));
    let id = made["token"]["id"].as_u64().unwrap();
    assert!(again["detail"].as_str().unwrap().contains(&format!("/v1/tokens/{id}")), "{again}");
    assert_eq!(service.list_tokens(None).await.unwrap().len(), 2);
    let kept = std::fs::read_to_string(folder.path().join("answers.log")).unwrap();
    assert!(kept.contains("\"k\"") && !kept.contains(made["text"].as_str().unwrap()), "{kept}");
}
