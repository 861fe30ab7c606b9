//! Bills through the API, over a real ledger in memory: each use is charged once, and a tenant can check that alone.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[expect(dead_code, reason = "the API's other tests use the rest")]
mod memory;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use control::api::{Options, router};
use control::{BudgetWatch, Journals, Quota, Service};
use http_body_util::BodyExt;
use jiff::Timestamp;
use memory::{ADMIN, MemoryService};
use metering::ledger::{Date, Kind, PublicKey, Trust, Verifier};
use metering::{Invoice, Reading};
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;
use tower::ServiceExt;
use units::TenantId;

const JUNE: u64 = 1_748_736_000_000;
const JULY: u64 = 1_751_328_000_000;
const AUGUST: u64 = 1_754_006_400_000;
const GIB: u128 = 1 << 30;

struct Desk {
    service: Arc<MemoryService>,
    router: Router,
    acme: TenantId,
    _folder: TempDir,
}

/// An answer, as text.
struct Answered {
    status: u16,
    text: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn code(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

impl Desk {
    async fn new() -> Self {
        let service = Arc::new(MemoryService::new());
        let folder = tempfile::tempdir().unwrap();
        let journals = Arc::new(Journals::open(folder.path()).unwrap());
        let router = router(Arc::clone(&service) as _, journals, Options::default()).unwrap();
        let acme = TenantId(service.create_tenant("acme".parse().unwrap(), Quota::default()).await.unwrap().id);
        service.books.admit(TenantId::DEFAULT);
        Self { service, router, acme, _folder: folder }
    }

    /// With a card for all: a euro for a GiB-month.
    async fn with_card() -> Self {
        let desk = Self::new().await;
        let added = desk.ask("POST", "/v1/rate-cards", &card("list", "2025-01-01T00:00:00Z", "1")).await;
        assert_eq!(added.status, 201, "{}", added.text);
        desk
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Answered {
        self.ask_as(method, path, (body, "")).await
    }

    async fn ask_as(&self, method: &str, path: &str, (body, accept): (&Value, &str)) -> Answered {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {ADMIN}")).header(header::ACCEPT, accept);
        let answer = self.router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answered { status, text: String::from_utf8(bytes).unwrap() }
    }

    async fn get(&self, path: &str) -> Answered {
        self.ask("GET", path, &Value::Null).await
    }

    async fn issue(&self, month: &str) -> Answered {
        self.ask("POST", "/v1/tenants/acme/invoice/issue", &json!({ "month": month })).await
    }

    /// `volume` holds so many GiB in class 0 from one moment to another.
    fn holds(&self, volume: u64, gib: u128, (from, to): (u64, u64)) {
        self.service.books.measure(&[self.reading(volume, gib, (0, from)), self.reading(volume, gib, (1, to))]);
    }

    fn reading(&self, volume: u64, gib: u128, moment: (u64, u64)) -> Reading {
        memory::books::reading((volume, self.acme), gib * GIB, moment)
    }
}

fn card(name: &str, from: &str, price: &str) -> Value {
    let price = json!({"dimension": "written", "unit": "gib_month", "tiers": [{"price": price}]});
    json!({"name": name, "currency": "EUR", "effective_from": from, "rounding": {"rule": "half_even"},
        "classes": [{"class": 0, "name": "default", "prices": [price]}]})
}

/// P7. A month is issued once, however often and by how many it is asked for; what was issued is what is shown from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_month_has_one_invoice() {
    let desk = Arc::new(Desk::with_card().await);
    desk.holds(7, 10, (JUNE, JULY));
    let open = desk.get("/v1/tenants/acme/invoice?month=2025-06").await;
    assert_eq!((open.status, &open.json()["total"]), (200, &json!("10.00")));
    let asked = (0..8).map(|_| {
        tokio::spawn({
            let desk = Arc::clone(&desk);
            async move { desk.issue("2025-06").await }
        })
    });
    let mut made = 0;
    let mut texts = std::collections::BTreeSet::new();
    for asked in asked.collect::<Vec<_>>() {
        let answered = asked.await.unwrap();
        made += u32::from(answered.status == 201);
        assert!(matches!(answered.status, 200 | 201), "{}", answered.text);
        texts.insert(answered.text);
    }
    assert_eq!((made, texts.len()), (1, 1));
    let shown = desk.get("/v1/tenants/acme/invoice?month=2025-06").await;
    assert_eq!(texts.first(), Some(&shown.text));
    let id = format!("T{}-0001", desk.acme);
    assert_eq!(shown.json()["state"]["issued"]["id"], json!(id));
    let list = desk.get("/v1/tenants/acme/invoices").await.json();
    assert_eq!((list["invoices"].as_array().unwrap().len(), &list["invoices"][0]["total"]), (1, &json!("10.00")));
    // What comes later changes nothing of it.
    desk.holds(8, 5, (JUNE, JULY));
    assert_eq!(desk.get("/v1/tenants/acme/invoice?month=2025-06").await.text, shown.text);
}

/// P7. An append that fails leaves no invoice and takes no number.
#[tokio::test]
async fn an_append_that_fails_issues_nothing() {
    let desk = Desk::with_card().await;
    desk.holds(7, 10, (JUNE, JULY));
    desk.service.books.fail_after(Some(0));
    assert_eq!(desk.issue("2025-06").await.code(), (503, "unavailable".to_owned()));
    assert_eq!(desk.service.books.account_len(desk.acme), 0);
    desk.service.books.fail_after(None);
    let issued = desk.issue("2025-06").await;
    assert_eq!((issued.status, &issued.json()["state"]["issued"]["id"]), (201, &json!(format!("T{}-0001", desk.acme))));
}

/// P7. A month that goes on is not issued, nor one without a price; both are shown as far as can be said.
#[tokio::test]
async fn what_cannot_be_issued_says_why() {
    let desk = Desk::new().await;
    desk.holds(7, 10, (JUNE, JULY));
    assert_eq!(desk.issue("2025-06").await.code(), (409, "not_rated".to_owned()));
    desk.ask("POST", "/v1/rate-cards", &card("list", "2025-01-01T00:00:00Z", "1")).await;
    let now = Timestamp::now();
    let month = now.to_zoned_datetime(jiff::tz::TimeZone::UTC).strftime("%Y-%m").to_string();
    assert_eq!(desk.issue(&month).await.code(), (409, "month_open".to_owned()));
    assert_eq!(desk.issue("2025-6").await.code(), (400, "invalid_request".to_owned()));
    // What the registers say now is on the open month, and goes on in its forecast.
    let now_ms = u64::try_from(now.as_millisecond()).unwrap();
    desk.service.books.measure(&[desk.reading(9, 4, (0, now_ms - 60_000))]);
    desk.service.books.set_now(vec![desk.reading(9, 4, (1, now_ms))]);
    let open = desk.get(&format!("/v1/tenants/acme/invoice?month={month}")).await.json();
    assert!(open["state"]["open"]["forecast"].is_string(), "{open}");
    assert!(open["lines"].as_array().unwrap().iter().any(|line| line["charge"]["kind"] == "usage"), "{open}");
}

/// P7. What was issued wrong is put right on the next invoice, by lines that take back and lines as they should be; once.
#[tokio::test]
async fn a_correction_comes_with_the_next_invoice() {
    let desk = Desk::with_card().await;
    desk.holds(7, 10, (JUNE, JULY));
    desk.issue("2025-06").await;
    let correct = async || {
        let body = json!({"month": "2025-06", "reason": "a late reading"});
        desk.ask("POST", "/v1/tenants/acme/invoice/correct", &body).await
    };
    assert_eq!(correct().await.code(), (409, "nothing_to_correct".to_owned()));
    desk.holds(8, 5, (JUNE, JULY));
    let preview = correct().await;
    assert_eq!((preview.status, &preview.json()["amount"]), (200, &json!("5.00")), "{}", preview.text);
    assert_eq!(correct().await.status, 200);
    let list = desk.get("/v1/tenants/acme/invoices").await.json();
    assert_eq!(list["corrections"], json!([{"month": "2025-06", "reason": "a late reading"}]));
    desk.holds(11, 1, (JULY, AUGUST));
    let july = desk.issue("2025-07").await.json();
    assert_eq!(july["total"], "6.00", "{july}");
    let kinds: Vec<_> =
        july["lines"].as_array().unwrap().iter().map(|line| line["correction"]["kind"].clone()).collect();
    assert_eq!(kinds, [Value::Null, json!("reversal"), json!("corrected")]);
    assert_eq!(desk.get("/v1/tenants/acme/invoices").await.json()["corrections"], json!([]));
    assert_eq!(correct().await.code(), (409, "nothing_to_correct".to_owned()));
    let none = json!({"month": "2025-05", "reason": "x"});
    let none = desk.ask("POST", "/v1/tenants/acme/invoice/correct", &none).await;
    assert_eq!(none.code(), (404, "invoice_not_found".to_owned()));
}

/// P7. A tenant's bundle is right by the ledger's key alone, has each card before the lines that it made, and all of the invoice.
#[tokio::test]
async fn a_bundle_proves_the_invoice() {
    let desk = Desk::with_card().await;
    desk.holds(7, 10, (JUNE, JULY));
    assert_eq!(desk.get("/v1/tenants/acme/bundle?month=2025-06").await.code(), (404, "not_signed".to_owned()));
    let issued = desk.issue("2025-06").await.json();
    let today = Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
    let number = |number: i8| u8::try_from(number).unwrap();
    let today = Date::new(today.year().unsigned_abs(), number(today.month()), number(today.day())).unwrap();
    desk.service.books.sign(today);
    let bundle = desk.get("/v1/tenants/acme/bundle?month=2025-06").await;
    let key = desk.get("/v1/ledger/key").await.json()["key"].as_str().unwrap().to_owned();
    let trust = Trust { keys: vec![PublicKey::parse(&key).unwrap()], heads: Vec::new() };
    let (mut verifier, mut kinds) = (Verifier::new(trust.clone()), Vec::new());
    verifier.push(bundle.text.as_bytes(), &mut |entry| kinds.push(entry.kind)).unwrap();
    let verified = verifier.finish().unwrap();
    assert_eq!((verified.tenant, verified.entries), (desk.acme, 4));
    assert_eq!(kinds, [Kind::Readings, Kind::RateCard, Kind::InvoiceLine, Kind::Invoice]);
    assert!(bundle.text.contains(issued["state"]["issued"]["id"].as_str().unwrap()));
    let changed = bundle.text.replacen("10.00", "10.01", 1);
    assert!(metering::ledger::verify(changed.as_bytes(), trust).is_err());
    let heads = desk.get("/v1/ledger/heads").await.json();
    assert_eq!((heads["heads"].as_array().unwrap().len(), &heads["heads"][0]["number"]), (1, &json!(1)));
    let account = desk.get("/v1/tenants/acme/bundle?month=2025-06&books=account").await;
    assert!(!account.text.contains("\"readings\"") && account.status == 200);
}

/// P7. Who wants to find a bill anew is given the readings that it is made of, and no other tenant's.
#[tokio::test]
async fn the_readings_of_a_bill_are_given_one_a_line() {
    let desk = Desk::with_card().await;
    assert_eq!(desk.get("/v1/tenants/acme/readings?month=2025-06").await.text, "");
    desk.holds(7, 10, (JUNE, JULY));
    let of_another = Reading { tenant: TenantId::DEFAULT, ..desk.reading(8, 1, (0, JUNE)) };
    desk.service.books.measure(&[of_another]);
    let given = desk.get("/v1/tenants/acme/readings?month=2025-06").await;
    let readings: Vec<Reading> = given.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(readings, [desk.reading(7, 10, (0, JUNE)), desk.reading(7, 10, (1, JULY))]);
}

/// P7. What a change of a volume costs is told before it is made, and nothing of a class that has no price.
#[tokio::test]
async fn a_dry_run_tells_the_price() {
    let desk = Desk::new().await;
    let wanted = |gib: u64| json!({"name": "acme/vm", "size_bytes": gib << 30});
    let unpriced = desk.ask("POST", "/v1/volumes?dry_run=true", &wanted(10)).await.json();
    assert_eq!((&unpriced["status"], unpriced.get("price")), (&json!(201), None));
    let price = |dimension: &str, price: &str| json!({"dimension": dimension, "unit": "gib_month", "tiers": [{"price": price}]});
    let mut card = card("list", "2025-01-01T00:00:00Z", "1");
    card["classes"][0]["prices"] = json!([price("provisioned", "0.25"), price("written", "1")]);
    card["classes"][0]["minimum"] = json!("1000");
    assert_eq!(desk.ask("POST", "/v1/rate-cards", &card).await.status, 201);

    let tried = desk.ask("POST", "/v1/volumes?dry_run=true", &wanted(10)).await.json();
    let costs = |least: &str, most: &str| json!({"least": least, "most": most});
    assert_eq!((&tried["price"]["after"], &tried["price"]["currency"]), (&costs("2.50", "12.50"), &json!("EUR")));
    assert_eq!(tried["price"].get("before"), None);
    assert_eq!(desk.get("/v1/volumes/acme%2Fvm").await.status, 404);
    desk.ask("POST", "/v1/volumes", &wanted(10)).await;
    let larger = json!({"size_bytes": 20_u64 << 30});
    let tried = desk.ask("POST", "/v1/volumes/acme%2Fvm/resize?dry_run=true", &larger).await.json();
    assert_eq!(tried["price"]["before"], costs("2.50", "12.50"));
    assert_eq!(tried["price"]["after"], costs("5.00", "25.00"));
}

/// P7. A tenant does not go before what it used is billed, unless by force; without a price nothing is to be billed.
#[tokio::test]
async fn a_tenant_is_billed_before_it_goes() {
    let desk = Desk::new().await;
    let delete = async |query: &str| desk.ask("DELETE", &format!("/v1/tenants/acme{query}"), &Value::Null).await;
    let month = Timestamp::now().strftime("%Y-%m").to_string();
    let begin = u64::try_from(metering::Period::of_month(&month, "UTC").unwrap().span().from.as_millisecond()).unwrap();
    desk.holds(7, 100_000, (begin, begin + 1000));
    assert_eq!(delete("?dry_run=true").await.status, 200);
    let added = desk.ask("POST", "/v1/rate-cards", &card("list", "2025-01-01T00:00:00Z", "1")).await;
    assert_eq!(added.status, 201, "{}", added.text);
    for query in ["", "?dry_run=true", "?force=false"] {
        assert_eq!(delete(query).await.code(), (409, "tenant_unbilled".to_owned()), "{query}");
    }
    for query in ["?forced=true", "?dryrun=true", "?dry%5Frun=1&force=true&x", "?force&force"] {
        assert_eq!(delete(query).await.code(), (400, "invalid_request".to_owned()), "{query}");
    }
    assert_eq!(delete("?force=true").await.status, 204);
    assert_eq!(delete("").await.code(), (404, "tenant_not_found".to_owned()));
}

/// P7. Each invoice comes with the cards that it was made by, in the provider's own account too, which they do not change.
#[tokio::test]
async fn each_invoice_comes_with_its_cards() {
    let desk = Desk::with_card().await;
    let own = TenantId::DEFAULT;
    desk.holds(7, 10, (JUNE, AUGUST));
    let of_own = [(0, JUNE), (1, AUGUST)].map(|at| Reading { tenant: own, ..desk.reading(8, 5, at) });
    desk.service.books.measure(&of_own);
    for month in ["2025-06", "2025-07"] {
        assert_eq!(desk.issue(month).await.status, 201);
        let issued = desk.ask("POST", "/v1/tenants/default/invoice/issue", &json!({ "month": month })).await;
        assert_eq!((issued.status, &issued.json()["total"]), (201, &json!("5.00")), "{}", issued.text);
    }
    assert_eq!(desk.get("/v1/rate-cards").await.json()["rate_cards"].as_array().unwrap().len(), 1);
    for tenant in [desk.acme, own] {
        let entries = desk.service.books().account(tenant).await.unwrap();
        let cards = entries.iter().filter(|entry| entry.kind == Kind::RateCard && entry.payload.contains("invoice"));
        assert_eq!(cards.count(), 2);
    }
}

/// P7. An invoice of more volumes than fit into an entry is read as it was issued.
#[tokio::test]
async fn a_line_of_many_volumes_goes_on_in_further_entries() {
    let desk = Desk::with_card().await;
    for volume in 1..=1500 {
        desk.holds(volume, 1, (JUNE, JULY - 60_000 * (volume % 3)));
    }
    let issued = desk.issue("2025-06").await;
    assert_eq!(issued.status, 201, "{}", issued.text);
    assert!(desk.service.books.account_len(desk.acme) > 4);
    let shown = desk.get("/v1/tenants/acme/invoice?month=2025-06").await;
    assert_eq!(shown.text, issued.text);
    assert_eq!(Invoice::parse(&shown.text).unwrap().lines()[0].amount.to_string(), shown.json()["lines"][0]["amount"]);
}

/// P7. No card changes what is billed: neither one for all nor a tenant's own; what has begun stays.
#[tokio::test]
async fn a_card_that_was_used_stays() {
    let desk = Desk::with_card().await;
    desk.holds(7, 10, (JUNE, JULY));
    desk.issue("2025-06").await;
    let add = async |query: &str, from: &str, price: &str| {
        desk.ask("POST", &format!("/v1/rate-cards{query}"), &card("next", from, price)).await
    };
    for query in ["", "?tenant=acme"] {
        let late = add(query, "2025-06-15T00:00:00Z", "2").await;
        assert_eq!(late.code(), (409, "rate_card_conflict".to_owned()), "{query}");
    }
    let own = add("?tenant=acme", "2025-07-01T00:00:00Z", "3").await;
    assert_eq!((own.status, &own.json()["tenant"]), (201, &json!("acme")));
    assert_eq!(add("?tenant=acme", "2025-07-01T00:00:00Z", "3").await.json()["added_at"], own.json()["added_at"]);
    assert_eq!(add("?tenant=none", "2025-07-01T00:00:00Z", "3").await.code(), (404, "tenant_not_found".to_owned()));
    desk.holds(8, 1, (JULY, AUGUST));
    assert_eq!(desk.get("/v1/tenants/acme/invoice?month=2025-07").await.json()["total"], "3.00");
    let remove = async |entry: &Value, query: &str| {
        let path = format!("/v1/rate-cards/{}{query}", entry["id"].as_str().unwrap());
        desk.ask("DELETE", &path, &Value::Null).await.status
    };
    assert_eq!(remove(&own.json(), "?tenant=acme").await, 409);
    assert_eq!(remove(&own.json(), "").await, 404);
    let future = add("", "2999-01-01T00:00:00Z", "9").await.json();
    assert_eq!(remove(&future, "").await, 204);
    let list = desk.get("/v1/rate-cards").await.json();
    assert_eq!(list["rate_cards"].as_array().unwrap().len(), 2);
    let twice = r#"{"name":"a","name":"b"}"#;
    let request = Request::post("/v1/rate-cards").header(header::CONTENT_TYPE, "application/json");
    let request = request.header(header::AUTHORIZATION, format!("Bearer {ADMIN}")).body(Body::from(twice)).unwrap();
    assert_eq!(desk.router.clone().oneshot(request).await.unwrap().status(), 400);
}

/// P7. Months are those of a tenant's zone, which stays once one is issued; no two tenants' numbers can be the same.
#[tokio::test]
async fn a_tenant_is_billed_in_its_zone_by_its_numbers() {
    let desk = Desk::with_card().await;
    desk.service.create_tenant("beta".parse().unwrap(), Quota::default()).await.unwrap();
    let set = async |tenant: &str, body: Value| desk.ask("PUT", &format!("/v1/tenants/{tenant}/billing"), &body).await;
    let billing = json!({"zone": "Europe/Berlin", "name": "Acme Ltd", "prefix": "AC-"});
    assert_eq!(set("acme", billing).await.json()["zone"], "Europe/Berlin");
    set("default", json!({"name": "Host Ltd"})).await;
    desk.holds(7, 10, (JUNE - 7_200_000, JULY - 7_200_000));
    let issued = desk.issue("2025-06").await.json();
    assert_eq!((&issued["total"], &issued["state"]["issued"]["id"]), (&json!("10.00"), &json!("AC-0001")), "{issued}");
    assert_eq!((&issued["tenant_name"], &issued["issuer"]["name"]), (&json!("Acme Ltd"), &json!("Host Ltd")));
    let refused = [
        ("acme", json!({"zone": "UTC"})),
        ("acme", json!({"zone": "Europe/Nowhere"})),
        ("acme", json!({"prefix": "A1"})),
        ("acme", json!({"prefix": ""})),
        ("acme", json!({"name": " x"})),
        ("beta", json!({"prefix": "AC-"})),
        ("beta", json!({"prefix": format!("T{}-", desk.acme)})),
    ];
    for (tenant, body) in refused {
        assert_eq!(set(tenant, body.clone()).await.status, 400, "{body}");
    }
    assert_eq!(set("acme", json!({"prefix": "BC-"})).await.status, 200);
    // Once it was another's it stays so.
    assert_eq!(set("beta", json!({"prefix": "AC-"})).await.status, 400);
}

/// P7. An invoice is shown in the format that is asked for, by name or by what is accepted.
#[tokio::test]
async fn an_invoice_has_the_format_that_is_asked_for() {
    let desk = Desk::with_card().await;
    desk.holds(7, 10, (JUNE, JULY));
    let path = "/v1/tenants/acme/invoice?month=2025-06";
    for (format, begins) in [("text", "Open month"), ("json", "{"), ("html", "<!"), ("focus", "BilledCost")] {
        let shown = desk.get(&format!("{path}&format={format}")).await;
        assert!(shown.status == 200 && shown.text.contains(begins), "{format}: {}", shown.text);
    }
    let html = desk.ask_as("GET", path, (&Value::Null, "text/html,application/xhtml+xml;q=0.9")).await;
    assert!(html.text.starts_with("<!"), "{}", html.text);
    let text = desk.ask_as("GET", path, (&Value::Null, "text/plain")).await;
    assert!(text.text.contains("Open month"));
    assert_eq!(desk.get(&format!("{path}&format=pdf")).await.status, 400);
    assert_eq!(desk.get("/v1/tenants/acme/invoice").await.status, 400);
}

/// P7. Usage is what the registers went on by, to the last unit, without any card.
#[tokio::test]
async fn usage_is_what_registers_say() {
    let desk = Desk::new().await;
    desk.holds(7, 10, (JUNE, JULY));
    let usage = desk.get("/v1/tenants/acme/usage?month=2025-06").await.json();
    let used = (10 * GIB * u128::from(JULY - JUNE)).to_string();
    let row = json!({"volume_id": 7, "class_id": 0, "dimension": "written", "used": used, "unit": "byte_milliseconds"});
    assert_eq!(usage["used"], json!([row]));
    assert_eq!(desk.get("/v1/tenants/acme/usage?month=2025-05").await.json()["used"], json!([]));
}

/// P7. A budget's threshold is told once a month, whatever is looked at how often, and again posted until that is noted.
#[tokio::test]
async fn a_budget_tells_each_threshold_once() {
    let desk = Desk::with_card().await;
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap();
    // A huge volume, so that minutes are enough.
    desk.service.books.measure(&[desk.reading(9, 1 << 30, (0, now - 120_000)), desk.reading(9, 1 << 30, (1, now))]);
    let budget = json!({"amount": "0.01", "thresholds": [50, 100], "webhooks": ["https://hooks.example.com/a"]});
    let set = desk.ask("PUT", "/v1/tenants/acme/budget", &budget).await;
    assert_eq!((set.status, &set.json()["budget"]["amount"]), (200, &json!("0.01")));
    let service: Arc<dyn Service> = Arc::clone(&desk.service) as _;
    let watch = BudgetWatch::new(&service);
    let due = watch.round().await.unwrap();
    assert_eq!(due.iter().map(|due| due.alert.percent).collect::<Vec<_>>(), [100, 50]);
    assert!(due.iter().all(|due| due.tenant == desk.acme && due.webhooks.len() == 1));
    let entries = desk.service.books.account_len(TenantId::DEFAULT);
    // Looked at again, nothing new is raised; what nobody has noted as posted is still to be.
    assert_eq!(watch.round().await.unwrap(), due);
    assert_eq!(desk.service.books.account_len(TenantId::DEFAULT), entries);
    watch.delivered(&due[0].alert.id, true).await.unwrap();
    assert_eq!(watch.round().await.unwrap(), due[1..]);
    watch.delivered(&due[1].alert.id, false).await.unwrap();
    assert_eq!(watch.round().await.unwrap(), []);
    let status = desk.get("/v1/tenants/acme/budget").await.json();
    assert_eq!(status["alerts"].as_array().unwrap().len(), 2);
    let wrong = json!({"amount": "10", "webhooks": ["file:///etc/passwd"]});
    assert_eq!(desk.ask("PUT", "/v1/tenants/acme/budget", &wrong).await.status, 400);
    assert_eq!(desk.ask("DELETE", "/v1/tenants/acme/budget", &Value::Null).await.status, 204);
    assert!(desk.get("/v1/tenants/acme/budget").await.json().get("budget").is_none());
}
