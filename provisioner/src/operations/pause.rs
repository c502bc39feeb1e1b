//! Pauses counting, and resumes it: notifications wait in the queue meanwhile.

use std::time::Duration;

use super::failed;
use crate::aws::{AwsError, Call, Session, Wait, retry_while};
use crate::config::Via;
use crate::error::Error;

/// The time limit for Lambda to finish an earlier change of the mapping.
const CHANGE_DEADLINE: Duration = Duration::from_secs(120);

/// Whether the function takes notifications from the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    Paused,
    Running,
}

impl Session<'_> {
    /// Disables or enables the event source mapping.
    ///
    /// # Errors
    /// A usage error without a queue; the mapping does not exist; an error of Lambda.
    pub(crate) async fn set_counting(&self, counting: Counting) -> Result<(), Error> {
        let notification = &self.pipeline.notification;
        if notification.via == Via::Function {
            return Err(Error::usage(
                "notifications go to the function directly, and cannot wait",
                "set notification.via = \"queue\" in pipeline.toml and run `provisioner apply`",
            ));
        }
        let queue = &notification.queue;
        let request = self.aws.lambda.list_event_source_mappings().event_source_arn(self.account.queue_arn(queue));
        let answer = request.send().await.call("lambda:ListEventSourceMappings");
        let doing = || format!("find the event source mapping of queue {queue}");
        let mappings = answer.map_err(|error| failed(doing())(error))?.event_source_mappings.unwrap_or_default();
        let id = mappings.into_iter().find_map(|mapping| mapping.uuid).ok_or_else(|| {
            let message = format!("failed to {}: there is none", doing());
            Error::not_found(message, "run `provisioner apply`, which creates it")
        })?;
        let request = self.aws.lambda.update_event_source_mapping().uuid(id).enabled(counting == Counting::Running);
        let what = "the mapping to accept a change".to_owned();
        let waiting = Wait { what, deadline: CHANGE_DEADLINE, on_wait: &|_, _| {} };
        let is_busy =
            |error: &AwsError| matches!(error.code(), Some("ResourceInUseException" | "ResourceConflictException"));
        let changed = retry_while(waiting, is_busy, || async {
            request.clone().send().await.call("lambda:UpdateEventSourceMapping")
        });
        changed.await.map(drop).map_err(|error| error.on("change the event source mapping of queue", queue))
    }
}
