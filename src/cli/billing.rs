//! The commands about classes, prices, use and bills.

use super::{HistoryOptions, QosOptions, Target};
use clap::{Args, Subcommand, ValueEnum};
use control::Name;
use metering::ledger::{Digest, PublicKey};
use std::path::PathBuf;

/// `aljibe class`.
#[derive(Debug, Args)]
pub(crate) struct ClassCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: ClassVerb,
}

/// What to do with storage classes.
#[derive(Debug, Subcommand)]
pub(crate) enum ClassVerb {
    /// List every class.
    List,
    /// Make a class.
    Create {
        /// Its name.
        name: Name,
        #[command(flatten)]
        history: HistoryOptions,
        #[command(flatten)]
        qos: QosOptions,
    },
    /// Show one class.
    Show {
        /// The class.
        name: Name,
    },
    /// Change what a class gives its volumes, while they serve. Of ceilings, and of history, what is given replaces all.
    Set {
        /// The class.
        name: Name,
        #[command(flatten)]
        history: HistoryOptions,
        #[command(flatten)]
        qos: QosOptions,
    },
    /// Delete a class that no volume is of.
    Delete {
        /// The class.
        name: Name,
    },
}

/// `aljibe rate-card`.
#[derive(Debug, Args)]
pub(crate) struct RateCardCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: RateCardVerb,
}

/// What to do with rate cards.
#[derive(Debug, Subcommand)]
pub(crate) enum RateCardVerb {
    /// Add a card, for all tenants, or with --tenant for one. It never changes; another price is another card.
    Add {
        /// A JSON document.
        file: PathBuf,
    },
    /// List the cards that hold or will.
    List,
    /// Show what a card says.
    Show {
        /// Its id, as the list shows it, or the beginning of it.
        id: String,
    },
    /// Withdraw a card that has not begun to hold; with --tenant, the one that is for that tenant.
    Withdraw {
        /// Its id, or the beginning of it.
        id: String,
    },
}

/// `aljibe invoice`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct InvoiceCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The month to show, such as 2026-11: as it was issued, or how it looks now.
    #[arg(long, value_name = "MONTH", required = true)]
    pub(crate) month: Option<String>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub(crate) format: InvoiceFormat,
    #[command(subcommand)]
    pub(crate) verb: Option<InvoiceVerb>,
}

/// What to do with invoices.
#[derive(Debug, Subcommand)]
pub(crate) enum InvoiceVerb {
    /// List a tenant's issued invoices, and the corrections that come with the next.
    List,
    /// Issue a month's invoice, once and for ever.
    Issue {
        /// The month, such as 2026-11.
        #[arg(long)]
        month: String,
    },
    /// Have the next invoice put a month right that was issued, by lines that take back and lines as they should be.
    Correct {
        /// The month, such as 2026-10.
        #[arg(long)]
        month: String,
        /// Why: it stands on the invoice.
        #[arg(long)]
        reason: String,
    },
}

/// How an invoice is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InvoiceFormat {
    Text,
    Json,
    Csv,
    Focus,
    Html,
}

/// `aljibe usage`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct UsageCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The month, such as 2026-11; the one that goes on when it is not given.
    #[arg(long, value_name = "MONTH")]
    pub(crate) month: Option<String>,
    #[command(subcommand)]
    pub(crate) verb: Option<UsageVerb>,
}

/// What to do with usage.
#[derive(Debug, Subcommand)]
pub(crate) enum UsageVerb {
    /// Write the readings that a month's bill is made of to stdout, a JSON object a line, with what the registers say now.
    Readings {
        /// The month, such as 2026-11.
        #[arg(long)]
        month: String,
    },
    /// Write a tenant's part of the ledger of a month to stdout: readings, cards, invoices, and what proves them.
    Export {
        /// The month, such as 2026-11.
        #[arg(long)]
        month: String,
        /// Without readings, for a time of which they were dropped.
        #[arg(long)]
        account_only: bool,
    },
    /// Check an exported file, without the daemon: who has the ledger's key, or one of its heads, needs nothing else.
    Verify {
        /// The file.
        bundle: PathBuf,
        /// A key of the ledger that is known from elsewhere, 64 hexadecimal digits.
        #[arg(long, value_name = "HEX", value_parser = parse_key, required_unless_present = "heads")]
        key: Vec<PublicKey>,
        /// The hash of a head that is known from elsewhere.
        #[arg(long = "head", value_name = "HASH", value_parser = parse_hash)]
        heads: Vec<Digest>,
    },
    /// Show who signs the ledger's heads: note it down elsewhere.
    Key,
    /// List the ledger's heads, the newest first.
    Heads,
}

/// `aljibe budget`.
#[derive(Debug, Args)]
pub(crate) struct BudgetCommand {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: BudgetVerb,
}

/// What to do with a tenant's budget.
#[derive(Debug, Subcommand)]
pub(crate) enum BudgetVerb {
    /// Show a tenant's budget, and what was told of it this month.
    Show,
    /// Give a tenant a budget, in place of the one that it has.
    Set {
        /// For a month, in the currency of its rate card, such as 250.00.
        #[arg(long)]
        amount: String,
        /// At which percentages of it, reached by the bill so far, somebody is told.
        #[arg(long = "at", value_name = "PERCENT", value_delimiter = ',', default_values_t = [50, 80, 100])]
        thresholds: Vec<u32>,
        /// At which percentages of it, reached by the month's forecast.
        #[arg(long = "forecast-at", value_name = "PERCENT", value_delimiter = ',')]
        forecast_thresholds: Vec<u32>,
        /// Where that is posted to, http or https; it is in the daemon's log in any case.
        #[arg(long = "webhook", value_name = "URL")]
        webhooks: Vec<String>,
    },
    /// Take a tenant's budget away.
    Delete,
}

/// How a tenant is billed. What is not given stays as it is.
#[derive(Debug, Clone, Args)]
pub(crate) struct BillingOptions {
    /// What stands on its invoices; of the default tenant, who issues all of them.
    #[arg(long, value_name = "NAME")]
    pub(crate) invoice_name: Option<String>,
    /// The time zone of its months, such as Europe/Berlin; it stays once an invoice is issued.
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Option<String>,
    /// What its invoices' numbers begin with, such as AC-.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
}

impl InvoiceFormat {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Focus => "focus",
            Self::Html => "html",
        }
    }
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).map_err(|_| "a key is 64 small hexadecimal digits: see aljibe usage key".to_owned())
}

fn parse_hash(text: &str) -> Result<Digest, String> {
    Digest::parse(text).map_err(|_| "a head's hash is 64 small hexadecimal digits: see aljibe usage heads".to_owned())
}
