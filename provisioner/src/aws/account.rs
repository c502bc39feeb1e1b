//! The account, the region and the caller.

use super::clients::Aws;
use super::error::Call;
use crate::config::{Pipeline, partition};
use crate::error::Error;

/// An account and a region in it, and the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// The partition, such as `aws` or `aws-cn`.
    pub(crate) partition: String,
    /// The region.
    pub(crate) region: String,
    /// The account's 12 digits.
    pub(crate) id: String,
    /// The ARN of the caller; empty if AWS was not asked.
    pub(crate) caller: String,
}

impl Account {
    /// Returns the account that the file names, without a caller, or `None` if it names none.
    pub(crate) fn declared(pipeline: &Pipeline) -> Option<Self> {
        Some(Self {
            partition: partition(&pipeline.region).to_owned(),
            region: pipeline.region.clone(),
            id: pipeline.account.clone()?,
            caller: String::new(),
        })
    }

    /// Asks AWS for the caller's identity and refuses an account other than the one that the file names.
    ///
    /// # Errors
    /// This is the first call of a run, so missing credentials, a wrong endpoint and a broken network fail here.
    pub(crate) async fn caller_identity(aws: &Aws, pipeline: &Pipeline) -> Result<Self, Error> {
        let doing = "read the identity of the caller";
        let answer = aws.sts.get_caller_identity().send().await.call("sts:GetCallerIdentity");
        let identity = answer.map_err(|error| error.while_doing(doing))?;
        let id = identity.account.ok_or_else(|| Error::incomplete_answer(doing, "account"))?;
        let caller = identity.arn.ok_or_else(|| Error::incomplete_answer(doing, "ARN"))?;
        let partition = caller.split(':').nth(1).filter(|partition| !partition.is_empty()).unwrap_or("aws").to_owned();
        if let Some(expected) = &pipeline.account
            && *expected != id
        {
            return Err(Error::conflict(
                format!("pipeline.toml names account {expected}, but the credentials belong to account {id}"),
                "set AWS_PROFILE or the credentials of the right account",
            ));
        }
        Ok(Self { partition, region: pipeline.region.clone(), id, caller })
    }
}
