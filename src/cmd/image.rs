//! `aljibe image`.

mod export;
mod import;

use crate::address::Address;
use crate::cli::{ImageCommand, ImageVerb, NbdFlags};
use crate::client::Client;
use crate::copy::CopyError;
use crate::failure::{Exit, Failure};
use crate::nbd::{Connection, Dialer, Host, NbdError, NbdUri};
use crate::output::{Output, fields, rounded, sized, table};
use certificates::ClientFiles;
use control::{Image, ImageList, ImageSharing, ImageState, Size};
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

/// Seconds that an NBD server may owe an answer in silence, unless it is said otherwise.
const SILENCE_SECONDS_MAX: u32 = 60;

/// A daemon: its API, and how its exports are connected to.
struct Daemon {
    client: Client,
    dialer: Dialer,
}

pub(crate) fn run(command: ImageCommand, output: Output) -> Result<(), Failure> {
    let target = command.target;
    let client = Client::of(&target)?;
    match command.verb {
        ImageVerb::Import { source, name, format, nbd } => {
            import::run(&Daemon { client, dialer: dialer(&nbd)? }, output, &target.volume(name), (&source, format))
        }
        ImageVerb::List => list(&client, output, &target.query()),
        ImageVerb::Show { name } => {
            let image: Image = client.get(&path_of(target.volume(name).as_str()))?;
            output.show(&image, || described(&image))
        }
        ImageVerb::Export { name, file, format, nbd } => {
            export::run(&Daemon { client, dialer: dialer(&nbd)? }, output, &target.volume(name), (&file, format))
        }
        ImageVerb::Share { name, tenants, all, nobody: _ } => {
            let wanted = ImageSharing { all, tenants: tenants.iter().map(ToString::to_string).collect() };
            let image: Image = client.post(&format!("{}/share", path_of(name.as_str())), &wanted)?;
            output.show(&image, || described(&image))
        }
        ImageVerb::Delete { name, force } => {
            let name = target.volume(name);
            client.delete(&format!("{}?force={force}", path_of(name.as_str())))?;
            output.show(&json!({ "deleted": name.as_str() }), || format!("deleted {name}"))
        }
    }
}

fn list(client: &Client, output: Output, query: &str) -> Result<(), Failure> {
    let list: ImageList = client.list(&format!("/v1/images{query}"))?;
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
        ("source", Some(image.source.clone()).filter(|source| !source.is_empty())),
        ("shared", shared(&image.sharing)),
        ("created", Some(image.created_at.to_string())),
        ("nbd", Some(image.nbd_uris.join("\n")).filter(|uris| !uris.is_empty())),
    ])
}

fn shared(sharing: &ImageSharing) -> Option<String> {
    let tenants = (!sharing.tenants.is_empty()).then(|| format!("with {}", sharing.tenants.join(", ")));
    if sharing.all { Some("with all".to_owned()) } else { tenants }
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

fn path_of(name: &str) -> String {
    format!("/v1/images/{}", name.replace('/', "%2F"))
}

fn dialer(flags: &NbdFlags) -> Result<Dialer, Failure> {
    let silence_max = Duration::from_secs(flags.timeout.unwrap_or(SILENCE_SECONDS_MAX).into());
    let Some(authorities) = flags.tls_ca.clone() else { return Ok(Dialer { tls: None, silence_max }) };
    // The command line has both or none.
    let identity = flags.tls_cert.clone().zip(flags.tls_key.clone());
    let config = ClientFiles { authorities, identity }.load();
    let config = config.map_err(|error| Failure::usage(format!("{:#}", anyhow::Error::new(error))))?;
    Ok(Dialer { tls: Some(config.into()), silence_max })
}

impl Daemon {
    /// Connects to the export of an image that is the one that is meant, by its id and its import; `other` is what is said
    /// when it is not. The export is found by name: once it is entered, the image is no other's but by force, which hangs up.
    async fn enter(&self, image: &Image, other: fn(&Image) -> Failure) -> Result<Connection, Failure> {
        let connection = self.connect(image).await?;
        let now: Image = self.client.fetch_within(&path_of(&image.name)).await?;
        if (now.id, now.claim) != (image.id, image.claim) {
            connection.close().await;
            return Err(other(image));
        }
        Ok(connection)
    }

    /// Connects to the daemon's export of an image's name: by the first of its addresses that answers.
    async fn connect(&self, image: &Image) -> Result<Connection, Failure> {
        if let Some(reason) = image.state_reason.as_ref().filter(|_| image.state == ImageState::Quarantined) {
            let detail = format!("image {} is damaged and set aside: {reason}", image.name);
            return Err(Failure::new(Exit::Damage, "volume_quarantined", detail));
        }
        let mut reasons = Vec::new();
        for text in &image.nbd_uris {
            let opened = match text.parse::<NbdUri>() {
                Ok(uri) => self.dialer.open(&seen_from(self.client.address(), uri)).await,
                Err(error) => Err(NbdError::Unreachable(error.to_string())),
            };
            match opened {
                Ok(connection) => return Ok(connection),
                Err(error) => reasons.push(format!("{text}: {error}")),
            }
        }
        let detail = format!("cannot reach image {} over NBD: {}", image.name, reasons.join("; "));
        Err(Failure::new(Exit::Unreachable, "daemon_unreachable", detail))
    }
}

/// The daemon's own address, where it listens on all of them and is known by one.
fn seen_from(api: &Address, uri: NbdUri) -> NbdUri {
    let is_everywhere = |host: &str| host.parse::<IpAddr>().is_ok_and(|host| host.is_unspecified());
    match (&uri.host, api) {
        (Host::Tcp(host, port), Address::Tcp { host: api_host, .. }) if is_everywhere(host) => {
            let tls_name = uri.tls_name.map(|_| api_host.clone());
            NbdUri { host: Host::Tcp(api_host.clone(), *port), tls_name, ..uri }
        }
        // It is on this machine, then.
        (Host::Tcp(host, _), Address::Unix(_)) if is_everywhere(host) => {
            NbdUri { tls_name: uri.tls_name.map(|_| "localhost".to_owned()), ..uri }
        }
        _ => uri,
    }
}

/// How a failure of the daemon's side reads.
fn daemon_failure(error: &NbdError) -> Failure {
    match error {
        NbdError::Unreachable(_) | NbdError::Lost(_) | NbdError::Silent { .. } => {
            Failure::new(Exit::Unreachable, "daemon_unreachable", format!("the daemon: {error}"))
        }
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
        let name = |api: &str, uri: &str| seen_from(&api.parse().unwrap(), uri.parse().unwrap()).tls_name;
        assert_eq!(name("storage.example:9440", "nbds://0.0.0.0:1/a").as_deref(), Some("storage.example"));
        assert_eq!(name("unix:/run/api.sock", "nbds://0.0.0.0:1/a").as_deref(), Some("localhost"));
        assert_eq!(name("unix:/run/api.sock", "nbds://10.0.0.1:1/a").as_deref(), Some("10.0.0.1"));
        assert_eq!(name("storage.example:9440", "nbd://0.0.0.0:1/a"), None);
    }
}
