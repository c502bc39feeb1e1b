//! Pauses counting, and resumes it: notifications wait in the queue meanwhile.

use std::time::Duration;

use crate::aws::{Call, Session, Wait, retry_while};
use crate::config::Via;
use crate::error::Error;
use crate::resources::Context;
use crate::resources::event_source_mapping::{self, CHANGE_DEADLINE, is_changing};

/// The state of the delivery: the function takes notifications from the queue, or does not.
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
        let context = Context { pipeline: self.pipeline, account: &self.account, artifacts: None };
        let id = event_source_mapping::id(&self.aws, &context).await;
        let find = "find the event source mapping of queue";
        let id = id.map_err(|error| error.on(find, queue))?.ok_or_else(|| {
            Error::not_found(
                format!("failed to {find} {queue}: there is none"),
                "run `provisioner apply`, which creates it",
            )
        })?;
        let request = self.aws.lambda.update_event_source_mapping().uuid(id).enabled(counting == Counting::Running);
        let what = "the mapping to accept a change".to_owned();
        let waiting = Wait { what, deadline: Duration::from_secs(CHANGE_DEADLINE), on_wait: &|_, _| {} };
        let changed = retry_while(waiting, is_changing, || async {
            request.clone().send().await.call("lambda:UpdateEventSourceMapping")
        });
        changed.await.map(drop).map_err(|error| error.on("change the event source mapping of queue", queue))
    }
}
