//! The commands about iSCSI targets.

use super::Target;
use clap::{Args, Subcommand};
use control::VolumeName;
use std::path::PathBuf;

/// `aljibe target`.
#[derive(Debug, Args)]
pub(crate) struct TargetCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: TargetVerb,
}

/// What to do with iSCSI targets.
#[derive(Debug, Subcommand)]
pub(crate) enum TargetVerb {
    /// Make a target, without volumes and for nobody yet. The default target is not there any more from then on.
    Create {
        /// NAME or TENANT/NAME, of a-z 0-9 . -, beginning with a letter or digit: they are part of its iSCSI name.
        name: VolumeName,
    },
    /// List every target.
    List,
    /// Show one target, with its volumes and who may enter it.
    Show {
        /// The target.
        name: VolumeName,
    },
    /// Delete a target. Its volumes stay.
    Delete {
        /// The target.
        name: VolumeName,
        /// End its sessions first.
        #[arg(long)]
        force: bool,
    },
    /// Have a target show a volume of its tenant.
    Map {
        /// The target.
        #[arg(value_name = "TARGET")]
        name: VolumeName,
        /// The volume.
        volume: VolumeName,
        /// As which LUN; without it, the next one.
        #[arg(long, value_name = "N")]
        lun: Option<u8>,
    },
    /// Have a target show a LUN no more. Its volume stays.
    Unmap {
        /// The target.
        #[arg(value_name = "TARGET")]
        name: VolumeName,
        /// The LUN.
        lun: u8,
    },
    /// Let an initiator enter a target, in place of what was said of it before.
    Allow {
        /// The target.
        #[arg(value_name = "TARGET")]
        name: VolumeName,
        /// Its iSCSI name, such as iqn.2004-10.com.example:host; * for any.
        initiator: String,
        #[command(flatten)]
        chap: ChapOptions,
    },
    /// Let an initiator enter a target no more.
    Deny {
        /// The target.
        #[arg(value_name = "TARGET")]
        name: VolumeName,
        /// Its iSCSI name, or * for what was said of any.
        initiator: String,
    },
}

/// What an initiator says who it is by. Secrets stand in files, since everybody on a machine sees its command lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct ChapOptions {
    /// As whom it must say who it is, by CHAP; without it, it need not.
    #[arg(long, value_name = "USER", requires = "chap_secret_file")]
    pub(crate) chap_user: Option<String>,
    /// A file that holds its secret, of 12 to 255 bytes.
    #[arg(long, value_name = "FILE", requires = "chap_user")]
    pub(crate) chap_secret_file: Option<PathBuf>,
    /// As whom the target says who it is; without it, it does not.
    #[arg(long, value_name = "USER", requires_all = ["chap_user", "mutual_secret_file"])]
    pub(crate) mutual_user: Option<String>,
    /// A file that holds the target's secret, which is another one.
    #[arg(long, value_name = "FILE", requires = "mutual_user")]
    pub(crate) mutual_secret_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn parse(line: &str) -> Result<TargetVerb, clap::Error> {
        let cli = Cli::try_parse_from(line.split_whitespace())?;
        let Command::Target(command) = cli.command else { panic!("{line}") };
        Ok(command.verb)
    }

    /// P8. No user stands without a secret, and no secret on the command line.
    #[test]
    fn a_user_stands_with_a_file_that_holds_the_secret() {
        let allow = "aljibe target allow db iqn.2004-10.com.example:host";
        assert!(parse(allow).is_ok());
        assert!(parse(&format!("{allow} --chap-user u --chap-secret-file f")).is_ok());
        let both = format!("{allow} --chap-user u --chap-secret-file f --mutual-user v --mutual-secret-file g");
        assert!(parse(&both).is_ok());
        for flags in [
            "--chap-user u",
            "--chap-secret-file f",
            "--mutual-user v --mutual-secret-file g",
            "--chap-user u --chap-secret-file f --mutual-user v",
            "--chap-secret secret",
        ] {
            assert!(parse(&format!("{allow} {flags}")).is_err(), "{flags}");
        }
        assert!(parse("aljibe target map db vm --lun 255").is_ok());
        assert!(parse("aljibe target map db vm --lun 256").is_err());
    }
}
