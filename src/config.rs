//! The daemon's settings: flags win over the file, the file over defaults. The file is TOML with the flags' names.

mod mirror;

pub(crate) use mirror::MirrorSettings;

use crate::address::Address;
use crate::failure::Failure;
use clap::{Args, ValueEnum};
use control::Size;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What flags or a file say; nothing where they say nothing.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct ServeOptions {
    /// Directory of the pool, its index, the lock and the API's socket; made if it is missing.
    #[arg(long, value_name = "DIR", env = "ALJIBE_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
    /// Listen for NBD clients; may be given again [default: 127.0.0.1:10809].
    #[arg(long, value_name = "ADDR")]
    nbd: Vec<Address>,
    /// Make tenants' own sockets for NBD, TENANT.sock, in this folder, which is there.
    #[arg(long, value_name = "DIR")]
    nbd_tenant_sockets: Option<PathBuf>,
    /// Listen for iSCSI initiators, such as on 127.0.0.1:3260; may be given again [default: nowhere].
    #[arg(long, value_name = "ADDR")]
    iscsi: Vec<Address>,
    /// Listen for API clients, besides DIR/api.sock [default: 127.0.0.1:9440].
    #[arg(long, value_name = "ADDR")]
    api: Option<Address>,
    /// Read settings from this TOML file; its keys are the names of these flags.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// The pool's file or block device [default: DIR/pool].
    #[arg(long, value_name = "PATH")]
    pool: Option<PathBuf>,
    /// Size of a pool file that is made or grown.
    #[arg(long, value_name = "SIZE")]
    pool_size: Option<Size>,
    /// Write a pool that is made once from end to end, so that none of it is slower at its first use.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pool_prepare: Option<bool>,
    /// Size of a slot of a pool that is made [default: 32M].
    #[arg(long, value_name = "SIZE")]
    slot_size: Option<Size>,
    /// Threads that serve volumes [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=SHARDS_MAX))]
    shards: Option<u16>,
    /// Most memory for map pages, of all shards together [default: 256M].
    #[arg(long, value_name = "SIZE")]
    map_cache: Option<Size>,
    /// What a scrub may read of the pool in a second [default: 32M].
    #[arg(long, value_name = "SIZE")]
    scrub_rate: Option<Size>,
    /// Seconds between two readings of what volumes use [default: 300].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(READING_PERIOD_MAX)))]
    reading_period: Option<u16>,
    /// Write around the kernel's page cache.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    direct: Option<bool>,
    /// Whether NBD clients must use TLS [default with a certificate: required].
    #[arg(long, value_name = "MODE")]
    tls: Option<TlsMode>,
    /// The NBD server's certificate chain, PEM.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The NBD server's private key, PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Ask NBD clients for a certificate that one of these authorities has signed, PEM.
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Let the API, which speaks no TLS, listen beyond loopback and answer to any host name: tokens can be read on the way.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    insecure_no_tls: Option<bool>,
    /// Let everybody who reaches the API do everything without a token, beyond loopback too.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    insecure_no_auth: Option<bool>,
    /// API requests of a token in a second, ten times as many at once; 0 for any number [default: 200].
    #[arg(long, value_name = "N")]
    api_rate: Option<u32>,
    /// API requests without a good token that are answered to an address in a second, ten times as many at once; 0 for any
    /// number [default: 10].
    #[arg(long, value_name = "N")]
    api_refusal_rate: Option<u32>,
    /// Between whom each shard is shared fairly [default: tenants].
    #[arg(long, value_name = "WHOM")]
    fair_shares: Option<FairShares>,
    /// The number of this site, of those that volumes are mirrored between: 1 to 3. No volume is mirrored without it.
    #[arg(long, value_name = "N")]
    site: Option<u8>,
    /// The number of the other site.
    #[arg(long, value_name = "N")]
    peer_site: Option<u8>,
    /// Where the other site may connect to, as IP:PORT; leave it out where it cannot.
    #[arg(long, value_name = "IP:PORT")]
    mirror_listen: Option<String>,
    /// Where the other site listens, as HOST:PORT; leave it out where it cannot be reached.
    #[arg(long, value_name = "HOST:PORT")]
    mirror_peer: Option<String>,
    /// This site's certificate chain for the other one, PEM.
    #[arg(long, value_name = "FILE")]
    mirror_cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    #[arg(long, value_name = "FILE")]
    mirror_key: Option<PathBuf>,
    /// The authorities that sign the other site's certificate, which is for site-N.aljibe, PEM.
    #[arg(long, value_name = "FILE")]
    mirror_ca: Option<PathBuf>,
    /// In place of authorities: the other site's certificate itself, PEM.
    #[arg(long, value_name = "FILE")]
    mirror_pin: Option<PathBuf>,
    /// Pass on what clients ask here while the other site leads; no host may use both sites: docs/mirror.md, "Passing requests on".
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    mirror_pass_on: Option<bool>,
    /// Who decides which site is primary: etcd://HOST:PORT,HOST:PORT,HOST:PORT/PREFIX, etcds://... or register:/PATH/OF/SOCKET.
    #[arg(long, value_name = "URL")]
    witness: Option<String>,
    /// How log lines look [default: text].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// Whether NBD clients must use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsMode {
    /// They may.
    Optional,
    /// They must.
    Required,
}

/// Between whom a shard is shared fairly: while there are several, none has more under way than its part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FairShares {
    /// Nobody.
    Off,
    /// Tenants, whatever number of volumes they have.
    #[default]
    Tenants,
    /// Volumes, whosever they are.
    Volumes,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The daemon's settings, complete and consistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) nbd: Vec<Address>,
    pub(crate) nbd_tenant_sockets: Option<PathBuf>,
    pub(crate) iscsi: Vec<Address>,
    pub(crate) api: Address,
    pub(crate) pool: PathBuf,
    pub(crate) pool_size: Option<Size>,
    pub(crate) pool_prepare: bool,
    pub(crate) slot_size: Size,
    pub(crate) shards: u16,
    pub(crate) map_cache: Size,
    pub(crate) scrub_rate: Size,
    pub(crate) reading_period: Duration,
    pub(crate) direct: bool,
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) insecure_no_tls: bool,
    pub(crate) insecure_no_auth: bool,
    pub(crate) api_rate: u32,
    pub(crate) api_refusal_rate: u32,
    pub(crate) fair_shares: FairShares,
    pub(crate) mirror: Option<MirrorSettings>,
    pub(crate) log_format: LogFormat,
}

/// How NBD clients are met with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) mode: TlsMode,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
}

impl Settings {
    /// Puts flags, file and defaults together.
    pub(crate) fn resolve(flags: ServeOptions) -> Result<Self, Failure> {
        let file = flags.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        flags.or(file).complete()
    }

    /// Whether NBD clients are served where nobody said.
    pub(crate) fn is_nbd_default(&self) -> bool {
        self.nbd == [loopback(10809)]
    }
}

impl ServeOptions {
    /// These options where they say something, else those of `file`.
    fn or(self, file: Self) -> Self {
        Self {
            data: self.data.or(file.data),
            nbd: if self.nbd.is_empty() { file.nbd } else { self.nbd },
            iscsi: if self.iscsi.is_empty() { file.iscsi } else { self.iscsi },
            nbd_tenant_sockets: self.nbd_tenant_sockets.or(file.nbd_tenant_sockets),
            api: self.api.or(file.api),
            config: self.config,
            pool: self.pool.or(file.pool),
            pool_size: self.pool_size.or(file.pool_size),
            pool_prepare: self.pool_prepare.or(file.pool_prepare),
            slot_size: self.slot_size.or(file.slot_size),
            shards: self.shards.or(file.shards),
            map_cache: self.map_cache.or(file.map_cache),
            scrub_rate: self.scrub_rate.or(file.scrub_rate),
            reading_period: self.reading_period.or(file.reading_period),
            direct: self.direct.or(file.direct),
            tls: self.tls.or(file.tls),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            tls_client_ca: self.tls_client_ca.or(file.tls_client_ca),
            insecure_no_tls: self.insecure_no_tls.or(file.insecure_no_tls),
            insecure_no_auth: self.insecure_no_auth.or(file.insecure_no_auth),
            api_rate: self.api_rate.or(file.api_rate),
            api_refusal_rate: self.api_refusal_rate.or(file.api_refusal_rate),
            fair_shares: self.fair_shares.or(file.fair_shares),
            site: self.site.or(file.site),
            peer_site: self.peer_site.or(file.peer_site),
            mirror_listen: self.mirror_listen.or(file.mirror_listen),
            mirror_peer: self.mirror_peer.or(file.mirror_peer),
            mirror_cert: self.mirror_cert.or(file.mirror_cert),
            mirror_key: self.mirror_key.or(file.mirror_key),
            mirror_ca: self.mirror_ca.or(file.mirror_ca),
            mirror_pin: self.mirror_pin.or(file.mirror_pin),
            mirror_pass_on: self.mirror_pass_on.or(file.mirror_pass_on),
            witness: self.witness.or(file.witness),
            log_format: self.log_format.or(file.log_format),
        }
    }

    fn complete(self) -> Result<Settings, Failure> {
        let tls = self.tls_settings()?;
        let mirror = self.mirror_settings()?;
        let shards = self.shards.unwrap_or_else(default_shards);
        if shards == 0 || i64::from(shards) > SHARDS_MAX {
            return Err(Failure::usage(format!("shards is {shards}: it must be 1 to {SHARDS_MAX}")));
        }
        let scrub_rate = self.scrub_rate.unwrap_or(SCRUB_RATE_DEFAULT);
        if scrub_rate < SCRUB_RATE_MIN {
            return Err(Failure::usage(format!("scrub-rate is {scrub_rate}: it must be {SCRUB_RATE_MIN} or more")));
        }
        let reading_period = self.reading_period.unwrap_or(READING_PERIOD_DEFAULT);
        if !(1..=READING_PERIOD_MAX).contains(&reading_period) {
            let detail = format!("reading-period is {reading_period}: it must be 1 to {READING_PERIOD_MAX} seconds");
            return Err(Failure::usage(detail));
        }
        let missing = || Failure::usage("name the data directory by --data DIR, ALJIBE_DATA or data in the file");
        let data = self.data.ok_or_else(missing)?;
        let nbd = if self.nbd.is_empty() { vec![loopback(10809)] } else { self.nbd };
        Ok(Settings {
            nbd,
            nbd_tenant_sockets: self.nbd_tenant_sockets,
            iscsi: self.iscsi,
            api: self.api.unwrap_or_else(|| loopback(9440)),
            pool: self.pool.unwrap_or_else(|| data.join("pool")),
            pool_size: self.pool_size,
            pool_prepare: self.pool_prepare.unwrap_or(false),
            slot_size: self.slot_size.unwrap_or(SLOT_SIZE_DEFAULT),
            shards,
            map_cache: self.map_cache.unwrap_or(MAP_CACHE_DEFAULT),
            scrub_rate,
            reading_period: Duration::from_secs(reading_period.into()),
            direct: self.direct.unwrap_or(false),
            tls,
            insecure_no_tls: self.insecure_no_tls.unwrap_or(false),
            insecure_no_auth: self.insecure_no_auth.unwrap_or(false),
            api_rate: self.api_rate.unwrap_or(API_RATE),
            api_refusal_rate: self.api_refusal_rate.unwrap_or(API_REFUSAL_RATE),
            fair_shares: self.fair_shares.unwrap_or_default(),
            mirror,
            log_format: self.log_format.unwrap_or_default(),
            data,
        })
    }

    fn tls_settings(&self) -> Result<Option<TlsSettings>, Failure> {
        let (cert, key) = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (None, None) if self.tls.is_none() && self.tls_client_ca.is_none() => return Ok(None),
            _ => return Err(Failure::usage("TLS needs both --tls-cert and --tls-key")),
        };
        let mode = self.tls.unwrap_or(TlsMode::Required);
        if mode == TlsMode::Optional && self.tls_client_ca.is_some() {
            let detail = "--tls-client-ca needs --tls required: a client without TLS would need no certificate";
            return Err(Failure::usage(detail));
        }
        Ok(Some(TlsSettings { mode, cert, key, client_ca: self.tls_client_ca.clone() }))
    }
}

fn read_file(path: &Path) -> Result<ServeOptions, Failure> {
    let refused = |reason: String| Failure::usage(format!("configuration file {}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    toml::from_str(&text).map_err(|error| refused(error.to_string().trim_end().to_owned()))
}

fn default_shards() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores).unwrap_or(u16::MAX).min(SHARDS_DEFAULT_MAX)
}

fn loopback(port: u16) -> Address {
    Address::Tcp { host: "127.0.0.1".to_owned(), port }
}

/// Most shards that can be asked for.
const SHARDS_MAX: i64 = 256;

/// Most shards that are started unasked.
const SHARDS_DEFAULT_MAX: u16 = 64;

const SLOT_SIZE_DEFAULT: Size = Size::from_bytes(32 << 20);
const MAP_CACHE_DEFAULT: Size = Size::from_bytes(256 << 20);
const SCRUB_RATE_DEFAULT: Size = Size::from_bytes(32 << 20);
const API_RATE: u32 = 200;
const API_REFUSAL_RATE: u32 = 10;

/// How often what volumes use is read, in seconds.
const READING_PERIOD_DEFAULT: u16 = 300;
const READING_PERIOD_MAX: u16 = 3600;
/// A slower scrub would not get through a disk in its life.
const SCRUB_RATE_MIN: Size = Size::from_bytes(1 << 20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use std::io::Write;

    pub(super) fn flags(line: &str) -> ServeOptions {
        let cli = Cli::try_parse_from(["aljibe", "serve"].into_iter().chain(line.split_whitespace())).unwrap();
        let Command::Serve(options) = cli.command else { panic!("not serve") };
        *options
    }

    pub(super) fn resolve(line: &str, file: &str) -> Result<Settings, Failure> {
        let mut on_disk = tempfile::NamedTempFile::new().unwrap();
        on_disk.write_all(file.as_bytes()).unwrap();
        Settings::resolve(ServeOptions { config: Some(on_disk.path().to_owned()), ..flags(line) })
    }

    pub(super) fn refusal(line: &str, file: &str) -> String {
        resolve(line, file).unwrap_err().detail
    }

    #[test]
    fn a_data_directory_alone_is_enough() {
        let settings = Settings::resolve(flags("--data /d")).unwrap();
        assert_eq!(settings.nbd, [loopback(10809)]);
        assert_eq!(settings.api, loopback(9440));
        assert_eq!(settings.pool, PathBuf::from("/d/pool"));
        assert_eq!(settings.slot_size.bytes(), 32 << 20);
        assert!(settings.shards >= 1);
        assert!(!settings.direct && !settings.insecure_no_auth && settings.tls.is_none() && settings.mirror.is_none());
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = "data = '/file'\nnbd = ['127.0.0.1:1', 'unix:/n']\nmap-cache = '1G'\nslot-size = 1048576\n\
                    direct = true\nshards = 3\nlog-format = 'json'\npool = '/dev/x'\n";
        let settings = resolve("--data /flag --shards 5 --direct=false --map-cache 2G", file).unwrap();
        assert_eq!(settings.data, PathBuf::from("/flag"));
        assert_eq!((settings.shards, settings.direct), (5, false));
        assert_eq!(settings.map_cache.bytes(), 2 << 30);
        assert_eq!(settings.slot_size.bytes(), 1 << 20);
        assert_eq!(settings.nbd.len(), 2);
        assert_eq!(settings.log_format, LogFormat::Json);
        assert_eq!(settings.pool, PathBuf::from("/dev/x"));
        let one = resolve("--data /flag --nbd 127.0.0.1:9", file).unwrap();
        assert_eq!(one.nbd.len(), 1);
        assert!(one.direct);
    }

    #[test]
    fn a_wrong_file_is_refused_by_name_and_key() {
        assert!(refusal("--data /d", "mapcache = '1G'").contains("`mapcache`"));
        assert!(refusal("--data /d", "map-cache = '1GB'").contains("GiB"));
        assert!(refusal("--data /d", "api = '127.0.0.1'").contains("port is missing"));
        assert!(refusal("--data /d", "shards = 0").contains("1 to 256"));
        assert!(refusal("--data /d", "data = ").contains("configuration file /"));
        let nowhere = ServeOptions { config: Some("/nonexistent/aljibe.toml".into()), ..Default::default() };
        assert!(Settings::resolve(nowhere).unwrap_err().detail.contains("/nonexistent/aljibe.toml"));
        assert!(refusal("", "").contains("--data DIR"));
    }

    #[test]
    fn tls_is_required_with_a_certificate_unless_it_is_said_otherwise() {
        let with = |line: &str| Settings::resolve(flags(&format!("--data /d {line}")));
        let tls = with("--tls-cert c --tls-key k").unwrap().tls.unwrap();
        assert_eq!(tls.mode, TlsMode::Required);
        let tls = with("--tls-cert c --tls-key k --tls optional").unwrap().tls.unwrap();
        assert_eq!(tls.mode, TlsMode::Optional);
        for line in ["--tls required", "--tls-cert c", "--tls-key k", "--tls-client-ca a"] {
            assert!(with(line).unwrap_err().detail.contains("both --tls-cert and --tls-key"), "{line}");
        }
        let lax = with("--tls-cert c --tls-key k --tls optional --tls-client-ca a");
        assert!(lax.unwrap_err().detail.contains("--tls required"));
    }
}
