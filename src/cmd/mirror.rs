//! `aljibe volume mirror`, `unmirror` and `move`, and `aljibe why`.

use crate::cli::WhyCommand;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, fields};
use control::{Mirror, ToSite, VolumeName};
use serde_json::json;

/// Begins to mirror a volume.
pub(super) fn begin(client: &Client, output: Output, path: &str, to: u8) -> Result<(), Failure> {
    show(&client.post_long(&format!("{path}/mirror"), &ToSite { to })?, output)
}

/// Ends the mirroring of a volume.
pub(super) fn end(client: &Client, output: Output, path: &str, name: &VolumeName) -> Result<(), Failure> {
    client.delete(&format!("{path}/mirror"))?;
    output.show(&json!({ "unmirrored": name.as_str() }), || format!("{name} is mirrored no more"))
}

/// Has another site be the primary of a volume.
pub(super) fn switch(client: &Client, output: Output, path: &str, to: u8) -> Result<(), Failure> {
    show(&client.post_long(&format!("{path}/move"), &ToSite { to })?, output)
}

/// Makes this site the primary of a volume by force.
pub(super) fn fail_over(client: &Client, output: Output, path: &str) -> Result<(), Failure> {
    show(&client.post_long(&format!("{path}/failover"), &json!({}))?, output)
}

/// Tells how a mirrored volume is here, and why.
pub(crate) fn why(command: WhyCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    let name = command.target.volume(command.name);
    let mirror: Mirror = client.get(&format!("/v1/volumes/{}/mirror", name.in_path()))?;
    output.show(&mirror, || explained(&mirror))
}

fn show(mirror: &Mirror, output: Output) -> Result<(), Failure> {
    output.show(mirror, || described(mirror))
}

fn described(mirror: &Mirror) -> String {
    let Mirror { site, peer, role, state, .. } = mirror;
    fields(&[
        ("volume", Some(mirror.volume.clone())),
        ("site", Some(format!("{site}, mirrored with site {peer}"))),
        ("role", Some(format!("{role}: {state}"))),
        ("serves", Some(yes_or_no(mirror.serves).to_owned())),
        ("epoch", Some(mirror.epoch.to_string())),
        ("primary", Some(mirror.primary.map_or_else(|| "not known".to_owned(), |site| format!("site {site}")))),
        ("in sync", Some(yes_or_no(mirror.in_sync).to_owned())),
        ("link", Some(mirror.link.to_string())),
        ("log end", Some(mirror.log_end.to_string())),
        ("problem", mirror.problem.clone()),
    ])
}

/// How a volume is, and below it a line for each thing that the site decided.
fn explained(mirror: &Mirror) -> String {
    let mut shown = described(mirror);
    if !mirror.evidence.is_empty() {
        shown.push('\n');
    }
    for found in &mirror.evidence {
        shown.push_str(&format!("{}  {}\n", found.at, found.text));
    }
    shown
}

pub(super) const fn yes_or_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use control::{LinkState, MirrorEvidence, MirrorRole};

    /// A volume of which this site is a secondary in sync.
    pub(in crate::cmd) fn secondary(volume: &str) -> Mirror {
        Mirror {
            volume: volume.to_owned(),
            site: 2,
            peer: 1,
            role: MirrorRole::Secondary,
            serves: false,
            state: "follows site 1 in epoch 7".to_owned(),
            epoch: 7,
            primary: Some(1),
            in_sync: true,
            link: LinkState::Up,
            log_end: 1234,
            problem: None,
            evidence: Vec::new(),
        }
    }

    #[test]
    fn why_tells_what_was_decided_below_how_it_is() {
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        let evidence = vec![MirrorEvidence { at, text: "follows: site 1 leads".to_owned() }];
        let mirror = Mirror { evidence, problem: Some("the logs part".to_owned()), ..secondary("vm") };
        let shown = explained(&mirror);
        assert!(shown.contains("role     secondary: follows site 1 in epoch 7\n"), "{shown}");
        assert!(shown.contains("problem  the logs part\n\n2026-01-02T03:04:05Z  follows: site 1 leads\n"), "{shown}");
        let unknown = Mirror { primary: None, ..secondary("vm") };
        assert!(explained(&unknown).ends_with("log end  1234\n") && explained(&unknown).contains("not known"));
    }
}
