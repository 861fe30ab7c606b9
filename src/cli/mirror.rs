//! The command line of sites and mirrored volumes.

use super::Target;
use clap::{Args, Subcommand};
use control::VolumeName;

/// `aljibe why`.
#[derive(Debug, Args)]
pub(crate) struct WhyCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The volume.
    pub(crate) name: VolumeName,
}

/// `aljibe site`.
#[derive(Debug, Args)]
pub(crate) struct SiteCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: SiteVerb,
}

/// What to do with a site of a mirror.
#[derive(Debug, Subcommand)]
pub(crate) enum SiteVerb {
    /// List the mirrored volumes as they are here, and tell whether this site may be taken down now.
    Status,
    /// Make this site the primary of a volume by force, when the other one is lost: what that one alone holds is given up, also
    /// what was acknowledged. Where both sites are well, `volume move` loses nothing.
    Failover {
        /// The volume.
        name: VolumeName,
    },
}
