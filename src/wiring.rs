//! Puts the engine behind the API: the only place that knows both.

mod books;
mod bootstrap;
mod metrics;
mod offline;
mod service;

pub(crate) use bootstrap::bootstrap;
pub(crate) use offline::{check, rebuild};

use crate::address::Address;
use crate::config::{FairShares, MirrorSettings, Settings, TlsMode, TlsSettings};
use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use anyhow::Context;
use blockd::catalogue::MeterConfig;
use blockd::listener::{self, Inherited, Listener, Portal, SocketFolder};
use blockd::mirror::MirrorConfig;
use blockd::open::{OpenError, OpenPool, PoolConfig, PoolShape};
use blockd::qos;
use blockd::tls::{ClientCertificates, TlsFiles};
use blockd::{Limits, ListenerLimits, Serving, ServingConfig};
use control::Service;
use proto::nbd::TlsPolicy;
use service::PoolService;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use volume::error::DiskFault;

/// Something that ends in its own time.
pub(crate) type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How often the engine's threads are looked after.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// A running engine.
pub(crate) struct Engine {
    /// What the API calls.
    pub(crate) service: Arc<dyn Service>,
    /// Where NBD clients are served, with real ports.
    pub(crate) nbd: Vec<Address>,
    /// Where iSCSI initiators are served, with real ports.
    pub(crate) iscsi: Vec<Address>,
    /// Ends when the engine has stopped by itself, saying why.
    pub(crate) failure: Pending<Failure>,
    /// Answers what is under way, makes everything durable and closes; starts when first polled.
    pub(crate) drain: Pending<Result<(), Failure>>,
}

/// Opens the pool and its volumes and serves them. Clients that come before that wait.
pub(crate) async fn start(settings: &Settings, data: &DataDir) -> Result<Engine, Failure> {
    let tls = settings.tls.as_ref().map(|tls| tls_files(tls).load()).transpose().context("cannot serve TLS")?;
    let folder = settings.nbd_tenant_sockets.clone();
    if let Some(missing) = folder.as_ref().filter(|folder| !folder.is_dir()) {
        let detail = format!(
            "nbd-tenant-sockets is {}: make that folder, with the group that its sockets are to have",
            missing.display()
        );
        return Err(Failure::usage(detail));
    }
    let listener = bind(settings).await?;
    let nbd = listener.addresses().iter().map(|address| address.to_string().parse()).collect::<Result<Vec<_>, _>>();
    let nbd: Vec<Address> = nbd.context("cannot tell where NBD clients are served")?;

    let portals = bind_iscsi(settings).await?;
    let iscsi = portals.iter().flat_map(Listener::addresses).map(|address| address.to_string().parse());
    let iscsi: Vec<Address> = iscsi.collect::<Result<_, _>>().context("cannot tell where initiators are served")?;

    let config = pool_config(settings, data);
    let pool = tokio::task::spawn_blocking(move || OpenPool::open_or_make(&config)).await;
    let pool = pool.context("opening the pool panicked")?.map_err(failure_of)?;
    let serving = Arc::new(Serving::start(pool, serving_config(settings, data)).await.map_err(failure_of)?);

    let (stop, stopping) = watch::channel(false);
    let listener = match folder {
        Some(folder) => listener.with_tenants(SocketFolder::new(folder, serving.catalogue().tenant_sockets())),
        None => listener,
    };
    let exports = Arc::new(listener::Service { exports: serving.catalogue(), tls_policy: tls_policy(settings), tls });
    let mut listening = JoinSet::new();
    listening.spawn(listener.serve(exports, stopping.clone()));
    if let Some(portals) = portals {
        serving.catalogue().serve_targets().await.context("cannot serve iSCSI targets")?;
        listening.spawn(portals.serve_iscsi(Arc::new(Portal::new(serving.catalogue())), stopping));
    }
    let uris = uris(&nbd, tls_policy(settings) == TlsPolicy::Required);
    Ok(Engine {
        service: Arc::new(PoolService::new(Arc::clone(&serving), uris)),
        nbd,
        iscsi,
        failure: Box::pin(ended_by_itself(Arc::clone(&serving))),
        drain: Box::pin(drain(serving, stop, listening)),
    })
}

async fn bind(settings: &Settings) -> Result<Listener, Failure> {
    let inherited = Inherited::from_environment().context("cannot use the sockets that were handed over")?;
    let addresses = if !inherited.is_empty() && settings.is_nbd_default() { &[] } else { settings.nbd.as_slice() };
    let addresses = addresses.iter().map(|address| address.to_string().parse()).collect::<Result<Vec<_>, _>>();
    let addresses: Vec<listener::Address> = addresses.context("cannot listen for NBD clients")?;
    let bound = Listener::bind(&addresses, Some(inherited), ListenerLimits::of_this_process()).await;
    match bound {
        Err(error @ listener::BindError::Served { .. }) => {
            Err(Failure::new(Exit::Conflict, "address_in_use", error.to_string()))
        }
        bound => Ok(bound.context("cannot listen for NBD clients")?),
    }
}

/// Where iSCSI initiators are to come, if anywhere.
async fn bind_iscsi(settings: &Settings) -> Result<Option<Listener>, Failure> {
    if settings.iscsi.is_empty() {
        return Ok(None);
    }
    if let Some(path) = settings.iscsi.iter().find(|address| matches!(address, Address::Unix(_))) {
        return Err(Failure::usage(format!("iscsi is {path}: initiators come over TCP, so write host:port")));
    }
    let addresses = settings.iscsi.iter().map(|address| address.to_string().parse()).collect::<Result<Vec<_>, _>>();
    let addresses: Vec<listener::Address> = addresses.context("cannot listen for iSCSI initiators")?;
    let bound = Listener::bind(&addresses, None, ListenerLimits::of_this_process()).await;
    Ok(Some(bound.context("cannot listen for iSCSI initiators")?))
}

/// Ends when a thread of the engine has ended that nobody has stopped.
async fn ended_by_itself(serving: Arc<Serving>) -> Failure {
    let mut ticks = tokio::time::interval(WATCH_PERIOD);
    loop {
        ticks.tick().await;
        if let Some(thread) = serving.ended_thread() {
            tracing::error!(thread, "a thread of the engine has ended by itself");
            return Failure::new(Exit::Failure, "engine_failed", format!("{thread} has ended by itself: see the log"));
        }
    }
}

/// No new clients; then what is under way is answered and everything made durable.
async fn drain(serving: Arc<Serving>, stop: watch::Sender<bool>, mut listening: JoinSet<()>) -> Result<(), Failure> {
    serving.catalogue().stop();
    stop.send_replace(true);
    let mut listened = Ok(());
    while let Some(ended) = listening.join_next().await {
        listened = listened.and(ended);
    }
    serving.stop().await.context("the engine did not stop in order")?;
    listened.context("the listener panicked")?;
    Ok(())
}

fn pool_config(settings: &Settings, data: &DataDir) -> PoolConfig {
    PoolConfig {
        pool: settings.pool.clone(),
        index: index_dir(data),
        shape: PoolShape {
            pool_bytes: settings.pool_size.map(control::Size::bytes),
            slot_bytes: settings.slot_size.bytes(),
        },
        is_written_whole: settings.pool_prepare,
    }
}

fn serving_config(settings: &Settings, data: &DataDir) -> ServingConfig {
    ServingConfig {
        shard_count: usize::from(settings.shards),
        is_direct: settings.direct,
        map_cache_bytes: usize::try_from(settings.map_cache.bytes()).unwrap_or(usize::MAX),
        scrub_bytes_per_second: settings.scrub_rate.bytes(),
        limits: Limits { fair_shares: fair_shares(settings.fair_shares), ..Limits::default() },
        meter: meter_config(settings),
        mirror: settings.mirror.as_ref().map(|mirror| mirror_config(mirror, data)),
    }
}

fn mirror_config(mirror: &MirrorSettings, data: &DataDir) -> MirrorConfig {
    MirrorConfig {
        site: mirror.site,
        peer: mirror.peer,
        listen: mirror.listen,
        peer_address: mirror.peer_address.as_ref().map(ToString::to_string),
        tls: mirror.tls.clone(),
        witness: mirror.witness.clone(),
        passes_on: mirror.passes_on,
        promises: data.path().join("promises"),
    }
}

fn meter_config(settings: &Settings) -> MeterConfig {
    let period_ms = u64::try_from(settings.reading_period.as_millis()).unwrap_or(u64::MAX);
    MeterConfig { period_ms, ..MeterConfig::default() }
}

const fn fair_shares(between: FairShares) -> qos::FairShares {
    match between {
        FairShares::Off => qos::FairShares::Off,
        FairShares::Tenants => qos::FairShares::Tenants,
        FairShares::Volumes => qos::FairShares::Volumes,
    }
}

fn index_dir(data: &DataDir) -> PathBuf {
    data.path().join("index")
}

fn tls_files(tls: &TlsSettings) -> TlsFiles {
    TlsFiles {
        certificate: tls.cert.clone(),
        key: tls.key.clone(),
        clients: tls.client_ca.clone().map_or(ClientCertificates::Ignored, ClientCertificates::Required),
    }
}

fn tls_policy(settings: &Settings) -> TlsPolicy {
    match settings.tls.as_ref().map(|tls| tls.mode) {
        None => TlsPolicy::Off,
        Some(TlsMode::Optional) => TlsPolicy::Optional,
        Some(TlsMode::Required) => TlsPolicy::Required,
    }
}

/// Where NBD clients find a volume, with `{name}` for its name.
fn uris(nbd: &[Address], is_tls: bool) -> Vec<String> {
    let scheme = if is_tls { "nbds" } else { "nbd" };
    let uri = |address: &Address| match address {
        Address::Tcp { .. } => format!("{scheme}://{address}/{{name}}"),
        Address::Unix(path) => format!("{scheme}+unix:///{{name}}?socket={}", escaped(&absolute(path))),
    };
    nbd.iter().map(uri).collect()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A path as a query of a URI has it: `%` and a number for every byte but those that mean nothing there. RFC 3986 2.3.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(*byte)),
            _ => write!(text, "%{byte:02X}").expect("a text takes all"),
        }
    }
    text
}

/// What the exit code and the words are for a pool that is not served.
pub(crate) fn failure_of(error: OpenError) -> Failure {
    let (exit, code) = match &error {
        OpenError::Setting(_) => (Exit::Usage, "usage"),
        OpenError::InUse { .. } => (Exit::Conflict, "pool_in_use"),
        OpenError::Missing { .. } => (Exit::NotFound, "pool_not_found"),
        OpenError::NoSpace(_) | OpenError::Disk(DiskFault::NoSpace) => (Exit::NoSpace, "no_space"),
        OpenError::System { source, .. } if source.kind() == io::ErrorKind::StorageFull => (Exit::NoSpace, "no_space"),
        OpenError::Damaged(_) => (Exit::Damage, "pool_damaged"),
        OpenError::Index { .. } => (Exit::Damage, "index_unusable"),
        OpenError::System { .. } | OpenError::Shard(_) | OpenError::Disk(_) => (Exit::Failure, "failed"),
    };
    Failure::new(exit, code, format!("{:#}", anyhow::Error::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::{Host, NbdUri};

    /// What is told of a socket leads to it, whatever it is called.
    #[test]
    fn the_path_of_a_socket_is_escaped() {
        let path = "/run/a b%41?x=1#y&z/{name}/nbd.sock";
        let uris = uris(&[Address::Unix(path.into())], false);
        assert_eq!(uris, ["nbd+unix:///{name}?socket=/run/a%20b%2541%3Fx%3D1%23y%26z/%7Bname%7D/nbd.sock"]);
        let uri: NbdUri = uris[0].replace("{name}", "vm").parse().unwrap();
        assert_eq!((uri.host, uri.export.as_str()), (Host::Unix(path.into()), "vm"));
    }
}
