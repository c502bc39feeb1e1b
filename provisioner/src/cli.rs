//! The command line: definitions only.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Plans and applies an event pipeline on AWS from one pipeline.toml, without a state file.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// The declaration
    #[arg(long, value_name = "FILE", default_value = "pipeline.toml", env = "PIPELINE_CONFIG", global = true)]
    pub config: PathBuf,
    /// Lay [environments.NAME] of the declaration over the rest
    #[arg(long = "env", value_name = "NAME", env = "PIPELINE_ENV", global = true)]
    pub environment: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the declaration alone; talks to nobody
    Validate,
    /// Show what differs from AWS; changes nothing
    Plan {
        /// Exit with 2 where there are changes, 0 where there are none, 1 on any error
        #[arg(long)]
        detailed_exitcode: bool,
        /// Write the plan to a file too, which `apply FILE` does exactly, or refuses
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// What is allowed beyond the declaration
        #[command(flatten)]
        allow: Allow,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: PlanFormat,
    },
    /// Show what differs from AWS, ask, and make it so
    Apply {
        /// A plan that `plan --out` wrote: it is done as it was shown, or, where anything has moved since, not at all
        #[arg(value_name = "PLANFILE", conflicts_with_all = ["adopt", "prune"])]
        plan: Option<PathBuf>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Prove, in the end, that the pipeline counts; see `verify`
        #[arg(long)]
        verify: bool,
        /// What is allowed beyond the declaration
        #[command(flatten)]
        allow: Allow,
        /// How to print what happens
        #[arg(long, value_enum, default_value_t)]
        format: EventFormat,
    },
    /// Delete what the pipeline owns; the bucket and the tables only with --delete-data
    Destroy {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Delete the bucket with all of its objects, and the tables, too
        #[arg(long)]
        delete_data: bool,
        /// How to print what happens
        #[arg(long, value_enum, default_value_t)]
        format: EventFormat,
    },
    /// Print the least that IAM must allow to who works with the pipeline
    Policy {
        /// To whom
        #[arg(value_enum, default_value_t)]
        to: PolicyOf,
    },
    /// Show on one screen what is deployed, what it has counted lately, and what is wrong
    Status {
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: EventFormat,
    },
    /// Upload a small object, wait until it is counted, and remove both: the proof that a deployment works
    Verify {
        /// How long to wait for the count, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = VERIFY_SECONDS, value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: u64,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: EventFormat,
    },
    /// Send objects that lie in the bucket already through the function; what is counted is left out
    Backfill {
        /// Only keys that begin so; the notification's prefix, or longer
        #[arg(long, value_name = "PREFIX")]
        prefix: Option<String>,
        /// Only objects that S3 got from this time on: 2015-08-04, 2015-08-04T12:00:00Z, yesterday
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Only objects that S3 got before this time
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// The zone in which times without one are: Europe/Berlin [default: UTC]
        #[arg(long, value_name = "ZONE")]
        tz: Option<String>,
        /// Only keys behind this one: where a run before has said so
        #[arg(long, value_name = "KEY")]
        start_after: Option<String>,
        /// Objects to send in a second, at most
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate: u32,
        /// Say what would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not wait until what was sent is counted
        #[arg(long)]
        no_wait: bool,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: EventFormat,
    },
    /// Run what lies in the failure queue again; what is counted then is removed from it
    Replay {
        /// Show what lies there, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Show what lies there, ask, and delete it without counting it
        #[arg(long, conflicts_with = "dry_run")]
        purge: bool,
        /// With --purge: do not ask
        #[arg(long, requires = "purge")]
        yes: bool,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: EventFormat,
    },
    /// Print a JSON Schema
    Schema {
        /// Of what
        #[arg(value_enum)]
        of: SchemaOf,
    },
    /// Print a script that completes the command line
    Completions {
        /// For which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print how often events happened
    Query {
        /// The events' names
        #[arg(required = true, value_name = "EVENT")]
        events: Vec<String>,
        /// Of what time
        #[command(flatten)]
        period: Period,
        /// Compare with the period before, of the same length
        #[arg(long)]
        compare: bool,
        /// See what was counted up to this moment, at twice the price of reading
        #[arg(long)]
        consistent: bool,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Serve a page with charts of the counts, or write it into a file
    Dashboard {
        /// Where to listen; nobody else reaches the machine's own 127.0.0.1
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", conflicts_with = "out")]
        listen: SocketAddr,
        /// A name by which it may be asked, beside addresses and localhost; may be given again
        #[arg(long = "host", value_name = "NAME", conflicts_with = "out")]
        hosts: Vec<String>,
        /// Write the page into this file, which needs nothing else, and end
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Draw this event; may be given again [default: the most frequent ones]
        #[arg(long = "event", value_name = "EVENT")]
        events: Vec<String>,
        /// Of what time [default: the last 7 days]
        #[command(flatten)]
        period: Period,
        /// Compare with the period before
        #[arg(long)]
        compare: bool,
    },
    /// Print the names of all events that were ever counted
    Events {
        /// How to print them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print what files would add to the counts; talks to nobody
    Rollup {
        /// Segment's files, gzipped or not; - is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Count messages of this type; may be given again [default: rollup.count of the declaration, or track]
        #[arg(long, value_name = "TYPE")]
        count: Vec<String>,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: RollupFormat,
    },
    /// Print the most frequent events, beside the period before
    Top {
        /// Of what time
        #[command(flatten)]
        period: Period,
        /// How many events to print
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        limit: usize,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// What is allowed beyond the declaration.
#[derive(Debug, Clone, Copy, Args)]
pub struct Allow {
    /// Take over what exists under a declared name and is nobody's
    #[arg(long)]
    pub adopt: bool,
    /// Delete what the pipeline owns and no longer declares, if it holds no data
    #[arg(long)]
    pub prune: bool,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one document
    Json,
    /// For a comment on a pull request
    Markdown,
}

/// How what is done is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum EventFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one object, or for what goes on, one a line
    Json,
}

/// For whom a policy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PolicyOf {
    /// Who runs plan, apply and destroy
    #[default]
    Deployer,
    /// Who runs query, events, top and dashboard
    Reader,
    /// Who runs status, verify, backfill and replay
    Operator,
}

/// How long `verify` waits. Counting takes a second or two; a bucket's new notification, up to five minutes (S3 user guide,
/// enabling event notifications).
pub const VERIFY_SECONDS: u64 = 330;

/// What a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// pipeline.toml
    Pipeline,
    /// What plan --format json prints
    Plan,
    /// Each line that apply --format json prints
    Events,
}

/// A span of time; hours that it touches are counted whole.
#[derive(Debug, Clone, Args)]
pub struct Period {
    /// Up to now, from so long ago: 90m, 24h, 7d, 12mo [default: 24h]
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["from", "to"])]
    pub last: Option<String>,
    /// From this time on: 2015-08-04, 2015-08-04T12:00:00Z, today, yesterday
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Until before this time [default: now]
    #[arg(long, value_name = "TIME", requires = "from")]
    pub to: Option<String>,
    /// The parts by which counts are shown [default: hour]
    #[arg(long, value_enum)]
    pub by: Option<By>,
    /// The zone whose days, weeks and months these are, and in which times without one are: Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub tz: Option<String>,
}

/// Parts of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum By {
    /// Hours
    Hour,
    /// Days
    Day,
    /// Weeks, from Monday
    Week,
    /// Months
    Month,
}

impl By {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// How a rollup is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum RollupFormat {
    /// Event, hour and count between tabs, sorted; tabs, newlines and backslashes in names as \t, \n, \r, \\
    #[default]
    Tsv,
    /// For people
    Table,
    /// For programs
    Json,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// For spreadsheets
    Csv,
    /// For shells: tabs between the fields; tabs, newlines and backslashes in names as \\t, \\n, \\r, \\\\
    Tsv,
}
