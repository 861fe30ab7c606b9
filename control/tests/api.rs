//! The API through its router, over a service that keeps volumes in memory.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[expect(dead_code, reason = "the bills' tests use the rest")]
mod memory;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use control::api::{BODY_BYTES_MAX, Options, router};
use control::{
    ErrorCode, Image, ImageState, Journals, KeepHistory, Mirror, MirrorList, MirrorRole, Problem, Scrub, Service,
    SnapshotList, Volume, VolumeSize,
};
use http_body_util::BodyExt;
use memory::{ADMIN, MemoryService};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

struct Api {
    service: Arc<MemoryService>,
    router: Router,
    _folder: tempfile::TempDir,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Api {
    fn new() -> Self {
        Self::with_options(Options::default())
    }

    fn with_options(options: Options) -> Self {
        let service = Arc::new(MemoryService::new());
        let folder = tempfile::tempdir().unwrap();
        let journals = Arc::new(Journals::open(folder.path()).unwrap());
        let router = router(Arc::clone(&service) as _, journals, options).unwrap();
        Self { service, router, _folder: folder }
    }

    /// By the first token, unless the request has one.
    async fn send(&self, mut request: Request<Body>) -> Reply {
        let bearer = HeaderValue::from_str(&format!("Bearer {ADMIN}")).unwrap();
        request.headers_mut().entry(header::AUTHORIZATION).or_insert(bearer);
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Reply { status: head.status, headers: head.headers, body }
    }

    async fn call(&self, method: &str, path: &str) -> Reply {
        self.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_raw(path, body.to_string()).await
    }

    async fn post_raw(&self, path: &str, body: String) -> Reply {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
        self.send(request.unwrap()).await
    }
}

impl Reply {
    fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// Checks that it is a whole problem document of `code`, and gives its detail.
    fn problem(&self, code: ErrorCode) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text());
        let problem: Problem = self.json();
        assert_eq!(problem.code, code.as_str(), "{}", problem.detail);
        assert_eq!((self.status.as_u16(), problem.status), (code.status(), code.status()));
        assert_eq!(problem.kind, format!("urn:aljibe:problem:{}", code.as_str()));
        assert_eq!(problem.request_id.as_deref(), self.headers["x-request-id"].to_str().ok());
        problem.detail
    }
}

#[tokio::test]
async fn a_volume_is_made_shown_listed_resized_and_deleted() {
    let api = Api::new();
    let made = api.post("/v1/volumes", &json!({"name": "vm-1", "size": "10G"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    assert_eq!(made.headers[header::LOCATION], "/v1/volumes/vm-1");
    let volume: Volume = made.json();
    assert_eq!((volume.name.as_str(), volume.size_bytes), ("vm-1", 10 << 30));
    let shown: Value = api.call("GET", "/v1/volumes/vm-1").await.json();
    assert_eq!(shown["state"], "online");
    assert_eq!(shown["created_at"], "2026-01-02T03:04:05Z");
    assert_eq!(shown["nbd_uris"][0], "nbd://127.0.0.1:10809/vm-1");

    api.post("/v1/volumes", &json!({"name": "a", "size_bytes": 512})).await;
    let list: Value = api.call("GET", "/v1/volumes").await.json();
    let names: Vec<_> = list["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "vm-1"]);

    let grown: Volume = api.post("/v1/volumes/vm-1/resize", &json!({"size": "20G"})).await.json();
    assert_eq!(grown.size_bytes, 20 << 30);
    assert_eq!(api.call("DELETE", "/v1/volumes/vm-1").await.status, StatusCode::NO_CONTENT);
    api.call("GET", "/v1/volumes/vm-1").await.problem(ErrorCode::VolumeNotFound);
    api.call("DELETE", "/v1/volumes/vm-1").await.problem(ErrorCode::VolumeNotFound);
}

/// The pages of a list are all of it once, whatever is made and deleted between them.
#[tokio::test]
async fn a_list_is_read_page_by_page_while_it_changes() {
    let api = Api::new();
    for name in ["b", "d", "f", "h", "j"] {
        api.post("/v1/volumes", &json!({"name": name, "size": "1M"})).await;
        api.post("/v1/snapshots", &json!({"snapshots": [format!("{name}@z")]})).await;
        api.post("/v1/snapshots", &json!({"snapshots": [format!("{name}@a")]})).await;
        api.post("/v1/tenants", &json!({"name": name})).await;
        api.post("/v1/images", &json!({"name": format!("image-{name}"), "size_bytes": 512, "source": "a"})).await;
        api.post("/v1/tokens", &json!({"name": name, "role": "operator"})).await;
    }
    let page = async |path: &str, cursor: &Value| -> Value {
        let separator = if path.contains('?') { '&' } else { '?' };
        let cursor = cursor.as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        api.call("GET", &format!("{path}{separator}limit=2{cursor}")).await.json()
    };
    for (path, of, count) in [
        ("/v1/volumes", "volumes", 5),
        ("/v1/images?tenant=default", "images", 5),
        ("/v1/snapshots?space", "snapshots", 10),
        ("/v1/snapshots?volume=d", "snapshots", 2),
        ("/v1/tenants", "tenants", 5),
        ("/v1/tokens", "tokens", 6),
        ("/v1/audit", "entries", 30),
    ] {
        let (mut found, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let part = page(path, &cursor).await;
            assert!(part[of].as_array().unwrap().len() <= 2, "{path}");
            found.extend(part[of].as_array().unwrap().clone());
            cursor = part["next_cursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
        let whole: Value = api.call("GET", path).await.json();
        assert_eq!((found.len(), &Value::Array(found)), (count, &whole[of]), "{path}");
    }
    let first = page("/v1/volumes", &Value::Null).await;
    api.call("DELETE", "/v1/volumes/b").await;
    api.call("DELETE", "/v1/volumes/d").await;
    for name in ["a", "g"] {
        api.post("/v1/volumes", &json!({"name": name, "size": "1M"})).await;
    }
    let second = page("/v1/volumes", &first["next_cursor"]).await;
    assert_eq!((&second["volumes"][0]["name"], &second["volumes"][1]["name"]), (&json!("f"), &json!("g")));
    for query in ["limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=1-6", "offset=1"] {
        api.call("GET", &format!("/v1/volumes?{query}")).await.problem(ErrorCode::InvalidRequest);
    }
}

#[tokio::test]
async fn a_second_volume_of_a_name_is_refused_with_the_size_of_the_first() {
    let api = Api::new();
    let wanted = json!({"name": "vm-1", "size": "1G"});
    api.post("/v1/volumes", &wanted).await;
    let detail = api.post("/v1/volumes", &wanted).await.problem(ErrorCode::VolumeExists);
    assert!(detail.contains("1073741824"), "{detail}");
}

#[tokio::test]
async fn a_wrong_body_is_refused_with_its_own_code() {
    let api = Api::new();
    for (body, code) in [
        (json!({"name": "a/b/c", "size": "1G"}), ErrorCode::InvalidName),
        (json!({"name": "a/b", "size": "1G"}), ErrorCode::TenantNotFound),
        (json!({"name": "a@b", "size": "1G"}), ErrorCode::InvalidName),
        (json!({"name": "", "size": "1G"}), ErrorCode::InvalidName),
        (json!({"name": "a", "size": "1GB"}), ErrorCode::InvalidSize),
        (json!({"name": "a", "size_bytes": 1000}), ErrorCode::InvalidSize),
        (json!({"name": "a", "size_bytes": 0}), ErrorCode::InvalidSize),
        (json!({"name": "a", "size_bytes": u64::MAX}), ErrorCode::InvalidSize),
        (json!({"name": "a"}), ErrorCode::InvalidRequest),
        (json!({"name": "a", "size": "1G", "size_bytes": 1}), ErrorCode::InvalidRequest),
        (json!({"name": "a", "size": "1G", "shards": 1}), ErrorCode::InvalidRequest),
        (json!({"name": "a", "size_bytes": -512}), ErrorCode::InvalidRequest),
        (json!([]), ErrorCode::InvalidRequest),
        (json!(["a", 512, null, null, null]), ErrorCode::InvalidRequest),
    ] {
        let detail = api.post("/v1/volumes", &body).await.problem(code);
        assert!(!detail.is_empty());
    }
    api.post_raw("/v1/volumes", "{".into()).await.problem(ErrorCode::InvalidRequest);
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(BODY_BYTES_MAX));
    api.post_raw("/v1/volumes", long).await.problem(ErrorCode::BodyTooLarge);
    let plain = Request::post("/v1/volumes").body(Body::from("{\"name\":\"a\",\"size\":\"1G\"}")).unwrap();
    let detail = api.send(plain).await.problem(ErrorCode::UnsupportedMediaType);
    assert!(detail.contains("application/json"));
    assert_eq!(api.call("GET", "/v1/volumes").await.json::<Value>(), json!({"volumes": []}));
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_problems_too() {
    let api = Api::new();
    api.call("GET", "/").await.problem(ErrorCode::RouteNotFound);
    api.call("GET", "/v2/volumes").await.problem(ErrorCode::RouteNotFound);
    api.call("PATCH", "/v1/volumes").await.problem(ErrorCode::MethodNotAllowed);
    api.call("BREW", "/v1/pool").await.problem(ErrorCode::MethodNotAllowed);
    api.call("GET", "/v1/volumes/..%2f..").await.problem(ErrorCode::InvalidName);
    api.call("GET", "/v1/volumes/%ff").await.problem(ErrorCode::InvalidName);
}

/// Whatever a program sends, it is told in the same form what is wrong with it.
#[tokio::test]
async fn heads_methods_and_versions_are_as_http_has_them() {
    let api = Api::new();
    let head = api.call("HEAD", "/v1/volumes").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    for (method, path, allowed) in [
        ("OPTIONS", "/v1/volumes", "GET,HEAD,POST"),
        ("PUT", "/v1/pool", "GET,HEAD"),
        ("GET", "/v1/volumes/vm-1/resize", "POST"),
        ("TRACE", "/versions", "GET,HEAD"),
    ] {
        let reply = api.call(method, path).await;
        reply.problem(ErrorCode::MethodNotAllowed);
        assert_eq!(reply.headers[header::ALLOW], allowed, "{method} {path}");
    }
    let versions: Value = api.call("GET", "/versions").await.json();
    assert_eq!(versions["versions"][0]["path"], "/v1");
    let text = Request::post("/v1/pool/scrub").header(header::CONTENT_TYPE, "text/plain").body(Body::from("{}"));
    api.send(text.unwrap()).await.problem(ErrorCode::UnsupportedMediaType);
    let document: Value = api.call("GET", "/v1/openapi.json").await.json();
    let before = &document["paths"]["/v1/audit"]["get"]["parameters"].as_array().unwrap().iter();
    let before = before.clone().find(|parameter| parameter["name"] == "before").unwrap();
    assert_eq!(before["schema"]["maximum"], u64::MAX, "{before}");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let problem = &operation["responses"]["default"]["content"]["application/problem+json"];
            assert!(problem.is_object(), "{method} {path}");
            let names = operation["parameters"].as_array().into_iter().flatten().map(|of| of["name"].as_str().unwrap());
            let names: Vec<_> = names.collect();
            assert_eq!(names.contains(&"dry_run"), method != "get", "{method} {path}");
            assert_eq!(names.contains(&"Idempotency-Key"), method == "post", "{method} {path}");
        }
    }
}

/// What there is of volumes in the figures is bounded, and what is left out is told.
#[tokio::test]
async fn metrics_are_of_so_many_volumes() {
    let api = Api::new();
    let (size, history) = (VolumeSize::from_bytes(512).unwrap(), KeepHistory::default());
    for number in 0..1005 {
        api.service.create_volume(format!("vm-{number:04}").parse().unwrap(), size, history, None).await.unwrap();
    }
    let text = api.call("GET", "/metrics").await.text();
    assert!(text.contains("aljibe_volumes_not_shown 5\n"));
    assert_eq!(text.matches("aljibe_volume_size_bytes{").count(), 1000);
    assert!(text.contains("vm-0999") && !text.contains("vm-1000"));
}

/// P8. Deleting a volume under its clients needs the word.
#[tokio::test]
async fn a_volume_in_use_is_deleted_only_by_force() {
    let api = Api::new();
    api.post("/v1/volumes", &json!({"name": "vm-1", "size": "1G"})).await;
    api.service.attach("vm-1", 2);
    api.call("DELETE", "/v1/volumes/vm-1").await.problem(ErrorCode::VolumeInUse);
    api.call("DELETE", "/v1/volumes/vm-1?force=false").await.problem(ErrorCode::VolumeInUse);
    api.call("DELETE", "/v1/volumes/vm-1?force=maybe").await.problem(ErrorCode::InvalidRequest);
    api.call("DELETE", "/v1/volumes/vm-1?farce").await.problem(ErrorCode::InvalidRequest);
    assert_eq!(api.call("DELETE", "/v1/volumes/vm-1?force").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_volume_with_data_in_its_tail_shrinks_only_when_told_to_discard_it() {
    let api = Api::new();
    api.post("/v1/volumes", &json!({"name": "vm-1", "size": "1G"})).await;
    api.service.write_to("vm-1", 800 << 20);
    let shrink = json!({"size": "512M"});
    api.post("/v1/volumes/vm-1/resize", &shrink).await.problem(ErrorCode::ShrinkRefused);
    let shrunk = api.post("/v1/volumes/vm-1/resize", &json!({"size": "512M", "discard_tail": true})).await;
    assert_eq!(shrunk.json::<Volume>().size_bytes, 512 << 20);
    api.post("/v1/volumes/none/resize", &shrink).await.problem(ErrorCode::VolumeNotFound);
}

#[tokio::test]
async fn snapshots_are_taken_listed_shown_and_deleted() {
    let api = Api::new();
    for name in ["vm-1", "vm-2"] {
        api.post("/v1/volumes", &json!({"name": name, "size": "1G"})).await;
    }
    let wanted = json!({"snapshots": ["vm-1@monday", "vm-2@monday"], "group": "nightly"});
    let taken = api.post("/v1/snapshots", &wanted).await;
    assert_eq!(taken.status, StatusCode::CREATED, "{}", taken.text());
    let taken: SnapshotList = taken.json();
    assert_eq!(taken.snapshots[1].name, "vm-2@monday");
    assert_eq!(taken.snapshots[1].group.as_deref(), Some("nightly"));
    api.post("/v1/snapshots", &wanted).await.problem(ErrorCode::SnapshotExists);
    let of_one: SnapshotList = api.call("GET", "/v1/snapshots?volume=vm-1").await.json();
    assert_eq!(of_one.snapshots, taken.snapshots[..1]);
    let with_space: Value = api.call("GET", "/v1/snapshots?volume=vm-1&space").await.json();
    assert_eq!(with_space["snapshots"][0]["unique_bytes"], 0);
    api.call("GET", "/v1/snapshots?space=perhaps").await.problem(ErrorCode::InvalidRequest);
    let shown: Value = api.call("GET", "/v1/snapshots/vm-1@monday").await.json();
    assert_eq!(shown["taken_at"], "2026-01-02T03:04:05Z");
    assert_eq!(api.call("DELETE", "/v1/snapshots/vm-1@monday").await.status, StatusCode::NO_CONTENT);
    api.call("GET", "/v1/snapshots/vm-1@monday").await.problem(ErrorCode::SnapshotNotFound);
    assert_eq!(api.call("GET", "/v1/snapshots").await.json::<SnapshotList>().snapshots.len(), 1);
}

#[tokio::test]
async fn a_snapshot_is_cloned_and_gone_back_to() {
    let api = Api::new();
    api.post("/v1/volumes", &json!({"name": "vm-1", "size": "1G"})).await;
    api.post("/v1/snapshots", &json!({"snapshots": ["vm-1@monday"]})).await;
    let made = api.post("/v1/snapshots/vm-1@monday/clone", &json!({"name": "vm-2"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    assert_eq!(made.headers[header::LOCATION], "/v1/volumes/vm-2");
    assert_eq!(made.json::<Volume>().parent.as_deref(), Some("vm-1@monday"));
    api.post("/v1/snapshots/vm-1@monday/clone", &json!({"name": "vm-2"})).await.problem(ErrorCode::VolumeExists);
    api.post("/v1/snapshots/vm-1@none/clone", &json!({"name": "x"})).await.problem(ErrorCode::SnapshotNotFound);
    let reclaimed: Value = api.post("/v1/snapshots/reclaim", &json!({"snapshots": ["vm-1@monday"]})).await.json();
    assert_eq!(reclaimed["reclaim_bytes"], 4096);

    api.service.attach("vm-1", 1);
    let back = json!({"snapshot": "monday"});
    api.post("/v1/volumes/vm-1/rollback", &back).await.problem(ErrorCode::VolumeInUse);
    let rolled: Value =
        api.post("/v1/volumes/vm-1/rollback", &json!({"snapshot": "monday", "force": true})).await.json();
    assert_eq!(rolled["undo"]["name"], "vm-1@before");
    api.post("/v1/volumes/vm-1/rollback", &json!({"snapshot": "a@b"})).await.problem(ErrorCode::InvalidName);
}

#[tokio::test]
async fn a_volume_is_mirrored_moved_failed_over_and_alone_again() {
    let api = Api::new();
    for name in ["vm-1", "vm-2"] {
        api.post("/v1/volumes", &json!({"name": name, "size": "1G"})).await;
    }
    let mirror = "/v1/volumes/vm-1/mirror";
    let detail = api.call("GET", mirror).await.problem(ErrorCode::VolumeNotMirrored);
    assert!(detail.contains("aljibe volume mirror"), "{detail}");
    for (method, path) in [("DELETE", mirror), ("POST", "/v1/volumes/vm-1/failover")] {
        api.call(method, path).await.problem(ErrorCode::VolumeNotMirrored);
    }
    api.post("/v1/volumes/none/mirror", &json!({"to": 2})).await.problem(ErrorCode::VolumeNotFound);
    for wanted in [json!({}), json!({"to": -1}), json!({"to": 256}), json!({"to": "2"}), json!({"to": 2, "now": true})]
    {
        api.post(mirror, &wanted).await.problem(ErrorCode::InvalidRequest);
    }
    let tried: Value = api.post(&format!("{mirror}?dry_run=true"), &json!({"to": 2})).await.json();
    assert_eq!((&tried["status"], &tried["answer"]["peer"]), (&json!(200), &json!(2)));
    let begun: Value = api.post(mirror, &json!({"to": 2})).await.json();
    let told = ["volume", "role", "serves", "primary", "in_sync", "link"].map(|member| begun[member].clone());
    assert_eq!(told, [json!("vm-1"), json!("primary"), json!(true), json!(1), json!(true), json!("up")]);
    api.post(mirror, &json!({"to": 2})).await.problem(ErrorCode::MirrorRefused);

    let moved: Mirror = api.post("/v1/volumes/vm-1/move", &json!({"to": 2})).await.json();
    assert_eq!((moved.role, moved.serves, moved.primary, moved.epoch), (MirrorRole::Secondary, false, Some(2), 2));
    let detail = api.post("/v1/volumes/vm-1/move", &json!({"to": 2})).await.problem(ErrorCode::MirrorRefused);
    assert!(detail.contains("site 2"), "{detail}");
    let forced: Value = api.call("POST", "/v1/volumes/vm-1/failover").await.json();
    assert_eq!((&forced["role"], &forced["in_sync"]), (&json!("primary_alone"), &json!(false)));

    let shown: Value = api.call("GET", mirror).await.json();
    let texts: Vec<&str> =
        shown["evidence"].as_array().unwrap().iter().map(|found| found["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["mirrored to site 2", "moved to site 2", "forced"]);
    assert_eq!(shown["evidence"][0]["at"], "2026-01-02T03:04:05Z");
    api.post("/v1/volumes/vm-2/mirror", &json!({"to": 3})).await;
    let list: Value = api.call("GET", "/v1/mirrors?limit=1").await.json();
    assert_eq!((&list["mirrors"][0]["volume"], list["mirrors"][0].get("evidence")), (&json!("vm-1"), None));
    let cursor = list["next_cursor"].as_str().unwrap();
    let rest: MirrorList = api.call("GET", &format!("/v1/mirrors?limit=1&cursor={cursor}")).await.json();
    assert_eq!((rest.mirrors[0].volume.as_str(), rest.mirrors[0].peer, rest.next_cursor), ("vm-2", 3, None));

    assert_eq!(api.call("DELETE", mirror).await.status, StatusCode::NO_CONTENT);
    api.call("GET", mirror).await.problem(ErrorCode::VolumeNotMirrored);
}

#[tokio::test]
async fn what_differs_is_told_part_by_part() {
    let api = Api::new();
    api.post("/v1/volumes", &json!({"name": "vm-1", "size": "1G"})).await;
    api.post("/v1/snapshots", &json!({"snapshots": ["vm-1@monday"]})).await;
    api.post("/v1/snapshots", &json!({"snapshots": ["vm-1@tuesday"]})).await;
    let part: Value = api.call("GET", "/v1/snapshots/vm-1@monday/diff?to=vm-1@tuesday").await.json();
    assert_eq!((&part["since"], &part["to"]), (&json!("vm-1@monday"), &json!("vm-1@tuesday")));
    assert_eq!(part["extents"], json!([{"offset": 0, "length": 4096, "kind": "data"}]));
    let at = part["next_offset"].as_u64().unwrap();
    let last: Value = api.call("GET", &format!("/v1/snapshots/vm-1@monday/diff?from={at}")).await.json();
    assert_eq!((&last["to"], &last["extents"][0]["kind"]), (&json!("vm-1"), &json!("zero")));
    assert_eq!(last.get("next_offset"), None);
    let refused = |path: &'static str| api.call("GET", path);
    refused("/v1/snapshots/vm-1@tuesday/diff?to=vm-1@monday").await.problem(ErrorCode::SnapshotsUnrelated);
    refused("/v1/snapshots/vm-1@monday/diff?to=vm-1@none").await.problem(ErrorCode::SnapshotNotFound);
    refused("/v1/snapshots/vm-1@monday/diff?to=none").await.problem(ErrorCode::VolumeNotFound);
    refused("/v1/snapshots/vm-1@monday/diff?to=@").await.problem(ErrorCode::InvalidName);
    refused("/v1/snapshots/vm-1@monday/diff?from=-1").await.problem(ErrorCode::InvalidRequest);
    refused("/v1/snapshots/vm-1/diff").await.problem(ErrorCode::InvalidName);
}

#[tokio::test]
async fn what_names_no_snapshot_is_refused() {
    let api = Api::new();
    api.call("GET", "/v1/snapshots/vm-1").await.problem(ErrorCode::InvalidName);
    api.call("DELETE", "/v1/snapshots/@x").await.problem(ErrorCode::InvalidName);
    api.call("GET", "/v1/snapshots?group=x").await.problem(ErrorCode::InvalidRequest);
    for (body, code) in [
        (json!({"snapshots": ["vm-1"]}), ErrorCode::InvalidName),
        (json!({"snapshots": ["vm-1@a"], "group": "a/b"}), ErrorCode::InvalidName),
        (json!({"snapshots": ["none@a"]}), ErrorCode::VolumeNotFound),
        (json!({"snapshots": "vm-1@a"}), ErrorCode::InvalidRequest),
    ] {
        api.post("/v1/snapshots", &body).await.problem(code);
    }
}

#[tokio::test]
async fn readiness_follows_the_shards_and_health_does_not() {
    let api = Api::new();
    assert_eq!(api.call("GET", "/v1/ready").await.status, StatusCode::OK);
    api.service.stop();
    let reply = api.call("GET", "/v1/ready").await;
    reply.problem(ErrorCode::ShuttingDown);
    assert_eq!(reply.headers[header::RETRY_AFTER], "1");
    assert_eq!(api.call("GET", "/v1/health").await.json::<Value>()["status"], "ok");
}

#[tokio::test]
async fn a_change_outlives_the_time_of_its_request() {
    let api = Api::with_options(Options { request_duration_max: Duration::from_millis(1), ..Options::default() });
    let release = api.service.hold_changes();
    let wanted = json!({"name": "late", "size": "1G"});
    api.post("/v1/volumes", &wanted).await.problem(ErrorCode::Timeout);
    release.send(()).unwrap();
    api.service.change_made.notified().await;
    assert!(api.service.has("late"));
}

/// What takes as long as it takes is not left in doubt.
#[tokio::test]
async fn what_may_take_long_is_answered_when_it_is_done() {
    let history = KeepHistory { seconds: Some(60), limit_bytes: None };
    let size = VolumeSize::from_bytes(1 << 30).unwrap();
    for (path, wanted, status) in [
        ("/v1/volumes/vm-1/clone", json!({"name": "late", "at": "2026-01-02T03:04:06Z"}), StatusCode::CREATED),
        ("/v1/volumes/vm-1/rollback", json!({"snapshot": "a"}), StatusCode::OK),
        ("/v1/snapshots/reclaim", json!({"snapshots": ["vm-1@a"]}), StatusCode::OK),
        ("/v1/volumes/vm-2/mirror", json!({"to": 2}), StatusCode::OK),
        ("/v1/volumes/vm-1/move", json!({"to": 2}), StatusCode::OK),
        ("/v1/volumes/vm-1/failover", json!({}), StatusCode::OK),
    ] {
        let api = Api::with_options(Options { request_duration_max: Duration::from_millis(1), ..Options::default() });
        api.service.create_volume("vm-1".parse().unwrap(), size, history, None).await.unwrap();
        api.service.create_volume("vm-2".parse().unwrap(), size, history, None).await.unwrap();
        api.service.keep_history("vm-1".parse().unwrap(), history).await.unwrap();
        api.service.begin_mirror("vm-1".parse().unwrap(), 2).await.unwrap();
        api.service.create_snapshots(vec!["vm-1@a".parse().unwrap()], None).await.unwrap();
        let release = api.service.hold_changes();
        let much_later = async {
            api.service.change_waits.notified().await;
            // What has a limit, and begins behind it, runs out of time before it; the second when its own is over for certain.
            for name in ["other", "another"] {
                let other = api.service.hold_changes();
                let wanted = json!({"name": name, "size": "1G"});
                api.post("/v1/volumes", &wanted).await.problem(ErrorCode::Timeout);
                // It has begun, so that the next one finds what is to hold it.
                api.service.change_waits.notified().await;
                other.send(()).unwrap();
            }
            release.send(()).unwrap();
        };
        let (reply, ()) = tokio::join!(api.post(path, &wanted), much_later);
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_replaced() {
    let api = Api::new();
    let ask = |id: &'static str| Request::get("/v1/health").header("x-request-id", id).body(Body::empty()).unwrap();
    assert_eq!(api.send(ask("abc-1.2_3")).await.headers["x-request-id"], "abc-1.2_3");
    let first = api.send(ask("a b")).await.headers["x-request-id"].clone();
    let second = api.call("GET", "/v1/health").await.headers["x-request-id"].clone();
    assert_ne!(first, "a b");
    assert_ne!(first, second);
}

/// P8. A web page that points its own name at the daemon's address is refused.
#[tokio::test]
async fn a_foreign_host_name_is_refused_unless_any_is_answered() {
    let ask = |host: &str| Request::get("/v1/volumes").header(header::HOST, host).body(Body::empty()).unwrap();
    let api = Api::new();
    assert_eq!(api.send(ask("127.0.0.1:9440")).await.status, StatusCode::OK);
    api.send(ask("evil.example:9440")).await.problem(ErrorCode::HostRefused);
    let open = Api::with_options(Options { is_any_host_answered: true, ..Options::default() });
    assert_eq!(open.send(ask("storage.example:9440")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_openapi_document_lists_every_route_and_problem() {
    let api = Api::new();
    let document: Value = api.call("GET", "/v1/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let operations = |path: &str| document["paths"][path].as_object().map(|item| item.len());
    for (path, count) in [
        ("/v1/volumes", 2),
        ("/v1/volumes/{name}", 2),
        ("/v1/volumes/{name}/qos", 1),
        ("/v1/volumes/{name}/resize", 1),
        ("/v1/mirrors", 1),
        ("/v1/volumes/{name}/mirror", 3),
        ("/v1/volumes/{name}/move", 1),
        ("/v1/volumes/{name}/failover", 1),
        ("/v1/images", 2),
        ("/v1/images/{name}", 2),
        ("/v1/images/{name}/mark", 1),
        ("/v1/images/{name}/seal", 1),
        ("/v1/snapshots", 2),
        ("/v1/volumes/{name}/rollback", 1),
        ("/v1/snapshots/{name}", 2),
        ("/v1/snapshots/{name}/clone", 1),
        ("/v1/snapshots/reclaim", 1),
        ("/v1/pool", 1),
        ("/v1/pool/scrub", 2),
        ("/v1/health", 1),
        ("/v1/ready", 1),
        ("/metrics", 1),
    ] {
        assert_eq!(operations(path), Some(count), "{path}");
    }
    for schema in [
        "Volume",
        "Snapshot",
        "CreateSnapshots",
        "Pool",
        "Slots",
        "Problem",
        "CreateVolume",
        "ResizeVolume",
        "VolumeState",
    ] {
        assert!(document["components"]["schemas"][schema].is_object(), "{schema}");
    }
}

#[tokio::test]
async fn metrics_show_the_service_and_the_api_itself() {
    let api = Api::new();
    api.post("/v1/volumes", &json!({"name": "vm-1", "size": "1G"})).await;
    api.call("GET", "/v1/volumes/none").await;
    let reply = api.call("GET", "/metrics").await;
    assert!(reply.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = reply.text();
    for line in [
        "aljibe_volume_size_bytes{volume=\"vm-1\"} 1073741824",
        "aljibe_pool_slots{state=\"free\"} 30",
        "aljibe_api_requests_total{method=\"GET\",route=\"/v1/volumes/{name}\",status=\"404\"} 1",
        "aljibe_api_requests_total{method=\"POST\",route=\"/v1/volumes\",status=\"201\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in {text}");
    }
    let pool: Value = api.call("GET", "/v1/pool").await.json();
    assert_eq!(pool["slots"], json!({"total": 32, "free": 30, "reserved": 2, "used": 0}));
}

#[tokio::test]
async fn an_image_is_imported_marked_and_sealed() {
    let api = Api::new();
    let from = |state: &str| json!({"name": "debian-12", "size_bytes": 8192, "source": "/srv/debian.qcow2", "source_state": state});
    let image: Image = api.post("/v1/images", &from("1")).await.json();
    assert_eq!((image.state, image.copied_bytes), (ImageState::Importing, 0));
    api.post("/v1/images", &from("2")).await.problem(ErrorCode::ImageImporting);
    api.post("/v1/images/debian-12/seal", &json!({})).await.problem(ErrorCode::ImageImporting);
    let claim = image.claim;
    let (path, other) = ("/v1/images/debian-12", claim + 1);
    let mark = json!({"copied_bytes": 8192});
    api.post(&format!("{path}/mark?claim={other}"), &mark).await.problem(ErrorCode::ImportSuperseded);
    api.post(&format!("{path}/seal?claim={other}"), &json!({})).await.problem(ErrorCode::ImportSuperseded);
    api.call("DELETE", &format!("{path}?force&claim={other}")).await.problem(ErrorCode::ImportSuperseded);
    api.post(&format!("{path}/seal?import=1"), &json!({})).await.problem(ErrorCode::InvalidRequest);
    let marked: Image = api.post(&format!("{path}/mark?claim={claim}"), &mark).await.json();
    assert_eq!(marked.copied_bytes, 8192);
    let sealed: Image = api.post("/v1/images/debian-12/seal", &json!({})).await.json();
    assert_eq!(sealed.state, ImageState::Ready);
    api.post("/v1/images", &from("1")).await.problem(ErrorCode::VolumeExists);
    let list: Value = api.call("GET", "/v1/images").await.json();
    assert_eq!(list["images"][0]["name"], "debian-12");
    assert_eq!(api.call("DELETE", "/v1/images/debian-12").await.status, StatusCode::NO_CONTENT);
    api.call("GET", "/v1/images/debian-12").await.problem(ErrorCode::ImageNotFound);
}

#[tokio::test]
async fn a_source_that_cannot_be_kept_is_refused() {
    let api = Api::new();
    for source in ["", "a\nb", &"x".repeat(1025)] {
        let wanted = json!({"name": "a", "size_bytes": 512, "source": source});
        api.post("/v1/images", &wanted).await.problem(ErrorCode::InvalidRequest);
    }
    let odd = json!({"name": "a", "size_bytes": 513, "source": "b"});
    api.post("/v1/images", &odd).await.problem(ErrorCode::InvalidSize);
}

#[tokio::test]
async fn a_scrub_is_begun_once_and_shown() {
    let api = Api::new();
    let none: Scrub = api.call("GET", "/v1/pool/scrub").await.json();
    assert!(!none.is_running && none.begun_at.is_none());
    let begun: Scrub = api.post("/v1/pool/scrub", &json!({"now": true})).await.json();
    assert!(begun.is_running && !begun.is_paced);
    assert_eq!(api.call("GET", "/v1/pool/scrub").await.json::<Scrub>(), begun);
    api.post("/v1/pool/scrub", &json!({"later": true})).await.problem(ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_volume_begins_as_an_image() {
    let api = Api::new();
    let image = json!({"name": "os", "size_bytes": 8192, "source": "a"});
    api.post("/v1/images", &image).await;
    let volume = |name: &str| json!({"name": name, "image": "os"});
    api.post("/v1/volumes", &volume("vm-1")).await.problem(ErrorCode::ImageImporting);
    api.post("/v1/images/os/mark", &json!({"copied_bytes": 8192})).await;
    api.post("/v1/images/os/seal", &json!({})).await;
    let made: Volume = api.post("/v1/volumes", &volume("vm-1")).await.json();
    assert_eq!(made.size_bytes, 8192);
    let larger = json!({"name": "vm-2", "image": "os", "size": "1M"});
    assert_eq!(api.post("/v1/volumes", &larger).await.json::<Volume>().size_bytes, 1 << 20);
    api.post("/v1/volumes", &json!({"name": "vm-3", "image": "none"})).await.problem(ErrorCode::ImageNotFound);
    api.post("/v1/volumes", &json!({"name": "vm-3"})).await.problem(ErrorCode::InvalidRequest);
}
