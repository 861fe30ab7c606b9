//! `aljibe usage`.

use crate::cli::{UsageCommand, UsageVerb};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, fields, table};
use anyhow::Context;
use control::{LedgerHeadList, LedgerKey, Name, UsageReport, UsedRow};
use jiff::Timestamp;
use metering::ledger::{Books, Fault, Trust, Verified, Verifier, VerifyError};
use serde_json::json;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub(crate) fn run(command: UsageCommand, output: Output) -> Result<(), Failure> {
    let tenant = command.target.tenant.clone().unwrap_or_else(Name::default_tenant);
    let path = format!("/v1/tenants/{tenant}");
    match command.verb {
        // Nobody is asked.
        Some(UsageVerb::Verify { bundle, key, heads }) => verify(&bundle, Trust { keys: key, heads }, output),
        None => {
            let this_month = || Timestamp::now().strftime("%Y-%m").to_string();
            let month = command.month.unwrap_or_else(this_month);
            let client = Client::of(&command.target)?;
            let report: UsageReport = client.get(&format!("{path}/usage?month={month}"))?;
            output.show(&report, || shown(&report))
        }
        Some(UsageVerb::Readings { month }) => {
            let client = Client::of(&command.target)?;
            client.fetch_to(&format!("{path}/readings?month={month}"), &mut io::stdout().lock())
        }
        Some(UsageVerb::Export { month, account_only }) => {
            let books = if account_only { "&books=account" } else { "" };
            let client = Client::of(&command.target)?;
            client.fetch_to(&format!("{path}/bundle?month={month}{books}"), &mut io::stdout().lock())
        }
        Some(UsageVerb::Key) => {
            let key: LedgerKey = Client::of(&command.target)?.get("/v1/ledger/key")?;
            output.show(&key, || key.key.clone())
        }
        Some(UsageVerb::Heads) => {
            let list: LedgerHeadList = Client::of(&command.target)?.get("/v1/ledger/heads")?;
            output.show(&list, || {
                let row =
                    |head: &control::LedgerHead| vec![head.number.to_string(), head.date.clone(), head.hash.clone()];
                table(&["NUMBER", "DATE", "HASH"], &list.heads.iter().map(row).collect::<Vec<_>>())
            })
        }
    }
}

fn shown(report: &UsageReport) -> String {
    let row = |row: &UsedRow| {
        let volume = row.volume.clone().unwrap_or_else(|| format!("#{}", row.volume_id));
        vec![volume, row.class_id.to_string(), row.dimension.clone(), row.used.clone(), row.unit.clone()]
    };
    let rows: Vec<_> = report.used.iter().map(row).collect();
    let notes: String = report.notes.iter().map(|note| format!("note: {note}\n")).collect();
    table(&["VOLUME", "CLASS", "DIMENSION", "USED", "UNIT"], &rows) + &notes
}

fn verify(bundle: &Path, trust: Trust, output: Output) -> Result<(), Failure> {
    let verified = verified(bundle, trust)?;
    let Verified { tenant, books, after, last, entries, .. } = verified;
    let books = match books {
        Books::Both => "meter and account",
        Books::Account => "account",
    };
    let from = after
        .map_or_else(|| "their first entries".to_owned(), |head| format!("head {} of {}", head.number(), head.date()));
    let to = format!("head {} of {}", last.number(), last.date());
    let result = json!({
        "tenant": tenant.0,
        "books": books,
        "after_head": after.map(|head| head.number()),
        "after_date": after.map(|head| head.date().to_string()),
        "last_head": last.number(),
        "last_date": last.date().to_string(),
        "last_hash": last.hash().to_string(),
        "key": last.key().to_string(),
        "entries": entries,
    });
    output.show(&result, || {
        fields(&[
            ("verified", Some(bundle.display().to_string())),
            ("tenant", Some(tenant.to_string())),
            ("books", Some(books.to_owned())),
            ("from", Some(from)),
            ("to", Some(to)),
            ("entries", Some(entries.to_string())),
            ("signed by", Some(last.key().to_string())),
            (
                "proves",
                Some("of this tenant and these books, nothing between both was changed, left out or put in".to_owned()),
            ),
        ])
    })
}

fn verified(bundle: &Path, trust: Trust) -> Result<Verified, Failure> {
    let refused = || format!("cannot read {}", bundle.display());
    let mut file = File::open(bundle).with_context(refused)?;
    let mut verifier = Verifier::new(trust);
    let mut bytes = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut bytes).with_context(refused)?;
        if count == 0 {
            return verifier.finish().map_err(|error| unproven(bundle, error));
        }
        let piece = bytes.get(..count).unwrap_or_default();
        verifier.push(piece, &mut |_| ()).map_err(|error| unproven(bundle, error))?;
    }
}

fn unproven(bundle: &Path, error: VerifyError) -> Failure {
    let code = if matches!(error.fault, Fault::Untrusted { .. }) { "not_trusted" } else { "not_proven" };
    Failure::new(Exit::Damage, code, format!("{} proves nothing: {error}", bundle.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryBooks;
    use control::Books as _;
    use metering::ledger::{Date, SigningKey};
    use metering::{Dimension, Mark, Reading, Registers};
    use units::{ClassId, Epoch, MeterTime, TenantId, VolumeId};

    const TENANT: TenantId = TenantId(5);

    fn books() -> MemoryBooks {
        let books = MemoryBooks::new();
        books.admit(TENANT);
        let reading = |sequence, wall_ms| Reading {
            resource: VolumeId(7),
            tenant: TENANT,
            class: ClassId::DEFAULT,
            epoch: Epoch(1),
            sequence,
            mark: Mark::Usual,
            changes: 0,
            estimated_ms: 0,
            at: MeterTime(wall_ms),
            wall_ms,
            registers: Registers::default().with(Dimension::Written, u128::from(wall_ms)),
        };
        books.measure(&[reading(0, 1_748_736_000_000), reading(1, 1_748_736_300_000)]);
        books.sign(Date::new(2025, 6, 1).unwrap());
        books
    }

    /// P7. A file is checked without a daemon, by the key or a head alone; a changed one and a stranger's prove nothing, and say why.
    #[tokio::test]
    async fn a_bundle_is_checked_by_a_key_or_a_head() {
        let books = books();
        let day = Date::new(2025, 6, 1).unwrap();
        let mut pieces = books.export(TENANT, Books::Both, (day, day)).await.unwrap();
        let mut bundle = Vec::new();
        while let Some(piece) = pieces.recv().await {
            bundle.extend(piece.unwrap());
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bundle).unwrap();
        let (key, head) = (books.key().await.unwrap(), books.heads().await.unwrap()[0].hash);
        for trust in [Trust { keys: vec![key], heads: vec![] }, Trust { keys: vec![], heads: vec![head] }] {
            let verified = verified(file.path(), trust).unwrap();
            assert_eq!((verified.tenant, verified.last.date()), (TENANT, day));
        }
        let stranger = Trust { keys: vec![SigningKey::from_seed(&[1; 32]).public()], heads: vec![] };
        let failure = verified(file.path(), stranger).unwrap_err();
        assert_eq!((failure.exit, failure.code.as_str()), (Exit::Damage, "not_trusted"));
        let changed = String::from_utf8(bundle).unwrap().replacen("1748736300000", "1748736300001", 1);
        std::fs::write(file.path(), changed).unwrap();
        let failure = verified(file.path(), Trust { keys: vec![key], heads: vec![] }).unwrap_err();
        assert_eq!((failure.exit, failure.code.as_str()), (Exit::Damage, "not_proven"));
        assert!(failure.detail.contains("line "), "{failure}");
    }
}
