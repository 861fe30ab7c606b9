//! `aljibe target`.

use crate::cli::{ChapOptions, TargetCommand, TargetVerb};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, fields, rounded, table};
use control::{
    AllowInitiator, Chap, CreateTarget, MapLun, MapVolume, MutualChap, Target, TargetInitiator, TargetList, TargetLun,
    VolumeName,
};
use serde_json::json;
use std::path::Path;

pub(crate) fn run(command: TargetCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    let of = |name: VolumeName| command.target.volume(name);
    match command.verb {
        TargetVerb::Create { name } => {
            show(&client.post("/v1/targets", &CreateTarget { name: of(name).to_string() })?, output)
        }
        TargetVerb::List => {
            let list: TargetList = client.list(&format!("/v1/targets{}", command.target.query()))?;
            output.show(&list, || {
                let rows: Vec<_> = list.targets.iter().map(row).collect();
                table(&["NAME", "LUNS", "INITIATORS", "SESSIONS", "ISCSI NAME"], &rows)
            })
        }
        TargetVerb::Show { name } => show(&client.get(&path_of(&of(name)))?, output),
        TargetVerb::Delete { name, force } => {
            let name = of(name);
            client.delete(&format!("{}{}", path_of(&name), if force { "?force=true" } else { "" }))?;
            output.show(&json!({ "deleted": name.as_str() }), || format!("deleted {name}"))
        }
        TargetVerb::Map { name, volume, lun } => map(&client, output, (&of(name), of(volume)), lun),
        TargetVerb::Unmap { name, lun } => {
            let name = of(name);
            client.delete(&format!("{}/luns/{lun}", path_of(&name)))?;
            output.show(&json!({ "target": name.as_str(), "unmapped": lun }), || format!("unmapped {lun} of {name}"))
        }
        TargetVerb::Allow { name, initiator, chap } => {
            let wanted = AllowInitiator { chap: read_chap(chap)? };
            show(&client.put(&path_of_initiator(&of(name), &initiator), &wanted)?, output)
        }
        TargetVerb::Deny { name, initiator } => {
            let name = of(name);
            client.delete(&path_of_initiator(&name, &initiator))?;
            let denied = json!({ "target": name.as_str(), "denied": initiator });
            output.show(&denied, || format!("{initiator} may not enter {name} any more"))
        }
    }
}

fn map(
    client: &Client,
    output: Output,
    (name, volume): (&VolumeName, VolumeName),
    lun: Option<u8>,
) -> Result<(), Failure> {
    let (path, volume) = (path_of(name), volume.to_string());
    let mapped: TargetLun = match lun {
        Some(lun) => client.put(&format!("{path}/luns/{lun}"), &MapLun { volume })?,
        None => client.post(&format!("{path}/luns"), &MapVolume { volume, lun: None })?,
    };
    output.show(&mapped, || format!("{} is LUN {} of {name}", mapped.volume, mapped.lun))
}

fn read_chap(options: ChapOptions) -> Result<Option<Chap>, Failure> {
    let ChapOptions { chap_user, chap_secret_file, mutual_user, mutual_secret_file } = options;
    let Some((user, file)) = chap_user.zip(chap_secret_file) else { return Ok(None) };
    let mutual = mutual_user.zip(mutual_secret_file);
    let mutual = mutual.map(|(user, file)| read_secret(&file).map(|secret| MutualChap { user, secret }));
    Ok(Some(Chap { user, secret: read_secret(&file)?, mutual: mutual.transpose()? }))
}

/// A secret, without the end of the line that editors put behind it.
fn read_secret(path: &Path) -> Result<String, Failure> {
    let refused =
        |error: std::io::Error| Failure::usage(format!("cannot read the secret in {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(refused)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn show(target: &Target, output: Output) -> Result<(), Failure> {
    output.show(target, || {
        let lines = |lines: Vec<String>| Some(lines.join("\n")).filter(|lines| !lines.is_empty());
        let who = if target.is_default { "whoever is on the daemon's machine" } else { "nobody" };
        let initiators = lines(target.initiators.iter().map(told).collect());
        fields(&[
            ("name", Some(target.name.clone())),
            ("iscsi name", Some(target.iqn.clone())),
            ("port", Some(target.port.to_string())),
            ("luns", lines(target.luns.iter().map(|lun| format!("{}  {}", lun.lun, shown(lun))).collect())),
            ("initiators", Some(initiators.unwrap_or_else(|| who.to_owned()))),
            ("sessions", Some(target.sessions.to_string())),
            ("created", target.created_at.map(|at| at.to_string())),
        ])
    })
}

fn shown(lun: &TargetLun) -> String {
    format!("{} ({})", lun.volume, rounded(lun.size_bytes))
}

fn told(initiator: &TargetInitiator) -> String {
    let of =
        |who: &str, user: &Option<String>| user.as_ref().map(|user| format!(", {who} as {user}")).unwrap_or_default();
    format!("{}{}{}", initiator.name, of("by CHAP", &initiator.chap_user), of("the target", &initiator.mutual_user))
}

fn row(target: &Target) -> Vec<String> {
    vec![
        target.name.clone(),
        target.luns.len().to_string(),
        target.initiators.len().to_string(),
        target.sessions.to_string(),
        target.iqn.clone(),
    ]
}

fn path_of(name: &VolumeName) -> String {
    format!("/v1/targets/{}", name.in_path())
}

/// An initiator's name is what its user writes: all of it is one part of the path.
fn path_of_initiator(name: &VolumeName, initiator: &str) -> String {
    let escaped = initiator.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b':' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    format!("{}/initiators/{}", path_of(name), escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initiators_name_is_one_part_of_a_path() {
        let name: VolumeName = "acme/db".parse().unwrap();
        let path = path_of_initiator(&name, "iqn.2004-10.com.example:a/b?*");
        assert_eq!(path, "/v1/targets/acme%2Fdb/initiators/iqn.2004-10.com.example:a%2Fb%3F%2A");
    }

    #[test]
    fn a_secret_ends_where_its_line_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (text, secret) in [("a secret \n", "a secret "), ("a\r\n", "a"), ("b", "b")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_secret(&path).unwrap(), secret);
        }
        assert!(read_secret(&folder.path().join("none")).unwrap_err().detail.contains("none"));
    }
}
