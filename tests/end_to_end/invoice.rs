//! A worked month: three tenants, from their first volume to the bill, which each of them checks by other people's programs.
//!
//! The month passes in a minute: `tests/metering/fast_clock.c` has the daemon's wall clock and its clock since boot run faster. Nothing
//! in the daemon knows of that.

use crate::daemon::Daemon;
use crate::tool::{self, PYTHON, announce, are_here, fail, json, noise, output_of, succeed};
use jiff::Timestamp;
use serde_json::{Value, json as document};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A month of 743 hours in Berlin.
const MONTH: &str = "2027-03";
const BEGINS: &str = "2027-02-27T00:00:00Z";
const FASTER: i64 = 60_000;

/// Single bits that are turned over in a bundle, each in a bundle of its own.
const EDITS: u64 = 1000;

/// What is proven by nothing.
const DAMAGE: i32 = 7;

/// The faster clock of a daemon.
struct Clock {
    /// Nanoseconds since boot at which it left the real one.
    since_boot: i64,
    library: PathBuf,
}

impl Clock {
    fn build(folder: &Path) -> Self {
        let library = folder.join("fast_clock.so");
        tool::run("cc", ["-O2", "-shared", "-fPIC", "-o", library.to_str().unwrap(), &script("fast_clock.c")]);
        Self { since_boot: since_boot(), library }
    }

    fn environment(&self) -> Vec<(String, String)> {
        let begins = BEGINS.parse::<Timestamp>().unwrap().as_second();
        let words = format!("{} {begins} {FASTER}", self.since_boot);
        vec![("FAST_CLOCK".into(), words), ("LD_PRELOAD".into(), self.library.display().to_string())]
    }

    /// Waits until a moment of the daemon's time.
    fn wait_for(&self, moment: &str) {
        let passes = moment.parse::<Timestamp>().unwrap().duration_since(BEGINS.parse().unwrap()).as_nanos();
        let passed = || i128::from(since_boot() - self.since_boot) * i128::from(FASTER);
        tool::wait_until(moment, || passed() >= passes);
    }
}

/// Nanoseconds.
fn since_boot() -> i64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let (seconds, hundredths) = uptime.split_whitespace().next().unwrap().split_once('.').unwrap();
    seconds.parse::<i64>().unwrap() * 1_000_000_000 + hundredths.parse::<i64>().unwrap() * 10_000_000
}

/// The path of what is in `tests/metering`.
fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metering").join(name).display().to_string()
}

/// A tenant that asks by a token of its own.
struct Tenant {
    name: &'static str,
    zone: &'static str,
    number: u64,
    created_at: String,
    token: String,
}

impl Tenant {
    fn create(daemon: &Daemon, name: &'static str, zone: &'static str) -> Self {
        let made = json(&mut daemon.aljibe(&["tenant", "create", name]));
        let token = json(&mut daemon.aljibe(&["token", "create", "admin", "--role", "tenant-admin", "--tenant", name]));
        succeed(&mut daemon.aljibe(&["tenant", "billing", name, "--zone", zone]));
        let (number, created_at) = (made["id"].as_u64().unwrap(), made["created_at"].as_str().unwrap().to_owned());
        Self { name, zone, number, created_at, token: token["text"].as_str().unwrap().to_owned() }
    }

    fn ask(&self, daemon: &Daemon, words: &str) -> Command {
        daemon.aljibe_by(&self.token, &words.split(' ').collect::<Vec<_>>())
    }

    fn change(&self, daemon: &Daemon, words: &str) {
        succeed(&mut self.ask(daemon, words));
    }

    /// A month of it, in its own words.
    fn month(&self, daemon: &Daemon, words: &str) -> Command {
        self.ask(daemon, &format!("{words} --tenant {} --month {MONTH}", self.name))
    }

    /// Loads a volume by fio.
    fn load(&self, daemon: &Daemon, volume: &str, job: &[&str]) {
        let uri = format!("--uri={}", daemon.uri(&format!("{}/{volume}", self.name)));
        let mut fio = tool::command("fio");
        fio.args(["--name=load", "--ioengine=nbd", "--iodepth=8", &uri]).args(job).current_dir(daemon.folder());
        succeed(&mut fio);
    }
}

/// What the bill of a tenant is, in files.
struct Billed {
    folder: PathBuf,
    invoice: Value,
}

impl Billed {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A script of ours that uses nothing of ours.
    fn checked_by(&self, python: &str, name: &str) -> Command {
        let mut command = tool::command(python);
        command.arg(script(name)).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(&self.folder);
        command
    }
}

/// What volumes of a class cost.
fn prices(class: &Value, reads: &str) -> Value {
    document!({ "class": class["id"], "name": class["name"], "prices": [
        { "dimension": "provisioned", "unit": "gib_month", "tiers": [{ "price": "0.013" }] },
        { "dimension": "written", "unit": "gib_hour", "free": "3", "tiers": [{ "up_to": "5", "price": "0.011" }, { "price": "0.0072" }] },
        { "dimension": "snapshots", "unit": "gb_month", "tiers": [{ "price": "1.99" }] },
        { "dimension": "history", "unit": "gb_hour", "tiers": [{ "price": "0.07" }] },
        { "dimension": "physical", "unit": "gib_month", "tiers": [{ "price": "0.31" }] },
        { "dimension": "reads", "unit": "thousand_requests", "tiers": [{ "price": reads }] },
        { "dimension": "writes", "unit": "thousand_requests", "tiering": "volume",
            "tiers": [{ "up_to": "1.5", "price": "0.09" }, { "price": "0.07" }] },
        { "dimension": "write_bytes", "unit": "gb", "free": "0.001", "tiers": [{ "price": "3.3" }] },
    ] })
}

/// Makes classes, and cards of which the second holds from the middle of the month on.
fn set_prices(daemon: &Daemon) {
    let gold = json(&mut daemon.aljibe(&["class", "create", "gold", "--history", "24h"]));
    let silver = json(&mut daemon.aljibe(&["class", "create", "silver"]));
    for (from, reads) in [("2027-01-01T00:00:00Z", "0.21"), ("2027-03-16T09:30:00Z", "0.19")] {
        let mut of_silver = prices(&silver, "0.05");
        of_silver["minimum"] = "1.00".into();
        let card = document!({ "name": "List", "currency": "EUR", "effective_from": from, "minimum": "1.50",
            "rounding": { "rule": "half_even", "digits": 4 }, "classes": [prices(&gold, reads), of_silver] });
        let file = daemon.folder().join("card.json");
        fs::write(&file, card.to_string()).unwrap();
        succeed(&mut daemon.aljibe(&["rate-card", "add", file.to_str().unwrap()]));
    }
}

/// Lets the month pass, and issues its bills.
fn live(daemon: &Daemon, clock: &Clock) -> Vec<Tenant> {
    set_prices(daemon);
    let acme = Tenant::create(daemon, "acme", "UTC");
    let beta = Tenant::create(daemon, "beta", "Europe/Berlin");
    acme.change(daemon, "volume create db --size 2G --class gold");
    acme.change(daemon, "volume create logs --size 1G --class silver");
    beta.change(daemon, "volume create www --size 512M --class gold");
    let began = json(&mut acme.ask(daemon, "volume show db"))["created_at"].as_str().unwrap().to_owned();
    assert!(began.as_str() < "2027-03", "{began}: the faster clock is not gone by, or this machine is too busy");

    acme.load(daemon, "db", &["--rw=randwrite", "--bs=64k", "--size=24M"]);
    acme.load(daemon, "logs", &["--rw=write", "--bs=16k", "--size=8M"]);
    clock.wait_for("2027-03-04T06:00:00Z");
    acme.change(daemon, "snapshot create db@a");
    beta.load(daemon, "www", &["--rw=randrw", "--bs=4k", "--size=8M"]);
    beta.change(daemon, "snapshot create www@a");
    acme.load(daemon, "db", &["--rw=randrw", "--bs=4k", "--size=8M"]);
    let open = json(&mut acme.month(daemon, "invoice --format json"));
    assert!(open["state"]["open"]["forecast"].is_string(), "{open}");

    clock.wait_for("2027-03-10T12:00:00Z");
    acme.change(daemon, "volume set-class logs gold");
    beta.load(daemon, "www", &["--rw=randwrite", "--bs=4k", "--size=4M"]);
    let gamma = Tenant::create(daemon, "gamma", "UTC");
    gamma.change(daemon, "volume create small --size 64M --class silver");
    gamma.load(daemon, "small", &["--rw=randwrite", "--bs=4k", "--size=1M"]);

    clock.wait_for("2027-03-17T00:00:00Z");
    acme.change(daemon, "snapshot delete db@a");
    acme.change(daemon, "volume set-class db silver");
    acme.load(daemon, "db", &["--rw=randread", "--bs=4k", "--size=8M"]);
    clock.wait_for("2027-03-24T00:00:00Z");
    acme.change(daemon, "volume set-class db gold");
    beta.change(daemon, "snapshot delete www@a");
    beta.change(daemon, "volume delete www");
    acme.load(daemon, "logs", &["--rw=randread", "--bs=4k", "--size=8M"]);
    vec![acme, beta, gamma]
}

/// Waits until a day is signed: all readings of before are in the ledger by then.
fn wait_until_signed(daemon: &Daemon, day: &str) {
    let newest = || json(&mut daemon.aljibe(&["usage", "heads"]))["heads"][0]["date"].as_str().map(str::to_owned);
    tool::wait_until(day, || newest().is_some_and(|date| date.as_str() >= day));
}

/// Issues the bill of a tenant; returns the day of that.
fn issue(daemon: &Daemon, tenant: &Tenant) -> String {
    let issue = ["invoice", "issue", "--tenant", tenant.name, "--month", MONTH];
    fail(&mut daemon.aljibe_by(&tenant.token, &issue));
    let issued = json(&mut daemon.aljibe(&issue));
    issued["state"]["issued"]["at"].as_str().unwrap()[.."2027-04-01".len()].to_owned()
}

/// What a tenant fetches when its bill is there and signed.
fn fetch(daemon: &Daemon, tenant: &Tenant) -> Billed {
    let folder = daemon.folder().join(tenant.name);
    fs::create_dir(&folder).unwrap();
    let fetched = |words: &str, name: &str| {
        let text = succeed(&mut tenant.month(daemon, words));
        fs::write(folder.join(name), &text).unwrap();
        text
    };
    let invoice: Value = serde_json::from_str(&fetched("invoice --format json", "invoice.json")).unwrap();
    let (id, total) = (invoice["state"]["issued"]["id"].as_str().unwrap(), invoice["total"].as_str().unwrap());
    for (format, name) in [("text", "txt"), ("html", "html"), ("csv", "csv"), ("focus", "focus.csv")] {
        let text = fetched(&format!("invoice --format {format}"), &format!("invoice.{name}"));
        assert!(text.contains(id), "{format}: {text}");
        assert!(text.contains(total) || !["text", "html"].contains(&format), "{format}: {total}: {text}");
    }
    fetched("usage export", "bundle");
    fetched("usage readings", "readings.jsonl");
    Billed { folder, invoice }
}

/// P7, P8. A month of three tenants, with classes that change, snapshots that go and prices that end in the middle of it, comes to
/// bills of which each tenant finds every line and the total anew, by a script and from readings that are proven; the bill adds
/// up in each format; and a bundle of which one bit is another proves nothing.
#[test]
fn a_worked_month_is_billed_and_each_tenant_can_check_it() {
    if !are_here("a_worked_month_is_billed_and_each_tenant_can_check_it", &["fio", "cc"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::build(folder.path());
    let mut daemon = Daemon::start_under(folder, &["--reading-period", "900"], clock.environment());
    let tenants = live(&daemon, &clock);
    clock.wait_for("2027-04-01T00:00:00Z");
    wait_until_signed(&daemon, "2027-04-01");
    let days: Vec<String> = tenants.iter().map(|tenant| issue(&daemon, tenant)).collect();
    wait_until_signed(&daemon, days.iter().max().unwrap());
    let key = succeed(&mut tenants[0].ask(&daemon, "usage key")).trim().to_owned();
    let bills: Vec<Billed> = tenants.iter().map(|tenant| fetch(&daemon, tenant)).collect();
    let others = format!("usage export --tenant beta --month {MONTH}");
    fail(&mut tenants[0].ask(&daemon, &others));
    let status = daemon.stop();
    assert!(status.success() && !daemon.log().contains(" ERROR "), "{status}; {}", daemon.log());

    // From here on there is no daemon.
    for (tenant, billed) in tenants.iter().zip(&bills) {
        check(&daemon, tenant, billed, &key);
    }
    check_what_is_known(&bills[0]);
    refuse_edits(&daemon, &bills[0].file("bundle"), &key);
}

fn verify(daemon: &Daemon, bundle: &Path, key: &str) -> Command {
    daemon.aljibe_by("", &["usage", "verify", bundle.to_str().unwrap(), "--key", key])
}

/// Checks a bill by the programs that a tenant has.
fn check(daemon: &Daemon, tenant: &Tenant, billed: &Billed, key: &str) {
    let verified = json(&mut verify(daemon, &billed.file("bundle"), key));
    assert_eq!((verified["tenant"].as_u64(), &verified["books"]), (Some(tenant.number), &"meter and account".into()));
    succeed(billed.checked_by(PYTHON, "verify.py").args(["bundle", "--key", key]));
    let other = "00".repeat(31) + "02";
    assert_eq!(output_of(&mut verify(daemon, &billed.file("bundle"), &other)).status.code(), Some(DAMAGE));

    let recompute = |from: &[&str]| {
        let mut script = billed.checked_by(PYTHON, "recompute.py");
        script.args(["--tenant", &tenant.number.to_string(), "--month", MONTH, "--zone", tenant.zone]);
        succeed(script.args(["--since", &tenant.created_at, "--invoice", "invoice.json"]).args(from))
    };
    announce(&format!("{}: {}", tenant.name, recompute(&["--bundle", "bundle"])));
    // The readings that the bill was made of come to the same as all of them.
    let cards = "import json; entries = map(json.loads, open('bundle')); print(json.dumps([entry['payload']['card'] \
                 for entry in entries if entry.get('kind') == 'rate_card']))";
    let cards = succeed(tool::command(PYTHON).args(["-c", cards]).current_dir(&billed.folder));
    fs::write(billed.file("cards.json"), cards).unwrap();
    recompute(&["--readings", "readings.jsonl", "--cards", "cards.json"]);

    for (file, column) in [("invoice.focus.csv", "BilledCost"), ("invoice.csv", "amount")] {
        let sum = format!(
            "import csv, decimal; rows = csv.DictReader(open('{file}')); \
             print(sum(decimal.Decimal(row['{column}']) for row in rows) == decimal.Decimal('{}'))",
            billed.invoice["total"].as_str().unwrap()
        );
        let is_total = succeed(tool::command(PYTHON).args(["-c", &sum]).current_dir(&billed.folder));
        assert_eq!(is_total.trim(), "True", "{file}");
    }
    match std::env::var("ALJIBE_FOCUS_PYTHON") {
        Ok(python) => announce(&succeed(billed.checked_by(&python, "focus.py").arg("invoice.focus.csv"))),
        Err(_) => announce("SKIPPED: the validator of FOCUS: ALJIBE_FOCUS_PYTHON is not set\n"),
    }
}

/// Over all classes that it had, a volume that was there for all of the month had its size for the month's time, no more and no less.
fn check_what_is_known(acme: &Billed) {
    const MONTH_MS: u128 = 31 * 86_400_000;
    // The daemon looks at one of its clocks after the other, and what is between counts that much more here.
    const CLOCKS_DIFFER_MS: u128 = 60_000;
    let mut used: BTreeMap<&str, u128> = BTreeMap::new();
    for line in acme.invoice["lines"].as_array().unwrap() {
        let is_meant = line["charge"]["dimension"] == "provisioned";
        let shares = line["charge"]["resources"].as_array().filter(|_| is_meant);
        for share in shares.into_iter().flatten() {
            *used.entry(share["name"].as_str().unwrap()).or_default() +=
                share["used"].as_str().unwrap().parse::<u128>().unwrap();
        }
    }
    for (volume, size) in [("acme/db", 2 << 30), ("acme/logs", 1 << 30)] {
        assert!((used[volume] / size).abs_diff(MONTH_MS) <= CLOCKS_DIFFER_MS, "{used:?}");
    }
    announce(&fs::read_to_string(acme.file("invoice.txt")).unwrap());
}

/// Turns single bits over, anywhere in the bundle: each makes it prove nothing.
fn refuse_edits(daemon: &Daemon, bundle: &Path, key: &str) {
    let right = fs::read(bundle).unwrap();
    let places = noise(4, usize::try_from(EDITS).unwrap() * 8);
    let edited = daemon.folder().join("edited");
    for place in places.chunks(8) {
        let bit = u64::from_le_bytes(place.try_into().unwrap()) % (8 * right.len() as u64);
        let byte = usize::try_from(bit / 8).unwrap();
        let mut bytes = right.clone();
        bytes[byte] ^= 1 << (bit % 8);
        fs::write(&edited, &bytes).unwrap();
        let code = output_of(&mut verify(daemon, &edited, key)).status.code();
        assert_eq!(code, Some(DAMAGE), "bit {bit} of {}", bundle.display());
    }
    announce(&format!("{EDITS} edits of a bundle of {} bytes are refused\n", right.len()));
}
