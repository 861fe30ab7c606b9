//! The command line.

mod billing;
mod iscsi;
mod mirror;

pub(crate) use billing::{
    BillingOptions, BudgetCommand, BudgetVerb, ClassCommand, ClassVerb, InvoiceCommand, InvoiceFormat, InvoiceVerb,
    RateCardCommand, RateCardVerb, UsageCommand, UsageVerb,
};
pub(crate) use iscsi::{ChapOptions, TargetCommand, TargetVerb};
pub(crate) use mirror::{SiteCommand, SiteVerb, WhyCommand};

use crate::address::Address;
use crate::config::ServeOptions;
use crate::data_dir::TOKEN_FILE;
use crate::failure::{EXIT_CODES_HELP, Failure};
use crate::qemu::{ReadFormat, WriteFormat};
use clap::{Args, Parser, Subcommand};
use control::{ExportName, InvalidName, MomentName, Name, Role, Size, SnapshotName, VolumeName, VolumeSize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Pay-per-use block storage: thin volumes on a log, served over NBD.
#[derive(Debug, Parser)]
#[command(name = "aljibe", version, after_help = EXIT_CODES_HELP, disable_help_subcommand = false)]
pub(crate) struct Cli {
    /// Print one JSON document on stdout, and failures as JSON on stderr.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon.
    Serve(Box<ServeOptions>),
    /// Create, list, show, resize, mirror, move and delete volumes.
    Volume(VolumeCommand),
    /// Tell how a mirrored volume is at this site, and what the site decided lately and why.
    Why(WhyCommand),
    /// Tell how the mirrored volumes are at this site, and make it a volume's primary by force.
    Site(SiteCommand),
    /// Take, list, show and delete snapshots.
    Snapshot(SnapshotCommand),
    /// Look at the pool; check it or make its index anew while the daemon is stopped.
    Pool(PoolCommand),
    /// Import, list, show, export and delete images, from which volumes are cloned.
    Image(ImageCommand),
    /// Create, list, show, limit, suspend and delete tenants, and say who may enter their exports.
    Tenant(TenantCommand),
    /// Create, list and revoke the tokens by which the API is spoken to.
    Token(TokenCommand),
    /// List, show and cancel jobs that take long: scrubs, erasures and imports.
    Operation(OperationCommand),
    /// Show who changed what, and what came of it: the newest first.
    Audit(AuditCommand),
    /// Create, list, show, change and delete storage classes.
    Class(ClassCommand),
    /// Create, list, show and delete iSCSI targets, and say what each shows to whom.
    Target(TargetCommand),
    /// Add, list, show and withdraw rate cards: what use costs.
    RateCard(RateCardCommand),
    /// Show, list, issue and correct a tenant's invoices.
    Invoice(InvoiceCommand),
    /// Show what a tenant used; export its part of the ledger, and check that without the daemon.
    Usage(UsageCommand),
    /// Show, set and delete a tenant's budget.
    Budget(BudgetCommand),
}

/// `aljibe volume`.
#[derive(Debug, Args)]
pub(crate) struct VolumeCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: VolumeVerb,
}

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeVerb {
    /// Make a thin volume.
    Create {
        /// NAME or TENANT/NAME, each 1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or digit; also the NBD export's name.
        name: VolumeName,
        /// Its size, such as 10G: powers of 1024, a multiple of 512 bytes.
        #[arg(long, required_unless_present = "image")]
        size: Option<VolumeSize>,
        /// The image that it begins as; without a size it is as large as that. One of its tenant's, or one that the provider
        /// shares with it.
        #[arg(long, value_name = "NAME")]
        image: Option<String>,
        /// Its storage class.
        #[arg(long, value_name = "NAME")]
        class: Option<Name>,
        #[command(flatten)]
        history: HistoryOptions,
        #[command(flatten)]
        trial: Trial,
    },
    /// List every volume.
    List,
    /// Show one volume.
    Show {
        /// The volume.
        name: VolumeName,
    },
    /// Change a volume's size while it serves.
    Resize {
        /// The volume.
        name: VolumeName,
        /// The new size, such as 20G.
        #[arg(long)]
        size: VolumeSize,
        /// Throw away data beyond a smaller size, which refuses to shrink otherwise.
        #[arg(long)]
        discard_tail: bool,
        #[command(flatten)]
        trial: Trial,
    },
    /// Say for how long a volume's past is kept, so that it can be cloned as it was at any second; or what may be asked of it
    /// in a second, while it serves.
    Set {
        /// The volume.
        name: VolumeName,
        #[command(flatten)]
        history: HistoryOptions,
        #[command(flatten)]
        qos: QosOptions,
    },
    /// Give a volume another storage class while it serves: it is billed by that from then on.
    SetClass {
        /// The volume.
        name: VolumeName,
        /// The class.
        class: Name,
        #[command(flatten)]
        trial: Trial,
    },
    /// Make a volume that begins as a snapshot, of which nothing is copied; or as a volume was at a second of its history.
    Clone {
        /// The snapshot, or the second, in UTC: VOLUME@2026-11-24T03:15:07Z.
        #[arg(value_name = "VOLUME@NAME")]
        source: CloneSource,
        /// The new volume's name.
        name: VolumeName,
    },
    /// Make a volume what it was at one of its snapshots. A snapshot of what it is now is taken first.
    Rollback {
        /// The snapshot.
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotName,
        /// Cut attached clients off first.
        #[arg(long)]
        force: bool,
    },
    /// Have a volume mirrored to another site. It is in sync when all that was acknowledged before is there, too.
    Mirror {
        /// The volume.
        name: VolumeName,
        /// The other site's number.
        #[arg(long, value_name = "SITE")]
        to: u8,
    },
    /// End the mirroring of a volume at this site, which has it for itself from then on.
    Unmirror {
        /// The volume.
        name: VolumeName,
    },
    /// Have another site be the primary of a mirrored volume, without a write lost or refused.
    Move {
        /// The volume.
        name: VolumeName,
        /// That site's number.
        #[arg(long, value_name = "SITE")]
        to: u8,
    },
    /// Delete a volume, its snapshots and all its data. What clones of it need is kept for them.
    Delete {
        /// The volume.
        name: VolumeName,
        /// Cut attached clients off first.
        #[arg(long)]
        force: bool,
    },
}

/// For how long the past of a volume is kept.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct HistoryOptions {
    /// For how long, such as 24h: a number with s, m, h or d. 0 ends it.
    #[arg(long, value_name = "TIME")]
    pub(crate) history: Option<Period>,
    /// Most that it may hold before the oldest goes, such as 10G. Without it, or with 0, that is the volume's size, or eight
    /// slots.
    #[arg(long, value_name = "SIZE")]
    pub(crate) history_limit: Option<Size>,
}

/// What may be asked of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Args)]
pub(crate) struct QosOptions {
    /// Most operations a second; 0 for no ceiling.
    #[arg(long, value_name = "N")]
    pub(crate) iops: Option<u64>,
    /// Operations that are saved at most while fewer are asked for, and may then come at once; without it, those of a second.
    #[arg(long, value_name = "N")]
    pub(crate) iops_burst: Option<u64>,
    /// Most that is read and written in a second, such as 100M; 0 for no ceiling.
    #[arg(long, value_name = "SIZE")]
    pub(crate) bandwidth: Option<Size>,
    /// What is saved of that at most, such as 10G; without it, that of a second.
    #[arg(long, value_name = "SIZE")]
    pub(crate) bandwidth_burst: Option<Size>,
    /// Has an operation count once for each so much that it reads or writes, such as 256K; 0 for once, whatever its size.
    #[arg(long, value_name = "SIZE")]
    pub(crate) operation_size: Option<Size>,
}

/// A time as people write it: a number with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) seconds: u64,
}

/// What a clone begins as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CloneSource {
    Snapshot(SnapshotName),
    Moment(MomentName),
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no time: write a number with s, m, h or d, such as 24h");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match text.get(digits.len()..).unwrap_or_default() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            "" if digits == "0" => 1,
            _ => return Err(refused()),
        };
        let number: u64 = digits.parse().map_err(|_| refused())?;
        number.checked_mul(factor).map(|seconds| Self { seconds }).ok_or_else(refused)
    }
}

impl FromStr for CloneSource {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // No name has a colon, and every second has.
        if text.contains(':') { text.parse().map(Self::Moment) } else { text.parse().map(Self::Snapshot) }
    }
}

/// `aljibe image`.
#[derive(Debug, Args)]
pub(crate) struct ImageCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: ImageVerb,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// Make an image of a file (raw, qcow2, VMDK, VHDX) or of an NBD export. The same command goes on where another one
    /// was interrupted.
    Import {
        /// A file, nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH; nbds and nbds+unix for TLS.
        source: String,
        /// The image's name, of the same form as a volume's.
        name: VolumeName,
        /// The file's format, when it is not to be told from its content.
        #[arg(long)]
        format: Option<ReadFormat>,
        #[command(flatten)]
        nbd: NbdFlags,
    },
    /// List every image.
    List,
    /// Show one image.
    Show {
        /// The image.
        name: VolumeName,
    },
    /// Write an image to a file that is not there yet.
    Export {
        /// The image.
        name: VolumeName,
        /// The file.
        file: PathBuf,
        /// The file's format.
        #[arg(long, default_value = "raw")]
        format: WriteFormat,
        #[command(flatten)]
        nbd: NbdFlags,
    },
    /// Say which other tenants may make volumes of an image of the provider's own.
    Share {
        /// The image.
        name: VolumeName,
        /// These tenants, in place of those before.
        #[arg(long = "with", value_name = "TENANT", required_unless_present_any = ["all", "nobody"])]
        tenants: Vec<Name>,
        /// Every tenant.
        #[arg(long, conflicts_with_all = ["tenants", "nobody"])]
        all: bool,
        /// None.
        #[arg(long, conflicts_with = "tenants")]
        nobody: bool,
    },
    /// Delete an image and its data.
    Delete {
        /// The image.
        name: VolumeName,
        /// Cut attached clients off first.
        #[arg(long)]
        force: bool,
    },
}

/// How NBD servers are spoken with, the daemon and a source alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct NbdFlags {
    /// The authorities of NBD servers that speak TLS, in PEM; without them TLS is not spoken.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// The client's certificate chain in PEM, for servers that want one.
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the client's certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Longest silence of an NBD server that owes an answer [default: 60].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) timeout: Option<u32>,
}

/// `aljibe snapshot`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: SnapshotVerb,
}

/// What to do with snapshots.
/// Whether a change is only tried out.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Trial {
    /// Check it as for real, tell what would come of it and what that costs in a month, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotVerb {
    /// Take snapshots, of one volume each, while the volumes are served: all at one point, all or none.
    Create {
        /// The snapshots, VOLUME@NAME; also the names of their NBD exports.
        #[arg(required = true, value_name = "VOLUME@NAME")]
        names: Vec<SnapshotName>,
        /// What the group of them is called.
        #[arg(long, value_name = "NAME")]
        group: Option<Name>,
    },
    /// List every snapshot, or those of one volume.
    List {
        /// The volume.
        volume: Option<VolumeName>,
        /// Tell what each alone holds, too. It takes the longer, the more has changed between them.
        #[arg(long)]
        space: bool,
    },
    /// Show one snapshot.
    Show {
        /// The snapshot.
        #[arg(value_name = "VOLUME@NAME")]
        name: SnapshotName,
    },
    /// Tell what a later snapshot, or the volume now, has that a snapshot has not: what a backup must take up since it.
    Diff {
        /// The snapshot.
        #[arg(value_name = "VOLUME@NAME")]
        since: SnapshotName,
        /// The later snapshot, or a volume as it is now.
        #[arg(value_name = "VOLUME[@NAME]")]
        to: ExportName,
    },
    /// Tell what the deletion of snapshots would give back.
    Reclaim {
        /// The snapshots.
        #[arg(required = true, value_name = "VOLUME@NAME")]
        names: Vec<SnapshotName>,
        /// Only tell, and delete nothing; `delete` deletes.
        #[arg(long, required = true)]
        dry_run: bool,
    },
    /// Delete snapshots, one after the other.
    Delete {
        /// The snapshots.
        #[arg(required = true, value_name = "VOLUME@NAME")]
        names: Vec<SnapshotName>,
    },
}

/// `aljibe tenant`.
#[derive(Debug, Args)]
pub(crate) struct TenantCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: TenantVerb,
}

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantVerb {
    /// Make a tenant.
    Create {
        /// Its name, which stands before those of its volumes: TENANT/VOLUME.
        name: Name,
        #[command(flatten)]
        quota: QuotaOptions,
    },
    /// List every tenant.
    List,
    /// Show one tenant, with what it may have and what it has.
    Show {
        /// The tenant.
        name: Name,
    },
    /// Say what a tenant may have. What it has above that it keeps.
    Set {
        /// The tenant.
        name: Name,
        #[command(flatten)]
        quota: QuotaOptions,
    },
    /// Say how a tenant is billed, or show it.
    Billing {
        /// The tenant.
        name: Name,
        #[command(flatten)]
        billing: BillingOptions,
    },
    /// Say what may be asked of all volumes of a tenant together in a second, while they serve.
    Qos {
        /// The tenant.
        name: Name,
        #[command(flatten)]
        qos: QosOptions,
        /// How large its share of a busy shard is to be, where those of others are 1.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
        weight: Option<u64>,
    },
    /// Say who may enter a tenant's exports, in place of what was said before: whom any of these lets in.
    Access {
        /// The tenant.
        name: Name,
        #[command(flatten)]
        access: AccessOptions,
    },
    /// Cut a tenant's clients off and let nobody in, and change nothing that it has. Nothing is lost.
    Suspend {
        /// The tenant.
        name: Name,
    },
    /// Let a suspended tenant go on.
    Resume {
        /// The tenant.
        name: Name,
    },
    /// Delete a tenant that has nothing any more, and its tokens.
    Delete {
        /// The tenant.
        name: Name,
        /// Although it used something that is on no invoice, and will be on none.
        #[arg(long)]
        force: bool,
    },
}

/// What a tenant may have. What is not given stays as it is; 0 ends a limit.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct QuotaOptions {
    /// Most bytes of the sizes of its volumes and images together, such as 10T.
    #[arg(long, value_name = "SIZE")]
    pub(crate) quota: Option<Size>,
    /// Most volumes and images.
    #[arg(long, value_name = "N")]
    pub(crate) max_volumes: Option<u64>,
    /// Most snapshots of its volumes.
    #[arg(long, value_name = "N")]
    pub(crate) max_snapshots: Option<u64>,
}

/// Who may enter a tenant's exports.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccessOptions {
    /// Whoever comes from a network, such as 10.0.0.0/8, or an address; may be given again.
    #[arg(long, value_name = "CIDR")]
    pub(crate) allow_cidr: Vec<String>,
    /// Whoever has a client certificate, told by its SHA-256 as openssl x509 -fingerprint -sha256 shows it; may be given again.
    #[arg(long, value_name = "SHA256")]
    pub(crate) certificate: Vec<String>,
    /// Whoever may open TENANT.sock in the daemon's folder of tenants' sockets.
    #[arg(long)]
    pub(crate) socket: bool,
    /// The number of the group that may open it, besides the daemon's user.
    #[arg(long, value_name = "GID", requires = "socket")]
    pub(crate) socket_group: Option<u32>,
    /// Nobody.
    #[arg(
        long,
        required_unless_present_any = ["allow_cidr", "certificate", "socket"],
        conflicts_with_all = ["allow_cidr", "certificate", "socket"]
    )]
    pub(crate) nobody: bool,
    /// Cut off everybody who is attached now; those who may enter can come anew.
    #[arg(long)]
    pub(crate) cut_off: bool,
}

/// `aljibe token`.
#[derive(Debug, Args)]
pub(crate) struct TokenCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: TokenVerb,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token, for the tenant that --tenant names where the role is a tenant's. Its text is shown this once.
    Create {
        /// What it is called, for people.
        name: Name,
        /// What its holder is: provider-admin, operator, billing, tenant-admin, tenant-user or auditor.
        #[arg(long)]
        role: Role,
        /// For how long it is good, such as 24h; 0 for ever [default: 90d].
        #[arg(long, value_name = "TIME")]
        expires: Option<Period>,
    },
    /// List tokens, without their texts.
    List,
    /// Make a new token for a provider-admin in the place of that in the data directory, and end that.
    Rotate,
    /// End a token.
    Revoke {
        /// Its number, which is also in its text: alj_NUMBER_...
        id: u64,
    },
}

/// `aljibe operation`.
#[derive(Debug, Args)]
pub(crate) struct OperationCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: OperationVerb,
}

/// What to do with jobs that take long.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationVerb {
    /// List those under way, and the last scrub.
    List,
    /// Show one.
    Show {
        /// What the list calls it.
        id: String,
    },
    /// End one before its end. A scrub stops where it is; of an import, the partial image is deleted; an erasure goes on.
    Cancel {
        /// What the list calls it.
        id: String,
    },
}

/// `aljibe audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Requests that were not let in, in place of changes.
    #[arg(long)]
    pub(crate) refused: bool,
    /// Those with lower numbers, for what comes before.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) before: Option<u64>,
}

/// `aljibe pool`.
#[derive(Debug, Args)]
pub(crate) struct PoolCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: PoolVerb,
}

/// What to do with the pool.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolVerb {
    /// Show the pool of a running daemon.
    Show,
    /// Have a running daemon read everything in the pool against its check data, in the background.
    Scrub {
        /// As fast as the disk gives; waits for the end and shows what was found.
        #[arg(long)]
        now: bool,
        /// Begin nothing: show how far the scrub is, or what the last one found.
        #[arg(long, conflicts_with = "now")]
        status: bool,
    },
    /// Check every structure of the pool; the daemon must be stopped.
    Check(OfflinePool),
    /// Make the index anew from the pool alone; the daemon must be stopped.
    Rebuild(OfflinePool),
}

/// A pool that no daemon has open.
#[derive(Debug, Args)]
pub(crate) struct OfflinePool {
    /// The pool's file or device, unless it is DIR/pool.
    #[arg(long, value_name = "PATH")]
    pub(crate) pool: Option<PathBuf>,
}

/// Which daemon is meant. Flags win over the environment, an address over a directory.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Target {
    /// The daemon's data directory [env: ALJIBE_DATA].
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "api")]
    pub(crate) data: Option<PathBuf>,
    /// The daemon's API, HOST:PORT or unix:PATH [env: ALJIBE_API] [default: 127.0.0.1:9440].
    #[arg(long, value_name = "ADDR", global = true)]
    pub(crate) api: Option<Address>,
    /// A file that holds the token to ask by [env: ALJIBE_TOKEN holds one itself] [default: DIR/token].
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// The tenant whose things are meant: names without a tenant's are of this one.
    #[arg(long, value_name = "TENANT", global = true)]
    pub(crate) tenant: Option<Name>,
}

impl Target {
    /// Where the daemon's API is.
    pub(crate) fn address(&self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Address, Failure> {
        if let Some(api) = &self.api {
            return Ok(api.clone());
        }
        if let Some(data) = &self.data {
            return Ok(Address::Unix(data.join("api.sock")));
        }
        if let Some(api) = environment("ALJIBE_API") {
            let refused = |reason: String| Failure::usage(format!("ALJIBE_API: {reason}"));
            let text = api.into_string().map_err(|_| refused("it is not text".to_owned()))?;
            return text.parse().map_err(|error: crate::address::InvalidAddress| refused(error.to_string()));
        }
        if let Some(data) = environment("ALJIBE_DATA") {
            return Ok(Address::Unix(PathBuf::from(data).join("api.sock")));
        }
        Ok(Address::Tcp { host: "127.0.0.1".to_owned(), port: 9440 })
    }

    /// The token to ask by. That in the data directory is sent to the daemon of that directory alone.
    pub(crate) fn token(&self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Option<String>, Failure> {
        if let Some(path) = &self.token_file {
            return read_token(path).map(Some);
        }
        if let Some(token) = environment("ALJIBE_TOKEN") {
            let token = token.into_string().map_err(|_| Failure::usage("ALJIBE_TOKEN: it is not text"))?;
            return Ok(Some(token.trim().to_owned()));
        }
        let Address::Unix(path) = self.address(&environment)? else { return Ok(None) };
        let data = self.data.clone().or_else(|| environment("ALJIBE_DATA").map(PathBuf::from));
        let token = data.filter(|data| path == data.join("api.sock")).map(|data| data.join(TOKEN_FILE));
        token.filter(|token| token.exists()).map(|token| read_token(&token)).transpose()
    }

    /// A volume of the tenant that is meant.
    pub(crate) fn volume(&self, name: VolumeName) -> VolumeName {
        match &self.tenant {
            Some(tenant) if name.tenant().is_default_tenant() => name.within(tenant),
            _ => name,
        }
    }

    /// A snapshot of the tenant that is meant.
    pub(crate) fn snapshot(&self, name: &SnapshotName) -> SnapshotName {
        SnapshotName::new(self.volume(name.volume().clone()), name.name().clone())
    }

    /// What a list is asked for by.
    pub(crate) fn query(&self) -> String {
        self.tenant.as_ref().map(|tenant| format!("?tenant={tenant}")).unwrap_or_default()
    }

    /// The data directory, for what works on it without a daemon.
    pub(crate) fn data_dir(&self, environment: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Failure> {
        let given = self.data.clone().or_else(|| environment("ALJIBE_DATA").map(PathBuf::from));
        given.ok_or_else(|| Failure::usage("name the data directory by --data DIR or ALJIBE_DATA"))
    }
}

pub(crate) fn read_token(path: &Path) -> Result<String, Failure> {
    let refused =
        |error: std::io::Error| Failure::usage(format!("cannot read the token in {}: {error}", path.display()));
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    fn refusal(line: &str) -> String {
        parse(line).unwrap_err().to_string()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_after_the_verb() {
        for line in [
            "aljibe --json volume --data /d create vm-1 --size 10G",
            "aljibe volume create vm-1 --size 10G --data /d --json",
        ] {
            let cli = parse(line).unwrap();
            assert!(cli.json);
            let Command::Volume(command) = cli.command else { panic!("{line}") };
            assert_eq!(command.target.data, Some(PathBuf::from("/d")));
            let VolumeVerb::Create { name, size, image, class: _, history: _, trial: _ } = command.verb else {
                panic!("{line}")
            };
            assert_eq!((name.as_str(), size.map(VolumeSize::bytes), image), ("vm-1", Some(10 << 30), None));
        }
    }

    #[test]
    fn wrong_values_are_refused_with_what_to_write() {
        assert!(refusal("aljibe volume create a/b/c --size 10G").contains("letters, digits"));
        assert!(refusal("aljibe volume create a --size 10GB").contains("GiB"));
        assert!(refusal("aljibe volume create a --size 1000").contains("multiple of 512"));
        assert!(refusal("aljibe volume create a").contains("--size"));
        assert!(refusal("aljibe snapshot create vm").contains("VOLUME@NAME"));
        assert!(refusal("aljibe snapshot delete").contains("VOLUME@NAME"));
        assert!(refusal("aljibe volume list --api nonsense").contains("HOST:PORT"));
        assert!(refusal("aljibe volume list --api 127.0.0.1:1 --data /d").contains("cannot be used with"));
        assert!(refusal("aljibe serve --shards 0").contains("--shards"));
    }

    #[test]
    fn a_mirror_is_told_by_its_site() {
        for line in ["volume mirror vm --to 2", "volume move vm --to 2", "volume unmirror vm", "why vm", "site status"]
        {
            assert!(parse(&format!("aljibe {line} --data /d --json")).is_ok(), "{line}");
        }
        assert!(parse("aljibe site failover acme/vm").is_ok());
        assert!(refusal("aljibe volume mirror vm").contains("--to"));
        assert!(refusal("aljibe volume move vm --to 256").contains("--to"));
        assert!(refusal("aljibe why vm@monday").contains("letters, digits"));
    }

    #[test]
    fn an_invoice_is_shown_by_its_month_alone() {
        let parsed = |line: &str| {
            let Command::Invoice(command) = parse(line).unwrap().command else { panic!("{line}") };
            (command.month, command.format, command.verb.is_some())
        };
        let shown = parsed("aljibe invoice --tenant acme --month 2026-11 --format focus");
        assert_eq!(shown, (Some("2026-11".to_owned()), InvoiceFormat::Focus, false));
        assert!(parsed("aljibe invoice issue --tenant acme --month 2026-11").2);
        assert!(refusal("aljibe invoice --tenant acme").contains("--month"));
        assert!(parse("aljibe usage --tenant acme").is_ok());
        assert!(refusal("aljibe usage verify file").contains("--key"));
        assert!(refusal("aljibe usage verify file --key 12").contains("64"));
        assert!(parse(&format!("aljibe usage verify file --head {}", "0".repeat(64))).is_ok());
    }

    #[test]
    fn a_client_certificate_stands_with_its_key_and_the_authority() {
        let import = "aljibe image import nbds://h/a os";
        assert!(parse(&format!("{import} --tls-ca c --tls-cert a --tls-key b --timeout 5")).is_ok());
        assert!(refusal(&format!("{import} --tls-ca c --tls-cert a")).contains("--tls-key"));
        assert!(refusal(&format!("{import} --tls-key b")).contains("--tls-cert"));
        assert!(refusal(&format!("{import} --tls-cert a --tls-key b")).contains("--tls-ca"));
        assert!(refusal(&format!("{import} --timeout 0")).contains("--timeout"));
    }

    #[test]
    fn times_and_seconds_are_told_from_what_they_are_not() {
        let seconds = |text: &str| text.parse::<Period>().map(|period| period.seconds).ok();
        assert_eq!(
            ["0", "90s", "5m", "24h", "7d"].map(seconds),
            [Some(0), Some(90), Some(300), Some(86400), Some(604_800)]
        );
        assert_eq!(["", "h", "24", "1w", "-1h", "1.5h", "99999999999999999999s"].map(seconds), [None; 7]);
        assert!(matches!("vm@monday".parse(), Ok(CloneSource::Snapshot(_))));
        assert!(matches!("vm@2026-11-24T03:15:07Z".parse(), Ok(CloneSource::Moment(_))));
        assert!(refusal("aljibe volume clone vm@2026-11-24T03:15:07.5Z new").contains("UTC"));
    }

    #[test]
    fn help_shows_the_exit_codes() {
        assert!(refusal("aljibe --help").contains("5  the daemon does not answer"));
        assert!(refusal("aljibe help").contains("Exit codes"));
    }

    /// P8. The token in a data directory goes to the daemon of that directory, and to no other address.
    #[test]
    fn a_token_goes_where_it_belongs() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().to_owned();
        let none = Target::default();
        let of = |target: Target| {
            move |name: &str, value: OsString| {
                let name = name.to_owned();
                target.token(move |key| (key == name).then(|| value.clone())).unwrap()
            }
        };
        let here = || Target { data: Some(data.clone()), ..none.clone() };
        assert_eq!(of(here())("-", OsString::new()), None);
        std::fs::write(data.join("token"), "alj_1_a\n").unwrap();
        assert_eq!(of(here())("-", OsString::new()).as_deref(), Some("alj_1_a"));
        assert_eq!(of(none.clone())("ALJIBE_DATA", data.clone().into()).as_deref(), Some("alj_1_a"));
        assert_eq!(of(here())("ALJIBE_TOKEN", "alj_2_b".into()).as_deref(), Some("alj_2_b"));
        let away = Target { api: Some("127.0.0.1:1".parse().unwrap()), ..none.clone() };
        assert_eq!(of(away.clone())("ALJIBE_DATA", data.clone().into()), None);
        std::fs::write(data.join("other"), "alj_3_c").unwrap();
        let given = Target { token_file: Some(data.join("other")), ..away };
        assert_eq!(of(given)("ALJIBE_TOKEN", "alj_2_b".into()).as_deref(), Some("alj_3_c"));
        let missing = Target { token_file: Some(data.join("none")), ..none };
        assert!(missing.token(|_| None).unwrap_err().detail.contains("none"));
    }

    #[test]
    fn a_name_without_a_tenant_is_of_the_one_that_is_meant() {
        let target = Target { tenant: Some("acme".parse().unwrap()), ..Target::default() };
        assert_eq!(target.volume("vm".parse().unwrap()).as_str(), "acme/vm");
        assert_eq!(target.volume("beta/vm".parse().unwrap()).as_str(), "beta/vm");
        assert_eq!(target.snapshot(&"vm@a".parse().unwrap()).to_string(), "acme/vm@a");
        assert_eq!(Target::default().volume("vm".parse().unwrap()).as_str(), "vm");
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_an_address_over_a_directory() {
        let environment = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let both = environment(&[("ALJIBE_API", "127.0.0.1:1"), ("ALJIBE_DATA", "/e")]);
        let address = |target: &Target| target.address(both).unwrap().to_string();
        let none = Target::default();
        assert_eq!(address(&none), "127.0.0.1:1");
        assert_eq!(address(&Target { data: Some("/d".into()), ..none.clone() }), "unix:/d/api.sock");
        assert_eq!(address(&Target { api: Some("[::1]:2".parse().unwrap()), ..none.clone() }), "[::1]:2");
        let data_only = environment(&[("ALJIBE_DATA", "/e")]);
        assert_eq!(none.address(data_only).unwrap().to_string(), "unix:/e/api.sock");
        assert_eq!(none.address(|_| None).unwrap().to_string(), "127.0.0.1:9440");
        assert!(none.address(environment(&[("ALJIBE_API", "x")])).unwrap_err().detail.contains("ALJIBE_API"));
        assert!(none.data_dir(|_| None).unwrap_err().detail.contains("--data"));
    }
}
