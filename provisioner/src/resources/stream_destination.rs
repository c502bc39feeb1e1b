//! The stream destination: DynamoDB copies every change of the ledger to the stream.
//!
//! It is a setting of the table. Its name is that of the stream, so that an orphaned stream leads to it: it is disabled
//! before the stream is deleted.

use aws_sdk_dynamodb::types::{DestinationStatus, KinesisDataStreamDestination};

use super::stream::Stream;
use super::table::Table;
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, retry_while, wait_until};
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange};
use crate::reconcile::ownership::Ownership;
use crate::reconcile::protection::Refusal;
use crate::reconcile::resource::{Address, IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The time limit in seconds. DynamoDB enables and disables a destination within a minute or two.
const DESTINATION_DEADLINE: u64 = 300;
const NOT_FOUND: [&str; 1] = ["ResourceNotFoundException"];
/// The service that writes to the stream. Its role is made for the first destination of an account (DynamoDB developer
/// guide, using IAM with Kinesis Data Streams).
const REPLICATION: &str = "kinesisreplication.dynamodb.amazonaws.com";

/// The desired state of the destination.
#[derive(Debug, Clone)]
pub(super) struct StreamDestination {
    /// The stream's name.
    name: String,
    stream_arn: String,
    /// The name of the ledger table.
    table: String,
    table_arn: String,
    /// The ARN pattern of the role with which DynamoDB writes to the stream.
    service_role: String,
    depends_on: Vec<Address>,
}

/// The live state of the table's destinations.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// True if the table copies to the stream.
    is_enabled: bool,
    /// The ARN of another stream to which the table copies.
    other: Option<String>,
}

/// Returns whether the table copies to the destination, or will.
fn is_on(destination: &KinesisDataStreamDestination) -> bool {
    matches!(
        destination.destination_status,
        Some(DestinationStatus::Enabling | DestinationStatus::Active | DestinationStatus::Updating)
    )
}

/// Returns whether the table copies to the destination no more.
fn is_off(destination: &KinesisDataStreamDestination) -> bool {
    !is_on(destination) && destination.destination_status != Some(DestinationStatus::Disabling)
}

/// Returns whether the table or its destination is being changed. A destination that is not in the state for a change
/// has no error code of its own (aws-cdk#16393, cloudformation-coverage-roadmap#707).
fn is_changing(error: &AwsError) -> bool {
    error.code() == Some("ResourceInUseException") || error.says("ValidationException", "not in a valid state")
}

impl StreamDestination {
    /// Reads the destinations of the table, or `None` if the table is absent.
    async fn destinations(&self, aws: &Aws) -> Result<Option<Vec<KinesisDataStreamDestination>>, AwsError> {
        let answer = aws.dynamodb.describe_kinesis_streaming_destination().table_name(&self.table).send().await;
        let answer = absent_on(answer.call("dynamodb:DescribeKinesisStreamingDestination"), &NOT_FOUND)?;
        Ok(answer.map(|answer| answer.kinesis_data_stream_destinations.unwrap_or_default()))
    }

    /// Reads the destination that is the stream.
    async fn own(&self, aws: &Aws) -> Result<Option<KinesisDataStreamDestination>, AwsError> {
        let all = self.destinations(aws).await?.unwrap_or_default();
        // One that was disabled before stays in the list for a while.
        Ok(all.into_iter().filter(|destination| self.is_own(destination)).min_by_key(|destination| !is_on(destination)))
    }

    fn is_own(&self, destination: &KinesisDataStreamDestination) -> bool {
        destination.stream_arn.as_deref() == Some(self.stream_arn.as_str())
    }

    async fn is_enabled(&self, aws: &Aws) -> Result<bool, AwsError> {
        Ok(self.own(aws).await?.is_some_and(|destination| is_on(&destination)))
    }
}

impl Kind for StreamDestination {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let declared = context.pipeline.stream.iter();
        declared.filter_map(|stream| Self::with_name(context, &stream.name)).collect()
    }

    /// Returns the stream's name: a destination accompanies its stream.
    fn name_from_arn(arn: &str) -> Option<String> {
        Stream::name_from_arn(arn)
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let (account, table) = (context.account, &context.pipeline.table.ledger);
        Some(Self {
            name: name.to_owned(),
            stream_arn: account.stream_arn(name),
            table: table.clone(),
            table_arn: account.table_arn(table),
            service_role: account.service_role_arn(REPLICATION),
            depends_on: vec![Address::of::<Table>(table), Address::of::<Stream>(name)],
        })
    }
}

impl Resource for StreamDestination {
    const NAME: &'static str = "stream destination";
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    /// Returns the table's ARN: the destination is a setting of the table.
    fn arn(&self) -> String {
        self.table_arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        let table = IamActions {
            resource: self.table_arn.clone(),
            read: &["dynamodb:DescribeKinesisStreamingDestination"],
            create: &["dynamodb:EnableKinesisStreamingDestination"],
            delete: &["dynamodb:DisableKinesisStreamingDestination"],
            ..IamActions::default()
        };
        // DynamoDB checks the caller's permissions on the stream (DynamoDB developer guide, using IAM with Kinesis Data
        // Streams), and makes its role with those of the caller.
        let stream = IamActions {
            resource: self.stream_arn.clone(),
            read: &["kinesis:DescribeStreamSummary"],
            create: &["kinesis:DescribeStream", "kinesis:PutRecords"],
            ..IamActions::default()
        };
        // The list of streams has no resource-level permissions (service authorization reference).
        let streams =
            IamActions { resource: "*".to_owned(), create: &["kinesis:ListStreams"], ..IamActions::default() };
        let role = IamActions {
            resource: self.service_role.clone(),
            create: &["iam:CreateServiceLinkedRole"],
            ..IamActions::default()
        };
        vec![table, stream, streams, role]
    }

    fn depends_on(&self) -> Vec<Address> {
        self.depends_on.clone()
    }

    /// Returns `Owned`: it is of the pipeline's table.
    fn ownership(&self, _live: &Live) -> Ownership {
        Ownership::Owned
    }

    fn exists(live: &Live) -> bool {
        live.is_enabled
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let Some(destinations) = self.destinations(aws).await? else { return Ok(None) };
        let mut live = Live::default();
        for destination in destinations.into_iter().filter(is_on) {
            if self.is_own(&destination) {
                live.is_enabled = true;
            } else {
                live.other = destination.stream_arn;
            }
        }
        Ok(Some(live))
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        let other = live.other.as_ref().filter(|_| !live.is_enabled)?;
        let table = &self.table;
        Some(Refusal::new(
            format!("cannot be enabled: table {table} copies its changes to {other}, and DynamoDB allows one stream"),
            format!(
                "disable it: aws dynamodb disable-kinesis-streaming-destination --table-name {table} --stream-arn \
                 {other}; or restore its name in [stream]"
            ),
        ))
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        Diff::new().compare("table", live.map(|_| &self.table), &self.table)
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step.aws.dynamodb.enable_kinesis_streaming_destination().table_name(&self.table);
        let request = request.stream_arn(&self.stream_arn);
        let waiting = step.wait(format!("table {} to accept a destination", self.table), DESTINATION_DEADLINE);
        retry_while(waiting, is_changing, || async {
            match request.clone().send().await.call("dynamodb:EnableKinesisStreamingDestination") {
                // An attempt whose answer was lost has enabled it, or a concurrent run.
                Err(error) if is_changing(&error) && self.is_enabled(step.aws).await? => Ok(()),
                result => result.map(drop).map_err(ResourceError::from),
            }
        })
        .await?;
        let waiting = step.wait(format!("stream destination {} to become ACTIVE", self.name), DESTINATION_DEADLINE);
        wait_until(waiting, || async {
            let own = self.own(step.aws).await?;
            let status = own.as_ref().and_then(|own| own.destination_status.as_ref());
            if status == Some(&DestinationStatus::EnableFailed) {
                let why = own.as_ref().and_then(|own| own.destination_status_description.as_deref());
                let why = why.filter(|why| !why.is_empty()).unwrap_or("DynamoDB gives no reason");
                let message = format!("failed to enable stream destination {}: ENABLE_FAILED: {why}", self.name);
                return Err(Error::conflict(message, "correct the cause, then run the command again").into());
            }
            Ok((status == Some(&DestinationStatus::Active)).then_some(()))
        })
        .await
    }

    /// Does nothing: a destination is enabled or not.
    async fn update(
        &self,
        _step: &StepContext<'_>,
        _live: &Live,
        _changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        Ok(())
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        let request = step.aws.dynamodb.disable_kinesis_streaming_destination().table_name(&self.table);
        let request = request.stream_arn(&self.stream_arn);
        let waiting = step.wait(format!("table {} to release its destination", self.table), DESTINATION_DEADLINE);
        retry_while(waiting, is_changing, || async {
            match request.clone().send().await.call("dynamodb:DisableKinesisStreamingDestination") {
                // An attempt whose answer was lost has disabled it, or a concurrent run.
                Err(error) if is_changing(&error) && !self.is_enabled(step.aws).await? => Ok(()),
                result => absent_on(result, &NOT_FOUND).map(drop).map_err(ResourceError::from),
            }
        })
        .await?;
        let waiting = step.wait(format!("stream destination {} to be disabled", self.name), DESTINATION_DEADLINE);
        wait_until(waiting, || async {
            let own = self.own(step.aws).await?;
            Ok(own.is_none_or(|own| is_off(&own)).then_some(()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    #[test]
    fn destination_as_created_is_in_sync() {
        assert_in_sync::<StreamDestination>(|_| Live { is_enabled: true, other: None });
    }

    #[test]
    fn table_that_copies_to_another_stream_is_a_conflict() {
        let spec = declared::<StreamDestination>("[stream]").remove(0);
        let live = |is_enabled: bool| Live { is_enabled, other: Some("arn:other".to_owned()) };
        assert!(spec.refusal(&live(false)).is_some_and(|refusal| refusal.why.contains("arn:other")));
        assert!(spec.refusal(&live(true)).is_none());
        assert!(!StreamDestination::exists(&live(false)));
    }

    #[test]
    fn destination_is_found_by_its_stream_and_deleted_before_it() {
        let arn = "arn:aws:kinesis:eu-central-1:123456789012:stream/old";
        assert_eq!(StreamDestination::name_from_arn(arn).as_deref(), Some("old"));
        let spec = declared::<StreamDestination>("[stream]").remove(0);
        assert_eq!(spec.depends_on(), [Address::of::<Table>("events-ledger"), Address::of::<Stream>("events-stream")]);
    }
}
