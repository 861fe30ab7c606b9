//! `aljibe image`.

mod export;
mod import;

use crate::address::Address;
use crate::cli::{ImageCommand, ImageVerb};
use crate::client::Client;
use crate::copy::CopyError;
use crate::failure::{Exit, Failure};
use crate::nbd::{Connection, Host, NbdError, NbdUri};
use crate::output::{Output, fields, rounded, sized, table};
use control::{Image, ImageList, ImageState, Size, VolumeName};
use serde_json::json;
use std::net::IpAddr;

pub(crate) fn run(command: ImageCommand, output: Output) -> Result<(), Failure> {
    let client = Client::new(command.target.address(|name| std::env::var_os(name))?)?;
    match command.verb {
        ImageVerb::Import { source, name, format } => import::run(&client, output, &name, (&source, format)),
        ImageVerb::List => list(&client, output),
        ImageVerb::Show { name } => {
            let image: Image = client.get(&path_of(&name))?;
            output.show(&image, || described(&image))
        }
        ImageVerb::Export { name, file, format } => export::run(&client, output, &name, (&file, format)),
        ImageVerb::Delete { name, force } => {
            client.delete(&format!("{}?force={force}", path_of(&name)))?;
            output.show(&json!({ "deleted": name.as_str() }), || format!("deleted {name}"))
        }
    }
}

fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let list: ImageList = client.get("/v1/images")?;
    output.show(&list, || {
        let rows: Vec<_> = list.images.iter().map(row).collect();
        table(&["NAME", "SIZE", "WRITTEN", "STATE", "CREATED", "SOURCE"], &rows)
    })
}

fn row(image: &Image) -> Vec<String> {
    vec![
        image.name.clone(),
        Size::from_bytes(image.size_bytes).rounded(),
        rounded(image.written_bytes),
        state_of(image),
        image.created_at.to_string(),
        image.source.clone(),
    ]
}

fn described(image: &Image) -> String {
    fields(&[
        ("name", Some(image.name.clone())),
        ("id", Some(image.id.to_string())),
        ("size", Some(sized(image.size_bytes))),
        ("written", image.written_bytes.map(sized)),
        ("state", Some(state_of(image))),
        ("reason", image.state_reason.clone()),
        ("source", Some(image.source.clone())),
        ("created", Some(image.created_at.to_string())),
        ("nbd", Some(image.nbd_uris.join("\n")).filter(|uris| !uris.is_empty())),
    ])
}

fn state_of(image: &Image) -> String {
    match image.state {
        ImageState::Importing => {
            let percent = u128::from(image.copied_bytes) * 100 / u128::from(image.size_bytes.max(1));
            format!("importing, {percent} %")
        }
        ImageState::Ready | ImageState::Quarantined => image.state.to_string(),
    }
}

/// A name needs no escaping in a path.
fn path_of(name: &VolumeName) -> String {
    format!("/v1/images/{name}")
}

/// Connects to the daemon's export of an image: by the first of its addresses that answers.
async fn connect(client: &Client, image: &Image) -> Result<Connection, Failure> {
    let mut reasons = Vec::new();
    for text in &image.nbd_uris {
        let Ok(uri) = text.parse::<NbdUri>() else {
            reasons.push(format!("{text}: not spoken here, only nbd in clear is"));
            continue;
        };
        match Connection::open(&seen_from(client.address(), uri)).await {
            Ok(connection) => return Ok(connection),
            Err(error) => reasons.push(format!("{text}: {error}")),
        }
    }
    let detail = format!("cannot reach image {} over NBD: {}", image.name, reasons.join("; "));
    Err(Failure::new(Exit::Unreachable, "daemon_unreachable", detail))
}

/// The daemon's own address, where it listens on all of them and is known by one.
fn seen_from(api: &Address, uri: NbdUri) -> NbdUri {
    match (&uri.host, api) {
        (Host::Tcp(host, port), Address::Tcp { host: api_host, .. })
            if host.parse::<IpAddr>().is_ok_and(|host| host.is_unspecified()) =>
        {
            NbdUri { host: Host::Tcp(api_host.clone(), *port), ..uri }
        }
        _ => uri,
    }
}

/// How a failure of the daemon's side reads.
fn daemon_failure(error: &NbdError) -> Failure {
    match error {
        NbdError::Lost(_) => Failure::new(Exit::Unreachable, "daemon_unreachable", format!("the daemon: {error}")),
        error if error.is_no_space() => Failure::new(Exit::NoSpace, "no_space", format!("the pool is full: {error}")),
        NbdError::Refused { .. } | NbdError::Handshake(_) | NbdError::Protocol(_) => {
            Failure::new(Exit::Failure, "failed", format!("the daemon: {error}"))
        }
    }
}

/// How a failure of the other side reads.
fn file_failure(name: &str, error: &NbdError) -> Failure {
    if error.is_no_space() {
        return Failure::new(Exit::NoSpace, "no_space", format!("no space for {name}: {error}"));
    }
    Failure::new(Exit::Failure, "source_failed", format!("{name}: {error}"))
}

/// Splits what may have failed of a copy into the daemon's side and the other.
fn copy_failure(error: &CopyError, is_import: bool, other: &str) -> Failure {
    match (error, is_import) {
        (CopyError::Source(error), true) | (CopyError::Target(error), false) => file_failure(other, error),
        (CopyError::Source(error), false) | (CopyError::Target(error), true) => daemon_failure(error),
        (CopyError::Note(failure), _) => failure.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_listens_everywhere_is_found_where_its_api_is() {
        let seen = |api: &str, uri: &str| seen_from(&api.parse().unwrap(), uri.parse().unwrap()).host.to_string();
        assert_eq!(seen("storage.example:9440", "nbd://0.0.0.0:10809/a"), "storage.example:10809");
        assert_eq!(seen("[::1]:9440", "nbd://[::]:10809/a"), "[::1]:10809");
        assert_eq!(seen("storage.example:9440", "nbd://10.0.0.1:10809/a"), "10.0.0.1:10809");
        assert_eq!(seen("unix:/run/api.sock", "nbd://0.0.0.0:10809/a"), "0.0.0.0:10809");
    }
}
