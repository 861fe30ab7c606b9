//! Where the API listens: its address, and always DIR/api.sock for who may open the data directory.

use crate::address::Address;
use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use anyhow::Context;
use axum::Router;
use control::listener::{self, Listener};
use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The API's sockets, bound.
#[derive(Debug)]
pub(super) struct ApiSockets {
    /// The address asked for, with its real port.
    pub(super) address: Address,
    listeners: Vec<Listener>,
}

impl ApiSockets {
    pub(super) async fn bind(settings: &Settings, data: &DataDir) -> Result<Self, Failure> {
        // The lock is held, so what is there is left over from a daemon that has ended.
        let local = bind_private(&data.api_socket())?;
        let (address, listener) = match &settings.api {
            Address::Tcp { .. } => {
                bind_tcp(&settings.api, settings.insecure_no_auth || settings.insecure_no_tls).await?
            }
            Address::Unix(path) => (settings.api.clone(), Listener::Unix(bind_unused(path).await?)),
        };
        Ok(Self { address, listeners: vec![listener, Listener::Unix(local)] })
    }

    /// Serves on every socket until `stopping` ends, then until what is under way is answered.
    pub(super) fn serve(self, router: &Router, stopping: &watch::Receiver<()>) -> impl Future<Output = ()> + use<> {
        let mut tasks = JoinSet::new();
        for listener in self.listeners {
            let mut stopping = stopping.clone();
            let stop = async move { while stopping.changed().await.is_ok() {} };
            tasks.spawn(listener::serve(listener, router.clone(), stop));
        }
        async move { while tasks.join_next().await.is_some() {} }
    }
}

async fn bind_tcp(address: &Address, is_insecure: bool) -> Result<(Address, Listener), Failure> {
    let resolved = address.resolve().with_context(|| format!("cannot look up the API's address {address}"))?;
    if !is_insecure && let Some(open) = resolved.iter().find(|resolved| !resolved.ip().is_loopback()) {
        let detail = format!(
            "the API speaks no TLS yet and {open} is not a loopback address: listen on 127.0.0.1 or a unix socket, with a \
             TLS proxy before it, or give --insecure-no-tls when nobody can listen on the way"
        );
        return Err(Failure::new(Exit::Usage, "api_without_tls", detail));
    }
    let listener = TcpListener::bind(resolved.as_slice()).await;
    let listener = listener.with_context(|| format!("cannot listen for API clients on {address}"))?;
    let real = listener.local_addr().context("cannot tell the API's address")?;
    Ok((real.into(), Listener::Tcp(listener)))
}

/// Binds a unix socket that somebody else may be listening on.
async fn bind_unused(path: &Path) -> Result<UnixListener, Failure> {
    if let Ok(found) = fs::symlink_metadata(path) {
        let is_left_over = found.file_type().is_socket() && UnixStream::connect(path).await.is_err();
        if !is_left_over {
            let detail = format!("cannot listen for API clients on unix:{}: it is there and in use", path.display());
            return Err(Failure::new(Exit::Conflict, "address_in_use", detail));
        }
    }
    bind_private(path)
}

/// Binds a unix socket that is nobody else's from the first moment on: made in a private directory, then moved to its
/// place, over what is there.
fn bind_private(path: &Path) -> Result<UnixListener, Failure> {
    let refused = || format!("cannot listen for API clients on unix:{}", path.display());
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let nursery = parent.join(format!(".aljibe-{}", std::process::id()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&nursery).with_context(refused)?;
    let born = nursery.join("s");
    let bound = UnixListener::bind(&born)
        .and_then(|listener| fs::set_permissions(&born, Permissions::from_mode(0o600)).map(|()| listener))
        .and_then(|listener| fs::rename(&born, path).map(|()| listener));
    let removed = fs::remove_dir_all(&nursery);
    let listener = bound.with_context(refused)?;
    removed.with_context(refused)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServeOptions;
    use clap::Parser;

    fn settings(data: &Path, line: &str) -> Settings {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            options: ServeOptions,
        }
        let data = data.to_str().unwrap();
        let words = ["aljibe", "--data", data].into_iter().chain(line.split_whitespace());
        Settings::resolve(Line::parse_from(words).options).unwrap()
    }

    async fn bind(line: &str) -> Result<ApiSockets, Failure> {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::lock(root.path()).unwrap();
        ApiSockets::bind(&settings(root.path(), line), &data).await
    }

    #[tokio::test]
    async fn an_open_address_is_refused_unless_insecurity_is_asked_for() {
        for open in ["0.0.0.0:0", "[::]:0"] {
            let refused = bind(&format!("--api {open}")).await.unwrap_err();
            assert_eq!(refused.exit, Exit::Usage);
            assert!(refused.detail.contains("--insecure-no-tls"), "{refused}");
        }
        for flag in ["--insecure-no-tls", "--insecure-no-auth"] {
            let bound = bind(&format!("--api 0.0.0.0:0 {flag}")).await.unwrap();
            assert!(matches!(bound.address, Address::Tcp { port, .. } if port != 0));
        }
    }

    #[tokio::test]
    async fn the_socket_in_the_data_directory_is_private_and_replaces_a_left_over_one() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::lock(root.path()).unwrap();
        let settings = settings(root.path(), "--api 127.0.0.1:0");
        drop(ApiSockets::bind(&settings, &data).await.unwrap());
        let _bound = ApiSockets::bind(&settings, &data).await.unwrap();
        let mode = fs::metadata(data.api_socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(data.api_socket()).await.unwrap();
        let names: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[tokio::test]
    async fn a_unix_socket_in_use_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("other.sock");
        let held = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let line = format!("--api unix:{}", path.display());
        assert_eq!(bind(&line).await.unwrap_err().exit, Exit::Conflict);
        drop(held);
        assert!(bind(&line).await.is_ok());
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"a file").unwrap();
        assert_eq!(bind(&line).await.unwrap_err().exit, Exit::Conflict);
    }
}
