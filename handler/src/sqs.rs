//! The queue of notifications, to which a message returns that a batch leaves no time for.

use std::future::Future;

use counting::notification::Message;
use counting::protocol::StoreError;

use crate::error::sdk_error;

/// A queue that takes messages back.
pub trait PutBack: Sync {
    /// Sends a message again.
    fn put_back(&self, message: &Message) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Queues in Amazon SQS.
#[derive(Debug, Clone)]
pub struct Queues {
    client: aws_sdk_sqs::Client,
}

impl Queues {
    /// Creates a sender that uses this client.
    #[must_use]
    pub fn new(client: aws_sdk_sqs::Client) -> Self {
        Self { client }
    }
}

impl PutBack for Queues {
    async fn put_back(&self, message: &Message) -> Result<(), StoreError> {
        // The last part of the ARN is the queue's name (SQS developer guide, queue ARNs).
        let name = message.queue_arn.rsplit(':').next().unwrap_or_default();
        let url = self.client.get_queue_url().queue_name(name).send().await;
        let url = url.map_err(|error| sdk_error("sqs:GetQueueUrl", &error))?.queue_url;
        let request = self.client.send_message().set_queue_url(url).message_body(&message.body);
        request.send().await.map(|_| ()).map_err(|error| sdk_error("sqs:SendMessage", &error))
    }
}
