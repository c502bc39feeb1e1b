//! Arguments that several commands share.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::{self, Pipeline};
use crate::error::Error;
use crate::reconcile::plan::PlanOptions;
use crate::shutdown::Shutdown;

/// The default file, if neither --config nor PIPELINE_CONFIG is set.
pub(super) const DEFAULT_CONFIG: &str = "pipeline.toml";

/// The arguments of every command.
#[derive(Debug, clap::Args)]
pub(super) struct Global {
    /// File with the desired state, - for stdin [env: PIPELINE_CONFIG] [default: pipeline.toml]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Overlay the file with its [environments.NAME] [env: PIPELINE_ENV]
    #[arg(long = "env", value_name = "NAME", global = true)]
    environment: Option<String>,
}

/// Returns the value of an environment variable; an empty value counts as unset.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl Global {
    /// Returns the arguments that an unfinished command line has.
    pub(super) fn unfinished(words: &[OsString]) -> Self {
        let value = |flag: &str| {
            words.iter().enumerate().find_map(|(at, word)| match word.to_str()?.strip_prefix(flag)? {
                "" => words.get(at + 1).cloned(),
                rest => rest.strip_prefix('=').map(OsString::from),
            })
        };
        let environment = value("--env").map(|name| name.to_string_lossy().into_owned());
        Self { config: value("--config").map(PathBuf::from), environment }
    }

    /// Returns whether the file is the standard input.
    pub(super) fn is_stdin(&self) -> bool {
        config::is_stdin(&self.config())
    }

    /// Returns the path of the configuration file.
    pub(super) fn config(&self) -> PathBuf {
        let from_variable = || variable("PIPELINE_CONFIG").map(PathBuf::from);
        self.config.clone().or_else(from_variable).unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG))
    }

    /// Loads the configuration file with the chosen environment.
    ///
    /// # Errors
    /// [`config::load`]
    pub(super) fn load(&self) -> Result<Pipeline, Error> {
        let (environment, named_by) = match &self.environment {
            Some(name) => (Some(name.clone()), "--env"),
            None => (variable("PIPELINE_ENV").map(|name| name.to_string_lossy().into_owned()), "PIPELINE_ENV"),
        };
        config::load(&self.config(), environment.as_deref(), named_by)
    }
}

/// Options of a plan.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct PlanFlags {
    /// Take over unmanaged resources that have a declared name
    #[arg(long)]
    adopt: bool,
    /// Delete orphaned resources that hold no data
    #[arg(long)]
    prune: bool,
}

impl From<PlanFlags> for PlanOptions {
    fn from(PlanFlags { adopt, prune }: PlanFlags) -> Self {
        Self { adopt, prune }
    }
}

/// Runs work that changes nothing, unless a signal arrives first.
///
/// # Errors
/// The error of the work, or an [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted) error.
pub(super) async fn unless_stopped<T>(
    shutdown: &Shutdown,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    shutdown.or_shutdown(work).await.unwrap_or_else(|signal| {
        let message = format!("{signal}: stopped; nothing was changed");
        Err(Error::interrupted(signal.exit_code(), message, "run the command again"))
    })
}

/// Listens for signals.
///
/// # Errors
/// The operating system refuses the signal handlers.
pub(super) fn listen() -> Result<Shutdown, Error> {
    Shutdown::listen().map_err(|source| Error::io("listen for signals", "run the command again", &source))
}
