//! Who may do what, by the API's own document: every route with every role, and with another tenant's names.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[expect(dead_code, reason = "the API's other tests use the rest")]
mod memory;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use control::api::{Options, router};
use control::{
    Books, Journals, KeepHistory, Name, NewAccountEntry, NewToken, Quota, Role, Secret, Service, SetQos, VolumeName,
    VolumeSize,
};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use memory::{ADMIN, MemoryService};
use metering::ledger::{Date, Kind};

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tempfile::TempDir;
use tower::ServiceExt;
use units::TenantId;

/// The roles as the matrix has them: of a tenant or of all.
const HOLDERS: [(&str, Role, bool); 8] = [
    ("provider-admin", Role::ProviderAdmin, false),
    ("operator", Role::Operator, false),
    ("billing", Role::Billing, false),
    ("auditor", Role::Auditor, false),
    ("tenant-admin", Role::TenantAdmin, true),
    ("tenant-user", Role::TenantUser, true),
    ("tenant's auditor", Role::Auditor, true),
    ("tenant's billing", Role::Billing, true),
];

/// Who may, in the order of the holders: `y` may.
const EXPECTED: &[(&str, &str, &str)] = &[
    ("GET", "/v1/health", "yyyyyyyy"),
    ("GET", "/v1/ready", "yyyy----"),
    ("GET", "/v1/openapi.json", "yyyyyyyy"),
    ("GET", "/metrics", "yyyy----"),
    ("GET", "/v1/pool", "yyyy----"),
    ("GET", "/v1/pool/scrub", "yyyy----"),
    ("POST", "/v1/pool/scrub", "yy------"),
    ("GET", "/v1/volumes", "yyyyyyyy"),
    ("POST", "/v1/volumes", "yy--yy--"),
    ("GET", "/v1/volumes/{name}", "yyyyyyyy"),
    ("DELETE", "/v1/volumes/{name}", "yy--yy--"),
    ("POST", "/v1/volumes/{name}/resize", "yy--yy--"),
    ("POST", "/v1/volumes/{name}/history", "yy--yy--"),
    ("POST", "/v1/volumes/{name}/qos", "yy------"),
    ("POST", "/v1/volumes/{name}/clone", "yy--yy--"),
    ("POST", "/v1/volumes/{name}/rollback", "yy--yy--"),
    ("GET", "/v1/mirrors", "yyyyyyyy"),
    ("GET", "/v1/volumes/{name}/mirror", "yyyyyyyy"),
    ("POST", "/v1/volumes/{name}/mirror", "yy------"),
    ("DELETE", "/v1/volumes/{name}/mirror", "yy------"),
    ("POST", "/v1/volumes/{name}/move", "yy------"),
    ("POST", "/v1/volumes/{name}/failover", "yy------"),
    ("GET", "/v1/snapshots", "yyyyyyyy"),
    ("POST", "/v1/snapshots", "yy--yy--"),
    ("GET", "/v1/snapshots/{name}", "yyyyyyyy"),
    ("DELETE", "/v1/snapshots/{name}", "yy--yy--"),
    ("POST", "/v1/snapshots/{name}/clone", "yy--yy--"),
    ("GET", "/v1/snapshots/{name}/diff", "yy--yy--"),
    ("POST", "/v1/snapshots/reclaim", "yy--yy--"),
    ("GET", "/v1/images", "yyyyyyyy"),
    ("POST", "/v1/images", "yy--yy--"),
    ("GET", "/v1/images/{name}", "yyyyyyyy"),
    ("DELETE", "/v1/images/{name}", "yy--yy--"),
    ("POST", "/v1/images/{name}/mark", "yy--yy--"),
    ("POST", "/v1/images/{name}/seal", "yy--yy--"),
    ("POST", "/v1/images/{name}/share", "yy------"),
    ("GET", "/v1/tenants", "yyyy----"),
    ("POST", "/v1/tenants", "y-------"),
    ("GET", "/v1/tenants/{name}", "yyyyyyyy"),
    ("DELETE", "/v1/tenants/{name}", "y-------"),
    ("POST", "/v1/tenants/{name}/quota", "y-------"),
    ("POST", "/v1/tenants/{name}/qos", "y-------"),
    ("PUT", "/v1/tenants/{name}/access", "y---y---"),
    ("POST", "/v1/tenants/{name}/suspend", "yy------"),
    ("POST", "/v1/tenants/{name}/resume", "yy------"),
    ("GET", "/v1/tokens", "y--yy-y-"),
    ("POST", "/v1/tokens", "y---y---"),
    ("DELETE", "/v1/tokens/{id}", "y---y---"),
    ("GET", "/v1/audit", "y--y--y-"),
    ("GET", "/v1/operations", "yyyyyyyy"),
    ("GET", "/v1/operations/{id}", "yyyyyyyy"),
    ("POST", "/v1/operations/{id}/cancel", "yy--yy--"),
    ("GET", "/v1/tenants/{name}/metrics", "yyyyyyyy"),
    ("GET", "/versions", "yyyyyyyy"),
    ("GET", "/v1/classes", "yyyyyyyy"),
    ("POST", "/v1/classes", "yy------"),
    ("GET", "/v1/classes/{name}", "yyyyyyyy"),
    ("PUT", "/v1/classes/{name}", "yy------"),
    ("DELETE", "/v1/classes/{name}", "yy------"),
    ("PUT", "/v1/volumes/{name}/class", "yy--yy--"),
    ("GET", "/v1/targets", "yyyyyyyy"),
    ("POST", "/v1/targets", "yy--yy--"),
    ("GET", "/v1/targets/{name}", "yyyyyyyy"),
    ("DELETE", "/v1/targets/{name}", "yy--yy--"),
    ("POST", "/v1/targets/{name}/luns", "yy--yy--"),
    ("PUT", "/v1/targets/{name}/luns/{lun}", "yy--yy--"),
    ("DELETE", "/v1/targets/{name}/luns/{lun}", "yy--yy--"),
    ("PUT", "/v1/targets/{name}/initiators/{initiator}", "y---y---"),
    ("DELETE", "/v1/targets/{name}/initiators/{initiator}", "y---y---"),
    ("GET", "/v1/rate-cards", "y-yy----"),
    ("POST", "/v1/rate-cards", "y-y-----"),
    ("GET", "/v1/rate-cards/{id}", "y-yy----"),
    ("DELETE", "/v1/rate-cards/{id}", "y-y-----"),
    ("GET", "/v1/tenants/{name}/billing", "y-yyy-yy"),
    ("PUT", "/v1/tenants/{name}/billing", "y-y-----"),
    ("GET", "/v1/tenants/{name}/invoices", "y-yyy-yy"),
    ("GET", "/v1/tenants/{name}/invoice", "y-yyy-yy"),
    ("POST", "/v1/tenants/{name}/invoice/issue", "y-y-----"),
    ("POST", "/v1/tenants/{name}/invoice/correct", "y-y-----"),
    ("GET", "/v1/tenants/{name}/budget", "y-yyy-yy"),
    ("PUT", "/v1/tenants/{name}/budget", "y-y-----"),
    ("DELETE", "/v1/tenants/{name}/budget", "y-y-----"),
    ("GET", "/v1/tenants/{name}/usage", "y-yyy-yy"),
    ("GET", "/v1/tenants/{name}/readings", "y-yyy-yy"),
    ("GET", "/v1/tenants/{name}/bundle", "y-yyy-yy"),
    ("GET", "/v1/ledger/key", "yyyyyyyy"),
    ("GET", "/v1/ledger/heads", "yyyyyyyy"),
];

const INITIATOR: &str = "iqn.2004-10.com.example:host";

const CARD: &str = r#"{"name":"all","currency":"EUR","effective_from":"2025-01-01T00:00:00Z","rounding":{"rule":"half_even"},"classes":[{"class":0,"name":"default","prices":[{"dimension":"written","unit":"gib_month","tiers":[{"price":"1"}]}]}]}"#;

struct Api {
    service: Arc<MemoryService>,
    router: Router,
    journals: Arc<Journals>,
    _folder: TempDir,
}

impl Api {
    /// With tenants `acme` and `beta`, each with a volume that is mirrored, its snapshot, a target that shows it, and an image; and
    /// the default one's.
    async fn new() -> Self {
        Self::with(Options { requests_per_second: None, ..Options::default() }).await
    }

    async fn with(options: Options) -> Self {
        let service = Arc::new(MemoryService::new());
        let folder = tempfile::tempdir().unwrap();
        let journals = Arc::new(Journals::open(folder.path()).unwrap());
        let router = router(Arc::clone(&service) as _, Arc::clone(&journals), options).unwrap();
        let size = VolumeSize::from_bytes(1 << 20).unwrap();
        for tenant in ["acme", "beta", "default"] {
            if tenant != "default" {
                service.create_tenant(tenant.parse().unwrap(), Quota::default()).await.unwrap();
            }
            let volume = format!("{tenant}/vm").parse().unwrap();
            service.create_volume(volume, size, KeepHistory::default(), None).await.unwrap();
            service.begin_mirror(format!("{tenant}/vm").parse().unwrap(), 2).await.unwrap();
            service.create_snapshots(vec![format!("{tenant}/vm@a").parse().unwrap()], None).await.unwrap();
            let source = ("source".to_owned(), String::new());
            service.import_image(format!("{tenant}/os").parse().unwrap(), size, source).await.unwrap();
            let [target, volume] = ["db", "vm"].map(|name| format!("{tenant}/{name}").parse::<VolumeName>().unwrap());
            service.create_target(target.clone()).await.unwrap();
            service.map_lun(target.clone(), volume, None).await.unwrap();
            service.allow_initiator(target, INITIATOR.to_owned(), None).await.unwrap();
        }
        let class = service.create_class("gold".parse().unwrap(), SetQos::default(), KeepHistory::default());
        class.await.unwrap();
        Self { service, router, journals, _folder: folder }.with_a_bill().await
    }

    /// June is measured, rated and signed, and nothing is issued.
    async fn with_a_bill(self) -> Self {
        let tenant = TenantId(self.service.show_tenant("acme".parse().unwrap()).await.unwrap().id);
        let (from, to) = (1_748_736_000_000, 1_751_328_000_000);
        let reading = |moment| memory::books::reading((900, tenant), 1 << 30, moment);
        self.service.books.measure(&[reading((0, from)), reading((1, to))]);
        let payload = format!("{{\"card\":{CARD}}}");
        let card = NewAccountEntry { tenant: TenantId::DEFAULT, kind: Kind::RateCard, time_ms: from, payload };
        self.service.books.append(vec![card]).await.unwrap();
        self.service.books.sign(Date::new(2025, 7, 1).unwrap());
        self
    }

    async fn token(&self, role: Role, tenant: Option<&str>) -> String {
        self.token_until(role, tenant, None).await
    }

    async fn token_until(&self, role: Role, tenant: Option<&str>, expires_at: Option<Timestamp>) -> String {
        let secret = Secret::generate().unwrap();
        let tenant: Option<Name> = tenant.map(|name| name.parse().unwrap());
        let new = NewToken { name: "t".parse().unwrap(), role, tenant, expires_at, hash: secret.hash() };
        secret.text(self.service.create_token(new).await.unwrap().id)
    }

    async fn text(&self, token: &str, path: &str) -> String {
        let request = Request::get(path).header(header::AUTHORIZATION, token).body(Body::empty()).unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    async fn ask(&self, token: &str, (method, path): (&str, &str), body: &Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("x-request-id", "same");
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let request = if token.is_empty() { request } else { request.header(header::AUTHORIZATION, token) };
        let answer = self.router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A path with a tenant's names in it, and a body that the route takes, with those too.
fn request(route: &str, method: &str, of: &str) -> (String, Value) {
    let vm = format!("{of}%2Fvm");
    let name = match route.split('/').nth(2) {
        Some("snapshots") => format!("{vm}@a"),
        Some("images") => format!("{of}%2Fos"),
        Some("tenants") => of.to_owned(),
        Some("targets") => format!("{of}%2Fdb"),
        // The provider's: no tenant has one.
        Some("classes") => "gold".to_owned(),
        _ => vm,
    };
    let body = match (method, route) {
        ("POST", "/v1/volumes") => json!({"name": format!("{of}/new"), "size": "1M"}),
        ("POST", "/v1/volumes/{name}/resize") => json!({"size": "2M"}),
        ("POST", "/v1/volumes/{name}/history") => json!({"seconds": 60}),
        ("POST", "/v1/volumes/{name}/qos") => json!({"iops": 1000}),
        ("POST", "/v1/volumes/{name}/clone") => json!({"name": format!("{of}/late"), "at": "2026-01-02T03:04:06Z"}),
        ("POST", "/v1/volumes/{name}/rollback") => json!({"snapshot": "a"}),
        ("POST", "/v1/volumes/{name}/mirror" | "/v1/volumes/{name}/move") => json!({"to": 2}),
        ("POST", "/v1/snapshots") => json!({"snapshots": [format!("{of}/vm@b")]}),
        ("POST", "/v1/snapshots/{name}/clone") => json!({"name": format!("{of}/clone")}),
        ("POST", "/v1/snapshots/reclaim") => json!({"snapshots": [format!("{of}/vm@a")]}),
        ("POST", "/v1/images") => json!({"name": format!("{of}/more"), "size_bytes": 512, "source": "x"}),
        ("POST", "/v1/images/{name}/mark") => json!({"copied_bytes": 512}),
        ("POST", "/v1/images/{name}/share") => json!({"all": true}),
        ("POST", "/v1/tenants/{name}/qos") => json!({"iops": 1000}),
        ("PUT", "/v1/tenants/{name}/access") => json!({"access": {"networks": ["10.0.0.0/8"]}}),
        ("POST", "/v1/tenants") => json!({"name": "gamma"}),
        ("POST", "/v1/targets") => json!({"name": format!("{of}/more")}),
        ("POST", "/v1/targets/{name}/luns") => json!({"volume": format!("{of}/vm"), "lun": 0}),
        ("PUT", "/v1/targets/{name}/luns/{lun}") => json!({"volume": format!("{of}/vm")}),
        ("PUT", "/v1/targets/{name}/initiators/{initiator}") => {
            json!({"chap": {"user": "host", "secret": "alj_secret of a host"}})
        }
        ("POST", "/v1/classes") => json!({"name": "silver"}),
        ("PUT", "/v1/volumes/{name}/class") => json!({"class": "gold"}),
        ("POST", "/v1/rate-cards") => serde_json::from_str(CARD).unwrap(),
        ("POST", "/v1/tenants/{name}/invoice/issue") => json!({"month": "2025-06"}),
        ("POST", "/v1/tenants/{name}/invoice/correct") => json!({"month": "2025-06", "reason": "test"}),
        ("PUT", "/v1/tenants/{name}/budget") => json!({"amount": "10"}),
        ("POST", "/v1/tokens") => json!({"name": "given", "role": "tenant-user", "tenant": of}),
        _ => json!({}),
    };
    let month = ["/invoice", "/usage", "/readings", "/bundle"].iter().any(|end| route.ends_with(end));
    let month = if month { "?month=2025-06" } else { "" };
    let path = route.replace("{name}", &name).replace("{id}", "9999").replace("{lun}", "0");
    (path.replace("{initiator}", INITIATOR) + month, body)
}

async fn documented(api: &Api) -> BTreeSet<(String, String)> {
    let (_, document) = api.ask(&bearer(ADMIN), ("GET", "/v1/openapi.json"), &Value::Null).await;
    let mut found = BTreeSet::from([("GET".to_owned(), "/v1/openapi.json".to_owned())]);
    for (path, item) in document["paths"].as_object().unwrap() {
        found.extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    found
}

/// P8. Every route of the document is in the table here, and with each role it is done or refused as the table says.
#[tokio::test]
async fn every_route_with_every_role() {
    let expected: BTreeSet<_> =
        EXPECTED.iter().map(|(method, route, _)| ((*method).to_owned(), (*route).to_owned())).collect();
    assert_eq!(documented(&Api::new().await).await, expected);
    for (method, route, may) in EXPECTED.iter().copied() {
        for ((holder, role, is_of_tenant), may) in HOLDERS.into_iter().zip(may.chars()) {
            // Each time anew, since some of it deletes.
            let api = Api::new().await;
            let token = bearer(&api.token(role, is_of_tenant.then_some("acme")).await);
            let (path, body) = request(route, method, "acme");
            let (status, answer) = api.ask(&token, (method, &path), &body).await;
            let is_refused = (status, &answer["code"]) == (403, &json!("forbidden"));
            assert_eq!(!is_refused, may == 'y', "{holder}: {method} {path}: {status} {answer}");
            let is_later = ["history_not_found", "invoice_not_found"].contains(&answer["code"].as_str().unwrap_or(""));
            let is_there = status != 404 || route.contains("{id}") || is_later;
            assert!(is_there, "{holder}: {method} {path}: {answer}");
        }
    }
}

/// P8. Whatever a tenant's token names of another tenant is answered as what does not exist, word for word, and nothing changes.
#[tokio::test]
async fn what_is_another_tenants_is_as_if_it_were_not_there() {
    for (method, route, _) in EXPECTED.iter().copied() {
        let (theirs, none) = (request(route, method, "beta"), request(route, method, "nobody"));
        if theirs == none {
            continue;
        }
        for role in [Role::TenantAdmin, Role::TenantUser, Role::Auditor] {
            let api = Api::new().await;
            let token = bearer(&api.token(role, Some("acme")).await);
            let answer_of = |(path, body): (String, Value)| {
                let (api, token) = (&api, &token);
                async move { api.ask(token, (method, &path), &body).await }
            };
            let (status, answer) = answer_of(theirs.clone()).await;
            let (status_of_none, answer_of_none) = answer_of(none.clone()).await;
            assert!(matches!(status, 403 | 404), "{method} {route}: {status} {answer}");
            let hidden = answer.to_string().replace("beta", "NAME");
            let hidden_none = answer_of_none.to_string().replace("nobody", "NAME");
            assert_eq!((status, hidden), (status_of_none, hidden_none), "{method} {route}");
        }
    }
}

/// P8. Lists show a tenant what is its own.
#[tokio::test]
async fn lists_are_of_the_callers_tenant() {
    let api = Api::new().await;
    let names = |answer: &Value, of: &str| -> Vec<String> {
        // A mirror has its volume's name.
        let name_of = |item: &Value| item.get("name").unwrap_or_else(|| &item["volume"]).as_str().unwrap().to_owned();
        answer[of].as_array().unwrap().iter().map(name_of).collect()
    };
    let own = bearer(&api.token(Role::TenantUser, Some("acme")).await);
    let all = bearer(ADMIN);
    for (path, of, owned, every) in [
        ("/v1/volumes", "volumes", vec!["acme/vm"], vec!["acme/vm", "beta/vm", "vm"]),
        ("/v1/snapshots", "snapshots", vec!["acme/vm@a"], vec!["acme/vm@a", "beta/vm@a", "vm@a"]),
        ("/v1/mirrors", "mirrors", vec!["acme/vm"], vec!["acme/vm", "beta/vm", "vm"]),
        ("/v1/images", "images", vec!["acme/os"], vec!["acme/os", "beta/os", "os"]),
        ("/v1/targets", "targets", vec!["acme/db"], vec!["acme/db", "beta/db", "db"]),
    ] {
        let ask = async |token: &str, path: &str| names(&api.ask(token, ("GET", path), &Value::Null).await.1, of);
        assert_eq!(ask(&own, path).await, owned);
        assert_eq!(ask(&own, &format!("{path}?tenant=acme")).await, owned);
        assert_eq!(ask(&all, path).await, every);
        assert_eq!(ask(&all, &format!("{path}?tenant=acme")).await, owned);
        let (status, _) = api.ask(&own, ("GET", &format!("{path}?tenant=beta")), &Value::Null).await;
        assert_eq!(status, 404);
    }
    api.ask(&all, ("POST", "/v1/images/os/share"), &json!({"tenants": ["acme"]})).await;
    let (_, images) = api.ask(&own, ("GET", "/v1/images"), &Value::Null).await;
    assert_eq!(names(&images, "images"), ["acme/os", "os"]);
    assert_eq!((&images["images"][1]["source"], &images["images"][1]["nbd_uris"]), (&json!(""), &json!([])));
    // A bare name is the caller's own.
    let (status, volume) = api.ask(&own, ("GET", "/v1/volumes/vm"), &Value::Null).await;
    assert_eq!((status, &volume["name"], &volume["tenant"]), (200, &json!("acme/vm"), &json!("acme")));
}

/// P8. Without a token that is good now nothing is answered but that the daemon lives, and what is wrong with it is not told.
#[tokio::test]
async fn without_a_good_token_nothing_is_answered() {
    let api = Api::new().await;
    let revoked = api.token(Role::ProviderAdmin, None).await;
    let id = revoked.split('_').nth(1).unwrap().to_owned();
    let (status, _) = api.ask(&bearer(ADMIN), ("DELETE", &format!("/v1/tokens/{id}")), &Value::Null).await;
    assert_eq!(status, 204);
    let wrong = format!("{}{}", &ADMIN[..ADMIN.len() - 1], "1");
    let bad = [
        "".to_owned(),
        bearer(""),
        bearer(&wrong),
        bearer(&revoked),
        bearer("alj_0_"),
        ADMIN.to_owned(),
        "Basic x".into(),
    ];
    let mut refusals = BTreeSet::new();
    for token in &bad {
        for (method, route, _) in EXPECTED.iter().copied().chain([("GET", "/nowhere", ""), ("PATCH", "/v1/pool", "")]) {
            let (path, body) = request(route, method, "acme");
            let (status, answer) = api.ask(token, (method, &path), &body).await;
            if ["/v1/health", "/versions"].contains(&route) {
                assert_eq!(status, 200);
                continue;
            }
            assert_eq!(status, 401, "{token}: {method} {path}: {answer}");
            refusals.insert(answer.to_string());
        }
    }
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    let ended = api.token_until(Role::Auditor, None, Some(Timestamp::now() - SignedDuration::from_secs(1))).await;
    let (status, answer) = api.ask(&bearer(&ended), ("GET", "/v1/volumes"), &Value::Null).await;
    assert_eq!((status, &answer["code"]), (401, &json!("unauthenticated")));
    assert!(answer["detail"].as_str().unwrap().contains("ended"));
    let open = Options { is_authentication_off: true, ..Options::default() };
    let open = router(Arc::clone(&api.service) as _, Arc::clone(&api.journals), open).unwrap();
    let open = Api { router: open, ..api };
    assert_eq!(open.ask("", ("GET", "/v1/volumes"), &Value::Null).await.0, 200);
}

/// P8. Nobody gives away more than he has, and a tenant's tokens are its own affair.
#[tokio::test]
async fn a_token_gives_no_more_than_it_has() {
    let api = Api::new().await;
    let admin = bearer(&api.token(Role::TenantAdmin, Some("acme")).await);
    let make = async |token: &str, body: Value| {
        let (status, answer) = api.ask(token, ("POST", "/v1/tokens"), &body).await;
        (status, answer["code"].as_str().unwrap_or_default().to_owned(), answer)
    };
    for role in ["provider-admin", "operator", "billing"] {
        let (status, code, _) = make(&admin, json!({"name": "x", "role": role})).await;
        assert_eq!((status, code.as_str()), (403, "forbidden"), "{role}");
    }
    let (status, code, _) = make(&admin, json!({"name": "x", "role": "tenant-user", "tenant": "beta"})).await;
    assert_eq!((status, code.as_str()), (404, "tenant_not_found"));
    let (status, _, made) = make(&admin, json!({"name": "x", "role": "tenant-user"})).await;
    assert_eq!((status, &made["token"]["tenant"]), (201, &json!("acme")));
    let given = bearer(made["text"].as_str().unwrap());
    assert_eq!(api.ask(&given, ("GET", "/v1/volumes/vm"), &Value::Null).await.0, 200);
    for body in [
        json!({"name": "x", "role": "tenant-user"}),
        json!({"name": "x", "role": "operator", "tenant": "acme"}),
        json!({"name": "bootstrap", "role": "operator"}),
        json!({"name": "x", "role": "operator", "expires_in_seconds": u64::MAX}),
        json!({"name": "x", "role": "root"}),
    ] {
        assert_eq!(make(&bearer(ADMIN), body.clone()).await.0, 400, "{body}");
    }
    // It ends by itself unless that is asked for.
    let (_, _, made) = make(&bearer(ADMIN), json!({"name": "x", "role": "operator"})).await;
    assert!(made["token"]["expires_at"].is_string());
    let (_, _, made) = make(&bearer(ADMIN), json!({"name": "x", "role": "operator", "expires_in_seconds": 0})).await;
    assert!(made["token"].get("expires_at").is_none());
    let (_, listed) = api.ask(&admin, ("GET", "/v1/tokens"), &Value::Null).await;
    assert!(listed["tokens"].as_array().unwrap().iter().all(|token| token["tenant"] == "acme"), "{listed}");
    assert!(!listed.to_string().contains("alj_"), "{listed}");
    // One of another tenant, or of none, is not there for it.
    for id in ["0", "9999", "x"] {
        let (status, answer) = api.ask(&admin, ("DELETE", &format!("/v1/tokens/{id}")), &Value::Null).await;
        assert_eq!((status, &answer["code"]), (404, &json!("token_not_found")), "{id}");
    }
}

/// P8. A suspended tenant's tokens read, and change nothing.
#[tokio::test]
async fn a_suspended_tenant_reads_only() {
    let api = Api::new().await;
    let token = bearer(&api.token(Role::TenantAdmin, Some("acme")).await);
    let suspend = api.ask(&bearer(ADMIN), ("POST", "/v1/tenants/acme/suspend"), &Value::Null).await;
    assert_eq!((suspend.0, &suspend.1["is_suspended"]), (200, &json!(true)));
    for (method, route, may) in EXPECTED.iter().copied() {
        let is_allowed = may.chars().nth(4) == Some('y');
        let (path, body) = request(route, method, "acme");
        let (status, answer) = api.ask(&token, (method, &path), &body).await;
        if is_allowed && method != "GET" {
            assert_eq!((status, &answer["code"]), (409, &json!("tenant_suspended")), "{method} {path}");
        } else if is_allowed && !route.contains("{id}") {
            assert_eq!(status, 200, "{method} {path}: {answer}");
        }
    }
    let resumed = api.ask(&bearer(ADMIN), ("POST", "/v1/tenants/acme/resume"), &Value::Null).await;
    assert_eq!(resumed.0, 200);
    assert_eq!(api.ask(&token, ("DELETE", "/v1/volumes/vm"), &Value::Null).await.0, 204);
}

/// P8. A dry run of every route is answered as that would be, refusals too, and changes nothing: not what there is, not the audit
/// log, not the answers that are kept.
#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let lists = [
        "/v1/volumes",
        "/v1/mirrors",
        "/v1/snapshots",
        "/v1/images",
        "/v1/targets",
        "/v1/tenants",
        "/v1/tokens",
        "/v1/pool/scrub",
        "/v1/audit",
    ];
    for (method, route, _) in EXPECTED.iter().copied().filter(|(method, _, _)| *method != "GET") {
        let api = Api::new().await;
        let state = async || {
            let mut state = Vec::new();
            for path in lists {
                state.push(api.ask(&bearer(ADMIN), ("GET", path), &Value::Null).await.1);
            }
            Value::from(state)
        };
        let before = state().await;
        let (path, body) = request(route, method, "acme");
        let separator = if path.contains('?') { '&' } else { '?' };
        let tried = api.ask(&bearer(ADMIN), (method, &format!("{path}{separator}dry_run=true")), &body).await;
        assert_eq!(state().await, before, "{method} {path}");
        let (status, answer) = api.ask(&bearer(ADMIN), (method, &path), &body).await;
        if status < 300 {
            assert_eq!(
                (tried.0, &tried.1["dry_run"], &tried.1["status"]),
                (200, &json!(true), &json!(status)),
                "{path}"
            );
            assert_eq!(tried.1.get("answer").is_some(), !answer.is_null(), "{path}");
        } else {
            assert_eq!(tried, (status, answer), "{method} {path}");
        }
    }
    let api = Api::new().await;
    let user = bearer(&api.token(Role::Auditor, Some("acme")).await);
    let body = json!({"name": "x", "size": "1M"});
    assert_eq!(api.ask(&user, ("POST", "/v1/volumes?dry_run"), &body).await.0, 403);
    assert_eq!(api.ask(&bearer(ADMIN), ("POST", "/v1/volumes?dry_run=perhaps"), &body).await.0, 400);
    assert_eq!(api.ask(&bearer(ADMIN), ("POST", "/v1/volumes?dry_run=false"), &body).await.0, 201);
}

/// P8. Each change is in the audit log with who, what, whom and what came of it; no read is, and no secret.
#[tokio::test]
async fn every_change_leaves_its_trace() {
    for (method, route, may) in EXPECTED.iter().copied() {
        let api = Api::new().await;
        let (path, body) = request(route, method, "acme");
        api.ask(&bearer(ADMIN), (method, &path), &body).await;
        let (status, audited) = api.ask(&bearer(ADMIN), ("GET", "/v1/audit"), &Value::Null).await;
        assert_eq!(status, 200);
        let entries = audited["entries"].as_array().unwrap();
        // The two that change nothing that stays are no changes.
        let is_change = method != "GET" && !["/v1/snapshots/reclaim", "/v1/images/{name}/mark"].contains(&route);
        let is_asked = may.starts_with('y') && !(route == "/v1/tokens/{id}" && entries.is_empty());
        let is_asked = is_asked && route != "/v1/operations/{id}/cancel";
        assert_eq!(entries.len(), usize::from(is_change && is_asked), "{method} {path}: {audited}");
        for entry in entries {
            assert_eq!((&entry["token"], &entry["role"]), (&json!(0), &json!("provider-admin")), "{entry}");
            assert_eq!(entry["request_id"], "same");
            assert!(entry["outcome"] == "done" || entry["code"].is_string(), "{entry}");
            assert!(!entry["target"].as_str().unwrap().is_empty(), "{entry}");
        }
        assert!(!audited.to_string().contains("alj_"), "{audited}");
    }
}

/// P8. A tenant sees and cancels its own operations, and what is decided is cancelled by nobody.
#[tokio::test]
async fn operations_are_of_the_callers_tenant() {
    let api = Api::new().await;
    let own = bearer(&api.token(Role::TenantUser, Some("acme")).await);
    let (_, listed) = api.ask(&own, ("GET", "/v1/operations"), &Value::Null).await;
    let ids = |listed: &Value| -> Vec<String> {
        listed["operations"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let (mine, (_, all)) = (ids(&listed), api.ask(&bearer(ADMIN), ("GET", "/v1/operations"), &Value::Null).await);
    assert_eq!((mine.len(), ids(&all).len()), (2, 4), "{listed} {all}");
    for id in ids(&all) {
        let (status, answer) = api.ask(&own, ("GET", &format!("/v1/operations/{id}")), &Value::Null).await;
        let (cancelled, refusal) = api.ask(&own, ("POST", &format!("/v1/operations/{id}/cancel")), &json!({})).await;
        if !mine.contains(&id) {
            assert_eq!((status, &answer["code"]), (404, &json!("operation_not_found")), "{id}");
            assert_eq!((cancelled, &refusal["code"]), (404, &json!("operation_not_found")), "{id}");
        } else if id.starts_with("erase") {
            assert_eq!((status, cancelled, &refusal["code"]), (200, 409, &json!("operation_not_cancellable")));
        } else {
            assert_eq!((status, cancelled, &refusal["state"]), (200, 200, &json!("cancelled")), "{id}");
            assert_eq!(api.ask(&own, ("GET", "/v1/images/os"), &Value::Null).await.0, 404, "what there was is deleted");
        }
    }
}

/// P8. A tenant's figures are of its volumes alone.
#[tokio::test]
async fn a_tenants_metrics_are_its_own() {
    let api = Api::new().await;
    let own = bearer(&api.token(Role::TenantUser, Some("acme")).await);
    let text = api.text(&own, "/v1/tenants/acme/metrics").await;
    assert!(text.contains("aljibe_volume_size_bytes{volume=\"acme/vm\"} 1048576"), "{text}");
    assert!(!text.contains("beta/") && !text.contains("aljibe_pool") && !text.contains("aljibe_api"), "{text}");
    let (status, answer) = api.ask(&own, ("GET", "/v1/tenants/beta/metrics"), &Value::Null).await;
    assert_eq!((status, &answer["code"]), (404, &json!("tenant_not_found")));
    assert_eq!(api.ask(&bearer(ADMIN), ("GET", "/v1/tenants/nobody/metrics"), &Value::Null).await.0, 404);
}

/// P8. Who was refused is told, apart from the changes and however often it tried in few lines.
#[tokio::test]
async fn refusals_leave_their_trace() {
    let api = Api::new().await;
    let user = api.token(Role::TenantUser, Some("acme")).await;
    for _ in 0..50 {
        api.ask("", ("GET", "/v1/volumes"), &Value::Null).await;
        api.ask(&bearer(&user), ("GET", "/v1/pool"), &Value::Null).await;
    }
    let (_, changes) = api.ask(&bearer(ADMIN), ("GET", "/v1/audit"), &Value::Null).await;
    assert_eq!(changes["entries"], json!([]));
    let (_, refused) = api.ask(&bearer(ADMIN), ("GET", "/v1/audit?refused"), &Value::Null).await;
    let of = |code: &str| -> Vec<Value> {
        refused["entries"].as_array().unwrap().iter().filter(|entry| entry["code"] == code).cloned().collect()
    };
    for (code, action) in [("unauthenticated", "GET /v1/volumes"), ("forbidden", "GET /v1/pool")] {
        let entries = of(code);
        assert_eq!(entries.len(), 2, "{refused}");
        assert_eq!((&entries[0]["times"], &entries[0]["outcome"]), (&json!(49), &json!("refused")));
        assert_eq!((&entries[1]["action"], entries[1].get("times")), (&json!(action), None));
        assert_eq!(entries[0].get("token").is_some(), code == "forbidden");
    }
    assert!(!refused.to_string().contains("alj_"), "{refused}");
    let auditor = bearer(&api.token(Role::Auditor, Some("acme")).await);
    let (_, own) = api.ask(&auditor, ("GET", "/v1/audit?refused=true"), &Value::Null).await;
    assert!(own["entries"].as_array().unwrap().iter().all(|entry| entry["tenant"] == "acme"), "{own}");
}

/// P8. Who asks too often by a token is told to wait, and keeps nobody else.
#[tokio::test]
async fn a_token_has_a_rate() {
    let options = Options { requests_per_second: std::num::NonZeroU32::new(1), ..Options::default() };
    let api = Api::with(options).await;
    let user = bearer(&api.token(Role::TenantUser, Some("acme")).await);
    let mut passed = 0;
    let refused = loop {
        let (status, answer) = api.ask(&user, ("GET", "/v1/volumes"), &Value::Null).await;
        if status != 200 {
            break (status, answer["code"].clone());
        }
        passed += 1;
        assert!(passed < 1000);
    };
    assert_eq!(refused, (429, json!("rate_limited")));
    assert!(passed >= 10, "{passed}");
    assert_eq!(api.ask(&bearer(ADMIN), ("GET", "/v1/volumes"), &Value::Null).await.0, 200);
}

/// P8. An auditor of a tenant reads of that tenant alone, page by page.
#[tokio::test]
async fn a_tenants_auditor_reads_of_its_tenant() {
    let api = Api::new().await;
    for of in ["acme", "beta", "acme"] {
        let token = bearer(&api.token(Role::TenantUser, Some(of)).await);
        api.ask(&token, ("POST", "/v1/volumes"), &json!({"name": "new", "size": "1M"})).await;
    }
    api.ask(&bearer(ADMIN), ("DELETE", "/v1/volumes/acme%2Fnew"), &Value::Null).await;
    let auditor = bearer(&api.token(Role::Auditor, Some("acme")).await);
    let read = async |query: &str| {
        let (_, answer) = api.ask(&auditor, ("GET", &format!("/v1/audit{query}")), &Value::Null).await;
        let entries = answer["entries"].as_array().unwrap().clone();
        entries
            .into_iter()
            .map(|entry| (entry["number"].as_u64().unwrap(), entry["action"].clone()))
            .collect::<Vec<_>>()
    };
    let create = json!("volume.create");
    assert_eq!(read("").await, [(4, json!("volume.delete")), (3, create.clone()), (1, create.clone())]);
    assert_eq!(read("?before=4&limit=1").await, [(3, create.clone())]);
    assert_eq!(read("?before=3").await, [(1, create)]);
    let (_, all) = api.ask(&bearer(ADMIN), ("GET", "/v1/audit"), &Value::Null).await;
    assert_eq!(all["entries"][1]["code"], "volume_exists", "{all}");
    assert_eq!(api.ask(&auditor, ("GET", "/v1/audit?tenant=beta"), &Value::Null).await.0, 404);
}

/// P8. What is wrong with a LUN or an initiator is told, a target's volume is told by the caller's own words, and no secret comes back.
#[tokio::test]
async fn targets_are_told_by_their_names() {
    let api = Api::new().await;
    let own = bearer(&api.token(Role::TenantAdmin, Some("acme")).await);
    let ask = async |method: &str, path: &str, body: Value| api.ask(&own, (method, path), &body).await;
    let (status, made) = ask("POST", "/v1/targets", json!({"name": "more"})).await;
    assert_eq!(
        (status, &made["name"], &made["iqn"]),
        (201, &json!("acme/more"), &json!("iqn.2026-11.io.aljibe:acme:more"))
    );
    let (status, mapped) = ask("POST", "/v1/targets/more/luns", json!({"volume": "vm", "lun": 7})).await;
    assert_eq!((status, mapped), (201, json!({"lun": 7, "volume": "acme/vm", "size_bytes": 1 << 20})));
    let (status, refused) = ask("PUT", "/v1/targets/more/luns/0", json!({"volume": "beta/vm"})).await;
    assert_eq!((status, &refused["code"]), (404, &json!("volume_not_found")));
    for lun in ["256", "-1", "+1", "x"] {
        let (status, refused) = ask("PUT", &format!("/v1/targets/more/luns/{lun}"), json!({"volume": "vm"})).await;
        assert_eq!((status, &refused["code"]), (400, &json!("invalid_request")), "{lun}");
    }
    let chap =
        json!({"chap": {"user": "host", "secret": "of the host", "mutual": {"user": "us", "secret": "of the target"}}});
    let (status, shown) = ask("PUT", "/v1/targets/more/initiators/%2A", chap).await;
    assert_eq!(
        (status, &shown["initiators"]),
        (200, &json!([{"name": "*", "chap_user": "host", "mutual_user": "us"}]))
    );
    assert!(!shown.to_string().contains("of the"), "{shown}");
    let (_, audited) = api.ask(&bearer(ADMIN), ("GET", "/v1/audit"), &Value::Null).await;
    assert_eq!(audited["entries"][0]["target"], "acme/more *", "{audited}");
    assert!(!audited.to_string().contains("of the"), "{audited}");
    for (path, code) in [
        ("/v1/targets/more/luns/1", "lun_not_found"),
        ("/v1/targets/more/initiators/iqn.2004-10.com.example:none", "initiator_not_found"),
        ("/v1/targets/none", "target_not_found"),
    ] {
        let (status, refused) = ask("DELETE", path, Value::Null).await;
        assert_eq!((status, &refused["code"]), (404, &json!(code)));
    }
    assert_eq!(ask("DELETE", "/v1/targets/more", Value::Null).await.0, 204);
}
