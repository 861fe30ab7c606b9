//! `aljibe site`.

use super::mirror::{fail_over, yes_or_no};
use crate::cli::{SiteCommand, SiteVerb};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, table};
use control::{LinkState, Mirror, MirrorList, MirrorRole, Pool, VolumeList};
use serde::Serialize;
use std::collections::BTreeSet;

pub(crate) fn run(command: SiteCommand, output: Output) -> Result<(), Failure> {
    let target = command.target;
    let client = Client::of(&target)?;
    match command.verb {
        SiteVerb::Status if target.tenant.is_some() => {
            Err(Failure::usage("a site has the volumes of all tenants: leave --tenant out"))
        }
        SiteVerb::Status => show(&status(&client)?, output),
        SiteVerb::Failover { name } => {
            fail_over(&client, output, &format!("/v1/volumes/{}", target.volume(name).in_path()))
        }
    }
}

fn status(client: &Client) -> Result<Status, Failure> {
    // Whoever sees the volumes of one tenant alone cannot tell what needs the site, and is refused the pool.
    let _: Pool = client.get("/v1/pool")?;
    let mirrors: MirrorList = client.list("/v1/mirrors")?;
    let volumes: VolumeList = client.list("/v1/volumes")?;
    Ok(Status::of(mirrors.mirrors, volumes.volumes.into_iter().map(|volume| volume.name)))
}

/// How the mirrored volumes are here, and whether they can do without this site.
#[derive(Debug, Serialize)]
struct Status {
    mirrors: Vec<Mirror>,
    /// Those that are here alone.
    not_mirrored: Vec<String>,
    may_be_taken_down: bool,
    /// Why it may not.
    reasons: Vec<String>,
}

impl Status {
    fn of(mirrors: Vec<Mirror>, volumes: impl Iterator<Item = String>) -> Self {
        let mirrored: BTreeSet<&str> = mirrors.iter().map(|mirror| mirror.volume.as_str()).collect();
        let not_mirrored = volumes.filter(|name| !mirrored.contains(name.as_str())).collect();
        let reasons: Vec<String> = mirrors.iter().filter_map(need_of).collect();
        Self { not_mirrored, may_be_taken_down: reasons.is_empty(), reasons, mirrors }
    }
}

/// Why a volume needs this site now.
fn need_of(mirror: &Mirror) -> Option<String> {
    let Mirror { volume, peer, .. } = mirror;
    match (mirror.role, mirror.in_sync) {
        (MirrorRole::Secondary, true) if mirror.link == LinkState::Up => None,
        // It may be about to become primary.
        (MirrorRole::Secondary, true) => {
            Some(format!("{volume} does not hear of site {peer}: wait, or see why by aljibe why {volume}"))
        }
        (MirrorRole::Secondary, false) => {
            Some(format!("{volume} is not in sync: wait, or see why by aljibe why {volume}"))
        }
        (MirrorRole::Primary, true) => {
            Some(format!("{volume} has its primary here: aljibe volume move {volume} --to {peer}"))
        }
        (MirrorRole::Primary, false) | (MirrorRole::PrimaryAlone, _) => {
            Some(format!("{volume} is served here alone: wait until it is in sync, or see why by aljibe why {volume}"))
        }
        (MirrorRole::Waiting, _) => Some(format!("{volume} waits, {}: see why by aljibe why {volume}", mirror.state)),
    }
}

fn show(status: &Status, output: Output) -> Result<(), Failure> {
    output.show(status, || described(status))?;
    match status.reasons.len() {
        0 => Ok(()),
        count => {
            let first = status.reasons.first().map_or("", String::as_str);
            let detail = format!("this site may not be taken down now; volumes that need it: {count}; {first}");
            Err(Failure::new(Exit::Conflict, "site_needed", detail))
        }
    }
}

fn described(status: &Status) -> String {
    let rows: Vec<_> = status.mirrors.iter().map(row).collect();
    let mut shown = table(&["VOLUME", "ROLE", "PRIMARY", "IN SYNC", "LINK", "PROBLEM"], &rows);
    shown.push('\n');
    for reason in &status.reasons {
        shown.push_str(&format!("{reason}\n"));
    }
    if !status.not_mirrored.is_empty() {
        let names = status.not_mirrored.join(", ");
        shown.push_str(&format!("not mirrored, and not available while this site is down: {names}\n"));
    }
    shown.push_str(if status.may_be_taken_down {
        "this site may be taken down now\n"
    } else {
        "this site may not be taken down now\n"
    });
    shown
}

fn row(mirror: &Mirror) -> Vec<String> {
    vec![
        mirror.volume.clone(),
        mirror.role.to_string(),
        mirror.primary.map_or_else(|| "-".to_owned(), |site| format!("site {site}")),
        yes_or_no(mirror.in_sync).to_owned(),
        mirror.link.to_string(),
        mirror.problem.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::mirror::tests::secondary;
    use super::*;

    fn status_of(mirrors: Vec<Mirror>) -> Status {
        let volumes = mirrors.iter().map(|mirror| mirror.volume.clone()).chain(["alone".to_owned()]);
        let volumes: Vec<String> = volumes.collect();
        Status::of(mirrors, volumes.into_iter())
    }

    /// P1. A site may go only where the other one is primary and holds all that was acknowledged.
    #[test]
    fn a_site_may_be_taken_down_where_it_is_a_secondary_in_sync() {
        let good = status_of(vec![secondary("a"), secondary("b")]);
        assert!(good.may_be_taken_down && good.reasons.is_empty());
        let shown = described(&good);
        assert!(shown.ends_with("while this site is down: alone\nthis site may be taken down now\n"), "{shown}");
        assert!(status_of(Vec::new()).may_be_taken_down);
        let unheard = status_of(vec![Mirror { link: LinkState::Down, ..secondary("b") }]);
        assert!(!unheard.may_be_taken_down && described(&unheard).contains("b does not hear of site 1"));
        for (role, in_sync, reason) in [
            (MirrorRole::Secondary, false, "b is not in sync"),
            (MirrorRole::Primary, true, "aljibe volume move b --to 1"),
            (MirrorRole::Primary, false, "b is served here alone"),
            (MirrorRole::PrimaryAlone, true, "b is served here alone"),
            (MirrorRole::Waiting, true, "b waits, "),
        ] {
            let bad = status_of(vec![secondary("a"), Mirror { role, in_sync, ..secondary("b") }]);
            assert!(!bad.may_be_taken_down && bad.reasons.len() == 1);
            let shown = described(&bad);
            assert!(shown.contains(reason) && shown.ends_with("may not be taken down now\n"), "{shown}");
        }
    }

    #[test]
    fn a_site_that_is_needed_is_a_conflict() {
        let json = Output { is_json: true };
        let needed = Mirror { role: MirrorRole::Primary, ..secondary("b") };
        let failure = show(&status_of(vec![needed]), json).unwrap_err();
        assert_eq!((failure.exit, failure.code.as_str()), (Exit::Conflict, "site_needed"));
        assert!(failure.detail.contains("aljibe volume move b --to 1"), "{failure}");
        assert!(show(&status_of(vec![secondary("b")]), json).is_ok());
    }
}
