//! A pipeline with the clients and the account of its deployment.

use super::{Account, Aws};
use crate::config::Pipeline;
use crate::error::Error;

/// The clients, the account and the declared pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Session<'a> {
    /// The clients.
    pub(crate) aws: Aws,
    /// The account and the region.
    pub(crate) account: Account,
    /// The desired state.
    pub(crate) pipeline: &'a Pipeline,
}

impl<'a> Session<'a> {
    /// Connects, and refuses an account other than the pipeline's.
    ///
    /// # Errors
    /// Those of [`Aws::connect`] and [`Account::caller_identity`].
    pub(crate) async fn connect(pipeline: &'a Pipeline) -> Result<Self, Error> {
        let aws = Aws::connect(pipeline).await?;
        let account = Account::caller_identity(&aws, pipeline).await?;
        Ok(Self { aws, account, pipeline })
    }
}
