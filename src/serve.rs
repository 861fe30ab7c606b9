//! `aljibe serve`: the daemon from its settings to its last answered request.
//!
//! The lock is taken first and the sockets next, so that what can be refused is refused before the pool is touched.

mod signals;
mod sockets;

use crate::alerts::{self, Courier};
use crate::config::{LogFormat, ServeOptions, Settings};
use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use crate::wiring::{self, Engine};
use anyhow::Context;
use control::{ErrorCode, Journals, Service};
use sd_notify::NotifyState;
use signals::Signals;
use sockets::ApiSockets;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use tracing_subscriber::EnvFilter;

/// Threads of the management plane; shards have their own.
const CONTROL_THREADS: usize = 2;

/// How long background work of the management plane may hold up the end.
const LAST_WAIT: Duration = Duration::from_secs(1);

pub(crate) fn run(options: ServeOptions) -> Result<(), Failure> {
    let settings = Settings::resolve(options)?;
    start_log(settings.log_format)?;
    let data = DataDir::make_and_lock(&settings.data)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(CONTROL_THREADS).thread_name("control").enable_all().build();
    let runtime = runtime.context("cannot start the management threads")?;
    let ended = runtime.block_on(serve(&settings, &data));
    data.remove_api_socket();
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

async fn serve(settings: &Settings, data: &DataDir) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let sockets = ApiSockets::bind(settings, data).await?;
    let journals = Journals::open(data.path()).context("cannot open the audit log and the kept answers")?;
    let journals = Arc::new(journals);
    let engine = tokio::select! {
        started = wiring::start(settings, data) => started?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped while starting");
            return Ok(());
        }
    };
    if let Some(token) = wiring::bootstrap(&*engine.service, data).await? {
        show_first_token(&token, data, settings.log_format)?;
    }
    let alerts = tokio::spawn(alerts::watch(Arc::clone(&engine.service), Courier::of(data)?));
    let ended = serve_engine(settings, (engine, journals), sockets, &mut signals, announce).await;
    alerts.abort();
    ended
}

/// Past the log, which may be kept where others read it.
fn show_first_token(token: &str, data: &DataDir, format: LogFormat) -> Result<(), Failure> {
    let path = data.token_file();
    let line = match format {
        LogFormat::Text => format!("The first token, of a provider-admin, is in {}: {token}", path.display()),
        LogFormat::Json => serde_json::json!({ "first_token": token, "file": path }).to_string(),
    };
    writeln!(std::io::stderr().lock(), "{line}").context("cannot write to stderr")?;
    Ok(())
}

/// Serves until a signal comes or the engine fails, then drains. A second signal ends the process at once.
async fn serve_engine(
    settings: &Settings,
    (engine, journals): (Engine, Arc<Journals>),
    sockets: ApiSockets,
    signals: &mut Signals,
    announce: impl FnOnce(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let is_open = settings.insecure_no_auth;
    if is_open {
        tracing::warn!("everybody who reaches the API may do everything: it was started with --insecure-no-auth");
    }
    let options = control::api::Options {
        is_any_host_answered: is_open || settings.insecure_no_tls,
        is_authentication_off: is_open,
        requests_per_second: NonZeroU32::new(settings.api_rate),
        refusals_per_second: NonZeroU32::new(settings.api_refusal_rate),
        ..Default::default()
    };
    let router = control::api::router(Arc::clone(&engine.service), journals, options);
    let router = router.map_err(|error| anyhow::anyhow!("cannot make the API: {error}"))?;
    let iscsi = if engine.iscsi.is_empty() { String::new() } else { format!(" iscsi={}", joined(&engine.iscsi)) };
    let ready = format!("ready nbd={} api={}{iscsi}", joined(&engine.nbd), sockets.address);
    let (stop, stopping) = watch::channel(());
    let api = sockets.serve(&router, &stopping);
    let watchdog = tokio::spawn(feed_watchdog(Arc::clone(&engine.service)));
    announce(&ready)?;

    let failure = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping; a second signal ends at once");
            None
        }
        failure = engine.failure => Some(failure),
    };
    notify(NotifyState::Stopping);
    drop(stop);
    let drained = tokio::select! {
        (drained, _) = async { tokio::join!(engine.drain, api) } => drained,
        signal = signals.next() => end_at_once(signal),
    };
    watchdog.abort();
    failure.map_or(drained, Err)
}

fn announce(ready: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{ready}").context("cannot write to stdout")?;
    notify(NotifyState::Ready);
    Ok(())
}

#[expect(clippy::exit, reason = "a second signal asks for just this")]
fn end_at_once(signal: &str) -> ! {
    tracing::warn!(signal, "ended without draining");
    std::process::exit(i32::from(Exit::Failure as u8))
}

/// Tells the service manager that the daemon lives, as long as every shard answers.
async fn feed_watchdog(service: Arc<dyn Service>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let period = (limit / 2).max(Duration::from_millis(1));
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        match timeout(period, service.check_ready()).await {
            Ok(Ok(())) => notify(NotifyState::Watchdog),
            // Draining is slow and no reason to be killed.
            Ok(Err(error)) if error.code == ErrorCode::ShuttingDown => notify(NotifyState::Watchdog),
            Ok(Err(error)) => tracing::error!(%error, "not alive enough for the watchdog"),
            Err(_) => tracing::error!("shards do not answer in the watchdog's time"),
        }
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

fn start_log(format: LogFormat) -> Result<(), Failure> {
    let filter = match std::env::var("ALJIBE_LOG") {
        Ok(text) => EnvFilter::try_new(text).map_err(|error| Failure::usage(format!("ALJIBE_LOG: {error}")))?,
        Err(_) => EnvFilter::new("info"),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))?;
    Ok(())
}

fn joined(addresses: &[impl Display]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::client::Client;
    use crate::memory::MemoryService;
    use std::sync::Mutex;
    use tokio::sync::oneshot;

    fn settings(data: &std::path::Path) -> Settings {
        use clap::Parser;
        let line = ["aljibe", "serve", "--api", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        let crate::cli::Command::Serve(options) = crate::cli::Cli::parse_from(line).command else { panic!() };
        Settings::resolve(*options).unwrap()
    }

    /// An engine that fails when told to, and notes that it was drained.
    fn engine() -> (Engine, oneshot::Sender<()>, Arc<Mutex<bool>>) {
        let (fail, failed) = oneshot::channel();
        let is_drained = Arc::new(Mutex::new(false));
        let drained = Arc::clone(&is_drained);
        let engine = Engine {
            service: Arc::new(MemoryService::new()),
            nbd: vec!["127.0.0.1:1".parse().unwrap(), "unix:/n".parse().unwrap()],
            iscsi: Vec::new(),
            failure: Box::pin(async move {
                failed.await.unwrap();
                Failure::new(Exit::Failure, "failed", "shard 0 died")
            }),
            drain: Box::pin(async move {
                *drained.lock().unwrap() = true;
                Ok(())
            }),
        };
        (engine, fail, is_drained)
    }

    /// P6. A daemon whose engine fails says so, drains what it can and ends; until then both its sockets serve.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_failed_engine_ends_the_daemon_after_draining() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::lock(root.path()).unwrap();
        let settings = settings(root.path());
        let sockets = ApiSockets::bind(&settings, &data).await.unwrap();
        let mut signals = Signals::listen().unwrap();
        let (engine, fail, is_drained) = engine();
        let (announced, line) = oneshot::channel();
        let announce = |ready: &str| {
            announced.send(ready.to_owned()).unwrap();
            Ok(())
        };
        let socket = data.api_socket();
        let visits = tokio::task::spawn_blocking(move || {
            let line = line.blocking_recv().unwrap();
            let (nbd, api) = line.strip_prefix("ready nbd=").unwrap().split_once(" api=").unwrap();
            assert_eq!(nbd, "127.0.0.1:1,unix:/n");
            for address in [api.parse().unwrap(), Address::Unix(socket)] {
                Client::new(address, None).unwrap().get::<control::Status>("/v1/health").unwrap();
            }
            fail.send(()).unwrap();
        });
        let journals = Arc::new(Journals::open(data.path()).unwrap());
        let ended = serve_engine(&settings, (engine, journals), sockets, &mut signals, announce).await;
        visits.await.unwrap();
        assert_eq!(ended.unwrap_err().detail, "shard 0 died");
        assert!(*is_drained.lock().unwrap());
    }
}
